"""What becomes known of the daemon's work: what the guard reports is told and written down, and what all parts know is
gathered into the facts that metrics are made of.
"""

import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace

from symbiont_datad import __version__
from symbiont_datad.events import emit
from symbiont_datad.fsops.process import this_process
from symbiont_datad.guard.guard import Report, Standing
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Health, printable
from symbiont_datad.retention.pressure import Space
from symbiont_datad.service.figures import Facts, Guarding, Recorded, Scheduling
from symbiont_datad.service.process_figures import process_figures


class Observation:
    """Remembers how often what happened, and what the ledger told last. One thread asks, another one counts."""

    def __init__(self) -> None:
        self._events: Counter[str] = Counter()
        self._recorded = Recorded()
        self._measured_at = -1.0
        self._host = printable(this_process().hostname)

    def count(self, event: str) -> None:
        """Something happened to the guard."""
        self._events[event] += 1

    def facts(
        self,
        health: Health,
        guard: Standing,
        schedule: Scheduling,
        spaces: Mapping[str, tuple[Space, bool]],
        ledger: Ledger | None,
        *,
        started_at: float,
        refused: bool,
        rules: tuple[str, ...],
        now: float,
    ) -> Facts:
        """All of it. `ledger` is None where there is none that could be opened."""
        return Facts(
            version=__version__,
            host=self._host,
            python=".".join(map(str, sys.version_info[:3])),
            started_at=started_at,
            alive=health.alive,
            kept=health.ready,
            warnings=len(health.warnings),
            refused=refused,
            guard=Guarding(**asdict(guard), events=dict(self._events)),
            schedule=schedule,
            recorded=self._read(ledger, now),
            spaces=spaces,
            rules=rules,
            process=process_figures(),
        )

    def _read(self, ledger: Ledger | None, now: float) -> Recorded:
        try:
            if ledger is None:
                raise LedgerError("there is none")
            usage, space = ledger.usage()
            measured_at = space.at if space is not None else 0.0
            full_in_s = self._recorded.full_in_s
            if measured_at != self._measured_at:  # it reads the points of a month
                from symbiont_datad.status import forecasts  # only where metrics are wanted

                ends = dict(zip(("bytes", "inodes"), forecasts(ledger, now), strict=True))
                full_in_s = {name: end.full_in_s for name, end in ends.items() if end is not None}
                self._measured_at = measured_at
            self._recorded = Recorded(
                usable=True,
                totals=ledger.totals(),
                findings=ledger.count_findings(),
                usage=tuple(usage),
                snapshots=tuple(ledger.snapshots()),
                full_in_s=full_in_s,
            )
        except LedgerError:
            self._recorded = replace(self._recorded, usable=False)
        return self._recorded


@contextmanager
def recorder(ledger: Callable[[], Ledger], count: Callable[[str], None]) -> Iterator[Callable[[Report], None]]:
    """A thread that logs, counts and records what the guard reports, for as long as the block runs.

    A slow log or a busy ledger must not hold up a repair.
    """
    reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
    failing = ""

    def record(report: Report) -> None:
        nonlocal failing
        count(report.event)
        emit(report.event, **report.fields)
        if report.action is None:
            return
        try:
            ledger().record([report.action], time.time())
            failing = ""
        except LedgerError as error:
            if str(error) != failing:
                failing = str(error)
                emit("ledger_failed", reason=failing)

    def loop() -> None:
        while (report := reports.get()) is not None:
            record(report)

    thread = threading.Thread(target=loop, name="recorder", daemon=True)
    thread.start()
    try:
        yield reports.put
    finally:
        reports.put(None)
        thread.join(2.0)
