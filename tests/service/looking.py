"""A month in the life of a daemon, for who looks at the page: usage, runs, repairs, removals, snapshots, and names that
are no good."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_schema import SnapshotRow, SpacePoint, UsagePoint
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity

EVIL = "prompts/cache/<script>alert(1)</script>&\"'.json"
"""A path that agents may well make."""
DAY = 86_400.0


def month(daemon_dir: Path, now: float) -> None:
    """Leave it in the ledger; `now` in seconds since the epoch, the same minute each time."""
    daemon_dir.mkdir(exist_ok=True)
    shutil.copy(Path(_made(now).name) / "ledger.db", daemon_dir)


_kept: "list[TemporaryDirectory[str]]" = []


def _made(now: float) -> "TemporaryDirectory[str]":
    """It takes a while, so it is made once in each process."""
    if not _kept:
        _kept.append(TemporaryDirectory(prefix="month-"))
        _fill(Path(_kept[0].name), now)
    return _kept[0]


def _fill(daemon_dir: Path, now: float) -> None:
    with Ledger(daemon_dir / "ledger.db") as ledger:
        for hour in range(30 * 24, -1, -3):
            at, lost = now - hour * 3600, (30 * 24 - hour) << 26
            points = [
                UsagePoint(at, name, 100, size + lost // share)
                for name, size, share in (("logs", 3 << 30, 2), ("state", 1 << 30, 9), ("prompts", 1 << 29, 20))
            ]
            space = SpacePoint(at, (60 << 30) - lost, 100 << 30, 10**6, 10**7)
            ledger.record_usage(points, space, [UsagePoint(at, "logs/agents", 5, lost // 2)])
        for step in range(96):
            for job in ("sweep", "usage"):
                outcome = Outcome.FAILED if step == 50 else Outcome.LEFT if step % 7 == 0 else Outcome.DONE
                _run(ledger, job, now - step * 900, outcome, {"contexts": 12, "sessions": 2, "damaged": 1})
        _run(ledger, "verify", now - 3600, Outcome.DONE, {"bytes": 5 << 30, "bytes_read": 1 << 28, "drilled": 20})
        _run(ledger, "backup", now - 1800, Outcome.FAILED, {}, "no space left on <b>device</b>")
        for day in range(30):
            at = now - day * DAY - 60
            ledger.record([Action("directory_recreated", "state", "layout", "it had gone")] * (day % 3), at)
            ledger.record(
                [Action("file_removed", EVIL, "cache", "not used for 42d, over 30d", 4300)] * (day % 5 + 1), at
            )
        found = Finding("context_truncated", "state/agents/a<i>.json", Severity.ERROR, "cut", "look")
        ledger.replace_findings("prune", [found], now - 600)  # a job without a timetable: no run of it takes this away
        rows = [
            SnapshotRow(f"{number:064x}", now - 600 * 1.6**number, kind, "here", 4000, 1 << 30, 4096)
            for number, kind in enumerate(("autosave", "templates", "backup") * 7)
        ]
        ledger.note_snapshots(rows, [row.id for row in rows])


def _run(ledger: Ledger, job: str, at: float, outcome: Outcome, counts: dict[str, int], message: str = "") -> None:
    number = ledger.begin_run(job, at)
    ledger.finish_run(number, JobReport(job, outcome, at, 1.5, counts=counts, message=message))
