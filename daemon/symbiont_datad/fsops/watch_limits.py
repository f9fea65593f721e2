"""How many directories may be watched here, and how many are: inotify's limits (inotify(7), "/proc interfaces")."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LIMITS = Path("/proc/sys/fs/inotify")
_PROC = Path("/proc")
_LARGEST = 1 << 22


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """inotify's limits for one user, and how much of them that user's processes have, as far as can be seen.

    `instances` are descriptors, `watches` are directories and files watched through any of them. `queued`: events that
    wait for one descriptor before the kernel drops them.
    """

    instances: int
    watches: int
    queued: int
    used_instances: int
    used_watches: int


def watch_limits(uid: int) -> WatchLimits | None:
    """The limits that hold for a user; None where the system has none (macOS)."""
    try:
        instances, watches, queued = (
            int((_LIMITS / f"max_{name}").read_text()) for name in ("user_instances", "user_watches", "queued_events")
        )
    except (OSError, ValueError):
        return None
    seen = [found for pid in _processes(uid) for found in _instances(pid)]
    return WatchLimits(instances, watches, queued, len(seen), sum(seen))


def _processes(uid: int) -> Iterator[Path]:
    with suppress(OSError):
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if entry.stat().st_uid == uid:
                        yield entry


def _instances(process: Path) -> Iterator[int]:
    """Of each inotify descriptor of a process, how many watches it has; nothing of one that can't be looked at."""
    with suppress(OSError):
        for name in os.listdir(process / "fd"):
            with suppress(OSError):
                if os.readlink(process / "fd" / name) == "anon_inode:inotify":
                    with open(process / "fdinfo" / name, "rb") as file:
                        yield len(re.findall(rb"^inotify wd:", file.read(_LARGEST), re.MULTILINE))
