"""Where other file systems begin."""

import os
import re

_MOUNTINFO = "/proc/self/mountinfo"


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


def is_mount_point(path: str) -> bool:
    """Whether a file system is mounted at the absolute path."""
    points = mount_points()
    return path in points if points else os.path.ismount(path)


def mounts_below(path: str) -> frozenset[str]:
    """The mount points inside the directory, relative to it."""
    prefix = path.rstrip("/") + "/"
    return frozenset(point[len(prefix) :] for point in mount_points() if point.startswith(prefix))
