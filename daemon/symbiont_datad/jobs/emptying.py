"""What retention takes away besides the rules: cells of the quarantine whose time is over, and days nobody wrote to."""

import os
from datetime import datetime

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.cells import cells, extent, remove_cell
from symbiont_datad.fsops.remove import remove_directories
from symbiont_datad.fsops.root import QUARANTINE, readable
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.tally import Tally
from symbiont_datad.quantities import DAY
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.retention.days import days_ahead, is_day
from symbiont_datad.retention.quarantine import Expiry, Held, expiries

EXPIRED = "quarantine_expired"


def expire(context: JobContext, book: Book, tally: Tally) -> None:
    """Remove the cells of the quarantine that have been there long enough, or are too much.

    One without a record is somebody's work under way, or what a crash left of that: it counts from its second day on.
    """
    tree = context.layout.tree
    if tally.interrupted or context.stopping():
        return
    try:
        found = cells(tree)
    except (OSError, UnsafePath) as error:
        detail = getattr(error, "strerror", None) or str(error)
        tally.findings.append(Finding("unread", QUARANTINE, Severity.WARNING, detail, "let the daemon's user read it"))
        return
    settled = [cell for cell in found if cell.kind or cell.at < context.now - DAY]
    sizes = {cell.name: extent(tree, cell.place).bytes for cell in settled}
    held = [Held(cell.name, cell.at, cell.until if cell.undoable else None, sizes[cell.name]) for cell in settled]
    going = expiries(held, context.settings.quarantine, context.now)
    empty_cells(context, going, sizes, book, tally)


def empty_cells(
    context: JobContext, going: list[Expiry], sizes: dict[str, int], book: Book, tally: Tally
) -> list[Action]:
    """Remove cells with a row each; what can't be removed is a finding. Hands back what was done, or would be."""
    done: list[Action] = []
    for one in going:
        if context.stopping():
            tally.interrupted = True
            break
        action = Action(EXPIRED, f"{QUARANTINE}/{one.name}", one.rule, one.reason, sizes.get(one.name, 0))
        if not context.dry_run:
            rows = book.plan([action])
            left = remove_cell(context.layout.tree, one.name, context.stopping)
            if left:
                if not context.stopping():
                    tally.add_left(action.path, left)
                continue  # the row stays planned: a part of it may be gone
            book.confirm(rows, [action], [])
        done.append(action)
    tally.actions += done
    tally.expired += len(done)
    if done and not context.dry_run and not tally.quiet:
        emit(EXPIRED, job=tally.job, path=QUARANTINE, cells=len(done), bytes=sum(action.bytes for action in done))
    return done


def remove_empty_days(context: JobContext, book: Book, tally: Tally) -> None:
    """Remove the directories of past days, made by the guard, to which nobody has written."""
    layout = context.layout
    if layout.days is None or tally.interrupted or context.stopping():
        return
    zone = datetime.fromtimestamp(context.now).astimezone().tzinfo
    first = min(days_ahead(context.now - DAY, zone))  # yesterday is today somewhere
    try:
        empty = _empty_days(context, layout.days, first)
    except (OSError, UnsafePath):
        return
    empty = [path for path in empty if path not in layout.by_path]
    actions = [Action("directory_removed", path, "history", "nobody wrote to it on its day") for path in empty]
    if not context.dry_run and actions:
        rows = book.plan(actions)
        failures = remove_directories(layout.tree, empty)
        kept = {failure.path for failure in failures}
        actions = [action for action in actions if action.path not in kept]
        book.confirm(rows, actions, failures)
        tally.add_failures(failures)
    tally.actions += actions


def _empty_days(context: JobContext, days: str, first: str) -> list[str]:
    """The empty directories of days before `first` that nothing has changed for a day."""
    found = []
    with context.layout.tree.directory(days) as fd, readable(".", fd) as open_fd:
        names = [name for name in os.listdir(open_fd) if is_day(name) and name < first]
        for name in sorted(names):
            try:
                with readable(name, fd) as day_fd:
                    if not os.listdir(day_fd) and os.fstat(day_fd).st_mtime < context.now - DAY:
                        found.append(f"{days}/{name}")
            except OSError:
                continue
    return found
