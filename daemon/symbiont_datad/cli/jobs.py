"""`sweep`, `rotate`, `clean`, `backup`, `verify` and `prune`: jobs, now."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.errors import DatadError, ExitCode, SettingsError
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from symbiont_datad.jobs.context import JobSettings
    from symbiont_datad.jobs.stopping import Stop

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Lines of JSON on stdout: how far it is, and last the document.")
]

_EXIT = {"done": ExitCode.DONE, "left": ExitCode.LEFT, "interrupted": ExitCode.INTERRUPTED, "failed": ExitCode.FAILED}


def sweep(ctx: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Check the agents' state, heal contexts, rotate the runtime's own backups, save what changed.

    Exit code 3: something is left, such as a damaged file of which there is no good version.
    """
    _run("sweep", ctx, dry_run, as_json)


def rotate(ctx: typer.Context, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Rotate the logs that are due now, and remove archives that the settings don't keep.

    With --dry-run: the plan, log by log, with the way of each and why. Exit code 3 when a log must be left alone.
    """
    _run("rotate", ctx, dry_run, as_json)


def clean(
    ctx: typer.Context,
    dry_run: DryRun = False,
    undo: Annotated[bool, typer.Option("--undo", help="Bring back what the last run removed.")] = False,
    of_run: Annotated[
        str, typer.Option("--run", metavar="STAMP", help="With --undo: another run, as `status` names them.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Apply the retention rules now. With --dry-run: the plan, file by file, with rule and reason of each.

    What is removed stays in the quarantine for `retention.undo_window`; --undo brings it back. Nothing that is there
    again is replaced: it is named, and stays in the quarantine (exit code 3).
    """
    if of_run and not undo:
        raise SettingsError("--run says which run to undo: give it with --undo")
    _run("undo" if undo else "clean", ctx, dry_run, as_json, undo=of_run)


def backup(ctx: typer.Context, dry_run: DryRun = False, as_json: JsonLines = False) -> None:
    """Make a snapshot of the whole tree now, then forget the old ones that the settings don't keep.

    Exit code 3 when a file could not be read, or did not hold still; the snapshot is made all the same.
    """
    _run("backup", ctx, dry_run, as_json, streams=True)


def prune(ctx: typer.Context, dry_run: DryRun = False, as_json: JsonLines = False) -> None:
    """Forget the snapshots that the settings don't keep, and free the space that only they needed.

    It tells which are kept, and by which rule. Snapshots of other hosts, and those that others made, always stay.
    """
    _run("prune", ctx, dry_run, as_json, streams=True, more=_kept)


def _kept(settings: "JobSettings", as_json: bool) -> show.Json:
    """What the settings keep, and why. Printed unless it is for JSON."""
    from symbiont_datad.jobs.archiving import KINDS
    from symbiont_datad.jobs.forgetting import decided
    from symbiont_datad.jobs.repository import opened, told
    from symbiont_datad.jobs.snapshots import readable_snapshots

    repository = opened(settings.repository)
    with told():
        snapshots, _ = readable_snapshots(repository)
    kept = [one for tag in KINDS for one in decided(settings.snapshots, snapshots, tag, time.time()).keep]
    if not as_json:
        rows = [
            (one.id[:8], show.short_time(one.snapshot.at.timestamp()), printable(",".join(one.snapshot.tags)),
             ", ".join(one.reasons))
            for one in kept
        ]  # fmt: skip
        for line in show.table([("kept", "time", "tags", "because"), *rows]) if rows else ():
            show.line(line)
    return {
        "kept": [
            {"id": one.id, "time": show.moment(one.snapshot.at.timestamp()), "reasons": list(one.reasons)}
            for one in kept
        ]
    }


def verify(
    ctx: typer.Context,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read all stored data.")] = False,
    part: Annotated[
        str,
        typer.Option(
            "--subset", metavar="PART", help="Read a part of it: 5% or 500M at random, or 1/10: part 1 of 10."
        ),
    ] = "",
    as_json: JsonLines = False,
) -> None:
    """Check the repository: its structure, a part of the data, and whether files can be restored from it.

    Without an option, it reads what has not been read for longest. Exit code 1 when there is damage: each is named,
    with what it hurts and what to do.
    """
    from random import Random

    from symbiont_datad.restic.subset import subset

    if read_data and part:
        raise SettingsError("how much? give at most one of --read-data and --subset")
    try:
        subset(part or "all", Random())  # noqa: S311  # a choice of packs
    except ValueError as error:
        raise SettingsError(f"--subset {error}") from None
    _run("verify", ctx, False, as_json, streams=True, part="all" if read_data else part)


def optimize(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Only these, whatever can be freed; else those where it pays.", show_default=False
        ),
    ] = None,
    no_snapshot: Annotated[
        bool, typer.Option("--no-snapshot", help="Make no snapshot before, where none can be made.")
    ] = False,
    dry_run: DryRun = False,
    as_json: JsonLines = False,
) -> None:
    """Give back the space that collections don't need, each after a snapshot of it.

    Lance tables are compacted and lose old versions, SQLite databases are vacuumed, while others read them. Exit code 3
    when one could not be optimised, with the reason.
    """
    _run("optimize", ctx, dry_run, as_json, streams=True, names=tuple(names or ()), no_snapshot=no_snapshot)


def _run(
    name: str,
    ctx: typer.Context,
    dry_run: bool,
    as_json: bool,
    *,
    streams: bool = False,
    part: str = "",
    names: tuple[str, ...] = (),
    no_snapshot: bool = False,
    undo: str = "",
    more: "Callable[[JobSettings, bool], show.Json] | None" = None,
) -> None:
    from symbiont_datad import events
    from symbiont_datad.cli.progress import watched
    from symbiont_datad.jobs.context import Progress, job_settings
    from symbiont_datad.jobs.runner import open_ledger, run_here
    from symbiont_datad.ledger import Ledger

    settings = job_settings(invocation(ctx).load().settings)
    events.silence()
    progress = Progress(name)
    with (
        stoppable() as stop,
        Ledger.for_reading(settings.ledger_path) if dry_run else open_ledger(settings) as ledger,
        watched(progress, as_json and streams),
    ):
        report = run_here(
            name,
            settings,
            ledger,
            dry_run=dry_run,
            stopping=stop.is_set,
            progress=progress,
            subset=part,
            undo=undo,
            names=names,
            no_snapshot=no_snapshot,
        )
        if not dry_run and ledger.path != settings.ledger_path:
            show.note(f"symbiont-datad: {settings.ledger_path}: can't be opened, so `events` won't tell of this run")
    failed = report.outcome == "failed"
    further = more(settings, as_json) if more is not None and not failed else {}
    if as_json:
        show.report_document(report, settings.layout.root, dry_run, streams=streams, further=further)
    elif failed:
        failure = DatadError(f"{name}: {report.message}")
        failure.exit_code = ExitCode(report.exit_code)
        raise failure
    else:
        show.report(report, dry_run)
    if failed:
        raise typer.Exit(int(report.exit_code))
    if name == "verify" and any(finding.severity == "error" for finding in report.findings):
        raise typer.Exit(int(ExitCode.FAILED))
    raise typer.Exit(int(_EXIT[report.outcome]))


@contextmanager
def stoppable() -> Iterator["Stop"]:
    """A flag that Ctrl-C or SIGTERM sets: the job ends between two steps. The second time ends it at once."""
    from symbiont_datad.jobs.stopping import Stop

    stop = Stop()

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
