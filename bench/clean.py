"""Retention against `find -delete`, systemd-tmpfiles and tmpreaper: half of 100,000 files, by age.

    python bench/clean.py [--directory DIR] [--files 100000] [--rounds 3] [--only NAME]

Each round makes a tree of cache, history and logs for each tool, syncs, and lets each clean its own, in turns. All run
as fresh processes; `clean` is a job process as the daemon starts one, with a row in its ledger for each file, and
counts its whole life.
Run by hand: it takes some minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep
from bench.machine import remove

DAY = 86_400.0
OLD_DAYS = 7
PLACES = ("prompts/cache", "prompts/history/{day}", "logs/agents")
"""Where the files go, a third each; the history has 30 files a day."""

HISTORY_A_DAY = 30


def make(root: Path, files: int) -> int:
    """A tree of so many files of 300 bytes, half of them older than the limit; how many those are.

    Days are old as a whole, as they are in a history.
    """
    random, now, body = Random(1), time.time(), b"x" * 300
    old = 0
    for place in PLACES:
        count = files // len(PLACES)
        for number in range(count):
            is_old = number % 2 == 0
            folder = place
            if "{day}" in place:
                day = number // HISTORY_A_DAY
                is_old = day % 2 == 0
                folder = place.format(day=f"day-{day:05}")
            old += is_old
            age = random.uniform(OLD_DAYS + 1, 60) * DAY if is_old else random.uniform(0, OLD_DAYS - 1) * DAY
            directory = root / folder
            if number % HISTORY_A_DAY == 0:
                directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"{random.getrandbits(128):032x}.json"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(fd, body)
            os.close(fd)
            os.utime(path, (now - age, now - age))
    return old


def clean(root: str, daemon_dir: str, undo: str) -> None:
    """The process that is measured: `clean` with three rules, as a job process runs it."""
    from symbiont_datad.events import configure
    from symbiont_datad.jobs.context import JobSettings, Keep, RepositorySettings, SnapshotSettings
    from symbiont_datad.jobs.runner import run_here
    from symbiont_datad.jobs.secrets import Secrets
    from symbiont_datad.layout import Category, Directory, Layout
    from symbiont_datad.ledger import Ledger
    from symbiont_datad.quantities import Share
    from symbiont_datad.retention.rules import AgeBy, Rule

    rows = ("", "prompts", "prompts/cache", "prompts/history", "logs", "logs/agents")
    layout = Layout(
        root=root,
        directories=tuple(Directory(path, 0o755, "", open=path == "prompts/history") for path in rows),
        categories=tuple((category, category.value) for category in Category if category is not Category.OTHER),
        rules=(
            Rule("cache", "prompts/cache", max_age_s=OLD_DAYS * DAY, age_by=AgeBy.USED, cache=True),
            Rule("history", "prompts/history", max_age_s=OLD_DAYS * DAY, whole=undo != "files"),
            Rule("logs", "logs", max_age_s=OLD_DAYS * DAY, keep_newest=True),
        ),
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
        require_snapshot=False,
        log_format="json",
        log_level="info",
        undo_window_s=DAY if undo == "undo" else 0.0,
    )
    configure("json", "info")
    with Ledger(settings.ledger_path) as ledger:
        report = run_here("clean", settings, ledger)
        told = sum(ledger.count_actions(0.0).values())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "actions": report.actions_total,
                "rows": told,
                "job_s": report.duration_s,
                "peak_kib": peak,
            }
        )
    )


def find(root: Path) -> list[str]:
    """What people write into a crontab."""
    return ["find", str(root), "-type", "f", "-mtime", f"+{OLD_DAYS}", "-delete"]


def tmpfiles(root: Path) -> list[str]:
    """systemd-tmpfiles with a line for each place, by the time of writing."""
    config = root.parent / "clean.conf"
    lines = [f"e {root}/{place.split('/{')[0]} - - - m:{OLD_DAYS}d" for place in PLACES]
    config.write_text("\n".join(lines) + "\n")
    return ["systemd-tmpfiles", "--clean", str(config)]


def tmpreaper(root: Path) -> list[str]:
    """tmpreaper by the time of writing, and without its limit of 55 seconds."""
    return [
        "tmpreaper",
        "--mtime",
        "--runtime=0",
        f"{OLD_DAYS}d",
        *(f"{root}/{place.split('/{')[0]}" for place in PLACES),
    ]


def ours(kind: str) -> Callable[[Path], list[str]]:
    """`clean`: at once, file by file; at once, days as a whole; with everything but the cache kept to be undone."""
    return lambda root: [sys.executable, __file__, "--clean", str(root), str(root.parent / "datad"), kind]


TOOLS: dict[str, Callable[[Path], list[str]]] = {
    "find -delete": find,
    "systemd-tmpfiles": tmpfiles,
    "tmpreaper": tmpreaper,
    "clean, file by file": ours("files"),
    "clean, days whole": ours("whole"),
    "clean, with undo": ours("undo"),
}
OURS = ("clean, file by file", "clean, days whole", "clean, with undo")
COMMANDS = {
    "find -delete": f"find DIR -type f -mtime +{OLD_DAYS} -delete",
    "systemd-tmpfiles": f"systemd-tmpfiles --clean CONF (a line `e DIR - - - m:{OLD_DAYS}d` for each place)",
    "tmpreaper": f"tmpreaper --mtime --runtime=0 {OLD_DAYS}d DIR…",
    OURS[0]: "the job `clean` with three rules, a row in the ledger for each file, nothing kept to be undone",
    OURS[1]: "the same, days of the history as one unit each",
    OURS[2]: "the same, all but the cache kept to be undone for a day (the default)",
}


def measure(command: list[str]) -> tuple[float, str]:
    """Seconds that a process lived, and the last line that it wrote."""
    started = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, (result.stdout.strip().splitlines() or [""])[-1]


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where; no tmpfs")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="one of the tools; may be given more than once")
    arguments = parser.parse_args()
    missing = [name for name in ("systemd-tmpfiles", "tmpreaper") if shutil.which(name) is None]
    wanted = set(arguments.only or TOOLS) - set(missing)
    tools = {name: tool for name, tool in TOOLS.items() if name in wanted}
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    peak = old = 0
    for number in range(arguments.rounds):
        order = list(tools)[number % len(tools) :] + list(tools)[: number % len(tools)]
        base = Path(tempfile.mkdtemp(prefix="datad-bench-", dir=arguments.directory)).resolve()
        try:
            for name in order:
                root = base / name.replace(" ", "-") / "data"
                old = make(root, arguments.files)
                os.sync()
                time.sleep(1)
                took, told = measure(tools[name](root))
                seconds[name].append(took)
                left = sum(len(files) for folder, _, files in os.walk(root) if ".quarantine" not in folder)
                total = arguments.files // len(PLACES) * len(PLACES)
                assert left == total - old, (name, left, total - old)
                if told.startswith("{"):
                    answer = json.loads(told)
                    assert answer["actions"] == answer["rows"], answer
                    peak = max(peak, int(answer["peak_kib"]))
            print(f"round {number + 1}: " + ", ".join(f"{name} {took[-1]:.2f} s" for name, took in seconds.items()))
        finally:
            remove(base)
    keep(
        Figures(
            [
                Line(
                    "half of the files removed",
                    "s",
                    seconds,
                    [name for name in OURS if name in tools],
                    (),
                    arguments.files,
                )
            ],
            {name: COMMANDS[name] for name in tools},
            missing=missing,
        )
    )
    print(f"\n{old} of {arguments.files} files; median of {arguments.rounds}; peak {peak >> 10} MiB")
    first = median(seconds[next(iter(tools))])
    for name, all_of_them in seconds.items():
        print(f"{name:22}{median(all_of_them):7.2f} s   {median(all_of_them) / first:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--clean"]:
        clean(*sys.argv[2:])
    else:
        main()
