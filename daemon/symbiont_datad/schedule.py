"""When jobs run: APScheduler, with what it lacks for a daemon on a machine that sleeps.

A job that is late runs (APScheduler's own default is to skip one that is a second late), once however many runs were
missed, and never beside itself; one that is due while the one before still lasts is made up for afterwards, unless the
timetable has the next one sooner. The time of each job's last success is kept by the ledger, so a run that was missed
while the daemon or the machine was off is caught up at start. Suspend and clock changes don't wake APScheduler, so
`check_clock` is to be called at least once a minute: it compares the wall clock with the monotonic one.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

from symbiont_datad.timetable import Soon, Timetable, Trigger, put_off

logging.getLogger("apscheduler").addHandler(logging.NullHandler())

_BEAT_S = 10.0
_JUMP_S = 5.0
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Drive:
    """What drives a schedule: the wall clock (seconds since the epoch), a clock that nobody sets, and of APScheduler
    the loop that waits, and what makes a pool of so many threads.

    `beat_s`: the time between two signs of life.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    scheduler: Callable[..., Any] = BackgroundScheduler
    threads: Callable[[int], Any] = ThreadPoolExecutor
    beat_s: float = _BEAT_S


_REAL = Drive()


class Schedule:
    """Runs jobs by their timetables: `run(name)` is called in a thread and returns when the job has ended.

    `in_turn`: one job at a time, for little memory.
    """

    def __init__(self, run: Callable[[str], None], drive: Drive = _REAL, *, in_turn: bool = False) -> None:
        self._run = run
        self._drive = drive
        self._in_turn = in_turn
        self._tables: dict[str, Timetable] = {}
        self._gaps: dict[Timetable, float] = {}
        self._scheduler: Any = None
        self._soon: dict[str, Soon] = {}
        self._soon_lock = threading.Lock()
        self._begun: dict[str, float] = {}
        self._owed: set[str] = set()
        self._clocks = drive.wall(), drive.monotonic()
        self.beat = drive.monotonic()

    def start(self, tables: Iterable[Timetable], last_successes: Mapping[str, float]) -> list[str]:
        """Begin; hand back the jobs whose run was missed and is caught up now."""
        self._tables = {table.job: table for table in tables}
        threads = self._drive.threads
        self._scheduler = self._drive.scheduler(
            executors={
                "default": threads(1 if self._in_turn else _AT_ONCE),
                "heavy": threads(1),
                "soon": threads(1),
                "beat": threads(1),
            },
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            timezone=UTC,
        )
        now = self._now()
        late = []
        for table in self._tables.values():
            last = last_successes.get(table.job)
            due = table.due(last, now)
            if last is not None and due == now:
                late.append(table.job)
            self._add(table, due)
        beat = Trigger(Timetable("beat", every_s=self._drive.beat_s))
        self._scheduler.add_job(self._beat, beat, id=_BEAT, executor="beat", next_run_time=now)
        self._clocks = self._drive.wall(), self._drive.monotonic()
        self.beat = self._drive.monotonic()
        self._scheduler.add_listener(
            self._follow, EVENT_JOB_SUBMITTED | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_EXECUTED | EVENT_JOB_ERROR
        )
        self._scheduler.start()
        return late

    def reload(self, tables: Iterable[Timetable], last_successes: Mapping[str, float]) -> None:
        """Go by other timetables. A job that is running runs on."""
        now = self._now()
        new = {table.job: table for table in tables}
        for name in self._tables.keys() - new.keys():
            self._scheduler.remove_job(name)
        for name, table in new.items():
            if self._tables.get(name) == table:
                continue
            self._add(table, table.due(last_successes.get(name), now))
        self._tables = new

    def retry(self, job: str, after_s: float) -> None:
        """Run a job again so many seconds from now, unless its timetable has it sooner."""
        found = self._scheduler.get_job(job)
        at = self._now() + timedelta(seconds=after_s)
        if found is not None and found.next_run_time is not None and at < found.next_run_time:
            with suppress(JobLookupError):  # it stops just now, or a reload took the job away
                found.modify(next_run_time=at)

    def _follow(self, event: Any) -> None:
        """Make up for a run that was due while another one lasted (which may have slept for weeks with the machine).

        It waits for as long as that one took, so that a job which takes longer than its interval gets pauses.
        """
        job = event.job_id
        if job not in self._tables:
            return
        if event.code == EVENT_JOB_SUBMITTED:
            self._begun[job] = self._drive.monotonic()
        elif event.code == EVENT_JOB_MAX_INSTANCES:
            self._owed.add(job)
        elif job in self._owed:
            self._owed.discard(job)
            self.retry(job, self._drive.monotonic() - self._begun.get(job, 0.0))

    def soon(self, job: str, after_s: float) -> None:
        """Run a job that has no timetable once, so many seconds from now. Who asks again before that puts it off, but
        not for ever. One that is running ends first, and is run once more.

        It may be asked for thousands of times a second.
        """
        with self._soon_lock:
            if self._scheduler is None or not self._scheduler.running:
                return
            now = self._drive.monotonic()
            known = self._soon.get(job)
            soon = put_off(known, now, after_s)
            if soon == known:
                return
            self._soon[job] = soon
            self._scheduler.add_job(
                self._run_soon,
                DateTrigger(self._now() + timedelta(seconds=soon.due - now), UTC),
                [job],
                id=f"{job} soon",
                executor="soon",  # it has one thread, so a run that comes too early waits for it
                max_instances=_QUEUED,
                replace_existing=True,
            )

    def _run_soon(self, job: str) -> None:
        with self._soon_lock:
            self._soon.pop(job, None)
        self._run(job)

    def _add(self, table: Timetable, due: datetime) -> None:
        self._scheduler.add_job(
            self._run,
            Trigger(table),
            [table.job],
            id=table.job,
            executor="default" if self._in_turn else table.executor,
            next_run_time=due,
            replace_existing=True,
        )

    def stop(self) -> None:
        """Start no more jobs. Those that run are the caller's to end."""
        with self._soon_lock:
            if self._scheduler is not None and self._scheduler.running:
                # `shutdown` alone says that it has stopped before it waits for the thread that is just starting a job,
                # and that one ends with an exception when it then takes a job of one run away.
                self._scheduler.remove_all_jobs()
                self._scheduler.shutdown(wait=False)

    def alive(self) -> bool:
        """Whether jobs really get started: a small job of its own runs every ten seconds through the same machinery."""
        return self._drive.monotonic() - self.beat < 6 * self._drive.beat_s

    def check_clock(self) -> float:
        """Set the schedule right after sleep or a change of the clock; hand back by how many seconds the wall clock
        jumped (0.0 if it didn't, negative if it went back)."""
        wall, monotonic = self._drive.wall(), self._drive.monotonic()
        jump = (wall - self._clocks[0]) - (monotonic - self._clocks[1])
        self._clocks = wall, monotonic
        if abs(jump) < _JUMP_S:
            return 0.0
        now = self._now()
        for job in self._scheduler.get_jobs():
            if isinstance(job.trigger, DateTrigger):
                job.modify(next_run_time=now)
                continue
            latest = job.trigger.get_next_fire_time(None, now)
            if job.next_run_time is None or job.next_run_time > latest:  # the clock went back: it would stall
                job.modify(next_run_time=latest)
        self._scheduler.wakeup()
        return jump

    def next_runs(self) -> dict[str, float]:
        """When each job runs next, in seconds since the epoch."""
        if self._scheduler is None:
            return {}
        return {
            job.id: job.next_run_time.timestamp()
            for job in self._scheduler.get_jobs()
            if job.id in self._tables and job.next_run_time is not None
        }

    def gaps_s(self) -> dict[str, float]:
        """The longest time between two runs of each job, in seconds."""
        for table in self._tables.values():
            if table not in self._gaps:
                self._gaps[table] = table.longest_gap_s(self._now())
        return {name: self._gaps[table] for name, table in self._tables.items()}

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._drive.wall(), UTC)

    def _beat(self) -> None:
        self.beat = self._drive.monotonic()


_BEAT = "beat"
_QUEUED = 3  # one that runs, one that waits for it, and one more
