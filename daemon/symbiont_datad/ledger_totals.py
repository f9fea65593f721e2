"""The ledger's totals: how much was done so far, and what came of it last. Rows may go with time; totals only grow.

They are kept beside what they count, in the same transactions, so that who asks for them reads a few rows, however long
the ledger is. Their tables are made where they are missing, and an older version of the program passes over them.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from symbiont_datad.report import Action, JobReport

SCHEMA = """
create table if not exists action_totals (
    kind text not null, rule text not null, actions integer not null, bytes integer not null,
    primary key (kind, rule)) without rowid;
create table if not exists run_totals (
    job text not null, outcome text not null, runs integer not null, seconds real not null, last_at real not null,
    last_s real not null, primary key (job, outcome)) without rowid;
create table if not exists count_totals (
    job text not null, name text not null, total integer not null, last integer not null,
    primary key (job, name)) without rowid;
"""

_FILLED = """
insert into run_totals select job, outcome, count(*), sum(ended_at - started_at), max(started_at), 0 from runs
where outcome is not null and not exists (select 1 from run_totals) group by job, outcome;
update run_totals set last_s = ifnull((select ended_at - started_at from runs where runs.job = run_totals.job
and runs.outcome = run_totals.outcome and runs.started_at = run_totals.last_at), 0) where last_s = 0;
"""


@dataclass(frozen=True, slots=True)
class ActionTotal:
    """How many actions of a kind were done by a rule, and their bytes. The guard's have no rule."""

    kind: str
    rule: str
    actions: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RunTotal:
    """How many runs of a job ended so, and how long they took together; when the last of them began, and what it took.

    `last_at` in seconds since the epoch.
    """

    job: str
    outcome: str
    runs: int
    seconds: float
    last_at: float
    last_s: float


@dataclass(frozen=True, slots=True)
class CountTotal:
    """One figure of a job's reports: the sum over all runs, and what the last run said that told of it."""

    job: str
    name: str
    total: int
    last: int


@dataclass(frozen=True, slots=True)
class Totals:
    """All of it."""

    actions: tuple[ActionTotal, ...] = ()
    runs: tuple[RunTotal, ...] = ()
    counts: tuple[CountTotal, ...] = ()


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables where they are missing, in the caller's transaction; what the runs tell is told of them too."""
    known = db.execute("select 1 from sqlite_master where name = 'run_totals'").fetchone()
    for statement in SCHEMA.split(";\n"):
        db.execute(statement)
    if not known:
        for statement in _FILLED.split(";\n"):
            db.execute(statement)


def read(rows: Callable[[str], list[Any]]) -> Totals:
    """All of it; `rows` runs a query."""
    return Totals(
        tuple(ActionTotal(*row) for row in rows("select * from action_totals")),
        tuple(RunTotal(*row) for row in rows("select * from run_totals")),
        tuple(CountTotal(*row) for row in rows("select * from count_totals")),
    )


def add_actions(db: sqlite3.Connection, actions: Iterable[Action], *, ruled: bool) -> None:
    """Add actions that were done. Without `ruled` their rule does not count: the guard's name directories."""
    found: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for action in actions:
        key = action.kind, action.rule if ruled else ""
        found[key] += 1
        sizes[key] += action.bytes
    _add_actions(db, [(*key, count, sizes[key]) for key, count in found.items()])


def add_planned(db: sqlite3.Connection, run: int, first: int, last: int) -> None:
    """Add the planned actions of a run, with numbers from `first` to `last`, which have happened by now."""
    query = (
        "select kind, rule, count(*), sum(bytes) from actions "
        "where run = ? and state = 'planned' and id between ? and ? group by kind, rule"
    )
    _add_actions(db, db.execute(query, (run, first, last)).fetchall())


def _add_actions(db: sqlite3.Connection, rows: Sequence[tuple[str, str, int, int]]) -> None:
    db.executemany(
        "insert into action_totals values (?, ?, ?, ?) on conflict (kind, rule) do update set "
        "actions = actions + excluded.actions, bytes = bytes + excluded.bytes",
        rows,
    )


def add_run(db: sqlite3.Connection, report: JobReport) -> None:
    """Add a run that has ended."""
    row = (report.job, report.outcome, 1, report.duration_s, report.started_at, report.duration_s)
    _add_runs(db, [row])
    _add_counts(db, [(report.job, name, count, count) for name, count in report.counts.items()])


def _add_runs(db: sqlite3.Connection, rows: Sequence[tuple[str, str, int, float, float, float]]) -> None:
    db.executemany(
        "insert into run_totals values (?, ?, ?, ?, ?, ?) on conflict (job, outcome) do update set "
        "runs = runs + excluded.runs, seconds = seconds + excluded.seconds, last_at = excluded.last_at, "
        "last_s = excluded.last_s",
        rows,
    )


def _add_counts(db: sqlite3.Connection, rows: Sequence[tuple[str, str, int, int]]) -> None:
    db.executemany(
        "insert into count_totals values (?, ?, ?, ?) on conflict (job, name) do update set "
        "total = total + excluded.total, last = excluded.last",
        rows,
    )


def merge(db: sqlite3.Connection, other: Totals) -> None:
    """Add the totals of another ledger."""
    _add_actions(db, [(one.kind, one.rule, one.actions, one.bytes) for one in other.actions])
    _add_runs(db, [(one.job, one.outcome, one.runs, one.seconds, one.last_at, one.last_s) for one in other.runs])
    _add_counts(db, [(one.job, one.name, one.total, one.last) for one in other.counts])
