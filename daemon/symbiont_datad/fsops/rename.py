"""Renaming without taking the place of anything (renameat2(2), `RENAME_NOREPLACE`)."""

import ctypes
import errno
import os
import stat

_NO_REPLACE = 1  # RENAME_NOREPLACE of linux/fs.h
_CANT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
"""How systems and file systems say that they don't know the flag."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def move_new(name: str, from_fd: int, to_fd: int) -> None:
    """Move an entry from one pinned directory into another of the same file system, where nothing may have its name.

    Raises FileExistsError when something has it, or another OSError; then nothing has changed. Where the system can't
    do it in one step, a file has both names for a moment, and a directory could take the place of an empty one that
    was made that instant.
    """
    try:
        _rename_new(name, from_fd, to_fd)
    except OSError as error:
        if error.errno not in _CANT:
            raise
        _move_in_steps(name, from_fd, to_fd)


def _rename_new(name: str, from_fd: int, to_fd: int) -> None:
    if not hasattr(_LIBC, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    encoded = os.fsencode(name)
    if _LIBC.renameat2(from_fd, encoded, to_fd, encoded, _NO_REPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)


def _move_in_steps(name: str, from_fd: int, to_fd: int) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=from_fd, follow_symlinks=False).st_mode):
        try:
            os.stat(name, dir_fd=to_fd, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    os.link(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    os.unlink(name, dir_fd=from_fd)
