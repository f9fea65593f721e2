"""What callers of /metrics cost: the daemon's processor time and memory, and how long repairs take meanwhile.

    .venv/bin/python bench/scrapes.py [--seconds 30] [--rate 1000]

Three times: nobody calls; somebody asks for /metrics so often, on a new connection each time; and the same among
callers that are slow, half open, wrong, or send ten megabytes of noise (tests/process/callers.py). All the time a
directory of the tree and one that a bare inotify loop in C keeps are removed in turns, and each is looked at without
pause until it is there again: what the loop waits for is the machine's.
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

from bench.figures import Figures, Line, keep, percentile
from bench.idle import memory_kib, own_cpu_s
from bench.keepers import C_LOOP, built, process
from tests.process.running import running, until
from tests.process.test_http import free_port

ROOT = Path(__file__).resolve().parents[1]
_KINDS = {"nobody": None, "scrapes": [], "scrapes among evil": ["--evil"]}


def repairs(peers: dict[str, Path], seconds: float) -> dict[str, list[float]]:
    """Seconds until each peer's directory was there again, each time, the shortest first."""
    found: dict[str, list[float]] = {peer: [] for peer in peers}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for peer in random.sample(sorted(peers), len(peers)):
            name = str(peers[peer])
            os.rmdir(name)
            begun = time.perf_counter()
            while not os.path.isdir(name):
                if time.perf_counter() - begun > 10:
                    raise SystemExit(f"{name} was not repaired within 10 s")
            found[peer].append(time.perf_counter() - begun)
            time.sleep(random.uniform(0.005, 0.01))
    return {peer: sorted(took) for peer, took in found.items()}


def main() -> None:
    """Start, call, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=1000)
    given = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="bench-scrapes-", dir="/var/tmp"))
    port = free_port()
    print(
        f"{'':20}{'answered/s':>11}{'refused/s':>10}{'failed':>8}{'answer ms: median, p99':>24}"
        f"{'repair ms: median, p99':>24}{'C loop ms: median, p99':>24}{'CPU %':>7}{'RSS MiB':>9}"
    )
    try:
        loop, kept = built(base), base / "c/dir"
        kept.mkdir(parents=True)
        lines: list[Line] = []
        settings = f"http.listen = '127.0.0.1:{port}'\nguard.backoff_after = 1000000000"
        with process(str(loop), str(kept)), running(base, settings) as daemon:
            time.sleep(3.0)  # the first jobs
            until(lambda: not daemon.children(), 60.0)
            peers = {"daemon": daemon.root / "logs/agents", C_LOOP: kept}
            for kind, words in _KINDS.items():
                before = own_cpu_s(daemon.pid)
                callers = None
                if words is not None:
                    command = [sys.executable, "-m", "tests.process.callers", str(port), str(given.seconds)]
                    command += [str(given.rate), *words]
                    callers = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
                    time.sleep(0.5)
                took = repairs(peers, given.seconds - 1)
                heard = json.loads(callers.communicate()[0]) if callers is not None else {}
                cpu = 100 * (own_cpu_s(daemon.pid) - before) / given.seconds
                rss = memory_kib(daemon.pid)["VmRSS"] / 1024
                row(kind, heard, took, cpu, rss, given.seconds)
                lines += figures(kind, heard, took, cpu, rss)
        keep(Figures(lines, {"daemon": f"{given.rate} requests a second for /metrics, each on a new connection"}))
    finally:
        shutil.rmtree(base)


def figures(
    kind: str, heard: dict[str, dict[str, float]], took: dict[str, list[float]], cpu: float, rss: float
) -> list[Line]:
    """The same for the page."""
    times = {who: [one * 1e3 for one in found] for who, found in took.items()}
    late = {who: [percentile(found, 0.99)] for who, found in times.items()}
    calls = "nobody calls" if kind == "nobody" else kind
    made = [
        Line(f"{calls}: repaired", "ms", times, ("daemon",), (C_LOOP,)),
        Line(f"{calls}: repaired, 99th percentile", "ms", late, ("daemon",), (C_LOOP,)),
        Line(f"{calls}: processor", "% of a core", {"daemon": [cpu]}, ("daemon",)),
        Line(f"{calls}: memory", "MiB", {"daemon": [rss]}, ("daemon",)),
    ]
    if "took_ms" in heard:
        made.append(Line(f"{calls}: answered", "ms", {"daemon": [heard["took_ms"]["median"]]}, ("daemon",)))
    return made


def row(
    kind: str,
    heard: dict[str, dict[str, float]],
    took: dict[str, list[float]],
    cpu: float,
    rss: float,
    seconds: float,
) -> None:
    """One line."""
    good, bad, times = heard.get("good", {}), heard.get("bad", {}), heard.get("took_ms", {})
    answered = good.get("HTTP/1.1 200 OK", 0)
    refused = sum(count for line, count in bad.items() if line.startswith(("HTTP/1.1 4", "HTTP/1.1 505")))
    answers = f"{times.get('median', 0):.1f}, {times.get('p99', 0):.1f}"
    waits = [f"{one[len(one) // 2] * 1e3:.2f}, {one[len(one) * 99 // 100] * 1e3:.1f}" for one in took.values()]
    print(
        f"{kind:20}{answered / seconds:11.0f}{refused / seconds:10.0f}{sum(good.values()) - answered:8.0f}{answers:>24}"
        f"{waits[0]:>24}{waits[1]:>24}{cpu:7.1f}{rss:9.1f}"
    )


if __name__ == "__main__":
    main()
