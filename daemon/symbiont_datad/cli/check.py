"""`check`: what to run when something is wrong."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import Invocation, invocation
from symbiont_datad.cli.progress import watched
from symbiont_datad.cli.tree import reconciled, settings_of
from symbiont_datad.errors import ExitCode, SettingsError, UnsafePath
from symbiont_datad.report import Finding, Outcome, Severity, printable

if TYPE_CHECKING:
    from symbiont_datad.doctor.seen import Seen
    from symbiont_datad.guard.reconcile import Reconciliation
    from symbiont_datad.jobs.collections import Survey
    from symbiont_datad.jobs.context import JobContext, JobSettings, Progress
    from symbiont_datad.ledger import Ledger
    from symbiont_datad.settings import Loaded

_TREE = "tree"


@dataclass(frozen=True, slots=True)
class _Checked:
    """All that was seen: of the machine (`seen`), and of the tree before and after repairs."""

    seen: "tuple[Seen, ...]"
    before: "Reconciliation"
    left: "Reconciliation"
    tree: tuple[Finding, ...]

    @property
    def findings(self) -> tuple[tuple[str, Finding], ...]:
        """Every finding, with the name of the probe that has it; the machine's come first."""
        return (*((one.probe, found) for one in self.seen for found in one.findings),
                *((_TREE, found) for found in self.tree))  # fmt: skip

    @property
    def serious(self) -> int:
        """How many of them are more than a note."""
        return sum(found.severity is not Severity.INFO for _, found in self.findings)


def check(
    ctx: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Repair the directories that differ.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="FILE", help="Also write an archive (.tar.gz, .tar.zst) to go with a bug report."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: say what would be repaired.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What to run when something is wrong: looks at machine, settings, repository, service, daemon, and the whole tree.

    The tree, the agents' state, audit archives, prompts and collections are compared with what they should be. Each
    finding says what to do. Exit code 3 when something is left. What goes into a bundle holds no secret, no content of
    any file, and no name of an agent; its README.txt says what it is.
    """
    given = invocation(ctx)
    file = Path(os.path.abspath(os.path.expanduser(bundle))) if bundle is not None else None
    if file is not None:
        from symbiont_datad.doctor.bundle import refuse

        refuse(file)
    try:
        loaded = given.load()
    except SettingsError as error:
        _without_settings(str(error), file, as_json)
        raise
    settings = settings_of(loaded.settings)
    checked = _checked(given, loaded, settings, repairing=fix and not dry_run, file=file)
    root = settings.layout.root
    if as_json:
        show.document({"root": root, "fix": fix, "dry_run": dry_run,
                       "checks": [_seen(one) for one in checked.seen],
                       "drifts": [show.drift(one) for one in checked.left.drifts],
                       "actions": [show.action(one) for one in checked.before.actions],
                       "findings": [{"probe": probe, **show.finding(one)} for probe, one in checked.findings],
                       "bundle": str(file) if file is not None else None})  # fmt: skip
    else:
        _print(checked, root, fix)
        if file is not None:
            show.line(
                f"{printable(str(file))}: for a bug report; its README.txt says what it holds, look through it first"
            )
    if checked.left.drifts or checked.serious:
        raise typer.Exit(int(ExitCode.LEFT))


def _checked(
    given: Invocation, loaded: "Loaded", settings: "JobSettings", *, repairing: bool, file: Path | None
) -> _Checked:
    from symbiont_datad.doctor.examination import Subject, examine
    from symbiont_datad.jobs.context import Progress
    from symbiont_datad.ledger import Ledger

    progress = Progress("check")
    opened, unread = _ledger(settings)
    with watched(progress, False), opened as ledger:
        before = reconciled(settings, repairing=repairing, fresh=False)
        left = reconciled(settings, repairing=False, fresh=False) if repairing else before
        if before.actions:
            with Ledger(settings.ledger_path) as writing:
                writing.record(before.actions, time.time())
        seen = examine(Subject(loaded, settings, ledger, os.environ, given.config, given.root))
        checked = _Checked(seen, before, left, (*unread, *_of_tree(settings, ledger, before, progress)))
        if file is not None:
            from symbiont_datad.doctor.bundle import bundle

            found = [one for _, one in checked.findings]
            bundle(file, loaded, settings, ledger, seen, left.drifts, found, os.environ, progress)
    return checked


def _ledger(settings: "JobSettings") -> "tuple[Ledger, list[Finding]]":
    """The ledger; where it can't be read an empty one, and why."""
    from symbiont_datad.ledger import Ledger, LedgerError

    path = str(settings.ledger_path)
    try:
        return Ledger.for_reading(settings.ledger_path), []
    except OSError as error:
        why, remedy = error.strerror or str(error), "run this as the user who runs the daemon"
    except LedgerError as error:
        why, remedy = str(error), "a damaged one is moved aside, and a new one begun, when the daemon starts"
    return Ledger(None), [Finding("ledger_unread", path, Severity.ERROR, why, remedy)]


def _without_settings(problems: str, file: Path | None, as_json: bool) -> None:
    """What can be said without settings; the problems themselves are told by the caller."""
    from symbiont_datad.doctor.examination import program_alone

    seen = program_alone()
    if as_json:
        show.document({"checks": [_seen(seen)], "problems": problems.splitlines()})
    else:
        show.line(f"{seen.probe}  {seen.told}")
    if file is not None:
        from symbiont_datad.doctor.bundle import bundle_of_problems

        bundle_of_problems(file, problems, (seen,), os.environ)


# The tree


def _of_tree(
    settings: "JobSettings", ledger: "Ledger", before: "Reconciliation", progress: "Progress"
) -> tuple[Finding, ...]:
    from symbiont_datad.jobs.audit_chain import removed_by_rules, verify
    from symbiont_datad.jobs.runner import run_here

    state = run_here("sweep", settings, ledger, dry_run=True, progress=progress)
    audit = verify(settings, removed_by_rules(settings, ledger))
    findings = [*before.failures, *state.findings, *audit, *_further(settings, ledger)]
    if state.outcome is Outcome.FAILED:
        findings.append(Finding("unchecked", settings.layout.agents, Severity.WARNING, state.message))
    return tuple(findings)


def _further(settings: "JobSettings", ledger: "Ledger") -> "list[Finding]":
    """What is to be said of prompts and collections."""
    from symbiont_datad.jobs.collections import survey
    from symbiont_datad.jobs.context import JobContext
    from symbiont_datad.jobs.metadata import read_documents, stores_of
    from symbiont_datad.jobs.prompt_check import prompt_findings
    from symbiont_datad.layout import Category

    context = JobContext(settings, ledger, 0, time.time(), dry_run=True)
    metadata = settings.layout.path_of(Category.VECTOR_DB, "metadata")
    try:
        found = survey(context, stores_of(read_documents(settings.layout.tree, metadata).values()))
        return [*prompt_findings(context), *found.findings, *_worth(context, found)]
    except (OSError, UnsafePath):  # the root can't be reached: that is told of already
        return []


def _worth(context: "JobContext", found: "Survey") -> "list[Finding]":
    """Collections of which enough could be freed."""
    from symbiont_datad.jobs.optimization import plan

    steps, _ = plan(found.collections, context.settings.vectors.optimize_when, (), context.now)
    remedy = "`symbiont-datad vectors optimize` does it, and so does the daemon on its timetable"
    return [Finding("collection_reclaimable", step.path, Severity.INFO, step.reason, remedy) for step in steps]


# What is printed


def _seen(one: "Seen") -> show.Json:
    return {"probe": one.probe, "told": one.told, "facts": dict(one.facts)}


def _print(checked: _Checked, root: str, fix: bool) -> None:
    widest = max(len(one.probe) for one in checked.seen)
    for one in checked.seen:
        show.line(f"{one.probe:<{widest}}  {printable(one.told)}")
    for action in checked.before.actions:
        show.line(show.sentence(action))
    for drift in checked.left.drifts:
        show.line(show.drift_sentence(drift))
    for probe, finding in checked.findings:
        show.line(show.finding_sentence(finding) if probe == _TREE else _sentence(probe, finding))
    show.line(f"{printable(root)}: {_verdict(checked, fix)}")


def _sentence(probe: str, one: Finding) -> str:
    """A finding about the machine: it may have no path."""
    mark = {Severity.ERROR: "error", Severity.WARNING: "warning"}.get(one.severity, "note")
    place = f"{printable(one.path)}: " if one.path else ""
    remedy = f"; {one.remedy}" if one.remedy else ""
    return f"{mark}: {probe}: {place}{printable(one.detail)}{remedy}"


def _verdict(checked: _Checked, fix: bool) -> str:
    drifts, serious = len(checked.left.drifts), checked.serious
    notes = len(checked.findings) - serious
    if not drifts and not serious:
        return "all good" + (f", {notes} note{'s' * (notes > 1)}" if notes else "")
    advice = "" if fix or not drifts else "; check --fix repairs the directories"
    parts = [f"{drifts} of the directories differ"] * bool(drifts) + [f"{serious} to look at"] * bool(serious)
    return f"{', '.join(parts)}{advice}"
