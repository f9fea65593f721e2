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

from symbiont_datad import ledger_prompts, ledger_totals, ledger_trim
from symbiont_datad.fsops.in_place import keep_in_place
from symbiont_datad.ledger_events import marks
from symbiont_datad.ledger_prompts import Counted, Executions
from symbiont_datad.ledger_questions import Questions
from symbiont_datad.ledger_schema import MIGRATIONS, SnapshotRow, SpacePoint, UsagePoint
from symbiont_datad.report import Action, CacheUse, Finding, JobReport, printable

_DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)
_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises: of a damaged file, whose messages or texts are no UTF-8, in Python's own words."""
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


class Ledger(Questions):
    """One open ledger. Threads may share it; each call is a transaction of its own."""

    def __init__(self, path: Path | None, *, replace_damaged: bool = True, read_only: bool = False) -> None:
        """Open the ledger at `path`, or begin one; None is one in memory, forgotten on `close`.

        A file that can't be read is moved aside, and a new one begun (`replaced` names the old one), or else, without
        `replace_damaged`, left as it is. With `read_only` nothing waits for who writes to it, and nothing is written,
        unless it is of an older version. Raises LedgerError.
        """
        self.path = path or Path(":memory:")
        self.replaced: Path | None = None
        self._lock = threading.Lock()
        self._was_full = False
        if path is None:
            self._db = self._open()
            return
        if read_only:
            try:
                self._db = self._open_for_reading() or self._open()
            except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
                raise LedgerError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep_in_place(path.parent)
        try:
            self._db = self._open()
        except sqlite3.OperationalError as error:  # locked, full, not permitted: the file itself may be whole
            raise LedgerError(f"{path}: {error}") from error
        except _DAMAGED as error:
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
        return cls(path if path.exists() else None, replace_damaged=False, read_only=True)

    @property
    def on_disk(self) -> bool:
        """Whether it has a file, and outlives this process."""
        return self.path.name != ":memory:"

    def _open_for_reading(self) -> sqlite3.Connection | None:
        """A connection that can't write; None when the ledger must be brought to this version first.

        Never opens the file itself: to close it again would take away the locks that this process may hold on it
        through another connection (sqlite.org/howtocorrupt.html, 2.2).
        """
        if self.path.is_symlink():
            raise LedgerError(f"{self.path}: is a link")
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=ro",
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            (version,) = db.execute("pragma user_version").fetchone()
            if version > _VERSION:
                raise LedgerError(f"{self.path} was written by a newer version (schema {version})")
            extra = (
                "select count(*) from sqlite_master where name in ('executions', 'counted', 'cache_use', 'run_totals')"
            )
            if version == _VERSION and db.execute(extra).fetchone() == (4,):
                return db
        except BaseException:
            db.close()
            raise
        db.close()
        return None

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
            ledger_totals.prepare(db)
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
            except _ERRORS as error:
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
        except _ERRORS as error:
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
                    _text(report.message),
                    json.dumps(dict(report.counts)),
                    run,
                ),
            )
            ledger_totals.add_run(db, report)

    @_again_when_full
    def count_lost(self, report: JobReport) -> None:
        """Count a run that died without a word among those that failed; its own row stays without an end."""
        with self._transaction() as db:
            ledger_totals.add_run(db, report)

    # Actions

    @_again_when_full
    def record(self, actions: Sequence[Action], at: float, run: int | None = None) -> None:
        """Write down actions that have happened."""
        with self._transaction() as db:
            _insert(db, [_values(action, at, run, "done") for action in actions])
            ledger_totals.add_actions(db, actions, ruled=run is not None)

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
            ledger_totals.add_planned(db, run, first, last)
            db.execute(
                "update actions set state = 'done' where run = ? and state = 'planned' and id between ? and ?",
                (run, first, last),
            )

    def trim(self, limits: ledger_trim.Limits, now: float) -> None:
        """Forget what is too old, or too much, a part at a time: it is called again and again."""
        for statement, values in ledger_trim.steps(limits, now):
            for _ in range(ledger_trim.MOST_STEPS):
                with self._transaction() as db:
                    if not ledger_trim.trim(db, statement, values):
                        break

    def take_over(self, other: "Ledger") -> None:
        """Write down the runs of another ledger, and their actions, as new ones."""
        runs = other._rows("select id, job, started_at, ended_at, outcome, actions, bytes, message, counts from runs")
        actions = other._rows("select run, at, kind, path, rule, reason, bytes, state from actions order by id")
        totals = other.totals()
        with self._transaction() as db:
            numbers: dict[int | None, int | None] = {}
            for number, *run in runs:
                numbers[number] = db.execute(
                    "insert into runs (job, started_at, ended_at, outcome, actions, bytes, message, counts) "
                    f"values ({marks(run)})",
                    run,
                ).lastrowid
            _insert(db, [(numbers.get(run), *rest) for run, *rest in actions])
            ledger_totals.merge(db, totals)

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
                        _text(finding.detail),
                        _text(finding.remedy),
                        at,
                        at,
                    ),
                )
            db.execute("delete from findings where job = ? and last_seen < ?", (job, at))

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

    # Snapshots

    def note_snapshots(self, found: Iterable[SnapshotRow], there: Iterable[str]) -> None:
        """Write down snapshots; those whose ids are not `there` are forgotten."""
        rows = [(one.id, one.at, one.tag, one.host, one.files, one.bytes, one.added) for one in found]
        with self._transaction() as db:
            db.executemany("insert or replace into snapshots values (?, ?, ?, ?, ?, ?, ?)", rows)
            gone = {name for (name,) in db.execute("select id from snapshots")}.difference(there)
            db.executemany("delete from snapshots where id = ?", [(name,) for name in gone])

    # Prompts

    def add_executions(self, found: Iterable[Executions], counted: Mapping[str, Counted]) -> None:
        """Add to the counts of executed prompts, and write down how far they go."""
        with self._transaction() as db:
            ledger_prompts.add_executions(db, found, counted)

    def replace_cache_use(self, use: Iterable[CacheUse], at: float) -> None:
        """Write down how the prompt cache is used."""
        with self._transaction() as db:
            ledger_prompts.replace_cache_use(db, use, at)

    # What a sweep has seen

    def update_marks(self, changed: Mapping[str, str] | Iterable[tuple[str, str]], gone: Iterable[str]) -> None:
        """Leave new marks, and drop those of files that are gone.

        Many should come in the order of their paths: they lie so in the file, and a page is written once then.
        """
        with self._transaction() as db:
            pairs = changed.items() if isinstance(changed, Mapping) else changed
            rows = ((os.fsencode(path), mark) for path, mark in pairs)
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


def _thin_out(db: sqlite3.Connection, now: float) -> None:
    """Leave one point an hour of what is older than two days, and one a day of what is older than sixty."""
    for table, key in _POINTS:
        for older_s, step_s in ((_EVERY_POINT_S, _HOUR_S), (_EVERY_HOUR_S, _DAY_S)):
            db.execute(
                f"delete from {table} where at < :end and at not in "
                f"(select max(at) from {table} where at < :end group by {key}, cast(at / :step as integer))",
                {"end": now - older_s, "step": step_s},
            )


def _text(text: str) -> str:
    """Text of several lines, perhaps; what is no character (a byte of a path) is escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _values(action: Action, at: float, run: int | None, state: str) -> tuple[Any, ...]:
    return run, at, action.kind, printable(action.path), action.rule, printable(action.reason), action.bytes, state
