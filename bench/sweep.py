"""What a sweep costs: 20,000 compressed contexts read, parsed and checked, against `gzip -t` over the same files.

    bench/sweep.py [--contexts 20000] [--rounds 5] [--json]

In each round: `find … -print0 | xargs -0 gzip -t`, a first sweep with an empty ledger, the next one, in which nothing
has changed, and one after 1 % were saved anew. The sweeps run in this process; the autosave, which `snapshots.py`
measures, is left out. What counts for the bars is the fastest of each: what others do on the machine only adds. Exit
code 1: a bar was missed.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "daemon"), str(ROOT)]

from bench.figures import Figures, Line, keep  # noqa: E402
from symbiont_datad.events import configure  # noqa: E402
from symbiont_datad.jobs import sweep as sweeping  # noqa: E402
from symbiont_datad.jobs.context import JobSettings  # noqa: E402
from symbiont_datad.jobs.runner import run_here  # noqa: E402
from symbiont_datad.jobs.saving import Saved  # noqa: E402
from symbiont_datad.ledger import Ledger  # noqa: E402
from tests import contexts  # noqa: E402
from tests.jobs.making import settings_for  # noqa: E402

WORDS = """agent plan policy tool secret budget invoice customer retry cluster vector embed recall summary draft
review deploy rollback schedule token quota latency region shard replica index prompt answer context memory"""
PEER = "gzip -t"
FIRST, NEXT = 1.5, 0.10
"""The bars, as shares of the time of `gzip -t`."""
ENOUGH = 20_000
"""Of fewer contexts a bar says nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure("console", "critical", sys.stderr)
    setattr(sweeping, "autosave", lambda *_: Saved())  # noqa: B010  # it is not exported
    base = Path(tempfile.mkdtemp(prefix="datad-bench-", dir="/var/tmp"))
    try:
        settings = settings_for(base)
        size = make(Path(settings.layout.root, "state/agents"), given.contexts)
        figures = [measure(settings, number) for number in range(given.rounds)]
    finally:
        shutil.rmtree(base)
    best = {name: min(figure[name] for figure in figures) for name in figures[0]}
    shares = {name: best[name] / best["gzip"] for name in ("first", "next")}
    of = {name: [figure[name] for figure in figures] for name in ("gzip", "next", "changed", "first")}
    keep(
        Figures(
            [
                Line(what, "s", {"sweep": of[name], PEER: of["gzip"]}, ("sweep",), (), given.contexts)
                for name, what in (("next", "nothing changed"), ("changed", "1 % changed"), ("first", "all changed"))
            ],
            {PEER: "find DIR -name '*.json.gz' -print0 | xargs -0 gzip -t"},
        )
    )
    if given.json:
        print(json.dumps({"contexts": given.contexts, "bytes": size, "seconds": best, "ratios": shares}))
    else:
        print(f"{given.contexts} contexts, {size / 1e6:.0f} MB compressed; the best of {given.rounds} rounds")
        rows = (
            ("gzip", "gzip -t", 1.0), ("first", "first sweep", FIRST), ("next", "the next", NEXT),
            ("changed", "1 % changed", FIRST),
        )  # fmt: skip
        for name, words, bar in rows:
            share, cpu = best[name] / best["gzip"], best[f"{name}_cpu"]
            print(f"{words:<12} {best[name]:.3f} s  {share:.3f} (bar {bar})  processor {cpu / best['gzip_cpu']:.3f}")
    missed = shares["first"] > FIRST or shares["next"] > NEXT
    return int(missed and given.contexts >= ENOUGH)


def make(agents: Path, count: int) -> int:
    """Contexts of some 11 KB of JSON each, written an hour ago; hand back their size on the disk."""
    size, then, chance, words = 0, time.time() - 3600, random.Random(1), WORDS.split()
    blank, bodies = contexts.agent_id("blank"), []
    for _ in range(300):
        turns = [
            contexts.turn(then, " ".join(chance.choices(words, k=chance.randint(5, 60))))
            for _ in range(chance.randint(1, 20))
        ]
        bodies.append(contexts.plain(contexts.context("blank", then, conversation_history=turns)))
    for number in range(count):
        agent = contexts.agent_id(str(number))
        data = gzip.compress(bodies[number % len(bodies)].replace(blank.encode(), agent.encode()), 6, mtime=0)
        path = agents / f"{agent}.json.gz"
        path.write_bytes(data)
        os.utime(path, (then, then))
        size += len(data)
    return size


def measure(settings: JobSettings, number: int) -> dict[str, float]:
    """One round, in seconds of the clock and, as `…_cpu`, of the processor."""
    shutil.rmtree(settings.daemon_dir, ignore_errors=True)
    agents = f"{settings.layout.root}/state/agents"
    find = f"find {agents} -name '*.json.gz' -print0 | xargs -0 gzip -t"
    with Ledger(settings.ledger_path) as ledger:
        found = {
            **timed("gzip", lambda: subprocess.run(["sh", "-c", find], check=True)),
            **timed("first", lambda: run_here("sweep", settings, ledger)),
            **timed("next", lambda: run_here("sweep", settings, ledger)),
        }
        change(Path(agents), number)
        return {**found, **timed("changed", lambda: run_here("sweep", settings, ledger))}


def change(agents: Path, number: int) -> None:
    """Save 1 % of the contexts anew, with one more thing in each, an hour ago."""
    files = sorted(agents.glob("*.json.gz"))
    for path in random.Random(number).sample(files, max(len(files) // 100, 1)):
        value, at = json.loads(gzip.decompress(path.read_bytes())), path.stat().st_mtime + 1
        value["metadata"] = {"changed": str(number)}
        path.write_bytes(contexts.zipped(value))
        os.utime(path, (at, at))


def timed(name: str, work: Callable[[], object]) -> dict[str, float]:
    clock, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return {name: time.perf_counter() - clock, f"{name}_cpu": sum(after[:4]) - sum(before[:4])}


if __name__ == "__main__":
    sys.exit(main())
