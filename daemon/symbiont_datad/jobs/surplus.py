"""Removing the backups that the runtime makes with each save, but for the newest of each agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from symbiont_datad.events import emit
from symbiont_datad.formats.context import Verdict
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.healing import changed_at
from symbiont_datad.jobs.judging import Judges
from symbiont_datad.jobs.removal import Book, Planned, remove_recorded
from symbiont_datad.jobs.state_files import StateFiles
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.retention.backups import rotate

FINDINGS = 20
"""Backups that could not be removed, each told of."""


@dataclass(slots=True)
class Removed:
    """What came of it. `interrupted`: it was asked to stop."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    interrupted: bool = False


def remove_surplus(context: JobContext, judges: Judges, files: StateFiles, verdicts: Mapping[str, Verdict]) -> Removed:
    """Remove surplus backups, after the contexts were judged (`verdicts`, by path). See `retention.backups`."""
    keep = context.settings.backup_count
    surplus = {agent for agent, backups in files.backups.items() if len(backups) > keep}
    whole, broken_at = _contexts_of(surplus, files, verdicts)
    planned: list[Planned] = []
    context.progress.begin("check backups", len(files.backups))
    for agent, backups in files.backups.items():
        context.progress.files += 1
        if len(backups) > keep and not context.stopping():
            at = broken_at.get(agent)
            for backup, reason in rotate(
                backups, keep, context_parses=agent in whole, parses=judges.parses, broken_at=at
            ):
                action = Action("backup_rotated", backup.entry.path, "backup_count", reason, backup.entry.size)
                planned.append(Planned(backup.entry, action))
    planned.sort(key=lambda one: one.entry.path)
    if context.dry_run or not planned:
        return Removed([one.action for one in planned], [], context.stopping())
    removed = remove_recorded(context, Book(context), planned)
    if context.settings.log_level == "debug":
        for action in removed.actions:
            emit("backup_rotated", job="sweep", path=action.path, reason=action.reason)
    remedy = "let the daemon's user write to its directory"
    findings = [
        Finding("not_removed", failure.path, Severity.WARNING, failure.reason, remedy)
        for failure in removed.failures
        if not failure.changed
    ]
    return Removed(removed.actions, findings[:FINDINGS], removed.interrupted or context.stopping())


def _contexts_of(
    agents: set[str], files: StateFiles, verdicts: Mapping[str, Verdict]
) -> tuple[set[str], dict[str, float]]:
    """Those of these agents whose contexts are all good; and of the others when a broken one was changed last, in
    seconds since the epoch. Nearly always there are none, and the contexts, of which there may be a million, are left.
    """
    good: set[str] = set()
    broken_at: dict[str, float] = {}
    for file in files.contexts if agents else ():
        agent = file.name.agent
        if agent not in agents:
            continue
        if _is_good(verdicts.get(file.path)):
            good.add(agent)
        else:
            broken_at[agent] = max(changed_at(file.entry), broken_at.get(agent, 0.0))
    return good.difference(broken_at), broken_at


def _is_good(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.good
