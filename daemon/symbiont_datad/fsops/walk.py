"""Listing the tree: one pass, one `lstat` a file, nothing opened but directories."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.root import QUARANTINE, Tree, beneath, readable

_BLOCK = 512  # the unit of st_blocks, whatever the file system's own is (stat(2))

DEPTH_LIMIT = 128
"""How deep a directory may lie. Each level holds a descriptor while it is walked."""


class Entry(NamedTuple):
    """One file, link or other thing that is no directory, as `lstat` saw it. Times in nanoseconds since the epoch.

    A named tuple, because there are many: it takes half the time of a dataclass to make.
    """

    path: str
    mode: int
    size: int
    mtime_ns: int
    atime_ns: int
    inode: int
    nlink: int
    uid: int
    gid: int
    ctime_ns: int = 0
    """When the inode last changed: content, mode or name. Unlike the other times, nobody can set it."""
    allocated: int = 0
    """Bytes on the disk: less than the size for a file with holes."""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file (no link, FIFO, socket or device)."""
        return stat.S_ISREG(self.mode)

    def differs(self, found: os.stat_result) -> bool:
        """Whether `found` is another file than this entry, or the same one with other content, by all that lstat tells.

        A change of mode or owner alone makes no difference.
        """
        return (
            found.st_ino != self.inode
            or found.st_size != self.size
            or found.st_mtime_ns != self.mtime_ns
            or stat.S_IFMT(found.st_mode) != stat.S_IFMT(self.mode)
        )

    def is_same(self, other: "Entry") -> bool:
        """Whether another look at the path found the same file with the same content, by all that lstat tells."""
        mine = self.inode, self.size, self.mtime_ns, stat.S_IFMT(self.mode)
        return mine == (other.inode, other.size, other.mtime_ns, stat.S_IFMT(other.mode))


def look(tree: Tree, path: str) -> Entry | None:
    """One entry, as `walk` lists it; None when there is nothing. Raises OSError or UnsafePath."""
    try:
        with tree.holding(path) as (fd, name):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Entry(
        path, found.st_mode, found.st_size, found.st_mtime_ns, found.st_atime_ns, found.st_ino, found.st_nlink,
        found.st_uid, found.st_gid,
    )  # fmt: skip


def walk(
    tree: Tree,
    path: str = "",
    *,
    on_error: Callable[[str, OSError], None],
    on_directory: Callable[[str, int], None] | None = None,
) -> Iterator[Entry]:
    """Every file below `path` (relative to the root), in the order of the directories' own lists.

    Links are listed, not followed; other file systems and the quarantine are left out. A directory that can't be read,
    or lies deeper than `DEPTH_LIMIT`, is handed to `on_error` and left out. A directory or file that goes while the
    walk is under way is no error. `on_directory` is told of each directory on the way with its readable descriptor,
    valid during the call, before what is in it is listed.
    """
    mounts = mounts_below(tree.path)
    skip = {QUARANTINE, *mounts}
    new = tuple.__new__  # a named tuple's own is written in Python, and this is called for each file

    def descend(fd: int, prefix: str, depth: int) -> Iterator[Entry]:
        folders: list[str] = []
        device = os.fstat(fd).st_dev
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    on_error(prefix + name, error)
                    continue
                if stat.S_ISDIR(found.st_mode):
                    if found.st_dev == device and prefix + name not in skip:
                        folders.append(name)
                    continue
                yield new(
                    Entry,
                    (
                        prefix + name,
                        found.st_mode,
                        found.st_size,
                        found.st_mtime_ns,
                        found.st_atime_ns,
                        found.st_ino,
                        found.st_nlink,
                        found.st_uid,
                        found.st_gid,
                        found.st_ctime_ns,
                        found.st_blocks * _BLOCK,
                    ),
                )
        for name in folders:
            below = prefix + name
            if depth == DEPTH_LIMIT:
                on_error(below, OSError(f"deeper than {DEPTH_LIMIT} directories"))
                continue
            yield from enter(name, fd, below, depth + 1)

    def enter(name: str, fd: int, below: str, depth: int) -> Iterator[Entry]:
        try:
            with readable(name, fd) as child_fd:
                if on_directory is not None:
                    on_directory(below, child_fd)
                yield from descend(child_fd, below + "/" if below else "", depth)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            on_error(below, error)

    with tree.root() as root_fd:
        if not path:
            yield from enter(".", root_fd, "", 0)
            return
        try:
            with beneath(root_fd, path) as fd:
                yield from enter(".", fd, path, path.count("/") + 1)
        except (FileNotFoundError, NotADirectoryError):
            return
