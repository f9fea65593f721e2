"""Removing the archives that the settings don't keep."""

from dataclasses import dataclass

from symbiont_datad.errors import DatadError, Interrupted
from symbiont_datad.events import emit
from symbiont_datad.fsops.opened import identity, open_files
from symbiont_datad.jobs.audit_chain import AuditChain
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_files import LogFiles
from symbiont_datad.jobs.removal import Planned, remove_recorded
from symbiont_datad.jobs.rotation_plan import Task
from symbiont_datad.jobs.rotation_report import Tally
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action
from symbiont_datad.retention.logs import Archive, Trimmed, trim


@dataclass(frozen=True, slots=True)
class Removals:
    """What goes, by path and in that order; `waiting`: how many more would, but no backup holds them."""

    of: dict[str, Trimmed]
    waiting: int

    @property
    def actions(self) -> list[Action]:
        """What goes, as actions."""
        return [
            Action("log_archive_removed", path, one.rule, one.reason, one.archive.size) for path, one in self.of.items()
        ]


def removals(files: LogFiles, tasks: list[Task], tally: Tally) -> Removals:
    """What goes, given the logs that are rotated now.

    How large their archives will be is not known as yet, so they count for their number only: what is too much by their
    size goes with the next run.
    """
    context = tally.context
    settings = context.settings
    there = [archive for some in files.archives.values() for archive in some]
    new = [Archive(task.archive_path, task.path, task.archive, 0) for task in tasks]
    protected = {one.path for one in new}
    planned = trim(settings.logs, [*there, *new], context.now, protected)
    if planned and settings.keep_if_open:
        opened = _open_ones(context, planned)
        if opened:
            planned = trim(settings.logs, [*there, *new], context.now, protected | opened)
    held = {one.archive.path for one in planned}
    if planned and settings.require_snapshot:
        held = _held(files, planned, tally)
    going = sorted((one for one in planned if one.archive.path in held), key=lambda one: one.archive.path)
    return Removals({one.archive.path: one for one in going}, len(planned) - len(going))


def remove(files: LogFiles, going: Removals, tally: Tally, chain: AuditChain) -> None:
    """Remove what goes; for archives of audit logs the manifest says so. Raises Interrupted."""
    tally.counts["waiting"] = going.waiting
    planned = [Planned(files.entries[action.path], action) for action in going.actions]
    if not planned:
        return
    removed = remove_recorded(tally.context, tally.book, planned)
    for action in removed.actions:
        if tally.context.settings.logs.is_audit(going.of[action.path].archive.log):
            try:
                chain.add_removed(action.path, action.reason, tally.context.now)
            except OSError as error:
                tally.failed("not_listed", action.path, error)
    for failure in removed.failures:
        if not failure.changed:
            tally.failed("not_removed", failure.path, failure.reason)
    tally.actions += removed.actions
    tally.counts["removed"] = len(removed.actions)
    if removed.actions:
        size = sum(action.bytes for action in removed.actions)
        emit("log_archives_trimmed", job="rotate", files=len(removed.actions), bytes=size)
    if removed.interrupted:
        raise Interrupted("asked to stop")


def _held(files: LogFiles, planned: list[Trimmed], tally: Tally) -> set[str]:
    """Which of the archives a backup holds. The repository is asked only about those that are older than one."""
    context = tally.context
    try:
        last = context.ledger.last_successes().get("backup", 0.0)
    except LedgerError:
        return set()
    asked = [files.entries[one.archive.path] for one in planned if one.archive.place.at < last]
    if not asked:
        return set()
    from symbiont_datad.jobs.holding import held  # brings the repository's libraries

    try:
        return held(context, context.settings.logs.directory, asked)
    except Interrupted:
        raise
    except DatadError as error:
        remedy = "`retention.require_snapshot = false` lets them go without a backup"
        tally.note("retention_waits", f"{len(asked)} archives would go, but {error}", remedy)
        return set()


def _open_ones(context: JobContext, planned: list[Trimmed]) -> set[str]:
    """Those that some process has open, to read them."""
    opened, tree = open_files(context.layout.root).files, context.layout.tree
    return {one.archive.path for one in planned if identity(tree, one.archive.path) in opened}
