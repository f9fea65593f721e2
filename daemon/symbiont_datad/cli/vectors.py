"""`vectors`: the collections, and `vectors optimize`."""

from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import jobs, show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import ExitCode
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Severity, printable

if TYPE_CHECKING:
    from symbiont_datad.jobs.collections import Collection

app = typer.Typer(name="vectors", help="The vector collections, and their care.", invoke_without_command=True)
app.command("optimize")(jobs.optimize)


@app.callback()
def vectors(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the collections and indexes: engine, rows, size, and what could be freed.

    Nothing is changed. Exit code 3 when something is not as it should be with one of them.
    """
    if ctx.invoked_subcommand is not None:
        return
    import time

    from symbiont_datad.jobs.collections import survey
    from symbiont_datad.jobs.context import JobContext, job_settings
    from symbiont_datad.jobs.metadata import read_documents, stores_of
    from symbiont_datad.jobs.vectors import last_optimised
    from symbiont_datad.layout import Category
    from symbiont_datad.ledger import Ledger

    show.quiet_log()
    settings = job_settings(invocation(ctx).load().settings)
    with Ledger.for_reading(settings.ledger_path) as ledger:
        context = JobContext(settings, ledger, 0, time.time(), dry_run=True)
        known = read_documents(settings.layout.tree, settings.layout.path_of(Category.VECTOR_DB, "metadata"))
        found = survey(context, stores_of(known.values()))
        optimised = last_optimised(ledger)
    if as_json:
        show.document(
            {
                "root": settings.layout.root,
                "collections": [_record(one, optimised.get(one.shown)) for one in found.collections],
                "findings": [show.finding(one) for one in found.findings],
            }
        )
    else:
        head = (
            "name",
            "place",
            "engine",
            "rows",
            "dim",
            "versions",
            "files",
            "size",
            "free",
            "changed",
            "optimised",
        )
        rows = [_row(one, optimised.get(one.shown)) for one in found.collections]
        for line in show.table([head, *rows], right={3, 4, 5, 6, 7, 8}) if rows else ["there is no collection"]:
            show.line(line)
        for one in found.findings:
            show.line(show.finding_sentence(one))
    if any(one.severity is not Severity.INFO for one in found.findings):
        raise typer.Exit(int(ExitCode.LEFT))


def _record(one: "Collection", optimised_at: float | None) -> show.Json:
    from symbiont_datad.jobs.metadata import describe

    return describe(one, optimised_at)


def _row(one: "Collection", optimised_at: float | None) -> tuple[str, ...]:
    place = "extra" if one.beside else one.place
    figures = ["–" if figure is None else f"{figure:,}" for figure in (one.rows, one.dimension, one.versions)]
    sizes = format_size(one.bytes), format_size(one.reclaimable) if one.reclaimable else "–"
    times = [show.short_time(at) if at else "–" for at in (one.changed_at, optimised_at)]
    return printable(one.name), place, one.engine, *figures, f"{one.files:,}", *sizes, *times
