"""What the daemon knows, as figures of its metrics. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from symbiont_datad.ledger_schema import SnapshotRow, UsagePoint
from symbiont_datad.ledger_totals import Totals
from symbiont_datad.report import HEALING, Outcome
from symbiont_datad.retention.pressure import Space
from symbiont_datad.service.process_figures import ProcessFigures

REPAIRS = ("directory_recreated", "permissions_restored", "owner_restored", "obstruction_quarantined")
_REMOVALS = ("file_removed", "file_quarantined", "directory_removed", "directory_quarantined")
_CATEGORIES = ("state", "logs", "prompts", "vector_db", "other", "quarantine")
_BESIDE, _OTHER = "beside", "other"
_RULES = ("cache", "history", "sessions", "archives", "logs", "limits")
_KINDS = ("backup", "autosave", "templates", "optimize")
_WAYS = ("collapse", "rename", "truncate")
_FORGETTING = ("backup_count", "autosave.keep_last", "prompts.keep_last", "vector_db.keep_snapshots")
_WELL = (Outcome.DONE, Outcome.LEFT)


_NOTHING = Totals()


@dataclass(frozen=True, slots=True)
class Guarding:
    """The guard's part. `watching` is None where the settings turn that off; `events`: how often each happened."""

    watching: bool | None
    unrepaired: int
    backed_off: int
    reconciles: int
    reconciled_at: float
    events: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Scheduling:
    """The schedule's part, by job: the longest time between two runs, when it runs next, which ones run now."""

    gaps_s: Mapping[str, float]
    next_runs: Mapping[str, float]
    running: frozenset[str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The ledger's part. `full_in_s`, by `bytes` and `inodes`: when they run out, if that can be said.

    `usable` is false when all of this is of before.
    """

    usable: bool = False
    totals: Totals = _NOTHING
    findings: Mapping[tuple[str, str], int] = field(default_factory=dict)
    usage: tuple[UsagePoint, ...] = ()
    snapshots: tuple[SnapshotRow, ...] = ()
    full_in_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the daemon knows. `rules` are the names of the retention rules that users have given.

    `host` is the name under which this machine makes snapshots. `spaces`: what each disk has, and whether that is too
    little. `started_at` in seconds since the epoch.
    """

    version: str
    python: str
    host: str
    started_at: float
    alive: bool
    kept: bool
    warnings: int
    refused: bool
    guard: Guarding
    schedule: Scheduling
    recorded: Recorded
    spaces: Mapping[str, tuple[Space, bool]]
    rules: tuple[str, ...]
    process: ProcessFigures


Figure = tuple[str, tuple[str, ...], float]
"""A metric's name, the values of its labels, and the value."""


def figures(facts: Facts) -> Iterator[Figure]:
    """The figures of all metrics. What can happen and has not yet is there with 0, so that its first time is seen."""
    yield "build_info", (facts.version, facts.python), 1
    yield "alive", (), facts.alive
    yield "tree_kept", (), facts.kept
    yield "warnings", (), facts.warnings
    yield "settings_refused", (), facts.refused
    yield "ledger_usable", (), facts.recorded.usable
    for kind, count in facts.recorded.findings.items():
        yield "findings", kind, count
    yield from _guard(facts.guard, facts.recorded.totals)
    yield from _jobs(facts.schedule, facts.recorded.totals)
    ours = [one for one in facts.recorded.snapshots if one.host == facts.host]
    yield from _snapshots(facts.recorded.totals, ours)
    yield from _contexts(facts.recorded.totals)
    yield from _usage(facts)
    yield from _retention(facts.recorded.totals, facts.rules)
    yield from _logs(facts.recorded.totals)
    yield from _collections(facts.recorded.totals)
    yield from _process(facts)


def _guard(guard: Guarding, totals: Totals) -> Iterator[Figure]:
    done = _done(totals, REPAIRS)
    for kind in REPAIRS:
        yield "repairs_total", (kind,), done[kind]
    yield "repair_failures_total", (), guard.events.get("repair_failed", 0)
    yield "repair_refusals_total", (), guard.events.get("repair_refused", 0)
    yield "drift_unrepaired", (), guard.unrepaired
    yield "repairs_backed_off", (), guard.backed_off
    yield "reconciles_total", (), guard.reconciles
    yield "reconcile_timestamp_seconds", (), guard.reconciled_at
    if guard.watching is not None:
        yield "watcher_up", (), guard.watching
    yield "watcher_overflows_total", (), guard.events.get("watch_overflowed", 0)
    yield "watcher_restarts_total", (), guard.events.get("watcher_restarted", 0)
    yield "watch_failures_total", (), guard.events.get("watch_failed", 0)


def _jobs(schedule: Scheduling, totals: Totals) -> Iterator[Figure]:
    for job in sorted(schedule.gaps_s.keys() | {run.job for run in totals.runs}):
        runs = {run.outcome: run for run in totals.runs if run.job == job}
        last = max(runs.values(), key=lambda run: run.last_at, default=None)
        well = max((run.last_at for run in runs.values() if run.outcome in _WELL), default=0.0)
        yield "job_last_success_timestamp_seconds", (job,), well
        yield "job_last_run_timestamp_seconds", (job,), last.last_at if last else 0.0
        yield "job_last_run_failed", (job,), last is not None and last.outcome == Outcome.FAILED
        if last is not None:
            yield "job_last_duration_seconds", (job,), last.last_s
        for outcome in Outcome:
            yield "job_runs_total", (job, outcome), runs[outcome].runs if outcome in runs else 0
        yield "job_run_seconds_total", (job,), sum(run.seconds for run in runs.values())
        yield "job_running", (job,), job in schedule.running
        if job in schedule.next_runs:
            yield "job_next_run_timestamp_seconds", (job,), schedule.next_runs[job]
        if job in schedule.gaps_s:
            yield "job_interval_seconds", (job,), schedule.gaps_s[job]


def _snapshots(totals: Totals, kept: Sequence[SnapshotRow]) -> Iterator[Figure]:
    made = {one.rule: one for one in totals.actions if one.kind == "snapshot_created"}
    forgotten = Counter({one.rule: one.actions for one in totals.actions if one.kind == "snapshot_forgotten"})
    for kind in _KINDS:
        mine = sorted((one for one in kept if one.tag == kind), key=lambda one: one.at)
        yield "snapshots", (kind,), len(mine)
        if mine:
            yield "snapshot_newest_timestamp_seconds", (kind,), mine[-1].at
            yield "snapshot_oldest_timestamp_seconds", (kind,), mine[0].at
            yield "snapshot_files", (kind,), mine[-1].files
            yield "snapshot_size_bytes", (kind,), mine[-1].bytes
        yield "snapshots_created_total", (kind,), made[kind].actions if kind in made else 0
        yield "snapshots_stored_bytes_total", (kind,), made[kind].bytes if kind in made else 0
    for rule in _FORGETTING:
        yield "snapshots_forgotten_total", (rule,), forgotten[rule]
    verified = [run.last_at for run in totals.runs if (run.job, run.outcome) == ("verify", Outcome.DONE)]
    yield "repository_verified_timestamp_seconds", (), max(verified, default=0.0)
    for name, told in (("repository_problems", "problems"), ("repository_size_bytes", "bytes")):
        if (found := _last(totals, "verify", told)) is not None:
            yield name, (), found
    yield "repository_read_bytes_total", (), _sum(totals, "verify", "bytes_read")
    yield "repository_freed_bytes_total", (), sum(_sum(totals, job, "freed") for job in ("backup", "prune"))
    yield "drilled_files_total", (), _sum(totals, "verify", "drilled")


def _contexts(totals: Totals) -> Iterator[Figure]:
    contexts, damaged, unjudged = (
        _last(totals, "sweep", name) or 0 for name in ("contexts", "contexts_damaged", "contexts_unjudged")
    )
    yield "contexts", ("sound",), contexts - damaged - unjudged
    yield "contexts", ("damaged",), damaged
    yield "contexts", ("unjudged",), unjudged
    healed = _done(totals, HEALING)
    for kind in HEALING:
        yield "contexts_healed_total", (kind,), healed[kind]
    counted = {"context": "contexts", "session": "sessions", "archive": "archives", "backup": "backups_kept"}
    for kind, name in counted.items():
        yield "state_files", (kind,), _last(totals, "sweep", name) or 0
    yield "state_files_damaged", (), _last(totals, "sweep", "damaged") or 0


def _usage(facts: Facts) -> Iterator[Figure]:
    files, sizes = Counter(dict.fromkeys(_CATEGORIES, 0)), Counter(dict.fromkeys(_CATEGORIES, 0))
    for point in facts.recorded.usage:
        category = point.category if point.category in _CATEGORIES else _BESIDE  # a root outside, named by its path
        files[category] += point.files
        sizes[category] += point.bytes
    for category in files:
        yield "usage_bytes", (category,), sizes[category]
        yield "usage_files", (category,), files[category]
    yield "usage_measured_timestamp_seconds", (), max((point.at for point in facts.recorded.usage), default=0.0)
    for name, (space, pressed) in facts.spaces.items():
        yield "filesystem_free_bytes", (name,), space.free_bytes
        yield "filesystem_size_bytes", (name,), space.total_bytes
        yield "filesystem_free_inodes", (name,), space.free_inodes
        yield "filesystem_inodes", (name,), space.total_inodes
        yield "filesystem_pressed", (name,), pressed
    for resource in ("bytes", "inodes"):
        yield "forecast_full_seconds", (resource,), facts.recorded.full_in_s.get(resource, inf)


def _retention(totals: Totals, rules: Iterable[str]) -> Iterator[Figure]:
    names = dict.fromkeys((*_RULES, *rules, _OTHER))
    removed, sizes = Counter(dict.fromkeys(names, 0)), Counter[str]()
    for one in totals.actions:
        if one.kind in _REMOVALS:
            rule = one.rule if one.rule in names else _OTHER  # that of an extra directory is called as its path
            removed[rule] += one.actions
            sizes[rule] += one.bytes
    for rule, count in removed.items():
        yield "retention_removed_total", (rule,), count
        yield "retention_removed_bytes_total", (rule,), sizes[rule]
    yield "quarantine_expired_total", (), _done(totals, ("quarantine_expired",)).total()
    yield "history_packed_total", (), _done(totals, ("day_packed",)).total()
    yield "context_backups_removed_total", (), _done(totals, ("backup_rotated",)).total()


def _logs(totals: Totals) -> Iterator[Figure]:
    for way in _WAYS:
        yield "logs_rotated_total", (way,), _sum(totals, "rotate", f"rotated_{way}")
    yield "logs_rotated_bytes_total", (), sum(one.bytes for one in totals.actions if one.kind == "log_rotated")
    yield "log_archives_removed_total", (), _done(totals, ("log_archive_removed",)).total()
    yield "logs_left_alone", (), _last(totals, "rotate", "left_alone") or 0


def _collections(totals: Totals) -> Iterator[Figure]:
    yield "prompt_executions_total", (), _sum(totals, "usage", "executions")
    yield "collections", (), _last(totals, "vectors", "collections") or 0
    yield "collections_reclaimable_bytes", (), _last(totals, "vectors", "reclaimable") or 0
    freed = sum(one.bytes for one in totals.actions if one.kind == "collection_optimized")
    yield "collections_freed_bytes_total", (), freed


def _process(facts: Facts) -> Iterator[Figure]:
    process = facts.process
    yield "process_start_time_seconds", (), facts.started_at
    yield "process_cpu_seconds_total", (), process.cpu_s
    yield "jobs_cpu_seconds_total", (), process.children_cpu_s
    found = {
        "process_resident_memory_bytes": process.resident_bytes,
        "process_virtual_memory_bytes": process.virtual_bytes,
        "process_open_fds": process.open_fds,
        "process_max_fds": process.max_fds,
        "process_threads": process.threads,
    }
    for name, value in found.items():
        if value is not None:
            yield name, (), value


def _done(totals: Totals, kinds: Iterable[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in totals.actions:
        if one.kind in kinds:
            found[one.kind] += one.actions
    return found


def _sum(totals: Totals, job: str, name: str) -> int:
    return sum(one.total for one in totals.counts if (one.job, one.name) == (job, name))


def _last(totals: Totals, job: str, name: str) -> int | None:
    return next((one.last for one in totals.counts if (one.job, one.name) == (job, name)), None)
