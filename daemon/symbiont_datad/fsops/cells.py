"""The cells of the quarantine: what each holds by its record, how large it is, and its end.

A cell is a directory in `.quarantine`: `record.json`, and what was moved there. That is one `item`, or, where retention
removed something, `files`, a directory in which each thing has the path that it had in the tree. Whoever owns the tree
may have written anything into a record, so nothing in it is believed but for what it says to people and when it ends.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import QUARANTINE, Tree, beneath, pinned, readable, set_mode
from symbiont_datad.fsops.walk import DEPTH_LIMIT, walk

FILES = "files"
"""The directory in a cell with what retention removed."""

REMOVED, PACKED = "removed", "packed"
"""Kinds of cells that can be undone: by a rule, and after a day was packed."""

_UNDOABLE = (REMOVED, PACKED)
_RECORD = "record.json"
_LARGEST_RECORD = 64 << 10
_THREADS, _MANY, _BETWEEN_LOOKS = 8, 64, 200
_STAMP = re.compile(r"([0-9]{8}T[0-9]{6}Z)(?:-[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell by its record; `kind` is empty when it has none. Times in seconds since the epoch.

    `until`: when what retention removed goes for good. `run`: the stamp that the cells of one run share. `path`: what
    was moved, or, where retention removed something, the directory of the rule. `files` and `bytes` are what the record
    promised.
    """

    name: str
    at: float
    kind: str = ""
    path: str = ""
    rule: str = ""
    reason: str = ""
    until: float | None = None
    run: str = ""
    files: int = 0
    bytes: int = 0

    @property
    def undoable(self) -> bool:
        """Whether `clean --undo` can bring its content back."""
        return self.kind in _UNDOABLE and self.until is not None

    @property
    def place(self) -> str:
        """Where it is, relative to the root."""
        return f"{QUARANTINE}/{self.name}"


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a cell holds: files of any kind, bytes as they say, bytes on the disk, inodes with the directories'."""

    files: int
    bytes: int
    allocated: int
    inodes: int


def stamp_of(at: float) -> str:
    """A time as the names of cells spell it: `20261123T035000Z`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def cells(tree: Tree) -> list[Cell]:
    """Every cell, the oldest first; none when there is no quarantine.

    Raises OSError or UnsafePath when the quarantine can't be read.
    """
    found = []
    try:
        with tree.directory(QUARANTINE) as fd, readable(".", fd) as open_fd:
            for name in os.listdir(open_fd):
                with suppress(OSError, UnsafePath), pinned(name, fd) as cell_fd:
                    found.append(_cell(name, cell_fd))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda cell: (cell.at, _number(cell.name), cell.name))


def _number(name: str) -> int:
    """Which one a cell is of those with the same stamp."""
    number = name.partition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _cell(name: str, cell_fd: int) -> Cell:
    made = _STAMP.fullmatch(name)
    at = _moment(made[1]) if made else None
    if at is None:
        at = os.fstat(cell_fd).st_mtime
    try:
        with opened_regular(_RECORD, cell_fd) as fd:
            record = json.loads(os.read(fd, _LARGEST_RECORD))
    except (OSError, ValueError, RecursionError):
        return Cell(name, at)
    if not isinstance(record, dict):
        return Cell(name, at)
    text = {key: value for key, value in record.items() if isinstance(value, str)}
    return Cell(
        name,
        _instant(text.get("at")) or at,
        text.get("kind", ""),
        text.get("path", ""),
        text.get("rule", ""),
        text.get("reason", ""),
        _instant(text.get("until")),
        text.get("run", ""),
        _count(record, "files"),
        _count(record, "bytes"),
    )


def _moment(stamp: str) -> float | None:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _instant(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


def _count(record: Mapping[str, object], key: str) -> int:
    value = record.get(key)
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0


def holds(tree: Tree, cell: Cell, path: str) -> bool:
    """Whether a cell that can be undone has something that was at `path` (relative to the root)."""
    try:
        with tree.holding(f"{cell.place}/{FILES}/{path}") as (fd, name):
            os.lstat(name, dir_fd=fd)
    except (OSError, UnsafePath):
        return False
    return True


def extent(tree: Tree, place: str) -> Extent:
    """How much lies below a directory in the quarantine. What can't be read isn't counted."""
    files = size = allocated = 0
    inodes = 0

    def entered(_path: str, _fd: int) -> None:
        nonlocal inodes
        inodes += 1

    for entry in walk(tree, place, on_error=lambda _path, _error: None, on_directory=entered):
        files += 1
        size += entry.size
        if entry.nlink == 1:
            inodes += 1
            allocated += entry.allocated
    return Extent(files, size, allocated, inodes)


def remove_cell(tree: Tree, name: str, stopping: Callable[[], bool] = lambda: False) -> str:
    """Remove a cell with all that is in it; why something is left, or an empty text when all is gone.

    Whatever lies in it is unlinked, never opened or followed. Another file system that is mounted there is left alone,
    with what is above it. The record goes last: what is left of a cell still says what it is.
    """
    place = f"{QUARANTINE}/{name}"
    _unlink_many(tree, place, stopping)
    mounts = frozenset(path for path in mounts_below(tree.path) if path.startswith(f"{place}/"))
    try:
        with tree.directory(QUARANTINE) as quarantine_fd, pinned(name, quarantine_fd) as cell_fd:
            removal = _Removal(mounts, stopping)
            removal.empty(cell_fd, place, keep=_RECORD)
            if not removal.left:
                with suppress(FileNotFoundError):
                    os.unlink(_RECORD, dir_fd=cell_fd)
                os.rmdir(name, dir_fd=quarantine_fd)
            return removal.left
    except FileNotFoundError:
        return ""
    except (OSError, UnsafePath) as error:
        return getattr(error, "strerror", None) or str(error)


def _unlink_many(tree: Tree, place: str, stopping: Callable[[], bool]) -> None:
    """Unlink what lies below, in a few threads: an unlink often waits for the disk. Whatever fails is left."""
    record = f"{place}/{_RECORD}"
    paths = [entry.path for entry in walk(tree, place, on_error=lambda _path, _error: None) if entry.path != record]
    if len(paths) < _MANY:
        return
    size = -(-len(paths) // _THREADS)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), size):
            pool.submit(_unlink, tree, paths[start : start + size], stopping)


def _unlink(tree: Tree, paths: list[str], stopping: Callable[[], bool]) -> None:
    for folder, some in groupby(paths, lambda path: path.rpartition("/")[0]):
        with suppress(OSError, UnsafePath), tree.directory(folder) as fd:
            for number, path in enumerate(some):
                if number % _BETWEEN_LOOKS == 0 and stopping():
                    return
                with suppress(OSError):
                    os.unlink(path[len(folder) + 1 :], dir_fd=fd)


class _Removal:
    """Removing what is in a directory, as far as it can be. `left`: the first reason why something is still there."""

    def __init__(self, mounts: frozenset[str], stopping: Callable[[], bool]) -> None:
        self._mounts = mounts
        self._stopping = stopping
        self.left = ""

    def empty(self, fd: int, path: str, *, keep: str = "", depth: int = 0) -> None:
        """Remove all that is in the pinned directory `fd`, which is at `path`, but for the file `keep`."""
        if os.geteuid() != 0 and os.fstat(fd).st_mode & 0o700 != 0o700:
            with suppress(OSError):
                set_mode(fd, 0o700)
        for name, is_directory in self._entries(fd, path):
            if self._stopping():
                self.left = self.left or "it was asked to stop"
                return
            try:
                if not is_directory:
                    if name != keep:
                        os.unlink(name, dir_fd=fd)
                elif f"{path}/{name}" in self._mounts:
                    self.left = self.left or "another file system is mounted in it"
                elif depth == DEPTH_LIMIT:
                    self.left = self.left or f"it is deeper than {DEPTH_LIMIT} directories"
                else:
                    self._remove_directory(fd, name, f"{path}/{name}", depth + 1)
            except FileNotFoundError:
                continue
            except (OSError, UnsafePath) as error:
                self.left = self.left or getattr(error, "strerror", None) or str(error)

    def _remove_directory(self, fd: int, name: str, path: str, depth: int) -> None:
        with beneath(fd, name) as below:
            self.empty(below, path, depth=depth)
        if not self.left:
            os.rmdir(name, dir_fd=fd)

    def _entries(self, fd: int, path: str) -> Iterator[tuple[str, bool]]:
        try:
            with readable(".", fd) as open_fd:
                # As a list: to remove while one lists may pass over some.
                names = [(entry.name, _is_directory(entry)) for entry in os.scandir(open_fd)]
        except OSError as error:
            self.left = self.left or f"{path}: {error.strerror or error}"
            return
        yield from names


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
