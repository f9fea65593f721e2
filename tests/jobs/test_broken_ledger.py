"""A ledger that breaks while a job runs: the work is done, what can't be written down is told, and nothing raises."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.runner import run_here
from symbiont_datad.ledger import Ledger
from symbiont_datad.report import JobReport, Outcome
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.jobs.collecting import vector_table
from tests.jobs.making import DAY, context, run, settings_for, write
from tests.jobs.snapshotting import snapshots

RULES = (
    Rule("cache", "prompts/cache", max_age_s=30 * DAY, age_by=AgeBy.USED, cache=True, broken=True),
    Rule("logs", "logs/system", max_age_s=30 * DAY),
)


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree in which each job has something to do; there is a backup of it."""
    settings = settings_for(tmp_path, *RULES, undo_window_s=DAY, file_mode=0o640)
    root = tmp_path / "data"
    (root / "vector_db/metadata").mkdir()
    write(root / "prompts/cache/old.json", b"{}", age_s=60 * DAY)
    write(root / "prompts/cache/empty.json", b"")
    write(root / "logs/system/old.log", age_s=60 * DAY)
    write(root / "state/agents/00000000-0000-4000-8000-000000000001.json.gz", context())
    write(root / "state/agents/00000000-0000-4000-8000-000000000002.json.gz", b"")
    vector_table(root / "vector_db/collections/notes/db")
    run("backup", settings, now=time.time())
    return settings


def run_without_tables(name: str, settings: JobSettings) -> JobReport:
    """A run whose ledger loses all of its tables once it is open; that this is told is seen to."""
    with Ledger(settings.ledger_path) as ledger, structlog.testing.capture_logs() as told:
        with closing(sqlite3.connect(settings.ledger_path)) as other, other:
            tables = "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'"
            for (table,) in other.execute(tables).fetchall():
                other.execute(f"drop table {table}")
        report = run_here(name, settings, ledger, now=time.time())
    assert "ledger_failed" in {one["event"] for one in told}, name
    settings.ledger_path.unlink()
    return report


def test_each_job_does_what_it_can(settings: JobSettings, tmp_path: Path) -> None:
    """Checks check, backups are made, retention removes what may go; only what is nothing but figures fails."""
    root = tmp_path / "data"
    reports = {
        name: run_without_tables(name, settings)
        for name in (
            "usage",
            "sweep",
            "templates",
            "rotate",
            "vectors",
            "backup",
            "verify",
            "prune",
            "clean",
            "relieve",
        )
    }
    assert (["usage"], True) == (
        [name for name, report in reports.items() if report.outcome is Outcome.FAILED],
        "no such table" in reports["usage"].message,
    )
    assert 0o640 == (root / "state/agents/00000000-0000-4000-8000-000000000001.json.gz").stat().st_mode & 0o777
    assert "context_empty" in {finding.kind for finding in reports["sweep"].findings}
    assert 2 == len(snapshots(settings, "backup"))
    assert (root / "vector_db/metadata/notes.json").exists()
    assert not (root / "prompts/cache/old.json").exists()


def test_what_needs_a_record_waits(settings: JobSettings, tmp_path: Path) -> None:
    """Nobody knows then whether there was a repository here: none is made in the place of one that is away."""
    (tmp_path / "backups").rename(tmp_path / "away")
    report = run_without_tables("backup", settings)
    assert (Outcome.FAILED, 10) == (report.outcome, report.exit_code)
    assert not (tmp_path / "backups").exists()
