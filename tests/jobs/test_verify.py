"""Verifying reads all in time, names what is damaged, and tries whether files can be restored."""

import os
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.drill import FILES, drill
from symbiont_datad.jobs.repository import opened
from symbiont_datad.report import Outcome
from tests.jobs.making import DAY, context, run, settings_for, write
from tests.jobs.snapshotting import snapshots


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree of which there is a backup."""
    settings = settings_for(tmp_path)
    root = Path(settings.layout.root)
    for number in range(30):
        write(root / f"state/agents/a{number}.json.gz", context(text=f"{number}"))
    write(root / "logs/system/large", os.urandom(2 << 20))
    run("backup", settings, now=time.time())
    return settings


def packs(settings: JobSettings) -> list[Path]:
    """The packs, the largest first."""
    found = Path(settings.repository.location, "data").glob("*/*")
    return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


def flip(path: Path, at: int) -> None:
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def test_a_whole_repository(settings: JobSettings, tmp_path: Path) -> None:
    """The structure is checked, and files are restored, compared and removed again."""
    ran = run("verify", settings, now=time.time())
    assert (Outcome.DONE, ["repository_verified", "restore_drill_passed"]) == (ran.report.outcome, ran.told)
    assert FILES == ran.report.counts["drilled"]
    assert not (tmp_path / "datad/drill").exists()


@pytest.mark.parametrize("back_s", [0.0, 365 * DAY])
def test_a_clock_that_was_set_back_stops_no_check(settings: JobSettings, back_s: float) -> None:
    """Nor does a check right after another one: the time since then is nothing to divide by."""
    now = time.time()
    assert Outcome.DONE == run("verify", settings, now=now).report.outcome
    assert Outcome.DONE == run("verify", settings, now=now - back_s).report.outcome


def test_all_is_read_in_time(settings: JobSettings) -> None:
    """Day after day a part of the packs is read, those longest unread first, so that none is older than it may be."""
    settings = replace(settings, snapshots=replace(settings.snapshots, read_all_within_s=3 * DAY))
    for number in range(2):
        write(Path(settings.layout.root, f"logs/system/{number}"), os.urandom(1 << 20))
        run("backup", settings, now=time.time())
    now = time.time()
    days = [run("verify", settings, now=now + day * DAY).report.counts for day in range(3)]
    assert days[0]["bytes"] <= sum(day["bytes_read"] for day in days)
    assert days[0]["bytes"] > max(day["bytes_read"] for day in days)


def test_as_much_is_read_as_asked_for(settings: JobSettings) -> None:
    """A subset that a user names takes the place of what is due."""
    counts = run("verify", settings, now=time.time(), subset="all").report.counts
    assert (counts["packs"], counts["bytes"]) == (counts["packs_read"], counts["bytes_read"])
    wrong = run("verify", settings, now=time.time(), subset="some")
    assert (Outcome.FAILED, 2) == (wrong.report.outcome, wrong.report.exit_code)


def test_a_flipped_bit_is_found_and_named(settings: JobSettings) -> None:
    """The finding names the pack, and the file that needs it."""
    pack = packs(settings)[0]
    flip(pack, 1 << 20)
    ran = run("verify", settings, now=time.time(), subset="all")
    (finding,) = ran.report.findings
    assert (Outcome.LEFT, ["repository_damaged"]) == (ran.report.outcome, ran.told)
    assert f"data/{pack.name}" in finding.path
    assert "logs/system/large" in finding.detail
    assert finding.remedy


def test_a_drill_finds_what_can_not_be_restored(settings: JobSettings, tmp_path: Path) -> None:
    """A file whose blob is damaged fails the drill by its name; the others pass."""
    for path in Path(settings.layout.root, "state/agents").glob("*.gz"):
        path.unlink()
    write(Path(settings.layout.root, "logs/system/other"), os.urandom(100_000))
    run("backup", settings, now=time.time())
    flip(packs(settings)[0], 1 << 20)
    _, newest = snapshots(settings)[-1]
    found = drill(
        opened(settings.repository), newest, settings.layout.tree, tmp_path / "drill", Random(1), lambda: False
    )
    assert 2 == found.files
    assert [f"{settings.layout.root}/logs/system/large".lstrip("/")] == [path for path, _ in found.wrong]


def test_without_a_repository(tmp_path: Path) -> None:
    """Nothing can be verified, none is made, and the exit code says so."""
    settings = settings_for(tmp_path)
    ran = run("verify", settings, now=time.time())
    assert (Outcome.FAILED, 10) == (ran.report.outcome, ran.report.exit_code)
    assert not (tmp_path / "backups").exists()


def test_an_empty_repository_is_whole(tmp_path: Path) -> None:
    """Without a snapshot there is nothing to restore, which is no fault."""
    settings = settings_for(tmp_path)
    run("sweep", settings, now=time.time())
    for name, _ in snapshots(settings):
        (tmp_path / "backups/snapshots" / name).unlink()
    ran = run("verify", settings, now=time.time())
    assert (Outcome.DONE, ["repository_verified"]) == (ran.report.outcome, ran.told)
