"""One truth about the daemon, for the terminal, JSON, and later the page and the metrics.

The daemon leaves its live state in `status.json`; the rest is read from the ledger and the keeper's lock. So `status`
works with the daemon down, and says since when.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from symbiont_datad.fsops.lock import holder
from symbiont_datad.ledger import Ledger, LedgerError, Run, SpacePoint, UsagePoint
from symbiont_datad.report import Finding

_STATE = "status.json"
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class LiveState:
    """What only the daemon itself knows. Times in seconds since the epoch."""

    pid: int
    started_at: float
    written_at: float
    running: bool
    ready: bool
    warnings: tuple[str, ...] = ()
    next_runs: Mapping[str, float] = field(default_factory=dict)
    active_jobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. `daemon_pid` is None when no daemon keeps the tree; `live` may then still tell of the last one."""

    root: str
    daemon_pid: int | None
    live: LiveState | None
    usage: tuple[UsagePoint, ...]
    space: SpacePoint | None
    runs: Mapping[str, Run]
    actions_today: Mapping[str, int]
    findings: tuple[tuple[Finding, float], ...]
    ledger_problem: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, the worst first."""
        live = self.live.warnings if self.live is not None and self.daemon_pid is not None else ()
        return (*([self.ledger_problem] if self.ledger_problem else []), *live)


def collect(root: str, daemon_dir: Path) -> Status:
    """The state of the daemon that keeps `root` and has its own files in `daemon_dir`. Changes nothing."""
    pid = holder(daemon_dir / "locks" / "keeper.lock")
    live = read_state(daemon_dir)
    empty = Status(root, pid, live, (), None, {}, {}, ())
    path = daemon_dir / "ledger.db"
    if not path.exists():
        return empty
    try:
        with Ledger.for_reading(path) as ledger:
            usage, space = ledger.usage()
            return Status(
                root,
                pid,
                live,
                tuple(usage),
                space,
                ledger.last_runs(),
                ledger.count_actions(time.time() - _DAY_S),
                tuple(ledger.findings()),
            )
    except LedgerError as error:
        return Status(root, pid, live, (), None, {}, {}, (), ledger_problem=str(error))


def write_state(daemon_dir: Path, state: LiveState) -> None:
    """Leave the live state; whoever reads gets the old or the new one, whole. It need not survive a crash: no fsync."""
    temporary = daemon_dir / f".{_STATE}.{os.getpid()}"
    temporary.write_text(json.dumps({"schema": 1, **asdict(state)}), encoding="utf-8")
    temporary.replace(daemon_dir / _STATE)


def read_state(daemon_dir: Path) -> LiveState | None:
    """The live state that a daemon left, or None."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads((daemon_dir / _STATE).read_text(encoding="utf-8"))
        found.pop("schema")
        found["warnings"], found["active_jobs"] = tuple(found["warnings"]), tuple(found["active_jobs"])
        return LiveState(**found)
    return None
