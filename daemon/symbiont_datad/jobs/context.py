"""What a job is given."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from symbiont_datad.fsops.root import resolve
from symbiont_datad.jobs.secrets import Secrets, secrets_of
from symbiont_datad.layout import Layout, layout_of
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_trim import KEEP_ALL
from symbiont_datad.ledger_trim import Limits as LedgerLimits
from symbiont_datad.migrate.target import NOWHERE, Target, target_of
from symbiont_datad.quantities import DAY, HOUR, Share
from symbiont_datad.retention.logs import NO_ROTATION, LogRule, LogSettings
from symbiont_datad.retention.pressure import NO_MARKS, Marks
from symbiont_datad.retention.quarantine import NO_LIMITS, QuarantineLimits

if TYPE_CHECKING:
    from symbiont_datad.settings import Settings
    from symbiont_datad.settings_logs import LogLimits


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """Where the snapshot repository is (`location` as users write it), and how it is opened and written.

    `level` is zstd's; None stores everything as it is.
    """

    location: str
    secrets: Secrets
    level: int | None = 3


@dataclass(frozen=True, slots=True)
class Keep:
    """Which snapshots of one kind stay: the counts of a policy (see `restic.forget.Policy`). None is no rule."""

    last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    within_s: float | None = None


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """How snapshots are made, kept and checked.

    `templates` are those of the prompt templates alone. `optimizations_s`: for how long those of a collection before it
    was optimised are kept. `min_free`: the part of the repository's file system below which no backup starts.
    `read_all_within_s`: the time in which the checks together read all data once.
    """

    repository: RepositorySettings
    backups: Keep
    autosaves: Keep
    include_caches: bool
    min_free: Share
    read_all_within_s: float
    templates: Keep = Keep(last=100)
    optimizations_s: float = 7 * DAY


_QUARTER = Share(percent=25)


@dataclass(frozen=True, slots=True)
class VectorSettings:
    """The care of vector collections.

    `extra_roots`: absolute paths, without links in them, of directories outside the tree. `optimize_when`: the part of
    a collection's bytes that must be reclaimable. `keep_versions_s`: how long a version of a Lance table stays after a
    newer one replaced it.
    """

    extra_roots: tuple[str, ...] = ()
    optimize_when: Share = _QUARTER
    keep_versions_s: float = HOUR


@dataclass(frozen=True, slots=True)
class StateSettings:
    """The care of contexts.

    `heal`: `restore`, `report` or `off`. `quarantine_lost`: whether a broken one of which no good version is found is
    moved aside. `compression`: the mode in which the runtime loads contexts: `on`, `off` or `detect`.
    `compress_archives_s`: the age from which an archive is compressed; None: never.
    """

    heal: str = "restore"
    quarantine_lost: bool = False
    compression: str = "detect"
    compress_archives_s: float | None = None


@dataclass(slots=True)
class Progress:
    """How far a job is; other threads look at it while it runs. `bytes` of `total_bytes`; a total of 0 is unknown."""

    phase: str = ""
    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0
    current: str = ""

    def begin(self, phase: str, total_files: int = 0, total_bytes: int = 0) -> None:
        """Begin another part of the work, whose name `phase` is."""
        self.phase, self.current = phase, ""
        self.files = self.bytes = 0
        self.total_files, self.total_bytes = total_files, total_bytes


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The settings that jobs go by, as plain data: a child process gets them as they are, and loads no settings model.

    `settle_s`: a state file is judged only when it was last written this many seconds ago. `undo_window_s`: how long
    what retention removes can be brought back. `require_mount`: see `fsops.mount.refuse_unmounted`.
    """

    layout: Layout
    daemon_dir: Path
    snapshots: SnapshotSettings
    backup_count: int
    settle_s: float
    keep_if_open: bool
    require_snapshot: bool
    log_format: str
    log_level: str
    vectors: VectorSettings = VectorSettings()
    undo_window_s: float = 0.0
    quarantine: QuarantineLimits = NO_LIMITS
    marks: Marks = NO_MARKS
    logs: LogSettings = NO_ROTATION
    state: StateSettings = StateSettings()
    require_mount: str | bool = False
    ledger: LedgerLimits = KEEP_ALL
    migration: Target = NOWHERE

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is."""
        return self.daemon_dir / "ledger.db"

    @property
    def repository(self) -> RepositorySettings:
        """The snapshot repository."""
        return self.snapshots.repository

    def lock_path(self, name: str) -> Path:
        """Where the lock of a job (or of the keeper) is."""
        return self.daemon_dir / "locks" / f"{name}.lock"


@dataclass(frozen=True, slots=True)
class JobContext:
    """One run of a job: its settings, the ledger and the number of the run in it, and the time it goes by.

    With `dry_run` a job makes its plan, reports it, and touches nothing (`run` is 0 then). `stopping()` is true when
    the run should end early, between two steps. `patience_s`: how long to wait for somebody who holds a lock on the
    snapshot repository. `progress` is kept up to date by jobs that take long. `subset`: which part of the data `verify`
    reads (see `restic.subset`); empty for what is due. `undo`: the stamp of the run that `undo` undoes; empty for the
    last one. `names`: what a user asked for by name; empty for what is due. `no_snapshot`: what else is saved before is
    not.
    """

    settings: JobSettings
    ledger: Ledger
    run: int
    now: float
    dry_run: bool = False
    stopping: Callable[[], bool] = lambda: False
    patience_s: float = 0.0
    progress: Progress = field(default_factory=Progress)
    subset: str = ""
    undo: str = ""
    names: tuple[str, ...] = ()
    no_snapshot: bool = False

    @property
    def layout(self) -> Layout:
        """The declared tree."""
        return self.settings.layout


def job_settings(settings: "Settings") -> JobSettings:
    """The part of the settings that jobs need."""
    return JobSettings(
        layout=layout_of(settings),
        daemon_dir=settings.daemon_dir,
        snapshots=snapshot_settings(settings),
        backup_count=settings.backup_count,
        settle_s=settings.state.settle,
        keep_if_open=settings.retention.keep_if_open,
        require_snapshot=settings.retention.require_snapshot,
        log_format=settings.logging.format,
        log_level=settings.logging.level,
        vectors=VectorSettings(
            extra_roots=tuple(resolve(str(root)) for root in settings.vector_db.extra_roots),
            optimize_when=settings.vector_db.optimize_when,
            keep_versions_s=settings.vector_db.keep_versions,
        ),
        undo_window_s=settings.retention.undo_window,
        quarantine=QuarantineLimits(settings.quarantine.max_age, settings.quarantine.max_bytes),
        marks=marks_of(settings),
        logs=log_settings(settings),
        state=StateSettings(
            heal=settings.state.heal,
            quarantine_lost=settings.state.heal_quarantine,
            compression=settings.state.compression,
            compress_archives_s=settings.state.compress_archives,
        ),
        require_mount=require_mount(settings),
        # The removals of audit archives explain the gaps in their chain.
        ledger=LedgerLimits(settings.ledger.max_age, settings.ledger.max_events, (f"{settings.logs_dir}/audit",)),
        migration=target_of(settings),
    )


def require_mount(settings: "Settings") -> str | bool:
    """The mount point without which the tree is not touched (see `fsops.mount.refuse_unmounted`)."""
    wanted = settings.guard.require_mount
    return wanted if isinstance(wanted, bool) else str(wanted)


def log_settings(settings: "Settings") -> LogSettings:
    """The part of the settings that logs are rotated by. What a rule leaves unset is as in `[logs]`."""
    logs = settings.logs
    limits = ("rotate_at", "rotate_every", "rotate_min", "keep", "max_age")

    def rule(name: str, own: "LogLimits", patterns: tuple[str, ...], max_total: int | None) -> LogRule:
        found = {key: getattr(own if key in own.model_fields_set else logs, key) for key in limits}
        return LogRule(
            name,
            patterns,
            rotate_at=found["rotate_at"],
            rotate_every_s=found["rotate_every"],
            rotate_min=found["rotate_min"] or 1,
            keep=found["keep"],
            max_age_s=found["max_age"],
            max_total=max_total,
        )

    own = [rule(f"logs.rule {', '.join(one.patterns)}", one, one.patterns, one.max_total) for one in logs.rule]
    return LogSettings(
        directory=settings.logs_dir,
        audit=f"{settings.logs_dir}/audit",
        rules=(*own, rule("logs", logs, logs.patterns, None)),
        max_total=logs.max_total,
        compress=logs.compress,
        delay_compress=logs.delay_compress,
        allow_copytruncate=logs.allow_copytruncate,
        reopened=logs.reopened,
        appended=logs.appended,
    )


def marks_of(settings: "Settings") -> Marks:
    """The marks of free space at which something is done."""
    limits = settings.limits
    return Marks(limits.high_water, limits.low_water, limits.inodes.high_water, limits.inodes.low_water)


def snapshot_settings(settings: "Settings") -> SnapshotSettings:
    """The part of the settings that snapshots go by."""
    backup, autosave, prompts = settings.backup, settings.autosave, settings.prompts
    return SnapshotSettings(
        repository=RepositorySettings(
            location=backup.repository or "",
            secrets=secrets_of(settings),
            level=backup.compression_level if settings.enable_compression else None,
        ),
        backups=Keep(
            last=settings.backup_count,
            hourly=backup.keep_hourly,
            daily=backup.keep_daily,
            weekly=backup.keep_weekly,
            monthly=backup.keep_monthly,
            yearly=backup.keep_yearly,
            within_s=backup.keep_within,
        ),
        autosaves=Keep(last=autosave.keep_last, hourly=autosave.keep_hourly),
        templates=Keep(
            last=prompts.keep_last,
            daily=prompts.keep_daily,
            weekly=prompts.keep_weekly,
            within_s=prompts.keep_within,
        ),
        optimizations_s=settings.vector_db.keep_snapshots,
        include_caches=backup.include_caches,
        min_free=backup.min_free,
        read_all_within_s=backup.read_all_within,
    )
