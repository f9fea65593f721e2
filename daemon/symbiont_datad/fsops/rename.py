"""Renaming that rename(2) can't do: without taking the place of anything, or two names at once (renameat2(2))."""

import ctypes
import errno
import os
import stat

NO_REPLACE, EXCHANGE = 1, 2  # RENAME_NOREPLACE and RENAME_EXCHANGE of linux/fs.h
CANT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
"""How systems and file systems say that they don't know a flag."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def renameat2(from_fd: int, name: str, to_fd: int, new_name: str, flags: int) -> None:
    """The system call, between pinned directories. Raises OSError, with a code in CANT where it can't be had."""
    if not hasattr(_LIBC, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _LIBC.renameat2(from_fd, os.fsencode(name), to_fd, os.fsencode(new_name), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), new_name)


def rename_new(from_fd: int, name: str, to_fd: int, new_name: str) -> None:
    """Give an entry of a pinned directory a name that nothing has, in the same or another one of that file system.

    Raises FileExistsError when something has it, or another OSError; then nothing has changed. Where the system can't
    do it in one step, a file has both names for a moment, and a directory could take the place of an empty one that
    was made that instant.
    """
    try:
        renameat2(from_fd, name, to_fd, new_name, NO_REPLACE)
    except OSError as error:
        if error.errno not in CANT:
            raise
        _rename_in_steps(from_fd, name, to_fd, new_name)


def _rename_in_steps(from_fd: int, name: str, to_fd: int, new_name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=from_fd, follow_symlinks=False).st_mode):
        try:
            os.stat(new_name, dir_fd=to_fd, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
    os.link(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    os.unlink(name, dir_fd=from_fd)
