"""When a thread gets a processor: soon after an event, and briefly.

A repair takes a fraction of a millisecond, but on a machine whose processors are all busy it first waits until a time
slice of somebody else ends (some milliseconds). Linux 6.12 and newer let a thread ask for shorter slices of its own and
then let it in sooner (sched_setattr(2), `sched_runtime` of SCHED_OTHER; "EEVDF Scheduler" in the kernel's
documentation). It gets no more of the processor by that, so it needs no permission. Older kernels pass the wish over;
elsewhere nothing is done.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SHORT_NS = 100_000  # the shortest that the kernel grants
_USUAL = 0
_CALL = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period


@contextmanager
def short_slices() -> Iterator[None]:
    """Threads that are started while the block runs have short slices, and those that they start."""
    _ask_for(_SHORT_NS)
    try:
        yield
    finally:
        _ask_for(_USUAL)


def _ask_for(slice_ns: int) -> None:
    number = _CALL.get(platform.machine()) if sys.platform == "linux" else None
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:  # the user chose another policy
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wish = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).syscall(number, 0, wish, 0)
