"""Time slices, as the kernel tells of them."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from symbiont_datad.service.priority import short_slices


def slice_ns() -> int:
    """The slice of the thread that asks, in nanoseconds (proc(5): /proc/PID/sched, kernels with CONFIG_SCHED_DEBUG)."""
    found = re.search(r"^se\.slice\s*:\s*(\d+)$", Path("/proc/thread-self/sched").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def in_thread() -> int:
    """The slice of a thread that is started now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(slice_ns()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: slices are Linux's")
def test_threads_started_in_the_block_have_short_slices() -> None:
    """Inside, a thread gets 0.1 ms where it had a millisecond or more; afterwards all are as before."""
    path = Path("/proc/thread-self/sched")
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release < (6, 12) or not path.exists() or "se.slice" not in path.read_text():
        pytest.skip("not on this platform: the kernel has no slices, or does not tell of them")
    before = slice_ns()
    with short_slices():
        assert 100_000 == in_thread()
    assert before == slice_ns() == in_thread()


def test_it_is_quiet_where_it_can_do_nothing() -> None:
    """A kernel or a sandbox that doesn't know the call raises nothing."""
    with short_slices(), short_slices():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: policies are Linux's")
def test_who_chose_another_policy_keeps_it() -> None:
    """A daemon that was started by `chrt --batch` stays so, and is asked for nothing else."""
    code = (
        "import os; from symbiont_datad.service.priority import short_slices\n"
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\n"
        "with short_slices(): print(os.sched_getscheduler(0) == os.SCHED_BATCH)\n"
        "print(os.sched_getscheduler(0) == os.SCHED_BATCH)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (0, "True\nTrue\n") == (done.returncode, done.stdout), done.stderr
