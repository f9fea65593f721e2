"""Reading files that others write to: nothing but regular files is opened, and no link is followed."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from symbiont_datad.fsops.walk import Entry

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOATIME = getattr(os, "O_NOATIME", 0)

CHUNK = 256 * 1024
"""How many bytes are read at a time."""


@contextmanager
def opened_regular(name: str, dir_fd: int) -> Iterator[int]:
    """The descriptor of the regular file `name` in a pinned directory, open for reading.

    Neither a FIFO nor a device with that name makes this wait. Raises OSError, also for what is no regular file.
    """
    fd = _opened(name, dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name} is no regular file; not read")
        yield fd
    finally:
        os.close(fd)


def _opened(name: str, dir_fd: int) -> int:
    """A descriptor that leaves no trace in the access time, where that is allowed (to the owner, and to root): what was
    used last is what agents have used.
    """
    if _NOATIME:
        with suppress(PermissionError):
            return os.open(name, _FLAGS | _NOATIME, dir_fd=dir_fd)
    return os.open(name, _FLAGS, dir_fd=dir_fd)


def chunks(fd: int) -> Iterator[bytes]:
    """What is left to read, `CHUNK` bytes at a time."""
    while data := os.read(fd, CHUNK):
        yield data


def read_unchanged(name: str, dir_fd: int, entry: Entry, largest: int) -> bytes | None:
    """The content of the file `name` in a pinned directory, no more than `largest` bytes of it.

    None when it is not, or no longer, the file that was listed as `entry`, before it was read or after. Raises OSError.
    """
    fd = _opened(name, dir_fd)
    try:
        if entry.differs(os.fstat(fd)) or not entry.is_file:
            return None
        wanted = min(entry.size, largest)
        data = os.read(fd, wanted + 1)
        if len(data) < wanted:  # a signal, or a file system that reads in small pieces
            pieces = [data]
            while more := os.read(fd, CHUNK):
                pieces.append(more)
                if sum(map(len, pieces)) > largest:
                    break
            data = b"".join(pieces)
        return None if entry.differs(os.fstat(fd)) else data[:largest]
    finally:
        os.close(fd)
