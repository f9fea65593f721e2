"""What a file system has left."""

import ctypes
import os

from symbiont_datad.fsops.root import Tree, readable

_LIBC = ctypes.CDLL(None, use_errno=True)


def space_at(path: str) -> tuple[os.statvfs_result, int]:
    """What the file system of an existing path has, and its device's number. Follows links. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.fstatvfs(fd), os.fstat(fd).st_dev
    finally:
        os.close(fd)


def space_of(tree: Tree) -> tuple[os.statvfs_result, int]:
    """What the file system of the tree has, and its device's number. Raises OSError or UnsafePath."""
    with tree.root() as root_fd, readable(".", root_fd) as fd:
        return os.fstatvfs(fd), os.fstat(fd).st_dev


def flush(tree: Tree) -> None:
    """Have the file system write down what was removed: some count it as free only then. Raises OSError."""
    if not hasattr(_LIBC, "syncfs"):
        os.sync()
        return
    with tree.root() as root_fd, readable(".", root_fd) as fd:
        if _LIBC.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
