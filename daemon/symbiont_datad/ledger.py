"""The daemon's own memory: runs of jobs, actions with their reason, usage over time. SQLite, in WAL mode.

Several processes write to it: the daemon, its job processes, and commands. A transaction is short, and waits for
another one for up to `_BUSY_S` seconds.

Removals are written down before they happen (`plan`) and confirmed afterwards (`confirm`): a kill in between leaves a
row that says "planned", never a removed file without a row.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from symbiont_datad import ledger_prompts
from symbiont_datad.ledger_prompts import Counted, Executions
from symbiont_datad.ledger_schema import MIGRATIONS, Row, Run, SpacePoint, UsagePoint
from symbiont_datad.report import Action, CacheUse, Finding, JobReport, Outcome, Severity, printable

_BUSY_S = 5.0
_LAST_ROW = 2**63 - 1
_RESERVE = 1 << 20
_RESERVED_PART = 64
"""Free bytes kept within the file: so many, but not more than one in 64 of its file system."""
_HOUR_S, _DAY_S = 3600.0, 86_400.0
_EVERY_POINT_S, _EVERY_HOUR_S = 2 * _DAY_S, 60 * _DAY_S
"""Points of usage: all of two days, then one an hour, and one a day after sixty."""
_VERSION = len(MIGRATIONS)
_POINTS = (("usage", "category"), ("usage_below", "path"), ("space", "''"))
"""The tables of points over time, and what tells the points of one time apart."""


class LedgerError(Exception):
    """The ledger could not be read or written. The work that it should have told of is done all the same."""


P = ParamSpec("P")
T = TypeVar("T")


def _again_when_full(method: Callable[P, T]) -> Callable[P, T]:
    """Call a method of the ledger a second time when the disk was full: then the file's own reserve is used."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except LedgerError as error:
            if getattr(error.__cause__, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
        return method(*args, **kwargs)

    return call


class Ledger:
    """One open ledger. Threads may share it; each call is a transaction of its own."""

    def __init__(self, path: Path | None, *, replace_damaged: bool = True) -> None:
        """Open the ledger at `path`, or begin one; None is one in memory, forgotten on `close`.

        A file that can't be read is moved aside, and a new one begun (`replaced` names the old one), or else, without
        `replace_damaged`, left as it is. Raises LedgerError.
        """
        self.path = path or Path(":memory:")
        self.replaced: Path | None = None
        self._lock = threading.Lock()
        self._was_full = False
        if path is None:
            self._db = self._open()
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._db = self._open()
        except sqlite3.OperationalError as error:  # locked, full, not permitted: the file itself may be whole
            raise LedgerError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            if not replace_damaged:
                raise LedgerError(f"{path}: {error}") from error
            self.replaced = path.with_name(f"{path.name}.damaged-{int(time.time())}")
            for suffix in ("", "-wal", "-shm"):
                old = Path(f"{path}{suffix}")
                if old.exists():
                    old.rename(f"{self.replaced}{suffix}")
            try:
                self._db = self._open()
            except sqlite3.Error as again:
                raise LedgerError(f"{path}: {again}") from again

    @classmethod
    def for_reading(cls, path: Path) -> Self:
        """The ledger at `path`, left as it is even if it is damaged; an empty one in memory when there is none."""
        return cls(path if path.exists() else None, replace_damaged=False)

    @property
    def on_disk(self) -> bool:
        """Whether it has a file, and outlives this process."""
        return self.path.name != ":memory:"

    def _open(self) -> sqlite3.Connection:
        if self.on_disk:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
            db.execute("pragma cache_size = -512")
            db.execute("begin immediate")
            (version,) = db.execute("pragma user_version").fetchone()
            if version > _VERSION:
                raise LedgerError(f"{self.path} was written by a newer version (schema {version})")
            for migration in MIGRATIONS[version:]:
                for statement in migration.split(";\n"):
                    db.execute(statement)
            if version < _VERSION:
                db.execute(f"pragma user_version = {_VERSION}")
            for statement in ledger_prompts.SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute("commit")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file. The last process to do so folds the write-ahead log in."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._was_full:  # what the write-ahead log has taken of the disk is written over then
                    self._db.execute("pragma wal_checkpoint(restart)").fetchall()
                self._db.execute("begin immediate")
                try:
                    yield self._db
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("rollback")
                    raise
                self._db.execute("commit")
                self._was_full = False
            except sqlite3.Error as error:
                self._was_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise LedgerError(f"{self.path}: {error}") from error

    def keep_reserve(self) -> None:
        """Have some free pages in the file itself, so that rows can be written while the disk is full.

        Rows take them first, so this is called again now and then. Raises LedgerError.
        """
        if not self.on_disk:
            return
        try:
            found = os.statvfs(self.path.parent)
            ((free,),), ((size,),) = self._rows("pragma freelist_count"), self._rows("pragma page_size")
        except OSError as error:
            raise LedgerError(f"{self.path}: {error}") from error
        wanted = min(_RESERVE, found.f_blocks * found.f_frsize // _RESERVED_PART) // size
        if free >= wanted:
            return
        with self._transaction() as db:
            db.execute("create table if not exists reserve (filler blob)")
            db.execute("insert into reserve values (zeroblob(?))", (wanted * size,))
        self._rows("pragma wal_checkpoint(passive)")  # so that the disk has really given the pages
        with self._transaction() as db:
            db.execute("drop table reserve")

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            with self._lock, closing(self._db.execute(query, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: {error}") from error

    # Runs

    @_again_when_full
    def begin_run(self, job: str, started_at: float) -> int:
        """Write down that a run began; hand back its number."""
        with self._transaction() as db:
            return int(db.execute("insert into runs (job, started_at) values (?, ?)", (job, started_at)).lastrowid or 0)

    @_again_when_full
    def finish_run(self, run: int, report: JobReport) -> None:
        """Write down how a run ended."""
        with self._transaction() as db:
            db.execute(
                "update runs set ended_at = ?, outcome = ?, actions = ?, bytes = ?, message = ?, counts = ? "
                "where id = ?",
                (
                    report.started_at + report.duration_s,
                    report.outcome,
                    report.actions_total,
                    report.bytes_total,
                    report.message,
                    json.dumps(dict(report.counts)),
                    run,
                ),
            )

    def last_successes(self) -> dict[str, float]:
        """When each job last began a run that ended well (done, or done with something left)."""
        query = "select job, max(started_at) from runs where outcome in (?, ?) group by job"
        return dict(self._rows(query, (Outcome.DONE, Outcome.LEFT)))

    def last_runs(self) -> dict[str, Run]:
        """The newest run of each job."""
        query = (
            "select job, started_at, ended_at, outcome, actions, bytes, message, counts from runs "
            "where id in (select max(id) from runs group by job)"
        )
        return {run.job: run for run in (Run(*(*row[:7], json.loads(row[7]))) for row in self._rows(query))}

    # Actions

    @_again_when_full
    def record(self, actions: Sequence[Action], at: float, run: int | None = None) -> None:
        """Write down actions that have happened."""
        with self._transaction() as db:
            _insert(db, [_values(action, at, run, "done") for action in actions])

    @_again_when_full
    def plan(self, actions: Sequence[Action], at: float, run: int) -> range:
        """Write down actions that are about to happen, in one transaction; hand back the numbers of their rows."""
        values = [_values(action, at, run, "planned") for action in actions]
        with self._transaction() as db:
            _insert(db, values)
            # Nobody else writes during the transaction, so the rows have consecutive numbers (rowid of a table that
            # only ever grows, sqlite.org/autoinc.html). `max` and not last_insert_rowid(), because `values` may be ().
            (last,) = db.execute("select ifnull(max(id), 0) from actions").fetchone()
        return range(last + 1 - len(values), last + 1)

    @_again_when_full
    def confirm(self, run: int, failed: Sequence[str] = (), rows: range | None = None) -> None:
        """Write down that the planned actions of a run have happened, but for the `failed` paths.

        With `rows`, as `plan` handed them back, only those: others of the run may be planned and not done yet.
        """
        first, last = (rows[0], rows[-1]) if rows else (0, _LAST_ROW)
        if rows is not None and not rows:
            return
        with self._transaction() as db:
            db.executemany(
                "update actions set state = 'failed' "
                "where run = ? and state = 'planned' and path = ? and id between ? and ?",
                [(run, printable(path), first, last) for path in failed],
            )
            db.execute(
                "update actions set state = 'done' where run = ? and state = 'planned' and id between ? and ?",
                (run, first, last),
            )

    def actions(
        self,
        *,
        since: float = 0.0,
        path: str | None = None,
        kinds: Sequence[str] = (),
        job: str | None = None,
        limit: int = -1,
        covering: Sequence[str] = (),
    ) -> list[Row]:
        """The newest `limit` actions (all if negative), oldest first. `path` means it and what lies below it.

        `covering`: kinds of actions that mean all that is in a directory; with `path`, those of the directories that it
        is in are among them.
        """
        where = ["actions.at >= ?"]
        values: list[Any] = [since]
        if path is not None:
            shown = printable(path)
            above = [shown[:at] for at, char in enumerate(shown) if char == "/"] if covering else []
            where.append(
                "(actions.path = ? or (actions.path > ? and actions.path < ?) "
                f"or (actions.path in ({_marks(above)}) and actions.kind in ({_marks(covering)})))"
            )
            values += [shown, shown + "/", shown + "0", *above, *covering]  # "0" follows "/"
        if kinds:
            where.append(f"actions.kind in ({_marks(kinds)})")
            values += kinds
        if job is not None:
            where.append("ifnull(runs.job, 'guard') = ?")
            values.append(job)
        query = (
            "select actions.at, ifnull(runs.job, 'guard'), kind, path, rule, reason, actions.bytes, state "
            "from actions left join runs on runs.id = actions.run "
            f"where {' and '.join(where)} order by actions.id desc limit ?"
        )
        return [Row(*row) for row in reversed(self._rows(query, [*values, limit]))]

    def count_actions(self, since: float) -> dict[str, int]:
        """How many actions of each kind there were since a time."""
        return dict(self._rows("select kind, count(*) from actions where at >= ? group by kind", (since,)))

    def take_over(self, other: "Ledger") -> None:
        """Write down the runs of another ledger, and their actions, as new ones."""
        runs = other._rows("select id, job, started_at, ended_at, outcome, actions, bytes, message, counts from runs")
        actions = other._rows("select run, at, kind, path, rule, reason, bytes, state from actions order by id")
        with self._transaction() as db:
            numbers: dict[int | None, int | None] = {}
            for number, *run in runs:
                numbers[number] = db.execute(
                    "insert into runs (job, started_at, ended_at, outcome, actions, bytes, message, counts) "
                    f"values ({_marks(run)})",
                    run,
                ).lastrowid
            _insert(db, [(numbers.get(run), *rest) for run, *rest in actions])

    # Findings

    def replace_findings(self, job: str, findings: Iterable[Finding], at: float) -> None:
        """What a job's newest run found takes the place of what it found before; first sights are kept."""
        with self._transaction() as db:
            for finding in findings:
                db.execute(
                    "insert into findings values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (path, kind) do update set "
                    "job = excluded.job, severity = excluded.severity, detail = excluded.detail, "
                    "remedy = excluded.remedy, last_seen = excluded.last_seen",
                    (
                        finding.kind,
                        printable(finding.path),
                        job,
                        finding.severity,
                        finding.detail,
                        finding.remedy,
                        at,
                        at,
                    ),
                )
            db.execute("delete from findings where job = ? and last_seen < ?", (job, at))

    def findings(self) -> list[tuple[Finding, float]]:
        """What is wrong now, each with the time when it was first seen; the oldest first."""
        query = "select kind, path, severity, detail, remedy, first_seen from findings order by first_seen, path"
        return [(Finding(k, p, Severity(s), d, r), seen) for k, p, s, d, r, seen in self._rows(query)]

    # Usage

    def record_usage(self, points: Iterable[UsagePoint], space: SpacePoint, below: Iterable[UsagePoint] = ()) -> None:
        """Write down what the tree holds and what its file system has left; `below` by directory of the layout.

        Old points are thinned out, once an hour.
        """
        with self._transaction() as db:
            (last,) = db.execute("select max(at) from space").fetchone()
            for table, some in (("usage", points), ("usage_below", below)):
                db.executemany(
                    f"insert or replace into {table} values (?, ?, ?, ?)",
                    [(point.at, printable(point.category), point.files, point.bytes) for point in some],
                )
            db.execute(
                "insert or replace into space values (?, ?, ?, ?, ?)",
                (space.at, space.free_bytes, space.total_bytes, space.free_inodes, space.total_inodes),
            )
            if last is None or last // _HOUR_S != space.at // _HOUR_S:
                _thin_out(db, space.at)

    def usage(self) -> tuple[list[UsagePoint], SpacePoint | None]:
        """The newest figures of each category, and of the file system."""
        points = self._rows("select at, category, files, bytes from usage where at = (select max(at) from usage)")
        space = self._rows("select * from space order by at desc limit 1")
        return [UsagePoint(*point) for point in points], SpacePoint(*space[0]) if space else None

    def usage_since(self, since: float) -> tuple[list[UsagePoint], list[SpacePoint]]:
        """The figures of each directory of the layout (`category` is its path) and of the file system since a time."""
        points = self._rows("select at, path, files, bytes from usage_below where at >= ? order by at", (since,))
        space = self._rows("select * from space where at >= ? order by at", (since,))
        return [UsagePoint(*point) for point in points], [SpacePoint(*point) for point in space]

    # Prompts

    def counted(self) -> dict[str, Counted]:
        """How far the records of executed prompts are counted, by place."""
        return {place: Counted(until, name) for place, until, name in self._rows("select * from counted")}

    def add_executions(self, found: Iterable[Executions], counted: Mapping[str, Counted]) -> None:
        """Add to the counts of executed prompts, and write down how far they go."""
        with self._transaction() as db:
            ledger_prompts.add_executions(db, found, counted)

    def executions(self, first: str, last: str) -> list[Executions]:
        """The counts from one day to another (`2026-11-23`), by day and template."""
        query = "select * from executions where day between ? and ? order by day, template"
        return [Executions(*row) for row in self._rows(query, (first, last))]

    def last_executions(self, days: int) -> list[Executions]:
        """The counts of the newest days that there are any of, by day and template."""
        query = "select distinct day from executions order by day desc limit ?"
        found = [day for (day,) in self._rows(query, (days,))]
        return self.executions(found[-1], found[0]) if found else []

    def replace_cache_use(self, use: Iterable[CacheUse], at: float) -> None:
        """Write down how the prompt cache is used."""
        with self._transaction() as db:
            ledger_prompts.replace_cache_use(db, use, at)

    def cache_use(self) -> list[CacheUse]:
        """How the prompt cache is used, the latest use first; nothing when that was never measured."""
        query = "select within_s, files, bytes, due_bytes from cache_use order by within_s"
        return [CacheUse(*row) for row in self._rows(query)]

    # What a sweep has seen

    def marks(self, below: str = "") -> dict[str, str]:
        """The mark (size, time, inode and verdict) that the last sweep left for each file.

        What begins with a slash is no file, but something that a job remembers. `below`: only what begins with it.
        """
        if not below:
            return {os.fsdecode(path): mark for path, mark in self._rows("select path, mark from seen")}
        first = os.fsencode(below)
        query = "select path, mark from seen where path >= ? and path < ?"
        return {os.fsdecode(path): mark for path, mark in self._rows(query, (first, first + b"\xff"))}

    def mark(self, path: str) -> str:
        """The mark of one file, or whatever else has one; empty where there is none."""
        found = self._rows("select mark from seen where path = ?", (os.fsencode(path),))
        return str(found[0][0]) if found else ""

    def update_marks(self, changed: Mapping[str, str], gone: Iterable[str]) -> None:
        """Leave new marks, and drop those of files that are gone."""
        with self._transaction() as db:
            rows = [(os.fsencode(path), mark) for path, mark in changed.items()]
            db.executemany("insert or replace into seen values (?, ?)", rows)
            db.executemany("delete from seen where path = ?", [(os.fsencode(path),) for path in gone])


_INSERT = "insert into actions (run, at, kind, path, rule, reason, bytes, state) values "
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"
_ROWS = 500  # eight values each; a statement takes 32,766


def _insert(db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Many rows a statement: `executemany` gives the interpreter's lock away at each row, and while other threads
    unlink files it takes seven times as long to get it back.
    """
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        db.execute(_INSERT + ", ".join([_ROW] * len(some)), [value for row in some for value in row])


def _marks(values: Sequence[object]) -> str:
    """A question mark for each value, for a statement of SQL."""
    return ", ".join("?" * len(values))


def _thin_out(db: sqlite3.Connection, now: float) -> None:
    """Leave one point an hour of what is older than two days, and one a day of what is older than sixty."""
    for table, key in _POINTS:
        for older_s, step_s in ((_EVERY_POINT_S, _HOUR_S), (_EVERY_HOUR_S, _DAY_S)):
            db.execute(
                f"delete from {table} where at < :end and at not in "
                f"(select max(at) from {table} where at < :end group by {key}, cast(at / :step as integer))",
                {"end": now - older_s, "step": step_s},
            )


def _values(action: Action, at: float, run: int | None, state: str) -> tuple[Any, ...]:
    return run, at, action.kind, printable(action.path), action.rule, printable(action.reason), action.bytes, state
