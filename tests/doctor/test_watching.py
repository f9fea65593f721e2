"""inotify's limits: those of the machine, and what is said of scarce ones."""

import ctypes
import os
import sys

import pytest

from symbiont_datad.doctor import watching
from symbiont_datad.doctor.watching import Watching
from symbiont_datad.fsops.watch_limits import WatchLimits, watch_limits


@pytest.mark.parametrize(
    ("kinds", "used_instances", "used_watches", "running"),
    [
        pytest.param([], 2, 100, False, id="plenty"),
        pytest.param(["scarce_watches"], 2, 890, False, id="too few watches"),
        pytest.param([], 2, 890, True, id="the daemon has them already"),
        pytest.param(["scarce_instances"], 10, 0, False, id="no instance left"),
        pytest.param(["scarce_watches", "scarce_instances"], 10, 1000, True, id="neither"),
    ],
)
def test_judging(kinds: list[str], used_instances: int, used_watches: int, running: bool) -> None:
    """What is scarce is said with the line that makes more."""
    limits = WatchLimits(10, 1000, 16384, used_instances, used_watches)
    found = watching.judge(Watching(limits, 20, running)).findings
    assert kinds == [one.kind for one in found]
    assert all("sysctl -w fs.inotify.max_user_" in one.remedy for one in found)


def test_without_inotify_nothing_is_scarce() -> None:
    """macOS has no such limit."""
    assert () == watching.judge(Watching(None, 20, False)).findings


@pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: inotify")
def test_what_is_in_use_is_counted() -> None:
    """A descriptor and a watch of this user are seen."""
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    try:
        libc.inotify_add_watch(fd, b"/", 0x100)
        found = watch_limits(os.geteuid())
    finally:
        os.close(fd)
    assert found is not None
    assert min(found.watches, found.instances, found.queued) > 0
    assert found.used_instances >= 1
    assert found.used_watches >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: inotify")
def test_what_others_have_does_not_count() -> None:
    """The limits are for each user."""
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    found = watch_limits(64_321)
    os.close(fd)
    assert found is not None
    assert (0, 0) == (found.used_instances, found.used_watches)
    assert found.instances > 0
