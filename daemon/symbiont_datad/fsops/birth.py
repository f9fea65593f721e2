"""When a file was made, which `lstat` does not tell on Linux (statx(2), `stx_btime`)."""

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_BIRTH = 0x800  # STATX_BTIME
_NO_FOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW
_SIZE = 256  # of struct statx
_TIME = struct.Struct("=qI")
_TIME_AT = 80  # of stx_btime in it


def born(name: str, dir_fd: int) -> float | None:
    """When the file `name` in a pinned directory was made, in seconds since the epoch; None where nobody knows."""
    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    told: float | None = getattr(found, "st_birthtime", None)
    if told is not None or not hasattr(_LIBC, "statx"):
        return told
    buffer = ctypes.create_string_buffer(_SIZE)
    if _LIBC.statx(dir_fd, os.fsencode(name), _NO_FOLLOW, _BIRTH, buffer) != 0:
        return None
    (mask,) = struct.unpack_from("=I", buffer)
    if not mask & _BIRTH:
        return None
    seconds, nanoseconds = _TIME.unpack_from(buffer, _TIME_AT)
    return float(seconds + nanoseconds / 1e9)
