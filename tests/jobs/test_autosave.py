"""The sweep saves state when it has changed, and never fails for the sake of a snapshot."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings, Keep
from symbiont_datad.jobs.repository import locked, opened
from symbiont_datad.report import Outcome, Severity
from tests.jobs.making import Ran, context, run, settings_for, write
from tests.jobs.snapshotting import held_by, snapshots


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A context, a template, and something that is no state."""
    settings = settings_for(tmp_path)
    root = Path(settings.layout.root)
    write(root / "state/agents/a.json.gz", context())
    write(root / "prompts/templates/t.txt", b"Hello {name}")
    write(root / "logs/system/symbiont.log")
    return settings


def sweep(settings: JobSettings) -> Ran:
    """A sweep, now."""
    return run("sweep", settings, now=time.time())


def test_state_and_templates_are_saved(settings: JobSettings) -> None:
    """One snapshot, tagged `autosave`, of those and nothing else; and one of the templates alone."""
    ran = sweep(settings)
    (one,) = snapshots(settings, "autosave")
    assert (Outcome.DONE, 2, ["autosave"]) == (ran.report.outcome, ran.report.counts["saved"], one[1].tags)
    assert {"state/agents/a.json.gz", "prompts/templates/t.txt"} == set(held_by(settings, one))


def test_nothing_new_makes_no_snapshot(settings: JobSettings, tmp_path: Path) -> None:
    """The second sweep finds nothing changed and does not even open the repository; a change makes another one."""
    sweep(settings)
    config = (tmp_path / "backups/config").read_bytes()
    (tmp_path / "backups/config").write_bytes(b"it would not open")
    assert ([], 0) == ((quiet := sweep(settings)).told, quiet.report.counts["saved"])
    (tmp_path / "backups/config").write_bytes(config)
    write(Path(settings.layout.root, "state/agents/a.json.gz"), context(text="another"))
    assert ["snapshot_created"] == sweep(settings).told
    assert 2 == len(snapshots(settings, "autosave"))


def test_what_is_no_state_makes_none(settings: JobSettings) -> None:
    """Logs are the backup's business."""
    sweep(settings)
    write(Path(settings.layout.root, "logs/system/symbiont.log"), b"more")
    assert [] == sweep(settings).told


def test_after_a_backup_nothing_is_saved_twice(settings: JobSettings) -> None:
    """What the newest backup holds needs no autosave."""
    run("templates", settings, now=time.time())
    run("backup", settings, now=time.time())
    assert [] == sweep(settings).told
    assert [] == snapshots(settings, "autosave")


def test_older_ones_are_forgotten(settings: JobSettings) -> None:
    """`[autosave]` says how many stay; backups are not touched."""
    settings = replace(settings, snapshots=replace(settings.snapshots, autosaves=Keep(last=2)))
    run("backup", settings, now=time.time())
    for number in range(4):
        write(Path(settings.layout.root, "state/agents/a.json.gz"), context(text="x" * number))
        sweep(settings)
    assert (2, 1) == (len(snapshots(settings, "autosave")), len(snapshots(settings, "backup")))


def test_a_snapshot_that_is_gone_is_made_again(settings: JobSettings, tmp_path: Path) -> None:
    """Who removes the newest autosave gets another one at the next sweep."""
    sweep(settings)
    ((name, _),) = snapshots(settings, "autosave")
    (tmp_path / "backups/snapshots" / name).unlink()
    assert ["snapshot_created"] == sweep(settings).told


def test_a_missing_repository_does_not_stop_the_sweep(settings: JobSettings, tmp_path: Path) -> None:
    """The checks are made and damage is told; that nothing was saved is a finding and an event."""
    sweep(settings)
    (tmp_path / "backups").rename(tmp_path / "away")
    write(Path(settings.layout.root, "state/agents/b.json.gz"), b"")
    ran = sweep(settings)
    assert ["context_damaged", "snapshot_skipped"] == ran.told
    assert ["context_empty", "not_saved"] == [one.kind for one in ran.report.findings]
    (tmp_path / "away").rename(tmp_path / "backups")
    assert ["snapshot_created"] == sweep(settings).told


def test_who_prunes_is_not_disturbed(settings: JobSettings) -> None:
    """While somebody holds the repository for themselves, the sweep does its other work, and saves the next time."""
    sweep(settings)
    write(Path(settings.layout.root, "state/agents/a.json.gz"), context(text="another"))
    with locked(opened(settings.repository), exclusive=True):
        ran = sweep(settings)
    assert [("not_saved", Severity.INFO)] == [(one.kind, one.severity) for one in ran.report.findings]
    assert ["snapshot_created"] == sweep(settings).told
