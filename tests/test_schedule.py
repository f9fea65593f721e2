"""When jobs run, on a wall clock that the tests set."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any

import apscheduler.schedulers.base
import pytest
from apscheduler.executors.pool import ThreadPoolExecutor

from symbiont_datad.schedule import Drive, Schedule
from symbiont_datad.timetable import Timetable

HOUR = 3600.0
DAY = 24 * HOUR
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clock:
    """A wall clock that runs like the real one until it is set."""

    def __init__(self, now: float) -> None:
        self._offset = now - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._offset += seconds


class Jobs:
    """Counts the runs of each job; those named in `gates` last until their gate opens."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self.gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        with self._lock:
            self.runs[name] += 1
            self.running[name] += 1
            self.most_at_once[name] = max(self.most_at_once[name], self.running[name])
        if name in self.gates:
            self.gates[name].wait(5.0)
        with self._lock:
            self.running[name] -= 1

    def wait_for(self, name: str, runs: int, timeout_s: float = 3.0) -> None:
        """Until the job has run that often."""
        deadline = time.monotonic() + timeout_s
        while self.runs[name] < runs:
            assert time.monotonic() < deadline, f"{name} ran {self.runs[name]} times, not {runs}"
            time.sleep(0.002)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the schedule and of APScheduler, at noon."""
    clock = Clock(NOON.timestamp())

    class Told(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Told":
            return cls.fromtimestamp(clock(), tz)

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Told)
    return clock


@pytest.fixture
def jobs() -> Jobs:
    """Jobs that do nothing but count."""
    return Jobs()


@pytest.fixture
def schedule(jobs: Jobs, clock: Clock) -> Iterator[Schedule]:
    """A schedule of `jobs` on `clock`, not started."""
    schedule = Schedule(jobs, Drive(clock))
    yield schedule
    for gate in jobs.gates.values():
        gate.set()
    schedule.stop()


def settle() -> None:
    """Give the scheduler's thread time to do what it should not do."""
    time.sleep(0.05)


# The schedule


def test_the_first_run_is_due_at_once(schedule: Schedule, jobs: Jobs) -> None:
    """A job that never ran runs at start, and is nothing to catch up."""
    assert [] == schedule.start([Timetable("a", every_s=HOUR)], {})
    jobs.wait_for("a", 1)


def test_missed_runs_are_caught_up_once(schedule: Schedule, jobs: Jobs) -> None:
    """After a week of downtime an hourly job runs once at start, and then an hour later; others keep their time."""
    now = NOON.timestamp()
    tables = [Timetable("late", every_s=HOUR), Timetable("fresh", every_s=HOUR), Timetable("night", cron="0 3 * * *")]
    late = schedule.start(tables, {"late": now - 7 * DAY, "fresh": now - 60, "night": now - 2 * DAY})
    assert ["late", "night"] == late
    jobs.wait_for("late", 1)
    jobs.wait_for("night", 1)
    settle()
    assert {"late": 1, "night": 1} == dict(jobs.runs)
    upcoming = schedule.next_runs()
    assert now + HOUR == pytest.approx(upcoming["late"], abs=2.0)
    assert now + HOUR - 60 == pytest.approx(upcoming["fresh"], abs=2.0)
    assert now + 15 * HOUR == pytest.approx(upcoming["night"], abs=2.0)


def test_a_run_that_is_hours_late_still_runs(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """After the machine slept through a run, and many after it, the job runs once, at once."""
    schedule.start([Timetable("a", every_s=60.0)], {"a": clock()})
    clock.jump(8 * HOUR)
    assert 8 * HOUR == pytest.approx(schedule.check_clock(), abs=0.5)
    jobs.wait_for("a", 1)
    settle()
    assert 1 == jobs.runs["a"]
    assert clock() + 60 == pytest.approx(schedule.next_runs()["a"], abs=2.0)


def test_a_job_never_runs_beside_itself(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """While a run takes longer than the interval no second one begins; once it has ended the next one does."""
    jobs.gates["a"] = threading.Event()
    schedule.start([Timetable("a", every_s=60.0)], {})
    jobs.wait_for("a", 1)
    for _ in range(3):
        clock.jump(61.0)
        schedule.check_clock()
        settle()
    assert 1 == jobs.runs["a"]
    jobs.gates.pop("a").set()
    while jobs.running["a"]:
        time.sleep(0.002)
    clock.jump(61.0)
    schedule.check_clock()
    jobs.wait_for("a", 2)
    assert 1 == jobs.most_at_once["a"]


def test_a_clock_set_back_does_not_stall_the_jobs(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """A year back: the hourly job runs an hour from now, not in a year and an hour."""
    schedule.start([Timetable("a", every_s=HOUR), Timetable("b", cron="0 3 * * *")], {"a": clock(), "b": clock()})
    clock.jump(-365 * DAY)
    assert -365 * DAY == pytest.approx(schedule.check_clock(), abs=0.5)
    upcoming = schedule.next_runs()
    assert clock() + HOUR == pytest.approx(upcoming["a"], abs=2.0)
    assert clock() < upcoming["b"] <= clock() + DAY
    clock.jump(HOUR)
    schedule.check_clock()
    jobs.wait_for("a", 1)


def test_a_jump_of_ten_years_does_not_flood(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """Five million missed runs of a job are one run, within a second of real time."""
    schedule.start([Timetable("a", every_s=60.0), Timetable("b", cron="* * * * *")], {"a": clock(), "b": clock()})
    begun = time.monotonic()
    clock.jump(3652 * DAY)
    schedule.check_clock()
    jobs.wait_for("a", 1)
    jobs.wait_for("b", 1)
    assert time.monotonic() - begun < 1.0
    settle()
    assert {"a": 1, "b": 1} == dict(jobs.runs)
    assert schedule.alive()


def test_a_clock_that_keeps_time_changes_nothing(schedule: Schedule, clock: Clock) -> None:
    """Small corrections, as NTP makes them, are no jump."""
    schedule.start([Timetable("a", every_s=HOUR)], {"a": clock()})
    before = schedule.next_runs()
    clock.jump(1.5)
    assert 0.0 == schedule.check_clock()
    clock.jump(-1.5)
    assert 0.0 == schedule.check_clock()
    assert before == schedule.next_runs()


def test_heavy_jobs_run_one_at_a_time_and_hold_nobody_up(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """While a backup lasts, a verify waits and the light jobs run on."""
    jobs.gates = {"backup": threading.Event()}
    heavy = [Timetable(name, HOUR, heavy=True) for name in ("backup", "verify")]
    schedule.start(heavy, {"verify": clock()})
    jobs.wait_for("backup", 1)
    schedule.retry("verify", 0.0)
    schedule.reload([*heavy, *(Timetable(name, HOUR) for name in ("sweep", "clean", "usage"))], {})
    for name in ("sweep", "clean", "usage"):
        jobs.wait_for(name, 1)
    assert 0 == jobs.runs["verify"]
    jobs.gates["backup"].set()
    jobs.wait_for("verify", 1)


def test_with_little_memory_jobs_take_turns(jobs: Jobs, clock: Clock) -> None:
    """One at a time, whatever they are; each comes to its turn."""
    schedule = Schedule(jobs, Drive(clock), in_turn=True)
    names = ("sweep", "clean", "backup", "verify")
    jobs.gates = {name: threading.Event() for name in names}
    try:
        schedule.start([Timetable(name, HOUR, heavy=name in ("backup", "verify")) for name in names], {})
        for turn in range(1, 5):
            until = time.monotonic() + 3.0
            while jobs.running.total() < 1 or jobs.runs.total() < turn:
                assert time.monotonic() < until
            settle()
            assert (1, turn) == (jobs.running.total(), jobs.runs.total())
            next(jobs.gates[name] for name in names if jobs.running[name]).set()
    finally:
        for gate in jobs.gates.values():
            gate.set()
        schedule.stop()


def test_a_job_that_failed_is_tried_again_sooner(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """A retry brings the next run forward, and never puts it off."""
    schedule.start([Timetable("backup", DAY)], {"backup": clock()})
    schedule.retry("backup", HOUR)
    assert HOUR >= schedule.next_runs()["backup"] - clock()
    schedule.retry("backup", 2 * HOUR)
    assert HOUR >= schedule.next_runs()["backup"] - clock()
    schedule.retry("backup", 0.0)
    jobs.wait_for("backup", 1)
    schedule.retry("gone", 0.0)


def test_reload_keeps_the_times_of_unchanged_jobs(schedule: Schedule, clock: Clock) -> None:
    """Only the job whose table changed is planned anew; one that is gone runs no more, a new one begins."""
    kept, changed, dropped = (Timetable(name, every_s=HOUR) for name in ("kept", "changed", "dropped"))
    began = clock()
    successes = {"kept": began - 600, "changed": began - 600, "dropped": began - 600, "new": began - 60}
    schedule.start([kept, changed, dropped], successes)
    before = schedule.next_runs()
    clock.jump(2.0)
    schedule.reload([kept, Timetable("changed", every_s=2 * HOUR), Timetable("new", every_s=HOUR)], successes)
    upcoming = schedule.next_runs()
    assert {"kept", "changed", "new"} == set(upcoming)
    assert before["kept"] == upcoming["kept"]
    assert began - 600 + 2 * HOUR == pytest.approx(upcoming["changed"], abs=0.01)
    assert began - 60 + HOUR == pytest.approx(upcoming["new"], abs=0.01)


def test_a_shorter_interval_after_a_reload_catches_up_at_once(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """A job that last did well ten minutes ago runs now when its interval becomes five minutes."""
    schedule.start([Timetable("a", every_s=HOUR)], {"a": clock() - 600})
    schedule.reload([Timetable("a", every_s=300.0)], {"a": clock() - 600})
    jobs.wait_for("a", 1)


def test_jitter_delays_each_run_within_its_bounds(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """Forty jobs with a minute of jitter run next between one interval and a minute more from now, not all at once."""
    names = [f"job{number}" for number in range(40)]
    began = clock()
    schedule.start([Timetable(name, every_s=HOUR, jitter_s=60.0) for name in names], {})
    for name in names:
        jobs.wait_for(name, 1)
    settle()
    delays = [at - began - HOUR for at in schedule.next_runs().values()]
    assert min(delays) > -0.01
    assert max(delays) < 60.0 + clock() - began
    assert max(delays) - min(delays) > 10.0


def test_a_job_that_raises_runs_again(clock: Clock) -> None:
    """What goes wrong in one run does not end the schedule."""
    jobs = Jobs()

    def run(name: str) -> None:
        jobs(name)
        raise OSError("no space left")

    schedule = Schedule(run, Drive(clock))
    try:
        schedule.start([Timetable("a", every_s=60.0)], {})
        jobs.wait_for("a", 1)
        settle()
        clock.jump(61.0)
        schedule.check_clock()
        jobs.wait_for("a", 2)
        assert schedule.alive()
    finally:
        schedule.stop()


def test_a_dead_scheduler_is_not_alive(jobs: Jobs, clock: Clock) -> None:
    """`alive` goes by what really moves: a minute after the scheduler's thread stopped turning it is false."""
    later = 0.0
    schedule = Schedule(jobs, Drive(clock, lambda: time.monotonic() + later))
    schedule.start([Timetable("a", every_s=HOUR)], {})
    jobs.wait_for("a", 1)
    assert schedule.alive()
    schedule.stop()
    later = 61.0
    assert not schedule.alive()


def test_nothing_starts_after_stop(schedule: Schedule, jobs: Jobs, clock: Clock) -> None:
    """A job that becomes due after the stop stays where it is."""
    schedule.start([Timetable("a", every_s=60.0)], {"a": clock()})
    schedule.stop()
    clock.jump(HOUR)
    settle()
    assert 0 == jobs.runs["a"]


def test_a_stop_while_a_job_starts_is_a_quiet_one(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that is starting a job of one run when everything stops ends in peace."""
    starting = threading.Event()

    class Slow(ThreadPoolExecutor):  # type: ignore[misc]  # apscheduler has no types
        def submit_job(self, job: Any, run_times: list[datetime]) -> None:
            if job.id == "once soon":
                starting.set()
                time.sleep(0.2)
            super().submit_job(job, run_times)

    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    schedule = Schedule(jobs, Drive(threads=Slow))
    schedule.start([], {})
    schedule.soon("once", 0.0)
    assert starting.wait(3.0)
    schedule.stop()
    ends = time.monotonic() + 3.0
    while any(thread.name == "APScheduler" for thread in threading.enumerate()):
        assert time.monotonic() < ends
        time.sleep(0.002)
    assert [] == died


def test_jobs_of_one_timetable_have_the_same_longest_pause(schedule: Schedule, clock: Clock) -> None:
    """However often it is asked for."""
    schedule.start([Timetable("a", every_s=DAY), Timetable("b", every_s=DAY)], {"a": clock(), "b": clock()})
    assert {"a": DAY, "b": DAY} == schedule.gaps_s() == schedule.gaps_s()


def test_before_the_start_nothing_comes_soon() -> None:
    """A save that is noticed while the daemon starts is for the first sweep."""
    schedule = Schedule(lambda _name: pytest.fail("it ran"))
    schedule.soon("templates", 0.0)
    assert {} == schedule.next_runs()


def test_next_runs_before_the_start() -> None:
    """A status that is asked for too early has no runs to tell of."""
    assert {} == Schedule(lambda _name: None).next_runs()


def test_a_run_that_is_asked_for_comes_soon_and_once(schedule: Schedule, jobs: Jobs) -> None:
    """Asked for again and again it is put off; while it runs, it is run once more, and never beside itself."""
    schedule.start([], {})
    for _ in range(1000):
        schedule.soon("templates", 0.2)
    jobs.wait_for("templates", 1)
    jobs.gates["templates"] = threading.Event()
    schedule.soon("templates", 0.0)
    jobs.wait_for("templates", 2)
    for _ in range(1000):
        schedule.soon("templates", 0.0)
    jobs.gates["templates"].set()
    jobs.wait_for("templates", 3)
    time.sleep(0.3)
    assert (3, 1) == (jobs.runs["templates"], jobs.most_at_once["templates"])
    assert {} == schedule.next_runs()


def test_the_longest_time_between_two_runs(schedule: Schedule, clock: Clock) -> None:
    """Of an interval it is that; of working days it is the weekend, even where the clock is set forward or back."""
    weekdays, monthly = Timetable("b", cron="0 3 * * mon-fri"), Timetable("c", cron="0 3 1 * *")
    assert 300.0 == Timetable("a", 300.0, jitter_s=60.0).longest_gap_s(NOON)
    assert abs(weekdays.longest_gap_s(NOON) - 3 * DAY) <= HOUR
    assert abs(monthly.longest_gap_s(NOON) - 31 * DAY) <= HOUR
    schedule.start([weekdays, Timetable("a", DAY)], {"a": clock(), "b": clock()})
    assert {"a": DAY, "b": weekdays.longest_gap_s(NOON)} == schedule.gaps_s()
