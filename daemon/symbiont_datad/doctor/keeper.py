"""The daemon that keeps the tree: whether it runs, lives, is of this version, and has read the settings of now."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import symbiont_datad
from symbiont_datad.doctor.seen import Seen
from symbiont_datad.fsops.lock import holder
from symbiont_datad.live import LiveState, keeper, read_state
from symbiont_datad.quantities import format_duration
from symbiont_datad.report import Finding, Severity, printable
from symbiont_datad.service.probe import Probe, trouble


@dataclass(frozen=True, slots=True)
class Keeper:
    """What was seen of the daemon. `pid`: None when none runs, 0 when it can't be told which.

    `live` is what it left last. `trouble`: why it is not ready; else empty. `settings_at`: when the settings file was
    changed last (seconds since the epoch); None without one. `locks`: which jobs run now, each with its process.
    """

    pid: int | None
    live: LiveState | None
    trouble: str
    installed: str
    settings_at: float | None = None
    locks: tuple[tuple[str, int], ...] = ()
    unseen: bool = False


def look(own: Path, settings_file: Path | None) -> Keeper:
    """Look at its lock, at the locks of jobs, and at what it has left."""
    try:
        pid, live = keeper(own), read_state(own)
        why = trouble(Probe.READY, live, pid, time.monotonic()) if pid is not None else ""
        locks = tuple(_held(own / "locks"))
    except OSError as error:  # somebody else's
        return Keeper(None, None, error.strerror or str(error), symbiont_datad.__version__, unseen=True)
    changed = None
    if settings_file is not None:
        with suppress(OSError):
            changed = os.stat(settings_file).st_mtime
    return Keeper(pid, live, why, symbiont_datad.__version__, changed, locks)


def _held(directory: Path) -> list[tuple[str, int]]:
    found = []
    for file in sorted(directory.glob("*.lock")):
        pid = holder(file)
        if pid is not None and file.name != "keeper.lock":
            found.append((file.stem, pid))
    return found


def judge(found: Keeper, now: float) -> Seen:
    """What is wrong with it."""
    if found.unseen:
        detail = f"the daemon's own directory can't be looked at: {found.trouble}"
        unseen = Finding("daemon_unseen", "", Severity.WARNING, detail, "run this as the user who runs the daemon")
        return Seen("daemon", "can't be looked at", {"running": None}, (unseen,))
    live = found.live
    findings = [*_standing(found), *(_versions(found, live) if live is not None and found.pid is not None else ())]
    if found.pid is not None and live is not None:
        findings += [
            Finding("daemon_warns", "", Severity.WARNING, warning, "`symbiont-datad status` and `events` say more")
            for warning in live.warnings
        ]
    running = ", ".join(f"{name} (process {pid or 'unknown'})" for name, pid in found.locks)
    jobs = f"; at work: {running}" if running else ""
    return Seen("daemon", f"{_line(found, now)}{jobs}", _facts(found), tuple(findings))


def _standing(found: Keeper) -> list[Finding]:
    if found.pid is None:
        if found.live is not None and found.live.running:
            detail = f"the last one (process {found.live.pid}) ended without a word: it was killed, or crashed"
            remedy = "start it again; its log, or `journalctl -u symbiont-datad`, may say why"
            return [Finding("daemon_died", "", Severity.ERROR, detail, remedy)]
        remedy = "`symbiont-datad service install` has the machine run it"
        return [Finding("daemon_down", "", Severity.INFO, "none runs: nobody keeps the tree", remedy)]
    if found.trouble:
        remedy = "its log says more; `systemctl restart symbiont-datad` (or `--user`) starts it anew"
        return [Finding("daemon_unwell", "", Severity.ERROR, found.trouble, remedy)]
    return []


def _versions(found: Keeper, live: LiveState) -> list[Finding]:
    findings = []
    if live.version != found.installed:
        runs = live.version or "an older version"
        detail = f"{runs} runs, and {found.installed} is installed"
        remedy = "restart it: `systemctl restart symbiont-datad` (or `systemctl --user restart symbiont-datad`)"
        findings.append(Finding("daemon_outdated", "", Severity.WARNING, detail, remedy))
    if found.settings_at is not None and live.settings_at and found.settings_at > live.settings_at:
        detail = "the settings file was changed after the daemon had read it"
        remedy = "`config check` says whether it is good; `systemctl reload symbiont-datad`, or SIGHUP, has it read"
        findings.append(Finding("settings_not_read", "", Severity.WARNING, detail, remedy))
    return findings


def _line(found: Keeper, now: float) -> str:
    live = found.live
    if found.pid is None:
        since = f"; the last one was heard of {format_duration(max(0.0, now - live.written_at))} ago" if live else ""
        return f"none runs{since}"
    version = f" {live.version}" if live is not None and live.version else ""
    age = f" for {format_duration(max(0.0, now - live.started_at))}" if live is not None else ""
    return f"process {found.pid or 'unknown'} runs{version}{age}: {printable(found.trouble) or 'the tree is kept'}"


def _facts(found: Keeper) -> dict[str, str | int | float | bool | None]:
    live = found.live
    return {
        "running": found.pid is not None,
        "pid": found.pid,
        "version": live.version if live is not None else None,
        "installed": found.installed,
        "started_at": live.started_at if live is not None else None,
        "heard_of_at": live.written_at if live is not None else None,
        "trouble": found.trouble,
        "jobs": ", ".join(name for name, _ in found.locks),
    }
