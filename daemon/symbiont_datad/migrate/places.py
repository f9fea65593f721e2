"""The places that a migration writes to: directories of the tree, the staging place, and its cell of the quarantine."""

import os
import shutil
import stat
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import QUARANTINE, Tree, beneath, give_away, pinned, readable, set_mode
from symbiont_datad.fsops.swap import STAGED
from symbiont_datad.fsops.write import ITEM, drop_cell, quarantine_cell, write_record
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.records import Place
from symbiont_datad.migrate.target import Target

_HELD = 64  # directories that are pinned at a time
_KIND = "legacy"


class Folders:
    """Pinned directories of the tree, by their paths relative to the root; the last ones used stay pinned."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._held: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    def at(self, path: str) -> int:
        """The pinned directory at a path. Raises FileNotFoundError, NotADirectoryError or UnsafePath."""
        found = self._held.get(path)
        if found is not None:
            self._held.move_to_end(path)
            return found
        with self._tree.directory(path) as fd:
            mine = os.dup(fd)
        self._held[path] = mine
        if len(self._held) > _HELD:
            os.close(self._held.popitem(last=False)[1])
        return mine

    def lstat(self, path: str) -> os.stat_result | None:
        """What lies at a path; None: nothing."""
        folder, _, name = path.rpartition("/")
        try:
            return os.lstat(name, dir_fd=self.at(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None


def missing_directories(folders: Folders, paths: Iterable[str]) -> list[str]:
    """Those directories, and the ones above them, that are not there; parents first."""
    missing: dict[str, None] = {}
    there = {""}

    def look(path: str) -> None:
        if path in there or path in missing:
            return
        above = path.rpartition("/")[0]
        look(above)
        if above in missing or folders.lstat(path) is None:
            missing[path] = None
        else:
            there.add(path)

    for path in paths:
        look(path)
    return list(missing)


def make_root(target: Target) -> None:
    """Make the root of the tree, and what is missing above it. Raises OSError or UnsafePath."""
    tree = target.tree
    tree.make_parents()
    with tree.parent() as fd:
        make_directory(fd, tree.name, target.mode_of(""))
        if stat.S_IMODE(os.lstat(tree.name, dir_fd=fd).st_mode) == 0o700:  # a kill came in between
            with suppress(OSError, UnsafePath):
                _complete(fd, tree.name, target.mode_of(""))


def make_directory(dir_fd: int, name: str, mode: int) -> None:
    """Make a directory in a pinned one, unless it is there; as root, it belongs to the owner of that."""
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        return
    _complete(dir_fd, name, mode)


def _complete(dir_fd: int, name: str, mode: int) -> None:
    with pinned(name, dir_fd) as fd:
        if os.geteuid() == 0:
            above = os.fstat(dir_fd)
            give_away(fd, above.st_uid, above.st_gid)
        set_mode(fd, mode)


def complete_directories(target: Target, journal: Journal, folders: Folders) -> None:
    """Of directories that were being made when a kill came, some may lack their mode and owner."""
    for path in journal.directories(unfinished=True):
        folder, _, name = path.rpartition("/")
        found = folders.lstat(path)
        if found is not None and stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700:
            with suppress(OSError, UnsafePath):
                _complete(folders.at(folder), name, target.mode_of(path))
    journal.finish_directories()


class Cell:
    """The cell of the quarantine in which copies are staged, and what is set aside stays. It is there while it is used.

    Its name is in the journal before anything is in it.
    """

    def __init__(self, target: Target, journal: Journal) -> None:
        self._target, self._journal = target, journal
        self.name = journal.get("cell")

    @property
    def path(self) -> str:
        """Where the cell is, relative to the root."""
        return f"{QUARANTINE}/{self.name}"

    @property
    def stage(self) -> str:
        """The absolute path of the staging place."""
        return f"{self._target.root}/{self.path}/{STAGED}"

    def in_tree(self, place: Place) -> str:
        """The path of a place, relative to the root."""
        return f"{self.path}/{ITEM}/{place.path}" if place.aside else place.path

    def open(self) -> None:
        """Make the cell if it is not there (any more), and the staging place in it."""
        tree = self._target.tree
        if not self.name or not _is_directory(tree, self.path):
            with tree.root() as root_fd:
                if not self._journal.get("quarantine"):
                    self._journal.put("quarantine", "there" if _is_directory(tree, QUARANTINE) else "made")
                with quarantine_cell(root_fd, time.time(), partial(self._journal.put, "cell")) as (name, _):
                    self.name = name
        with tree.directory(self.path) as fd, suppress(FileExistsError):
            os.mkdir(STAGED, 0o700, dir_fd=fd)

    @contextmanager
    def staged(self) -> Iterator[int]:
        """The staging place, pinned."""
        with self._target.tree.directory(f"{self.path}/{STAGED}") as fd:
            yield fd

    @contextmanager
    def staging(self) -> Iterator[Folders]:
        """The directories in the staging place, one for each piece of work."""
        with Folders(Tree(self.stage)) as folders:
            yield folders

    def clear(self) -> None:
        """Remove what is staged: copies that never went to their place."""
        if not self.name:
            return
        with suppress(FileNotFoundError, NotADirectoryError), self._target.tree.directory(self.path) as fd:
            with readable(".", fd) as open_fd:
                cut_off = [name for name in os.listdir(open_fd) if name.startswith(".record.json.")]
            for name in cut_off:
                os.unlink(name, dir_fd=fd)
            shutil.rmtree(STAGED, dir_fd=fd)

    def record(self, source: str, reason: str) -> None:
        """Write down why something comes into the cell, unless that is done."""
        with self._target.tree.directory(self.path) as fd, Tree(source).parent() as from_fd:
            with suppress(FileNotFoundError):
                os.lstat("record.json", dir_fd=fd)
                return
            found = os.lstat(os.path.basename(source), dir_fd=from_fd)
            write_record(fd, from_fd, source, found, kind=_KIND, reason=reason, now=time.time())

    def close(self) -> None:
        """Remove the staging place, and the cell when there is nothing else in it."""
        if not self.name:
            return
        self.clear()
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            self._target.tree.root() as root_fd,
            beneath(root_fd, QUARANTINE) as quarantine_fd,
            pinned(self.name, quarantine_fd) as fd,
        ):
            drop_cell(quarantine_fd, self.name, fd)

    def remove(self) -> None:
        """Remove the cell when nothing is set aside in it any more, and the quarantine if it was made for it."""
        self.close()
        if self._journal.get("quarantine") == "made":
            with suppress(OSError), self._target.tree.root() as root_fd:
                os.rmdir(QUARANTINE, dir_fd=root_fd)


def _is_directory(tree: Tree, path: str) -> bool:
    try:
        with tree.directory(path):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def originals(target: Target) -> Path:
    """Where what was overwritten is kept."""
    return target.directory / "originals"
