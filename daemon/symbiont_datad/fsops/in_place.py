"""Files that are written over in place, on a file system that writes everything elsewhere (btrfs).

There a page of a mapped file needs room each time it was written down since; on a full disk the process that writes to
it is ended by SIGBUS. SQLite maps the index of its log. In a directory with the attribute `C` (chattr(1)) new files
keep their blocks.
"""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (linux/fs.h), where long has 64 bits
_NO_COPY_ON_WRITE = 0x00800000  # FS_NOCOW_FL


def keep_in_place(directory: Path) -> None:
    """Have the files that are made in a directory from now on written over in place, where that is a question at all.

    What can't be set is left as it is: other file systems refuse, and so does a directory of somebody else.
    """
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            (flags,) = struct.unpack_from("I", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))
            if not flags & _NO_COPY_ON_WRITE:
                fcntl.ioctl(fd, _SET_FLAGS, struct.pack("Q", flags | _NO_COPY_ON_WRITE))
        finally:
            os.close(fd)
