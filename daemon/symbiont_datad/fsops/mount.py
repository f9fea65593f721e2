"""Where other file systems begin."""

import os
import re

_MOUNTINFO = "/proc/self/mountinfo"
_UNKNOWN = -1


def mount_points() -> frozenset[str]:
    """The absolute paths at which something is mounted, bind mounts included; empty where the system doesn't tell.

    The fifth field of a line is the path, with blanks and backslashes as octal escapes (proc(5), "mountinfo").
    """
    try:
        with open(_MOUNTINFO, "rb") as file:
            fields = [line.split(b" ", 5)[4] for line in file if line.count(b" ") >= 5]
    except FileNotFoundError:
        return frozenset()
    return frozenset(
        os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)) for field in fields
    )


def mount_of(fd: int) -> int:
    """The number of the mount that a descriptor was opened on; -1 where the system doesn't tell.

    It tells bind mounts of one file system apart, which the device number does not (proc(5), "fdinfo", `mnt_id`).
    """
    try:
        file = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return _UNKNOWN
    try:
        found = re.search(rb"^mnt_id:\s*(\d+)", os.read(file, 4096), re.MULTILINE)
    finally:
        os.close(file)
    return int(found[1]) if found else _UNKNOWN


def is_mount_point(path: str) -> bool:
    """Whether a file system is mounted at the absolute path, whose links are followed."""
    path = os.path.realpath(path)
    points = mount_points()
    return path in points if points else os.path.ismount(path)


def mounts_below(path: str) -> frozenset[str]:
    """The mount points inside the directory, relative to it."""
    prefix = path.rstrip("/") + "/"
    return frozenset(point[len(prefix) :] for point in mount_points() if point.startswith(prefix))
