"""Retention against `find -delete`: 50,000 of 100,000 files in one flat directory, on this disk.

    python bench/clean.py [--directory DIR] [--files 100000] [--rounds 3]

Each round makes two such trees, syncs, and lets each tool clean one, in turns. Both run as a fresh process; ours writes
a row for each file into its ledger, and counts its whole life. Run by hand: it takes a minute or two.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median

DAY = 86_400.0
OLD_DAYS = 7


def make(root: Path, files: int) -> Path:
    """A tree whose cache holds `files` files of about 300 bytes, every second one older than the limit."""
    cache = root / "prompts" / "cache"
    cache.mkdir(parents=True)
    random, now, body = Random(1), time.time(), b"x" * 300
    fd = os.open(cache, os.O_RDONLY)
    for number in range(files):
        name = f"{random.getrandbits(256):064x}.json"
        file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
        os.write(file, body)
        os.close(file)
        age = random.uniform(OLD_DAYS + 1, 60) * DAY if number % 2 else random.uniform(0, OLD_DAYS - 1) * DAY
        os.utime(name, (now - age, now - age), dir_fd=fd)
    os.close(fd)
    return cache


def clean(root: str, daemon_dir: str) -> None:
    """The process that is measured: `clean` with one rule, as a job process runs it."""
    from symbiont_datad.events import configure
    from symbiont_datad.jobs.context import JobSettings, Keep, RepositorySettings, SnapshotSettings
    from symbiont_datad.jobs.runner import run_here
    from symbiont_datad.jobs.secrets import Secrets
    from symbiont_datad.layout import Category, Directory, Layout
    from symbiont_datad.ledger import Ledger
    from symbiont_datad.quantities import Share
    from symbiont_datad.retention.rules import Rule

    layout = Layout(
        root=root,
        directories=(Directory("", 0o755, ""), Directory("prompts", 0o755, ""), Directory("prompts/cache", 0o755, "")),
        categories=tuple((category, category.value) for category in Category if category is not Category.OTHER),
        rules=(Rule("cache", "prompts/cache", max_age_s=OLD_DAYS * DAY),),
    )
    settings = JobSettings(
        layout=layout,
        daemon_dir=Path(daemon_dir),
        snapshots=SnapshotSettings(
            RepositorySettings("", Secrets(encrypted=False, key_file=Path())), Keep(), Keep(), False, Share(0.0), DAY
        ),
        backup_count=3,
        settle_s=10.0,
        keep_if_open=True,
        require_snapshot=True,
        log_format="json",
        log_level="info",
    )
    configure("json", "info")
    with Ledger(settings.ledger_path) as ledger:
        report = run_here("clean", settings, ledger)
        rows = ledger.count_actions(0.0).get("file_removed", 0)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"removed": report.actions_total, "rows": rows, "job_s": report.duration_s, "peak_kib": peak}))


def measure(command: list[str]) -> tuple[float, str]:
    """Seconds that a process lived, and the last line that it wrote."""
    started = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, (result.stdout.strip().splitlines() or [""])[-1]


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where; no tmpfs")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ours, theirs, peak = list[float](), list[float](), 0
    answer: dict[str, float] = {}
    for number in range(arguments.rounds):
        base = Path(tempfile.mkdtemp(prefix="datad-bench-", dir=arguments.directory)).resolve()
        try:
            roots = base / "ours", base / "theirs"
            caches = [make(root, arguments.files) for root in roots]
            turns = [0, 1] if number % 2 else [1, 0]
            for turn in turns:
                os.sync()
                time.sleep(1)
                if turn:
                    command = ["find", str(caches[1]), "-type", "f", "-mtime", f"+{OLD_DAYS}", "-delete"]
                    theirs.append(measure(command)[0])
                else:
                    command = [sys.executable, __file__, "--clean", str(roots[0]), str(base / "datad")]
                    seconds, told = measure(command)
                    ours.append(seconds)
                    answer = json.loads(told)
                    peak = max(peak, int(answer["peak_kib"]))
            left = [len(os.listdir(cache)) for cache in caches]
            assert left == [arguments.files - arguments.files // 2] * 2, left
            assert answer["removed"] == answer["rows"] == arguments.files // 2, answer
            print(f"round {number + 1}: clean {ours[-1]:.2f} s (job {answer['job_s']:.2f} s), find {theirs[-1]:.2f} s")
        finally:
            shutil.rmtree(base)
    print(f"\n{arguments.files // 2} of {arguments.files} files; median of {arguments.rounds}; peak {peak >> 10} MiB")
    print(f"{'find -delete':14}{median(theirs):7.2f} s   1.00")
    print(f"{'clean':14}{median(ours):7.2f} s   {median(ours) / median(theirs):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--clean"]:
        clean(*sys.argv[2:])
    else:
        main()
