"""Executed prompts, counted by day and template while usage is measured: each record is read once.

How far the records of a day are counted is kept as the time and the name of the last one, in the order of their times.
So what is new is told from what lstat says, a run reads no more than `_FILES` records, and what is left follows in
the next one. A file of lines (`.jsonl`) is read on from where it ended.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import groupby
from typing import NamedTuple

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.ledger_prompts import Counted, Executions
from symbiont_datad.report import printable

_FILES = 20_000
_BYTES = 64 << 20
"""So much is read in one run, and of one file of lines."""
_SETTLE_NS = 2 * 10**9
"""A record that was written this lately may still be being written."""
_TEMPLATES = 200
"""So many templates of a day are told apart; the others count as one."""
OTHERS = "(others)"
_NOTHING = Counted()


class _New(NamedTuple):
    """A record that is not counted yet, in the order in which they are. `place`: the directory of its day."""

    place: str
    mtime_ns: int
    path: str
    size: int
    inode: int


class ExecutionCounter:
    """Counts what lies below `prompts/history/`; see `look_at` and `finish`."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._prefix = f"{context.layout.path_of(Category.PROMPTS, 'history')}/"
        self._before_ns = int(context.now * 1e9) - _SETTLE_NS
        self._records: list[_New] = []
        self._lines: list[_New] = []
        self._counted: dict[str, Counted] = {}
        self._found: dict[tuple[str, str], Executions] = {}
        self._by_day: dict[str, set[str]] = defaultdict(set)
        self.pending = 0
        self.counted = 0
        try:
            self._known = context.ledger.counted()
        except LedgerError as error:
            emit("ledger_failed", job="usage", reason=str(error))
            self._prefix = "//"  # nothing lies there: without the ledger nothing is counted

    def look_at(self, entry: Entry) -> None:
        """Take one file of the walk; what is no new record is passed over."""
        path = entry.path
        if not path.startswith(self._prefix) or not entry.is_file:
            return
        relative = path[len(self._prefix) :]
        place = relative.partition("/")[0] if "/" in relative else ""
        known = self._known.get(place, _NOTHING)
        if entry.mtime_ns < known.until and not relative.endswith(".jsonl"):
            return
        new = _New(place, entry.mtime_ns, relative, entry.size, entry.inode)
        if relative.endswith(".jsonl"):
            known = self._known.get(_lines_of(relative), _NOTHING)
            if entry.size != known.until or f"{entry.inode}" != known.name:
                self._lines.append(new)
            return
        if new.mtime_ns > self._before_ns or (new.mtime_ns, printable(relative)) <= (known.until, known.name):
            return
        self._records.append(new)
        if len(self._records) > 2 * _FILES:
            self._shorten()

    def _shorten(self) -> None:
        """Keep the first ones only: what is left out is not marked as counted, and comes in a later run."""
        self._records.sort()
        self.pending += len(self._records) - _FILES
        del self._records[_FILES:]

    def finish(self) -> None:
        """Read what is new, and write the counts down. Nothing is counted in a dry run."""
        if self._context.dry_run or not (self._records or self._lines):
            return
        if len(self._records) > _FILES:
            self._shorten()
        self._records.sort()
        left = _BYTES
        for folder, records in groupby(self._records, lambda new: new.path.rpartition("/")[0]):
            left = self._count(folder, records, left)
            if left <= 0 or self._context.stopping():
                break
        for new in self._lines:
            if self._context.stopping():
                break
            self._count_lines(new)
        try:
            self._context.ledger.add_executions(self._found.values(), self._counted)
        except LedgerError as error:
            emit("ledger_failed", job="usage", reason=str(error))
            self.counted = 0

    def _count(self, folder: str, records: Iterable[_New], left: int) -> int:
        """Count the records of one directory; hand back how many bytes may still be read."""
        from symbiont_datad.formats.execution import LARGEST, read_execution

        tree, path = self._context.layout.tree, f"{self._prefix}{folder}".rstrip("/")
        with suppress(OSError, UnsafePath), tree.directory(path) as fd:
            for new in records:
                data = b""
                if new.size <= LARGEST:
                    with suppress(OSError), opened_regular(new.path.rpartition("/")[2], fd) as file:
                        data = os.read(file, LARGEST)
                self._add(_day_of(new), new, read_execution(data), new.size)
                self._counted[new.place] = Counted(new.mtime_ns, printable(new.path))
                left -= len(data)
                if left <= 0 or self._context.stopping():
                    break
        return left

    def _count_lines(self, new: _New) -> None:
        from symbiont_datad.formats.execution import read_execution

        known = self._known.get(_lines_of(new.path), _NOTHING)
        start = known.until if known.name == f"{new.inode}" and known.until <= new.size else 0
        tree, path = self._context.layout.tree, f"{self._prefix}{new.path}"
        with suppress(OSError, UnsafePath), tree.holding(path) as (fd, name):
            with opened_regular(name, fd) as file:
                data = os.pread(file, min(new.size - start, _BYTES), start)
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].splitlines():
                if line.strip():
                    self._add(_day_of(new), new, read_execution(line), len(line))
            self._counted[_lines_of(new.path)] = Counted(start + whole, f"{new.inode}")

    def _add(self, day: str, new: _New, told: tuple[str, float | None], size: int) -> None:
        template, latency_ms = printable(told[0]), told[1]
        templates = self._by_day[day]
        if not templates:
            with suppress(LedgerError):
                templates.update(one.template for one in self._context.ledger.executions(day, day))
            templates.add("")
        if template not in templates:
            if len(templates) > _TEMPLATES:
                template = OTHERS
            templates.add(template)
        known = self._found.get((day, template), Executions(day, template, 0, 0))
        timed = latency_ms is not None
        self._found[day, template] = replace(
            known,
            runs=known.runs + 1,
            bytes=known.bytes + size,
            timed=known.timed + timed,
            latency_ms=known.latency_ms + (latency_ms or 0.0),
            slowest_ms=max(known.slowest_ms, latency_ms or 0.0),
            last_at=max(known.last_at, new.mtime_ns / 1e9),
        )
        self.counted += 1


def _lines_of(path: str) -> str:
    """What the place of a file of lines is called: no directory's name has a slash."""
    return f"/{printable(path)}"


def _day_of(new: _New) -> str:
    """The day that the directory is called by, or else the one on which the record was written (UTC)."""
    try:
        return date.fromisoformat(new.place).isoformat()
    except ValueError:
        return datetime.fromtimestamp(new.mtime_ns // 10**9, UTC).date().isoformat()
