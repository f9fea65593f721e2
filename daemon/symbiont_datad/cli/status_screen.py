"""The screen of `status`, and its JSON document."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from symbiont_datad.cli.show import event, finding, moment, on_terminal, short_time
from symbiont_datad.ledger_prompts import Executions
from symbiont_datad.quantities import format_duration, format_size, spell_duration
from symbiont_datad.report import CacheUse, Severity, printable
from symbiont_datad.retention.caching import freed_by_age, freed_by_size
from symbiont_datad.retention.forecast import OUTSIDE, Forecast
from symbiont_datad.status import HEALING, Status

_BAR = 20
_DAY_S = 86_400.0
_SOON_S = 14 * _DAY_S
"""A disk that will be full before that is a warning."""


def document(found: Status) -> dict[str, Any]:
    """The status with the names of the documented JSON."""
    live = found.live
    return {
        "root": found.root,
        "daemon": {
            "running": found.daemon_pid is not None,
            "pid": found.daemon_pid or None,
            "started_at": moment(live.started_at if live else None),
            "ready": bool(live and live.ready and found.daemon_pid is not None),
            "written_at": moment(live.written_at if live else None),
        },
        "warnings": list(found.warnings),
        "usage": [
            {"category": point.category, "files": point.files, "bytes": point.bytes, "at": moment(point.at)}
            for point in found.usage
        ],
        "space": {
            "free_bytes": found.space.free_bytes,
            "total_bytes": found.space.total_bytes,
            "free_inodes": found.space.free_inodes,
            "total_inodes": found.space.total_inodes,
            "at": moment(found.space.at),
        }
        if found.space
        else None,
        "forecast": {"bytes": _foreseen(found.full), "inodes": _foreseen(found.out_of_inodes)},
        "quarantine": {
            "things": len(found.cells),
            "undo": [
                {"run": run, "until": moment(until), "files": files, "bytes": size}
                for run, until, files, size in _runs(found)
            ],
        },
        "jobs": [
            {
                "job": run.job,
                "started_at": moment(run.started_at),
                "ended_at": moment(run.ended_at),
                "outcome": run.outcome,
                "actions_total": run.actions,
                "bytes_total": run.bytes,
                "message": run.message,
                "counts": dict(run.counts),
                "next_run": moment(live.next_runs.get(run.job)) if live and found.daemon_pid is not None else None,
            }
            for run in found.runs.values()
        ],
        "executions": [
            {
                "day": one.day,
                "template": one.template or None,
                "runs": one.runs,
                "bytes": one.bytes,
                "mean_latency_ms": round(one.latency_ms / one.timed, 3) if one.timed else None,
                "slowest_ms": round(one.slowest_ms, 3) if one.timed else None,
                "last_at": moment(one.last_at),
            }
            for one in found.executions
        ],
        "cache": [
            {
                "used_within_s": group.within_s if math.isfinite(group.within_s) else None,
                "files": group.files,
                "bytes": group.bytes,
                "due_bytes": group.due_bytes,
            }
            for group in found.cache_use
        ],
        "actions_today": dict(found.actions_today),
        "findings": [{**finding(one), "first_seen": moment(seen)} for one, seen in found.findings],
        "healed": [event(row) for row in found.healed],
    }


def _foreseen(one: Forecast | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "full_in_s": round(one.full_in_s),
        "rate_per_s": round(one.rate, 3),
        "over_s": round(one.over_s),
        "mostly": None if one.mostly == OUTSIDE else one.mostly,
        "share": round(one.share, 3),
    }


def _runs(found: Status) -> list[tuple[str, float, int, int]]:
    """The runs that can be undone, the newest first: stamp, until when, files and bytes."""
    runs: dict[str, tuple[str, float, int, int]] = {}
    for cell in found.cells:
        if cell.undoable and cell.until is not None:
            _, until, files, size = runs.get(cell.run, (cell.run, cell.until, 0, 0))
            runs[cell.run] = printable(cell.run), max(until, cell.until), files + cell.files, size + cell.bytes
    return list(runs.values())[::-1]


def screen(found: Status, now: float) -> Iterator[str]:
    """The lines of the screen; `now` in seconds since the epoch."""
    yield _verdict(found, now)
    for warning in found.warnings:
        yield _color(f"  ! {warning}", "yellow")
    yield ""
    yield from _usage(found)
    yield from _prompts(found)
    yield from _quarantine(found)
    yield from _jobs(found, now)
    yield from _findings(found, now)
    yield from _healed(found, now)
    if found.actions_today:
        done = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(found.actions_today.items()))
        yield f"in the last day: {done}"


def _verdict(found: Status, now: float) -> str:
    live = found.live
    if found.daemon_pid is None:
        since = f", not running for {format_duration(now - live.written_at)}" if live else ""
        return f"{_color('no daemon', 'red')}: {found.root} is not kept{since}"
    running = f"for {format_duration(now - live.started_at)}" if live else ""
    serious = [one for one, _ in found.findings if one.severity is not Severity.INFO]
    if not found.warnings and not serious:
        verdict = _color("all good", "green")
    else:
        verdict = _color(f"{len(found.warnings) + len(serious)} to look at", "yellow")
    return f"{verdict}: {found.root} is kept by process {found.daemon_pid} {running}".rstrip()


def _usage(found: Status) -> Iterator[str]:
    if not found.usage:
        return
    most = max(point.bytes for point in found.usage) or 1
    yield f"{'usage':<12}{'files':>12}{'size':>12}"
    for point in sorted(found.usage, key=lambda point: -point.bytes):
        bar = "▇" * round(_BAR * point.bytes / most)
        yield f"{point.category:<12}{point.files:>12,}{format_size(point.bytes):>12}  {_color(bar, 'cyan')}".rstrip()
    if found.space:
        space = found.space
        share = 100 * space.free_bytes / (space.total_bytes or 1)
        inodes = f", {100 * space.free_inodes / space.total_inodes:.0f} % of the inodes" if space.total_inodes else ""
        yield f"free: {format_size(space.free_bytes)} of {format_size(space.total_bytes)} ({share:.0f} %){inodes}"
    yield from _forecasts(found)
    yield ""


_MOST_USED = 5


def _prompts(found: Status) -> Iterator[str]:
    """Executed prompts of the last days by template, the most used first; and how the cache is used."""
    by_template: dict[str, list[Executions]] = {}
    for one in found.executions:
        by_template.setdefault(one.template, []).append(one)
    ordered = sorted(by_template.items(), key=lambda item: (-sum(one.runs for one in item[1]), item[0]))
    if ordered:
        yield f"{'template':<20}{'runs':>12}{'size':>12}{'mean':>10}{'slowest':>10}  since {found.executions[0].day}"
    for template, days in ordered[:_MOST_USED]:
        runs, size, timed = (sum(getattr(one, name) for one in days) for name in ("runs", "bytes", "timed"))
        mean = format_duration(sum(one.latency_ms for one in days) / timed / 1000) if timed else "–"
        slowest = format_duration(max(one.slowest_ms for one in days) / 1000) if timed else "–"
        yield f"{(template or 'unknown')[:19]:<20}{runs:>12,}{format_size(size):>12}{mean:>10}{slowest:>10}"
    if len(ordered) > _MOST_USED:
        yield f"… and {len(ordered) - _MOST_USED} more"
    yield from _cache(found.cache_use)
    if ordered or found.cache_use:
        yield ""


def _cache(use: Sequence[CacheUse]) -> Iterator[str]:
    files, size, due = (sum(getattr(one, name) for one in use) for name in ("files", "bytes", "due_bytes"))
    if not files:
        return
    ages, freed, so_far = [], [], 0
    for one in use:
        so_far += one.files
        if math.isfinite(one.within_s):
            ages.append(f"{spell_duration(one.within_s)} {100 * so_far / files:.0f} %")
            freed.append(f"{spell_duration(one.within_s)} {format_size(freed_by_age(use, one.within_s))}")
    yield f"cache: {files:,} files, {format_size(size)}; used within {', '.join(ages)}"
    half = f"max_bytes {format_size(size // 2)} {format_size(freed_by_size(use, size // 2))}"
    yield f"  would free: max_age {', '.join(freed)}; {half}"
    if due:
        yield f"  {format_size(due)} go at the next run of retention"


def _forecasts(found: Status) -> Iterator[str]:
    for one, what in ((found.full, "full"), (found.out_of_inodes, "out of inodes")):
        if one is not None:
            place = "outside the data directory" if one.mostly == OUTSIDE else printable(one.mostly) or "the root"
            soon = one.full_in_s < _SOON_S
            text = f"{what} in {_about(one.full_in_s)} at the rate of the last {_about(one.over_s).removeprefix('1 ')}"
            yield _color(f"{text}: {100 * one.share:.0f} % of it is {place}", "yellow" if soon else None)


def _about(seconds: float) -> str:
    """A duration in its largest unit alone: `9 days`."""
    for unit, name in ((_DAY_S, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= unit:
            count = round(seconds / unit)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "less than a minute"


def _quarantine(found: Status) -> Iterator[str]:
    others = sum(not cell.undoable for cell in found.cells)
    if others:
        yield f"quarantine: {others} thing{'s' if others > 1 else ''} moved aside"
    runs = _runs(found)
    if runs:
        run, until, files, size = runs[0]
        earlier = len(runs) - 1
        more = f"; {earlier} earlier run{'s' if earlier > 1 else ''} too (--run STAMP)" if earlier else ""
        yield (
            f"undo: `clean --undo` brings back {files:,} file{'s' if files != 1 else ''} ({format_size(size)}) of the "
            f"run {run} until {short_time(until)}{more}"
        )
    if found.cells:
        yield ""


def _jobs(found: Status, now: float) -> Iterator[str]:
    if not found.runs:
        return
    next_runs = found.live.next_runs if found.live and found.daemon_pid is not None else {}
    yield f"{'job':<12}{'last run':<16}{'ended':<12}{'took':<10}next"
    for name, run in sorted(found.runs.items()):
        took = format_duration(run.ended_at - run.started_at) if run.ended_at else "–"
        following = f"in {format_duration(max(next_runs[name] - now, 0.0))}" if name in next_runs else "–"
        outcome = run.outcome or ("running" if name in (found.live.active_jobs if found.live else ()) else "unfinished")
        last = f"{format_duration(max(now - run.started_at, 0.0))} ago"
        color = {"done": "green", "left": "yellow", "failed": "red"}.get(outcome)
        yield f"{name:<12}{last:<16}{_color(f'{outcome:<12}', color)}{took:<10}{following}".rstrip()
        if run.message:
            yield f"  {run.message}"
    yield ""


_SHOWN = 5


def _findings(found: Status, now: float) -> Iterator[str]:
    """The worst first, one line each; `check` tells what to do about them."""
    told_below = {row.path for row in found.healed}
    shown = [one for one in found.findings if not (one[0].kind in HEALING and one[0].path in told_below)]
    serious = sorted(shown, key=lambda one: _SEVERITIES.index(one[0].severity))
    for one, seen in serious[:_SHOWN]:
        color = {Severity.ERROR: "red", Severity.WARNING: "yellow"}.get(one.severity)
        since = format_duration(max(now - seen, 0.0))
        kind = _color(f"{one.kind.replace('_', ' '):<24}", color)
        yield f"{kind}{one.path or 'the root'}  (since {since})"
    if serious:
        more = len(serious) - _SHOWN
        yield f"{f'… and {more} more; ' if more > 0 else ''}what to do: symbiont-datad check"
        yield ""


def _healed(found: Status, now: float) -> Iterator[str]:
    """What was healed in the last days, and with what: the runtime knows of it only when it starts again."""
    for row in found.healed[:_SHOWN]:
        kind = _color(f"{row.kind.replace('_', ' '):<24}", "green")
        yield f"{kind}{row.path}  ({_ago(now, row.at)})"
        yield "  " + "; ".join(row.reason.split("; ")[:2])
    if found.healed:
        more = len(found.healed) - _SHOWN
        if more > 0:
            yield f"… and {more} more; all of them: symbiont-datad events --job sweep"
        yield ""


def _ago(now: float, at: float) -> str:
    return f"{format_duration(max(now - at, 0.0))} ago"


_SEVERITIES = [Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.DEBUG]


def _color(text: str, color: str | None) -> str:
    return typer.style(text, fg=color) if color and on_terminal() else text
