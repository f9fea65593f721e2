"""What lstat says of a directory's entries: taken in one pass, and compared as a whole."""

import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from operator import add, attrgetter, methodcaller

from symbiont_datad.restic.facts import Facts, fact_of, facts_of, name_of

_AT_ONCE = 128
"""Entries that are looked at in one go, so that no line of Python runs for each."""

_NAME = attrgetter("name")
_ENCODED = methodcaller("encode", "utf-8", "surrogateescape")
_STAT = methodcaller("stat", follow_symlinks=False)

OnError = Callable[[bytes, OSError], None]


@dataclass(slots=True)
class Listing:
    """A directory's entries in the order in which the file system names them.

    `records`: of each entry its facts and its name, in one string of bytes. `others`: the positions of those that are
    no regular files. `files` and `size`: how many regular files there are, and their bytes. `latest_ns`: the youngest
    ctime of what is no directory. `hashed`: the hash of all records.
    """

    records: list[bytes] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    files: int = 0
    size: int = 0
    latest_ns: int = 0
    hashed: bytes = b""

    @property
    def names(self) -> list[bytes]:
        """The names of all entries."""
        return list(map(name_of, self.records))

    @property
    def directories(self) -> list[bytes]:
        """The names of directories."""
        others = [self.records[position] for position in self.others]
        return [name_of(record) for record in others if stat.S_ISDIR(fact_of(record).mode)]

    def forget_files(self) -> None:
        """Give up the memory of what is said of regular files."""
        self.records = [self.records[position] for position in self.others]
        self.others = list(range(len(self.records)))

    def digest(self, own: os.stat_result | None) -> bytes:
        """All facts in short, with those of the directory itself if they are given. Access times don't count."""
        return self.hashed if own is None else sha256(self.hashed + facts_of([own]).packed[0]).digest()


def list_directory(fd: int, omit: Collection[bytes], on_error: OnError) -> Listing:
    """List an open directory, without the names in `omit`.

    What goes in the meantime is no error; of what can't be looked at, `on_error` is told. Raises OSError.
    """
    listing = Listing()
    records = listing.records
    hashed = sha256()
    with os.scandir(fd) as found:
        entries = found if not omit else (entry for entry in found if _ENCODED(entry.name) not in omit)
        while part := list(islice(entries, _AT_ONCE)):
            names, facts = _look(part, on_error)
            start = len(records)
            records += map(add, facts.packed, names)
            hashed.update(b"/".join(records[start:]) + b"/")  # no name has a slash, and facts are of one length
            listing.others += [start + position for position in facts.others]
            listing.files += facts.files
            listing.size += facts.size
            listing.latest_ns = max(listing.latest_ns, facts.latest_ns)
    listing.hashed = hashed.digest()
    return listing


def _look(entries: list[os.DirEntry[str]], on_error: OnError) -> tuple[list[bytes], Facts]:
    try:
        return _names(entries), facts_of(map(_STAT, entries))
    except OSError:
        return _look_at_each(entries, on_error)


def _look_at_each(entries: list[os.DirEntry[str]], on_error: OnError) -> tuple[list[bytes], Facts]:
    names: list[bytes] = []
    stats: list[os.stat_result] = []
    for entry, name in zip(entries, _names(entries), strict=True):
        try:
            stats.append(entry.stat(follow_symlinks=False))
            names.append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            on_error(name, error)
    return names, facts_of(stats)


def _names(entries: list[os.DirEntry[str]]) -> list[bytes]:
    return list(map(_ENCODED, map(_NAME, entries)))
