"""Retention removes what the rules say, says so beforehand, and keeps what is open, changed or in no snapshot."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from symbiont_datad.jobs import JOBS, removal, tally
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Outcome, Severity
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.conftest import AsNobody
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, stop_after, write
from tests.support import NOBODY

CACHE = Rule("cache", "prompts/cache", max_age_s=30 * DAY, age_by=AgeBy.USED, cache=True)
HISTORY = Rule("history", "prompts/history", max_age_s=30 * DAY)
LOGS = Rule("logs", "logs", max_age_s=30 * DAY, keep_newest=True)


def names(path: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(os.listdir(path))


def test_old_cache_files_go_with_a_row_each(tmp_path: Path) -> None:
    """Files over the age go, others stay; the report, the ledger and one event say so."""
    settings = settings_for(tmp_path, CACHE)
    cache = tmp_path / "data/prompts/cache"
    for number in range(6):
        write(cache / f"{number}.json", age_s=(28 + number) * DAY)
    ran = run("clean", settings)
    assert ["0.json", "1.json", "2.json"] == names(cache)
    assert ["not used for 31d, over 30d", "not used for 32d, over 30d", "not used for 33d, over 30d"] == [
        action.reason for action in ran.report.actions
    ]
    assert (Outcome.DONE, 3, 300) == (ran.report.outcome, ran.report.actions_total, ran.report.bytes_total)
    assert ["cache_trimmed"] == ran.told
    assert (3, 300) == (ran.events[0]["files"], ran.events[0]["bytes"])
    with ledger_of(settings) as ledger:
        assert [(f"prompts/cache/{n}.json", "cache", "done") for n in (3, 4, 5)] == [
            (row.path, row.rule, row.state) for row in ledger.actions(job="clean")
        ]


def test_a_cached_file_that_was_read_is_kept(tmp_path: Path) -> None:
    """For the cache, reading is use; for history it isn't."""
    settings = settings_for(tmp_path, CACHE, HISTORY, require_snapshot=False)
    for folder in ("cache", "history/2026-01-01"):
        path = write(tmp_path / "data/prompts" / folder / "read.json")
        os.utime(path, (NOW - DAY, NOW - 60 * DAY))
    run("clean", settings)
    assert ["read.json"] == names(tmp_path / "data/prompts/cache")
    assert [] == names(tmp_path / "data/prompts/history")


def test_a_dry_run_is_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    """What a dry run reports is what the real run does, directories included."""
    settings = settings_for(tmp_path, CACHE, HISTORY, require_snapshot=False)
    write(tmp_path / "data/prompts/cache/a.json", age_s=40 * DAY)
    write(tmp_path / "data/prompts/history/2026-01-01/deep/a.json", age_s=40 * DAY)
    write(tmp_path / "data/prompts/history/2026-01-02/a.json", age_s=40 * DAY)
    write(tmp_path / "data/prompts/history/2026-01-02/b.json")
    before = sorted((tmp_path / "data").rglob("*"))
    dry = run("clean", settings, dry_run=True)
    assert before == sorted((tmp_path / "data").rglob("*"))
    assert [] == dry.told
    real = run("clean", settings)
    assert dry.report.actions == real.report.actions
    assert dry.report.counts == real.report.counts
    assert ["2026-01-02"] == names(tmp_path / "data/prompts/history")
    assert [
        ("file_removed", "prompts/cache/a.json"),
        ("file_removed", "prompts/history/2026-01-01/deep/a.json"),
        ("file_removed", "prompts/history/2026-01-02/a.json"),
        ("directory_removed", "prompts/history/2026-01-01/deep"),
        ("directory_removed", "prompts/history/2026-01-01"),
    ] == [(action.kind, action.path) for action in real.report.actions]


def test_without_a_snapshot_only_the_cache_is_cleaned(tmp_path: Path) -> None:
    """What no snapshot holds stays, and one finding a rule says how much would go and what allows it."""
    settings = settings_for(tmp_path, CACHE, HISTORY)
    write(tmp_path / "data/prompts/cache/a.json", age_s=40 * DAY)
    write(tmp_path / "data/prompts/history/2026-01-01/a.json", age_s=40 * DAY)
    ran = run("clean", settings)
    assert ["2026-01-01"] == names(tmp_path / "data/prompts/history")
    assert [] == names(tmp_path / "data/prompts/cache")
    (finding,) = ran.report.findings
    assert ("retention_waits", "prompts/history", Severity.WARNING) == (finding.kind, finding.path, finding.severity)
    assert "1 files (100 B)" in finding.detail
    assert "retention.require_snapshot = false" in finding.remedy
    assert (Outcome.LEFT, 1) == (ran.report.outcome, ran.report.counts["waiting"])


def test_what_a_backup_holds_may_go(tmp_path: Path) -> None:
    """Files go that are in a backup as they are now; one that was changed since waits for the next."""
    settings = settings_for(tmp_path, HISTORY)
    history = tmp_path / "data/prompts/history/2026-01-01"
    for name in ("kept.json", "changed.json"):
        write(history / name, age_s=40 * DAY)
    (history / "link.json").symlink_to("kept.json")
    os.utime(history / "link.json", (NOW - 40 * DAY, NOW - 40 * DAY), follow_symlinks=False)
    run("backup", settings)
    write(history / "changed.json", b"y" * 100, age_s=39 * DAY)
    write(history / "new.json", age_s=40 * DAY)
    ran = run("clean", settings)
    assert ["changed.json", "new.json"] == names(history)
    assert (2, 2) == (ran.report.counts["removed"], ran.report.counts["waiting"])
    assert "no backup has them" in ran.report.findings[0].detail


def test_an_autosave_is_no_reason_to_let_a_file_go(tmp_path: Path) -> None:
    """Autosaves are forgotten within a day or so; only what a backup holds may go."""
    settings = settings_for(tmp_path, Rule("sessions", "state/sessions", max_age_s=30 * DAY))
    write(tmp_path / "data/state/sessions/s.json", b"{}", age_s=40 * DAY)
    run("sweep", settings)
    assert 1 == run("clean", settings).report.counts["waiting"]
    run("backup", settings)
    assert 1 == run("clean", settings).report.counts["removed"]


def test_while_the_repository_is_away_nothing_goes(tmp_path: Path) -> None:
    """What can't be looked up waits, and the finding says why."""
    settings = settings_for(tmp_path, HISTORY)
    path = write(tmp_path / "data/prompts/history/2026-01-01/a.json", age_s=40 * DAY)
    run("backup", settings)
    (tmp_path / "backups").rename(tmp_path / "away")
    (finding,) = run("clean", settings).report.findings
    assert "there is no repository" in finding.detail
    assert path.exists()


def test_declared_directories_stay(tmp_path: Path) -> None:
    """Only what users made below an open directory goes with its last file; the cache keeps its subdirectories."""
    settings = settings_for(tmp_path, CACHE, HISTORY, require_snapshot=False)
    write(tmp_path / "data/prompts/cache/ab/a.json", age_s=40 * DAY)
    write(tmp_path / "data/prompts/history/2026-01-01/a.json", age_s=40 * DAY)
    write(tmp_path / "data/prompts/history/loose.json", age_s=40 * DAY)
    (tmp_path / "data/prompts/history/empty before").mkdir()
    os.mkfifo(tmp_path / "data/prompts/history/2026-01-01/fifo")
    run("clean", settings)
    assert ["ab"] == names(tmp_path / "data/prompts/cache")
    assert ["2026-01-01", "empty before"] == names(tmp_path / "data/prompts/history")


def test_open_files_are_kept_and_counted(tmp_path: Path) -> None:
    """A file that a process has open stays, another goes in its place to meet the cap; the setting turns that off."""
    rule = Rule("cache", "prompts/cache", max_files=2, age_by=AgeBy.USED, cache=True)
    settings = settings_for(tmp_path, rule)
    cache = tmp_path / "data/prompts/cache"
    for number in range(3):
        write(cache / f"{number}.json", age_s=DAY + number)
    with (cache / "2.json").open("rb"):
        ran = run("clean", settings)
        assert (["0.json", "2.json"], 1) == (names(cache), ran.report.counts["kept_open"])
        write(cache / "1.json", age_s=1)
        run("clean", settings_for(tmp_path, rule, keep_if_open=False))
    assert ["0.json", "1.json"] == names(cache)


def test_live_logs_and_the_audit_log_are_left_alone(tmp_path: Path) -> None:
    """Of logs the newest and the open ones stay whatever the settings, and audit/ unless a rule is about it."""
    logs = tmp_path / "data/logs"
    for path in ("system/newest.log", "system/open.log", "system/old.log", "audit/security.log"):
        write(logs / path, age_s=(50 if "newest" in path else 60) * DAY)
    everything = {"require_snapshot": False, "keep_if_open": False}
    with (logs / "system/open.log").open("ab"):
        run("clean", settings_for(tmp_path, LOGS, **everything))
    assert ["newest.log", "open.log"] == names(logs / "system")
    assert ["security.log"] == names(logs / "audit")
    audit = Rule("logs/audit", "logs/audit", max_age_s=DAY)
    run("clean", settings_for(tmp_path, LOGS, audit, **everything))
    assert [] == names(logs / "audit")


def test_the_more_precise_rule_wins(tmp_path: Path) -> None:
    """A directory with a rule of its own is not the business of the rule for what is above it."""
    mine = Rule("logs/mine", "logs/mine", max_age_s=365 * DAY)
    settings = settings_for(tmp_path, LOGS, mine, require_snapshot=False)
    write(tmp_path / "data/logs/mine/a.log", age_s=100 * DAY)
    write(tmp_path / "data/logs/minerals/a.log", age_s=100 * DAY)
    write(tmp_path / "data/logs/system/new.log")
    run("clean", settings)
    assert ["a.log"] == names(tmp_path / "data/logs/mine")
    assert [] == names(tmp_path / "data/logs/minerals")


def test_links_go_as_links_and_other_things_stay(tmp_path: Path) -> None:
    """An old link goes and its target stays; FIFOs are never touched; names of any bytes are removed."""
    settings = settings_for(tmp_path, CACHE)
    cache = tmp_path / "data/prompts/cache"
    target = write(tmp_path / "target", age_s=90 * DAY)
    (cache / "link").symlink_to(target)
    os.utime(cache / "link", (0, 0), follow_symlinks=False)
    os.mkfifo(cache / "fifo")
    os.utime(cache / "fifo", (0, 0))
    for name in ("a\nb", "\udcff"):
        write(cache / name, age_s=90 * DAY)
    ran = run("clean", settings)
    assert ["fifo"] == names(cache)
    assert 3 == ran.report.counts["removed"]
    assert target.exists()
    with ledger_of(settings) as ledger:
        assert {"prompts/cache/a\\nb", "prompts/cache/\\xff", "prompts/cache/link"} == {
            row.path for row in ledger.actions()
        }


def test_many_batches_are_told_one_by_one_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several batches are all confirmed, and those of files that stayed say so."""
    monkeypatch.setattr(removal, "BATCH", 100)
    settings = settings_for(tmp_path, CACHE)
    cache = tmp_path / "data/prompts/cache"
    for number in range(750):
        write(cache / f"{number:03}.json", age_s=40 * DAY)
    seen = iter(range(1000))

    def stopping() -> bool:
        if next(seen) == 3:  # between two batches: the plan stands
            write(cache / "700.json", b"newer", age_s=0)
        return False

    ran = run("clean", settings, stopping=stopping)
    assert ["700.json"] == names(cache)
    assert (749, 1, 0) == tuple(ran.report.counts[key] for key in ("removed", "changed", "failed"))
    assert Outcome.DONE is ran.report.outcome
    with ledger_of(settings) as ledger:
        states = {row.path: row.state for row in ledger.actions()}
    assert (750, {"prompts/cache/700.json"}) == (len(states), {p for p, state in states.items() if state != "done"})


def test_it_stops_between_two_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to stop, it ends after the batch under way, and what it says is what it did."""
    monkeypatch.setattr(removal, "BATCH", 10)
    settings = settings_for(tmp_path, CACHE)
    cache = tmp_path / "data/prompts/cache"
    for number in range(100):
        write(cache / f"{number:03}.json", age_s=40 * DAY)
    ran = run("clean", settings, stopping=stop_after(4))
    assert (Outcome.INTERRUPTED, 30, 70) == (ran.report.outcome, ran.report.actions_total, len(names(cache)))
    with ledger_of(settings) as ledger:
        assert ["done"] * 30 == [row.state for row in ledger.actions()]


def test_a_ledger_that_fails_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the files go all the same, that is told once, and rows are written as soon as there is room."""
    monkeypatch.setattr(removal, "BATCH", 10)
    settings = settings_for(tmp_path, CACHE)
    cache = tmp_path / "data/prompts/cache"
    for number in range(40):
        write(cache / f"{number:03}.json", age_s=40 * DAY)
    plan, calls = Ledger.plan, iter(range(100))

    def full(*arguments: object) -> range:
        if next(calls) < 2:
            raise LedgerError("database or disk is full")
        return plan(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "plan", full)
    ran = run("clean", settings)
    assert ([], 40) == (names(cache), ran.report.actions_total)
    assert ["ledger_failed", "cache_trimmed"] == ran.told
    with ledger_of(settings) as ledger:
        assert 40 == len(ledger.actions())


def test_what_cant_be_removed_is_left_and_told(open_path: Path, as_nobody: AsNobody) -> None:
    """Without permission on the directory the files stay: a few findings, all counted, and rows that say failed."""
    settings = settings_for(open_path, CACHE)
    for number in range(50):
        write(open_path / f"data/prompts/cache/{number}.json", age_s=40 * DAY)
    (open_path / "datad").mkdir()
    (open_path / "datad").chmod(0o777)
    ran = as_nobody(lambda: run("clean", settings))
    assert (Outcome.LEFT, 50, 0) == (ran.report.outcome, ran.report.counts["failed"], ran.report.actions_total)
    assert tally.FINDINGS_PER_RULE == len(ran.report.findings)
    assert "Permission denied" in ran.report.findings[0].detail
    assert "30 more" in ran.report.findings[-1].detail
    with ledger_of(settings) as ledger:
        assert {"failed"} == {row.state for row in ledger.actions()}


def test_each_file_is_told_only_when_asked_for(tmp_path: Path) -> None:
    """At the level debug there is an event a file, before the one that sums up."""
    settings = settings_for(tmp_path, CACHE, log_level="debug")
    for number in range(3):
        write(tmp_path / f"data/prompts/cache/{number}.json", age_s=40 * DAY)
    assert ["file_removed"] * 3 + ["cache_trimmed"] == run("clean", settings).told


KILLED = """
import sys, time
from pathlib import Path
from symbiont_datad.jobs import removal
from symbiont_datad.retention.rules import Rule
from tests.jobs.making import DAY, run, settings_for

removal.BATCH = 50
settings = settings_for(Path(sys.argv[1]), Rule("cache", "prompts/cache", max_age_s=30 * DAY, cache=True))
print(flush=True)
run("clean", settings)
"""


@pytest.mark.parametrize("after_files", [1, 400, 1500])
def test_a_kill_leaves_no_removed_file_without_a_row(tmp_path: Path, after_files: int) -> None:
    """SIGKILL in the middle: whatever is gone has a row, planned or done, and the next run finishes the work."""
    settings = settings_for(tmp_path, CACHE)
    cache = tmp_path / "data/prompts/cache"
    files = {f"{number:04}.json" for number in range(3000)}
    for name in files:
        write(cache / name, age_s=40 * DAY)
    path = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), path])},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while len(os.listdir(cache)) > len(files) - after_files:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    left = set(os.listdir(cache))
    assert 0 < len(left) < len(files)
    with ledger_of(settings) as ledger:
        assert {f"prompts/cache/{name}" for name in files - left} <= {row.path for row in ledger.actions()}
    assert len(left) == run("clean", settings).report.actions_total
    assert [] == names(cache)


def theirs(base: Path, *paths: Path) -> None:
    """The daemon's directory, and paths, belong to nobody; the job's parts are loaded: nobody may not read them."""
    (base / "datad").mkdir()
    JOBS["clean"].load()
    time.strptime("2026", "%Y")
    for path in (base / "datad", *paths):
        os.chown(path, NOBODY, NOBODY)


def test_without_a_quarantine_nothing_goes_that_is_to_come_back(open_path: Path, as_nobody: AsNobody) -> None:
    """What can't be kept for the undo window stays, with a finding that names the setting."""
    settings = settings_for(open_path, HISTORY, undo_window_s=DAY, require_snapshot=False)
    path = write(open_path / "data/prompts/history/old", age_s=40 * DAY)
    theirs(open_path, path, path.parent)
    report = as_nobody(lambda: run("clean", settings).report)
    (finding,) = report.findings
    assert ("not_cleaned", "prompts/history", True) == (finding.kind, finding.path, path.exists())
    assert finding.detail == "what goes can't be kept to be brought back: Permission denied"
    assert "`retention.undo_window = 0`" in finding.remedy


def test_what_of_a_directory_cant_be_removed_waits_in_the_quarantine(open_path: Path, as_nobody: AsNobody) -> None:
    """A part of a day belongs to somebody else: the day is gone from its place, and what is left of it is named."""
    rule = Rule("history", "prompts/history", max_age_s=30 * DAY, whole=True)
    settings = settings_for(open_path, rule, require_snapshot=False)
    day = open_path / "data/prompts/history/2026-01-01"
    write(day / "closed/file", age_s=40 * DAY)
    write(day / "file", age_s=40 * DAY)
    (open_path / "data/.quarantine").mkdir(0o700)
    theirs(open_path, day, day.parent, open_path / "data/.quarantine")
    report = as_nobody(lambda: run("clean", settings).report)
    assert not day.exists()
    (place,) = {one.path for one in report.findings if one.kind == "not_removed"}
    assert (Outcome.LEFT, True) == (report.outcome, place.startswith(".quarantine/"))


@pytest.mark.slow
def test_asked_to_stop_while_it_looks_into_backups_nothing_goes_half(tmp_path: Path) -> None:
    """Wherever it is asked: what stays is whole, and what has gone is held by a backup."""
    settings = settings_for(tmp_path, HISTORY)
    history = tmp_path / "data/prompts/history"
    for number in range(3):
        write(history / f"{number}", age_s=40 * DAY)
    run("backup", settings, now=time.time())
    outcomes = []
    for looks in range(40):
        ran = run("clean", settings, stopping=stop_after(looks), now=NOW + looks)
        outcomes.append(ran.report.outcome)
        if not names(history):
            break
        assert ["0", "1", "2"] == names(history)
    assert Outcome.INTERRUPTED in outcomes
    assert [] == names(history)


def test_a_backup_without_the_directory_holds_nothing_of_it(tmp_path: Path) -> None:
    """What came after the backups waits for the next one."""
    settings = settings_for(tmp_path, HISTORY)
    history = tmp_path / "data/prompts/history"
    history.rmdir()
    run("backup", settings, now=time.time())
    write(history / "old", age_s=40 * DAY)
    assert ["retention_waits"] == [one.kind for one in run("clean", settings).report.findings]
    run("backup", settings, now=time.time())
    write(history / "older", age_s=50 * DAY)
    assert (1, 1) == tuple(run("clean", settings).report.counts[key] for key in ("removed", "waiting"))
    assert ["older"] == names(history)
