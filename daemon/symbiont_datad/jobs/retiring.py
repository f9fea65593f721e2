"""One rule of retention, from the list of files to their end: for good, or in the quarantine until the undo window is
over.
"""

import errno
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from symbiont_datad.errors import DatadError
from symbiont_datad.fsops.aside import Aside, aside, record_of
from symbiont_datad.fsops.cells import REMOVED, remove_cell
from symbiont_datad.fsops.remove import Failure, remove, remove_directories
from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.broken import broken_ones
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.listing import Keeping, Listing, list_for
from symbiont_datad.jobs.packing import pack_days
from symbiont_datad.jobs.removal import Book, carry_out
from symbiont_datad.jobs.tally import Tally, tell
from symbiont_datad.layout import Layout
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.retention.plan import Removal, plan
from symbiont_datad.retention.rules import Rule
from symbiont_datad.retention.units import Unit

_UNLINKERS = 8  # threads: an unlink waits for the disk; a rename between directories for no more than one at a time
_DIRECTORIES = 20  # whole directories between two looks at `stopping()`: each may hold thousands of files


def retire(context: JobContext, rule: Rule, keeping: Keeping, book: Book, tally: Tally, *, undo: bool) -> None:
    """Apply one rule: list, plan, remove, tell. With `undo` what goes can be brought back, but for what is in a cache.

    Raises UnsafePath when the rule's directory can't be reached.
    """
    context.progress.begin(f"look at {rule.directory}")
    listing = list_for(context.layout, rule)
    tally.findings += listing.findings()
    keeping.leave_undone(listing)
    stay = keeping.always(rule, listing)
    if rule.broken:
        _retire_broken(context, rule, listing, stay, keeping, book, tally)
    removals = planned(context, rule, listing, stay, keeping, tally)
    may_go, waiting, why = held_by_snapshot(context, rule, removals)
    if waiting:
        _tell_of_waiting(rule, waiting, why, tally)
    if may_go:
        take_away(context, rule, listing, may_go, book, tally, undo=undo and not rule.cache)
    if rule.pack_after_s is not None and not tally.interrupted:
        gone = {removal.unit.path for removal in removals}
        left = [unit for unit in listing.units if unit.path not in gone and unit.path not in stay]
        pack_days(context, rule, left, keeping, book, tally)


def planned(
    context: JobContext, rule: Rule, listing: Listing, stay: Collection[str], keeping: Keeping, tally: Tally
) -> list[Removal]:
    """What the rule removes, with open files kept: they count towards the caps. Live logs are kept in any case."""
    removals = plan(rule, listing.units, context.now, protected=stay)
    if not removals or not (context.settings.keep_if_open or rule.keep_newest):
        return removals
    opened = keeping.open_ones(listing.units)
    if not opened:
        return removals
    tally.kept_open += sum(removal.unit.path in opened for removal in removals)
    return plan(rule, listing.units, context.now, protected={*stay, *opened})


def held_by_snapshot(
    context: JobContext, rule: Rule, removals: list[Removal], *, always: bool = False
) -> tuple[list[Removal], list[Removal], str]:
    """The removals that may be made, those that wait because no backup holds the content of all their files, and why.

    What is in a cache can be made again and needs none. `always`: whatever `retention.require_snapshot` says.
    """
    if not removals or rule.cache or not (context.settings.require_snapshot or always):
        return removals, [], ""
    from symbiont_datad.jobs.holding import held  # only these rules need the repository and its libraries

    members = [entry for removal in removals for entry in removal.unit.members]
    try:
        safe = held(context, rule.directory, members)
    except DatadError as error:
        return [], removals, str(error)
    may_go, waiting = list[Removal](), list[Removal]()
    for removal in removals:
        is_held = all(entry.path in safe for entry in removal.unit.members)
        (may_go if is_held else waiting).append(removal)
    return may_go, waiting, "no backup has them"


def actions_of(rule: Rule, removals: Iterable[Removal], *, undo: bool) -> list[Action]:
    """What is planned, as actions."""
    how = "quarantined" if undo else "removed"
    found = []
    for (path, _, size, members, whole), reason in removals:
        kind = f"{'directory' if whole else 'file'}_{how}"
        text = f"{reason} ({len(members):,} file{'s' if len(members) > 1 else ''})" if whole else reason
        found.append(Action(kind, path, rule.name, text, size))
    return found


def take_away(
    context: JobContext, rule: Rule, listing: Listing, removals: list[Removal], book: Book, tally: Tally, *, undo: bool
) -> None:
    """Carry the plan out, and remove the directories that are empty then; in a dry run only say so."""
    # In the order of the paths: the ledger's index is in that order, and each directory is pinned once.
    ordered = sorted(removals, key=lambda removal: removal.unit.path)
    files = [removal for removal in ordered if not removal.unit.whole]
    directories = [removal for removal in ordered if removal.unit.whole]
    if context.dry_run:
        actions = actions_of(rule, [*files, *directories], undo=undo)
        actions += _of_directories(_emptied(context.layout, listing, {one.unit.path for one in files}), rule)
        tally.actions += actions
        return
    actions, failures = _carried_out(context, rule, files, directories, book, tally, undo=undo)
    tally.add_failures(failures)
    gone = {action.path for action in actions if action.kind.startswith("file")}
    actions += _remove_emptied(context, rule, _emptied(context.layout, listing, gone), book, tally)
    tally.actions += actions
    event = "cache_trimmed" if rule.cache else "retention_applied"
    removed = [action for action in actions if action.kind != "directory_removed" or action.bytes]
    tell(context, tally, event, removed, path=rule.directory, rule=rule.name)


def _carried_out(
    context: JobContext,
    rule: Rule,
    files: list[Removal],
    directories: list[Removal],
    book: Book,
    tally: Tally,
    *,
    undo: bool,
) -> tuple[list[Action], list[Failure]]:
    tree = context.layout.tree
    entries = [removal.unit.members[0] for removal in files]
    units = [removal.unit for removal in directories]
    actions, failures = list[Action](), list[Failure]()
    with ExitStack() as stack:
        cell: Aside | None = None
        if undo or units:
            try:
                cell = stack.enter_context(_cell(context, rule, [*files, *directories] if undo else directories, undo))
            except OSError as error:
                if not undo and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return _in_place(context, [*files, *directories], rule, book, tally)
                detail = f"what goes can't be kept to be brought back: {error.strerror or error}"
                remedy = "`retention.undo_window = 0` lets things go without it"
                tally.findings.append(Finding("not_cleaned", rule.directory, Severity.WARNING, detail, remedy))
                return [], []
        if entries:
            work = cell.move if undo and cell else partial(remove, tree)
            told = actions_of(rule, files, undo=undo)
            done = carry_out(context, book, entries, told, work, threads=1 if undo else _UNLINKERS)
            actions += done.actions
            failures += done.failures
            tally.interrupted |= done.interrupted
        if units and cell and not tally.interrupted:
            told = actions_of(rule, directories, undo=undo)
            done = carry_out(context, book, units, told, partial(_move_all, cell), batch=_DIRECTORIES)
            actions += done.actions
            failures += done.failures
            tally.interrupted |= done.interrupted
        name = cell.name if cell else ""
    tally.undoable |= undo and bool(actions)
    if units and not undo and (left := remove_cell(tree, name, context.stopping)):
        # What is left of it lies in the quarantine, and goes with the next run.
        tally.add_left(f"{QUARANTINE}/{name}", left)
    return actions, failures


def _in_place(
    context: JobContext, removals: list[Removal], rule: Rule, book: Book, tally: Tally
) -> tuple[list[Action], list[Failure]]:
    """Remove directories file by file, where they are: the disk is too full even for a cell of the quarantine."""
    tree = context.layout.tree

    def work(units: Sequence[Unit]) -> list[Failure]:
        failures = []
        for unit in units:
            left = remove(tree, sorted(unit.members))
            if unit.whole and not left:
                left = remove_directories(tree, _directories_of(unit))
            failures += [Failure(unit.path, left[0].reason, left[0].changed)] if left else []
        return failures

    units = [removal.unit for removal in removals]
    done = carry_out(context, book, units, actions_of(rule, removals, undo=False), work, batch=_DIRECTORIES)
    tally.interrupted |= done.interrupted
    return done.actions, done.failures


def _directories_of(unit: Unit) -> set[str]:
    """The directories that the members of a whole unit are in, and those between them and the unit."""
    found = {unit.path}
    for entry in unit.members:
        folder = _folder(entry.path)
        while folder not in found:
            found.add(folder)
            folder = _folder(folder)
    return found


def _cell(context: JobContext, rule: Rule, removals: Sequence[Removal], undo: bool) -> AbstractContextManager[Aside]:
    window = context.settings.undo_window_s if undo else 0.0
    return aside(
        context.layout.tree,
        record_of(
            REMOVED,
            path=rule.directory,
            rule=rule.name,
            reason=f"removed by the rule {rule.name}",
            now=context.now,
            until=context.now + window,
            files=sum(len(removal.unit.members) for removal in removals),
            size=sum(removal.unit.size for removal in removals),
        ),
        context.now,
    )


def _move_all(cell: Aside, units: Sequence[Unit]) -> list[Failure]:
    moved = (cell.move_directory(unit.path, unit.members) for unit in units)
    return [failure for failure in moved if failure is not None]


def _retire_broken(
    context: JobContext,
    rule: Rule,
    listing: Listing,
    stay: Collection[str],
    keeping: Keeping,
    book: Book,
    tally: Tally,
) -> None:
    """Remove the damaged files of a cache, before anything is counted."""
    removals = broken_ones(context, rule, listing.units, stay)
    if not removals:
        return
    opened = keeping.open_ones([removal.unit for removal in removals])
    removals = [removal for removal in removals if removal.unit.path not in opened]
    take_away(context, rule, listing, removals, book, tally, undo=False)
    gone = {removal.unit.path for removal in removals}
    listing.units = [unit for unit in listing.units if unit.path not in gone]
    listing.entries = [entry for entry in listing.entries if entry.path not in gone]


# Directories in which nothing is left


def _emptied(layout: Layout, listing: Listing, removed: set[str]) -> list[str]:
    """The directories that are empty without what was removed: below an open directory, never a declared one."""
    if not removed:
        return []
    places = {row.path for row in layout.directories if row.open}
    left = {_folder(entry.path) for entry in listing.entries if entry.path not in removed}
    left |= {_folder(path) for path in (*listing.others, *listing.unread)} | set(listing.unread)
    touched = {_folder(path) for path in removed}
    emptied: list[str] = []
    for path in sorted(listing.directories, key=lambda path: (-path.count("/"), path)):
        parent = _folder(path)
        if path in left or path not in touched or path in layout.by_path or not _below(parent, places):
            left.add(parent)
        else:
            emptied.append(path)
            touched.add(parent)
    return emptied


def _remove_emptied(context: JobContext, rule: Rule, emptied: list[str], book: Book, tally: Tally) -> list[Action]:
    if not emptied or tally.interrupted:
        return []
    actions = _of_directories(emptied, rule)
    rows = book.plan(actions)
    failures = remove_directories(context.layout.tree, emptied)
    kept = {failure.path for failure in failures}
    done = [action for action in actions if action.path not in kept]
    book.confirm(rows, done, failures)
    tally.add_failures(failures)
    return done


def _of_directories(emptied: Iterable[str], rule: Rule) -> list[Action]:
    return [Action("directory_removed", path, rule.name, "nothing is left in it") for path in emptied]


def _below(path: str, places: set[str]) -> bool:
    while path:
        if path in places:
            return True
        path = _folder(path)
    return False


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _tell_of_waiting(rule: Rule, waiting: list[Removal], why: str, tally: Tally) -> None:
    members: list[Entry] = [entry for removal in waiting for entry in removal.unit.members]
    tally.waiting += len(waiting)
    tally.findings.append(
        Finding(
            "retention_waits",
            rule.directory,
            Severity.WARNING,
            f"{len(members)} files ({format_size(sum(entry.size for entry in members))}) would go by the rule "
            f"{rule.name!r}, but {why}",
            "the next backup takes them; `retention.require_snapshot = false` lets them go without one",
        )
    )
