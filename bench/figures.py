"""What a benchmark has measured, as plain data: what the page is made of, and how two tools compare.

A script prints for people, and hands the same to `keep`. Less is better in every line.
"""

import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

FILE = "DATAD_BENCH_FIGURES"
"""The variable that names the file which `keep` writes; where it is not set nothing is kept."""
_BLOCKS = 10
_EVEN = 0.95, 1.05


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was measured, with each tool that did it: its figures round by round.

    `ours` are our own ways, the first one is compared; `floors` are no tools that somebody would use instead, but the
    least that the work can take. All others are peers. `size`: of how many files, where it is asked how that grows.
    """

    what: str
    unit: str
    values: Mapping[str, Sequence[float]]
    ours: Sequence[str] = ("ours",)
    floors: Sequence[str] = ()
    size: int = 0

    @property
    def peers(self) -> list[str]:
        """Who is neither ours nor a floor."""
        return [who for who in self.values if who not in self.ours and who not in self.floors]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of a script leaves: its lines, what each tool was called with, versions, and what it lacked."""

    lines: Sequence[Line]
    commands: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Ratio:
    """What ours took, as a multiple of another's: the median, the least and the most of the rounds."""

    median: float
    least: float
    most: float

    @property
    def verdict(self) -> str:
        """`ahead`, `even` (within what a round more could change) or `behind`."""
        unsure = self.least <= 1 <= self.most or self.least == self.most
        if unsure and _EVEN[0] <= self.median <= _EVEN[1]:
            return "even"
        return "ahead" if self.median <= 1 else "behind"


def keep(figures: Figures) -> None:
    """Write the figures where the page looks for them, if somebody makes a page."""
    if place := os.environ.get(FILE):
        Path(place).write_text(json.dumps(asdict(figures)), encoding="utf-8")


def read(document: Mapping[str, object]) -> Figures:
    """The figures of a kept document."""
    lines = [Line(**line) for line in document.pop("lines")]  # type: ignore[attr-defined]
    return Figures(lines, **document)  # type: ignore[arg-type]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Ours to theirs, round by round; of many rounds by blocks of them. None where theirs is nothing."""
    if not ours or not theirs or statistics.median(theirs) == 0:
        return None
    whole = statistics.median(ours) / statistics.median(theirs)
    if len(ours) != len(theirs):
        return Ratio(whole, whole, whole)
    each = [mine / other for mine, other in zip(blocks(ours), blocks(theirs), strict=True) if other]
    if len(ours) <= _BLOCKS:
        whole = statistics.median(each)
    return Ratio(whole, min(each), max(each))


def blocks(values: Sequence[float]) -> list[float]:
    """At most ten figures: the values, or the medians of as many blocks of them, in their order."""
    if len(values) <= _BLOCKS:
        return list(values)
    edges = [round(number * len(values) / _BLOCKS) for number in range(_BLOCKS + 1)]
    return [statistics.median(values[start:end]) for start, end in pairwise(edges)]


def grown(lines: Iterable[Line]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """By what was measured and by tool: the median for each size, the least size first. Only what has several sizes."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in sorted((line for line in lines if line.size), key=lambda line: line.size):
        for who, values in line.values.items():
            if values and statistics.median(values) > 0:
                found.setdefault(line.what, {}).setdefault(who, []).append((line.size, statistics.median(values)))
    found = {what: {who: points for who, points in by.items() if len(points) > 1} for what, by in found.items()}
    return {what: by for what, by in found.items() if by}


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """The k of a·n^k that fits best: least squares of the logarithms. 1 is linear; what it costs to start is below."""
    xs, ys = [math.log(size) for size, _ in points], [math.log(value) for _, value in points]
    middle_x, middle_y = statistics.fmean(xs), statistics.fmean(ys)
    over = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True))
    return over / sum((x - middle_x) ** 2 for x in xs)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def compared(line: Line) -> Iterator[tuple[str, Ratio | None]]:
    """Ours against each other tool, floors too."""
    mine = line.values.get(line.ours[0], ())
    for who in line.values:
        if who not in line.ours:
            yield who, ratio(mine, line.values[who])
