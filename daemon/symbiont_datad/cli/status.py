"""`status`: one screen that tells how things are."""

import time
from typing import Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation


def status(
    ctx: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What the daemon does: usage, jobs, last and next runs, warnings."""
    from symbiont_datad.cli.status_screen import document, screen
    from symbiont_datad.status import collect

    settings = invocation(ctx).load().settings
    while True:
        found = collect(str(settings.root_data_dir), settings.daemon_dir)
        if as_json:
            show.document(document(found))
        else:
            text = "\n".join(screen(found, time.time()))
            typer.echo(f"\x1b[H\x1b[2J{text}" if watch and show.on_terminal() else text)
        if not watch:
            return
        time.sleep(2.0)
