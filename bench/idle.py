"""What the daemon costs while nothing happens: memory, processor time with its jobs' processes, threads, descriptors.

    .venv/bin/python bench/idle.py [--seconds 60] [--files 1000]

All settings are the defaults. The first round of jobs runs at start and is measured by itself; the idle time after it
has no jobs in it, so their cost is spread over their intervals: "with jobs" is the share of a core that a whole day
takes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep
from symbiont_datad.settings import Settings
from tests import contexts
from tests.process.running import Daemon, running, until

FLOOR = "an interpreter with the same libraries"
_LIBRARIES = """
import sqlite3, sys
import apscheduler.schedulers.background, pydantic, sdnotify, structlog, watchdog.observers.inotify_c
print(flush=True)
sys.stdin.read()
"""
_TICKS = os.sysconf("SC_CLK_TCK")


def own_cpu_s(pid: int) -> float:
    """Processor time of the process's threads, exact to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def children_cpu_s(pid: int) -> float:
    """Processor time of the children that it has waited for (proc(5), "cutime" and "cstime"; 10 ms steps)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS


def memory_kib(pid: int) -> dict[str, int]:
    """VmRSS, its part that no file backs, and Pss."""
    found = {}
    for name in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("VmRSS", "RssAnon", "Pss"):
                found[key] = int(value.split()[0])
    return found


def switches(pid: int) -> int:
    """Context switches of all threads so far."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith(("voluntary_ctxt", "nonvoluntary_ctxt")):
                found += int(line.split()[1])
    return found


def settle(daemon: Daemon) -> None:
    """Wait for the end of the first run of each job."""
    for job in ("sweep", "rotate", "clean", "usage", "vectors", "backup", "optimize"):
        daemon.wait_for_event("job_finished", 120.0, job=job)
    until(lambda: not daemon.children(), 60.0)
    time.sleep(2.0)


def floor() -> Iterator[int]:
    """RSS, its part that no file backs, and Pss of an interpreter with the daemon's libraries; in KiB."""
    with subprocess.Popen([sys.executable, "-c", _LIBRARIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = memory_kib(process.pid)
        process.communicate(b"")
    yield from (found[name] for name in ("VmRSS", "RssAnon", "Pss"))


def line(what: str, unit: str, value: float, least: dict[str, float]) -> Line:
    """A figure for the page, with the floor where there is one."""
    floors = {FLOOR: [least[what]]} if what in least else {}
    return Line(what, unit, {"daemon": [value], **floors}, ("daemon",), tuple(floors))


def main() -> None:
    """Start, settle, wait, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--files", type=int, default=1000)
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-idle-", dir="/var/tmp"))
    try:
        for directory in ("data/state/agents", "data/prompts/cache"):
            (base / directory).mkdir(parents=True)
        then = time.time() - 3600
        for number in range(given.files // 2):
            agent = contexts.agent_id(str(number))
            context = base / "data/state/agents" / f"{agent}.json.gz"
            context.write_bytes(contexts.zipped(contexts.context(str(number), then)))
            os.utime(context, (then, then))
            (base / "data/prompts/cache" / f"{number:08x}.json").write_text('{"id": 1}')
        with running(base) as daemon:
            settle(daemon)
            pid = daemon.pid
            jobs_s, rounds = children_cpu_s(pid), len(daemon.events("job_finished"))
            before, switched = own_cpu_s(pid), switches(pid)
            time.sleep(given.seconds)
            idle = (own_cpu_s(pid) - before) / given.seconds
            wakes = (switches(pid) - switched) / given.seconds
            memory = memory_kib(pid)
            threads = len(os.listdir(f"/proc/{pid}/task"))
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        every = Settings.model_validate({"root_data_dir": base / "data"})
        one_s = jobs_s / rounds  # each is mostly the start of an interpreter
        spread = (
            one_s / every.auto_save_interval
            + one_s / every.schedule.rotation_interval
            + one_s / every.schedule.usage_interval
            + one_s / every.schedule.retention_interval
            + one_s / every.vector_db.metadata_interval
        )
        print(f"tree of {given.files:,} files, {given.seconds:.0f} s idle")
        print(f"{'RSS':34}{memory['VmRSS'] / 1024:10.1f} MiB")
        print(f"{'  of it anonymous':34}{memory['RssAnon'] / 1024:10.1f} MiB")
        print(f"{'Pss':34}{memory['Pss'] / 1024:10.1f} MiB")
        print(f"{'CPU, the daemon itself':34}{100 * idle:10.4f} % of a core")
        print(f"{f'CPU, one round of {rounds} jobs':34}{jobs_s:10.2f} s")
        print(f"{'CPU, with jobs':34}{100 * (idle + spread):10.4f} % of a core")
        print(f"{'context switches':34}{wakes:10.1f} /s")
        print(f"{'threads':34}{threads:10}")
        print(f"{'descriptors':34}{descriptors:10}")
        figures = {
            ("resident memory", "MiB"): memory["VmRSS"] / 1024,
            ("anonymous memory", "MiB"): memory["RssAnon"] / 1024,
            ("proportional memory", "MiB"): memory["Pss"] / 1024,
            ("processor, the daemon itself", "% of a core"): 100 * idle,
            ("processor, with all jobs at their intervals", "% of a core"): 100 * (idle + spread),
            ("wake-ups (context switches)", "a second"): wakes,
            ("threads", ""): threads,
            ("descriptors", ""): descriptors,
        }
        names = ("resident memory", "anonymous memory", "proportional memory")
        least = {name: kib / 1024 for name, kib in zip(names, floor(), strict=True)}
        keep(Figures([line(what, unit, value, least) for (what, unit), value in figures.items()]))
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
