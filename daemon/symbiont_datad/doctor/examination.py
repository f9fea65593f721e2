"""The whole examination: each probe in turn, none of which keeps the others from being told."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.doctor import (
    clock,
    configuration,
    file_system,
    installation,
    keeper,
    owners,
    program,
    storage,
    watching,
)
from symbiont_datad.doctor.seen import Seen
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.ledger import Ledger
from symbiont_datad.report import Finding, Severity
from symbiont_datad.settings import Loaded


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined. `config` and `root` are what was typed before the command; None where nothing was."""

    loaded: Loaded
    settings: JobSettings
    ledger: Ledger
    environ: Mapping[str, str]
    config: Path | None = None
    root: Path | None = None


def program_alone() -> Seen:
    """What can be said when the settings can't be read."""
    return _guarded("program", lambda: program.judge(program.look()))


def examine(subject: Subject) -> tuple[Seen, ...]:
    """Ask every probe. Nothing is changed, in the tree or elsewhere; a scratch directory comes and goes."""
    settings, now, me = subject.settings, time.time(), os.geteuid()
    own, root = settings.daemon_dir, settings.layout.root
    repository = subject.loaded.settings.repository_path()
    found = keeper.look(own, subject.loaded.file)
    running = found.pid is not None
    wanted, _ = subject.loaded.settings.owner_ids()

    def places() -> Seen:
        seen = owners.look(root, str(own), str(repository) if repository else None)
        return owners.judge(seen, me, wanted)

    return (
        program_alone(),
        _guarded(
            "settings",
            lambda: configuration.judge(
                configuration.look(subject.loaded, settings.repository.secrets, subject.environ), me
            ),
        ),
        _guarded("owners", places),
        _guarded("file system", lambda: file_system.judge(file_system.look(root, own, settings.marks))),
        _guarded("watching", lambda: watching.judge(watching.look(settings.layout, me, running=running))),
        _guarded("clock", lambda: clock.judge(clock.look(subject.ledger, found.live, found.pid))),
        _guarded("repository", lambda: storage.judge(storage.look(settings, subject.ledger), now)),
        _guarded(
            "service",
            lambda: installation.judge(
                installation.look(subject.loaded, subject.config, subject.root), running=running
            ),
        ),
        _guarded("daemon", lambda: keeper.judge(found, now)),
    )


def _guarded(probe: str, work: Callable[[], Seen]) -> Seen:
    """What a probe says; when it fails itself, that."""
    try:
        return work()
    except Exception as error:  # who is ill in a way that was not thought of needs the rest all the more
        detail = f"this could not be looked at: {error!r}"
        return Seen(probe, "could not be looked at", {}, (Finding("unexamined", "", Severity.WARNING, detail),))
