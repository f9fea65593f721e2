"""What can be asked of the ledger. Nothing here writes."""

import json
import os
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from symbiont_datad import ledger_events, ledger_totals
from symbiont_datad.ledger_events import Filter, marks
from symbiont_datad.ledger_prompts import Counted, Executions
from symbiont_datad.ledger_schema import Row, Run, SnapshotRow, SpacePoint, UsagePoint
from symbiont_datad.ledger_totals import Totals
from symbiont_datad.report import CacheUse, Finding, Outcome, Severity


class Questions:
    """The questions; who has a database answers `_rows`. Each raises LedgerError when it can't be read."""

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        raise NotImplementedError  # `Ledger` does

    # Runs

    def last_successes(self) -> dict[str, float]:
        """When each job last began a run that ended well (done, or done with something left)."""
        query = ledger_events.LAST_RUNS.format(columns="jobs.job, runs.started_at", only="and outcome in (?, ?)")
        return dict(self._rows(query, (Outcome.DONE, Outcome.LEFT)))

    def last_runs(self) -> dict[str, Run]:
        """The newest run of each job."""
        found = self._rows(ledger_events.LAST_RUNS.format(columns=_RUN, only=""))
        return {run.job: run for run in map(_run, found)}

    def last_good_runs(self) -> dict[str, Run]:
        """The newest run of each job that ended well (done, or done with something left)."""
        query = ledger_events.LAST_RUNS.format(columns=_RUN, only="and outcome in (?, ?)")
        return {run.job: run for run in map(_run, self._rows(query, (Outcome.DONE, Outcome.LEFT)))}

    def failures(self, since: float) -> dict[str, int]:
        """How many runs of each job failed since a time."""
        query = "select job, count(*) from runs where outcome = 'failed' and started_at >= ? group by job"
        return dict(self._rows(query, (since,)))

    def runs(self, since: float) -> list[Run]:
        """The runs since a time, the oldest first."""
        query = f"select {_RUN} from runs where started_at >= ? order by started_at"
        return [_run(row) for row in self._rows(query, (since,))]

    # Actions

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
        found = self._rows(
            *ledger_events.actions(Filter(since=since, path=path, kinds=kinds, job=job, covering=covering, limit=limit))
        )
        return [Row(*row[1:]) for row in reversed(found)]

    def events(self, wanted: Filter) -> list[Row]:
        """The newest actions and failed runs that pass a filter, oldest first."""
        found = [Row(*row[1:]) for row in self._rows(*ledger_events.actions(wanted))]
        failures = ledger_events.failures(wanted)
        if failures is not None:
            found = sorted([*found, *(Row(*row) for row in self._rows(*failures))], key=_at, reverse=True)
        return found[: wanted.limit if wanted.limit >= 0 else None][::-1]

    def new_actions(self, wanted: Filter) -> list[tuple[int, Row]]:
        """The actions that pass, the oldest first, each with its number: what a follower asks for again and again."""
        return [(row[0], Row(*row[1:])) for row in reversed(self._rows(*ledger_events.actions(wanted)))]

    def last_action(self) -> int:
        """The number of the newest action; 0 when there is none."""
        return int(self._rows("select ifnull(max(id), 0) from actions")[0][0])

    def states(self, numbers: Sequence[int]) -> dict[int, str]:
        """What became of actions, by their numbers: `done`, `planned` or `failed`."""
        return dict(self._rows(f"select id, state from actions where id in ({marks(numbers)})", numbers))

    def count_actions(self, since: float) -> dict[str, int]:
        """How many actions of each kind there were since a time."""
        return {kind: count for kind, count in self._rows(ledger_events.KINDS_SINCE, (since,)) if count}

    def actions_by_day(self, since: float) -> list[tuple[str, int, int]]:
        """Kind, day (the number of days since the epoch, UTC) and how many actions since a time."""
        return [(kind, day, count) for kind, day, count in self._rows(ledger_events.DAYS_SINCE, (since,))]

    # Totals

    def totals(self) -> Totals:
        """How much was done so far, however long ago."""
        return ledger_totals.read(self._rows)

    # Findings

    def count_findings(self) -> dict[tuple[str, str], int]:
        """How many findings there are of each kind and severity."""
        query = "select kind, severity, count(*) from findings group by kind, severity"
        return {(kind, severity): count for kind, severity, count in self._rows(query)}

    def findings(self) -> list[tuple[Finding, float]]:
        """What is wrong now, each with the time when it was first seen; the oldest first."""
        query = "select kind, path, severity, detail, remedy, first_seen from findings order by first_seen, path"
        return [(Finding(k, p, Severity(s), d, r), seen) for k, p, s, d, r, seen in self._rows(query)]

    # Usage

    def usage(self) -> tuple[list[UsagePoint], SpacePoint | None]:
        """The newest figures of each category, and of the file system."""
        points = self._rows("select at, category, files, bytes from usage where at = (select max(at) from usage)")
        space = self._rows("select * from space order by at desc limit 1")
        return [UsagePoint(*point) for point in points], SpacePoint(*space[0]) if space else None

    def space_since(self, since: float) -> list[SpacePoint]:
        """The figures of the file system since a time, the oldest first."""
        return [SpacePoint(*row) for row in self._rows("select * from space where at >= ? order by at", (since,))]

    def usage_since(self, since: float) -> tuple[list[UsagePoint], list[SpacePoint]]:
        """The figures of each directory of the layout (`category` is its path) and of the file system since a time."""
        points = self._rows("select at, path, files, bytes from usage_below where at >= ? order by at", (since,))
        return [UsagePoint(*point) for point in points], self.space_since(since)

    def usage_by_category(self, since: float) -> list[UsagePoint]:
        """The figures of each category since a time, the oldest first."""
        query = "select at, category, files, bytes from usage where at >= ? order by at"
        return [UsagePoint(*point) for point in self._rows(query, (since,))]

    # Snapshots

    def snapshots(self) -> list[SnapshotRow]:
        """The snapshots that there were when a job looked last, the oldest first."""
        return [SnapshotRow(*row) for row in self._rows("select * from snapshots order by at, id")]

    # Prompts

    def counted(self) -> dict[str, Counted]:
        """How far the records of executed prompts are counted, by place."""
        return {place: Counted(until, name) for place, until, name in self._rows("select * from counted")}

    def executions(self, first: str, last: str) -> list[Executions]:
        """The counts from one day to another (`2026-11-23`), by day and template."""
        query = "select * from executions where day between ? and ? order by day, template"
        return [Executions(*row) for row in self._rows(query, (first, last))]

    def last_executions(self, days: int) -> list[Executions]:
        """The counts of the newest days that there are any of, by day and template."""
        query = "select distinct day from executions order by day desc limit ?"
        found = [day for (day,) in self._rows(query, (days,))]
        return self.executions(found[-1], found[0]) if found else []

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

    def each_mark(self) -> Iterator[tuple[str, str]]:
        """All marks with their paths, in the order of those; a few thousand at a time, for there may be a million."""
        query = "select path, mark from seen where path > ? order by path limit ?"
        after = b""
        while rows := self._rows(query, (after, _MARKS)):
            yield from ((os.fsdecode(path), mark) for path, mark in rows)
            after = rows[-1][0]

    def mark(self, path: str) -> str:
        """The mark of one file, or whatever else has one; empty where there is none."""
        found = self._rows("select mark from seen where path = ?", (os.fsencode(path),))
        return str(found[0][0]) if found else ""


_MARKS = 5000
_RUN = "runs.job, started_at, ended_at, outcome, actions, bytes, message, counts"
_at = attrgetter("at")


def _run(row: Any) -> Run:
    return Run(*(*row[:7], json.loads(row[7])))
