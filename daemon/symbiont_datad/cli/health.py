"""`health`: whether the daemon is well, as an exit code. A probe asks every few seconds, so nothing heavy is loaded.

`main` comes here before it builds the whole command line; what is typed in any other way than the usual one goes there.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from symbiont_datad.cli.words import Words
from symbiont_datad.errors import ExitCode, SettingsError
from symbiont_datad.live import keeper, read_state
from symbiont_datad.service.probe import Probe, trouble
from symbiont_datad.settings_places import Unsure, daemon_dir

if TYPE_CHECKING:
    import typer

ALL = (Probe.LIVE, Probe.READY)
"""What is asked when nothing is named."""


@dataclass(slots=True)
class Asked:
    """What was typed: options before the command, the probe (empty: all), `--json`."""

    before: Words
    probe: str = ""
    as_json: bool = False


def asked(words: Words) -> Asked | None:
    """What `health [--live|--ready|--startup] [--json]` asks for; None for all else."""
    if words.command != "health":
        return None
    found = Asked(words)
    for word in words.rest:
        name = word.removeprefix("--")
        if word == "--json":
            found.as_json = True
        elif word.startswith("--") and name in tuple(Probe) and not found.probe:
            found.probe = name
        else:
            return None
    return found


def answer(question: Asked) -> ExitCode:
    """Look, say in one line why it is not well (nothing when it is; with `--json` always a document), and judge."""
    probes = (Probe(question.probe),) if question.probe else ALL
    pid, age_s = None, None
    try:
        own = _daemon_dir(question)
        pid, state, now = keeper(own), read_state(own), time.monotonic()
        why = next(filter(None, (trouble(probe, state, pid, now) for probe in probes)), "")
        if pid is not None and state is not None and state.beat <= now:
            age_s = round(now - state.beat, 1)
    except SettingsError as error:
        why = " ".join(str(error).splitlines()[:1])
    except OSError as error:
        why = f"its own files can't be read: {error.strerror or error}"
    if question.as_json:
        content = {"schema": 1, "probes": list(probes), "healthy": not why, "reason": why, "pid": pid or None}
        sys.stdout.write(json.dumps({**content, "silent_s": age_s}, indent=2) + "\n")
    elif why:
        sys.stderr.write(f"symbiont-datad: {why}\n")
    return ExitCode.FAILED if why else ExitCode.DONE


def _daemon_dir(question: Asked) -> Path:
    before = question.before
    try:
        return daemon_dir(before.config, before.whole_root, os.environ)
    except Unsure:
        from symbiont_datad.cli.invocation import Invocation

        return Invocation(before.config, before.root).load().settings.daemon_dir


def add_to(app: "typer.Typer") -> None:
    """Make it one of the commands, for those who ask for help or type it in another way."""
    from typing import Annotated

    import typer

    from symbiont_datad.cli.invocation import invocation

    @app.command()
    def health(
        ctx: typer.Context,
        live: Annotated[bool, typer.Option("--live", help="Only: does it move?")] = False,
        ready: Annotated[bool, typer.Option("--ready", help="Only: is the tree kept now?")] = False,
        startup: Annotated[bool, typer.Option("--startup", help="Only: was it kept since the start?")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    ) -> None:
        """For probes: exit code 0 when the daemon lives and keeps its tree, else 1 and one line that says why not."""
        wanted = [probe for probe, given in zip(Probe, (live, ready, startup), strict=True) if given]
        if len(wanted) > 1:
            raise typer.BadParameter("one of --live, --ready and --startup")
        given = invocation(ctx)
        question = Asked(Words(given.config, given.root), wanted[0] if wanted else "", as_json)
        raise typer.Exit(int(answer(question)))
