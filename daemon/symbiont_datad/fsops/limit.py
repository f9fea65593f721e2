"""How much memory this process and its children may take together (cgroups(7)), and who goes first when it is gone."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_SCORE = Path("/proc/self/oom_score_adj")
_FIRST = 500
_UNLIMITED = 1 << 60
"""What version 1 has for "none" is a number larger than this."""


def memory_limit() -> int | None:
    """The least limit, in bytes, of the control groups that this process is in; None where there is none.

    /proc/self/cgroup names them: `0::/system.slice/x` of version 2, `4:memory:/docker/x` of version 1. A container may
    see its own group as the root, so that counts too.
    """
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _limits(_CGROUPS, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(_CGROUPS / "memory", path, "memory.limit_in_bytes")
    return min((limit for limit in found if limit < _UNLIMITED), default=None)


def _limits(top: Path, path: str, file: str) -> Iterator[int]:
    """Those of a group and of all around it."""
    group = Path(os.path.normpath(path))
    for directory in (group, *group.parents):
        with suppress(OSError, ValueError):  # the root of the machine has none; "max" is none
            yield int((top / str(directory).lstrip("/") / file).read_text())


def go_first() -> None:
    """Have the kernel end this process before others when memory is gone (proc(5), `oom_score_adj`). Children inherit
    it. Needs no permission; where there is no such file nothing is done."""
    with suppress(OSError, ValueError):
        if int(_SCORE.read_text()) < _FIRST:
            _SCORE.write_text(str(_FIRST))
