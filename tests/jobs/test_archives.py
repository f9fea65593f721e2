"""Archives of contexts: judged like contexts, compressed when the settings ask for it, removed by their rule alone."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings, StateSettings
from symbiont_datad.report import Outcome, Severity
from symbiont_datad.retention.rules import Rule
from tests import contexts
from tests.conftest import AsNobody
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, stop_after, write
from tests.jobs.test_heal import quarantined, sweep
from tests.support import NOBODY

ARCHIVES = "state/agents/archives"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """An empty tree, with archives compressed from the age of a month."""
    return settings_for(tmp_path, state=StateSettings(compress_archives_s=30 * DAY))


def archive(settings: JobSettings, number: int, age_s: float, *, zipped: bool = False) -> Path:
    """An archive of that age."""
    content = contexts.archive(f"agent {number}")
    data = contexts.zipped(content) if zipped else contexts.plain(content)
    return write(Path(settings.layout.root, ARCHIVES, str(number), f"archive_{number}.json"), data, age_s)


def test_old_ones_are_compressed_in_place(settings: JobSettings) -> None:
    """Same name, mode and times, the same content to zcat; young ones and those that are gzip already stay."""
    old, young = archive(settings, 1, 31 * DAY), archive(settings, 2, 29 * DAY)
    packed = archive(settings, 3, 90 * DAY, zipped=True)
    old.chmod(0o640)
    before = {path: (path.read_bytes(), path.stat()) for path in (old, young, packed)}
    ran = sweep(settings)
    assert before[old][0] == gzip.decompress(old.read_bytes())
    found, was = old.stat(), before[old][1]
    assert (was.st_mode, was.st_mtime_ns) == (found.st_mode, found.st_mtime_ns)
    assert [before[path][0] for path in (young, packed)] == [path.read_bytes() for path in (young, packed)]
    (action,) = ran.report.actions
    assert ("archive_compressed", f"{ARCHIVES}/1/archive_1.json", len(before[old][0]) - found.st_size) == (
        action.kind, action.path, action.bytes,
    )  # fmt: skip
    with ledger_of(settings) as ledger:
        assert ["done"] == [row.state for row in ledger.actions(kinds=["archive_compressed"])]
    assert (Outcome.DONE, 1) == (ran.report.outcome, ran.report.counts["archives_compressed"])
    assert [old.name] == os.listdir(old.parent)


def test_each_is_compressed_when_its_time_has_come(settings: JobSettings) -> None:
    """Though nothing changes in the tree meanwhile; and never twice."""
    path = archive(settings, 1, 29 * DAY)
    plain = path.read_bytes()
    assert 0 == sweep(settings).report.counts["archives_compressed"]
    assert 0 == sweep(settings, now=NOW + 60).report.counts["archives_compressed"]
    assert 1 == sweep(settings, now=NOW + DAY).report.counts["archives_compressed"]
    assert 0 == sweep(settings, now=NOW + DAY + 1).report.counts["archives_compressed"]
    assert plain == gzip.decompress(path.read_bytes())


def test_without_the_setting_none_is(settings: JobSettings) -> None:
    """Nothing is stored in another way unless it is asked for; a dry run only plans."""
    path = archive(settings, 1, 90 * DAY)
    before = path.read_bytes()
    sweep(replace(settings, state=StateSettings()))
    assert before == path.read_bytes()
    assert ["archive_compressed"] == [action.kind for action in sweep(settings, dry_run=True).report.actions]
    assert before == path.read_bytes()


def test_open_or_damaged_ones_are_left(settings: JobSettings) -> None:
    """What can't be read may still be made whole by somebody who knows how."""
    path = archive(settings, 1, 90 * DAY)
    cut = write(archive(settings, 2, 90 * DAY), b'{"agent_id": ', 90 * DAY)
    with open(path, "rb"):
        assert 0 == sweep(settings).report.counts["archives_compressed"]
    ran = sweep(settings, now=NOW + 1)
    assert (1, b'{"agent_id": ') == (ran.report.counts["archives_compressed"], cut.read_bytes())


def test_damaged_archives_are_told_and_left(settings: JobSettings) -> None:
    """The runtime does not load them, so they keep nobody from starting: a warning that names how to get one back."""
    path = write(archive(settings, 1, DAY), contexts.zipped(contexts.archive())[:40])
    ran = sweep(settings)
    (finding,) = ran.report.findings
    assert ("archive_truncated", Severity.WARNING) == (finding.kind, finding.severity)
    assert f"versions {ARCHIVES}/1/archive_1.json" in finding.remedy
    assert ({}, 40) == (quarantined(settings), path.stat().st_size)
    assert ["context_damaged"] == ran.told


def test_archives_go_by_their_own_rule_alone(tmp_path: Path) -> None:
    """No sweep and no rule for anything else removes one; `[retention.archives]` does."""
    plain = settings_for(tmp_path, Rule("sessions", "state/sessions", 1.0), require_snapshot=False)
    path = archive(plain, 1, 90 * DAY)
    sweep(plain)
    run("clean", plain)
    assert path.exists()
    ruled = replace(plain, layout=replace(plain.layout, rules=(Rule("archives", ARCHIVES, 30 * DAY),)))
    assert ["file_removed", "directory_removed"] == [action.kind for action in run("clean", ruled).report.actions]
    assert not path.exists()


def test_asked_to_stop_the_rest_waits(settings: JobSettings) -> None:
    """Wherever it is asked: what was begun is done, the report says so, and the next sweep goes on."""
    paths = [archive(settings, number, 90 * DAY) for number in range(3)]
    plain = [path.read_bytes() for path in paths]
    seen, looks = set(), 0
    while sweep(settings, now=NOW + looks, stopping=stop_after(looks)).report.outcome is Outcome.INTERRUPTED:
        looks += 1
        seen.add([path.read_bytes() == text for path, text in zip(paths, plain, strict=True)].count(False))
    assert {0, 1} < seen
    assert plain == [gzip.decompress(path.read_bytes()) for path in paths]


def owned(base: Path, *paths: Path) -> None:
    """Give paths, and all that the daemon writes to, to nobody."""
    for path in (base / "datad", *(base / "datad").rglob("*"), *paths):
        os.chown(path, NOBODY, NOBODY)


@pytest.fixture
def shared(open_path: Path) -> JobSettings:
    """The same settings for a tree that others can reach."""
    settings = settings_for(open_path, state=StateSettings(compress_archives_s=30 * DAY))
    settings.daemon_dir.mkdir()
    return settings


def test_one_in_a_directory_that_cant_be_written_to_is_told_of(
    shared: JobSettings, open_path: Path, as_nobody: AsNobody
) -> None:
    """It stays as it is, with a finding that says what to do; the ledger says that nothing was done."""
    path = archive(shared, 1, 90 * DAY)
    owned(open_path, path)
    before = path.read_bytes()
    report = as_nobody(lambda: sweep(shared).report)
    (finding,) = [one for one in report.findings if one.kind == "not_compressed"]
    assert (f"{ARCHIVES}/1/archive_1.json", "Permission denied") == (finding.path, finding.detail)
    assert (0, before, [path.name]) == (
        report.counts["archives_compressed"], path.read_bytes(), os.listdir(path.parent)
    )  # fmt: skip
    with ledger_of(shared) as ledger:
        assert ["failed"] == [row.state for row in ledger.actions(kinds=["archive_compressed"])]


def test_one_that_can_no_longer_be_read_is_left(shared: JobSettings, open_path: Path, as_nobody: AsNobody) -> None:
    """An earlier sweep found it whole; when its time has come it is closed to the daemon, and that is told."""
    path = archive(shared, 1, 29 * DAY)
    sweep(shared)
    owned(open_path, path.parent)
    path.chmod(0o600)
    report = as_nobody(lambda: sweep(shared, now=NOW + 2 * DAY).report)
    assert [("unread", f"{ARCHIVES}/1/archive_1.json")] == [(one.kind, one.path) for one in report.findings]
    assert 0 == report.counts["archives_compressed"]
