"""The clock: timetables, ages and keep rules go by it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from symbiont_datad.doctor.seen import Seen
from symbiont_datad.fsops.machine import clock_is_synchronised
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.live import LiveState
from symbiont_datad.quantities import format_duration
from symbiont_datad.report import Finding, Severity

_LEAST = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
"""Before this program was written. A machine without a battery begins in 1970."""
_TOLERATED_S = 120.0
_JUMPED_S = 5.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Times in seconds since the epoch. `last_run`: when the newest run of a job began, by the clock of that time.

    `moved_s`: by how much the wall clock moved against the monotonic one since the daemon last left its state.
    `synchronised`: None where the system doesn't tell.
    """

    now: float
    synchronised: bool | None
    last_run: float | None = None
    moved_s: float | None = None


def look(ledger: Ledger, live: LiveState | None, keeper: int | None) -> Clock:
    """Ask the kernel, the ledger, and what a running daemon has left."""
    now = time.time()
    try:
        runs = [run.started_at for run in ledger.last_runs().values()]
    except LedgerError:
        runs = []
    beats = live is not None and keeper is not None and live.running and live.beat
    moved = (now - time.monotonic()) - (live.written_at - live.beat) if live is not None and beats else None
    return Clock(now, clock_is_synchronised(), max(runs, default=None), moved)


def judge(found: Clock) -> Seen:
    """What is wrong with it."""
    findings = []
    if found.now < _LEAST:
        detail = f"it is {_told(found.now)} by this machine's clock, which can't be"
        findings.append(Finding("clock_wrong", "", Severity.ERROR, detail, "set it: `timedatectl set-ntp true`"))
    elif found.last_run is not None and found.last_run > found.now + _TOLERATED_S:
        back = format_duration(found.last_run - found.now)
        detail = f"it went back: a job ran at {_told(found.last_run)}, {back} ahead of now"
        remedy = "if it is right now, nothing is to be done: jobs that wait for their next run come once it is reached"
        findings.append(Finding("clock_went_back", "", Severity.WARNING, detail, remedy))
    if found.moved_s is not None and abs(found.moved_s) > _JUMPED_S:
        detail = f"it jumped by {format_duration(found.moved_s)} in the last minute, or the machine has just slept"
        remedy = "the daemon sets its timetable right; when this comes back, have chrony or timesyncd slew it"
        findings.append(Finding("clock_jumped", "", Severity.WARNING, detail, remedy))
    if found.synchronised is False:
        detail = "the kernel says that nothing keeps this machine's clock right"
        remedy = "`timedatectl set-ntp true` has systemd-timesyncd do it (in a container: that is up to its host)"
        findings.append(Finding("clock_unsynchronised", "", Severity.INFO, detail, remedy))
    words = {True: "kept right", False: "kept right by nothing", None: "by what it is kept right can't be told here"}
    return Seen(
        "clock",
        f"{_told(found.now)}, {words[found.synchronised]}",
        {"now_at": found.now, "synchronised": found.synchronised, "moved_s": found.moved_s},
        tuple(findings),
    )


def _told(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
