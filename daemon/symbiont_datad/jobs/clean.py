"""Retention: removes what the rules of the layout say, and nothing else."""

import gc
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.opened import OpenFiles, identity, open_files
from symbiont_datad.fsops.remove import Failure, remove_directories
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.removal import Book, Planned, remove_recorded
from symbiont_datad.layout import Category, Layout
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity
from symbiont_datad.retention.plan import LastUse, Removal, plan
from symbiont_datad.retention.rules import Rule

FINDINGS_PER_RULE = 20
"""Files that could not be removed, each told of; those above are counted."""


@dataclass(slots=True)
class _Tally:
    """What a run has done so far."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    kept_open: int = 0
    waiting: int = 0
    changed: int = 0
    failed: int = 0
    directories: int = 0
    interrupted: bool = False


def clean(context: JobContext) -> JobReport:
    """Apply every rule of the layout. Counts: `removed` files, `removed_directories`; `kept_open`: a process has them
    open; `waiting`: no snapshot holds them; `changed` between plan and removal; `failed`.
    """
    tally, book = _Tally(), Book(context)
    for rule in context.layout.rules:
        if context.stopping():
            tally.interrupted = True
            break
        try:
            with _collector_at_rest():
                _apply(context, rule, tally, book)
        except UnsafePath as error:
            remedy = "keep this directory on the file system of the tree, or take its limits out of the settings"
            tally.findings.append(Finding("not_cleaned", rule.directory, Severity.WARNING, str(error), remedy))
        if tally.interrupted:
            break
    left = any(finding.severity is not Severity.INFO for finding in tally.findings)
    return JobReport(
        "clean",
        Outcome.INTERRUPTED if tally.interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(tally.actions),
        tuple(tally.findings),
        {
            "removed": len(tally.actions) - tally.directories,
            "removed_directories": tally.directories,
            "kept_open": tally.kept_open,
            "waiting": tally.waiting,
            "changed": tally.changed,
            "failed": tally.failed,
        },
        actions_total=len(tally.actions),
        bytes_total=sum(action.bytes for action in tally.actions),
    )


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Hundreds of thousands of tuples are made, none in a cycle: the search for cycles takes longer than they do."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def held_by_snapshot(
    context: JobContext, rule: Rule, removals: list[Removal]
) -> tuple[list[Removal], list[Removal], str]:
    """The removals that may be made, those that wait because no backup holds the file's content, and why.

    What is in a cache can be made again and needs none.
    """
    if not removals or rule.name == "cache" or not context.settings.require_snapshot:
        return removals, [], ""
    from symbiont_datad.jobs.holding import held  # only these rules need the repository and its libraries

    try:
        safe = held(context, rule.directory, [removal.entry for removal in removals])
    except DatadError as error:
        return [], removals, str(error)
    may_go = [removal for removal in removals if removal.entry.path in safe]
    return may_go, [removal for removal in removals if removal.entry.path not in safe], "no backup has them"


def _apply(context: JobContext, rule: Rule, tally: _Tally, book: Book) -> None:
    """One rule: list, plan, remove, tell."""
    listing = _list(context.layout, rule, tally)
    removals = _plan(context, rule, listing.entries, tally)
    held, waiting, why = held_by_snapshot(context, rule, removals)
    if waiting:
        _tell_of_waiting(rule, waiting, why, tally)
    if not held:
        return
    # In the order of the paths: see `remove_recorded`.
    ordered = sorted(held, key=lambda removal: removal.entry.path)
    planned = [
        Planned(entry, Action("file_removed", entry.path, rule.name, reason, entry.size)) for entry, reason in ordered
    ]
    if context.dry_run:
        tally.actions += [one.action for one in planned]
        gone = {one.entry.path for one in planned}
        emptied = _emptied(context.layout, listing, gone)
        tally.directories += len(emptied)
        tally.actions += _of_directories(emptied, rule)
        return
    removed = remove_recorded(context, book, planned)
    tally.interrupted = removed.interrupted
    actions = removed.actions
    _tell_of_failures(removed.failures, tally)
    emptied = _emptied(context.layout, listing, {action.path for action in actions})
    actions += _remove_emptied(context, rule, emptied, book, tally)
    tally.actions += actions
    _tell_of_removals(context, rule, actions)


@dataclass(slots=True)
class _Listing:
    """What a rule is about (`entries`), and what else lies there: other things, directories, what can't be read."""

    entries: list[Entry]
    others: set[str]
    directories: set[str]
    unread: set[str]


def _list(layout: Layout, rule: Rule, tally: _Tally) -> _Listing:
    """Files and links below the rule's directory. What another rule is more precisely about is not this one's, nor is
    the audit log, unless a rule names it.
    """
    prefix = f"{rule.directory}/" if rule.directory else ""
    others = {other.directory for other in layout.rules} | {layout.path_of(Category.LOGS, "audit")}
    spared = tuple(f"{other}/" for other in others if other != rule.directory and f"{other}/".startswith(prefix))
    listing = _Listing([], set(), set(), set())

    def unread(path: str, error: OSError) -> None:
        listing.unread.add(path)
        reason = error.strerror or str(error)
        tally.findings.append(Finding("unread", path, Severity.WARNING, reason, "let the daemon's user read it"))

    entries = listing.entries
    walked = walk(
        layout.tree, rule.directory, on_error=unread, on_directory=lambda path, _: listing.directories.add(path)
    )
    for entry in walked:
        if (entry.is_file or stat.S_ISLNK(entry.mode)) and not entry.path.startswith(spared):
            entries.append(entry)
        else:
            listing.others.add(entry.path)
    return listing


def _plan(context: JobContext, rule: Rule, entries: list[Entry], tally: _Tally) -> list[Removal]:
    """What the rule removes, with open files kept: they count towards the caps. Of logs the newest file stays too."""
    last_use = LastUse.READ if rule.name == "cache" else LastUse.WRITTEN
    removals = plan(rule, entries, context.now, last_use=last_use)
    live_logs = rule.name == "logs"
    if not removals or not (context.settings.keep_if_open or live_logs):
        return removals
    opened = open_files(context.layout.root)
    protected = _open_ones(context.layout, entries, opened)
    would_go = sum(removal.entry.path in protected for removal in removals)
    tally.kept_open += would_go
    if live_logs:
        protected.add(max(entries, key=lambda entry: (entry.mtime_ns, entry.path)).path)
    if not protected:
        return removals
    return plan(rule, entries, context.now, last_use=last_use, protected=protected)


def _open_ones(layout: Layout, entries: Iterable[Entry], opened: OpenFiles) -> set[str]:
    """The paths of entries that are open. An entry has no device: those few that have the inode of an open file are
    looked at once more.
    """
    inodes = {inode for _, inode in opened.files}
    found = set()
    for entry in entries:
        if entry.inode in inodes and identity(layout.tree, entry.path) in opened.files:
            found.add(entry.path)
    return found


def _emptied(layout: Layout, listing: _Listing, removed: set[str]) -> list[str]:
    """The directories that are empty without what was removed: below an open directory, never a declared one."""
    places = {row.path for row in layout.directories if row.open}
    left = {_folder(entry.path) for entry in listing.entries if entry.path not in removed}
    left |= {_folder(path) for path in listing.others | listing.unread} | listing.unread
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


def _remove_emptied(context: JobContext, rule: Rule, emptied: list[str], book: Book, tally: _Tally) -> list[Action]:
    if not emptied or tally.interrupted:
        return []
    actions = _of_directories(emptied, rule)
    rows = book.plan(actions)
    failures = remove_directories(context.layout.tree, emptied)
    kept = {failure.path for failure in failures}
    done = [action for action in actions if action.path not in kept]
    book.confirm(rows, done, failures)
    _tell_of_failures(failures, tally)
    tally.directories += len(done)
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


def _tell_of_waiting(rule: Rule, waiting: list[Removal], why: str, tally: _Tally) -> None:
    size = sum(removal.entry.size for removal in waiting)
    tally.waiting += len(waiting)
    tally.findings.append(
        Finding(
            "retention_waits",
            rule.directory,
            Severity.WARNING,
            f"{len(waiting)} files ({format_size(size)}) would go by the rule {rule.name!r}, but {why}",
            "the next backup takes them; `retention.require_snapshot = false` lets them go without one",
        )
    )


def _tell_of_failures(failures: Sequence[Failure], tally: _Tally) -> None:
    tally.changed += sum(failure.changed for failure in failures)
    failed = [failure for failure in failures if not failure.changed]
    tally.failed += len(failed)
    told = failed[:FINDINGS_PER_RULE]
    for failure in told:
        more = len(failed) - len(told) if failure is told[-1] else 0
        detail = f"{failure.reason} (and {more} more files)" if more else failure.reason
        remedy = "let the daemon's user write to its directory"
        tally.findings.append(Finding("not_removed", failure.path, Severity.WARNING, detail, remedy))


def _tell_of_removals(context: JobContext, rule: Rule, actions: Sequence[Action]) -> None:
    if not actions:
        return
    if context.settings.log_level == "debug":
        for action in actions:
            emit("file_removed", job="clean", path=action.path, rule=action.rule, reason=action.reason)
    files = [action for action in actions if action.kind == "file_removed"]
    name = "cache_trimmed" if rule.name == "cache" else "retention_applied"
    size = sum(action.bytes for action in files)
    emit(name, job="clean", path=rule.directory, rule=rule.name, files=len(files), bytes=size)
