"""What the process uses, by proc(5), or as far as another system tells it."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """Of this process; `children_cpu_s` of those that it has waited for. None is what can't be told here."""

    cpu_s: float
    children_cpu_s: float
    resident_bytes: int | None = None
    virtual_bytes: int | None = None
    open_fds: int | None = None
    max_fds: int | None = None
    threads: int | None = None


def process_figures() -> ProcessFigures:
    """The figures now."""
    times = os.times()
    cpu_s, children_cpu_s = times.user + times.system, times.children_user + times.children_system
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    max_fds = limit if limit != resource.RLIM_INFINITY else None
    if sys.platform != "linux":
        return ProcessFigures(cpu_s, children_cpu_s, open_fds=_entries("/dev/fd"), max_fds=max_fds)
    page = os.sysconf("SC_PAGE_SIZE")
    virtual, resident, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
    return ProcessFigures(
        cpu_s,
        children_cpu_s,
        resident * page,
        virtual * page,
        _entries("/proc/self/fd"),
        max_fds,
        _entries("/proc/self/task"),
    )


def _entries(directory: str) -> int:
    return len(os.listdir(directory))
