"""Blobs that are wanted of a pack, each as one short string of bytes, since there may be millions; and reading them.

A string is the blob's place and id, which sort as the blobs lie in the pack, and a note of what it is for.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.crypto import Key
from symbiont_datad.restic.errors import Damaged, RepositoryError, Unavailable
from symbiont_datad.restic.index import Place
from symbiont_datad.restic.opening import Sealed, open_blob, open_blobs

_AT_ONCE = 4 << 20
"""Bytes that are read in one go; a blob is never divided."""
_GAP = 512 << 10
"""Unwanted bytes between two blobs that are read all the same, instead of asking twice."""
_OPENED = 1 << 20
"""Bytes that are opened at once, or a single blob where that is more."""

_HEAD = struct.Struct(">III32s")  # offset, length, plain length, blob; big-endian, so that bytes sort by offset
_ID = 32


class Got(NamedTuple):
    """A blob that was wanted: what was wanted of it, and its plaintext, or why that can't be had."""

    wanted: list[bytes]
    plain: bytes | str


def want(blob: bytes, place: Place, note: bytes) -> bytes:
    """What is kept of a wish."""
    return _HEAD.pack(place.offset, place.length, place.plain_length, blob) + note


def blob_of(wanted: bytes) -> bytes:
    """The id of the blob that is wanted."""
    return wanted[_HEAD.size - _ID : _HEAD.size]


def note_of(wanted: bytes) -> bytes:
    """What it is wanted for."""
    return wanted[_HEAD.size :]


def groups(wanted: list[bytes]) -> Iterator[list[bytes]]:
    """What is wanted of one pack, in order, in groups that are read at once."""
    group: list[bytes] = []
    start = end = 0
    for item in wanted:
        offset, length, _, _ = _HEAD.unpack_from(item)
        if group and (offset - end > _GAP or offset + length - start > _AT_ONCE):
            yield group
            group = []
        if not group:
            start = offset
        group.append(item)
        end = offset + length
    yield group


def read_group(backend: Backend, key: Key, name: str, group: list[bytes]) -> Iterator[Got]:
    """Read one piece of a pack, and open the blobs in it, each once. Raises Unavailable."""
    offset, length = _HEAD.unpack_from(group[-1])[:2]
    start: int = _HEAD.unpack_from(group[0])[0]
    try:
        data = memoryview(backend.load(FileKind.DATA, name, start, offset + length - start))
    except Unavailable:
        raise
    except RepositoryError as error:
        for blobs in _batches(group):
            yield from (Got(wanted, str(error)) for wanted in blobs.values())
        return
    for blobs in _batches(group):
        opened = _open(key, name, data, start, list(blobs))
        for wanted, plain in zip(blobs.values(), opened, strict=True):
            yield Got(wanted, plain)


def _batches(group: list[bytes]) -> Iterator[dict[bytes, list[bytes]]]:
    """What is wanted of a group, blob by blob; as many blobs as are opened at once."""
    blobs: dict[bytes, list[bytes]] = {}
    size = 0
    for wanted in group:
        head = wanted[: _HEAD.size]
        if head in blobs:
            blobs[head].append(wanted)
            continue
        _, length, plain_length, _ = _HEAD.unpack(head)
        size += max(length, plain_length)
        if blobs and size > _OPENED:
            yield blobs
            blobs, size = {}, max(length, plain_length)
        blobs[head] = [wanted]
    yield blobs


def _open(key: Key, name: str, data: memoryview, start: int, heads: list[bytes]) -> list[bytes | str]:
    """Each blob's plaintext, or why it can't be had."""
    sealed: list[Sealed] = []
    for head in heads:
        offset, length, plain_length, blob = _HEAD.unpack(head)
        sealed.append((blob, data[offset - start : offset - start + length], plain_length))
    try:
        return list(open_blobs(key, sealed))
    except Damaged:
        return [_open_one(key, name, *one) for one in sealed]


def _open_one(key: Key, name: str, blob: bytes, sealed: bytes | memoryview, plain_length: int) -> bytes | str:
    try:
        return open_blob(key, blob, sealed, plain_length)
    except Damaged as error:
        return f"data/{name}: {error}"
