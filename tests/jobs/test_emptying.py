"""What goes from the quarantine, and days on which nobody wrote."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.write import quarantine
from symbiont_datad.jobs import JOBS
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.report import Outcome
from symbiont_datad.retention.quarantine import QuarantineLimits
from tests.conftest import AsNobody
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, stop_after, write
from tests.support import NOBODY


def moved_aside(base: Path, name: str, age_s: float, size: int = 100) -> None:
    """Something that stood in the way some time ago."""
    write(base / "data" / name, b"x" * size)
    quarantine(Tree(str(base / "data")), name, kind="obstruction", reason="test", now=NOW - age_s)


def cells(base: Path) -> list[str]:
    """The cells that there are."""
    return sorted(os.listdir(base / "data/.quarantine"))


def test_old_things_go_and_the_newest_stays(tmp_path: Path) -> None:
    """By the age in the settings, each with a row; the dry run says the same."""
    settings = settings_for(tmp_path, quarantine=QuarantineLimits(max_age_s=30 * DAY))
    for name, age in (("a", 50), ("b", 40), ("c", 35)):
        moved_aside(tmp_path, name, age * DAY)
    dry = run("clean", settings, dry_run=True)
    ran = run("clean", settings)
    assert dry.report.actions == ran.report.actions
    assert [".quarantine/20260929T110640Z", ".quarantine/20261009T110640Z"] == [one.path for one in ran.report.actions]
    assert {"50d old, over 30d", "40d old, over 30d"} == {one.reason for one in ran.report.actions}
    assert ["20261014T110640Z"] == cells(tmp_path)
    with ledger_of(settings) as ledger:
        assert [("quarantine_expired", "done")] * 2 == [(row.kind, row.state) for row in ledger.actions()]


def test_over_its_size_the_oldest_goes(tmp_path: Path) -> None:
    """Until it fits."""
    settings = settings_for(tmp_path, quarantine=QuarantineLimits(max_bytes=3000))
    for name, age in (("a", 3), ("b", 2), ("c", 1)):
        moved_aside(tmp_path, name, age * DAY, size=1500)
    run("clean", settings)
    assert ["20261117T110640Z"] == cells(tmp_path)


def test_work_under_way_is_left_for_a_day(tmp_path: Path) -> None:
    """A cell without a record is a restore that is being staged; a day later it is what a crash left of one."""
    settings = settings_for(tmp_path, quarantine=QuarantineLimits(max_age_s=60.0))
    for stamp in ("20261118T100000Z", "20261118T100000Z-1"):
        write(tmp_path / f"data/.quarantine/{stamp}/staged/file")
    assert () == run("clean", settings).report.actions
    run("clean", settings, now=NOW + DAY)
    assert ["20261118T100000Z-1"] == cells(tmp_path)


def test_what_a_planted_record_says_harms_nothing(tmp_path: Path) -> None:
    """A record that says the time is over ends that cell and nothing else; links in it are unlinked."""
    settings = settings_for(tmp_path)
    keep = write(tmp_path / "keep")
    cell = tmp_path / "data/.quarantine/20261118T100000Z"
    write(cell / "record.json", json.dumps({"kind": "removed", "until": "1970-01-01T00:00:00Z", "path": ".."}).encode())
    (cell / "files").symlink_to(tmp_path)
    run("clean", settings)
    assert [] == cells(tmp_path)
    assert keep.exists()


def days_in(base: Path) -> JobSettings:
    """Settings of a tree whose days the guard makes, and a history with empty days."""
    settings = settings_for(base)
    history = base / "data/prompts/history"
    for name in ("2026-11-10", "2026-11-16", "2026-11-17", "2026-11-18", "2026-11-19", "not a day"):
        (history / name).mkdir()
        os.utime(history / name, (NOW - 5 * DAY, NOW - 5 * DAY))
    return replace(settings, layout=replace(settings.layout, days="prompts/history"))


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Days are those of UTC; another zone may have others."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_days_on_which_nobody_wrote_go(tmp_path: Path) -> None:
    """Empty ones of the past; not yesterday's, nor one that something has just changed, nor what is no day."""
    assert "2026-11-18" == datetime.fromtimestamp(NOW, UTC).date().isoformat()
    settings = days_in(tmp_path)
    history = tmp_path / "data/prompts/history"
    write(history / "2026-11-10/used", age_s=9 * DAY)
    (history / "2026-11-11").mkdir()
    ran = run("clean", settings)
    assert Outcome.DONE is ran.report.outcome
    assert [("directory_removed", "prompts/history/2026-11-16")] == [(one.kind, one.path) for one in ran.report.actions]
    assert ["2026-11-10", "2026-11-11", "2026-11-17", "2026-11-18", "2026-11-19", "not a day"] == sorted(
        os.listdir(history)
    )


def test_without_days_nothing_empty_goes(tmp_path: Path) -> None:
    """Where the guard makes none, they are the users' own."""
    settings = days_in(tmp_path)
    assert () == run("clean", replace(settings, layout=replace(settings.layout, days=None))).report.actions


def test_a_quarantine_that_can_not_be_looked_into_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """What the daemon's user may not read is a finding, and the rest of the job is done."""
    settings = settings_for(open_path)
    (open_path / "data/.quarantine").mkdir(0o700)
    (open_path / "datad").mkdir()
    os.chown(open_path / "datad", NOBODY, NOBODY)
    JOBS["clean"].load()  # who is nobody may not read it
    report = as_nobody(lambda: run("clean", settings)).report
    assert (Outcome.LEFT, [("unread", ".quarantine")]) == (
        report.outcome, [(one.kind, one.path) for one in report.findings],
    )  # fmt: skip


def test_what_can_not_be_removed_is_told_and_stays_planned(tmp_path: Path) -> None:
    """A mount in a cell is somebody else's: nothing crosses it, and the ledger says that a part may be gone."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    settings = settings_for(tmp_path, quarantine=QuarantineLimits(max_age_s=30 * DAY))
    for name, age in (("a", 50), ("b", 40), ("c", 35)):
        moved_aside(tmp_path, name, age * DAY)
    oldest = cells(tmp_path)[0]
    mount = tmp_path / f"data/.quarantine/{oldest}/mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
    try:
        ran = run("clean", settings)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
    assert [("not_removed", f".quarantine/{oldest}")] == [(one.kind, one.path) for one in ran.report.findings]
    assert 1 == len(ran.report.actions)
    with ledger_of(settings) as ledger:
        assert {"planned", "done"} == {row.state for row in ledger.actions()}


def test_it_stops_between_two_cells(tmp_path: Path) -> None:
    """What is still there then goes the next time."""
    settings = settings_for(tmp_path, quarantine=QuarantineLimits(max_age_s=30 * DAY))
    for name, age in (("a", 50), ("b", 40), ("c", 35)):
        moved_aside(tmp_path, name, age * DAY)
    looks = next(
        looks for looks in range(100) if len(run("clean", settings, stopping=stop_after(looks)).report.actions)
    )
    assert looks
    assert 2 == len(cells(tmp_path))
    run("clean", settings)
    assert 1 == len(cells(tmp_path))


def test_what_is_no_directory_is_no_day(tmp_path: Path) -> None:
    """A file with a day's name stays, and so does all where the days' directory is a link."""
    settings = days_in(tmp_path)
    history = tmp_path / "data/prompts/history"
    write(history / "2026-11-01", age_s=9 * DAY)
    assert ["prompts/history/2026-11-10", "prompts/history/2026-11-16"] == [
        one.path for one in run("clean", settings, dry_run=True).report.actions
    ]
    history.rename(tmp_path / "moved")
    history.symlink_to(tmp_path / "moved")
    assert () == run("clean", settings).report.actions
