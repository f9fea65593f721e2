"""Running a job when the ledger can't be written: the work is done all the same, above all on a full disk."""

import os
import pickle
import re
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from symbiont_datad.fsops.lock import hold
from symbiont_datad.jobs.children import Children
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.runner import Child, run_here
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Outcome
from symbiont_datad.retention.rules import Rule
from tests.jobs.making import DAY, NOW, settings_for
from tests.process.running import until


def old_cache(base: Path) -> tuple[JobSettings, list[Path]]:
    """A tree with three cache files that are due."""
    settings = settings_for(base, Rule("cache", "prompts/cache", max_age_s=DAY, cache=True))
    files = [base / "data" / "prompts" / "cache" / f"{number}.json" for number in range(3)]
    for file in files:
        file.write_bytes(b"{}")
        os.utime(file, (NOW - 9 * DAY, NOW - 9 * DAY))
    return settings, files


def fill(ledger: Ledger) -> None:
    """Let the ledger grow no more, as on a full disk."""
    (pages,) = ledger._db.execute("pragma page_count").fetchone()
    ledger._db.execute(f"pragma max_page_count = {pages}")
    with suppress(LedgerError):
        for _ in range(10_000):
            ledger.begin_run("clean", NOW)
    with pytest.raises(LedgerError, match="full"):
        ledger.begin_run("clean", NOW)


def test_a_full_ledger_does_not_keep_a_job_from_running(tmp_path: Path) -> None:
    """`clean` frees the disk that the ledger has no room on."""
    settings, files = old_cache(tmp_path)
    with Ledger(settings.ledger_path) as ledger:
        fill(ledger)
        report = run_here("clean", settings, ledger, now=NOW)
    assert (Outcome.DONE, 3) == (report.outcome, report.actions_total)
    assert not any(file.exists() for file in files)


def test_a_process_without_a_ledger_does_its_job(tmp_path: Path) -> None:
    """Something that can't be opened stands where the ledger belongs: the report comes, and the files are gone."""
    settings, files = old_cache(tmp_path)
    settings.ledger_path.mkdir(parents=True)
    report = Child("clean", settings).wait()
    assert (Outcome.DONE, 3, False) == (report.outcome, report.actions_total, report.lost)
    assert not any(file.exists() for file in files)


def test_a_process_that_is_told_again_and_again_to_stop(tmp_path: Path) -> None:
    """It hands over its report: a signal that comes while the one before is handled makes nothing wait."""
    if sys.platform != "linux":
        pytest.skip("not on this platform: whether a process handles a signal can't be seen")
    settings, _ = old_cache(tmp_path)
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "symbiont_datad.jobs.child", "clean", str(writing)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writing,)) as process:
        os.close(writing)
        until(lambda: _handles(process.pid, signal.SIGTERM), 10.0)
        for _ in range(100_000):
            os.kill(process.pid, signal.SIGTERM)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(settings))
        process.stdin.flush()
        told, _, _ = select.select([reading], [], [], 10.0)
        process.kill()
    with open(reading, "rb") as pipe:
        assert told
        assert Outcome.INTERRUPTED == pickle.load(pipe).outcome


def _handles(pid: int, number: int) -> bool:
    (caught,) = re.findall(r"^SigCgt:\s(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> number - 1 & 1)


@pytest.mark.parametrize("told", ["nothing", "half", "all"])
def test_a_process_whose_daemon_has_died_ends_quietly(tmp_path: Path, told: str) -> None:
    """Killed while it started a job, or before the report: no traceback in anybody's log."""
    settings, _ = old_cache(tmp_path)
    order = pickle.dumps(settings)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "symbiont_datad.jobs.child", "clean", str(writing)],
            input={"nothing": b"", "half": order[: len(order) // 2], "all": order}[told],
            pass_fds=(writing,),
            capture_output=True,
        )
    finally:
        os.close(writing)
    assert (0, b"") == (done.returncode, done.stderr)


def test_a_job_that_runs_already_is_skipped(tmp_path: Path) -> None:
    """A command holds its lock: the daemon says so, and comes again at its time."""
    settings, files = old_cache(tmp_path)
    with Ledger(None) as ledger, hold(settings.lock_path("clean"), "a command"), capture_logs() as logs:
        children = Children(lambda: settings, lambda: ledger, lambda: False, lambda: None)
        assert children.run("clean") is None
    assert [("job_skipped", "clean")] == [(log["event"], log["job"]) for log in logs]
    assert all(file.exists() for file in files)
    assert {} == children.progress()


@pytest.mark.parametrize("stopping", [False, True])
def test_a_job_whose_process_dies_has_failed(tmp_path: Path, stopping: bool) -> None:
    """It is told and counted, for nobody else has; not while the daemon itself ends, which may be why."""
    settings = replace(old_cache(tmp_path)[0], layout=None)  # type: ignore[arg-type]  # so that it can't begin
    with Ledger(tmp_path / "ledger.db") as ledger, capture_logs() as logs:
        report = Children(lambda: settings, lambda: ledger, lambda: stopping, lambda: None).run("clean", last=True)
    assert report is not None
    assert (Outcome.FAILED, True) == (report.outcome, report.lost)
    assert "ended with exit code 1 and left no report" in report.message
    assert ([] if stopping else ["job_failed"]) == [log["event"] for log in logs]
