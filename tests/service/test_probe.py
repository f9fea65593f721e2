"""What a probe hears of each state that a daemon can be in."""

from dataclasses import replace

import pytest

from symbiont_datad.live import LiveState
from symbiont_datad.service.probe import Probe, trouble

NOW = 5000.0
WELL = LiveState(
    pid=7,
    started_at=1.0,
    written_at=2.0,
    running=True,
    ready=True,
    started=True,
    alive=True,
    beat=NOW - 1,
    every_s=40.0,
)


def heard(state: LiveState | None, keeper: int | None = 7) -> dict[Probe, str]:
    """What each probe hears."""
    return {probe: trouble(probe, state, keeper, NOW) for probe in Probe}


@pytest.mark.parametrize(
    "state",
    [
        WELL,
        replace(WELL, warnings=("backup failed: no space left", "the watcher is down: repairs wait")),
        replace(WELL, beat=NOW - 80.0),
        replace(WELL, beat=NOW),
    ],
)
def test_all_is_well(state: LiveState) -> None:
    """A daemon that moves and keeps its tree passes, whatever jobs fail."""
    assert {Probe.LIVE: "", Probe.READY: "", Probe.STARTUP: ""} == heard(state)


@pytest.mark.parametrize(
    ("state", "keeper", "why"),
    [
        (WELL, None, "no daemon is running"),
        (None, 7, "the daemon is starting"),
        (replace(WELL, running=False), 7, "the daemon is starting"),
        (replace(WELL, beat=NOW + 1), 7, "the daemon is starting"),
        (replace(WELL, beat=NOW - 81.0), 7, "the daemon has not moved for 1m 21s"),
        (replace(WELL, alive=False, warnings=("x", "the guard doesn't move")), 7, "the guard doesn't move"),
        (replace(WELL, alive=False), 7, "a part of it doesn't move"),
    ],
)
def test_what_is_not_alive_passes_nothing(state: LiveState | None, keeper: int | None, why: str) -> None:
    """No daemon, one that starts, one that hangs, one of which a part hangs: no probe passes, and each says why."""
    assert dict.fromkeys(Probe, why) == heard(state, keeper)


def test_a_tree_that_was_never_kept() -> None:
    """While the volume is not mounted yet the daemon lives, and is neither ready nor started."""
    found = heard(replace(WELL, ready=False, started=False))
    why = "the tree is not ready yet"
    assert {Probe.LIVE: "", Probe.READY: why, Probe.STARTUP: why} == found


def test_a_tree_that_went_away() -> None:
    """A volume that is gone later makes it unready; it has started all the same, and no restart is asked for."""
    found = heard(replace(WELL, ready=False))
    assert {Probe.LIVE: "", Probe.READY: "the tree is not kept now; the log says why", Probe.STARTUP: ""} == found
