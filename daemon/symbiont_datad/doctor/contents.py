"""The tree as counts and modes: what lies where, without a name or a byte of it."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import readable
from symbiont_datad.fsops.walk import walk
from symbiont_datad.layout import Layout
from symbiont_datad.report import octal

_NAMES = 200_000
"""Names that are kept, to be recognised in other texts."""


@dataclass(slots=True)
class Part:
    """What lies in one declared directory, and below it as far as that is in no other one. Sizes in bytes.

    `modes` and `kinds` count files and all else that is no directory; `owned` are those of the directory's owner.
    """

    declared: str
    mode: str = ""
    owner: int = -1
    group: int = -1
    entries: int = 0
    directories: int = 0
    bytes: int = 0
    owned: int = 0
    linked: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Contents:
    """The parts by path, names that were seen on the way, and how many directories could not be read."""

    parts: dict[str, Part]
    names: frozenset[str]
    unread: int


def contents(layout: Layout, on_file: Callable[[int], None] = lambda size: None) -> Contents:
    """Walk the whole tree. `on_file` is told of the size of each file."""
    parts = {row.path: Part(octal(row.mode)) for row in layout.directories}
    names: set[str] = set()
    unread = 0

    def failed(_path: str, _error: OSError) -> None:
        nonlocal unread
        unread += 1

    def entered(path: str, fd: int) -> None:
        part = parts[_place(parts, path)]
        if path in parts:
            found = os.fstat(fd)
            part.mode, part.owner, part.group = octal(found.st_mode), found.st_uid, found.st_gid
        else:
            part.directories += 1
            names.add(path.rpartition("/")[2])

    try:
        for entry in walk(layout.tree, on_error=failed, on_directory=entered):
            folder, _, name = entry.path.rpartition("/")
            part = parts[_place(parts, folder)]
            part.entries += 1
            part.bytes += entry.size
            part.owned += entry.uid == part.owner
            part.linked += entry.is_file and entry.nlink > 1
            part.modes[octal(entry.mode)] += 1
            part.kinds[_kind(entry.mode)] += 1
            if len(names) < _NAMES:
                names.add(name)
            on_file(entry.size)
    except (OSError, UnsafePath):
        unread += 1
    return Contents(parts, frozenset(names), unread)


def _place(parts: dict[str, Part], path: str) -> str:
    """The declared directory that a path is in, or is."""
    while path and path not in parts:
        path = path.rpartition("/")[0]
    return path


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISLNK, "link"), (stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket"))
    return next((kind for test, kind in kinds if test(mode)), "device")


def quarantined(layout: Layout) -> int:
    """How many things lie in the quarantine."""
    try:
        with layout.tree.directory(".quarantine") as pinned, readable(".", pinned) as fd:
            return len(os.listdir(fd))
    except (OSError, UnsafePath):
        return 0


def told(found: Contents) -> Iterator[dict[str, object]]:
    """The parts as JSON, in the order of the layout."""
    for path, part in found.parts.items():
        yield {
            "path": path,
            "declared_mode": part.declared,
            "there": bool(part.mode),
            "mode": part.mode,
            "uid": part.owner,
            "gid": part.group,
            "entries": part.entries,
            "directories": part.directories,
            "bytes": part.bytes,
            "of_the_owner": part.owned,
            "with_hard_links": part.linked,
            "modes": dict(part.modes.most_common()),
            "kinds": dict(part.kinds),
        }
