"""Pruning: what the policy does not keep is forgotten, and data that no snapshot needs goes, which frees space."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from symbiont_datad.events import emit
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.archiving import KINDS
from symbiont_datad.jobs.context import JobContext, Progress
from symbiont_datad.jobs.forgetting import forget, surplus
from symbiont_datad.jobs.snapshots import note, readable_snapshots
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity
from symbiont_datad.restic import prune as restic
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing, RepositoryError, RepositoryLocked
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import HeldLock
from symbiont_datad.restic.prune_plan import Limits, Plan, Survey, plan
from symbiont_datad.restic.repository import Repository

_SHOWN = {"trees": "files", "bytes": "bytes", "bytes_total": "total_bytes"}


@dataclass(slots=True)
class Pruned:
    """What was done, and what was left; `freed` in bytes."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    freed: int = 0


def prune(context: JobContext) -> JobReport:
    """Forget what the policy does not keep, then free space, also where it does not pay much.

    Counts: `forgotten` snapshots, `freed` bytes, `unused` bytes that nothing needs and that stay. Raises DatadError:
    also Locked, while anybody else is at work on the repository.
    """
    repository = ours.opened(context.settings.repository)
    done = Pruned()
    counts: dict[str, int] = {}
    interrupted = False
    with ours.told():
        try:
            if context.dry_run:
                _plan(context, repository, done, counts)
            else:
                with ours.locked(
                    repository, exclusive=True, eager=True, patience_s=context.patience_s, stopping=context.stopping
                ) as lock:
                    _prune(context, repository, lock, done, counts)
        except Interrupted:
            interrupted = True
    return JobReport(
        "prune",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if done.findings else Outcome.DONE,
        context.now,
        0.0,
        tuple(done.actions),
        tuple(done.findings),
        {**counts, "freed": done.freed},
        actions_total=len(done.actions),
        bytes_total=done.freed,
    )


def _prune(context: JobContext, repository: Repository, lock: HeldLock, done: Pruned, counts: dict[str, int]) -> None:
    snapshots, _ = readable_snapshots(repository)
    doomed = [name for tag in KINDS for name, _ in surplus(context, snapshots, tag)]
    found = _survey(context, repository, lock, doomed)
    lock.confirm()
    for tag in KINDS:
        done.actions += forget(context, repository, snapshots, tag, lock.check)
    counts["forgotten"] = len(done.actions)
    note(context, repository, snapshots)
    _carry_out(context, repository, lock, found, done, counts, only_if_it_pays=False)


def prune_when_it_pays(context: JobContext, repository: Repository) -> Pruned:
    """After a backup: free space where enough can be freed, unless somebody else is at work on the repository.

    What goes wrong is handed back as a finding, for the backup is done. Raises Interrupted.
    """
    done = Pruned()
    try:
        with ours.locked(
            repository, exclusive=True, eager=True, patience_s=context.patience_s, stopping=context.stopping
        ) as lock:
            found = _survey(context, repository, lock)
            lock.confirm()
            _carry_out(context, repository, lock, found, done, {}, only_if_it_pays=True)
    except RepositoryLocked as error:
        emit("prune_skipped", job="backup", reason=str(error))
    except Interrupted:
        raise
    except RepositoryError as error:
        broken = isinstance(error, Damaged | Missing)
        remedy = "`symbiont-datad verify` tells what is broken" if broken else "the next backup tries again"
        done.findings.append(Finding("not_pruned", "", Severity.ERROR, str(error), remedy))
    return done


def _survey(context: JobContext, repository: Repository, lock: HeldLock, doomed: Sequence[str] = ()) -> Survey:
    """What there is, as it will be without the `doomed` snapshots. The lock need not be confirmed yet."""
    context.progress.begin("prune")
    return restic.survey(repository, _Mirrored(context.progress), _stopping(context, lock), without=doomed)


def _stopping(context: JobContext, lock: HeldLock) -> Callable[[], bool]:
    def stopping() -> bool:
        lock.check()
        return context.stopping()

    return stopping


def _carry_out(
    context: JobContext,
    repository: Repository,
    lock: HeldLock,
    found: Survey,
    done: Pruned,
    counts: dict[str, int],
    *,
    only_if_it_pays: bool,
) -> None:
    if isinstance(repository.backend, LocalBackend):
        repository.backend.sweep(time.time())  # temporary files that a crash has left
    planned = plan(found, Limits())
    if only_if_it_pays and not planned.pays:
        planned = planned.only_left_overs()
    counts["unused"] = planned.unused_after
    pruned = restic.carry_out(repository, found, planned, _Mirrored(context.progress), _stopping(context, lock))
    done.freed = max(pruned.bytes_removed - pruned.bytes_added, 0)
    if pruned.left:
        detail = f"{len(pruned.left)} packs hold data that nothing needs, and there is no room to pack them anew"
        remedy = f"{format_size(pruned.needed)} have to be free where the repository is"
        done.findings.append(Finding("not_pruned", "", Severity.WARNING, detail, remedy))
    if not pruned.packs_removed:
        return
    what = f"{pruned.packs_removed} packs removed, {pruned.packs_repacked} packed anew"
    action = Action("repository_pruned", "", "prune", what, done.freed)
    done.actions.append(action)
    emit(
        "repository_pruned",
        job="backup" if only_if_it_pays else "prune",
        freed=done.freed,
        packs_removed=pruned.packs_removed,
        packs_repacked=pruned.packs_repacked,
    )
    try:
        context.ledger.record([action], context.now, context.run)
    except LedgerError as error:
        emit("ledger_failed", reason=str(error))


def _plan(context: JobContext, repository: Repository, done: Pruned, counts: dict[str, int]) -> None:
    """What a prune would do. Touches nothing, and takes no lock."""
    snapshots, _ = readable_snapshots(repository)
    doomed: list[str] = []
    for tag in KINDS:
        doomed += [name for name, _ in surplus(context, snapshots, tag)]
        done.actions += forget(context, repository, snapshots, tag, lambda: None)
    context.progress.begin("prune")
    found = restic.survey(repository, _Mirrored(context.progress), context.stopping, without=doomed)
    planned = plan(found, Limits())
    counts |= {"forgotten": len(doomed), "unused": planned.unused_after}
    done.freed = max(planned.removed_bytes - planned.repack_bytes, 0)
    done.actions += _planned(planned, done.freed)


def _planned(planned: Plan, freed: int) -> Iterator[Action]:
    removed = len(planned.remove) + len(planned.left_overs)
    if removed or planned.repack:
        what = f"{removed} packs are not needed, {len(planned.repack)} would be packed anew"
        yield Action("repository_pruned", "", "prune", what, freed)


class _Mirrored(restic.Progress):
    """The progress of a prune, as the job's own: trees that were read count as files."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _SHOWN:
            setattr(self._shown, _SHOWN[name], value)
