"""docs/benchmarks.md as text, and its picture, out of what was kept. Pure, but for the notes that lie beside this file.

A note says of a case why ours is behind or above the floor, and what the floor is; what it takes is in the tables.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.cases import CASES
from bench.figures import Figures, Line, Ratio, compared, exponent, grown, read
from bench.kept import Kept
from bench.plot import Points, plot

NOTES = Path(__file__).with_name("notes")
_HEAD = """# Benchmarks

Written by `scripts/bench`. Each section is what one script of `bench/` measured, ours and the peers in turns in the
same run; how they do it is in [bench/README.md](../bench/README.md). Figures are medians with the least and the most of
the rounds; a ratio is ours divided by the other's, round by round, so below 1 ours takes less. Ratios hold on other
machines, absolute figures don't. *Floor* is no tool to use instead, but the least that the work can take.
"""


def page(kept: Mapping[str, Sequence[Kept]]) -> str:
    """The whole page."""
    parts = [_HEAD, *_machine(kept), *_short(kept), *_growth(kept)]
    for case, pieces in kept.items():
        parts += _section(case, pieces)
    return "\n".join(parts)


def picture(kept: Mapping[str, Sequence[Kept]]) -> str:
    """The plot of all that was measured at several sizes."""
    panels: dict[str, tuple[str, Mapping[str, Points]]] = {}
    ours: set[str] = set()
    for case, pieces in kept.items():
        lines = _lines(pieces)
        units = {line.what: line.unit for line in lines}
        ours |= {who for line in lines for who in line.ours}
        timed = {what: by for what, by in grown(lines).items() if units[what] in ("s", "ms")}
        panels |= {f"{case}: {what}": (units[what], by) for what, by in timed.items()}
    return plot(panels, frozenset(ours))


def _machine(kept: Mapping[str, Sequence[Kept]]) -> Iterator[str]:
    every = [one for pieces in kept.values() for one in pieces]
    for machine in dict.fromkeys(one.machine for one in every):
        yield f"Measured on: {machine}."
    found = {name: version for one in every for name, version in one.versions.items()}
    there = ", ".join(f"{name} {version}" for name, version in sorted(found.items()) if version)
    yield f"Versions: {there}.\n" if there else ""


def _short(kept: Mapping[str, Sequence[Kept]]) -> Iterator[str]:
    """Where ours is ahead, and by how much not."""
    yield "## In short\n"
    yield "| case | against | ahead in | even in | behind in |\n| --- | --- | --- | --- | --- |"
    behind: list[str] = []
    for case, pieces in kept.items():
        about = CASES[case].title
        counts: dict[str, dict[str, int]] = {}
        for line, who, found in _compared(pieces):
            if found is not None and who not in line.floors:
                of = counts.setdefault(who, {})
                of[found.verdict] = of.get(found.verdict, 0) + 1
                if found.verdict == "behind":
                    behind.append(f"| {_link(about)} | {_named(line)} | {who} | {_ratio(found)} |")
        for who, of in counts.items():
            cells = " | ".join(str(of.get(verdict) or "") for verdict in ("ahead", "even", "behind"))
            yield f"| {_link(about)} | {who} | {cells} |"
        if not counts:
            yield f"| {_link(about)} | {'no peer' if pieces else 'not measured yet'} | | | |"
    yield "\nWhere ours is behind, by how much; why, and what the floor is, is in the sections:\n"
    yield "\n".join(
        ["| case | what | against | ratio |\n| --- | --- | --- | --- |", *behind]
        if behind
        else ["Nowhere in what was measured."]
    )
    yield ""


def _growth(kept: Mapping[str, Sequence[Kept]]) -> Iterator[str]:
    """The exponents, and where the picture is."""
    yield "## How cost grows\n"
    yield "The k of a·n^k that fits the medians best, over all sizes and between the two largest. 1 is linear; what a"
    yield "command takes to start weighs most where there is little to do, so the first is often well below.\n"
    yield "![How cost grows, both axes logarithmic](benchmarks.svg)\n"
    yield "| case | what | who | sizes | fitted exponent | the two largest |\n| --- | --- | --- | --- | --- | --- |"
    for case, pieces in kept.items():
        lines = _lines(pieces)
        floors = {who for line in lines for who in line.floors}
        for what, by in grown(lines).items():
            for who, points in ((who, points) for who, points in by.items() if who not in floors):
                sizes = f"{_count(points[0][0])} to {_count(points[-1][0])}"
                cells = f"{exponent(points):.2f} | {exponent(points[-2:]):.2f}"
                yield f"| {_link(CASES[case].title)} | {what} | {who} | {sizes} | {cells} |"
    yield ""


def _section(case: str, pieces: Sequence[Kept]) -> Iterator[str]:
    yield f"## {CASES[case].title}\n"
    note = NOTES / f"{case}.md"
    if note.exists():
        yield note.read_text(encoding="utf-8").strip() + "\n"
    if not pieces:
        yield f"Not measured yet: `scripts/bench {case}`.\n"
        return
    for one in pieces:
        at = time.strftime("%Y-%m-%d", time.gmtime(one.at))
        missed = "" if one.code == 0 else " It missed a bar of its own." if one.code == 1 else f" Exit code {one.code}."
        yield f"- `{one.command}`: {one.took_s / 60:.1f} minutes on {at}, load {one.load:.1f} when it began.{missed}"
    missing = [name for one in pieces for name, version in one.versions.items() if not version]
    missing += [name for one in pieces for name in _figures(one).missing]
    yield from (f"- {name} was not there, and is left out." for name in dict.fromkeys(missing))
    yield "\n| what | who | median | least – most | ratio | |\n| --- | --- | --- | --- | --- | --- |"
    for line in _lines(pieces):
        yield from _rows(line)
    commands = {who: command for one in pieces for who, command in _figures(one).commands.items()}
    if commands:
        yield "\nWhat was run:\n"
        yield from (f"- {who}: `{command}`" for who, command in commands.items())
    yield ""


def _rows(line: Line) -> Iterator[str]:
    ratios = dict(compared(line))
    for number, (who, values) in enumerate(line.values.items()):
        if not values:
            continue
        found = ratios.get(who)
        kind = "floor" if who in line.floors else "" if who in line.ours or found is None else found.verdict
        shown = f"**{who}**" if who in line.ours else who
        middle = f"{_figure(median(values))} {line.unit}" if line.unit else f"{median(values):,.0f}"
        spread = f"{_figure(min(values))} – {_figure(max(values))}" if len(values) > 1 else ""
        yield (
            f"| {_named(line) if number == 0 else ''} | {shown} | {middle} | {spread} "
            f"| {_ratio(found) if found else ''} | {kind} |"
        )


def _compared(pieces: Iterable[Kept]) -> Iterator[tuple[Line, str, Ratio | None]]:
    for line in _lines(pieces):
        for who, found in compared(line):
            yield line, who, found


def _lines(pieces: Iterable[Kept]) -> list[Line]:
    return [line for one in pieces for line in _figures(one).lines]


def _figures(one: Kept) -> Figures:
    return read(dict(one.figures))


def _named(line: Line) -> str:
    return f"{line.what}, {_count(line.size)}" if line.size else line.what


def _count(size: int) -> str:
    return f"{size:,}"


def _ratio(found: Ratio) -> str:
    if found.least == found.most:
        return _figure(found.median)
    return f"{_figure(found.median)} ({_figure(found.least)} – {_figure(found.most)})"


def _figure(value: float) -> str:
    """Three digits, and no more than the figure is worth."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}" if abs(value) >= 0.001 else f"{value:.1g}"


def _link(title: str) -> str:
    anchor = "".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-")
    return f"[{title}](#{anchor})"
