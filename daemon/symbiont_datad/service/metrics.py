"""The names of the metrics: what each tells, in which unit, and with which labels. `docs/metrics.md` is made from this.

Prometheus' rules: base units (seconds, bytes), totals end with `_total`, times are seconds since the epoch and end with
`_timestamp_seconds`. All begin with `symbiont_datad_`, those of the process too: node_exporter, which may pass them on
from a file, has some of its own that begin with `process_`. No label holds a path or anything else out of the tree.
None is called `job` or `instance`: Prometheus gives those itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "symbiont_datad_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. A counter's name ends with `_total`, and nothing else's does. `help` is one sentence."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        """Whether it only grows (until the daemon, or its ledger, begins anew)."""
        return self.name.endswith("_total")


GROUPS: Mapping[str, tuple[Metric, ...]] = {
    "The daemon": (
        Metric(
            "build_info", "Always 1; the labels tell the versions of the daemon and of Python.", ("version", "python")
        ),
        Metric("alive", "Whether the guard and the schedule move: 1, or 0."),
        Metric("tree_kept", "Whether the tree is there and kept: 1, or 0."),
        Metric("warnings", "What `symbiont-datad status` warns of now."),
        Metric(
            "settings_refused", "Whether the last reload was refused, so that older settings are in force: 1, or 0."
        ),
        Metric("ledger_usable", "Whether the ledger can be read: 1; or 0, and then what it tells is of before."),
        Metric(
            "findings",
            "What is not as it should be and was left as it is; only kinds that there are any of.",
            ("kind", "severity"),
        ),
    ),
    "The guard": (
        Metric("repairs_total", "Repairs of the declared directories.", ("kind",)),
        Metric("repair_failures_total", "Repairs that could not be made, since the start."),
        Metric("repair_refusals_total", "Repairs that would have touched what is not the daemon's, since the start."),
        Metric("drift_unrepaired", "Differences between the layout and the disk that can't be repaired now."),
        Metric("repairs_backed_off", "Paths that are repaired less often, because something keeps undoing it."),
        Metric("reconciles_total", "Comparisons of the whole layout with the disk, since the start."),
        Metric("reconcile_timestamp_seconds", "When the whole layout was compared last; 0: not yet."),
        Metric("watcher_up", "Whether the file system's events are watched: 1, or 0; none where that is turned off."),
        Metric(
            "watcher_overflows_total",
            "Overflows of the kernel's queue of events, since the start; everything is compared then.",
        ),
        Metric("watcher_restarts_total", "Threads of the watcher that had died and were replaced, since the start."),
        Metric("watch_failures_total", "Directories that could not be watched, since the start."),
    ),
    "Jobs": (
        Metric(
            "job_last_success_timestamp_seconds", "When the last run began that ended well; 0: never.", ("job_name",)
        ),
        Metric("job_last_run_timestamp_seconds", "When the last run began that has ended; 0: never.", ("job_name",)),
        Metric("job_last_run_failed", "Whether the last run that has ended failed: 1, or 0.", ("job_name",)),
        Metric("job_last_duration_seconds", "How long the last run took that has ended.", ("job_name",)),
        Metric(
            "job_runs_total",
            "Runs that have ended: `done`, `left` (something is left to look at), `failed`, `interrupted`.",
            ("job_name", "outcome"),
        ),
        Metric("job_run_seconds_total", "How long all runs took together.", ("job_name",)),
        Metric("job_running", "Whether it runs now: 1, or 0.", ("job_name",)),
        Metric("job_next_run_timestamp_seconds", "When it runs next.", ("job_name",)),
        Metric("job_interval_seconds", "The longest time between two of its runs, by its timetable.", ("job_name",)),
    ),
    "Snapshots": (
        Metric("snapshots", "Snapshots of this host in the repository.", ("kind",)),
        Metric(
            "snapshot_newest_timestamp_seconds",
            "When the newest one was made; none where there is no snapshot.",
            ("kind",),
        ),
        Metric(
            "snapshot_oldest_timestamp_seconds",
            "When the oldest one was made; none where there is no snapshot.",
            ("kind",),
        ),
        Metric("snapshot_files", "Files in the newest one.", ("kind",)),
        Metric("snapshot_size_bytes", "Size of the files in the newest one.", ("kind",)),
        Metric("snapshots_created_total", "Snapshots that were made.", ("kind",)),
        Metric("snapshots_stored_bytes_total", "What they added to the repository, compressed.", ("kind",)),
        Metric(
            "snapshots_forgotten_total",
            "Snapshots that were forgotten, by the setting that kept them no longer.",
            ("rule",),
        ),
        Metric(
            "repository_verified_timestamp_seconds",
            "When the last check of the repository began that found nothing wrong; 0: never.",
        ),
        Metric("repository_problems", "What the last check found wrong; none before the first."),
        Metric("repository_size_bytes", "Stored data, as the last check saw it; none before the first."),
        Metric("repository_read_bytes_total", "Stored data that checks have read and found whole."),
        Metric("repository_freed_bytes_total", "Stored data that nobody needed and that was removed."),
        Metric("drilled_files_total", "Files that were restored as a test, and compared."),
    ),
    "Contexts": (
        Metric(
            "contexts",
            "Agents' contexts, as the last sweep saw them; `unjudged`: just written, or not looked at.",
            ("state",),
        ),
        Metric("contexts_healed_total", "What was done about contexts that the runtime could not load.", ("kind",)),
        Metric(
            "state_files",
            "State files, as the last sweep saw them; `backup` are the runtime's own of contexts.",
            ("kind",),
        ),
        Metric("state_files_damaged", "Damaged state files, as the last sweep left them."),
    ),
    "Usage": (
        Metric(
            "usage_bytes",
            "Size of the files, as last measured; `beside` are collections outside the root.",
            ("category",),
        ),
        Metric("usage_files", "Number of files, as last measured.", ("category",)),
        Metric("usage_measured_timestamp_seconds", "When that was; 0: never."),
        Metric(
            "filesystem_free_bytes",
            "What is free; `repository` where that has a file system of its own.",
            ("filesystem",),
        ),
        Metric("filesystem_size_bytes", "Its size.", ("filesystem",)),
        Metric("filesystem_free_inodes", "Inodes that are free.", ("filesystem",)),
        Metric("filesystem_inodes", "Its inodes; 0 where it does not count them.", ("filesystem",)),
        Metric("filesystem_pressed", "Whether less is free than the high water mark says: 1, or 0.", ("filesystem",)),
        Metric(
            "forecast_full_seconds",
            "Time until nothing is free where the tree is; +Inf: it does not fill up, as far as is known.",
            ("resource",),
        ),
    ),
    "Retention": (
        Metric(
            "retention_removed_total",
            "What went by a rule, into the quarantine too; `limits`: for want of space; `other`: no rule of a name.",
            ("rule",),
        ),
        Metric("retention_removed_bytes_total", "Their size.", ("rule",)),
        Metric("quarantine_expired_total", "Things that went from the quarantine for good."),
        Metric("history_packed_total", "Days of the prompt history that were packed into one file."),
        Metric(
            "context_backups_removed_total", "The runtime's own backups of contexts that went, as newer ones remain."
        ),
    ),
    "Logs": (
        Metric(
            "logs_rotated_total", "Logs that were rotated, by the way: `collapse`, `rename` or `truncate`.", ("way",)
        ),
        Metric("logs_rotated_bytes_total", "What went from logs into archives."),
        Metric("log_archives_removed_total", "Archives of logs that went."),
        Metric("logs_left_alone", "Logs that are due and can't be rotated, as the last rotation saw them."),
    ),
    "Prompts and vectors": (
        Metric("prompt_executions_total", "Records of executed prompts."),
        Metric("collections", "Vector collections, as last looked at."),
        Metric("collections_reclaimable_bytes", "What they hold and don't need."),
        Metric("collections_freed_bytes_total", "What optimising them has given back."),
    ),
    "The process": (
        Metric("process_start_time_seconds", "When the daemon started, in seconds since the epoch."),
        Metric("process_cpu_seconds_total", "Processor time of the daemon itself."),
        Metric("jobs_cpu_seconds_total", "Processor time of the jobs' processes that have ended, since the start."),
        Metric("process_resident_memory_bytes", "Memory of the daemon itself."),
        Metric("process_virtual_memory_bytes", "Its address space."),
        Metric("process_open_fds", "Its open descriptors."),
        Metric("process_max_fds", "How many it may have."),
        Metric("process_threads", "Its threads."),
    ),
}
"""All of them, by what they tell of. Of a platform that can't tell something (macOS: parts of the process) it is left
out."""

METRICS: Mapping[str, Metric] = {metric.name: metric for group in GROUPS.values() for metric in group}
