"""How things were: what the page's plots are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.ledger_events import Filter
from symbiont_datad.ledger_schema import Row, Run, SpacePoint, UsagePoint

_DAY_S = 86_400.0
DAYS = 30
"""Days that are looked back on."""
_RUNS_S = _DAY_S
REPAIRED = (
    "directory_recreated",
    "permissions_restored",
    "owner_restored",
    "obstruction_quarantined",
    "context_restored",
    "context_converted",
    "context_quarantined",
)
REMOVED = (
    "file_removed",
    "directory_removed",
    "file_quarantined",
    "directory_quarantined",
    "backup_rotated",
    "log_archive_removed",
    "quarantine_expired",
    "snapshot_forgotten",
    "metadata_removed",
)
"""The kinds of actions that put something right, and those by which something went."""


@dataclass(frozen=True, slots=True)
class History:
    """Usage by category and free space over a month, runs of jobs over a day, all with the oldest first; and how many
    repairs and removals there were on each day (number of days since the epoch, UTC)."""

    usage: tuple[UsagePoint, ...] = ()
    space: tuple[SpacePoint, ...] = ()
    runs: tuple[Run, ...] = ()
    repairs: Mapping[int, int] | None = None
    removals: Mapping[int, int] | None = None


def history(daemon_dir: Path, now: float, wanted: Filter) -> tuple[History, tuple[Row, ...]]:
    """What the ledger remembers, and the events that pass a filter; nothing where it can't be read.

    `now` in seconds since the epoch.
    """
    try:
        with Ledger.for_reading(daemon_dir / "ledger.db") as ledger:
            since = now - DAYS * _DAY_S
            days = ledger.actions_by_day(since)
            found = History(
                tuple(ledger.usage_by_category(since)),
                tuple(ledger.space_since(since)),
                tuple(ledger.runs(now - _RUNS_S)),
                _summed(days, REPAIRED),
                _summed(days, REMOVED),
            )
            return found, tuple(ledger.events(wanted))
    except (LedgerError, PermissionError):
        return History(), ()


def _summed(days: Sequence[tuple[str, int, int]], kinds: Sequence[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for kind, day, count in days:
        if kind in kinds:
            found[day] = found.get(day, 0) + count
    return found
