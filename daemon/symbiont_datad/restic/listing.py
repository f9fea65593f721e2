"""What lstat says of a directory's entries: taken in one pass, and compared as a whole."""

import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import add

from symbiont_datad.restic.facts import Facts, fact_of, facts_of, name_of, split_facts
from symbiont_datad.restic.looking import look_at_all

OnError = Callable[[bytes, OSError], None]


@dataclass(slots=True)
class Listing:
    """A directory's entries in the order in which the file system names them.

    `others`: the records of those that are no regular files. `files` and `size`: how many regular files there are, and
    their bytes. `latest_ns`: the youngest ctime of what is no directory. `hashed`: the hash of all records.
    """

    others: list[bytes] = field(default_factory=list)
    files: int = 0
    size: int = 0
    latest_ns: int = 0
    hashed: bytes = b""
    _records: list[bytes] = field(default_factory=list)
    _parts: list[tuple[Sequence[bytes], Facts]] = field(default_factory=list)

    @property
    def records(self) -> list[bytes]:
        """Of each entry its facts and its name, in one string of bytes. They are made for who asks first: mostly,
        nothing has changed, and nobody does.
        """
        self._parts.reverse()
        while self._parts:
            names, facts = self._parts.pop()
            self._records += map(add, split_facts(facts.packed), names)
        return self._records

    @property
    def names(self) -> list[bytes]:
        """The names of all entries."""
        return list(map(name_of, self.records))

    @property
    def directories(self) -> list[bytes]:
        """The names of directories."""
        return [name_of(record) for record in self.others if stat.S_ISDIR(fact_of(record).mode)]

    def forget_files(self) -> None:
        """Give up the memory of what is said of regular files."""
        self._parts.clear()
        self._records = self.others.copy()

    def digest(self, own: os.stat_result | None) -> bytes:
        """All facts in short, with those of the directory itself if they are given. Access times don't count."""
        return self.hashed if own is None else sha256(self.hashed + facts_of([own]).packed).digest()

    def append(self, names: Sequence[bytes], facts: Facts) -> None:
        """Add entries to the end; `hashed` is left to the caller."""
        self._parts.append((names, facts))
        if facts.others:
            packed = split_facts(facts.packed)
            self.others += [packed[position] + names[position] for position in facts.others]
        self.files += facts.files
        self.size += facts.size
        self.latest_ns = max(self.latest_ns, facts.latest_ns)


def list_directory(fd: int, omit: Collection[bytes], on_error: OnError) -> Listing:
    """List an open directory, without the names in `omit`.

    What goes in the meantime is no error; of what can't be looked at, `on_error` is told. Raises OSError.
    """
    listing = Listing()
    hashed = sha256()
    for names, looked in look_at_all(fd, omit):
        there, facts = (names, looked) if looked is not None else _look_at_each(fd, names, on_error)
        listing.append(there, facts)
        # No name has a slash in it, and facts are of one length: different entries never make the same text.
        hashed.update(b"%d/%b%b/" % (len(there), facts.packed, b"/".join(there)))
    listing.hashed = hashed.digest()
    return listing


def _look_at_each(fd: int, names: Sequence[bytes], on_error: OnError) -> tuple[list[bytes], Facts]:
    there: list[bytes] = []
    stats: list[os.stat_result] = []
    for name in names:
        try:
            stats.append(os.stat(name, dir_fd=fd, follow_symlinks=False))
            there.append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            on_error(name, error)
    return there, facts_of(stats)
