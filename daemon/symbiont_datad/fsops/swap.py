"""Putting something restored in the place of what is live, which moves to quarantine and is never deleted first.

What is new is staged in a cell of the quarantine (the same file system, and nobody else looks there) and made durable.
Then the two change places in one step (renameat2(2), `RENAME_EXCHANGE`), and the old one is in quarantine, beside a
record that was there before it. After a crash at any point the old or the new one is in place, and the other one in
that cell.
"""

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from symbiont_datad.fsops import rename
from symbiont_datad.fsops.root import QUARANTINE, Tree, beneath, pinned, readable, sync_directory
from symbiont_datad.fsops.write import ITEM, Changed, drop_cell, quarantine_cell, write_record

STAGED = "staged"
"""The directory in a cell of the quarantine in which something is staged."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Stage:
    """A directory in quarantine for what is to take the place of `path`, which is relative to the root.

    `name`: what the new entry is called in it. `fd` is its pinned descriptor, `parent_fd` that of the directory that
    `path` is in, `cell_fd` that of the cell. `swapped`: what is in it now is the old entry.
    """

    path: str
    name: str
    cell: str
    cell_fd: int
    fd: int
    parent_fd: int
    swapped: bool = False

    @property
    def place(self) -> str:
        """Where the staged entry is, relative to the root."""
        return f"{QUARANTINE}/{self.cell}/{STAGED}/{self.name}"


@contextmanager
def staging(tree: Tree, path: str, now: float) -> Iterator[Stage]:
    """A stage for what is to take the place of `path` (relative to the root, and not the root itself).

    The directory that `path` is in must be there. When the block is left, what is still staged goes; but not when that
    is what was live. `now` in seconds since the epoch. Raises OSError or UnsafePath.
    """
    if not path or path.split("/")[0] == QUARANTINE:
        raise OSError(errno.EINVAL, "that can't be replaced", path)
    with (
        tree.root() as root_fd,
        tree.holding(path) as (parent_fd, name),
        quarantine_cell(root_fd, now) as (cell, cell_fd),
    ):
        os.mkdir(STAGED, 0o700, dir_fd=cell_fd)
        with pinned(STAGED, cell_fd) as fd:
            stage = Stage(path, name, cell, cell_fd, fd, parent_fd)
            try:
                yield stage
            finally:
                if not stage.swapped:
                    shutil.rmtree(STAGED, dir_fd=cell_fd)
                    with beneath(root_fd, QUARANTINE) as quarantine_fd:
                        drop_cell(quarantine_fd, cell, cell_fd)


def stage_file(stage: Stage, content: bytes, *, mode: int, uid: int, gid: int, mtime_ns: int) -> None:
    """Stage a file with this content, mode, owner and modification time.

    Only root can give a file away; for others the owner is who they are, and the group as far as it is allowed. Raises
    OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(stage.name, flags, 0o600, dir_fd=stage.fd)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if os.geteuid() == 0:
            os.fchown(fd, uid, gid)
        else:
            with suppress(PermissionError):
                os.fchown(fd, -1, gid)
        os.fchmod(fd, mode & 0o777)
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(fd)


def put_in_place(
    stage: Stage,
    *,
    kind: str,
    reason: str,
    now: float,
    unchanged: Callable[[os.stat_result | None], bool] = lambda _: True,
) -> str | None:
    """Let the staged entry take its place; hand back where in quarantine the old one is, None when there was none.

    Everything is durable when this returns. `kind` and `reason` are for the record in quarantine, `now` in seconds
    since the epoch. `unchanged` is asked of what lstat says of what is there (None: nothing is) as late as possible,
    and once more when the two have changed places: somebody may have been opening it to write. Raises OSError; then the
    old one is still in place, or again (`Changed`), or, when `stage.swapped`, the new one is, and the old one is at
    `stage.place`.
    """
    _sync(stage.fd, stage.name)
    name, fd, parent_fd = stage.name, stage.fd, stage.parent_fd
    live = _lstat(name, parent_fd)
    if not unchanged(live):
        raise Changed(stage.path)
    if live is None:
        _put_new(stage)
        return None
    write_record(stage.cell_fd, parent_fd, stage.path, live, kind=kind, reason=reason, now=now)
    if not unchanged(_lstat(name, parent_fd)):  # the record's fsync took its time
        raise Changed(stage.path)
    staged = _lstat(name, fd)
    stage.swapped = True
    try:
        exchange(fd, name, parent_fd, name)
    except OSError:
        with suppress(OSError):
            stage.swapped = not os.path.samestat(live, os.stat(name, dir_fd=parent_fd, follow_symlinks=False))
        raise
    sync_directory(fd)
    sync_directory(parent_fd)
    if not unchanged(_lstat(name, fd)) and _same(staged, _lstat(name, parent_fd)):
        exchange(fd, name, parent_fd, name)
        sync_directory(parent_fd)
        stage.swapped = False
        raise Changed(stage.path)
    os.rename(name, ITEM, src_dir_fd=fd, dst_dir_fd=stage.cell_fd)
    os.rmdir(STAGED, dir_fd=stage.cell_fd)
    sync_directory(stage.cell_fd)
    return f"{QUARANTINE}/{stage.cell}/{ITEM}"


def _put_new(stage: Stage) -> None:
    """Put the staged entry where nothing is. Raises Changed when something is there by now, or another OSError."""
    name, fd, parent_fd = stage.name, stage.fd, stage.parent_fd
    try:
        os.link(name, name, src_dir_fd=fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        os.unlink(name, dir_fd=fd)
    except FileExistsError:
        raise Changed(stage.path) from None
    except OSError:  # a directory, or a file system without hard links
        os.rename(name, name, src_dir_fd=fd, dst_dir_fd=parent_fd)
    sync_directory(parent_fd)


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Whether both are the same file with the same content, by all that lstat tells."""
    if one is None or other is None:
        return False
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _lstat(name: str, dir_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def exchange(a_dir_fd: int, a: str, b_dir_fd: int, b: str) -> None:
    """Let two entries of pinned directories of one file system change places.

    Where the system can't do it in one step, `b` is out of its place for a moment if it is a directory; after a crash
    in that moment it is in `a_dir_fd`, as `a` with `.aside` behind it. Raises OSError; then nothing has changed.
    """
    try:
        _exchange(a_dir_fd, a, b_dir_fd, b)
    except OSError as error:
        if error.errno not in rename.CANT:
            raise
        _exchange_in_steps(a_dir_fd, a, b_dir_fd, b)


def _exchange(a_dir_fd: int, a: str, b_dir_fd: int, b: str) -> None:
    rename.renameat2(a_dir_fd, a, b_dir_fd, b, rename.EXCHANGE)


def _exchange_in_steps(a_dir_fd: int, a: str, b_dir_fd: int, b: str) -> None:
    aside = f"{a}.aside"
    try:
        # A file keeps its name until the new one takes it; a directory can take only the place of nothing.
        if stat.S_ISDIR(os.stat(a, dir_fd=a_dir_fd, follow_symlinks=False).st_mode):
            raise IsADirectoryError
        os.link(b, aside, src_dir_fd=b_dir_fd, dst_dir_fd=a_dir_fd, follow_symlinks=False)
    except OSError:
        os.rename(b, aside, src_dir_fd=b_dir_fd, dst_dir_fd=a_dir_fd)
    try:
        os.rename(a, b, src_dir_fd=a_dir_fd, dst_dir_fd=b_dir_fd)
    except OSError:
        os.rename(aside, b, src_dir_fd=a_dir_fd, dst_dir_fd=b_dir_fd)
        with suppress(FileNotFoundError):  # rename(2) does nothing when both are names of one file
            os.unlink(aside, dir_fd=a_dir_fd)
        raise
    os.rename(aside, a, src_dir_fd=a_dir_fd, dst_dir_fd=a_dir_fd)


def _sync(dir_fd: int, name: str) -> None:
    """Make an entry durable with all that is in it."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        _sync_file(dir_fd, name)
        return
    with readable(name, dir_fd) as fd:
        if not hasattr(_LIBC, "syncfs"):
            _sync_below(fd)
        elif _LIBC.syncfs(fd) != 0:  # one flush of the file system is much faster than one of each file
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)


def _sync_below(fd: int) -> None:
    for _, _, names, folder_fd in os.fwalk(".", topdown=False, dir_fd=fd):
        for name in names:
            _sync_file(folder_fd, name)
        os.fsync(folder_fd)


def _sync_file(dir_fd: int, name: str) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        return
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
