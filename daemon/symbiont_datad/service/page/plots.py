"""Plots as SVG, drawn on the server: no script, no style of their own, and each with its figures in words.

All are `_WIDTH` units wide; what is drawn has a class, and the page's style gives that its colour.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from symbiont_datad.ledger_schema import Run, SnapshotRow, SpacePoint, UsagePoint
from symbiont_datad.quantities import format_duration, format_size, spell_duration
from symbiont_datad.retention.forecast import Forecast
from symbiont_datad.service.page.markup import Markup, joined, tag
from symbiont_datad.status_history import DAYS, History

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 480.0, 74.0, 10.0, 10.0, 26.0
_HEIGHT = 210.0
_POINTS = 160
"""Points of a curve at most: more are not seen."""
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_STEPS = (5 * _MINUTE, 15 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY)
COLORS = 6
"""Colours for categories; the last one is for all others."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a time and an amount are drawn."""

    begin: float
    end: float
    most: float
    height: float = _HEIGHT

    def x(self, at: float) -> float:
        share = (at - self.begin) / ((self.end - self.begin) or 1.0)
        return round(_LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, amount: float) -> float:
        share = min(max(amount / (self.most or 1.0), 0.0), 1.0)
        return round(self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM), 1)

    def axes(self, steps: Iterable[float], spell: str = "bytes") -> Markup:
        """Lines and labels of the amounts, and of the times."""
        lines = []
        for amount in steps:
            y = self.y(amount)
            lines.append(tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
            text = format_size(amount) if spell == "bytes" else f"{amount:,.0f}"
            lines.append(tag("text", text, class_="label end", x=_LEFT - 6, y=y + 4.5))
        return joined([*lines, self.times()])

    def times(self) -> Markup:
        """Marks and labels of round times, in UTC."""
        step = next((one for one in _STEPS if (self.end - self.begin) / one <= 5), _STEPS[-1])
        first = math.ceil(self.begin / step) * step
        foot = self.height - _BOTTOM
        lines = []
        for number in range(int((self.end - first) // step) + 1):
            at = first + number * step
            x = self.x(at)
            text = f"{datetime.fromtimestamp(at, UTC):{'%H:%M' if step < _DAY else '%-d %b'}}"
            lines.append(tag("line", class_="grid", x1=x, x2=x, y1=foot, y2=foot + 4))
            lines.append(_label(text, x, self.height - 8))
        return joined(lines)


def _label(text: str, x: float, y: float) -> Markup:
    """A label under a mark, within the picture where that is at its edge."""
    return tag("text", text, class_="label mid", x=min(x, _WIDTH - 4.2 * len(text)), y=y)


def _plot(name: str, title: str, told: str, *content: Markup, height: float = _HEIGHT) -> Markup:
    """An image with what it shows in words."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", told, id=f"{name}-told"),
        *content,
        viewBox=f"0 0 {_WIDTH:g} {height:g}",
        role="img",
        aria_labelledby=f"{name}-title {name}-told",
    )


def usage_plot(points: Sequence[UsagePoint], trends: Mapping[str, float], now: float) -> Markup:
    """What each category held, one upon the other, and where that leads at the pace of late."""
    at: dict[float, dict[str, int]] = {}
    for point in points:
        at.setdefault(point.at, {})[point.category] = point.bytes
    times = _thinned(sorted(at))
    if len(times) < 2:
        return tag("p", "Not enough was measured yet.", class_="quiet")
    order = categories(points)
    ahead = (times[-1] - times[0]) * 0.15 if trends else 0.0
    last = sum(at[times[-1]].values())
    slope = sum(trends.values())
    then = max(last + slope * ahead, 0.0)
    frame = _Frame(times[0], times[-1] + ahead, 1.08 * max(then, *(sum(at[time].values()) for time in times)))
    below = [0.0] * len(times)
    areas = []
    for number, category in enumerate(order):
        above = [low + at[time].get(category, 0) for low, time in zip(below, times, strict=True)]
        upper = [f"{frame.x(time):g},{frame.y(high):g}" for time, high in zip(times, above, strict=True)]
        lower = [f"{frame.x(time):g},{frame.y(low):g}" for time, low in zip(times, below, strict=True)]
        areas.append(tag("polygon", points=" ".join([*upper, *reversed(lower)]), class_=f"area {color(number)}"))
        below = above
    line = tag(
        "line", class_="ahead", x1=frame.x(times[-1]), y1=frame.y(last), x2=frame.x(times[-1] + ahead), y2=frame.y(then)
    )
    told = f"{format_size(last)} now, from {format_size(sum(at[times[0]].values()))} {_ago(times[0], now)}; "
    told += (
        f"{format_size(then)} in {format_duration(ahead)} at the pace of late." if ahead else "no pace is known yet."
    )
    lines = [line] if ahead else []
    return _plot("usage", "Usage over time by category", told, frame.axes(_amounts(frame.most)), *areas, *lines)


def categories(points: Sequence[UsagePoint]) -> list[str]:
    """The categories in the order in which they are drawn: the largest first, by the newest point."""
    newest = {point.category: point.bytes for point in points}
    return sorted(newest, key=lambda name: (-newest[name], name))


def color(number: int) -> str:
    """The class of the colour of a category, by its place in the order."""
    return f"c{min(number, COLORS - 1)}"


def space_plot(points: Sequence[SpacePoint], full: Forecast | None, now: float) -> Markup:
    """What was free, and, where it is running out, until when."""
    times = _thinned([point.at for point in points])
    if len(times) < 2:
        return tag("p", "Not enough was measured yet.", class_="quiet")
    by_time = {point.at: point.free_bytes for point in points}
    span = times[-1] - times[0]
    ahead = min(full.full_in_s, max(span, _DAY)) if full is not None else 0.0
    frame = _Frame(times[0], times[-1] + ahead, 1.08 * max(by_time[time] for time in times))
    curve = tag(
        "polyline", class_="curve", points=" ".join(f"{frame.x(time):g},{frame.y(by_time[time]):g}" for time in times)
    )
    left = by_time[times[-1]]
    told = f"{format_size(left)} are free now; {format_size(by_time[times[0]])} were {_ago(times[0], now)}."
    lines = []
    if full is not None:
        then = max(left - full.rate * ahead, 0.0)
        place = {"x1": frame.x(times[-1]), "y1": frame.y(left), "x2": frame.x(times[-1] + ahead), "y2": frame.y(then)}
        lines.append(tag("line", class_="ahead", **place))
        told += f" Nothing will be in {format_duration(full.full_in_s)}, at the pace of late."
    return _plot("space", "Free space over time", told, frame.axes(_amounts(frame.most)), curve, *lines)


_AGES = (10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 365 * _DAY)


def snapshots_plot(rows: Sequence[SnapshotRow], now: float) -> Markup:
    """Each snapshot by its age: what was just made is on the right, and a year is as wide as an hour."""
    if not rows:
        return tag("p", "There is no snapshot yet.", class_="quiet")
    kinds = sorted({row.tag for row in rows})
    oldest = max(now - rows[0].at, _HOUR)
    height = 24.0 * len(kinds) + _TOP + _BOTTOM

    def x(age_s: float) -> float:
        scale = math.log(max(age_s, _MINUTE) / _MINUTE) / math.log(oldest * 1.1 / _MINUTE)
        return round(_WIDTH - _RIGHT - 8 - scale * (_WIDTH - _LEFT - _RIGHT - 16), 1)

    marks = []
    for number, kind in enumerate(kinds):
        y = _TOP + 24.0 * number + 12
        marks.append(tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        marks.append(tag("text", kind or "other", class_="label end", x=_LEFT - 6, y=y + 4.5))
        marks += [
            tag(
                "circle",
                tag("title", f"{row.tag or 'snapshot'} {row.id[:8]}, {_ago(row.at, now)}, {format_size(row.bytes)}"),
                class_=f"mark {color(number)}",
                cx=x(now - row.at),
                cy=y,
                r=5,
            )
            for row in rows
            if row.tag == kind
        ]
    for age in _AGES:
        if age <= oldest:
            marks.append(_label(f"{spell_duration(age)} ago", x(age), height - 8))
    each = [f"{sum(row.tag == kind for row in rows):,} {kind or 'other'}" for kind in kinds]
    told = f"{', '.join(each)}; the newest was made {_ago(rows[-1].at, now)}, the oldest {_ago(rows[0].at, now)}."
    return _plot("snapshots", "Snapshots by age", told, *marks, height=height)


_CELL_S = 900.0
_WORST = ("failed", "interrupted", "left", "done")


def jobs_plot(runs: Sequence[Run], now: float) -> Markup:
    """The runs of a day: a mark for each quarter of an hour in which a job ran, by the worst of its ends."""
    if not runs:
        return tag("p", "No job ran in the last day.", class_="quiet")
    jobs = sorted({run.job for run in runs})
    height = 24.0 * len(jobs) + _TOP + _BOTTOM
    frame = _Frame(now - _DAY, now, 1.0, height)
    marks = []
    for number, job in enumerate(jobs):
        y = _TOP + 24.0 * number + 12
        marks.append(tag("text", job, class_="label end", x=_LEFT - 6, y=y + 4.5))
        marks.append(tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        for first, last, outcome in _stretches([run for run in runs if run.job == job], now):
            tall = 18.0 if outcome == "failed" else 10.0
            left = frame.x(first)
            width = max(frame.x(last) - left - 0.6, 1.0)
            marks.append(tag("rect", class_=f"run {outcome}", x=left, y=y - tall / 2, width=width, height=tall))
    failed = sum(run.outcome == "failed" for run in runs)
    told = f"{len(runs):,} runs in the last day, of which {f'{failed:,}' if failed else 'none'} failed."
    return _plot("jobs", "Runs of jobs in the last day", told, *marks, frame.times(), height=height)


def _stretches(runs: Sequence[Run], now: float) -> list[tuple[float, float, str]]:
    """Quarters of an hour with runs, as begin, end and the worst outcome; those alike that touch are one."""
    worst: dict[int, str] = {}
    for run in runs:
        cell = int((run.started_at - now) // _CELL_S)
        outcome = run.outcome if run.outcome in _WORST else "done"
        worst[cell] = min(outcome, worst.get(cell, "done"), key=_WORST.index)
    found: list[tuple[float, float, str]] = []
    for cell, outcome in sorted(worst.items()):
        begin, end = now + cell * _CELL_S, now + (cell + 1) * _CELL_S
        if found and found[-1][2] == outcome and abs(found[-1][1] - begin) < 1.0:
            begin = found.pop()[0]
        found.append((begin, end, outcome))
    return found


def days_plot(found: History, now: float) -> Markup:
    """Repairs and removals on each day of a month, each with a scale of its own."""
    today = int(now // _DAY)
    days = range(today - DAYS + 1, today + 1)
    rows = (("repairs", found.repairs or {}, "c1"), ("removals", found.removals or {}, "c0"))
    content = []
    for number, (name, counts, shade) in enumerate(rows):
        most = max((counts.get(day, 0) for day in days), default=0)
        base = _TOP + 76.0 * (number + 1) - 8
        content.append(tag("text", name, class_="label end", x=_LEFT - 6, y=base - 42))
        content.append(tag("text", f"up to {most:,}", class_="label end", x=_LEFT - 6, y=base - 24))
        content.append(tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base))
        wide = (_WIDTH - _LEFT - _RIGHT) / DAYS
        for place, day in enumerate(days):
            count = counts.get(day, 0)
            if count:
                tall = max(round(60.0 * count / most, 1), 2.0)
                when = f"{datetime.fromtimestamp(day * _DAY, UTC):%Y-%m-%d}"
                content.append(
                    tag(
                        "rect",
                        tag("title", f"{when}: {count:,} {name}"),
                        class_=f"bar {shade}",
                        x=round(_LEFT + place * wide + 1, 1),
                        y=base - tall,
                        width=round(wide - 2, 1),
                        height=tall,
                    )
                )
    height = _TOP + 152.0 + _BOTTOM
    frame = _Frame((today - DAYS + 1) * _DAY, (today + 1) * _DAY, 1.0, height)
    sums = {name: sum(counts.get(day, 0) for day in days) for name, counts, _ in rows}
    told = f"{sums['repairs']:,} repairs and {sums['removals']:,} removals in {DAYS} days."
    return _plot("days", "Repairs and removals per day", told, *content, frame.times(), height=height)


def bar(share: float, number: int) -> Markup:
    """A bar of a table; its figures stand beside it."""
    return tag(
        "svg",
        tag("rect", class_=color(number), width=round(100 * min(max(share, 0.0), 1.0), 1), height=10),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="meter",
        aria_hidden="true",
    )


def _amounts(most: float) -> list[float]:
    """Up to five round amounts of bytes, from 0 up to `most`."""
    unit = 1.0
    while unit * 1024 <= most / 2:
        unit *= 1024
    step = next((unit * one for one in (1, 2, 5, 10, 20, 50, 100, 200, 500) if most / (unit * one) <= 4.5), unit * 500)
    return [step * number for number in range(int(most // step) + 1)]


def _thinned(times: Sequence[float]) -> Sequence[float]:
    if len(times) <= _POINTS:
        return times
    step = (len(times) - 1) / (_POINTS - 1)
    return [times[round(number * step)] for number in range(_POINTS)]


def _ago(at: float, now: float) -> str:
    return f"{format_duration(max(now - at, 0.0))} ago"
