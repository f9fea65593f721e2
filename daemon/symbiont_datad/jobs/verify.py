"""Verifying: the repository's structure, a part of its data, and that files can be restored from it."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import cast

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.archiving import BACKUP
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.drill import drill
from symbiont_datad.jobs.snapshots import Named, note, readable_snapshots
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import DAY
from symbiont_datad.report import Finding, JobReport, Outcome, Severity, printable
from symbiont_datad.restic import contents
from symbiont_datad.restic.checker import Checked, Problem, check
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.lock import HeldLock
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.subset import Choice, due, subset

_FINDINGS = 50
"""Problems that are told of one by one."""
_NAMED = 3
"""Files in snapshots that a problem names."""
_SCRATCH = "drill"


@dataclass(slots=True)
class _Run:
    """What a run has found so far."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False


def verify(context: JobContext) -> JobReport:
    """Check the structure and `context.subset` of the data, and restore some files of the newest backup to compare.

    Without a subset, the data is what is due, so that all is read within `backup.read_all_within`. Counts: `packs` and
    `bytes` there are; `packs_read`, `bytes_read`; `problems` that hurt; `drilled` files, `bytes_drilled`.

    Raises DatadError when the repository can't be used.
    """
    run = _Run()
    repository = ours.opened(context.settings.repository)
    with ours.told():
        try:
            with ours.locked(repository, eager=True, patience_s=context.patience_s, stopping=context.stopping) as lock:
                _verify(context, repository, lock, run)
        except Interrupted:
            run.interrupted = True
    left = any(finding.severity is not Severity.INFO for finding in run.findings)
    return JobReport(
        "verify",
        Outcome.INTERRUPTED if run.interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        findings=tuple(run.findings),
        counts=run.counts,
        message=_message(run.counts.get("problems", 0)),
    )


def _message(problems: int) -> str:
    if not problems:
        return ""
    return f"{problems:,} problem{'s' if problems > 1 else ''} in the repository"


def _verify(context: JobContext, repository: Repository, lock: HeldLock, run: _Run) -> None:
    def stopping() -> bool:
        lock.check()
        return context.stopping()

    times = _Times(context, repository)
    # The check counts into the job's own progress, which has the same attributes as its own.
    progress = cast(contents.Progress, context.progress)
    checked = check(repository, choose=_choice(context, times), progress=progress, stopping=stopping)
    lock.confirm()  # what was found beside a prune would mean nothing
    times.save(checked)
    _tell(run, checked)
    snapshots, _ = readable_snapshots(repository)
    note(context, repository, snapshots)
    newest = _newest(snapshots)
    if newest is not None and checked.whole:
        context.progress.begin("restore drill")
        _drill(context, repository, newest, run)


def _choice(context: JobContext, times: "_Times") -> Choice:
    """What of the data is read this time."""
    random = Random()
    if context.subset:
        try:
            return subset(context.subset, random)
        except ValueError as error:
            raise errors.SettingsError(str(error)) from None
    within = context.settings.snapshots.read_all_within_s
    every = _since_last(context)
    return lambda packs: due(packs, times.verified, context.now, within, every)


def _since_last(context: JobContext) -> float:
    """Seconds from the last run to this one: as long, it is taken, as to the next."""
    try:
        last = context.ledger.last_successes().get("verify")
    except LedgerError:
        last = None
    return context.now - last if last is not None and last <= context.now else DAY  # the clock may have been ahead


class _Times:
    """When each pack was last read and found whole: a small file beside the ledger."""

    def __init__(self, context: JobContext, repository: Repository) -> None:
        self._path: Path = context.settings.daemon_dir / "cache" / f"{repository.config.id}.verified"
        self._now = context.now
        self.verified: Mapping[str, float] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            found = json.loads(self._path.read_bytes())
            self.verified = {str(pack): float(at) for pack, at in found.items()}

    def save(self, checked: Checked) -> None:
        """Note what was read now, and forget packs that are gone. What can't be noted is read again sooner."""
        kept = {pack: at for pack, at in self.verified.items() if pack in checked.packs}
        kept |= dict.fromkeys(checked.verified, self._now)
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(json.dumps(kept))
            temporary.replace(self._path)


def _tell(run: _Run, checked: Checked) -> None:
    hurting = [problem for problem in checked.problems if not problem.harmless]
    read = sum(checked.packs.get(pack, 0) for pack in checked.verified)
    run.counts |= {
        "packs": len(checked.packs),
        "bytes": sum(checked.packs.values()),
        "packs_read": len(checked.verified),
        "bytes_read": read,
        "problems": len(hurting),
    }
    run.findings += [_finding(problem) for problem in checked.problems[:_FINDINGS]]
    if not hurting:
        emit("repository_verified", job="verify", packs=len(checked.verified), bytes=read)
        return
    emit("repository_damaged", job="verify", path=hurting[0].file, reason=hurting[0].reason, problems=len(hurting))


def _finding(problem: Problem) -> Finding:
    detail = problem.reason
    if problem.snapshots:
        named = ", ".join(map(printable, problem.paths[:_NAMED]))
        detail += f"; snapshots {', '.join(name[:8] for name in problem.snapshots)} need it"
        detail += f", for {named} and others" if len(problem.paths) > _NAMED else f", for {named}" if named else ""
    severity = Severity.INFO if problem.harmless else Severity.ERROR
    kind = "repository_untidy" if problem.harmless else "repository_damaged"
    remedy = problem.remedy or ("" if problem.harmless else "the next backup stores anew what is still in the tree")
    return Finding(kind, problem.file, severity, detail, remedy)


def _newest(snapshots: Sequence[Named]) -> Named | None:
    """The newest backup of this host; without one, the newest snapshot."""
    host = ours.identity().hostname
    backups = [one for one in snapshots if one[1].hostname == host and BACKUP in one[1].tags]
    return next(reversed(backups or snapshots), None)


def _drill(context: JobContext, repository: Repository, newest: Named, run: _Run) -> None:
    name, snapshot = newest
    scratch = context.settings.daemon_dir / _SCRATCH
    started = time.monotonic()
    try:
        drilled = drill(repository, snapshot, context.layout.tree, scratch, Random(), context.stopping)
    except OSError as error:
        remedy = "the restore drill needs up to 64 MiB there"
        run.findings.append(Finding("not_drilled", "", Severity.WARNING, f"{scratch}: {error.strerror}", remedy))
        return
    run.counts |= {"drilled": drilled.files, "bytes_drilled": drilled.bytes}
    for path, reason in drilled.wrong:
        remedy = "look with `symbiont-datad verify --read-data`, and back up again"
        run.findings.append(Finding("drill_failed", path, Severity.ERROR, f"{reason} (snapshot {name[:8]})", remedy))
    for path in drilled.doubtful:
        detail = f"it differs from its copy in snapshot {name[:8]}, although its times say that it did not change"
        remedy = "the disk may be failing; compare it with what `symbiont-datad restore` gives"
        run.findings.append(Finding("drill_doubtful", path, Severity.ERROR, detail, remedy))
    if drilled.wrong or drilled.doubtful:
        path, reason = next(iter(drilled.wrong), (next(iter(drilled.doubtful), ""), "it differs from the live file"))
        emit("restore_drill_failed", job="verify", id=name[:8], path=path, reason=reason)
        return
    took = round(time.monotonic() - started, 3)
    emit("restore_drill_passed", job="verify", id=name[:8], files=drilled.files, bytes=drilled.bytes, duration_s=took)
