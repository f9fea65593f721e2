"""The clock: what is wrong with it, by what was seen."""

import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.doctor import clock
from symbiont_datad.doctor.clock import Clock
from symbiont_datad.fsops import machine
from symbiont_datad.ledger import Ledger
from symbiont_datad.live import LiveState

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        pytest.param([], Clock(NOW, True, NOW - 60, 0.3), id="right"),
        pytest.param([], Clock(NOW, None), id="nothing tells"),
        pytest.param([("clock_unsynchronised", "info")], Clock(NOW, False), id="kept by nothing"),
        pytest.param([("clock_wrong", "error")], Clock(86_400.0, True, NOW), id="1970"),
        pytest.param([("clock_went_back", "warning")], Clock(NOW, True, NOW + 7200), id="a run in the future"),
        pytest.param([], Clock(NOW, True, NOW + 60), id="a minute is nothing"),
        pytest.param([("clock_jumped", "warning")], Clock(NOW, True, NOW, -3600.0), id="an hour back since"),
    ],
)
def test_judging(kinds: list[tuple[str, str]], seen: Clock) -> None:
    """Each with its severity, a sentence and what to do."""
    found = clock.judge(seen).findings
    assert kinds == [(one.kind, one.severity) for one in found]
    assert all(one.detail and one.remedy for one in found)


def test_a_jump_is_seen_by_what_a_daemon_left() -> None:
    """The wall clock has moved against the monotonic one since it wrote; of a daemon that is gone nothing is told."""
    state = LiveState(1, NOW, time.time() - 3600, True, True, beat=time.monotonic())
    with Ledger(None) as ledger:
        moved = clock.look(ledger, state, 1).moved_s
        assert moved is not None
        assert 3590 < moved < 3610
        assert clock.look(ledger, state, None).moved_s is None


def test_a_ledger_that_can_not_be_read_tells_no_time(tmp_path: Path) -> None:
    """The rest is looked at all the same."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.begin_run("sweep", NOW)
        assert NOW == clock.look(ledger, None, None).last_run
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
            db.execute("drop table runs")
        assert clock.look(ledger, None, None).last_run is None


def test_where_the_system_does_not_tell_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells whether something keeps the clock right; of others it is not asked."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine.clock_is_synchronised() is None
