"""How long `status`, `events` and the page's questions take over a large ledger, from exec to end.

    .venv/bin/python bench/ledger.py [--rows 1000000] [--days 180] [--starts 5]

The ledger has so many actions, spread over the days (a tenth of them in the last one), the runs that are kept (600 a
day for a week, twenty a day before), usage of forty directories every five minutes as it is thinned out, and 200
snapshots. "Python" is how long `python -c pass` takes, and "settings" what loading them takes.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_schema import SnapshotRow, SpacePoint, UsagePoint
from symbiont_datad.report import Action, JobReport, Outcome

DAY = 86_400.0
KINDS = ("file_removed", "backup_rotated", "log_rotated", "directory_recreated", "permissions_restored")
JOBS = ("sweep", "usage", "clean", "rotate", "vectors", "backup", "verify")
PLACES = 40
BATCH = 500


def fill(path: Path, rows: int, days: int, now: float) -> None:
    """A ledger as a daemon leaves it that was busy for so many days."""
    chance = random.Random(1)
    with Ledger(path) as ledger:
        run, at = 0, now - days * DAY
        steps = max(rows // BATCH, 1)
        begins = sorted(now - chance.random() * (DAY if one % 10 == 0 else days * DAY) for one in range(steps))
        spans = [days * DAY] * (days * 20) + [7 * DAY] * 4000
        runs = sorted(now - chance.random() * span for span in spans)
        for at in begins:
            while runs and runs[0] <= at:
                began = runs.pop(0)
                job = JOBS[chance.randrange(len(JOBS))]
                run = ledger.begin_run(job, began)
                outcome = Outcome.FAILED if chance.random() < 0.01 else Outcome.DONE
                ledger.finish_run(run, JobReport(job, outcome, began, 1.0, counts={"files": 5}, actions_total=1))
            kind = KINDS[chance.randrange(len(KINDS))]
            some = [
                Action(kind, f"prompts/cache/{chance.getrandbits(64):016x}.json", "cache", "not used for 42d", 4096)
                for _ in range(BATCH)
            ]
            ledger.record(some, at, run or None)
        for at in points(now):
            below = [UsagePoint(at, f"place/{number}", 10, number << 20) for number in range(PLACES)]
            by_category = [UsagePoint(at, name, 100, 1 << 30) for name in ("state", "logs", "prompts", "vector_db")]
            ledger.record_usage(by_category, SpacePoint(at, 1 << 40, 1 << 41, 1000, 2000), below)
        ids = [f"{number:064x}" for number in range(200)]
        ledger.note_snapshots(
            [
                SnapshotRow(name, now - n * DAY / 4, "autosave", "here", 4000, 1 << 26, 4096)
                for n, name in enumerate(ids)
            ],
            ids,
        )


def points(now: float) -> list[float]:
    """The times of the points that stay: five minutes for two days, an hour for sixty."""
    hours = [now - hour * 3600 for hour in range(60 * 24, 48, -1)]
    return [*hours, *(now - number * 300 for number in range(2 * 288, -1, -1))]


def timed(home: Path, words: list[str]) -> tuple[float, float]:
    """Seconds from exec to end, and of processor time."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SYMBIONT_DATAD_")}
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environ | {"HOME": str(home)})
    passed, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Make the ledger, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=180)
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-ledger-", dir="/var/tmp"))
    try:
        ledger = home / ".symbiont/datad/ledger.db"
        (home / ".symbiont/data").mkdir(parents=True)
        fill(ledger, given.rows, given.days, time.time())
        datad = [sys.executable, "-m", "symbiont_datad"]
        questions = {
            "Python": [sys.executable, "-c", "pass"],
            "settings": [*datad, "config", "check"],
            "status": [*datad, "status"],
            "status --json": [*datad, "status", "--json"],
            "events --since 1h": [*datad, "events", "--since", "1h"],
            "events": [*datad, "events"],
            "events --path": [*datad, "events", "--path", "prompts/cache/0000"],
            "events --kind": [*datad, "events", "--kind", "directory_recreated"],
            "events --severity error": [*datad, "events", "--severity", "error"],
            "events --job verify": [*datad, "events", "--job", "verify"],
            "events --search": [*datad, "events", "--search", "nothing like it"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in questions}
        for _ in range(given.starts):
            for name, words in questions.items():
                times[name].append(timed(home, words))
        print(f"{given.rows:,} actions, {ledger.stat().st_size / 2**20:,.0f} MiB")
        print(f"{'':26}{'median s':>10}{'min s':>8}{'max s':>8}{'processor s':>13}")
        for name, found in times.items():
            passed, worked = zip(*found, strict=True)
            print(f"{name:26}{statistics.median(passed):10.3f}{min(passed):8.3f}{max(passed):8.3f}{min(worked):13.3f}")
        floor, settings = [took for took, _ in times["Python"]], [took for took, _ in times["settings"]]
        floors = {"python -c pass": floor, "config check (no ledger)": settings}
        keep(
            Figures(
                [
                    Line(
                        f"{name}, {given.rows:,} rows",
                        "s",
                        {"ours": [took for took, _ in found], **floors},
                        floors=tuple(floors),
                    )
                    for name, found in times.items()
                    if name not in ("Python", "settings")
                ]
            )
        )
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
