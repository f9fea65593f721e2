"""`run`: the daemon in the foreground."""

import typer

from symbiont_datad.cli.invocation import invocation


def run(ctx: typer.Context) -> None:
    """Keep the tree until told to stop: the daemon, in the foreground."""
    from symbiont_datad.supervisor import Supervisor

    given = invocation(ctx)
    raise typer.Exit(int(Supervisor(lambda: given.load().settings).run()))
