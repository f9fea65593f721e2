"""The JSON document of `status`. docs/status.md says what each name means; names stay."""

import math
from typing import Any

from symbiont_datad.cli.show import event, finding, moment
from symbiont_datad.ledger_schema import Run
from symbiont_datad.report import printable
from symbiont_datad.retention.forecast import OUTSIDE, Forecast
from symbiont_datad.status import Status
from symbiont_datad.status_verdict import Remark, remarks
from symbiont_datad.status_words import REPAIRS, healed, repository_bytes, undo, verified

_DAY_S = 86_400.0


def document(found: Status, now: float) -> dict[str, Any]:
    """The status with the names of the documented JSON; `now` in seconds since the epoch."""
    live, running = found.live, found.daemon_pid is not None
    told = [_remark(one) for one in remarks(found, now)]
    return {
        "root": found.root,
        "verdict": told[0] if told else {"severity": "info", "text": "all good", "command": None, "since": None},
        "remarks": told,
        "daemon": {
            "running": running,
            "pid": found.daemon_pid or None,
            "version": (live.version or None) if live else None,
            "started_at": moment(live.started_at if live else None),
            "ready": bool(live and live.ready and running),
            "written_at": moment(live.written_at if live else None),
        },
        "version": found.version,
        "warnings": list(found.warnings),
        "usage": [
            {
                "category": point.category,
                "files": point.files,
                "bytes": point.bytes,
                "bytes_per_day": round(found.trends[point.category] * _DAY_S)
                if point.category in found.trends
                else None,
                "at": moment(point.at),
            }
            for point in found.usage
        ],
        "space": {
            "free_bytes": found.space.free_bytes,
            "total_bytes": found.space.total_bytes,
            "free_inodes": found.space.free_inodes,
            "total_inodes": found.space.total_inodes,
            "at": moment(found.space.at),
        }
        if found.space
        else None,
        "forecast": {"bytes": _foreseen(found.full), "inodes": _foreseen(found.out_of_inodes)},
        "snapshots": _snapshots(found),
        "contexts": _contexts(found),
        "guard": {
            "repairs_today": sum(found.actions_today.get(kind, 0) for kind in REPAIRS),
            "backing_off": list(live.backing_off) if live and running else [],
        },
        "quarantine": {
            "things": len(found.cells),
            "undo": [
                {"run": run, "until": moment(until), "files": files, "bytes": size}
                for run, until, files, size in undo(found)
            ],
        },
        "jobs": [_job(found, run) for run in found.runs.values()],
        "executions": [
            {
                "day": one.day,
                "template": one.template or None,
                "runs": one.runs,
                "bytes": one.bytes,
                "mean_latency_ms": round(one.latency_ms / one.timed, 3) if one.timed else None,
                "slowest_ms": round(one.slowest_ms, 3) if one.timed else None,
                "last_at": moment(one.last_at),
            }
            for one in found.executions
        ],
        "cache": [
            {
                "used_within_s": group.within_s if math.isfinite(group.within_s) else None,
                "files": group.files,
                "bytes": group.bytes,
                "due_bytes": group.due_bytes,
            }
            for group in found.cache_use
        ],
        "legacy": [
            {
                "path": printable(one.path),
                "kind": one.kind,
                "compat": one.compat,
                "both_ways": one.both_ways,
                "completed_at": moment(one.completed_at),
                "brought_at": moment(one.brought_at),
                "files": one.files,
                "conflicts": one.conflicts,
            }
            for one in (live.legacy if live else ())
        ],
        "actions_today": dict(found.actions_today),
        "findings": [{**finding(one), "first_seen": moment(seen)} for one, seen in found.findings],
        "healed": [event(row) for row in found.healed],
    }


def _remark(one: Remark) -> dict[str, Any]:
    return {
        "severity": one.severity,
        "text": printable(one.text),
        "command": one.command,
        "since": moment(one.since),
    }


def _job(found: Status, run: Run) -> dict[str, Any]:
    live = found.live
    good = found.good_runs.get(run.job)
    return {
        "job": run.job,
        "started_at": moment(run.started_at),
        "ended_at": moment(run.ended_at),
        "duration_s": round(run.ended_at - run.started_at, 3) if run.ended_at else None,
        "outcome": run.outcome,
        "last_success": moment(good.started_at) if good else None,
        "failures_in_week": found.failures.get(run.job, 0),
        "actions_total": run.actions,
        "bytes_total": run.bytes,
        "message": run.message,
        "counts": dict(run.counts),
        "next_run": moment(live.next_runs.get(run.job)) if live and found.daemon_pid is not None else None,
    }


def _snapshots(found: Status) -> dict[str, Any]:
    checked = verified(found)
    newest = {row.tag: row for row in found.snapshots}
    return {
        "count": len(found.snapshots),
        "oldest": moment(found.snapshots[0].at) if found.snapshots else None,
        "repository_bytes": repository_bytes(found),
        "newest": [
            {"tag": tag or None, "id": row.id[:8], "at": moment(row.at), "files": row.files, "bytes": row.bytes}
            for tag, row in newest.items()
        ],
        "verified_at": moment(checked.started_at) if checked else None,
        "problems": checked.counts.get("problems", 0) if checked else None,
        "drilled_files": checked.counts.get("drilled", 0) if checked else None,
    }


def _contexts(found: Status) -> dict[str, Any]:
    run = found.good_runs.get("sweep")
    counts = run.counts if run else {}
    return {
        "count": counts.get("contexts"),
        "damaged": counts.get("damaged"),
        "healed_in_week": healed(found),
        "checked_at": moment(run.started_at) if run else None,
    }


def _foreseen(one: Forecast | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "full_in_s": round(one.full_in_s),
        "rate_per_s": round(one.rate, 3),
        "over_s": round(one.over_s),
        "mostly": None if one.mostly == OUTSIDE else one.mostly,
        "share": round(one.share, 3),
    }
