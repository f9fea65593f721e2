"""One truth about the daemon, for the terminal, JSON and the page.

The daemon leaves its live state in `status.json`; the rest is read from the ledger and the keeper's lock. So `status`
works with the daemon down, and says since when. What that means is in `status_verdict`, how it is said in
`status_words`; both are pure.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from symbiont_datad import __version__
from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.cells import Cell, cells
from symbiont_datad.fsops.root import Tree, resolve
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.ledger_prompts import Executions
from symbiont_datad.ledger_schema import Row, Run, SnapshotRow, SpacePoint, UsagePoint
from symbiont_datad.live import LiveState, keeper, read_state
from symbiont_datad.report import HEALING, CacheUse, Finding
from symbiont_datad.retention.forecast import LOOKS_BACK_S, Forecast, forecast, trend

_DAY_S = 86400.0
_DAYS = 7
_WEEK_S = 7 * _DAY_S


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
    good_runs: Mapping[str, Run] = field(default_factory=dict)
    """The newest run of each job that ended well."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """How many runs of each job failed within a week."""
    trends: Mapping[str, float] = field(default_factory=dict)
    """What each category gains in a second, in bytes; a category of which too little is known has none."""
    snapshots: tuple[SnapshotRow, ...] = ()
    """Those that there were when a job looked last, the oldest first."""
    version: str = __version__

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, the worst first."""
        live = self.live.warnings if self.live is not None and self.daemon_pid is not None else ()
        return (*([self.ledger_problem] if self.ledger_problem else []), *live)


def collect(root: str, daemon_dir: Path) -> Status:
    """The state of the daemon that keeps `root` and has its own files in `daemon_dir`. Changes nothing."""
    pid = keeper(daemon_dir)
    live = read_state(daemon_dir)
    found = Status(root, pid, live, (), None, {}, {}, (), cells=_cells(root))
    path = daemon_dir / "ledger.db"
    try:
        if not path.exists():
            return found
        with Ledger.for_reading(path) as ledger:
            return _remembered(found, ledger, time.time())
    except (LedgerError, PermissionError) as error:
        return replace(found, ledger_problem=str(error))


def _remembered(found: Status, ledger: Ledger, now: float) -> Status:
    """What the ledger tells as well."""
    usage, space = ledger.usage()
    full, out_of_inodes = forecasts(ledger, now)
    return replace(
        found,
        usage=tuple(usage),
        space=space,
        runs=ledger.last_runs(),
        actions_today=ledger.count_actions(now - _DAY_S),
        findings=tuple(ledger.findings()),
        full=full,
        out_of_inodes=out_of_inodes,
        healed=tuple(reversed(ledger.actions(since=now - _WEEK_S, kinds=HEALING))),
        executions=tuple(ledger.last_executions(_DAYS)),
        cache_use=tuple(ledger.cache_use()),
        good_runs=ledger.last_good_runs(),
        failures=ledger.failures(now - _WEEK_S),
        trends=_trends(ledger.usage_by_category(now - _WEEK_S), now),
        snapshots=tuple(ledger.snapshots()),
    )


def _trends(points: Sequence[UsagePoint], now: float) -> dict[str, float]:
    sizes: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        sizes.setdefault(point.category, []).append((point.at, point.bytes))
    found = {category: trend(series, now) for category, series in sizes.items()}
    return {category: slope for category, slope in found.items() if slope is not None}


def forecasts(ledger: Ledger, now: float) -> tuple[Forecast | None, Forecast | None]:
    """When bytes and when inodes run out, by the ledger."""
    spaces = ledger.space_since(now - LOOKS_BACK_S)
    free = [(space.at, float(space.free_bytes)) for space in spaces]
    inodes = [(space.at, float(space.free_inodes)) for space in spaces if space.total_inodes]
    ends = [found for series in (free, inodes) if (found := forecast(series, {}, now)) is not None]
    if not ends:  # most disks don't fill up: then nobody asks what fills them
        return None, None
    points, _ = ledger.usage_since(now - max(found.over_s for found in ends))
    sizes: dict[str, list[tuple[float, float]]] = {}
    files: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        sizes.setdefault(point.category, []).append((point.at, point.bytes))
        files.setdefault(point.category, []).append((point.at, point.files))
    return forecast(free, sizes, now), forecast(inodes, files, now)


def _cells(root: str) -> tuple[Cell, ...]:
    """The quarantine; nothing of it for those who may not look there."""
    try:
        return tuple(cells(Tree(resolve(root))))
    except (OSError, UnsafePath):
        return ()
