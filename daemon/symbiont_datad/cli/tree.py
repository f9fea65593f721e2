"""`init` and `check`: the tree, once."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import Invocation, invocation
from symbiont_datad.errors import DatadError, ExitCode, UnsafePath
from symbiont_datad.report import Finding, Outcome, Severity

if TYPE_CHECKING:
    from symbiont_datad.guard.reconcile import Reconciliation
    from symbiont_datad.jobs.collections import Survey
    from symbiont_datad.jobs.context import JobContext, JobSettings
    from symbiont_datad.ledger import Ledger
    from symbiont_datad.settings import Settings

_USER_FILE = "~/.symbiont/datad.toml"


def init(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Create the tree once, and a commented datad.toml if there is none. Neither replaces what is there."""
    from symbiont_datad.settings_file import example_toml

    given = invocation(ctx)
    file = Path(os.path.expanduser(given.config or os.environ.get("SYMBIONT_DATAD_CONFIG") or _USER_FILE))
    writes = not file.exists()
    loaded = Invocation(None, given.root).load() if writes else given.load()
    result = _reconcile(_settings_of(loaded.settings), repairing=not dry_run, fresh=True)
    if writes and not dry_run:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as out:
            out.write(example_toml(loaded.settings))
    made = result.actions if not dry_run else tuple(show.planned(drift) for drift in result.drifts)
    if as_json:
        show.document({"root": str(loaded.settings.root_data_dir), "dry_run": dry_run, "config": str(file),
                       "config_written": writes and not dry_run, "actions": [show.action(one) for one in made],
                       "findings": [show.finding(one) for one in result.failures]})  # fmt: skip
    else:
        for one in made:
            show.line(show.sentence(one))
        show.line(f"{'would write' if dry_run else 'wrote'} {file}" if writes else f"{file} is there already")
        show.line(f"{loaded.settings.root_data_dir}: {'would be' if dry_run and made else 'is'} as declared")
    _fail_on(result.failures)


def check(
    ctx: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Repair the directories that differ.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: say what would be repaired.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compare the tree, the agents' state, audit archives, prompts and collections with what they should be.

    Exit code 3 when something is left.
    """
    from symbiont_datad.jobs.audit_chain import removed_by_rules, verify
    from symbiont_datad.jobs.runner import run_here
    from symbiont_datad.ledger import Ledger

    settings = _settings_of(invocation(ctx).load().settings)
    repairing = fix and not dry_run
    result = _reconcile(settings, repairing=repairing, fresh=False)
    left = _reconcile(settings, repairing=False, fresh=False) if repairing else result
    with Ledger.for_reading(settings.ledger_path) as ledger:
        if result.actions:
            with Ledger(settings.ledger_path) as writing:
                writing.record(result.actions, time.time())
        state = run_here("sweep", settings, ledger, dry_run=True)
        audit = verify(settings, removed_by_rules(settings, ledger))
        further = _further(settings, ledger)
    findings = [*result.failures, *state.findings, *audit, *further]
    if state.outcome is Outcome.FAILED:
        findings.append(Finding("unchecked", settings.layout.agents, Severity.WARNING, state.message))
    if as_json:
        show.document({"root": settings.layout.root, "fix": fix, "dry_run": dry_run,
                       "drifts": [show.drift(one) for one in left.drifts],
                       "actions": [show.action(one) for one in result.actions],
                       "findings": [show.finding(one) for one in findings]})  # fmt: skip
    else:
        for action in result.actions:
            show.line(show.sentence(action))
        for drift in left.drifts:
            show.line(show.drift_sentence(drift))
        for finding in findings:
            show.line(show.finding_sentence(finding))
        _verdict(settings.layout.root, len(left.drifts), len(findings), fix)
    if left.drifts or any(finding.severity != "info" for finding in findings):
        raise typer.Exit(int(ExitCode.LEFT))


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


def _verdict(root: str, drifts: int, findings: int, fix: bool) -> None:
    if not drifts and not findings:
        show.line(f"{root}: all good")
        return
    advice = "" if fix or not drifts else "; check --fix repairs the directories"
    show.line(f"{root}: {drifts} of the directories differ, {findings} more to look at{advice}")


def _settings_of(settings: "Settings") -> "JobSettings":
    from symbiont_datad.jobs.context import job_settings

    show.quiet_log()
    return job_settings(settings)


def _reconcile(settings: "JobSettings", *, repairing: bool, fresh: bool) -> "Reconciliation":
    from symbiont_datad.fsops.mount import refuse_unmounted
    from symbiont_datad.guard.reconcile import reconcile

    refuse_unmounted(settings.layout.root, settings.require_mount)
    return reconcile(settings.layout, now=time.time(), repairing=repairing, fresh=fresh)


def _fail_on(failures: "tuple[Finding, ...]") -> None:
    serious = [finding for finding in failures if finding.severity != "info"]
    if serious:
        raise DatadError("\n".join(show.finding_sentence(finding) for finding in serious))
