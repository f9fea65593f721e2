"""Where other file systems begin."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from symbiont_datad.errors import TreeHeld

_MOUNTINFO = "/proc/self/mountinfo"
_UNKNOWN = -1
_HERE = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs", "zfs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: its number, that of the one below it, the device, which directory of it, and where that is seen.

    `kind`: that of its file system (`ext4`).
    """

    number: int
    below: int
    device: str
    root: str
    point: str
    kind: str = ""


def mounts() -> tuple[Mount, ...]:
    """All that this process sees, in the order in which they were made; none where the system doesn't tell.

    Paths have blanks and backslashes as octal escapes (proc(5), "mountinfo").
    """
    try:
        with open(_MOUNTINFO, "rb") as file:
            lines = [line.split(b" ", 5) for line in file if line.count(b" ") >= 5]
    except FileNotFoundError:
        return ()
    return tuple(
        Mount(int(number), int(below), device.decode(), _unescaped(root), _unescaped(point), _kind(rest))
        for number, below, device, root, point, rest in lines
    )


def _kind(rest: bytes) -> str:
    """What follows the dash behind options and optional fields."""
    return rest.partition(b" - ")[2].partition(b" ")[0].decode("ascii", "replace")


def _unescaped(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def mount_holding(path: str, seen: Iterable[Mount]) -> Mount | None:
    """The mount that an absolute path without links in it is on; None where that is not among those seen."""
    seen = tuple(seen)
    return _on_top(path, seen) or _around(path, seen)


def mount_points() -> frozenset[str]:
    """The absolute paths at which something is mounted, bind mounts included; empty where the system doesn't tell."""
    return frozenset(mount.point for mount in mounts())


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
    seen = mounts()
    return is_volume(path, seen) if seen else os.path.ismount(path)


def is_of_this_machine(path: str) -> bool:
    """Whether an absolute path, whose links are followed, is on a file system that this kernel alone writes to: all see
    at once what one has written. Only of kinds that are known to be so can that be told.
    """
    mount = mount_holding(os.path.realpath(path), mounts())
    return mount is not None and mount.kind in _HERE


def refuse_unmounted(root: str, required: str | bool) -> None:
    """Raises TreeHeld unless the file system of the tree at `root` is mounted.

    `required` is the setting `guard.require_mount`: a mount point, True (the root or its parent must be one) or False.
    """
    if not required:
        return
    above = root.rpartition("/")[0]
    places = [required] if isinstance(required, str) else [root, above] if above else [root]
    if not any(is_mount_point(place) for place in places):
        raise TreeHeld(f"guard.require_mount: nothing is mounted at {' or '.join(places)}")


def is_volume(path: str, seen: Iterable[Mount]) -> bool:
    """Whether what is seen at a path is anything else than the directory that is there without a mount.

    A service manager's sandbox binds the directories that it leaves writable over themselves (systemd.exec(5),
    `ReadWritePaths=`, `StateDirectory=`). That is a mount, and no volume; and it hides a volume that comes later.
    """
    there, around = _on_top(path, seen), _around(path, seen)
    if there is None or around is None:
        return there is not None
    without = around.root.rstrip("/") + path[len(around.point.rstrip("/")) :]
    return (there.device, there.root) != (around.device, without)


def _on_top(point: str, seen: Iterable[Mount]) -> Mount | None:
    stacked = [mount for mount in seen if mount.point == point]
    covered = {mount.below for mount in stacked}
    return next((mount for mount in reversed(stacked) if mount.number not in covered), None)


def _around(path: str, seen: Iterable[Mount]) -> Mount | None:
    """What is mounted nearest above a path."""
    above = {
        mount.point for mount in seen if mount.point != path and f"{path}/".startswith(f"{mount.point.rstrip('/')}/")
    }
    return _on_top(max(above, key=len), seen) if above else None


def mounts_below(path: str) -> frozenset[str]:
    """The mount points inside the directory, relative to it."""
    prefix = path.rstrip("/") + "/"
    return frozenset(point[len(prefix) :] for point in mount_points() if point.startswith(prefix))
