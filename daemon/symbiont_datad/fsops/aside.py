"""Moving what retention removes into a cell of the quarantine, and bringing it back. Each thing is one rename.

In the cell a thing has the path that it had in the tree; the directories above it are made there as they are in the
tree, with their mode and owner. A kill at any time leaves each thing either where it was or in the cell, whose record
was on the disk before the first one moved.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import groupby
from stat import S_IFMT, S_IMODE, S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.cells import FILES, Cell, stamp_of
from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import (
    QUARANTINE,
    Tree,
    beneath,
    give_away,
    pinned,
    readable,
    refuse_other_mount,
    set_mode,
)
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.fsops.write import drop_cell, quarantine_cell, write_atomic
from symbiont_datad.report import printable


class Aside:
    """A cell that is being filled. `name` is the cell's, `cell_fd` its pinned descriptor."""

    def __init__(self, tree: Tree, name: str, root_fd: int, cell_fd: int, files_fd: int) -> None:
        self.name = name
        self.cell_fd = cell_fd
        self._tree = tree
        self._root_fd = root_fd
        self._files_fd = files_fd

    def move(self, entries: Sequence[Entry]) -> list[Failure]:
        """Move files and links. Best given in the order of their paths: each run of one directory is pinned once.

        Each is looked at just before: what has another inode, size, type or modification time than planned, is kept.
        """
        failures: list[Failure] = []
        for folder, group in groupby(entries, lambda entry: entry.path.rpartition("/")[0]):
            some = list(group)
            try:
                with self._both(folder) as (from_fd, to_fd):
                    self._move_from(from_fd, to_fd, len(folder) + 1 if folder else 0, some, failures)
            except (FileNotFoundError, NotADirectoryError):
                failures += [Failure(entry.path, "its directory is gone", True) for entry in some]
            except (OSError, UnsafePath) as error:
                failures += [Failure(entry.path, _reason(error), False) for entry in some]
        return failures

    @staticmethod
    def _move_from(from_fd: int, to_fd: int, cut: int, entries: list[Entry], failures: list[Failure]) -> None:
        lstat, rename = os.lstat, os.rename
        for entry in entries:
            name = entry.path[cut:]
            try:
                if entry.differs(lstat(name, dir_fd=from_fd)):
                    failures.append(Failure(entry.path, "changed since it was planned", True))
                elif not (S_ISREG(entry.mode) or S_ISLNK(entry.mode)):
                    failures.append(Failure(entry.path, "neither a file nor a link", False))
                else:
                    rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            except FileNotFoundError:
                failures.append(Failure(entry.path, "gone already", True))
            except OSError as error:
                failures.append(Failure(entry.path, _reason(error), False))

    def move_directory(self, path: str, members: Sequence[Entry]) -> Failure | None:
        """Move a directory whole, if it holds the `members` as they were planned and nothing else.

        That is looked at once it is in the cell, where nobody makes new files in it: if it isn't so, it goes back.
        """
        folder, _, name = path.rpartition("/")
        try:
            with self._both(folder) as (from_fd, to_fd):
                if not S_ISDIR(os.lstat(name, dir_fd=from_fd).st_mode):
                    return Failure(path, "no directory any more", True)
                rename_new(from_fd, name, to_fd, name)
                why = self._differs(path, members)
                if not why:
                    return None
                try:
                    rename_new(to_fd, name, from_fd, name)
                except FileExistsError:
                    return Failure(path, f"{why}; it is in the quarantine, because something is there again", False)
                return Failure(path, why, True)
        except (FileNotFoundError, NotADirectoryError):
            return Failure(path, "gone already", True)
        except (OSError, UnsafePath) as error:
            return Failure(path, _reason(error), False)

    def _differs(self, path: str, members: Sequence[Entry]) -> str:
        """How the directory that was at `path` differs from what was planned, now that it is in the cell."""
        place = f"{QUARANTINE}/{self.name}/{FILES}"
        unread: list[str] = []
        if any(mount.startswith(f"{place}/{path}/") for mount in mounts_below(self._tree.path)):
            return "another file system is mounted in it"
        planned = {entry.path: entry for entry in members}
        for found in walk(self._tree, f"{place}/{path}", on_error=lambda where, _: unread.append(where)):
            entry = planned.pop(found.path[len(place) + 1 :], None)
            if entry is None or _mark(entry) != _mark(found):
                return "changed since it was planned"
        return "changed since it was planned" if planned else "a directory in it can't be read" if unread else ""

    @contextmanager
    def _both(self, folder: str) -> Iterator[tuple[int, int]]:
        """A directory of the tree and its double in the cell, pinned."""
        with ExitStack() as stack:
            from_fd, to_fd = self._root_fd, self._files_fd
            for part in folder.split("/") if folder else ():
                from_fd = stack.enter_context(pinned(part, from_fd))
                to_fd = stack.enter_context(_double(part, from_fd, to_fd))
            refuse_other_mount(self._root_fd, from_fd, folder)
            yield from_fd, to_fd


def _mark(entry: Entry) -> tuple[int, int, int, int]:
    return entry.inode, entry.size, entry.mtime_ns, S_IFMT(entry.mode)


@contextmanager
def _double(name: str, like_fd: int, dir_fd: int) -> Iterator[int]:
    """The directory `name` in a pinned one, made if need be with the mode and owner of another directory."""
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        made = True
    except FileExistsError:
        made = False
    with pinned(name, dir_fd) as fd:
        if made:
            like = os.fstat(like_fd)
            if os.geteuid() == 0:
                give_away(fd, like.st_uid, like.st_gid)
            set_mode(fd, S_IMODE(like.st_mode))
        yield fd


@contextmanager
def aside(tree: Tree, record: Mapping[str, object], now: float) -> Iterator[Aside]:
    """A new cell for what a rule removes, with this record (see `record_of`). It goes again if nothing came into it.

    Raises OSError or UnsafePath; before the block has begun nothing was moved then.
    """
    with tree.root() as root_fd, quarantine_cell(root_fd, now) as (name, cell_fd):
        write_atomic(cell_fd, "record.json", json.dumps(record, indent=2).encode() + b"\n")
        os.mkdir(FILES, 0o700, dir_fd=cell_fd)
        try:
            with pinned(FILES, cell_fd) as files_fd:
                yield Aside(tree, name, root_fd, cell_fd, files_fd)
        finally:
            with beneath(root_fd, QUARANTINE) as quarantine_fd:
                _drop_empty(quarantine_fd, name, cell_fd)


def record_of(
    kind: str, *, path: str, rule: str, reason: str, now: float, until: float, files: int, size: int
) -> dict[str, object]:
    """The record of a cell that can be undone. `files` and `size` (bytes) are what is about to come into it."""
    return {
        "schema": 1,
        "kind": kind,
        "path": printable(path),
        "rule": rule,
        "reason": reason,
        "at": _text(now),
        "until": _text(until),
        "run": stamp_of(now),
        "files": files,
        "bytes": size,
    }


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


# Bringing back


class Returning(NamedTuple):
    """One entry of a cell that goes back as a whole: a file or link, or a `directory` that is missing in the tree."""

    path: str
    directory: bool
    files: int
    bytes: int


def returning(tree: Tree, cell: Cell) -> tuple[list[Returning], list[Failure]]:
    """What of a cell can go back, and what can't because something is at its place again.

    Raises OSError or UnsafePath when the cell can't be read.
    """
    found: list[Returning] = []
    taken: list[Failure] = []
    place = f"{cell.place}/{FILES}"
    with tree.root() as root_fd, tree.directory(place) as files_fd:
        for path, is_directory, is_free in _compare(root_fd, files_fd, ""):
            if not is_free:
                taken.append(Failure(path, "something is there again; it stays in the quarantine", False))
                continue
            files, size = 1, 0
            if is_directory:
                entries = list(walk(tree, f"{place}/{path}", on_error=lambda _path, _error: None))
                files, size = len(entries), sum(entry.size for entry in entries)
            else:
                with suppress(OSError), tree.holding(f"{place}/{path}") as (fd, name):
                    size = os.lstat(name, dir_fd=fd).st_size
            found.append(Returning(path, is_directory, files, size))
    return found, taken


def _compare(tree_fd: int, cell_fd: int, prefix: str) -> Iterator[tuple[str, bool, bool]]:
    """The uppermost entries of a cell that are not directories in the tree as well; whether nothing has their place."""
    with readable(".", cell_fd) as open_fd:
        names = sorted(os.listdir(open_fd))
    for name in names:
        mine = os.lstat(name, dir_fd=cell_fd)
        is_directory = S_ISDIR(mine.st_mode)
        try:
            theirs = os.lstat(name, dir_fd=tree_fd)
        except FileNotFoundError:
            yield prefix + name, is_directory, True
            continue
        if is_directory and S_ISDIR(theirs.st_mode) and theirs.st_dev == mine.st_dev:
            with beneath(cell_fd, name) as below_cell, pinned(name, tree_fd) as below_tree:
                yield from _compare(below_tree, below_cell, f"{prefix}{name}/")
        else:
            yield prefix + name, is_directory, False


def bring_back(tree: Tree, cell: Cell, paths: Sequence[str]) -> list[Failure]:
    """Move entries of a cell back to where they were. What is at such a path by now is never replaced."""
    failures = []
    with tree.root() as root_fd, tree.directory(f"{cell.place}/{FILES}") as files_fd:
        for path in paths:
            folder, _, name = path.rpartition("/")
            try:
                with _self_or_beneath(files_fd, folder) as from_fd, _self_or_beneath(root_fd, folder) as to_fd:
                    rename_new(from_fd, name, to_fd, name)
            except FileExistsError:
                failures.append(Failure(path, "something is there again; it stays in the quarantine", False))
            except (OSError, UnsafePath) as error:
                failures.append(Failure(path, _reason(error), False))
    return failures


def drop_if_empty(tree: Tree, cell: Cell) -> bool:
    """Remove a cell in which nothing is left but directories; whether it is gone."""
    with tree.directory(QUARANTINE) as quarantine_fd:
        with pinned(cell.name, quarantine_fd) as cell_fd:
            _drop_empty(quarantine_fd, cell.name, cell_fd)
        try:
            os.lstat(cell.name, dir_fd=quarantine_fd)
        except FileNotFoundError:
            return True
        return False


def _drop_empty(quarantine_fd: int, name: str, cell_fd: int) -> None:
    with suppress(OSError, UnsafePath):
        with pinned(FILES, cell_fd) as files_fd:
            _remove_empty(files_fd)
        os.rmdir(FILES, dir_fd=cell_fd)
        drop_cell(quarantine_fd, name, cell_fd)


def _remove_empty(fd: int) -> None:
    """Remove the directories below in which there is no file; OSError ends it where there is one."""
    with readable(".", fd) as open_fd:
        names = os.listdir(open_fd)
    for name in names:
        with beneath(fd, name) as below:
            _remove_empty(below)
        os.rmdir(name, dir_fd=fd)


@contextmanager
def _self_or_beneath(fd: int, path: str) -> Iterator[int]:
    if not path:
        yield fd
        return
    with beneath(fd, path) as found:
        yield found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.EXDEV:
            return "another file system is mounted there"
        return error.strerror or str(error)
    return str(error)
