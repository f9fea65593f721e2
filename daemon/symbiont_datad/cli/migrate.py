"""`migrate`: bring data of before the tree over, look before, and go back."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad import events
from symbiont_datad.cli import migrate_screen as screen
from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import invocation
from symbiont_datad.cli.jobs import JsonLines, stoppable
from symbiont_datad.cli.progress import watched
from symbiont_datad.errors import ExitCode, SettingsError
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, JobReport, Outcome, printable

if TYPE_CHECKING:
    from symbiont_datad.jobs.context import JobContext, JobSettings
    from symbiont_datad.migrate.detect import Detected
    from symbiont_datad.migrate.legacy import Source
    from symbiont_datad.migrate.migration import Planned
    from symbiont_datad.migrate.target import Compat

_EXIT = {Outcome.DONE: ExitCode.DONE, Outcome.LEFT: ExitCode.LEFT, Outcome.INTERRUPTED: ExitCode.INTERRUPTED}
_COMPAT = ("none", "symlink", "mirror")


def migrate(
    ctx: typer.Context,
    places: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="DIR", help="Bring this directory over, instead of what is found."),
    ] = None,
    compat: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How the old place goes on working: `symlink`, a link to the new one; `mirror`, the daemon brings "
            "over what is still written there; `none`.",
        ),
    ] = None,
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="With `mirror`: what is new in the tree goes to the old place as well.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="End it: remove what is left in the old place once a snapshot holds it.")
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="With --finish: move it to quarantine instead.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take it all back, unless it was finished.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, file by file; touch nothing.")] = False,
    as_json: JsonLines = False,
) -> None:  # fmt: skip
    """Bring legacy data into the tree. The old place is left alone until --finish, and --undo takes everything back.

    Without options it shows what there is, and asks. Exit code 3 when something is left to look at.
    """
    _refuse_odd(places, compat, both_ways=both_ways, finish=finish, quarantine=quarantine, undo=undo)
    from symbiont_datad.jobs.context import job_settings

    settings = job_settings(invocation(ctx).load().settings)
    events.silence()
    if undo:
        _undo(settings, dry_run, as_json)
    elif finish:
        _finish(settings, dry_run, as_json, yes=yes, to_quarantine=quarantine)
    else:
        _migrate(settings, places or [], compat, both_ways, dry_run, as_json, yes=yes)


def _refuse_odd(
    places: list[Path] | None, compat: str | None, *, both_ways: bool, finish: bool, quarantine: bool, undo: bool
) -> None:
    if compat is not None and compat not in _COMPAT:
        raise SettingsError(f"--compat must be one of {', '.join(_COMPAT)}, and is {printable(compat)}")
    if both_ways and compat != "mirror":
        raise SettingsError("--both-ways goes with --compat mirror")
    if quarantine and not finish:
        raise SettingsError("--quarantine goes with --finish")
    if (finish and undo) or ((finish or undo) and (places or compat)):
        raise SettingsError("--finish and --undo stand alone: they go by the journal of the migration")


# Bringing


def _migrate(
    settings: "JobSettings",
    places: Sequence[Path],
    compat: str | None,
    both_ways: bool,
    dry_run: bool,
    as_json: bool,
    *,
    yes: bool,
) -> None:
    from symbiont_datad.migrate.detect import detect, home_of
    from symbiont_datad.migrate.target import Compat

    target = settings.migration
    found = detect(target, os.getcwd(), home_of(os.environ), os.environ) if not places else None
    sources = _named(places, settings) if found is None else list(found.sources)
    if found is not None and not as_json:
        screen.show_found(found)
    if not sources:
        if as_json:
            show.last_line(
                screen.document(
                    target.root, found, JobReport("migrate", Outcome.DONE, time.time(), 0.0), dry_run=dry_run
                )
            )
        elif found is not None and not found.candidates:
            show.line("no legacy data was found; --from DIR names a place")
        return
    if dry_run or not yes:
        planned = _rehearse(settings, sources, as_json)
        if dry_run:
            _tell_plan(settings, found, planned, as_json)
            return
        if not as_json:
            screen.summarize(planned)
        if not agreed("bring it over", as_json) and any(one.plan.copies for one in planned):
            raise typer.Exit(int(ExitCode.LEFT))
    wanted = Compat(compat) if compat is not None else _configured(settings)
    _bring(settings, found, sources, wanted, both_ways or (compat is None and target.both_ways), as_json)


def _configured(settings: "JobSettings") -> "Compat | None":
    """What the settings ask for; None: as it is (a place that was linked stays so)."""
    from symbiont_datad.migrate.target import Compat

    compat = settings.migration.compat
    return compat if compat is not Compat.NONE else None


def _named(places: Sequence[Path], settings: "JobSettings") -> "list[Source]":
    """The places that the user named. Raises Refused."""
    from symbiont_datad.migrate.detect import named_sources
    from symbiont_datad.migrate.migration import refuse_overlap, source_path

    sources: list[Source] = []
    for place in places:
        path = source_path(os.path.abspath(os.path.expanduser(place)), settings.migration)
        refuse_overlap(path, settings.migration)
        sources += named_sources(path)
    return sources


def agreed(what: str, as_json: bool) -> bool:
    """Ask whether to do it; where nobody can answer, say how to say so before."""
    if as_json or not sys.stdin.isatty():
        show.note(f"symbiont-datad: nothing was done; --yes to {what}, --dry-run for the plan, file by file")
        return False
    return typer.confirm(f"{what[:1].upper()}{what[1:]}?")


def _rehearse(settings: "JobSettings", sources: "Sequence[Source]", as_json: bool) -> "list[Planned]":
    from symbiont_datad.jobs.context import Progress
    from symbiont_datad.migrate.journal import Journal
    from symbiont_datad.migrate.migration import rehearse

    target, progress = settings.migration, Progress("look")
    journal = Journal(target.journal_path, make=False) if target.journal_path.exists() else None
    try:
        with stoppable() as stop, watched(progress, as_json):
            return rehearse(sources, target, journal, progress, stop.is_set)
    finally:
        if journal is not None:
            journal.close()


def _tell_plan(settings: "JobSettings", found: "Detected | None", planned: "Sequence[Planned]", as_json: bool) -> None:
    from symbiont_datad.jobs.context import JobContext
    from symbiont_datad.jobs.migrate import rehearsed, report
    from symbiont_datad.ledger import Ledger

    with Ledger(None) as ledger:
        context = JobContext(settings, ledger, 0, time.time(), True)
        done = report(context, [rehearsed(one) for one in planned], with_actions=True)
    if as_json:
        show.last_line(screen.document(settings.migration.root, found, done, dry_run=True))
    else:
        screen.tell_plan(planned, done)


@contextmanager
def _context(settings: "JobSettings", as_json: bool, *, dry_run: bool = False) -> "Iterator[JobContext]":
    """A run of the job, with its lock and its row in the ledger."""
    from symbiont_datad.fsops.lock import hold
    from symbiont_datad.jobs.context import JobContext, Progress
    from symbiont_datad.jobs.runner import open_ledger
    from symbiont_datad.ledger import Ledger

    progress, now = Progress("migrate"), time.time()
    with stoppable() as stop:
        if dry_run:
            with Ledger.for_reading(settings.ledger_path) as ledger:
                yield JobContext(settings, ledger, 0, now, True, stop.is_set, progress=progress)
            return
        with (
            hold(settings.lock_path("migrate"), "another migrate is running"),
            open_ledger(settings) as ledger,
            watched(progress, as_json),
        ):
            try:
                run = ledger.begin_run("migrate", now)
            except LedgerError:
                run = 0
            yield JobContext(settings, ledger, run, now, False, stop.is_set, progress=progress)


def _bring(
    settings: "JobSettings",
    found: "Detected | None",
    sources: "Sequence[Source]",
    compat: "Compat | None",
    both_ways: bool,
    as_json: bool,
) -> None:
    from symbiont_datad.jobs.migrate import bring, report

    with _context(settings, as_json) as context:
        results = bring(context, sources, compat, both_ways=both_ways)
        done = report(context, results, with_actions=as_json)
        _write_down(context, done)
    if as_json:
        show.last_line(screen.document(settings.migration.root, found, done, dry_run=False))
    else:
        screen.tell(done, settings.migration.root, time.time() - context.now)
    raise typer.Exit(int(_EXIT[done.outcome]))


def _write_down(context: "JobContext", done: JobReport) -> None:
    from dataclasses import replace

    try:
        context.ledger.replace_findings("migrate", done.findings, context.now)
        context.ledger.finish_run(context.run, replace(done, duration_s=time.time() - context.now))
    except LedgerError:
        return


# Taking back, and ending


def _undo(settings: "JobSettings", dry_run: bool, as_json: bool) -> None:
    from symbiont_datad.events import emit
    from symbiont_datad.migrate.journal import Journal
    from symbiont_datad.migrate.migration import Refused, alone
    from symbiont_datad.migrate.undo import undo

    target = settings.migration
    if not target.journal_path.exists():
        ended = sorted(target.directory.glob("journal-*.db"), key=lambda path: path.stat().st_mtime)
        how = f"; the last one was {ended[-1].name.split('-')[1]}" if ended else ""
        raise Refused(f"there is no migration to take back{how}")
    with _context(settings, as_json, dry_run=dry_run) as context, alone(target):
        journal = Journal(target.journal_path)
        if dry_run:
            with journal:
                screen.tell_undo_plan(journal, as_json)
            return
        done: list[Action] = []

        def on_actions(actions: Sequence[Action]) -> None:
            done.extend(actions)
            try:
                context.ledger.record(actions, context.now, context.run)
            except LedgerError:
                return

        undone = undo(target, journal, on_actions)
        emit("migration_undone", job="migrate", removed=undone.removed, restored=undone.restored)
        outcome = Outcome.LEFT if undone.findings else Outcome.DONE
        _write_down(context, JobReport("migrate", outcome, context.now, 0.0, tuple(done), tuple(undone.findings)))
    screen.tell_undone(undone, done, as_json)
    raise typer.Exit(int(ExitCode.LEFT if undone.findings else ExitCode.DONE))


def _finish(settings: "JobSettings", dry_run: bool, as_json: bool, *, yes: bool, to_quarantine: bool) -> None:
    from symbiont_datad.jobs.finish import finish

    if not yes and not dry_run:
        with _context(settings, as_json, dry_run=True) as context:
            planned = finish(context, to_quarantine=to_quarantine)
        if not as_json:
            screen.tell_finished(planned, dry_run=True)
        if not agreed("end the migration", as_json):
            raise typer.Exit(int(ExitCode.LEFT))
    with _context(settings, as_json, dry_run=dry_run) as context:
        finished = finish(context, to_quarantine=to_quarantine)
        if not dry_run:
            outcome = Outcome.LEFT if finished.left else Outcome.DONE
            counts = {"removed": finished.removed, "bytes": finished.bytes, "left": len(finished.left)}
            done = JobReport("migrate", outcome, context.now, 0.0, counts=counts, actions_total=finished.removed)
            _write_down(context, done)
    if as_json:
        show.last_line(
            {
                "dry_run": dry_run,
                "removed": finished.removed,
                "bytes": finished.bytes,
                "snapshot": finished.snapshot or None,
                "quarantined": finished.quarantined,
                "actions": [show.action(one) for one in finished.actions],
                "left": [{"path": printable(path), "reason": reason} for path, reason in finished.left],
            }
        )
    else:
        screen.tell_finished(finished, dry_run=dry_run)
    raise typer.Exit(int(ExitCode.LEFT if finished.left and not dry_run else ExitCode.DONE))
