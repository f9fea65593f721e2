"""Days in names, and those that are made ahead."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.retention.days import days_ahead, end_of_day, is_day


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2026-11-23", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-12-31.tar.zst", datetime(2027, 1, 1, tzinfo=UTC)),
        ("log-20240228T1200", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2026-13-01 2026-01-02", datetime(2026, 1, 3, tzinfo=UTC)),
        ("2026-02-30", None),
        ("today", None),
        ("120261123", None),
    ],
)
def test_a_name_tells_its_day(name: str, expected: datetime | None) -> None:
    """The day is over at midnight in UTC; what is no day of the calendar is none."""
    assert (None if expected is None else int(expected.timestamp()) * 10**9) == end_of_day(name)


def test_only_a_day_is_a_day() -> None:
    """Directories with more in their names are users' own."""
    assert [True, False, False, False] == [is_day(name) for name in ("2026-11-23", "20261123", "2026-11-23x", "x")]


@given(
    at=st.integers(946_684_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    hours=st.integers(-12, 14),
)
def test_today_and_tomorrow_are_there_in_every_zone(at: datetime, hours: int) -> None:
    """Whatever zone an agent goes by, its today is there, and its tomorrow before it begins; never more than three."""
    zone = timezone(timedelta(hours=hours))
    local = at.astimezone(zone).date()
    made = days_ahead(at.timestamp(), zone)
    assert {local.isoformat(), (local + timedelta(days=1)).isoformat(), at.date().isoformat()} <= set(made)
    assert 2 <= len(made) <= 3
    midnight = datetime.combine(local + timedelta(days=1), datetime.min.time(), zone)
    assert midnight.date().isoformat() in days_ahead(midnight.timestamp() - 1, UTC)
