"""Bringing back what a run of retention removed, from the cells of the quarantine that it left."""

from functools import partial

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.aside import Returning, bring_back, drop_if_empty, returning
from symbiont_datad.fsops.cells import Cell, cells
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.fsops.root import QUARANTINE, Tree
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.listing import UNDONE
from symbiont_datad.jobs.removal import Book, carry_out
from symbiont_datad.quantities import format_duration
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity, printable

_TOLD = 20
"""Things that can't come back, each told of; those above are counted."""


def undo(context: JobContext) -> JobReport:
    """Bring back what the run `context.undo` removed, or the last run that left something.

    What is at a place again by then stays in the quarantine, and is named. For the undo window no rule takes again what
    was brought back. Counts: `files` and `things` (a directory that comes back whole is one), `taken` places.

    Raises DatadError when there is nothing to be brought back, or the quarantine can't be read.
    """
    tree, book = context.layout.tree, Book(context)
    chosen = _chosen(tree, context.undo)
    actions: list[Action] = []
    failures: list[Failure] = []
    files, interrupted = 0, False
    for cell in chosen:
        try:
            found, taken = returning(tree, cell)
        except (OSError, UnsafePath) as error:
            raise DatadError(f"{cell.place}: {getattr(error, 'strerror', None) or error}") from None
        failures += taken
        planned = [_action(one, cell) for one in found]
        if context.dry_run:
            actions += planned
            files += sum(one.files for one in found)
            continue
        paths = [one.path for one in found]
        done = carry_out(context, book, paths, planned, partial(bring_back, tree, cell), phase="bring back")
        actions += done.actions
        failures += done.failures
        back = {action.path for action in done.actions}
        files += sum(one.files for one in found if one.path in back)
        interrupted |= done.interrupted
        drop_if_empty(tree, cell)
    book.settle()
    if actions and not context.dry_run:
        emit("removal_undone", job="undo", run=chosen[0].run, files=files, bytes=sum(one.bytes for one in actions))
    return JobReport(
        "undo",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if failures else Outcome.DONE,
        context.now,
        0.0,
        tuple(actions),
        tuple(_findings(failures)),
        {"files": files, "things": len(actions), "taken": len(failures)},
        message=_message(context, actions),
        actions_total=len(actions),
        bytes_total=sum(action.bytes for action in actions),
    )


def _chosen(tree: Tree, run: str) -> list[Cell]:
    """The cells of one run, in the order in which they were made. Raises DatadError."""
    try:
        found = [cell for cell in cells(tree) if cell.undoable]
    except (OSError, UnsafePath) as error:
        raise DatadError(f"{QUARANTINE}: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise DatadError("nothing that retention removed is in the quarantine")
    wanted = run or found[-1].run
    chosen = [cell for cell in found if cell.run == wanted]
    if not chosen:
        runs = ", ".join(dict.fromkeys(printable(cell.run) for cell in reversed(found)))
        raise DatadError(f"no run {run} has left anything in the quarantine; there are: {runs}")
    return chosen


def _action(one: Returning, cell: Cell) -> Action:
    what = f" ({one.files:,} file{'s' if one.files != 1 else ''})" if one.directory else ""
    return Action(UNDONE, one.path, printable(cell.rule), f"undone: the run {printable(cell.run)} had removed it{what}",
                  one.bytes)  # fmt: skip


def _message(context: JobContext, actions: list[Action]) -> str:
    window = context.settings.undo_window_s
    if not actions or window <= 0:
        return ""
    return f"for {format_duration(window)} no rule takes these again; after that, what the settings say holds"


def _findings(failures: list[Failure]) -> list[Finding]:
    told = failures[:_TOLD]
    findings = []
    for failure in told:
        more = len(failures) - _TOLD if failure is told[-1] and len(failures) > _TOLD else 0
        detail = f"{failure.reason} (and {more} more)" if more else failure.reason
        remedy = "move what is there, and undo again"
        findings.append(Finding("not_undone", failure.path, Severity.WARNING, detail, remedy))
    return findings
