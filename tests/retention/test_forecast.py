"""When the disk will be full: said of what fills steadily, not of what comes and goes, and not upset by a step."""

import random
from collections.abc import Callable, Mapping
from itertools import combinations
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.retention.forecast import OUTSIDE, Forecast, Series, forecast, trend
from tests.retention.making import DAY, NOW

GIB = float(1 << 30)
HOUR = 3600.0


def series(over_s: float, every_s: float, value: Callable[[float], float]) -> list[tuple[float, float]]:
    """Points up to NOW; `value` is asked with the seconds since the first one."""
    count = int(over_s / every_s)
    return [(NOW - over_s + number * every_s, value(number * every_s)) for number in range(count + 1)]


def seen(free: Series, used: Mapping[str, Series] | None = None) -> Forecast:
    """A forecast that is there."""
    found = forecast(free, used or {}, NOW)
    assert found is not None
    return found


def test_a_steady_writer_is_foreseen_and_named() -> None:
    """A GiB a day, 9 GiB left, four fifths of it logs/agents."""
    free = series(2 * DAY, 300, lambda t: 11 * GIB - t / DAY * GIB)
    used = {
        "logs/agents": series(2 * DAY, 300, lambda t: t / DAY * 0.8 * GIB),
        "prompts/cache": series(2 * DAY, 300, lambda t: 5 * GIB),
    }
    found = seen(free, used)
    assert 9 * DAY == pytest.approx(found.full_in_s, rel=0.001)
    assert ("logs/agents", DAY) == (found.mostly, found.over_s)
    assert 0.8 == pytest.approx(found.share, rel=0.01)


def test_what_is_not_in_the_tree_is_told_as_such() -> None:
    """When the disk fills faster than the tree grows, most of it is elsewhere."""
    free = series(2 * DAY, 300, lambda t: 11 * GIB - t / DAY * GIB)
    found = seen(free, {"logs": series(2 * DAY, 300, lambda t: t / DAY * 0.2 * GIB)})
    assert OUTSIDE == found.mostly
    assert 0.8 == pytest.approx(found.share, rel=0.01)


@pytest.mark.parametrize("at", [0.05, 0.25, 0.5, 0.6, 0.75, 0.875, 0.95])
@pytest.mark.parametrize("step", [40 * GIB, -40 * GIB])
def test_a_single_step_changes_little(at: float, step: float) -> None:
    """40 GiB copied there or removed at once, at whatever time: it still fills at a GiB a day."""
    first = 40 * GIB - step / 2
    free = series(7 * DAY, 3600, lambda t: first - t / DAY * GIB + (step if t > at * 7 * DAY else 0.0))
    found = seen(free)
    assert GIB / DAY == pytest.approx(found.rate, rel=0.05)


def test_what_comes_and_goes_is_no_danger() -> None:
    """A log that grows for two hours and is rotated away fills nothing, whatever part of the round it is in."""
    for phase in range(0, 7200, 900):
        free = series(30 * DAY, 900, lambda t, phase=phase: 10 * GIB - ((t + phase) % 7200) / 7200 * GIB)  # type: ignore[misc]
        found = forecast(free, {}, NOW)
        assert found is None or found.full_in_s > 100 * DAY or found.over_s <= 2 * HOUR


def test_an_hour_does_not_tell_of_next_month() -> None:
    """A short burst at the end of a quiet month would fill the disk in a week, if it went on; nobody knows."""
    quiet = series(30 * DAY, 3600, lambda t: 100 * GIB)
    burst = [(at, amount - max(at - (NOW - HOUR), 0.0) / HOUR * 0.5 * GIB) for at, amount in quiet]
    assert forecast(burst, {}, NOW) is None


def test_a_fast_writer_is_foreseen_soon() -> None:
    """Two hours of a GiB in five minutes, after a quiet month: full in an hour."""
    points = series(7 * DAY, 300, lambda t: 12 * GIB + 24 * GIB - max(t - 7 * DAY + 2 * HOUR, 0.0) / 300 * GIB)
    found = seen(points)
    assert HOUR == pytest.approx(found.full_in_s, rel=0.01)
    assert 2 * HOUR == found.over_s


@pytest.mark.parametrize(
    "free",
    [
        [],
        [(NOW, 1.0)],
        series(600, 300, lambda t: 1000 - t),
        series(2 * DAY, 300, lambda t: 5 * GIB),
        series(2 * DAY, 300, lambda t: 5 * GIB + t),
        [(NOW, 5.0 - number) for number in range(20)],
    ],
)
def test_where_nothing_is_known_nothing_is_said(free: Series) -> None:
    """Too few points, too short a time, a disk that rests or empties, points of one time."""
    assert forecast(free, {}, NOW) is None


@pytest.mark.parametrize(
    ("growth", "mostly", "share"),
    [
        ({"a": 0.5, "b": 0.25}, "a", 0.5),
        ({"a": 0.25, "b": 0.5, "c": -9.0, "d": 0.0}, "b", 0.5),
        ({"a": 0.375, "b": 0.375}, "b", 0.375),
        ({"a": 0.5}, "a", 0.5),
        ({"a": 0.25, "b": 0.25}, OUTSIDE, 0.5),
        ({"a": 4.0}, "a", 1.0),
        ({"a": -4.0}, OUTSIDE, 1.0),
        ({}, OUTSIDE, 1.0),
    ],
)
def test_what_grows_fastest_is_named(growth: dict[str, float], mostly: str, share: float) -> None:
    """Of what the disk loses, a byte a second, its part; a directory that shrinks or is unknown takes none of it."""
    free = series(2 * DAY, 300, lambda t: 5 * DAY - t)
    used: dict[str, Series] = {
        path: series(2 * DAY, 300, lambda t, rate=rate: 9 * DAY + t * rate)  # type: ignore[misc]
        for path, rate in growth.items()
    }
    found = seen(free, used | {"unknown": [(NOW, 0.0)]})
    assert Forecast(3 * DAY, 1.0, DAY, mostly, share) == found


@pytest.mark.parametrize(("late", "left", "hours", "over_s"), [(2.0, 72_000, 10, 2 * HOUR), (0.5, 18_000, 5, DAY)])
def test_the_soonest_end_counts(late: float, left: float, hours: float, over_s: float) -> None:
    """Of two hours in which it went faster than on the day, or of the day."""
    free = series(DAY, 300, lambda t: left + late * 2 * HOUR - min(t - 22 * HOUR, 0.0) - max(t - 22 * HOUR, 0.0) * late)
    found = seen(free)
    assert hours * HOUR == pytest.approx(found.full_in_s, rel=0.2)
    assert over_s == found.over_s


def test_two_hours_tell_of_twenty() -> None:
    """And of not a moment more."""
    assert 20 * HOUR == seen(series(2 * HOUR, 60, lambda t: 22 * HOUR - t)).full_in_s
    assert forecast(series(2 * HOUR, 60, lambda t: 22 * HOUR + 1 - t), {}, NOW) is None


def test_how_much_has_to_be_known() -> None:
    """Eight points over half of a span of time, its ends among them."""
    known = [(NOW - HOUR - number * HOUR / 7, 1000.0 * number) for number in range(8)][::-1]
    assert -7 * 1000 / HOUR == pytest.approx(trend(known, NOW - HOUR))
    assert -7 * 1000 / HOUR == pytest.approx(trend(known, NOW))
    assert trend(known, NOW + 0.001) is None
    assert trend(known[1:], NOW - HOUR) is None
    assert trend([(known[0][0] + 0.001, known[0][1]), *known[1:]], NOW) is None


def by_definition(points: Series) -> float:
    """The middle one of the medians of all slopes: of all points, the newer half and the newest quarter."""

    def median_slope(some: Series) -> float:
        if len(some) > 48:
            some = [some[round(number * (len(some) - 1) / 47)] for number in range(48)]
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(some, 2) if b[0] > a[0]]
        return median(slopes or [0.0])

    return sorted(map(median_slope, (points, points[len(points) // 2 :], points[-(len(points) // 4) :])))[1]


@pytest.mark.parametrize("seed", range(12))
def test_the_rate_is_a_median_of_slopes(seed: int) -> None:
    """Whatever the points are, some of them of one time; at most 48 of each part count, evenly chosen."""
    dice = random.Random(seed)
    count = dice.choice([8, 9, 11, 21, 48, 49, 75, 200])
    times = sorted(NOW - dice.randrange(0, int(2 * HOUR), 60) for _ in range(count - 2))
    points = [(at, dice.uniform(0, 1000)) for at in (NOW - 2 * HOUR, *times, NOW)]
    assert by_definition(points) == trend(points, NOW)


def test_points_of_one_time_have_no_slope() -> None:
    """A newest quarter that was seen at one time tells nothing of a rate."""
    points = [(NOW - HOUR * number / 4, -float(number)) for number in range(6, 0, -1)] + [(NOW, 5.0), (NOW, 9.0)]
    assert by_definition(points) == trend(points, NOW)


def test_a_trend_is_of_the_longest_time_up_to_a_week() -> None:
    """A month tells of other times than a week; where less is known, a day or two hours have to do."""
    bend = series(30 * DAY, 3600, lambda t: max(t - 22 * DAY, 0.0))
    assert 1.0 == pytest.approx(trend(bend, NOW))
    last_day = series(8 * DAY, 1800, lambda t: max(t - 7 * DAY, 0.0))
    found = trend(last_day, NOW)
    assert found is not None
    assert 0.0 < found < 0.1
    assert 2.0 == pytest.approx(trend(series(DAY, 600, lambda t: 2 * t), NOW))
    assert -3.0 == pytest.approx(trend(series(2 * HOUR, 60, lambda t: -3 * t), NOW))
    assert trend(series(600, 60, lambda t: t), NOW) is None
    assert trend([], NOW) is None


def test_noise_does_not_hide_the_trend() -> None:
    """With every fifth point wildly wrong the rate is still right."""
    noise = random.Random(1)
    free = series(
        7 * DAY,
        1800,
        lambda t: 60 * GIB - t / DAY * GIB + (noise.uniform(-30, 30) * GIB if noise.random() < 0.2 else 0.0),
    )
    assert GIB / DAY == pytest.approx(seen(free).rate, rel=0.25)


@given(
    st.lists(st.tuples(st.floats(-30 * DAY, DAY), st.floats(0, 1e15)), max_size=60),
    st.dictionaries(st.sampled_from(["a", "b", ""]), st.lists(st.tuples(st.floats(-DAY, 0), st.floats(0, 1e12)))),
)
def test_any_points_will_do(points: list[tuple[float, float]], used: dict[str, list[tuple[float, float]]]) -> None:
    """Whatever the ledger has, an answer comes; what is said is in the future, and a share is a share."""
    found = forecast(
        sorted((NOW + at, amount) for at, amount in points),
        {path: sorted((NOW + at, amount) for at, amount in some) for path, some in used.items()},
        NOW,
    )
    assert found is None or (found.full_in_s >= 0 and found.rate > 0 and 0 <= found.share <= 1)
