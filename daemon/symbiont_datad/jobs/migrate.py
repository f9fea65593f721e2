"""Migration as a job: brings over what is surely of before the tree. A command does the same for what it is told."""

import os
from collections.abc import Iterable, Sequence

from symbiont_datad.events import emit
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.ledger import LedgerError
from symbiont_datad.migrate.compat import keep_working
from symbiont_datad.migrate.detect import detect, home_of, unmigrated
from symbiont_datad.migrate.keeping import action_of
from symbiont_datad.migrate.legacy import Source
from symbiont_datad.migrate.migration import Planned, Result, alone, migrate_source, open_journal, rehearse
from symbiont_datad.migrate.records import Deed, SourceRow, Step
from symbiont_datad.migrate.target import Compat
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity

FINDINGS = 200
"""At most so many findings are written down; those that matter come first."""


def migrate(context: JobContext) -> JobReport:
    """Bring over every place that surely holds legacy data and was not brought over before.

    Counts: see `report`. Raises DatadError or OSError.
    """
    target = context.settings.migration
    found = detect(target, os.getcwd(), home_of(os.environ), os.environ)
    sources = unmigrated(found, target)
    if context.dry_run:
        planned = rehearse(sources, target, None, context.progress, context.stopping)
        return report(context, [rehearsed(one) for one in planned], with_actions=True)
    return report(context, bring(context, sources, target.compat, both_ways=target.both_ways))


def rehearsed(planned: Planned) -> Result:
    """A plan as the result that it would have."""
    result = Result(planned.source, planned.plan.steps, planned.plan.findings, planned.plan.moves)
    result.unchanged = planned.unchanged
    result.same = sum(step.deed is Deed.SAME for step in planned.plan.steps)
    result.left_behind = sum(step.deed is Deed.LEAVE for step in planned.plan.steps)
    return result


def bring(context: JobContext, sources: Iterable[Source], compat: Compat | None, *, both_ways: bool) -> list[Result]:
    """Bring places over, and have them go on working as asked (`compat` None: as they do, or else as the settings say).

    Each change is written into the ledger. Raises DatadError or OSError; what had come over stays.
    """
    target = context.settings.migration
    told = _Told(context)
    results = []
    with alone(target), open_journal(target) as journal:
        for source in sources:
            result = migrate_source(
                source, target, journal, context.progress, on_steps=told.steps, stopping=context.stopping
            )
            results.append(result)
            row = journal.source(source)
            if result.interrupted or row is None:
                break
            wanted, both = (compat, both_ways) if compat is not None else (row.compat, row.both_ways)
            left = result.left_behind > 0
            why_not = keep_working(row, target, journal, wanted, both_ways=both, left=left)
            if why_not is not None:
                result.findings.append(why_not)
            elif wanted is Compat.SYMLINK:  # what was written until the link was there
                result.add(
                    migrate_source(
                        source, target, journal, context.progress, on_steps=told.steps, stopping=context.stopping
                    )
                )
            told.source(result, wanted)
    return results


class _Told:
    """The log and the ledger, which are told as things happen."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._failed = False

    def steps(self, row: SourceRow, steps: Sequence[Step]) -> None:
        """Write actions down. A ledger that can't be written is told of once."""
        try:
            self._context.ledger.record([action_of(row, step) for step in steps], self._context.now, self._context.run)
        except LedgerError as error:
            if not self._failed:
                self._failed = True
                emit("ledger_failed", job="migrate", reason=str(error))

    def source(self, result: Result, compat: Compat) -> None:
        """Say that a place was brought over."""
        if result.files or result.same:
            emit(
                "legacy_migrated",
                job="migrate",
                path=result.source.path,
                files=result.files,
                bytes=result.bytes,
                same=result.same,
                compat=compat.value,
            )


def report(context: JobContext, results: Sequence[Result], *, with_actions: bool = False) -> JobReport:
    """What a run did. Counts: `files` that were copied, `bytes` of them, `same` that were there already, `unchanged`
    since an earlier run, `set_aside` in quarantine, `left` where they are. The ledger has the actions; they are handed
    up as well `with_actions`.
    """
    copying = (Deed.BRING, Deed.SET_ASIDE)
    copies = [(result, step) for result in results for step in result.steps if step.deed in copying]
    findings = sorted((finding for result in results for finding in result.findings), key=_order)
    actions = tuple(_action(result, step) for result, step in copies) if with_actions else ()
    interrupted = any(result.interrupted for result in results)
    left = any(finding.severity is not Severity.INFO for finding in findings)
    counts = {
        "files": len(copies),
        "bytes": sum(step.size for _, step in copies),
        "same": sum(result.same for result in results),
        "unchanged": sum(result.unchanged for result in results),
        "set_aside": sum(step.deed is Deed.SET_ASIDE for _, step in copies),
        "left": sum(result.left_behind for result in results),
    }
    return JobReport(
        "migrate",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        actions,
        tuple(findings[:FINDINGS]),
        counts,
        actions_total=len(copies),
        bytes_total=counts["bytes"],
    )


def _action(result: Result, step: Step) -> Action:
    path = step.to.path if not step.to.aside else os.path.join(result.source.path, step.file.path)
    return Action(step.kind, path, "migrate", step.reason, step.size)


_SEVERITIES = [Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.DEBUG]


def _order(finding: Finding) -> tuple[int, str]:
    return _SEVERITIES.index(finding.severity), finding.path
