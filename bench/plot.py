"""How cost grows, as one SVG: a panel for each thing that was measured at several sizes, both axes logarithmic."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from bench.figures import exponent

Points = Sequence[tuple[int, float]]
At = Callable[[float, float], tuple[float, float]]
_WIDTH, _HEIGHT, _COLUMNS = 300, 210, 3
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 26, 10, 22
_COLOURS = ("#0b6e4f", "#b3261e", "#1f5fbf", "#9a6700", "#6f42c1", "#57606a", "#c2410c")


def plot(panels: Mapping[str, tuple[str, Mapping[str, Points]]], ours: frozenset[str]) -> str:
    """The picture. By what is measured: the unit, and the points of each tool. Ours are drawn thick, and come first."""
    rows = -(-len(panels) // _COLUMNS)
    width, height = _WIDTH * _COLUMNS, _HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="9">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (what, (unit, tools)) in enumerate(panels.items()):
        x, y = number % _COLUMNS * _WIDTH, number // _COLUMNS * _HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_panel(what, unit, tools, ours)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(what: str, unit: str, tools: Mapping[str, Points], ours: frozenset[str]) -> str:
    every = [point for points in tools.values() for point in points]
    xs, ys = [size for size, _ in every], [value for _, value in every]
    low_x, high_x = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
    low_y, high_y = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high_x, high_y = max(high_x, low_x + 1), max(high_y, low_y + 1)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def at(size: float, value: float) -> tuple[float, float]:
        x = _LEFT + (math.log10(size) - low_x) / (high_x - low_x) * (right - _LEFT)
        return x, bottom - (math.log10(value) - low_y) / (high_y - low_y) * (bottom - _TOP)

    found = [f'<text x="{_LEFT}" y="12" font-size="11" font-weight="bold">{escape(what)}, {escape(unit)}</text>']
    for power in range(low_x, high_x + 1):
        x, _ = at(10.0**power, 10.0**low_y)
        found.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#ddd"/>')
        found.append(f'<text x="{x:.1f}" y="{bottom + 12}" text-anchor="middle">{_short(10**power)}</text>')
    for power in range(low_y, high_y + 1):
        _, y = at(10.0**low_x, 10.0**power)
        found.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        found.append(f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{_short(10.0**power)}</text>')
    found += _lines(tools, ours, at)
    return "".join(found)


def _lines(tools: Mapping[str, Points], ours: frozenset[str], at: At) -> list[str]:
    found = []
    for number, (who, points) in enumerate(sorted(tools.items(), key=lambda one: one[0] not in ours)):
        colour, mine = _COLOURS[number % len(_COLOURS)], who in ours
        places = [at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        look = 'stroke-width="2"' if mine else 'stroke-width="1.2" stroke-dasharray="4 2"'
        found.append(f'<polyline points="{path}" fill="none" stroke="{colour}" {look}/>')
        found += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in places]
        y = _TOP + 10 + 11 * number
        found.append(f'<text x="{_LEFT + 6}" y="{y}" fill="{colour}">{escape(who)}: n^{exponent(points):.2f}</text>')
    return found


def _short(value: float) -> str:
    """1,000,000 as `1M`, a hundredth as `0.01`."""
    for least, unit in ((1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:g}{unit}"
    return f"{value:g}"
