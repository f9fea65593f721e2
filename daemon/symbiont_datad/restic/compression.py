"""zstd, with one context a thread: setting one up costs more than a small blob."""

import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import zstandard

from symbiont_datad.restic.crypto import Buffer
from symbiont_datad.restic.errors import Damaged

LARGEST = 1 << 30
"""Bytes to which a file of the repository may unpack; more is refused."""

_STEP = 1 << 20
"""Bytes that room is made for at a time: most files are far smaller than the largest one may be."""

_local = threading.local()


def compress(data: Buffer, level: int, *, checksum: bool = False) -> bytes:
    """The data as one zstd frame."""
    compressors: dict[tuple[int, bool], zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    found = compressors.get((level, checksum))
    if found is None:
        found = compressors[level, checksum] = zstandard.ZstdCompressor(level=level, write_checksum=checksum)
    return found.compress(data)


def compress_stream(pieces: Iterable[Buffer], level: int, *, size: int = -1, checksum: bool = False) -> Iterator[bytes]:
    """The data as one zstd frame, which comes in pieces. It says its size in bytes if that is given."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compressobj(size=size)
    for piece in pieces:
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()


def decompress_stream(data: Buffer) -> Iterator[bytes]:
    """What a frame holds, a MiB at a time. Raises Damaged."""
    stream = zstandard.ZstdDecompressor().stream_reader(data)  # its own: others are used between two pieces
    try:
        while piece := stream.read(_STEP):
            yield piece
    except zstandard.ZstdError as error:
        raise Damaged(f"compressed data can't be unpacked ({error})") from None


def decompress(data: Buffer, size: int) -> bytes:
    """What a frame holds, which must be `size` bytes. Raises Damaged."""
    try:
        plain = _decompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise Damaged(f"compressed data can't be unpacked ({error})") from None
    if len(plain) != size:
        raise Damaged(f"compressed data unpacks to {len(plain)} bytes instead of {size}")
    return plain


def decompress_many(frames: Sequence[Buffer], sizes: Sequence[int]) -> Sequence[Buffer]:
    """What many frames hold, which must be so many bytes each. Raises Damaged.

    All in one call: other threads run meanwhile, where a call for each small blob would have them wait for each other.
    """
    if not frames:
        return []
    try:
        plains = _decompressor().multi_decompress_to_buffer(
            list(frames), decompressed_sizes=array("Q", sizes).tobytes()
        )
    except (zstandard.ZstdError, ValueError) as error:
        raise Damaged(f"compressed data can't be unpacked ({error})") from None
    return cast("Sequence[Buffer]", plains)


def decompress_any(data: Buffer) -> bytes:
    """What a frame holds when nobody has said how much that is, at most `LARGEST` bytes. Raises Damaged."""
    try:
        stream = _decompressor().stream_reader(data)
        pieces, size = [], 0
        while piece := stream.read(_STEP):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST:
                raise Damaged(f"compressed data unpacks to more than {LARGEST} bytes")
    except zstandard.ZstdError as error:
        raise Damaged(f"compressed data can't be unpacked ({error})") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _decompressor() -> zstandard.ZstdDecompressor:
    try:
        found: zstandard.ZstdDecompressor = _local.decompressor
    except AttributeError:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found
