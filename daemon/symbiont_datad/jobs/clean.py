"""Retention: removes what the rules of the layout say, and nothing else."""

from datetime import UTC, datetime

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.memory import collector_at_rest
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.emptying import expire, remove_empty_days
from symbiont_datad.jobs.listing import Keeping, refusal
from symbiont_datad.jobs.relieve import is_pressed, make_room, tell_of_room, write_down
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.retiring import retire
from symbiont_datad.jobs.tally import Tally
from symbiont_datad.report import JobReport


def clean(context: JobContext) -> JobReport:
    """Apply every rule of the layout, empty the quarantine of what has been there long enough, and make room if the
    disk is nearly full. For the counts see `Tally.report`.

    While the disk is nearly full nothing is kept to be brought back: that would free no space.
    """
    tally, book, keeping = Tally("clean"), Book(context), Keeping(context)
    undo = context.settings.undo_window_s > 0 and not is_pressed(context)
    for rule in context.layout.rules:
        if context.stopping():
            tally.interrupted = True
        if tally.interrupted:
            break
        try:
            with collector_at_rest():
                retire(context, rule, keeping, book, tally, undo=undo)
        except UnsafePath as error:
            tally.findings.append(refusal(rule, error))
    remove_empty_days(context, book, tally)
    expire(context, book, tally)
    before = len(tally.actions)
    make_room(context, keeping, book, tally)
    write_down(context, book, tally)
    tell_of_room(context, tally, tally.actions[before:])
    return tally.report(context, _message(context, tally))


def _message(context: JobContext, tally: Tally) -> str:
    if not tally.undoable:
        return ""
    until = datetime.fromtimestamp(context.now + context.settings.undo_window_s, UTC).strftime("%Y-%m-%d %H:%MZ")
    return f"until {until} `symbiont-datad clean --undo` brings back what went into the quarantine"
