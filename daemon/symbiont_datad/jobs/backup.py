"""The backup: a snapshot of the whole tree, then what the policy no longer keeps is forgotten, and space freed."""

from dataclasses import dataclass, field

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.fsops.root import Tree, readable
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.archiving import BACKUP, KINDS, Taken, counts_of, findings_of, recorded, refuse_full, take
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.forgetting import forget
from symbiont_datad.jobs.rehearsal import rehearsal
from symbiont_datad.jobs.snapshots import note, readable_snapshots
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import HOUR
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.lock import HeldLock
from symbiont_datad.restic.repository import Repository

_EVERY_S = HOUR
"""A backup looks for what can be pruned no sooner than this after the last look, which reads all trees."""
_MARK = "//pruned"


@dataclass(slots=True)
class _Run:
    """What a run has done so far."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    message: str = ""
    interrupted: bool = False


def backup(context: JobContext) -> JobReport:
    """Make a snapshot of the tree, forget by `backup_count` and the other rules, prune when it pays.

    A snapshot in which a file is missing or torn is tagged so, and the outcome is LEFT. Counts: see `counts_of`;
    `forgotten` snapshots, `freed` bytes. A dry run makes no repository and takes no lock.

    Raises DatadError when the repository can't be used, or has too little room; OSError when the root can't be read.
    """
    run = _Run()
    try:
        refuse_full(context)
    except errors.Unusable as error:
        emit("backup_refused", job="backup", reason=str(error))
        raise
    with ours.told():
        try:
            if context.dry_run:
                _rehearse(context, run)
            else:
                _back_up(context, run)
        except Interrupted:
            run.interrupted = True
    outcome = Outcome.INTERRUPTED if run.interrupted else Outcome.LEFT if run.findings else Outcome.DONE
    return JobReport(
        "backup",
        outcome,
        context.now,
        0.0,
        tuple(run.actions),
        tuple(run.findings),
        run.counts,
        message=run.message,
        actions_total=len(run.actions),
        bytes_total=sum(action.bytes for action in run.actions),
    )


def _back_up(context: JobContext, run: _Run) -> None:
    repository = ours.opened_or_made(context.settings, context.ledger)
    with ours.locked(repository, eager=True, patience_s=context.patience_s, stopping=context.stopping) as lock:
        others = _snapshot(context, repository, run, lock)
    run.counts["freed"] = 0
    if not _pruning_is_due(context) or not others:  # the first one needs all that there is
        return
    from symbiont_datad.jobs.prune import prune_when_it_pays  # at most once an hour

    pruned = prune_when_it_pays(context, repository)
    run.actions += pruned.actions
    run.findings += pruned.findings
    run.counts["freed"] = pruned.freed


def _pruning_is_due(context: JobContext) -> bool:
    """Whether it is time to look for what can be pruned; then this time is noted as the last one."""
    mark = f"{_MARK}/{context.settings.repository.location}"
    try:
        if 0 <= context.now - float(context.ledger.mark(mark) or "0") < _EVERY_S:
            return False
        context.ledger.update_marks({mark: str(context.now)}, ())
    except (LedgerError, ValueError):
        pass  # then it looks each time
    return True


def _rehearse(context: JobContext, run: _Run) -> None:
    try:
        found: Repository | None = ours.opened(context.settings.repository)
    except errors.NoRepository:
        found = None
    _snapshot(context, rehearsal(found, context.settings.repository.level), run, None)


def _snapshot(context: JobContext, repository: Repository, run: _Run, lock: HeldLock | None) -> bool:
    """Make the snapshot and forget others; hand back whether there were any before."""
    snapshots, unreadable = readable_snapshots(repository)
    others = bool(snapshots or unreadable)
    beside, missing = _beside(context)
    taken = take(context, repository, BACKUP, ["", *beside], snapshots, lock)
    run.counts |= counts_of(taken)
    run.findings += [*missing, *findings_of(context, taken.archived)]
    run.actions.append(recorded(context, BACKUP, taken))
    run.message = _message(taken)
    snapshots.append((taken.id, taken.snapshot))
    run.counts["forgotten"] = 0
    for tag in KINDS:
        forgotten = forget(context, repository, snapshots, tag, lock.check if lock else lambda: None)
        run.actions += forgotten
        run.counts["forgotten"] += len(forgotten)
    if lock is not None:
        note(context, repository, snapshots)
    return others


def _beside(context: JobContext) -> tuple[list[str], list[Finding]]:
    """The extra roots that can be read, and findings for the others."""
    there: list[str] = []
    missing: list[Finding] = []
    for root in context.settings.vectors.extra_roots:
        try:
            with Tree(root).root() as fd, readable(".", fd):
                there.append(root)
        except (OSError, errors.UnsafePath) as error:
            why = getattr(error, "strerror", None) or str(error)
            remedy = "let the daemon's user read it, or take it out of vector_db.extra_roots"
            missing.append(Finding("not_in_snapshot", root, Severity.WARNING, why, remedy))
    return there, missing


def _message(taken: Taken) -> str:
    unread, torn = len(taken.archived.unread), len(taken.archived.torn)
    parts = [f"{unread} files could not be read"] if unread else []
    parts += [f"{torn} files changed while they were read"] if torn else []
    return f"the snapshot is incomplete: {', '.join(parts)}" if parts else ""
