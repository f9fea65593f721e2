"""The screen of `status`: lines for a terminal of any width."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import typer

from symbiont_datad import status_words as words
from symbiont_datad.cli.show import short_time, table
from symbiont_datad.ledger_prompts import Executions
from symbiont_datad.ledger_schema import Run
from symbiont_datad.quantities import format_duration, format_size
from symbiont_datad.report import Severity, printable
from symbiont_datad.status import Status
from symbiont_datad.status_verdict import remarks

_BAR = 20
_NARROW = 72
"""Columns below which tables leave out what can be missed."""
_SHOWN = 5
_MOST_USED = 5
_PLAIN = str.maketrans({"▇": "#", "→": ">", "–": "-", "…": "~", "×": "x", "±": "~", "·": "-"})
_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the lines are for: how wide, whether with colours, and whether it shows more than ASCII."""

    width: int = 100
    colors: bool = False
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class _Line:
    """One line. `color` is that of its first `head` characters, of all of them when that is None.

    `cut`: what does not fit is cut off, as in tables, and not put on the next line.
    """

    text: str
    color: str | None = None
    head: int | None = None
    cut: bool = False


def screen(found: Status, now: float, terminal: Terminal = Terminal()) -> Iterator[str]:  # it is frozen
    """The lines of the screen; `now` in seconds since the epoch."""
    narrow = terminal.width < _NARROW
    parts = (
        _verdict(found, now),
        _usage(found, narrow),
        _prompts(found, narrow),
        _state(found, now),
        _jobs(found, now, narrow),
        _healed(found, now),
        _legacy(found, now),
        _rest(found),
    )
    first = True
    for part in parts:
        lines = list(part)
        if lines and not first:
            yield ""
        first = first and not lines
        for line in lines:
            yield from _fitted(line, terminal)


def _fitted(line: _Line, terminal: Terminal) -> Iterator[str]:
    """A line as those that fit, coloured."""
    text = line.text if terminal.unicode else line.text.translate(_PLAIN)
    if line.cut or len(text) <= terminal.width:
        some = [text[: terminal.width]]
    else:
        indent = re.match(r" *", text)
        assert indent is not None
        some = textwrap.wrap(
            text, terminal.width, subsequent_indent=f"{indent[0]}  ", break_on_hyphens=False, break_long_words=True
        )
    for number, one in enumerate(some):
        head = len(one) if line.head is None else min(line.head, len(one)) * (number == 0)
        colored = line.color is not None and terminal.colors and head
        yield (typer.style(one[:head], fg=line.color) + one[head:] if colored else one).rstrip()


def _verdict(found: Status, now: float) -> Iterator[_Line]:
    """The worst first, with what to do about it; then who keeps the tree, and what else there is."""
    every = remarks(found, now)
    if not every:
        yield _Line(f"all good: {words.kept(found, now)}", "green", len("all good"))
        return
    for remark in every[:_SHOWN]:
        since = f" (since {format_duration(max(now - remark.since, 0.0))})" if remark.since is not None else ""
        mark = remark.severity.value
        yield _Line(f"{mark}: {printable(remark.text)}{since} → {remark.command}", _COLORS[remark.severity], len(mark))
    if len(every) > _SHOWN:
        yield _Line(f"… and {len(every) - _SHOWN} more; all of them: symbiont-datad check")
    if found.daemon_pid is not None:
        yield _Line(words.kept(found, now))


def _usage(found: Status, narrow: bool) -> Iterator[_Line]:
    if not found.usage:
        return
    most = max(point.bytes for point in found.usage) or 1
    head = f"{'usage':<12}" + (f"{'size':>11}" if narrow else f"{'files':>12}{'size':>12}{'a day':>13}")
    yield _Line(head, cut=True)
    for point in sorted(found.usage, key=lambda point: -point.bytes):
        bar = "▇" * round((_BAR // 2 if narrow else _BAR) * point.bytes / most)
        size = format_size(point.bytes)
        figures = (
            f"{size:>11}"
            if narrow
            else f"{point.files:>12,}{size:>12}{words.growth(found.trends.get(point.category)):>13}"
        )
        yield _Line(f"{printable(point.category):<12}{figures}  {bar}".rstrip(), cut=True)
    if found.space:
        yield _Line(words.free(found))
    for _, text in words.endings(found):
        yield _Line(text)


def _prompts(found: Status, narrow: bool) -> Iterator[_Line]:
    """Executed prompts of the last days by template, the most used first; and how the cache is used."""
    by_template: dict[str, list[Executions]] = {}
    for one in found.executions:
        by_template.setdefault(one.template, []).append(one)
    ordered = sorted(by_template.items(), key=lambda item: (-sum(one.runs for one in item[1]), item[0]))
    if ordered:
        more = "" if narrow else f"{'mean':>10}{'slowest':>10}  since {found.executions[0].day}"
        yield _Line(f"{'template':<20}{'runs':>12}{'size':>12}{more}", cut=True)
    for template, days in ordered[:_MOST_USED]:
        runs, size, timed = (sum(getattr(one, name) for one in days) for name in ("runs", "bytes", "timed"))
        mean = format_duration(sum(one.latency_ms for one in days) / timed / 1000) if timed else "–"
        slowest = format_duration(max(one.slowest_ms for one in days) / 1000) if timed else "–"
        more = "" if narrow else f"{mean:>10}{slowest:>10}"
        yield _Line(f"{(template or 'unknown')[:19]:<20}{runs:>12,}{format_size(size):>12}{more}", cut=True)
    if len(ordered) > _MOST_USED:
        yield _Line(f"… and {len(ordered) - _MOST_USED} more")
    for text in words.cache(found.cache_use):
        yield _Line(text)


def _state(found: Status, now: float) -> Iterator[_Line]:
    """Snapshots, contexts, the guard, and what lies in the quarantine."""
    if found.runs or found.snapshots:
        for text in words.snapshots(found, now):
            yield _Line(text)
        if told := words.contexts(found):
            yield _Line(told)
        yield _Line(words.guard(found))
    others = sum(not cell.undoable for cell in found.cells)
    if others:
        yield _Line(f"quarantine: {words.counted(others, 'thing')} moved aside")
    runs = list(words.undo(found))
    if runs:
        run, until, files, size = runs[0]
        earlier = len(runs) - 1
        more = f"; {words.counted(earlier, 'earlier run')} too (--run STAMP)" if earlier else ""
        yield _Line(
            f"undo: `clean --undo` brings back {words.counted(files, 'file')} ({format_size(size)}) of the "
            f"run {run} until {short_time(until)}{more}"
        )


def _jobs(found: Status, now: float, narrow: bool) -> Iterator[_Line]:
    if not found.runs:
        return
    head = ("job", "ended", "success", "next") if narrow else ("job", "ended", "last success", "took", "next", "failed")
    runs = sorted(found.runs.items())
    lines = table([head, *(_job(found, name, run, now, narrow) for name, run in runs)])
    yield _Line(next(lines), cut=True)
    for line, (_, run) in zip(lines, runs, strict=True):
        failed = run.outcome == "failed"
        yield _Line(line, "red" if failed else None, cut=True)
        if run.message and not failed:  # why it failed stands at the top
            yield _Line(f"  {printable(run.message)}")


def _job(found: Status, name: str, run: Run, now: float, narrow: bool) -> Sequence[str]:
    live = found.live if found.daemon_pid is not None else None
    due = live.next_runs.get(name) if live else None
    good = found.good_runs.get(name)
    outcome = run.outcome or ("running" if live and name in live.active_jobs else "unfinished")
    success = words.ago(now, good.started_at) if good else "never"
    following = f"in {format_duration(max(due - now, 0.0))}" if due is not None else "–"
    if narrow:
        return name, outcome, success.removesuffix(" ago"), following
    took = format_duration(run.ended_at - run.started_at) if run.ended_at else "–"
    failures = found.failures.get(name, 0)
    return name, outcome, success, took, following, f"{failures:,} in a week" if failures else "–"


def _healed(found: Status, now: float) -> Iterator[_Line]:
    """What was healed in the last days, and with what: the runtime knows of it only when it starts again."""
    for row in found.healed[:_SHOWN]:
        kind = row.kind.replace("_", " ")
        yield _Line(f"{kind:<24}{row.path}  ({words.ago(now, row.at)})", "green", len(kind))
        yield _Line("  " + "; ".join(row.reason.split("; ")[:2]))
    more = len(found.healed) - _SHOWN
    if more > 0:
        yield _Line(f"… and {more} more; all of them: symbiont-datad events --job sweep")


def _legacy(found: Status, now: float) -> Iterator[_Line]:
    """Places of before the tree: how they go on working, and what to do."""
    places = found.live.legacy if found.live is not None else ()
    for one in places:
        yield _Line(f"{'legacy ' + one.kind:<24}{printable(one.path)}  ({words.legacy(one, now)})")
    if places:
        unmigrated = any(one.compat == "not migrated" for one in places)
        yield _Line(f"what to do: symbiont-datad migrate{'' if unmigrated else ' --finish'}")


def _rest(found: Status) -> Iterator[_Line]:
    if told := words.today(found):
        yield _Line(told)
    if found.runs:
        yield _Line(words.versions(found))
