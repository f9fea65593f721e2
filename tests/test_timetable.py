"""When jobs run, decided from times alone."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.settings import Settings
from symbiont_datad.settings_sections import Backup, Schedules, VectorDb
from symbiont_datad.timetable import Soon, Timetable, Trigger, put_off, timetables
from tests.time_machine import zone

HOUR = 3600.0
DAY = 24 * HOUR
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_an_interval_is_counted_from_the_last_success() -> None:
    """A job that did well twenty minutes ago runs forty minutes from now when it runs hourly."""
    table = Timetable("a", every_s=HOUR)
    assert NOON + timedelta(minutes=40) == table.due(NOON.timestamp() - 20 * 60, NOON)


def test_a_job_that_never_ran_is_due_at_once() -> None:
    """Neither an interval nor a cron expression makes the first run wait."""
    assert NOON == Timetable("a", every_s=DAY).due(None, NOON)
    assert NOON == Timetable("a", cron="15 3 * * *").due(None, NOON)
    assert NOON == Timetable("a").next_run(NOON)


def test_a_success_in_the_future_does_not_stall_a_job() -> None:
    """When the clock was wrong at the last success, the job runs now: the machine may never be on for an interval."""
    future = NOON.timestamp() + 10 * 365 * DAY
    assert NOON == Timetable("a", every_s=HOUR).due(future, NOON)
    assert NOON + timedelta(seconds=HOUR) == Timetable("a", every_s=HOUR).due(NOON.timestamp(), NOON)
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
        ("30 5 24 * fri", "2026-11-24T05:30"),
        ("30 5 1 * wed", "2026-11-25T05:30"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 0 */31 * mon", "2027-02-01T00:00"),
        ("0 0 * * */7", "2026-11-29T00:00"),
        ("0 13 * * 6/2", "2026-11-28T13:00"),
        ("0 13 * * 0-2", "2026-11-23T13:00"),
        ("0 0 13 * */5", "2026-12-13T00:00"),
        ("0 */12 * * *", "2026-11-24T00:00"),
        ("0 0 1 */12 *", "2027-01-01T00:00"),
        ("0 0 * * 7/1", "2026-11-29T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59"),
        ("0 0 * DEC Sun", "2026-12-06T00:00"),
        ("0 0 30/1 nov *", "2026-11-30T00:00"),
        ("0-59/59 13 * * *", "2026-11-23T13:00"),
        ("1,0 13 * * *", "2026-11-23T13:00"),
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


def in_berlin(cron: str, start: str, runs: int) -> list[str]:
    """The first runs (UTC) after a time (UTC) where local time is that of Berlin."""
    found, at = [], utc(start)
    with zone("Europe/Berlin"):
        for _ in range(runs):
            at = Timetable("a", cron=cron).next_run(at)
            found.append(f"{at:%m-%d %H:%M}")
    return found


def test_cron_through_the_missing_hour() -> None:
    """On the night when 02:30 does not exist in Berlin a job of 02:30 runs once, and the night after at its time."""
    expected = ["03-27 01:30", "03-28 01:30", "03-29 00:30", "03-30 00:30"]
    assert expected == in_berlin("30 2 * * *", "2027-03-26T12:00", 4)


def test_cron_through_the_repeated_hour() -> None:
    """On the night when 02:30 comes twice in Berlin a job of 02:30 runs once; one of every hour runs every hour."""
    expected = ["10-30 00:30", "10-31 00:30", "11-01 01:30", "11-02 01:30"]
    assert expected == in_berlin("30 2 * * *", "2027-10-29T12:00", 4)
    assert ["10-31 00:30", "10-31 01:30", "10-31 02:30"] == in_berlin("30 * * * *", "2027-10-30T23:45", 3)
    assert ["10-31 00:30", "10-31 01:30", "10-31 02:30"] == in_berlin("30 */1 31 10 *", "2027-10-30T23:45", 3)


def test_the_first_of_two_same_times_counts() -> None:
    """Asked between the two, a job of that time runs the next day."""
    assert ["11-01 01:30"] == in_berlin("30 2 * * *", "2027-10-31T00:45", 1)


def test_the_longest_gap_is_between_the_next_runs() -> None:
    """Of a table that runs twice a day it is the longer part of the day, and ten gaps are looked at."""
    assert 15 * HOUR == Timetable("a", cron="0 3,12 * * *").longest_gap_s(NOON)
    assert 23 * HOUR + 5 * 60 == Timetable("a", cron="*/5 0 * * *").longest_gap_s(utc("2026-11-24T00:09"))
    assert 5 * 60 == Timetable("a", cron="*/5 0 * * *").longest_gap_s(utc("2026-11-24T00:04"))


def test_light_and_heavy_jobs_have_threads_of_their_own() -> None:
    """A backup holds no sweep up."""
    assert ["default", "heavy"] == [Timetable("a", heavy=heavy).executor for heavy in (False, True)]


@pytest.mark.parametrize(
    ("table", "previous_s", "expected_s"),
    [
        (Timetable("a", every_s=60.0), None, 60.0),
        (Timetable("a", every_s=60.0), 0.0, 60.0),
        (Timetable("a", every_s=60.0), -59.0, 1.0),
        (Timetable("a", every_s=60.0), -60.0, 60.0),
        (Timetable("a", every_s=60.0), -1000.0, 60.0),
        (Timetable("a", every_s=60.0), 1.0, 60.0),
        (Timetable("a", cron="1 12 * * *"), None, 60.0),
        (Timetable("a", cron="1 12 * * *"), -DAY + 30.0, 60.0),
    ],
)
def test_a_run_counts_from_the_one_before_but_is_never_caught_up(
    table: Timetable, previous_s: float | None, expected_s: float
) -> None:
    """An interval counts from when the last run was due; where that is over, or the clock went back, from now."""
    previous = None if previous_s is None else NOON + timedelta(seconds=previous_s)
    assert NOON + timedelta(seconds=expected_s) == Trigger(table).get_next_fire_time(previous, NOON)


def test_jitter_puts_a_run_off_and_never_forward() -> None:
    """By up to so many seconds, and not always by the same."""
    trigger = Trigger(Timetable("a", every_s=60.0, jitter_s=5.0))
    found = {(trigger.get_next_fire_time(None, NOON) - NOON).total_seconds() for _ in range(100)}
    assert 60.0 <= min(found) < max(found) <= 65.0


def test_each_job_has_the_timetable_that_the_settings_say() -> None:
    """An interval or cron; what takes long is heavy; all have the same jitter."""
    settings = Settings(
        auto_save_interval=1.0,
        schedule=Schedules(rotation_interval=20.0, retention_interval=300.0, usage_interval=40.0, jitter=7.0),
        backup=Backup(schedule=50000.0, verify_schedule="15 3 * * *"),
        vector_db=VectorDb(optimize_schedule=600000.0, metadata_interval=700.0),
    )
    assert (
        Timetable("sweep", 1.0, None, 7.0),
        Timetable("rotate", 20.0, None, 7.0),
        Timetable("clean", 300.0, None, 7.0),
        Timetable("usage", 40.0, None, 7.0),
        Timetable("vectors", 700.0, None, 7.0),
        Timetable("backup", 50000.0, None, 7.0, heavy=True),
        Timetable("verify", None, "15 3 * * *", 7.0, heavy=True),
        Timetable("optimize", 600000.0, None, 7.0, heavy=True),
    ) == timetables(settings)


@pytest.mark.parametrize(
    ("known", "now", "after_s", "expected"),
    [
        (None, 100.0, 2.0, Soon(100.0, 102.0)),
        (Soon(100.0, 102.0), 102.0, 2.0, None),
        (Soon(100.0, 102.0), 100.4, 2.0, None),
        (Soon(100.0, 102.0), 100.5, 2.0, Soon(100.0, 102.5)),
        (Soon(100.0, 100.25), 100.0625, 0.25, None),
        (Soon(100.0, 100.25), 100.125, 0.25, Soon(100.0, 100.375)),
        (Soon(100.0, 119.0), 118.5, 2.0, Soon(100.0, 120.0)),
        (Soon(100.0, 150.0), 101.0, 2.0, None),
        (Soon(100.0, 150.0), 149.0, 2.0, None),
    ],
)
def test_asked_again_a_run_is_put_off(known: Soon | None, now: float, after_s: float, expected: Soon | None) -> None:
    """To so many seconds from now, as long as that is less than ten times as many after the first call.

    What is due, was put off further, or would hardly move stays as it is (None).
    """
    found = put_off(known, now, after_s)
    assert (expected or known) == found
    assert expected is not None or found is known


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
