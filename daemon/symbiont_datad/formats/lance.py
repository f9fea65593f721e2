"""Lance datasets: in which order one is read while others write to it, and which files a version needs.

A dataset is a directory. Files in it are written once; a version's manifest, in `_versions`, comes last, by a link or
a rename (lance `rust/lance-table/src/io/commit.rs`). A clean-up removes the data of old versions first and their
manifests last (`rust/lance/src/dataset/cleanup.rs`), so a manifest that is there does not mean that its data is:
`needed` tells what must be.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from uuid import UUID

VERSIONS = b"_versions"

_OTHERS = frozenset((b"data", b"_transactions", b"_deletions", b"_indices", b"_refs", b"tree"))
_POINTING = {name: place for place, name in enumerate((b"_refs", VERSIONS, b"tree"))}
"""What points at others is read before what it points at: tags and branches at versions, a branch's versions (they lie
in `tree/`) at the data of the dataset that it branched from."""

_FOOTER = Struct("<QHH4s")  # position of the manifest, version of the format, magic
_LENGTH = Struct("<I")
_LAST = 2**64 - 1


def is_dataset(names: Collection[bytes]) -> bool:
    """Whether a directory with these entries is a Lance dataset, or a branch of one."""
    return VERSIONS in names and not _OTHERS.isdisjoint(names)


def reading_order(names: Sequence[bytes]) -> list[bytes]:
    """The entries of a dataset in the order in which they are to be read: `_versions` before all that holds data."""
    return sorted(names, key=lambda name: _POINTING.get(name, len(_POINTING)))


def is_manifest(name: bytes) -> bool:
    """Whether an entry of `_versions` is a version. Others are hints and half-written files, which Lance passes over.

    Known of those: `.tmp…`, `….manifest#1`, `latest_version_hint.json`.
    """
    return name.endswith(b".manifest") and not name.startswith(b".")


def vanished(before: Collection[bytes], after: Collection[bytes]) -> set[bytes]:
    """The versions that one listing of `_versions` has and a later one no longer."""
    return {name for name in before if is_manifest(name)}.difference(after)


def needed(manifest: bytes) -> frozenset[bytes]:
    """The files that a version needs, as paths relative to the dataset, given the content of its manifest.

    An index whose files the manifest doesn't name is there as its directory. Files of other datasets, which a branch or
    a shallow clone refers to, are not there. Raises `ValueError` for what is no manifest that we understand. By lance
    `protos/table.proto`; numbers below are those of its fields.
    """
    paths = set[bytes]()
    for number, value in _fields(_body(manifest)):
        if number == 2:
            paths.update(_of_fragment(_bytes(value)))
        elif number == 6:
            for kind, index in _fields(_message(manifest, _int(value))):
                if kind == 1:
                    paths.update(_of_index(_bytes(index)))
    return frozenset(paths)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a version holds. `rows` are those that are not deleted; `deleted` ones still take room in `fragments` files.

    `dimension` is that of the first column of vectors, None when there is none. `written_at` in seconds since the
    epoch. `borrows`: some of its files are those of another dataset.
    """

    version: int
    rows: int
    deleted: int
    fragments: int
    dimension: int | None
    written_at: float
    borrows: bool


def summary(manifest: bytes) -> Summary:
    """What a version's manifest tells. Raises `ValueError` for what is no manifest that we understand."""
    version = physical = deleted = fragments = 0
    dimension: int | None = None
    written_at = 0.0
    borrows = False
    for number, value in _fields(_body(manifest)):
        if number == 1 and dimension is None:
            dimension = _dimension(_bytes(value))
        elif number == 2:
            fragments += 1
            for kind, inner in _fields(_bytes(value)):
                if kind == 4:
                    physical += _int(inner)
                elif kind == 3:
                    deleted += _int(dict(_fields(_bytes(inner))).get(4, 0))
        elif number == 3:
            version = _int(value)
        elif number == 7:
            moment = dict(_fields(_bytes(value)))
            written_at = _int(moment.get(1, 0)) + _int(moment.get(2, 0)) / 1e9
        elif number == 18:
            borrows = True
    return Summary(version, max(physical - deleted, 0), deleted, fragments, dimension, written_at, borrows)


_VECTOR = re.compile(rb"fixed_size_list:(?:lance\.bfloat16|halffloat|float|double|u?int8):(\d{1,9})")


def _dimension(field: bytes) -> int | None:
    found = _VECTOR.fullmatch(_bytes(dict(_fields(field)).get(5, b"")))
    return int(found[1]) if found else None


def version_of(name: bytes) -> int | None:
    """The number of a version by the name of its manifest, in either scheme; None for a detached one.

    The newer scheme counts down, so that the newest comes first in a listing (`rust/lance-table/src/io/commit.rs`).
    """
    digits = name.removesuffix(b".manifest")
    if not digits.isdigit():
        return None
    return _LAST - int(digits) if len(digits) == 20 else int(digits)


def superseded(written: Mapping[int, float], before: float) -> list[int]:
    """Of versions with the times at which they were written, those that a newer one replaced before a time.

    A version is read as long as it is the newest, and for a while longer by who opened it then: its own age says
    nothing. The newest is never among them.
    """
    numbers = sorted(written)
    return [number for number, newer in pairwise(numbers) if written[newer] < before]


def tagged(tag: bytes) -> int | None:
    """The version that a tag (the content of `_refs/tags/NAME.json`) names; None when it is no tag."""
    try:
        found = json.loads(tag)
    except (ValueError, RecursionError):
        return None
    version = found.get("version") if isinstance(found, dict) else None
    return version if isinstance(version, int) else None


def _body(manifest: bytes) -> bytes:
    """The message of a manifest's file."""
    if len(manifest) < _FOOTER.size:
        raise ValueError("too short for a manifest")
    position, _, _, magic = _FOOTER.unpack(manifest[-_FOOTER.size :])
    if magic != b"LANC":
        raise ValueError("not a manifest")
    return _message(manifest, position)


def _of_fragment(fragment: bytes) -> Iterator[bytes]:
    """Data files, the file of deleted rows, and files of row ids."""
    number_of_fragment, deletions = 0, b""
    for number, value in _fields(fragment):
        if number == 1:
            number_of_fragment = _int(value)
        elif number == 2:
            file = dict(_fields(_bytes(value)))
            if 7 not in file:  # else it lies in another dataset
                yield b"data/" + _bytes(file.get(1, b""))
        elif number == 3:
            deletions = _bytes(value)
        elif number in (6, 8, 10):
            yield _bytes(dict(_fields(_bytes(value))).get(1, b""))
    if deletions:
        file = dict(_fields(deletions))
        if 7 not in file:
            suffix = "bin" if file.get(1) else "arrow"
            numbers = (number_of_fragment, _int(file.get(2, 0)), _int(file.get(3, 0)))
            yield b"_deletions/" + f"{'-'.join(map(str, numbers))}.{suffix}".encode()


def _of_index(index: bytes) -> Iterator[bytes]:
    directory, files = b"", list[bytes]()
    for number, value in _fields(index):
        if number == 1:
            directory = b"_indices/" + str(UUID(bytes=_bytes(dict(_fields(_bytes(value))).get(1, b"")))).encode()
        elif number == 9:
            return
        elif number == 10:
            files.append(_bytes(dict(_fields(_bytes(value))).get(1, b"")))
    yield from [directory + b"/" + file for file in files] or [directory]


def _message(content: bytes, position: int) -> bytes:
    """A message behind its length."""
    start = position + _LENGTH.size
    if start > len(content):
        raise ValueError("a position beyond the end")
    (length,) = _LENGTH.unpack(content[position:start])
    if start + length > len(content):
        raise ValueError("a message beyond the end")
    return content[start : start + length]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, each with its number (protobuf.dev, "Encoding")."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(message, at)
            case 5:
                size = 4
            case _:
                raise ValueError("a field of no known kind")
        if at + size > len(message):
            raise ValueError("a field beyond the end")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    number = 0
    for shift, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, at + shift + 1
    raise ValueError("a number without an end")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes where a number belongs")
    return value
