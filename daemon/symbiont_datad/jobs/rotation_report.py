"""What a rotation has done and left: actions, findings, counts, and the events that sum them up."""

from dataclasses import dataclass, field

from symbiont_datad.events import emit
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_files import Log
from symbiont_datad.jobs.removal import Book
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity, printable
from symbiont_datad.retention.logs import Choice, Way

FINDINGS = 20
"""Logs that were left alone, and failures, each told of; those above are counted."""

_LEFT_ALONE = "log_left_alone"
_WAYS = tuple(f"rotated_{way.name.lower()}" for way in Way if way is not Way.NONE)
_COUNTS = ("rotated", *_WAYS, "stored", "removed", "waiting", "left_alone", "failed")


@dataclass(slots=True)
class Tally:
    """One run so far. `book` writes its actions down, `bytes` is how much of logs went into archives."""

    context: JobContext
    book: Book
    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    bytes: int = 0
    interrupted: bool = False

    def did(self, action: Action) -> None:
        """Something was done that was in no plan: it is written down now."""
        self.actions.append(action)
        self.book.confirm(None, [action], ())

    def leave(self, log: Log, choice: Choice) -> None:
        """A log is due, and is left alone."""
        self.counts["left_alone"] += 1
        if self.counts["left_alone"] <= FINDINGS:
            self.findings.append(Finding(_LEFT_ALONE, log.path, Severity.WARNING, choice.why, choice.remedy))

    def failed(self, kind: str, path: str, error: Exception | str) -> None:
        """Something could not be done."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self.counts["failed"] += 1
        if self.counts["failed"] <= FINDINGS:
            remedy = "see that there is room, and that the daemon's user may write to its directory"
            self.findings.append(Finding(kind, path, Severity.WARNING, reason, remedy))

    def note(self, kind: str, detail: str, remedy: str, severity: Severity = Severity.WARNING) -> None:
        """Something about the logs as a whole."""
        self.findings.append(Finding(kind, self.context.settings.logs.directory, severity, detail, remedy))

    def tell(self) -> None:
        """One event for all logs that were rotated, and one for those that are newly left alone."""
        if self.counts["rotated"]:
            emit("logs_rotated", job="rotate", logs=self.counts["rotated"], bytes=self.bytes)
        left = [finding for finding in self.findings if finding.kind == _LEFT_ALONE]
        try:
            known = {one.path for one, _ in self.context.ledger.findings() if one.kind == _LEFT_ALONE} if left else ()
        except LedgerError:
            known = ()
        new = [finding for finding in left if printable(finding.path) not in known]
        if new:
            count = self.counts["left_alone"]
            emit("log_left_alone", job="rotate", path=new[0].path, reason=new[0].detail, logs=count)

    def report(self) -> JobReport:
        """All of it, for people and programs."""
        left = any(finding.severity is not Severity.INFO for finding in self.findings)
        return JobReport(
            "rotate",
            Outcome.INTERRUPTED if self.interrupted else Outcome.LEFT if left else Outcome.DONE,
            self.context.now,
            0.0,
            tuple(self.actions),
            tuple(self.findings),
            self.counts,
            actions_total=len(self.actions),
            bytes_total=self.bytes,
        )
