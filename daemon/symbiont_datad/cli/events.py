"""`events`: what was done, and why."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import ExitCode, SettingsError
from symbiont_datad.ledger_events import Filter
from symbiont_datad.report import Severity

if TYPE_CHECKING:
    from symbiont_datad.fsops.cells import Cell
    from symbiont_datad.ledger import Ledger
    from symbiont_datad.ledger_schema import Row

_EVERY_S = 1.0
_FOLLOWED = 10
"""Events that are there already and shown before those to come, when nothing else is asked for."""
_DEFAULT = 100


def events(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="How far back (1d, 90m), or a time (2026-11-23, 2026-11-23T04:00Z).")] = "",
    until: Annotated[str, typer.Option(help="Only what was before that, given in the same ways.")] = "",
    path: Annotated[str, typer.Option(help="Only of this file or directory, and what is below it.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind; may be given more than once.")] = None,
    job: Annotated[str, typer.Option(help="Only of this job, or of the guard.")] = "",
    severity: Annotated[Severity, typer.Option(help="Only what matters at least so much.")] = Severity.INFO,
    search: Annotated[str, typer.Option(help="Only with this text in the path, the reason or the kind.")] = "",
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most this many, the newest; 0 is all. [default: 100]")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; with --follow one a line.")] = False,
    as_lines: Annotated[bool, typer.Option("--json-lines", help="One JSON document a line for each event.")] = False,
) -> None:
    """What was done to the tree, and why, from the ledger; runs of jobs that failed, too. The oldest comes first.

    With --path also what was done to the directories that it is in, as a whole, and whether it is in the quarantine.
    """
    from symbiont_datad.ledger import Ledger

    root, daemon_dir = invocation(ctx).places()
    relative = _relative(path, str(root))
    shown = limit if limit is not None else _FOLLOWED if follow and not since else _DEFAULT
    wanted = Filter(
        since=point_in_time(since, "--since") if since else 0.0,
        until=point_in_time(until, "--until") if until else None,
        path=relative or None,
        kinds=kind or (),
        serious=_serious(severity),
        job=job or None,
        covering=_COVERING,
        text=search,
        limit=shown or -1,
    )
    ledger_path = daemon_dir / "ledger.db"
    if follow:
        _follow(ledger_path, wanted, as_json or as_lines)
    with Ledger.for_reading(ledger_path) as ledger:
        rows = ledger.events(wanted)
    held, newest = _held(str(root), relative)
    if as_lines:
        _tell(rows, as_lines)
        return
    if as_json:
        further = {"quarantined": [show.quarantined(cell) for cell in held]} if relative else {}
        show.document({"events": [show.event(row) for row in rows], **further})
        return
    _tell(rows, False)
    for cell in held:
        show.line(show.quarantined_line(relative, cell, newest=cell.run == newest))
    if not rows:
        show.line("nothing was done" + (f" since {since}" if since else ""))


def _serious(severity: Severity) -> tuple[str, ...] | None:
    """The kinds that matter at least so much; None for all."""
    from symbiont_datad.status_events import LEVELS, kinds_of

    return kinds_of(severity) if severity in LEVELS and severity is not Severity.INFO else None


def _tell(rows: "Iterable[Row]", as_lines: bool) -> None:
    for row in rows:
        if as_lines:
            show.one_line(show.event(row))
        else:
            show.line(show.event_line(row))


def _follow(ledger_path: Path, wanted: Filter, as_lines: bool) -> None:
    """Show events as they come, until Ctrl-C: raises typer.Exit then."""
    from symbiont_datad.ledger import Ledger

    follower = Follower(wanted)
    try:
        while True:
            with Ledger.for_reading(ledger_path) as ledger:  # each time: it may be replaced, or begin only now
                _tell(follower.look(ledger, time.monotonic()), as_lines)
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


_PATIENCE_S = 30.0


@dataclass
class Follower:
    """Hands out each event once. What is only planned waits until it is done; not for ever, since its run may have been
    killed."""

    wanted: Filter
    _seen: int | None = None
    _planned: "dict[int, tuple[Row, float]]" = field(default_factory=dict)
    _failed: "set[Row]" = field(default_factory=set)

    def look(self, ledger: "Ledger", now: float) -> "list[Row]":
        """What is new since the last look, the oldest first; at the first one what is there. `now`: monotonic."""
        wanted, last = self.wanted, ledger.last_action()
        first = self._seen is None
        if self._seen is not None:
            # A new ledger counts from the beginning.
            wanted = replace(wanted, after=min(self._seen, last), since=0.0, limit=-1)
        fresh = ledger.new_actions(wanted)
        self._seen = max([last, *(number for number, _ in fresh)])
        failed = [row for row in ledger.events(replace(self.wanted, after=_NO_ACTION)) if row not in self._failed]
        self._failed.update(failed)
        if first:
            rows = sorted([*(row for _, row in fresh), *failed], key=lambda row: row.at)
            return rows[-self.wanted.limit :] if self.wanted.limit > 0 else rows
        self._planned |= {number: (row, now + _PATIENCE_S) for number, row in fresh if row.state == "planned"}
        done = [row for _, row in fresh if row.state != "planned"]
        for number, state in ledger.states(list(self._planned)[:_AT_ONCE]).items():
            row, until = self._planned[number]
            if state != "planned" or now >= until:
                del self._planned[number]
                done.append(replace(row, state=state))
        return [*done, *failed]


_NO_ACTION = 2**63 - 1
"""No action has a larger number: what is left are the runs that failed."""
_AT_ONCE = 10_000


_COVERING = ("directory_quarantined", "directory_removed", "day_packed", "removal_undone")
"""Kinds of actions on a directory that mean all that is in it."""


def _held(root: str, path: str) -> "tuple[list[Cell], str]":
    """The cells of the quarantine in which something of a path (relative to the root) lies; the newest run's stamp."""
    from symbiont_datad.errors import UnsafePath
    from symbiont_datad.fsops.cells import cells, holds
    from symbiont_datad.fsops.root import Tree, resolve

    if not path:
        return [], ""
    tree = Tree(resolve(root))
    try:
        found = [cell for cell in cells(tree) if cell.undoable]
    except (OSError, UnsafePath):  # who may not look there has no answer, as from `ls`
        return [], ""
    return [cell for cell in found if holds(tree, cell, path)], found[-1].run if found else ""


def point_in_time(text: str, option: str) -> float:
    """A duration before now, or a point in time, in seconds since the epoch. `option`: what the user gave it to."""
    from symbiont_datad.quantities import parse_duration

    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{option} {text}: must be a duration (1d, 90m) or a time (2026-11-23T04:00Z)") from None
    return when.timestamp() if when.tzinfo else when.replace(tzinfo=UTC).timestamp()


def _relative(path: str, root: str) -> str:
    """A path as the ledger has it: relative to the root, however it was typed."""
    return path.removeprefix(root).strip("/") if path.startswith(root) else path.removeprefix("./").rstrip("/")
