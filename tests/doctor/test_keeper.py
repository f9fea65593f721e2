"""The daemon as the doctor sees it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.doctor import keeper
from symbiont_datad.doctor.keeper import Keeper
from symbiont_datad.fsops.lock import hold
from symbiont_datad.live import LiveState
from tests.conftest import AsNobody

NOW = 1_800_000_000.0
LIVE = LiveState(7, NOW - 900, NOW - 5, True, True, version="1.2.3", settings_at=NOW - 800)
GOOD = Keeper(7, LIVE, "", "1.2.3", NOW - 1000)


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        pytest.param([], GOOD, id="good"),
        pytest.param([("daemon_down", "info")], Keeper(None, None, "", "1.2.3"), id="never ran"),
        pytest.param(
            [("daemon_down", "info")], Keeper(None, replace(LIVE, running=False), "", "1.2.3"), id="ended well"
        ),
        pytest.param([("daemon_died", "error")], Keeper(None, LIVE, "", "1.2.3"), id="killed"),
        pytest.param([("daemon_unwell", "error")], replace(GOOD, trouble="it does not move"), id="stuck"),
        pytest.param([("daemon_outdated", "warning")], replace(GOOD, installed="1.3.0"), id="an update"),
        pytest.param(
            [("daemon_outdated", "warning")], replace(GOOD, live=replace(LIVE, version="")), id="before versions"
        ),
        pytest.param([("settings_not_read", "warning")], replace(GOOD, settings_at=NOW - 10), id="not reloaded"),
        pytest.param(
            [("daemon_warns", "warning")], replace(GOOD, live=replace(LIVE, warnings=("backup failed: x",))), id="warns"
        ),
        pytest.param(
            [("daemon_unseen", "warning")], Keeper(None, None, "Permission denied", "1", unseen=True), id="another's"
        ),
    ],
)
def test_judging(kinds: list[tuple[str, str]], seen: Keeper) -> None:
    """Each finding says what to do."""
    found = keeper.judge(seen, NOW).findings
    assert kinds == [(one.kind, one.severity) for one in found]
    assert all(one.detail and one.remedy for one in found)


def test_what_is_told_of_jobs() -> None:
    """Those that run now, each with its process."""
    assert "backup (process 9)" in keeper.judge(replace(GOOD, locks=(("backup", 9),)), NOW).told


def test_a_daemon_of_somebody_else_can_not_be_seen(open_path: Path, as_nobody: AsNobody) -> None:
    """Nothing is said of whether it runs."""
    (open_path / "datad" / "locks").mkdir(parents=True)
    (open_path / "datad").chmod(0o700)
    found = as_nobody(lambda: keeper.look(open_path / "datad", None))
    assert (True, None, "Permission denied") == (found.unseen, found.pid, found.trouble)


def test_locks_that_are_held_are_seen(tmp_path: Path) -> None:
    """By which job; that of the daemon itself is no job's, and a file that nobody holds is none."""
    with hold(tmp_path / "locks" / "keeper.lock", "x"), hold(tmp_path / "locks" / "backup.lock", "x"):
        (tmp_path / "locks" / "sweep.lock").touch()
        found = keeper.look(tmp_path, tmp_path / "no settings")
    assert (os.getpid(), (("backup", os.getpid()),), None) == (found.pid, found.locks, found.settings_at)
