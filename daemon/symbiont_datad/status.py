"""One truth about the daemon, for the terminal, JSON, and later the page and the metrics.

The daemon leaves its live state in `status.json`; the rest is read from the ledger and the keeper's lock. So `status`
works with the daemon down, and says since when.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.cells import Cell, cells
from symbiont_datad.fsops.root import Tree, resolve
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.ledger_prompts import Executions
from symbiont_datad.ledger_schema import Row, Run, SpacePoint, UsagePoint
from symbiont_datad.live import LiveState, keeper, read_state
from symbiont_datad.report import CacheUse, Finding
from symbiont_datad.retention.forecast import LOOKS_BACK_S, Forecast, forecast

_DAY_S = 86400.0
_DAYS = 7
_HEALED_S = 7 * _DAY_S

HEALING = ("context_restored", "context_converted", "context_quarantined")
"""The kinds of actions that heal contexts."""


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
    executions: tuple[Executions, ...] = ()
    """Of the newest seven days that there are any of, by day and template."""
    cache_use: tuple[CacheUse, ...] = ()
    full: Forecast | None = None
    """When the disk will be full."""
    out_of_inodes: Forecast | None = None
    cells: tuple[Cell, ...] = ()
    """What lies in the quarantine, the oldest first."""
    healed: tuple[Row, ...] = ()
    """What was done lately about contexts that the runtime could not load, the newest first."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, the worst first."""
        live = self.live.warnings if self.live is not None and self.daemon_pid is not None else ()
        return (*([self.ledger_problem] if self.ledger_problem else []), *live)


def collect(root: str, daemon_dir: Path) -> Status:
    """The state of the daemon that keeps `root` and has its own files in `daemon_dir`. Changes nothing."""
    pid = keeper(daemon_dir)
    live = read_state(daemon_dir)
    empty = Status(root, pid, live, (), None, {}, {}, (), cells=_cells(root))
    path = daemon_dir / "ledger.db"
    if not path.exists():
        return empty
    try:
        with Ledger.for_reading(path) as ledger:
            now = time.time()
            usage, space = ledger.usage()
            full, out_of_inodes = _forecasts(ledger, now)
            return replace(
                empty,
                usage=tuple(usage),
                space=space,
                runs=ledger.last_runs(),
                actions_today=ledger.count_actions(now - _DAY_S),
                findings=tuple(ledger.findings()),
                full=full,
                out_of_inodes=out_of_inodes,
                healed=tuple(reversed(ledger.actions(since=now - _HEALED_S, kinds=HEALING))),
                executions=tuple(ledger.last_executions(_DAYS)),
                cache_use=tuple(ledger.cache_use()),
            )
    except LedgerError as error:
        return replace(empty, ledger_problem=str(error))


def _forecasts(ledger: Ledger, now: float) -> tuple[Forecast | None, Forecast | None]:
    """When bytes and when inodes run out, by the ledger."""
    points, spaces = ledger.usage_since(now - LOOKS_BACK_S)
    sizes: dict[str, list[tuple[float, float]]] = {}
    files: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        sizes.setdefault(point.category, []).append((point.at, point.bytes))
        files.setdefault(point.category, []).append((point.at, point.files))
    inodes = [(space.at, space.free_inodes) for space in spaces if space.total_inodes]
    return (
        forecast([(space.at, space.free_bytes) for space in spaces], sizes, now),
        forecast(inodes, files, now),
    )


def _cells(root: str) -> tuple[Cell, ...]:
    """The quarantine; nothing of it for those who may not look there."""
    try:
        return tuple(cells(Tree(resolve(root))))
    except (OSError, UnsafePath):
        return ()
