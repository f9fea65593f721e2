"""Forgetting: which of this host's snapshots the settings keep, and removing the others.

Only the snapshot's own small file goes here; the data that then nobody needs is for prune.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from symbiont_datad.events import emit
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.jobs.archiving import AUTOSAVE, BACKUP, INCOMPLETE, JOB_OF, OPTIMIZE, TEMPLATES
from symbiont_datad.jobs.context import JobContext, SnapshotSettings
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.repository import identity
from symbiont_datad.jobs.snapshots import Named
from symbiont_datad.quantities import spell_duration
from symbiont_datad.report import Action
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.forget import Decision, Kept, Policy, decide, grouped, selected
from symbiont_datad.restic.repository import Repository


def decided(settings: SnapshotSettings, snapshots: Sequence[Named], tag: str, now: float) -> Decision:
    """Which snapshots of this host with the tag of a kind the settings keep, and why; and which they don't. `now` in
    seconds since the epoch.

    The newest complete one of each group stays in any case: those after it may lack something that only it has. But
    what a collection was before an optimisation goes by its age alone.
    """
    if tag == OPTIMIZE:
        return _by_age(selected(snapshots, host=identity().hostname, tags=[tag]), settings.optimizations_s, now)
    policies = {BACKUP: settings.backups, AUTOSAVE: settings.autosaves, TEMPLATES: settings.templates}
    policy = Policy(**asdict(policies[tag]))
    keep: list[Kept] = []
    remove: list[Named] = []
    for group in grouped(selected(snapshots, host=identity().hostname, tags=[tag])).values():
        decision = decide(group, policy, now)
        going = list(decision.remove)
        keep += decision.keep
        if all(INCOMPLETE in kept.snapshot.tags for kept in decision.keep):
            spared = next((one for one in going if INCOMPLETE not in one[1].tags), None)
            going = [one for one in going if one is not spared]
            keep += [Kept(*spared, ("the newest complete one",))] if spared else []
        remove += going
    return Decision(tuple(keep), tuple(remove))


def _by_age(snapshots: Sequence[Named], age_s: float, now: float) -> Decision:
    oldest = now - age_s
    reason = f"younger than {spell_duration(age_s)}"
    keep = [Kept(*one, (reason,)) for one in snapshots if one[1].at.timestamp() >= oldest]
    return Decision(tuple(keep), tuple(one for one in snapshots if one[1].at.timestamp() < oldest))


_RULES = {
    BACKUP: "backup_count",
    AUTOSAVE: "autosave.keep_last",
    TEMPLATES: "prompts.keep_last",
    OPTIMIZE: "vector_db.keep_snapshots",
}


def surplus(context: JobContext, snapshots: Sequence[Named], tag: str) -> list[Named]:
    """The snapshots of this host with the tag that the settings do not keep."""
    return list(decided(context.settings.snapshots, snapshots, tag, time.time()).remove)


def forget(
    context: JobContext,
    repository: Repository,
    snapshots: Sequence[Named],
    tag: str,
    check: Callable[[], None],
) -> list[Action]:
    """Remove what is surplus; hand back the actions, in a dry run those that would be done.

    `check` raises when the lock on the repository is lost. Raises the errors of `restic`.
    """
    doomed = {_action(one, tag): one for one in surplus(context, snapshots, tag)}
    actions = list(doomed)
    if context.dry_run or not actions:
        return actions
    book = Book(context)
    rows = book.plan(actions)
    done: list[Action] = []
    try:
        for action, (name, snapshot) in doomed.items():
            check()
            repository.backend.remove(FileKind.SNAPSHOT, name)
            done.append(action)
            emit("snapshot_forgotten", job=JOB_OF[tag], id=name[:8], taken_at=snapshot.time, reason=action.reason)
    except RepositoryError as error:
        failed = [Failure(action.path, str(error), changed=False) for action in actions if action not in done]
        book.confirm(rows, done, failed)
        raise
    book.confirm(rows, done, ())
    return done


def _action(one: Named, tag: str) -> Action:
    name, snapshot = one
    return Action("snapshot_forgotten", name[:8], _RULES[tag], f"no rule keeps the {tag} of {snapshot.time}")
