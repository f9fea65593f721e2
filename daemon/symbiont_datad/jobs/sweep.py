"""The autosave sweep: checks the state files that changed since the last one, heals contexts, removes surplus backups,
and saves a snapshot of what changed.

What a sweep has seen it leaves in the ledger as marks. So a sweep in which nothing changed is one walk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from symbiont_datad.events import emit
from symbiont_datad.formats.context import Document, Verdict
from symbiont_datad.fsops.memory import collector_at_rest
from symbiont_datad.jobs.archives import compress_archives
from symbiont_datad.jobs.autosave import autosave
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.heal import QUARANTINED, Healed, heal
from symbiont_datad.jobs.judging import Judges
from symbiont_datad.jobs.quiet import Quiet
from symbiont_datad.jobs.saving import Fingerprint, Saved
from symbiont_datad.jobs.state_files import StateFile, StateFiles, is_stranger, list_state, sort_state
from symbiont_datad.jobs.state_findings import damaged_files, leftovers, other_modes, unread
from symbiont_datad.jobs.surplus import remove_surplus
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity


@dataclass(slots=True)
class _Done:
    """What a sweep has done before the snapshot. `due`: when there is more to do, though nothing changes."""

    counts: dict[str, int]
    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    interrupted: bool = False
    due: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether it left nothing to look at again while nothing changes."""
        return not (self.actions or self.findings or self.interrupted or self.counts["unsettled"])


def sweep(context: JobContext) -> JobReport:
    """Check new and changed state files, heal contexts, remove surplus backups, compress old archives, save; and tell.

    A file that changed within the last `settle_s` seconds, or is damaged while a process has it open, is left for the
    next sweep. Counts: `contexts`, `sessions` and `archives` there are, `checked` files read, `damaged` ones left,
    `unsettled` ones; of the contexts `contexts_damaged` and `contexts_unjudged`; `healed` agents, `backups_kept`,
    `backups_removed`, `archives_compressed`, `saved` snapshots.
    """
    done, seen = _look(context)
    if done.actions:
        seen = list_state(context.layout, context.now).seen  # so that the snapshot has what the runtime will load
    return _report(context, done, autosave(context, seen))


def _look(context: JobContext) -> tuple[_Done, Fingerprint]:
    """All but the snapshot, for which nothing but the fingerprint of `state/` stays in memory."""
    listing = list_state(context.layout, context.now)
    quiet = Quiet(context, listing.seen)
    known = quiet.counts()
    if known is not None:
        return _Done(known), listing.seen
    done = _look_at(context, sort_state(context.layout, listing))
    if done.quiet:
        quiet.leave(done.counts, done.due)
    return done, listing.seen


def _look_at(context: JobContext, files: StateFiles) -> _Done:
    """First what is judged, so that of good states only surplus ones are removed."""
    with collector_at_rest(), Judges(context, files) as judges:
        try:
            verdicts = _check(context, files, judges)
            surplus = remove_surplus(context, judges, files, verdicts)
            restoring = context.settings.state.heal == "restore" and not context.stopping()
            healed = heal(context, judges, files, verdicts) if restoring else Healed()
            packed = compress_archives(context, judges, files.archives, verdicts)
        finally:
            judges.leave_marks()
        left = [file for file in files.judged if _is_left(file, verdicts, healed)]
        findings = [
            *damaged_files(context, judges, files, left, verdicts, healed),
            *healed.findings,
            *other_modes(context, files, healed),
            *leftovers(files, judges),
            *unread(files),
            *surplus.findings,
            *packed.findings,
        ]
    counts = {
        "contexts": len(files.contexts),
        "sessions": len(files.sessions),
        "archives": len(files.archives),
        "checked": judges.checked,
        "damaged": sum(verdicts[file.path].damaged for file in left),
        "contexts_damaged": sum(verdicts[file.path].damaged for file in left if file.document is Document.CONTEXT),
        "contexts_unjudged": sum(file.path not in verdicts for file in files.contexts),
        "unsettled": judges.unsettled,
        "healed": sum(action.kind != QUARANTINED for action in healed.actions),
        "backups_kept": sum(map(len, files.backups.values())) - len(surplus.actions),
        "backups_removed": len(surplus.actions),
        "archives_compressed": len(packed.actions),
    }
    actions = [*surplus.actions, *healed.actions, *packed.actions]
    interrupted = surplus.interrupted or healed.interrupted or packed.interrupted or context.stopping()
    return _Done(counts, actions, findings, interrupted, packed.due)


def _is_left(file: StateFile, verdicts: Mapping[str, Verdict], healed: Healed) -> bool:
    verdict = verdicts.get(file.path)
    return verdict is not None and verdict.kind is not None and file.path not in healed.settled


def _check(context: JobContext, files: StateFiles, judges: Judges) -> dict[str, Verdict]:
    """The verdicts on the state files, by path, as far as they hold still and can be read.

    Tells of damage that the last sweep did not find, and of the end of damage. Whether what looks damaged is only being
    written is asked when all has been read, once for all.
    """
    looked_at = files.judged if context.settings.state.heal != "off" else [*files.sessions, *files.archives]
    verdicts: dict[str, Verdict] = {}
    suspects: list[tuple[StateFile, Verdict]] = []

    def accept(file: StateFile, verdict: Verdict) -> None:
        verdicts[file.path] = verdict
        if not context.dry_run and (verdict.kind is not None) != judges.was_damaged(file.entry):
            _tell(file, verdict)

    progress = context.progress
    progress.begin("check state", len(looked_at), sum(file.entry.size for file in looked_at))
    for file in looked_at:
        verdict = judges.known(file.entry)
        if verdict is None and not context.stopping():
            verdict = judges.of(file)
            if verdict is not None and verdict.damaged:
                suspects.append((file, verdict))
                verdict = None
            else:
                judges.unsettled += verdict is None
        if verdict is not None:
            accept(file, verdict)
        progress.files += 1
        progress.bytes += file.entry.size
    for file, verdict in suspects:
        if judges.in_flux(file.entry):
            judges.forget(file.entry)
            judges.unsettled += 1
        else:
            accept(file, verdict)
    return verdicts


def _tell(file: StateFile, verdict: Verdict) -> None:
    if verdict.kind is None:
        emit("context_recovered", job="sweep", path=file.path)
    elif verdict.damaged and not is_stranger(file, verdict):
        emit("context_damaged", job="sweep", path=file.path, damage=verdict.kind.value, reason=verdict.detail)


def _report(context: JobContext, done: _Done, saved: Saved) -> JobReport:
    actions = [*done.actions, *saved.actions]
    findings = [*done.findings, *saved.findings]
    interrupted = done.interrupted or saved.interrupted
    left = any(finding.severity is not Severity.INFO for finding in findings)
    damaged, healed = done.counts["damaged"], done.counts["healed"]
    told = [f"{damaged} state files are damaged"] if damaged else []
    told += [f"{healed} contexts were healed"] if healed else []
    return JobReport(
        "sweep",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(actions),
        tuple(findings),
        {**done.counts, "saved": sum(action.kind == "snapshot_created" for action in saved.actions)},
        message=", ".join(told),
        actions_total=len(actions),
        bytes_total=sum(action.bytes for action in actions),
    )
