"""Running a job when the ledger can't be written: the work is done all the same, above all on a full disk."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.runner import Child, run_here
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Outcome
from symbiont_datad.retention.rules import Rule
from tests.jobs.making import DAY, NOW, settings_for


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
