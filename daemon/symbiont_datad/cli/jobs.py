"""`sweep`, `clean`, `backup` and `prune`: jobs, now."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import DatadError, ExitCode

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Lines of JSON on stdout: how far it is, and last the document.")
]

_EXIT = {"done": ExitCode.DONE, "left": ExitCode.LEFT, "interrupted": ExitCode.INTERRUPTED, "failed": ExitCode.FAILED}


def sweep(ctx: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Check the agents' state now, and rotate the runtime's own backups. Exit code 3 when a file is damaged."""
    _run("sweep", ctx, dry_run, as_json)


def clean(ctx: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Apply the retention rules now. With --dry-run: the plan, file by file, with the reason of each."""
    _run("clean", ctx, dry_run, as_json)


def backup(ctx: typer.Context, dry_run: DryRun = False, as_json: JsonLines = False) -> None:
    """Make a snapshot of the whole tree now, then forget the old ones that the settings don't keep.

    Exit code 3 when a file could not be read, or did not hold still; the snapshot is made all the same.
    """
    _run("backup", ctx, dry_run, as_json, streams=True)


def prune(ctx: typer.Context, dry_run: DryRun = False, as_json: JsonLines = False) -> None:
    """Forget the snapshots that the settings don't keep, and free the space that only they needed."""
    _run("prune", ctx, dry_run, as_json, streams=True)


def _run(name: str, ctx: typer.Context, dry_run: bool, as_json: bool, *, streams: bool = False) -> None:
    from symbiont_datad.cli.progress import watched
    from symbiont_datad.jobs.context import Progress, job_settings
    from symbiont_datad.jobs.runner import open_ledger, run_here
    from symbiont_datad.ledger import Ledger

    settings = job_settings(invocation(ctx).load().settings)
    show.quiet_log()
    progress = Progress(name)
    with (
        stoppable() as stop,
        Ledger.for_reading(settings.ledger_path) if dry_run else open_ledger(settings) as ledger,
        watched(progress, as_json) if streams else nullcontext(),
    ):
        report = run_here(name, settings, ledger, dry_run=dry_run, stopping=stop.is_set, progress=progress)
    if as_json:
        show.report_document(report, settings.layout.root, dry_run, streams=streams)
    elif report.outcome == "failed":
        failure = DatadError(f"{name}: {report.message}")
        failure.exit_code = ExitCode(report.exit_code)
        raise failure
    else:
        show.report(report, dry_run)
    raise typer.Exit(int(report.exit_code if report.outcome == "failed" else _EXIT[report.outcome]))


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets: the job ends between two steps. The second time ends it at once."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
