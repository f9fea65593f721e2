"""The versions of prompt templates: a snapshot of `prompts/templates/` alone, soon after each change.

The daemon's watch on the directory starts this job a moment after a save; every sweep looks too, so that a change of
which no event told is a version a few minutes later.
"""

from symbiont_datad.errors import Locked
from symbiont_datad.events import emit
from symbiont_datad.fsops.lock import hold
from symbiont_datad.fsops.walk import walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.saving import Fingerprint, Part, Saved, save_when_changed
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Finding, JobReport, Outcome, Severity

_NAME = "templates"


def templates(context: JobContext) -> JobReport:
    """Save the templates if they have changed. In a dry run: only look at them. Counts: `files`, `saved` snapshots."""
    seen = Fingerprint(context.now)
    findings: list[Finding] = []

    def unread(path: str, error: OSError) -> None:
        detail = error.strerror or str(error)
        findings.append(Finding("unread", path, Severity.WARNING, detail, "let the daemon's user read it"))

    place = context.layout.path_of(Category.PROMPTS, "templates")
    seen.extend(list(walk(context.layout.tree, place, on_error=unread)))
    saved = Saved() if context.dry_run else _saved(context, seen, context.patience_s)
    findings += saved.findings
    left = any(finding.severity is not Severity.INFO for finding in findings)
    return JobReport(
        _NAME,
        Outcome.INTERRUPTED if saved.interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(saved.actions),
        tuple(findings),
        {"files": seen.files, "saved": sum(action.kind == "snapshot_created" for action in saved.actions)},
        actions_total=len(saved.actions),
        bytes_total=sum(action.bytes for action in saved.actions),
    )


def save_templates(context: JobContext, seen: Fingerprint) -> Saved:
    """The same as a part of a sweep, which has looked at all of them. What is left to look at is written down as this
    job's, so that it is gone when either has put it right; while the job itself runs, nothing is done.
    """
    try:
        with hold(context.settings.lock_path(_NAME), "templates are being saved"):
            saved = _saved(context, seen, 0.0)
            context.ledger.replace_findings(_NAME, saved.findings, context.now)
            return saved
    except Locked:
        return Saved()
    except (LedgerError, OSError) as error:
        emit("ledger_failed", reason=str(error))
        return Saved()


def _saved(context: JobContext, seen: Fingerprint, patience_s: float) -> Saved:
    place = context.layout.path_of(Category.PROMPTS, "templates")
    part = Part("templates", (place,), place, by_content=True)
    return save_when_changed(context, part, seen, patience_s=patience_s)
