"""`events`: what was done, and why."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import SettingsError


def events(
    ctx: typer.Context,
    since: Annotated[str, typer.Option(help="How far back (1d, 90m), or a time (2026-11-23, 2026-11-23T04:00Z).")] = "",
    path: Annotated[str, typer.Option(help="Only of this file or directory, and what is below it.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind; may be given more than once.")] = None,
    job: Annotated[str, typer.Option(help="Only of this job, or of the guard.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most this many, the newest; 0 is all.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What was done to the tree, and why, from the ledger. The oldest comes first."""
    from symbiont_datad.ledger import Ledger

    settings = invocation(ctx).load().settings
    begin = _since(since) if since else 0.0
    with Ledger.for_reading(settings.daemon_dir / "ledger.db") as ledger:
        rows = ledger.actions(
            since=begin,
            path=_relative(path, str(settings.root_data_dir)) or None,
            kinds=kind or (),
            job=job or None,
            limit=limit or -1,
        )
    if as_json:
        show.document({"events": [show.event(row) for row in rows]})
        return
    for row in rows:
        show.line(show.event_line(row))
    if not rows:
        show.line("nothing was done" + (f" since {since}" if since else ""))


def _since(text: str) -> float:
    """A duration before now, or a point in time, in seconds since the epoch."""
    from symbiont_datad.quantities import parse_duration

    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--since {text}: must be a duration (1d, 90m) or a time (2026-11-23T04:00Z)") from None
    return when.timestamp() if when.tzinfo else when.replace(tzinfo=UTC).timestamp()


def _relative(path: str, root: str) -> str:
    """A path as the ledger has it: relative to the root, however it was typed."""
    return path.removeprefix(root).strip("/") if path.startswith(root) else path.removeprefix("./").rstrip("/")
