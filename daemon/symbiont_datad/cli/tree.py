"""`init`: the tree, once; and what `check` needs of it too."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from symbiont_datad.cli import show
from symbiont_datad.cli.invocation import Invocation, invocation
from symbiont_datad.errors import DatadError
from symbiont_datad.report import Finding

if TYPE_CHECKING:
    from symbiont_datad.guard.reconcile import Reconciliation
    from symbiont_datad.jobs.context import JobSettings
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
    result = reconciled(settings_of(loaded.settings), repairing=not dry_run, fresh=True)
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


def settings_of(settings: "Settings") -> "JobSettings":
    """The settings as jobs take them, for a command that looks once and logs nothing."""
    from symbiont_datad.jobs.context import job_settings

    show.quiet_log()
    return job_settings(settings)


def reconciled(settings: "JobSettings", *, repairing: bool, fresh: bool) -> "Reconciliation":
    """Compare the tree with the layout once, and repair it or not."""
    from symbiont_datad.fsops.mount import refuse_unmounted
    from symbiont_datad.guard.reconcile import reconcile

    refuse_unmounted(settings.layout.root, settings.require_mount)
    return reconcile(settings.layout, now=time.time(), repairing=repairing, fresh=fresh)


def _fail_on(failures: "tuple[Finding, ...]") -> None:
    serious = [finding for finding in failures if finding.severity != "info"]
    if serious:
        raise DatadError("\n".join(show.finding_sentence(finding) for finding in serious))
