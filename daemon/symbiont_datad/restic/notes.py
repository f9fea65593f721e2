"""What the blobs of a restore are for, as the short strings that `Fetch` keeps with each.

A note begins with the number of a directory, so that those of one directory are found without reading the notes.
"""

import msgspec

from symbiont_datad.restic.metadata import Metadata
from symbiont_datad.restic.wanted import note_of

_NUMBER = 4
"""Bytes of the number; big-endian."""
_LARGE = b"\xff" * _NUMBER
"""In its place: a piece of a larger file."""


class Small(msgspec.Struct, array_like=True, gc=False):
    """A file of one blob."""

    name: bytes
    metadata: Metadata


class Piece(msgspec.Struct, array_like=True, gc=False):
    """One blob of a larger file, which the restorer has by number; `position` in the file in bytes."""

    file: int
    position: int


_encode = msgspec.msgpack.Encoder().encode
_small = msgspec.msgpack.Decoder(Small).decode
_piece = msgspec.msgpack.Decoder(Piece).decode


def small_note(directory: int, name: bytes, metadata: Metadata) -> bytes:
    """The note of a file of one blob."""
    return directory.to_bytes(_NUMBER, "big") + _encode(Small(name, metadata))


def piece_note(file: int, position: int) -> bytes:
    """The note of a piece of a larger file."""
    return _LARGE + _encode(Piece(file, position))


def directory_of(note: bytes) -> int | None:
    """The number of a small file's directory; None: it is of a piece of a larger file."""
    start = note[:_NUMBER]
    return None if start == _LARGE else int.from_bytes(start, "big")


def small_of(note: bytes) -> Small:
    """The small file that a note is of."""
    return _small(memoryview(note)[_NUMBER:])


def piece_of(note: bytes) -> Piece:
    """The piece of a larger file that a note is of."""
    return _piece(memoryview(note)[_NUMBER:])


def by_directory(group: list[bytes]) -> dict[int | None, list[bytes]]:
    """What is wanted of a piece of a pack (see `wanted`), in its order, by the directory; None: of larger files."""
    found: dict[int | None, list[bytes]] = {}
    for one in group:
        found.setdefault(directory_of(note_of(one)), []).append(one)
    return found
