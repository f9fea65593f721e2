"""The collections: what each of them is, kept in `vector_db/metadata/`, and whether each belongs to one owner alone."""

import os

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.write import write_atomic
from symbiont_datad.jobs.collections import Survey, survey
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.metadata import documents, encode, read_documents, stores_of
from symbiont_datad.layout import Category
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity, printable

OPTIMIZED = "collection_optimized"
"""The kind of action that an optimisation is."""

_MODE = 0o644
_ISOLATION = ("collection_shared", "collection_owner", "collection_mode")


def vectors(context: JobContext) -> JobReport:
    """Look at every collection, and keep what is known of each. Counts: `collections`, their `files` and `bytes`,
    `reclaimable` bytes, `written` descriptions.
    """
    place = context.layout.path_of(Category.VECTOR_DB, "metadata")
    before = read_documents(context.layout.tree, place)
    found = survey(context, stores_of(before.values()))
    interrupted = context.stopping()
    actions: list[Action] = []
    findings = list(found.findings)
    if not interrupted:
        actions, failures = _keep(context, place, found, before)
        findings += failures
        if not context.dry_run:
            _tell_of_exposed(context, found)
    left = any(finding.severity is not Severity.INFO for finding in findings)
    return JobReport(
        "vectors",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(actions),
        tuple(findings),
        {
            "collections": len(found.collections),
            "files": sum(one.files for one in found.collections),
            "bytes": sum(one.bytes for one in found.collections),
            "reclaimable": sum(one.reclaimable for one in found.collections),
            "written": sum(action.kind == "metadata_written" for action in actions),
        },
        actions_total=len(actions),
        bytes_total=0,
    )


def last_optimised(ledger: Ledger) -> dict[str, float]:
    """When each collection was optimised last, by its path in findings."""
    try:
        return {row.path: row.at for row in ledger.actions(kinds=(OPTIMIZED,)) if row.state == "done"}
    except LedgerError:
        return {}


def _keep(
    context: JobContext, place: str, found: Survey, before: dict[str, bytes]
) -> tuple[list[Action], list[Finding]]:
    """Write what differs, and remove what tells of a collection that is gone."""
    optimised = last_optimised(context.ledger)
    wanted = {name: encode(document) for name, document in documents(found.collections, optimised).items()}
    unread = any(finding.kind in ("unread", "extra_root_unread") for finding in found.findings)
    gone = [] if unread else sorted(before.keys() - wanted.keys())
    actions: list[Action] = []
    failures: list[Finding] = []
    for name, data in sorted(wanted.items()):
        if before.get(name) == data:
            continue
        new = name not in before
        reason = "a collection that was not known" if new else "its collection has changed"
        action = Action("metadata_written", f"{place}/{name}", "vector_db.metadata", reason, len(data))
        if _do(context, place, name, data, failures):
            actions.append(action)
    for name in gone:
        if _do(context, place, name, None, failures):
            reason = "its collection is gone"
            actions.append(Action("metadata_removed", f"{place}/{name}", "vector_db.metadata", reason))
    if actions and not context.dry_run:
        try:
            context.ledger.record(actions, context.now, context.run)
        except LedgerError as error:
            emit("ledger_failed", job="vectors", reason=str(error))
    return actions, failures


def _do(context: JobContext, place: str, name: str, data: bytes | None, failures: list[Finding]) -> bool:
    """Write a description, or (None) remove it. In a dry run, only say yes."""
    if context.dry_run:
        return True
    try:
        with context.layout.tree.directory(place) as fd:
            if data is not None:
                write_atomic(fd, name, data, _MODE)
            else:
                os.unlink(name, dir_fd=fd)
    except (OSError, UnsafePath) as error:
        why = getattr(error, "strerror", None) or str(error)
        remedy = "let the daemon's user write there"
        failures.append(Finding("metadata_unwritten", f"{place}/{name}", Severity.WARNING, why, remedy))
        return False
    return True


def _tell_of_exposed(context: JobContext, found: Survey) -> None:
    """A security event for what is new."""
    try:
        known = {(finding.kind, finding.path) for finding, _ in context.ledger.findings()}
    except LedgerError:
        known = set()
    for finding in found.findings:
        told = finding.severity is Severity.INFO or (finding.kind, printable(finding.path)) in known
        if finding.kind in _ISOLATION and not told:
            emit("collection_exposed", job="vectors", path=finding.path, kind=finding.kind, reason=finding.detail)
