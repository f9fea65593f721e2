"""What a run of retention has done so far, and how it is told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from symbiont_datad.events import emit
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity

FINDINGS_PER_RULE = 20
"""Files that could not be removed, each told of; those above are counted."""

FILE_KINDS = ("file_removed", "file_quarantined")
DIRECTORY_KINDS = ("directory_removed", "directory_quarantined")
"""Kinds of actions by which retention removes something, for good or so that it can be brought back."""


@dataclass(slots=True)
class Tally:
    """The actions and findings of a run of `job`, and its figures. `undoable`: what it removed can be brought back.

    With `quiet` no event tells of each rule; the run tells of all of it at once.
    """

    job: str
    quiet: bool = False
    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    kept_open: int = 0
    waiting: int = 0
    changed: int = 0
    failed: int = 0
    packed: int = 0
    expired: int = 0
    undoable: bool = False
    interrupted: bool = False

    def add_failures(self, failures: Sequence[Failure]) -> None:
        """Count what is still there, and tell of some of it; what was no longer as planned is only counted."""
        self.changed += sum(failure.changed for failure in failures)
        failed = [failure for failure in failures if not failure.changed]
        self.failed += len(failed)
        told = failed[:FINDINGS_PER_RULE]
        for failure in told:
            more = len(failed) - len(told) if failure is told[-1] else 0
            detail = f"{failure.reason} (and {more} more files)" if more else failure.reason
            remedy = "let the daemon's user write to its directory"
            self.findings.append(Finding("not_removed", failure.path, Severity.WARNING, detail, remedy))

    def add_left(self, path: str, reason: str) -> None:
        """Tell of what is left of something in the quarantine; once, though a rule and the end of its time try it."""
        remedy = "look what is in it; what lies there may be removed by hand"
        finding = Finding("not_removed", path, Severity.WARNING, reason, remedy)
        if all((one.kind, one.path) != (finding.kind, path) for one in self.findings):
            self.findings.append(finding)

    def report(self, context: JobContext, message: str = "") -> JobReport:
        """The run's report. Counts: `removed` files and `removed_directories`, for good or into the quarantine;
        `packed` days; `expired` things of the quarantine; `kept_open`: a process has them open; `waiting`: no snapshot
        holds them; `changed` between plan and removal; `failed`.
        """
        left = any(finding.severity is not Severity.INFO for finding in self.findings)
        return JobReport(
            self.job,
            Outcome.INTERRUPTED if self.interrupted else Outcome.LEFT if left else Outcome.DONE,
            context.now,
            0.0,
            tuple(self.actions),
            tuple(self.findings),
            {
                "removed": _count(self.actions, FILE_KINDS),
                "removed_directories": _count(self.actions, DIRECTORY_KINDS),
                "packed": self.packed,
                "expired": self.expired,
                "kept_open": self.kept_open,
                "waiting": self.waiting,
                "changed": self.changed,
                "failed": self.failed,
            },
            message=message,
            actions_total=len(self.actions),
            bytes_total=sum(action.bytes for action in self.actions),
        )


def _count(actions: Iterable[Action], kinds: Sequence[str]) -> int:
    return sum(action.kind in kinds for action in actions)


def tell(context: JobContext, tally: Tally, event: str, actions: Sequence[Action], **fields: object) -> None:
    """One event for many actions; at the level debug one for each before it."""
    if not actions:
        return
    if context.settings.log_level == "debug":
        for action in actions:
            emit("file_removed", job=tally.job, path=action.path, rule=action.rule, reason=action.reason)
    if not tally.quiet:
        emit(event, job=tally.job, **fields, files=len(actions), bytes=sum(action.bytes for action in actions))
