"""Packs: many sealed blobs in one file, with a sealed header at its end.

`blob1 … blobN || sealed header || uint32 length of the sealed header`, numbers little-endian. A header entry is the
blob's kind, its length as sealed, its plain length if it is compressed, and the SHA-256 of its plaintext.

Source: restic `doc/design.rst`, "Pack Format".
"""

import struct
from enum import IntEnum
from typing import Literal, NamedTuple

from symbiont_datad.restic.crypto import OVERHEAD, Buffer, Key
from symbiont_datad.restic.errors import Damaged

TARGET_SIZE = 16 << 20
"""A pack is closed when it has reached this size (bytes)."""

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_LENGTH = struct.Struct("<I")


class BlobType(IntEnum):
    """What a blob holds. The number is that of a header's entry for a blob that is not compressed."""

    DATA = 0
    TREE = 1

    @property
    def word(self) -> Literal["data", "tree"]:
        """The name that index files use."""
        return "tree" if self is BlobType.TREE else "data"


class PackedBlob(NamedTuple):
    """A blob's place in its pack. `length` as sealed, `plain_length` 0 when it is not compressed; both in bytes."""

    id: bytes
    type: BlobType
    offset: int
    length: int
    plain_length: int

    @property
    def size(self) -> int:
        """The size of its plaintext in bytes."""
        return self.plain_length or self.length - OVERHEAD


class Packer:
    """A pack that grows in memory: one buffer, because thousands of small pieces would take more than they hold."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.blobs: list[PackedBlob] = []

    @property
    def size(self) -> int:
        """Bytes so far."""
        return len(self.content)

    def add(self, blob_id: bytes, kind: BlobType, sealed: Buffer, plain_length: int) -> None:
        """Append a sealed blob; `plain_length` is 0 when it was not compressed."""
        self.blobs.append(PackedBlob(blob_id, kind, len(self.content), len(sealed), plain_length))
        self.content += sealed

    def absorb(self, other: "Packer") -> None:
        """Append all blobs of another packer."""
        with memoryview(other.content) as view:
            for blob in other.blobs:
                self.add(blob.id, blob.type, view[blob.offset : blob.offset + blob.length], blob.plain_length)

    def finish(self, key: Key) -> bytearray:
        """The whole pack. Nothing may be added after that."""
        entries = [header_entry(blob.id, blob.type, blob.length, blob.plain_length) for blob in self.blobs]
        header = key.seal(b"".join(entries))
        self.content += header
        self.content += _LENGTH.pack(len(header))
        return self.content


def header_size(blobs: int, compressed: int) -> int:
    """The bytes that a header for so many blobs takes in its pack, `compressed` of which are compressed."""
    return OVERHEAD + _LENGTH.size + (blobs - compressed) * _PLAIN.size + compressed * _COMPRESSED.size


def header_length(tail: Buffer, pack_size: int) -> int:
    """How many bytes at the end of a pack are its header, by the pack's last 4 bytes. Raises Damaged."""
    if len(tail) != _LENGTH.size:
        raise Damaged(f"the pack has only {pack_size} bytes")
    sealed: int = _LENGTH.unpack(tail)[0]
    if not OVERHEAD + _PLAIN.size <= sealed <= pack_size - _LENGTH.size:
        raise Damaged(f"the pack's header can't have {sealed} bytes")
    return sealed + _LENGTH.size


def read_header(end: Buffer, key: Key) -> list[PackedBlob]:
    """The blobs that a header names. `end` are the pack's last `header_length` bytes. Raises Damaged."""
    return parse_header(open_header(end, key))


def open_header(end: Buffer, key: Key) -> bytes:
    """The entries of a header, as they stand in it. `end` as for `read_header`. Raises Damaged."""
    return key.open(memoryview(end)[: -_LENGTH.size])


def parse_header(text: bytes) -> list[PackedBlob]:
    """The blobs that the entries of a header name. Raises Damaged."""
    blobs = []
    types = tuple(BlobType)
    offset = at = 0
    try:
        while at < len(text):
            kind = text[at]
            if kind > 3:
                raise Damaged(f"the pack's header names a blob of kind {kind}")
            entry = _COMPRESSED if kind & 2 else _PLAIN
            fields = entry.unpack_from(text, at)
            at += entry.size
            length = fields[1]
            blobs.append(PackedBlob(fields[-1], types[kind & 1], offset, length, fields[2] if kind & 2 else 0))
            offset += length
    except struct.error:
        raise Damaged("the pack's header ends in the middle of an entry") from None
    return blobs


def header_entry(blob_id: bytes, kind: int, length: int, plain_length: int) -> bytes:
    """The entry of one blob in a header; `plain_length` is 0 when it is not compressed."""
    if plain_length:
        return _COMPRESSED.pack(kind + 2, length, plain_length, blob_id)
    return _PLAIN.pack(kind, length, blob_id)
