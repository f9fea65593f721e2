"""When jobs run, decided from times alone."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.timetable import Timetable, put_off

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
from symbiont_datad.timetable import Timetable
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
