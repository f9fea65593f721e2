"""`status`: one screen that tells how things are."""

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import ExitCode

if TYPE_CHECKING:
    from symbiont_datad.cli.status_screen import Terminal
    from symbiont_datad.status import Status

_EVERY_S = 2.0
_WIDE = 160
"""Columns of a pipe, where nothing is cut that a person may look for."""


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout; with --watch one a line.")
    ] = False,
) -> None:
    """How things are: what to look at first, then usage, snapshots, contexts, jobs."""
    from symbiont_datad.status import collect

    root, daemon_dir = invocation(ctx).places()
    try:
        while True:
            found = collect(str(root), daemon_dir)
            _show(found, time.time(), watch, as_json)
            if not watch:
                return
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _show(found: "Status", now: float, watch: bool, as_json: bool) -> None:
    if as_json:
        from symbiont_datad.cli.status_document import document

        (show.one_line if watch else show.document)(document(found, now))
        return
    from symbiont_datad.cli.status_screen import screen

    lines = list(screen(found, now, terminal()))
    if not watch or not show.moves_cursor():
        typer.echo("\n".join([*lines, ""] if watch else lines))
        return
    # Over what is there, line by line: nothing flickers. What does not fit is left out, or the top would scroll away.
    fits = lines[: max(shutil.get_terminal_size().lines - 1, 1)]
    typer.echo("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in fits) + "\x1b[J", nl=False)


def terminal() -> "Terminal":
    """What stdout is."""
    from symbiont_datad.cli.status_screen import Terminal

    narrow_pipe = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    width = _WIDE if narrow_pipe else shutil.get_terminal_size().columns
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return Terminal(max(width, 20), show.on_terminal(), encoding.startswith("utf"))
