"""`events`: what was done, and why."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import SettingsError

if TYPE_CHECKING:
    from symbiont_datad.fsops.cells import Cell


def events(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="How far back (1d, 90m), or a time (2026-11-23, 2026-11-23T04:00Z).")] = "",
    path: Annotated[str, typer.Option(help="Only of this file or directory, and what is below it.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind; may be given more than once.")] = None,
    job: Annotated[str, typer.Option(help="Only of this job, or of the guard.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most this many, the newest; 0 is all.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What was done to the tree, and why, from the ledger. The oldest comes first.

    With --path also what was done to the directories that it is in, as a whole, and whether it is in the quarantine.
    """
    from symbiont_datad.ledger import Ledger

    settings = invocation(ctx).load().settings
    begin = point_in_time(since, "--since") if since else 0.0
    relative = _relative(path, str(settings.root_data_dir))
    with Ledger.for_reading(settings.daemon_dir / "ledger.db") as ledger:
        rows = ledger.actions(
            since=begin,
            path=relative or None,
            kinds=kind or (),
            job=job or None,
            limit=limit or -1,
            covering=_COVERING,
        )
    held, newest = _held(str(settings.root_data_dir), relative)
    if as_json:
        further = {"quarantined": [show.quarantined(cell) for cell in held]} if relative else {}
        show.document({"events": [show.event(row) for row in rows], **further})
        return
    for row in rows:
        show.line(show.event_line(row))
    for cell in held:
        show.line(show.quarantined_line(relative, cell, newest=cell.run == newest))
    if not rows:
        show.line("nothing was done" + (f" since {since}" if since else ""))


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
