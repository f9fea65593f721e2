"""From what the daemon knows to figures."""

import re
from dataclasses import replace
from math import inf

import pytest

from symbiont_datad.ledger_schema import SnapshotRow, UsagePoint
from symbiont_datad.ledger_totals import ActionTotal, CountTotal, RunTotal, Totals
from symbiont_datad.retention.pressure import Space
from symbiont_datad.service.figures import Facts, Guarding, Recorded, Scheduling, figures
from symbiont_datad.service.metrics import METRICS, PREFIX
from symbiont_datad.service.process_figures import process_figures

TOTALS = Totals(
    actions=(
        ActionTotal("directory_recreated", "", 3, 0),
        ActionTotal("file_removed", "cache", 10, 1000),
        ActionTotal("file_quarantined", "traces", 2, 20),
        ActionTotal("directory_removed", "reports/daily", 1, 0),
        ActionTotal("file_removed", "scratch", 4, 40),
        ActionTotal("snapshot_created", "backup", 2, 500),
        ActionTotal("snapshot_forgotten", "backup_count", 1, 0),
        ActionTotal("log_rotated", "logs.rule agents/**/*.log", 1, 64),
        ActionTotal("context_restored", "state.heal", 1, 5),
    ),
    runs=(
        RunTotal("backup", "done", 2, 3.0, 100.0, 1.0),
        RunTotal("backup", "failed", 1, 0.5, 200.0, 0.5),
        RunTotal("sweep", "left", 1, 1.0, 150.0, 1.0),
        RunTotal("verify", "done", 1, 1.0, 90.0, 1.0),
    ),
    counts=(
        CountTotal("sweep", "contexts", 20, 10),
        CountTotal("sweep", "contexts_damaged", 2, 1),
        CountTotal("verify", "bytes", 999, 999),
        CountTotal("verify", "problems", 0, 0),
        CountTotal("rotate", "rotated_collapse", 7, 1),
    ),
)
FACTS = Facts(
    version="1.2.3",
    python="3.13.1",
    host="here",
    started_at=50.0,
    alive=True,
    kept=True,
    warnings=0,
    refused=False,
    guard=Guarding(True, 0, 0, 4, 220.0, {"watch_overflowed": 2}),
    schedule=Scheduling({"backup": 86400.0, "sweep": 300.0, "usage": 300.0}, {"backup": 300.0}, frozenset({"usage"})),
    recorded=Recorded(
        True,
        TOTALS,
        {("unread", "warning"): 2},
        (UsagePoint(10.0, "state", 5, 50), UsagePoint(10.0, "/srv/vectors", 2, 20), UsagePoint(10.0, "/x", 1, 1)),
        (
            SnapshotRow("2", 200.0, "backup", "here", 5, 50, 1),
            SnapshotRow("1", 100.0, "backup", "here", 4, 40, 1),
            SnapshotRow("3", 300.0, "backup", "elsewhere", 9, 90, 1),
        ),
        {"bytes": 3600.0},
    ),
    spaces={"tree": (Space(1, 2, 3, 4), False)},
    rules=("traces",),
    process=process_figures(),
)


def of(name: str, facts: Facts = FACTS) -> dict[tuple[str, ...], float]:
    """The figures of one metric, by its labels."""
    assert name in METRICS
    return {labels: value for found, labels, value in figures(facts) if found == name}


def test_every_metric_has_figures() -> None:
    """Nothing is documented that is not there, nothing is there that is not documented, and each figure comes once."""
    found = [(name, labels) for name, labels, _ in figures(FACTS)]
    assert len(set(found)) == len(found)
    assert METRICS.keys() == {name for name, _ in found}


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_names_follow_the_rules(metric: object) -> None:
    """Base units, the total last, no name of Prometheus' own labels, one sentence of help."""
    assert isinstance(metric, type(next(iter(METRICS.values()))))
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", metric.name), metric.name
    units = r"(milliseconds|minutes|hours|days|kib|mib|kilobytes|percent|_ms|_ns)"
    assert not re.search(units, metric.name)
    assert not re.search(r"_(count|sum|bucket|created|info_total)$", metric.name)
    assert "total" not in metric.name.removesuffix("_total")
    assert not {"job", "instance", "le", "quantile", "tree", "__name__"} & set(metric.labels)
    assert metric.help.endswith(".")
    assert PREFIX == "symbiont_datad_"


def test_no_label_holds_a_path() -> None:
    """Rules of extra directories are called as these, rules of logs as their patterns, roots beside by their path: none
    of it is told. Named rules are."""
    values = {value for _, labels, _ in figures(FACTS) for value in labels}
    assert not [value for value in values if "/" in value or "*" in value]
    assert "reports" not in str(values)
    assert {("cache",): 10, ("traces",): 2, ("other",): 5} == {
        rule: count for rule, count in of("retention_removed_total").items() if count
    }
    assert {("state",): 50, ("beside",): 21} == {key: size for key, size in of("usage_bytes").items() if size}


def test_what_has_not_happened_is_there_with_nothing() -> None:
    """A new daemon has every counter, and no success of any job; what is not known is left out."""
    new = replace(FACTS, recorded=Recorded(True))
    assert {0.0} == set(of("job_last_success_timestamp_seconds", new).values())
    assert 4 == len(of("repairs_total", new))
    assert {} == of("snapshot_newest_timestamp_seconds", new)
    assert {} == of("repository_size_bytes", new)
    assert {("bytes",): inf, ("inodes",): inf} == of("forecast_full_seconds", new)
    counters = {name for name, metric in METRICS.items() if metric.is_counter}
    assert counters == {name for name, _, _ in figures(new)} & counters


def test_jobs() -> None:
    """The last success is of runs that ended well; the last run says whether it failed."""
    assert {("backup",): 100.0, ("sweep",): 150.0, ("usage",): 0.0, ("verify",): 90.0} == of(
        "job_last_success_timestamp_seconds"
    )
    assert {("backup",): 1, ("sweep",): 0, ("usage",): 0, ("verify",): 0} == of("job_last_run_failed")
    assert (2, 1, 0) == tuple(of("job_runs_total")["backup", how] for how in ("done", "failed", "interrupted"))
    assert (0.5, 3.5) == (of("job_last_duration_seconds")["backup",], of("job_run_seconds_total")["backup",])
    assert {("usage",)} == {labels for labels, value in of("job_running").items() if value}


def test_contexts_snapshots_and_the_rest() -> None:
    """Each figure is the one that it is called."""
    assert {("sound",): 9, ("damaged",): 1, ("unjudged",): 0} == of("contexts")
    newest, oldest = of("snapshot_newest_timestamp_seconds"), of("snapshot_oldest_timestamp_seconds")
    assert ({("backup",): 200.0}, {("backup",): 100.0}) == (newest, oldest)
    assert (2, {("backup",): 50}) == (of("snapshots")["backup",], of("snapshot_size_bytes"))
    assert ({(): 90.0}, {(): 999}) == (of("repository_verified_timestamp_seconds"), of("repository_size_bytes"))
    assert (2, 500) == (of("snapshots_created_total")["backup",], of("snapshots_stored_bytes_total")["backup",])
    assert (7, {(): 64}) == (of("logs_rotated_total")["collapse",], of("logs_rotated_bytes_total"))
    assert ({(): 2}, {(): 1}) == (of("watcher_overflows_total"), of("watcher_up"))
    assert {} == of("watcher_up", replace(FACTS, guard=replace(FACTS.guard, watching=None)))
    assert {("unread", "warning"): 2} == of("findings")
