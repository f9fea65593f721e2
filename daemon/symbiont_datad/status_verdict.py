"""What a status means: all that a person should look at, the worst first, each with the command that helps. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from symbiont_datad.quantities import format_duration
from symbiont_datad.report import HEALING, Finding, Severity, printable
from symbiont_datad.status import Status
from symbiont_datad.status_words import endings

_CHECK = "symbiont-datad check"
_SOON_S = 14 * 86_400.0
"""A disk that will be full before that is a warning."""
_VERY_SOON_S = 86_400.0
_LATE = 2
"""So many times its interval the daemon's own state may be late: a machine that is busy, or wakes from sleep."""
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.DEBUG)
_COMMAND = re.compile(r"`(symbiont-datad [^`]+)`")
_ALONE = 3
"""Findings of one kind that are told of one by one; of more only the first is named."""

_BY_HAND = {
    "sweep": "symbiont-datad sweep",
    "rotate": "symbiont-datad rotate",
    "clean": "symbiont-datad clean",
    "backup": "symbiont-datad backup",
    "verify": "symbiont-datad verify",
    "prune": "symbiont-datad prune",
    "optimize": "symbiont-datad vectors optimize",
    "relieve": "symbiont-datad clean --dry-run",
}
"""What runs a job by hand, and shows what stands in its way."""

_WARNINGS = (
    ("doesn't move", Severity.ERROR, "symbiont-datad service status"),
    ("the tree is held", Severity.ERROR, _CHECK),
    ("nothing is recorded", Severity.ERROR, _CHECK),
    ("settings were refused", Severity.ERROR, "symbiont-datad config check"),
    ("can't listen", Severity.WARNING, "symbiont-datad config show"),
    ("free", Severity.WARNING, "symbiont-datad clean --dry-run"),
    ("keeps undoing", Severity.WARNING, "symbiont-datad events --job guard --since 1h"),
)
"""Parts of what the running daemon says of itself, how bad that is, and what helps; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to look at. `since`: when it was first seen, in seconds since the epoch, where that is known."""

    severity: Severity
    text: str
    command: str = _CHECK
    since: float | None = None


def remarks(found: Status, now: float) -> tuple[Remark, ...]:
    """All of them, the worst first; `now` in seconds since the epoch. None with less than a warning."""
    every = [
        *_daemon(found, now),
        *([Remark(Severity.ERROR, f"the ledger can't be read: {found.ledger_problem}")] * bool(found.ledger_problem)),
        *_failed(found, now),
        *_warned(found),
        *_found(found),
        *_filling(found),
    ]
    return tuple(sorted(every, key=lambda one: _ORDER.index(one.severity)))  # those alike stay in this order


def _daemon(found: Status, now: float) -> Iterator[Remark]:
    live = found.live
    if found.daemon_pid is None:
        if live is None:
            yield Remark(Severity.ERROR, f"no daemon keeps {found.root}", "symbiont-datad service install")
            return
        how = "was stopped" if not live.running else "died"
        ago = format_duration(max(now - live.written_at, 0.0))
        text = f"no daemon keeps {found.root}: it {how} {ago} ago"
        yield Remark(Severity.ERROR, text, "symbiont-datad service status")
        return
    if live is None or not live.running:
        return  # it is just starting
    silent_s = now - live.written_at
    if live.every_s and silent_s > _LATE * live.every_s:
        text = f"the daemon (process {found.daemon_pid}) has not moved for {format_duration(silent_s)}"
        yield Remark(Severity.ERROR, text, "symbiont-datad service status", live.written_at)
    if live.version and live.version != found.version:
        text = f"the daemon that runs is version {live.version}, installed is {found.version}: restart it"
        yield Remark(Severity.WARNING, text, "symbiont-datad service status")


def _failed(found: Status, now: float) -> Iterator[Remark]:
    """Jobs of which the last run failed."""
    for name, run in sorted(found.runs.items()):
        if run.outcome != "failed":
            continue
        good = found.good_runs.get(name)
        since = f"last good {format_duration(max(now - good.started_at, 0.0))} ago" if good else "it never succeeded"
        text = f"{name} failed: {run.message or 'no reason is known'}; {since}"
        yield Remark(Severity.ERROR, text, _BY_HAND.get(name, _CHECK), run.started_at)


def _warned(found: Status) -> Iterator[Remark]:
    """What the running daemon says of itself, but for what the ledger has told already."""
    if found.live is None or found.daemon_pid is None:
        return
    told = tuple(f"{name} failed: " for name, run in found.runs.items() if run.outcome == "failed")
    for text in found.live.warnings:
        if told and text.startswith(told):
            continue
        job, failed, _ = text.partition(" failed: ")
        if failed and job in _BY_HAND:
            yield Remark(Severity.ERROR, text, _BY_HAND[job])
            continue
        severity, command = next(
            ((severity, command) for part, severity, command in _WARNINGS if part in text), (Severity.WARNING, _CHECK)
        )
        yield Remark(severity, text, command)


def _found(found: Status) -> Iterator[Remark]:
    """What jobs have found; what was healed is told of elsewhere."""
    healed = {row.path for row in found.healed}
    kinds: dict[tuple[Severity, str], list[tuple[Finding, float]]] = {}
    for one, seen in found.findings:
        if one.severity not in (Severity.ERROR, Severity.WARNING) or (one.kind in HEALING and one.path in healed):
            continue
        kinds.setdefault((one.severity, one.kind), []).append((one, seen))
    for (severity, kind), some in kinds.items():
        words = kind.replace("_", " ")
        if len(some) > _ALONE:
            one, seen = some[0]
            yield Remark(severity, f"{len(some):,} × {words}, the first: {_place(one)}", _helps(one), seen)
            continue
        for one, seen in some:
            yield Remark(severity, f"{words}: {_place(one)}", _helps(one), seen)


def _place(one: Finding) -> str:
    return printable(one.path) or one.detail or "the root"


def _helps(one: Finding) -> str:
    named = _COMMAND.search(one.remedy)
    return named[1] if named else _CHECK


def _filling(found: Status) -> Iterator[Remark]:
    for one, text in endings(found):
        if one.full_in_s < _SOON_S:
            severity = Severity.ERROR if one.full_in_s < _VERY_SOON_S else Severity.WARNING
            yield Remark(severity, text, "symbiont-datad clean --dry-run")
