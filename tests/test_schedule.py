"""When jobs run, on a wall clock that the tests set."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import apscheduler.schedulers.base
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.schedule import Drive, Schedule, Timetable, put_off

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


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Timetables


def test_an_interval_is_counted_from_the_last_success() -> None:
    """A job that did well twenty minutes ago runs forty minutes from now when it runs hourly."""
    table = Timetable("a", every_s=HOUR)
    assert NOON + timedelta(minutes=40) == table.due(NOON.timestamp() - 20 * 60, NOON)


def test_a_job_that_never_ran_is_due_at_once() -> None:
    """Neither an interval nor a cron expression makes the first run wait."""
    assert NOON == Timetable("a", every_s=DAY).due(None, NOON)
    assert NOON == Timetable("a", cron="15 3 * * *").due(None, NOON)


def test_a_success_in_the_future_does_not_stall_a_job() -> None:
    """When the clock was wrong at the last success, the job runs now: the machine may never be on for an interval."""
    future = NOON.timestamp() + 10 * 365 * DAY
    assert NOON == Timetable("a", every_s=HOUR).due(future, NOON)
    assert NOON == Timetable("a", cron="15 3 * * *").due(future, NOON)


@given(
    every_s=st.floats(1.0, 400 * DAY),
    age_s=st.floats(0.0, 4000 * DAY),
)
def test_an_interval_is_kept_or_caught_up_at_once(every_s: float, age_s: float) -> None:
    """However long ago a job last ran, its next run is one interval after that, or now when that is over."""
    due = Timetable("a", every_s=every_s).due(NOON.timestamp() - age_s, NOON)
    assert max(0.0, every_s - age_s) == pytest.approx((due - NOON).total_seconds(), abs=1e-3)


@pytest.mark.parametrize(
    ("cron", "first"),
    [
        ("15 3 * * *", "2026-11-24T03:15"),
        ("0 12 * * *", "2026-11-24T12:00"),
        ("*/15 * * * *", "2026-11-23T12:15"),
        ("*/70 * * * *", "2026-11-23T13:00"),
        ("5/20 * * * *", "2026-11-23T12:05"),
        ("0 5 * * sun", "2026-11-29T05:00"),
        ("0 5 * * 0", "2026-11-29T05:00"),
        ("0 5 * * 7", "2026-11-29T05:00"),
        ("0 5 * * 1", "2026-11-30T05:00"),
        ("0 5 * * 5-7", "2026-11-27T05:00"),
        ("0 5 * * sun-tue", "2026-11-24T05:00"),
        ("0 5 * * */3", "2026-11-25T05:00"),
        ("0 5 * * mon-fri/2", "2026-11-25T05:00"),
        ("0 0 * jan-jun/2 *", "2027-01-01T00:00"),
        ("0 0 1 * mon", "2026-11-30T00:00"),
        ("0 0 1 * fri", "2026-11-27T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 0 */31 * mon", "2027-02-01T00:00"),
    ],
)
def test_a_cron_expression_means_what_cron_says(cron: str, first: str) -> None:
    """Weekdays count from Sunday, names take steps, steps may exceed the range, day and weekday are either-or
    (crontab(5)); 2026-11-23 is a Monday."""
    assert utc(first) == Timetable("a", cron=cron).next_run(NOON)


def test_a_day_that_never_comes_is_far_away() -> None:
    """30 February is no error while the daemon runs; the job does not run in this century."""
    assert Timetable("a", cron="0 0 30 2 *").next_run(NOON).year > 2100


fields = st.tuples(
    st.sampled_from(["*", "0", "59", "*/7", "3-40/9", "1,2,50"]),
    st.sampled_from(["*", "0", "23", "*/5", "2", "1-3"]),
    st.sampled_from(["*", "1", "31", "*/10", "10-20"]),
    st.sampled_from(["*", "1", "feb", "6-12/3"]),
    st.sampled_from(["*", "0", "7", "mon-fri", "*/2", "6"]),
)


@given(fields, st.floats(9e8, 3.8e9).map(lambda at: datetime.fromtimestamp(at, UTC)))
def test_cron_always_moves_on(parts: tuple[str, ...], start: datetime) -> None:
    """The next run is later than the time it is asked for, by any expression and at any time."""
    table = Timetable("a", cron=" ".join(parts))
    first = table.next_run(start)
    assert start < first < table.next_run(first)


_IN_BERLIN = """
import sys
from datetime import UTC, datetime
from symbiont_datad.schedule import Timetable
at = datetime.fromisoformat(sys.argv[2]).replace(tzinfo=UTC)
for _ in range(int(sys.argv[3])):
    at = Timetable("a", cron=sys.argv[1]).next_run(at)
    print(at.strftime("%m-%d %H:%M"))
"""


def in_berlin(cron: str, start: str, runs: int) -> list[str]:
    """The first runs (UTC) after a time (UTC) where local time is that of Berlin."""
    command = [sys.executable, "-c", _IN_BERLIN, cron, start, str(runs)]
    environ = {**os.environ, "TZ": "Europe/Berlin"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()


def test_cron_through_the_missing_hour() -> None:
    """On the night when 02:30 does not exist in Berlin a job of 02:30 runs once, and the night after at its time."""
    expected = ["03-27 01:30", "03-28 01:30", "03-29 00:30", "03-30 00:30"]
    assert expected == in_berlin("30 2 * * *", "2027-03-26T12:00", 4)


def test_cron_through_the_repeated_hour() -> None:
    """On the night when 02:30 comes twice in Berlin a job of 02:30 runs once; one of every hour runs every hour."""
    expected = ["10-30 00:30", "10-31 00:30", "11-01 01:30", "11-02 01:30"]
    assert expected == in_berlin("30 2 * * *", "2027-10-29T12:00", 4)
    assert ["10-31 00:30", "10-31 01:30", "10-31 02:30"] == in_berlin("30 * * * *", "2027-10-30T23:45", 3)


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


def test_a_run_is_put_off_but_not_for_ever() -> None:
    """Each call puts it off, to ten times the delay after the first at most; one that is due stays due."""
    first = put_off(None, 100.0, 2.0)
    assert 102.0 == first.due
    assert first is put_off(first, 100.1, 2.0)
    soon, now = first, 100.0
    while now < soon.due:
        now += 1.0
        soon = put_off(soon, now, 2.0)
    assert 120.0 == soon.due
    assert soon is put_off(soon, 130.0, 2.0)


def test_the_longest_time_between_two_runs(schedule: Schedule, clock: Clock) -> None:
    """Of an interval it is that; of working days it is the weekend, even where the clock is set forward or back."""
    weekdays, monthly = Timetable("b", cron="0 3 * * mon-fri"), Timetable("c", cron="0 3 1 * *")
    assert 300.0 == Timetable("a", 300.0, jitter_s=60.0).longest_gap_s(NOON)
    assert abs(weekdays.longest_gap_s(NOON) - 3 * DAY) <= HOUR
    assert abs(monthly.longest_gap_s(NOON) - 31 * DAY) <= HOUR
    schedule.start([weekdays, Timetable("a", DAY)], {"a": clock(), "b": clock()})
    assert {"a": DAY, "b": weekdays.longest_gap_s(NOON)} == schedule.gaps_s()
