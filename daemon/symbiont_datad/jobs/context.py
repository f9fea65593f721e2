"""What a job is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from symbiont_datad.layout import Layout, layout_of
from symbiont_datad.ledger import Ledger

if TYPE_CHECKING:
    from symbiont_datad.settings import Settings


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The settings that jobs go by, as plain data: a child process gets them as they are, and loads no settings model.

    `settle_s`: a state file is judged only when it was last written this many seconds ago.
    """

    layout: Layout
    daemon_dir: Path
    backup_count: int
    settle_s: float
    keep_if_open: bool
    require_snapshot: bool
    log_format: str
    log_level: str

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is."""
        return self.daemon_dir / "ledger.db"

    def lock_path(self, name: str) -> Path:
        """Where the lock of a job (or of the keeper) is."""
        return self.daemon_dir / "locks" / f"{name}.lock"


@dataclass(frozen=True, slots=True)
class JobContext:
    """One run of a job: its settings, the ledger and the number of the run in it, and the time it goes by.

    With `dry_run` a job makes its plan, reports it, and touches nothing (`run` is 0 then). `stopping()` is true when
    the run should end early, between two steps.
    """

    settings: JobSettings
    ledger: Ledger
    run: int
    now: float
    dry_run: bool = False
    stopping: Callable[[], bool] = lambda: False

    @property
    def layout(self) -> Layout:
        """The declared tree."""
        return self.settings.layout


def job_settings(settings: "Settings") -> JobSettings:
    """The part of the settings that jobs need."""
    return JobSettings(
        layout=layout_of(settings),
        daemon_dir=settings.daemon_dir,
        backup_count=settings.backup_count,
        settle_s=settings.state.settle,
        keep_if_open=settings.retention.keep_if_open,
        require_snapshot=settings.retention.require_snapshot,
        log_format=settings.logging.format,
        log_level=settings.logging.level,
    )
