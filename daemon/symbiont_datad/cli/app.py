"""The root of the commands: the options before them, and the list of them."""

from pathlib import Path
from typing import Annotated

import typer

import symbiont_datad
from symbiont_datad.cli import (
    check,
    config,
    events,
    health,
    history,
    jobs,
    key,
    migrate,
    repository,
    restore,
    run,
    service,
    snapshots,
    status,
    templates,
    tree,
    vectors,
)
from symbiont_datad.cli.invocation import Invocation

app = typer.Typer(
    name="symbiont-datad",
    help="Keeps the Symbiont data directory: creates it, keeps it as declared, and explains what it did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"symbiont-datad {symbiont_datad.__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    config_file: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The settings file, instead of the usual places.")
    ] = None,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before every command."""
    ctx.obj = Invocation(config_file, root)


app.command()(run.run)
app.command()(tree.init)
app.command()(check.check)
app.command()(status.status)
app.command()(events.events)
app.command()(jobs.sweep)
app.command()(jobs.rotate)
app.command()(jobs.clean)
app.command()(jobs.backup)
app.command()(snapshots.snapshots)
app.command()(restore.restore)
app.command()(jobs.verify)
app.command()(jobs.prune)
app.command()(history.versions)
app.command()(history.diff)
app.add_typer(templates.app)
app.add_typer(vectors.app)
health.add_to(app)
app.command()(migrate.migrate)
app.add_typer(config.app)
app.add_typer(repository.app)
app.add_typer(key.app)
app.add_typer(service.app)
