"""Replacing a file by a new one that has its mode and owner: whole or not at all, and durably.

Unlike `write.write_atomic`, the temporary file has the same name each time, so that crashes leave one and not many. So
whoever writes has to see to it that nobody else writes the same file at the same time.
"""

import errno
import os
from contextlib import suppress

from symbiont_datad.fsops.root import Tree, sync_directory
from symbiont_datad.fsops.walk import Entry, look


def replace_file(dir_fd: int, name: str, data: bytes, like: os.stat_result | None, *, temporary: str = "") -> None:
    """Give the file `name` in a pinned directory this content. The directory is yet to be synced.

    It gets the mode and owner of `like`; without it the mode that the umask leaves, and, as root, the owner of the
    directory. `temporary`: what the new file is called until it is whole. Raises OSError, and then the old file is
    untouched; PermissionError when it would get another owner.
    """
    temporary = temporary or _temporary(name)
    _write_new(dir_fd, temporary, data, like)
    os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def rewrite(tree: Tree, entry: Entry, data: bytes) -> Entry | None:
    """Store a listed file's content in another way: the file keeps its times as well. Durable.

    Hand back its new entry; None, and nothing was done, when the file is no longer the one that was listed. Raises
    OSError or UnsafePath.
    """
    with tree.holding(entry.path) as (dir_fd, name):
        try:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            _write_new(dir_fd, _temporary(name), data, found, times_ns=(entry.atime_ns, entry.mtime_ns))
            if entry.differs(os.stat(name, dir_fd=dir_fd, follow_symlinks=False)):
                os.unlink(_temporary(name), dir_fd=dir_fd)
                return None
        except FileNotFoundError:
            with suppress(OSError):
                os.unlink(_temporary(name), dir_fd=dir_fd)
            return None
        os.rename(_temporary(name), name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        sync_directory(dir_fd)
    return look(tree, entry.path)


def _temporary(name: str) -> str:
    return f".{os.fsdecode(os.fsencode(name)[:240])}.tmp"  # NAME_MAX is 255 bytes


def _write_new(
    dir_fd: int, temporary: str, data: bytes, like: os.stat_result | None, *, times_ns: tuple[int, int] | None = None
) -> None:
    """A new file under a temporary name, synced. What has that name, left by a crash or planted, is never opened."""
    root = os.geteuid() == 0
    if like is not None and not root and like.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"it belongs to uid {like.st_uid}", temporary)
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o666 if like is None else 0o600, dir_fd=dir_fd)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            owner = like if like is not None else os.fstat(dir_fd)
            if root:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            elif like is not None:
                with suppress(PermissionError):  # a group that we are not in
                    os.fchown(fd, -1, like.st_gid)
            if like is not None:
                os.fchmod(fd, like.st_mode & 0o777)
            if times_ns is not None:
                os.utime(fd, ns=times_ns)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
