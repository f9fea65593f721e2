"""What lstat says of an entry, as a string of bytes: there may be millions, and each is compared at every backup.

An entry's record is its facts, which are of one length, and its name behind them.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from itertools import starmap
from operator import attrgetter
from struct import Struct
from struct import error as StructError  # noqa: N812  # it is an exception
from typing import NamedTuple

_PACKED = Struct("<qqqQIII")
SIZE = _PACKED.size

_FIELDS = attrgetter("st_mtime_ns", "st_ctime_ns", "st_size", "st_ino", "st_mode", "st_uid", "st_gid")
_FIRST, _LAST = -(2**63), 2**63 - 1
_CTIME = slice(8, 16)
_NEVER = _FIRST.to_bytes(8, "little", signed=True)
_Values = tuple[int, int, int, int, int, int, int]


class Fact(NamedTuple):
    """Times in nanoseconds since 1970 (a file system's own beyond the year 2262 are that year's), size in bytes."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int
    mode: int
    uid: int
    gid: int


class Facts(NamedTuple):
    """Of many entries, in their order: all that lstat says, packed (see `split_facts`); and figures of them all.

    `others`: the positions of those that are no regular files. `files` and `size`: how many are, and their bytes.
    `latest_ns`: the youngest ctime of what is no directory.
    """

    packed: bytes
    others: Sequence[int]
    files: int
    size: int
    latest_ns: int


def split_facts(packed: bytes) -> list[bytes]:
    """The facts of each entry."""
    return [packed[at : at + SIZE] for at in range(0, len(packed), SIZE)]


def name_of(record: bytes) -> bytes:
    """The name in a record."""
    return record[SIZE:]


def ctime_of(record: bytes) -> int:
    """The ctime in a record, in nanoseconds."""
    return int.from_bytes(record[_CTIME], "little", signed=True)


def without_match(record: bytes) -> bytes:
    """A record of the same name that no entry has: what changed so long ago is looked at again."""
    return record[: _CTIME.start] + _NEVER + record[_CTIME.stop :]


def fact_of(record: bytes) -> Fact:
    """The facts at the beginning of a record."""
    return Fact(*_PACKED.unpack_from(record))


def facts_of(stats: Iterable[os.stat_result]) -> Facts:
    """The facts of these entries."""
    values: list[_Values] = list(map(_FIELDS, stats))
    if not values:
        return Facts(b"", (), 0, 0, 0)
    _, ctimes, sizes, _, modes, _, _ = zip(*values, strict=True)  # columns: no line of Python for each entry
    if all(map(stat.S_ISREG, set(modes))):
        return Facts(_pack(values), (), len(values), sum(sizes), max(ctimes))
    others = [position for position, mode in enumerate(modes) if not stat.S_ISREG(mode)]
    files = len(values) - len(others)
    size = sum(sizes) - sum(sizes[position] for position in others)
    latest = max((ctime for ctime, mode in zip(ctimes, modes, strict=True) if not stat.S_ISDIR(mode)), default=0)
    return Facts(_pack(values), others, files, size, latest)


def _pack(values: list[_Values]) -> bytes:
    try:
        return b"".join(starmap(_PACKED.pack, values))
    except StructError:  # a time that no clock has shown yet
        return b"".join(
            _PACKED.pack(min(max(mtime, _FIRST), _LAST), min(max(ctime, _FIRST), _LAST), *others)
            for mtime, ctime, *others in values
        )
