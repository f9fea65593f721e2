"""Printing: records as sentences and as JSON."""

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from symbiont_datad.quantities import format_duration, format_size
from symbiont_datad.report import Action, Drift, DriftKind, Finding, JobReport, Severity, printable

if TYPE_CHECKING:
    from symbiont_datad.fsops.cells import Cell
    from symbiont_datad.ledger_schema import Row

SCHEMA = 1

Json = dict[str, Any]


def line(text: str) -> None:
    """One line on stdout."""
    typer.echo(text)


def document(content: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps({"schema": SCHEMA, **content}, indent=2, ensure_ascii=False))


def last_line(content: Mapping[str, Any]) -> None:
    """The document of a command that prints its progress as lines of JSON: one line as well, the last."""
    typer.echo(json.dumps({"schema": SCHEMA, "message_type": "summary", **content}, ensure_ascii=False))


def one_line(content: Mapping[str, Any]) -> None:
    """One JSON document as one line, where several follow each other."""
    typer.echo(json.dumps({"schema": SCHEMA, **content}, ensure_ascii=False))


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> Iterator[str]:
    """Rows as lines with aligned columns, two blanks apart; the first row is the head. `right`: columns of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def note(text: str) -> None:
    """One line on stderr, for what is no part of the answer."""
    typer.echo(text, err=True)


def on_terminal() -> bool:
    """Whether stdout is a terminal that wants colours."""
    return moves_cursor() and not os.environ.get("NO_COLOR")


def moves_cursor() -> bool:
    """Whether stdout is a terminal that does more than print."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def quiet_log() -> None:
    """For commands: only errors are logged, to stderr, because the command itself prints what it did."""
    from symbiont_datad import events

    events.configure("console", "error", sys.stderr)


def moment(at: float | None) -> str | None:
    """A time (seconds since the epoch) in RFC 3339, UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short_time(at: float) -> str:
    """A time (seconds since the epoch) in UTC, to the minute, for tables."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


# Records as JSON


def action(one: Action) -> Json:
    """An action, with the names of the documented JSON."""
    return {"kind": one.kind, "path": printable(one.path), "rule": one.rule, "reason": one.reason, "bytes": one.bytes}


def finding(one: Finding) -> Json:
    """A finding."""
    return {
        "kind": one.kind,
        "path": printable(one.path),
        "severity": one.severity,
        "detail": one.detail,
        "remedy": one.remedy,
    }


def drift(one: Drift) -> Json:
    """A drift."""
    return {"kind": one.kind, "path": printable(one.path), "expected": one.expected, "found": one.found}


def event(row: "Row") -> Json:
    """A row of the ledger."""
    from symbiont_datad.status_events import severity_of

    return {
        "at": moment(row.at),
        "severity": severity_of(row),
        "job": row.job,
        "kind": row.kind,
        "path": row.path,
        "rule": row.rule,
        "reason": row.reason,
        "bytes": row.bytes,
        "state": row.state,
    }


def report_document(
    report: JobReport, root: str, dry_run: bool, *, streams: bool = False, further: Mapping[str, Any] | None = None
) -> None:
    """A job's report; a plan has the same shape. `streams`: its progress was printed as lines of JSON before.

    `further`: what only this job tells.
    """
    content = {
        "root": root,
        "job": report.job,
        "dry_run": dry_run,
        "outcome": report.outcome,
        "message": report.message,
        "started_at": moment(report.started_at),
        "duration_s": round(report.duration_s, 3),
        "actions_total": report.actions_total,
        "bytes_total": report.bytes_total,
        "counts": dict(report.counts),
        "actions": [action(one) for one in report.actions],
        "findings": [finding(one) for one in report.findings],
        **(further or {}),
    }
    (last_line if streams else document)(content)


# Records as sentences


def sentence(one: Action) -> str:
    """What was done, and why."""
    size = f" ({format_size(one.bytes)})" if one.bytes else ""
    what = "repository" if one.kind.startswith("repository") else "root"
    return f"{one.kind.replace('_', ' ')}: {printable(one.path) or f'the {what}'}{size}: {one.reason}"


def planned(one: Drift) -> Action:
    """The action that a drift asks for."""
    return Action(f"would repair {one.kind}", one.path, "layout", f"{one.found}, declared {one.expected}")


def drift_sentence(one: Drift) -> str:
    """A drift, for people."""
    path = printable(one.path) or "the root"
    if one.kind is DriftKind.MISSING:
        return f"missing: {path}"
    if one.kind is DriftKind.OBSTRUCTED:
        return f"obstructed: {path} is {one.found}"
    return f"{one.kind}: {path} has {one.found}, declared {one.expected}"


def finding_sentence(one: Finding) -> str:
    """A finding, with what to do about it."""
    mark = {Severity.ERROR: "error", Severity.WARNING: "warning"}.get(one.severity, "note")
    remedy = f"; {one.remedy}" if one.remedy else ""
    return f"{mark}: {one.kind.replace('_', ' ')}: {printable(one.path) or 'the root'}: {one.detail}{remedy}"


def quarantined(cell: "Cell") -> Json:
    """A cell of the quarantine that something lies in."""
    return {
        "place": printable(cell.place),
        "run": printable(cell.run),
        "rule": printable(cell.rule),
        "until": moment(cell.until),
    }


def quarantined_line(path: str, cell: "Cell", *, newest: bool) -> str:
    """Where something is that retention removed, and how it comes back; `newest`: no later run has left anything."""
    until = f" until {short_time(cell.until)}" if cell.until is not None else ""
    which = "" if newest else f" --run {printable(cell.run)}"
    return (
        f"{printable(path)} is in quarantine{until} ({printable(cell.place)}): "
        f"`symbiont-datad clean --undo{which}` brings it back"
    )


def event_line(row: "Row") -> str:
    """One row of the ledger on one line."""
    from symbiont_datad.status_events import sentence, severity_of

    at = datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    color = {Severity.ERROR: "red", Severity.WARNING: "yellow"}.get(severity_of(row))
    said = sentence(row)
    return f"{at}  {row.job:<9} {typer.style(said, fg=color) if color and on_terminal() else said}"


def report(one: JobReport, dry_run: bool) -> None:
    """A job's report: in a dry run each planned action, then the findings, and the figures."""
    if dry_run:
        for planned_action in one.actions:
            line(f"would do {sentence(planned_action)} [rule {planned_action.rule}]")
    for found in one.findings:
        line(finding_sentence(found))
    done = f"{one.actions_total:,} action{'s' if one.actions_total > 1 else ''}"
    if not one.actions_total:
        serious = [found for found in one.findings if found.severity is not Severity.INFO]
        done = _NOTHING.get(one.job, "nothing to do") if not serious else f"{len(serious)} to look at"
    size = f", {format_size(one.bytes_total)}" if one.bytes_total else ""
    figures = ", ".join(_figure(name, value) for name, value in one.counts.items() if value)
    line(f"{one.job}{' (dry run)' if dry_run else ''}: {done}{size} in {format_duration(one.duration_s)}")
    if figures:
        line(f"  {figures}")
    if one.message:
        line(f"  {one.message}")


_NOTHING = {"verify": "all good"}
"""What is said of a job that only looks, when all is well."""


_FIGURES = {"drilled": "files restored and compared", "bytes_drilled": "bytes of them"}


def _figure(name: str, value: int) -> str:
    """One of a job's figures. Those that are called bytes, and those of prune, are sizes."""
    words = _FIGURES.get(name, name).replace("_", " ")
    if name.startswith("bytes") or name in ("freed", "unused"):
        return f"{format_size(value)} {words.removeprefix('bytes').strip()}".rstrip()
    return f"{value:,} {words}"
