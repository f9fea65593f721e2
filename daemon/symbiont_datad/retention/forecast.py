"""When a disk will be full, from how its free space went so far, and what fills it. Pure.

The rate is a median of slopes (H. Theil, "A rank-invariant method of linear and polynomial regression analysis", 1950;
P. K. Sen, 1968): a few odd points don't move it. A step that is made once (somebody moves a large file away) spoils the
median only where it lies in the middle of the points; so it is taken of all, of the newer half and of the newest
quarter, and the middle one of the three counts. Space that goes and comes back (logs that fill and are rotated) has no
slope over several rounds.

Several spans of time are looked at, and a short one says nothing of a far future: what two hours tell holds for a day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Series = Sequence[tuple[float, float]]
"""Points in order of time: seconds since the epoch, and an amount."""

_HOUR, _DAY = 3600.0, 86_400.0
_SPANS_S = (2 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY)
LOOKS_BACK_S = _SPANS_S[-1]
"""So far back points are looked at."""
_REACH = 10
"""So many times a span of time in the past may tell of the future."""
_FEWEST, _MOST = 8, 48
"""Points of a span: with fewer nothing is said, more are thinned out (each pair of them is looked at)."""
_COVERED = 0.5  # of a span, by the points there are
_TREND_S = 7 * _DAY
OUTSIDE = ".."
"""Stands for what fills the disk without being in the tree; `""` is what lies right in the root."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When nothing will be free any more, `full_in_s` seconds from now, and why.

    `rate` is what is lost in a second (bytes, or inodes), as seen over the last `over_s` seconds. `mostly` is the
    directory that takes the largest part of it, `share` (0 to 1) how much; `OUTSIDE` where that is not in the tree.
    """

    full_in_s: float
    rate: float
    over_s: float
    mostly: str
    share: float


def forecast(free: Series, used: Mapping[str, Series], now: float) -> Forecast | None:
    """The soonest end that the points tell of; None when the disk is not filling up, or that can't be said yet.

    `free`: what the disk had free. `used`: what each directory of the tree held. `now` in seconds since the epoch.
    """
    found: list[Forecast] = []
    for span in _SPANS_S:
        loss = _slope(free, now, span)
        if loss is None or loss >= 0:
            continue
        rate = -loss
        full_in = free[-1][1] / rate
        if full_in <= _REACH * span:
            found.append(Forecast(full_in, rate, span, *_largest(used, rate, now, span)))
    return min(found, key=lambda one: one.full_in_s, default=None)


def trend(series: Series, now: float) -> float | None:
    """What an amount gains in a second, as seen over the longest time up to a week that is known well enough."""
    found = (_slope(series, now, span) for span in sorted(_SPANS_S, reverse=True) if span <= _TREND_S)
    return next((slope for slope in found if slope is not None), None)


def _largest(used: Mapping[str, Series], rate: float, now: float, span: float) -> tuple[str, float]:
    """What grows fastest, and its part of the rate."""
    slopes = {path: _slope(series, now, span) for path, series in used.items()}
    growth = {path: slope for path, slope in slopes.items() if slope is not None and slope > 0}
    outside = rate - sum(growth.values())
    path = max(growth, key=lambda path: (growth[path], path), default=OUTSIDE)
    if path == OUTSIDE or outside > growth[path]:
        return OUTSIDE, outside / rate
    return path, min(growth[path] / rate, 1.0)


def _slope(series: Series, now: float, span: float) -> float | None:
    """What changes in a second over a span of time; None when too little is known of it."""
    points = [point for point in series if now - span <= point[0] <= now]
    if len(points) < _FEWEST or points[-1][0] - points[0][0] < span * _COVERED:
        return None
    parts = (points, points[len(points) // 2 :], points[-(len(points) // 4) :])
    return median(median(_slopes(_thinned(part))) for part in parts)


def _slopes(points: Series) -> list[float]:
    return [
        (y2 - y1) / (x2 - x1) for number, (x1, y1) in enumerate(points) for x2, y2 in points[number + 1 :] if x2 > x1
    ] or [0.0]


def _thinned(points: Series) -> Series:
    """At most `_MOST` points, evenly chosen, the first and the last among them."""
    if len(points) <= _MOST:
        return points
    step = (len(points) - 1) / (_MOST - 1)
    return [points[round(number * step)] for number in range(_MOST)]
