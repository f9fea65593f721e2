"""What the daemon costs while agents write their logs: 50,000 appends a second to 20 files under logs/agents/.

    .venv/bin/python bench/appends.py [--seconds 20] [--rate 50000]

Prints the processor time and context switches of the daemon while nothing happens and during the appends, and beside
it, in the same run, those of a watchdog observer that watches a tree of the same shape recursively with its default
mask.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep
from tests.process.running import TREE, running, until

_FILES = 20
_PER_BATCH = 100
_OBSERVER = """
import sys, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
observer = Observer()
observer.schedule(FileSystemEventHandler(), sys.argv[1], recursive=True)
observer.start()
print("watching", flush=True)
while True:
    time.sleep(3600)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process has used: seconds of processor time, and context switches of all its threads."""

    cpu_s: float
    switches: int

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu_s - other.cpu_s, self.switches - other.switches)


def cost_of(pid: int) -> Cost:
    """What the process has used so far; processor time by its threads' schedstat, which counts nanoseconds."""
    cpu_ns = switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if line.startswith(("voluntary_ctxt", "nonvoluntary_ctxt")):
                switches += int(line.split()[1])
    return Cost(cpu_ns / 1e9, switches)


def append(directories: Iterable[Path], seconds: float, rate: int) -> float:
    """Append lines of 100 bytes, by turns to 20 files in each of the directories; returns the rate reached in each."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    groups = [[os.open(one / f"agent{number}.log", flags, 0o644) for number in range(_FILES)] for one in directories]
    line = b"x" * 99 + b"\n"
    write, clock = os.write, time.perf_counter
    begun, done = clock(), 0
    while clock() - begun < seconds:
        for _ in range(_PER_BATCH):
            done += 1
            for files in groups:
                write(files[done % _FILES], line)
        ahead = done / rate - (clock() - begun)
        if ahead > 0:
            time.sleep(ahead)
    reached = done / (clock() - begun)
    for files in groups:
        for fd in files:
            os.ftruncate(fd, 0)
            os.close(fd)
    return reached


def main() -> None:
    """Measure both idle, then both while the same process writes to both trees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=50_000)
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-appends-", dir="/var/tmp"))
    try:
        for path in TREE:
            (base / "peer" / path).mkdir(parents=True, exist_ok=True)
        observer = subprocess.Popen(
            [sys.executable, "-c", _OBSERVER, str(base / "peer")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert observer.stdout is not None
            observer.stdout.readline()
            with running(base) as daemon:
                time.sleep(3.0)  # the first jobs
                until(lambda: not daemon.children(), 60.0)
                pids = {"daemon": daemon.pid, "watchdog, default mask": observer.pid}
                rows = []
                before = {name: cost_of(pid) for name, pid in pids.items()}
                time.sleep(given.seconds)
                rows += [(name, "idle", given.seconds, 0.0, cost_of(pid) - before[name]) for name, pid in pids.items()]
                for name, where in (("daemon", daemon.root), ("watchdog, default mask", base / "peer")):
                    start = cost_of(pids[name])
                    began = time.monotonic()
                    rate = append([where / "logs/agents"], given.seconds, given.rate)
                    took = time.monotonic() - began
                    rows.append((name, "appends", took, rate, cost_of(pids[name]) - start))
        finally:
            observer.terminate()
            observer.wait()
            assert observer.stdout is not None
            observer.stdout.close()
        print(f"{'':24}{'':10}{'appends/s':>10}{'CPU s':>9}{'% of a core':>13}{'switches/s':>12}")
        for name, what, seconds, rate, used in rows:
            print(
                f"{name:24}{what:10}{rate:10,.0f}{used.cpu_s:9.4f}{100 * used.cpu_s / seconds:13.4f}"
                f"{used.switches / seconds:12.1f}"
            )
        lines = []
        for word in ("idle", "appends"):
            of = [(name, used, seconds) for name, what, seconds, _, used in rows if what == word]
            cpu = {name: [100 * used.cpu_s / seconds] for name, used, seconds in of}
            wakes = {name: [used.switches / seconds] for name, used, seconds in of}
            title = "idle" if word == "idle" else f"{given.rate:,} appends a second"
            lines += [
                Line(f"{title}: processor", "% of a core", cpu, ("daemon",)),
                Line(f"{title}: context switches", "a second", wakes, ("daemon",)),
            ]
        keep(
            Figures(
                lines,
                {"watchdog, default mask": "an Observer on the tree, recursive, with a handler that does nothing"},
            )
        )
        share = {name: used.cpu_s / seconds for name, what, seconds, _, used in rows if what == "appends"}
        ratio = share["watchdog, default mask"] / (share["daemon"] or 1e-9)
        print(f"ratio of the processor time, peer to daemon: {ratio:,.0f}")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
