"""What callers of /metrics cost: the daemon's processor time and memory, and how long repairs take meanwhile.

    .venv/bin/python bench/scrapes.py [--seconds 30] [--rate 1000]

Three times: nobody calls; somebody asks for /metrics so often, on a new connection each time; and the same among
callers that are slow, half open, wrong, or send ten megabytes of noise (tests/process/callers.py). All the time a
directory is removed every 10 to 20 ms, and looked at without pause until it is there again.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.idle import memory_kib, own_cpu_s
from tests.process.running import Daemon, running, until
from tests.process.test_http import free_port

ROOT = Path(__file__).resolve().parents[1]
_KINDS = {"nobody": None, "scrapes": [], "scrapes among evil": ["--evil"]}


def repairs(daemon: Daemon, seconds: float) -> list[float]:
    """Seconds until the directory was there again, each time."""
    path, found = daemon.root / "logs/agents", []
    name = str(path)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path.rmdir()
        begun = time.perf_counter()
        while not os.path.isdir(name):
            if time.perf_counter() - begun > 10:
                raise SystemExit("not repaired within 10 s")
        found.append(time.perf_counter() - begun)
        time.sleep(random.uniform(0.01, 0.02))
    return found


def main() -> None:
    """Start, call, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=1000)
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-scrapes-", dir="/var/tmp"))
    port = free_port()
    print(f"{'':20}{'answered/s':>11}{'refused/s':>10}{'failed':>8}{'answer ms: median, p99':>26}", end="")
    print(f"{'repair ms: median, p99, max':>32}{'CPU %':>8}{'RSS MiB':>9}")
    try:
        with running(base, f"http.listen = '127.0.0.1:{port}'\nguard.backoff_after = 1000000000") as daemon:
            time.sleep(3.0)  # the first jobs
            until(lambda: not daemon.children(), 60.0)
            for kind, words in _KINDS.items():
                before = own_cpu_s(daemon.pid)
                callers = None
                if words is not None:
                    command = [sys.executable, "-m", "tests.process.callers", str(port), str(given.seconds)]
                    command += [str(given.rate), *words]
                    callers = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
                    time.sleep(0.5)
                took = sorted(repairs(daemon, given.seconds - 1))
                heard = json.loads(callers.communicate()[0]) if callers is not None else {}
                cpu = 100 * (own_cpu_s(daemon.pid) - before) / given.seconds
                row(kind, heard, took, cpu, memory_kib(daemon.pid)["VmRSS"] / 1024, given.seconds)
    finally:
        shutil.rmtree(base)


def row(
    kind: str, heard: "dict[str, dict[str, float]] | None", took: list[float], cpu: float, rss: float, s: float
) -> None:
    """One line."""
    good, bad, times = (heard or {}).get("good", {}), (heard or {}).get("bad", {}), (heard or {}).get("took_ms", {})
    answered = good.get("HTTP/1.1 200 OK", 0)
    refused = sum(count for line, count in bad.items() if line.startswith("HTTP/1.1 4") or "505" in line)
    failed = sum(good.values()) - answered
    answers = f"{times.get('median', 0):.1f}, {times.get('p99', 0):.1f}"
    late = took[len(took) * 99 // 100]
    waits = f"{took[len(took) // 2] * 1e3:.2f}, {late * 1e3:.1f}, {took[-1] * 1e3:.1f}"
    print(f"{kind:20}{answered / s:11.0f}{refused / s:10.0f}{failed:8.0f}{answers:>26}{waits:>32}{cpu:8.1f}{rss:9.1f}")


if __name__ == "__main__":
    main()
