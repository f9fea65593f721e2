"""Opening blobs as they lie in a pack: decrypted, unpacked, and compared with the hash that is their id."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from symbiont_datad.restic.compression import decompress, decompress_many
from symbiont_datad.restic.crypto import Key
from symbiont_datad.restic.errors import Damaged

Sealed = tuple[bytes, bytes | memoryview, int]
"""A blob's id, the blob as it lies in its pack, and its plain length; 0: it is not compressed."""


def open_blob(key: Key, blob: bytes, sealed: bytes | memoryview, plain_length: int) -> bytes:
    """The plaintext of a blob. Raises Damaged."""
    plain = key.open(sealed)
    if plain_length:
        plain = decompress(plain, plain_length)
    if sha256(plain).digest() != blob:
        raise Damaged(f"blob {blob.hex()} has other content than its name says")
    return plain


def open_blobs(key: Key, sealed: Sequence[Sealed]) -> Iterator[bytes]:
    """The plaintexts of many blobs. Raises Damaged when any of them is.

    Other threads run while all are unpacked, where one after the other would have them wait for each other.
    """
    if len(sealed) == 1:  # a large one, of which no copy is made
        yield open_blob(key, *sealed[0])
        return
    opened = [key.open(one) for _, one, _ in sealed]
    sizes = [size for _, _, size in sealed if size]
    frames = [frame for frame, (_, _, size) in zip(opened, sealed, strict=True) if size]
    unpacked = iter(decompress_many(frames, sizes))
    for (blob, _, size), content in zip(sealed, opened, strict=True):
        plain = bytes(next(unpacked)) if size else content
        if sha256(plain).digest() != blob:
            raise Damaged(f"blob {blob.hex()} has other content than its name says")
        yield plain
