"""A schedule whose time is simulated: its own loop and pools, turned by hand, on clocks that jump from event to event.

Nothing of the schedule is replaced: APScheduler decides what is due and when to look again, `Schedule` decides the
rest. Only that a thread waits is left out. Times are whole microseconds, so that nothing is ever nearly due.
"""

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Any
from unittest import mock

import apscheduler.schedulers.base
import tzlocal
from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.schedulers.base import BaseScheduler

from symbiont_datad import timetable
from symbiont_datad.schedule import Drive, Schedule
from symbiont_datad.timetable import Timetable

TURN_S = 10.0
"""How often the daemon's main loop looks at the clocks."""
_NEVER = 1 << 80
_US = 1_000_000


@contextmanager
def zone(name: str) -> Iterator[None]:
    """Local time is that of the zone: for the C library, for APScheduler, and for what was remembered of cron."""

    def forget() -> None:
        time.tzset()
        tzlocal.reload_localzone()
        timetable._cron_triggers.cache_clear()

    with mock.patch.dict(os.environ, TZ=name):
        forget()
        yield
    forget()


class Machine:
    """A machine with a daemon on it. `run(job)` is what a job does; `lasts(job)` tells for how many seconds it does it.

    `wall` and `monotonic` are its clocks; the second stands still while the machine sleeps, as CLOCK_MONOTONIC does
    (clock_gettime(2)).
    """

    def __init__(
        self, now: float, run: Callable[[str], None], lasts: Callable[[str], float], *, beat_s: float = TURN_S
    ) -> None:
        self._wall, self._monotonic = round(now * _US), 1000 * _US
        self._run = run
        self._lasts = lasts
        self._beat_s = beat_s
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._loop: _Loop | None = None
        self._looks_at = _NEVER

        class Told(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> "Told":
                return cls.fromtimestamp(self._wall / _US, tz)

        self._told = Told
        self.schedule: Schedule | None = None
        self.jumps: list[float] = []
        """What `check_clock` told of, in seconds."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall / _US

    def monotonic(self) -> float:
        """Seconds that it was awake."""
        return self._monotonic / _US

    def boot(self, tables: Iterable[Timetable], successes: Mapping[str, float]) -> list[str]:
        """Start the daemon; hand back what is caught up."""
        drive = Drive(self.wall, self.monotonic, self._scheduler, lambda count: _Pool(self, count), self._beat_s)
        self.schedule = Schedule(self._run, drive)
        return self.schedule.start(tables, successes)

    def kill(self) -> None:
        """The daemon ends; what it ran ends unfinished."""
        assert self.schedule is not None
        self.schedule.stop()
        self.schedule, self._loop, self._looks_at = None, None, _NEVER
        self._later.clear()

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the clock forward, or back."""
        self._wall += round(seconds * _US)
        self._looks_at = min(self._looks_at, self._next_turn())

    def sleep(self, seconds: float) -> None:
        """The machine is suspended: only the wall clock goes on. (So it is when the machine is off.)"""
        self.set_clock(seconds)

    def live(self, seconds: float) -> None:
        """So long everything takes its course."""
        with mock.patch.object(apscheduler.schedulers.base, "datetime", self._told):
            self._live(self._monotonic + round(seconds * _US))

    def _live(self, until: int) -> None:
        while True:
            at = min(self._later[0][0] if self._later else _NEVER, self._looks_at, self._wakes_at())
            if at > until:
                self._go(until)
                return
            self._go(at)
            if self._later and self._later[0][0] <= at:
                heapq.heappop(self._later)[2]()
            elif self._looks_at <= at:
                self._looks_at = _NEVER
                if self.schedule is not None:
                    self.jumps.append(self.schedule.check_clock())
            elif self._loop is not None:
                self._loop.turn()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something done when it was awake for so many seconds more."""
        self._count += 1
        heapq.heappush(self._later, (self._monotonic + round(seconds * _US), self._count, what))

    def lasts(self, job: str) -> float:
        """Seconds that this run of the job takes."""
        return self._lasts(job)

    def _go(self, to: int) -> None:
        self._wall += max(to - self._monotonic, 0)
        self._monotonic = max(to, self._monotonic)

    def _wakes_at(self) -> int:
        return self._loop.wakes_at if self._loop is not None else _NEVER

    def _next_turn(self) -> int:
        turn = round(TURN_S * _US)
        return (self._monotonic // turn + 1) * turn

    def _scheduler(self, **options: Any) -> "_Loop":
        self._loop = _Loop(self, **options)
        return self._loop


class _Loop(BaseScheduler):  # type: ignore[misc]  # apscheduler has no types
    """What APScheduler's `BlockingScheduler` does, but that `wakes_at` is written down instead of waited for."""

    def __init__(self, machine: Machine, **options: Any) -> None:
        self._machine = machine
        self.wakes_at = _NEVER
        super().__init__(**options)

    def wakeup(self) -> None:
        """Look again at once."""
        self.wakes_at = round(self._machine.monotonic() * _US)

    def shutdown(self, wait: bool = True) -> None:
        """Start nothing more."""
        super().shutdown(wait)
        self.wakes_at = _NEVER

    def turn(self) -> None:
        """Start what is due, and decide when to look again: a microsecond from now at the soonest."""

        self.wakes_at = _NEVER
        wait_s = self._process_jobs()
        if wait_s is not None:
            now = round(self._machine.monotonic() * _US)
            self.wakes_at = min(self.wakes_at, now + max(round(wait_s * _US), 1))


class _Pool(BaseExecutor):  # type: ignore[misc]  # apscheduler has no types
    """So many threads; each run takes as long as the machine says."""

    def __init__(self, machine: Machine, threads: int) -> None:
        super().__init__()
        self._machine = machine
        self._free = threads
        self._waiting: list[Any] = []

    def _do_submit_job(self, job: Any, _run_times: object) -> None:
        self._waiting.append(job)
        self._machine.after(0.0, self._begin)

    def _begin(self) -> None:
        if not self._free or not self._waiting:
            return
        self._free -= 1
        job = self._waiting.pop(0)
        job.func(*job.args)
        self._machine.after(self._machine.lasts(job.id), lambda: self._end(job))

    def _end(self, job: Any) -> None:
        self._free += 1
        now = datetime.fromtimestamp(self._machine.wall(), UTC)
        self._run_job_success(job.id, [JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, "default", now)])
        self._begin()
