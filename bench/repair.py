"""How long until a directory is right again: the daemon, and what else keeps one (keepers.py).

    .venv/bin/python bench/repair.py [--while idle|backup|clean] [--rounds 500] [--files 100000] [--pin]

Each round removes a directory, renames it out of the tree, or takes rights from it, and looks without pause until it is
there with mode 0755. The peers take turns within every round, so noise of the machine hits all of them. With `--while`
the same is measured while `clean` works on so many cache files of the same tree, or `backup` on a fifth as many
contexts, again and again.

The process that measures never sleeps in its loop, so it takes one processor for itself, and on a machine with two the
scheduler often has a peer wait behind it. With --pin it has the first processor and the peers have the others: that
shows the peers' own work.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep, percentile
from bench.keepers import C_LOOP, COMMANDS, keepers
from tests.process.running import COMMAND, Daemon, running, until

_SETTINGS = """
guard.backoff_after = 1000000000
[retention]
undo_window = 0
require_snapshot = false
"""
_OURS = "daemon"

_ENOUGH, _SLOW_S = 10, 0.2
"""Who takes so long is asked so often only: it would be most of what a benchmark takes."""

Peers = dict[str, Path]
Times = dict[tuple[str, str], list[float]]


def _remove(path: Path, _away: Path) -> None:
    path.rmdir()


def _rename(path: Path, away: Path) -> None:
    path.rename(away)


def _chmod(path: Path, _away: Path) -> None:
    path.chmod(0o700)


KINDS: dict[str, Callable[[Path, Path], None]] = {"removed": _remove, "renamed away": _rename, "chmodded": _chmod}


def measure(path: Path, away: Path, damage: Callable[[Path, Path], None]) -> float:
    """Seconds from the damage (done) until the directory is right again."""
    stat, name = os.stat, str(path)
    clock = time.perf_counter
    damage(path, away)
    begun = clock()
    while True:
        try:
            if stat(name).st_mode & 0o7777 == 0o755:
                break
        except FileNotFoundError:
            pass
        if clock() - begun > 10.0:
            raise SystemExit(f"{path} was not repaired within 10 s")
    took = clock() - begun
    if away.exists():
        away.rmdir()
    return took


def rounds(count: int, peers: Peers, away: Path, going_on: Callable[[], bool] = lambda: True) -> Times:
    """The latencies of all peers and kinds of damage. Rounds that end when nothing is going on don't count."""
    found: Times = {(kind, peer): [] for kind in KINDS for peer in peers}
    done = 0
    while done < count:
        if not going_on():
            time.sleep(0.05)
            continue
        one: dict[tuple[str, str], float] = {}
        for kind, damage in KINDS.items():
            for peer, path in random.sample(sorted(peers.items()), len(peers)):
                if len(known := found[kind, peer]) >= _ENOUGH and median(known) > _SLOW_S:
                    continue
                time.sleep(random.uniform(0.002, 0.005))
                one[kind, peer] = measure(path, away, damage)
        if going_on():
            done += 1
            for key, took in one.items():
                found[key].append(took)
    return found


def lines(found: Times, peers: Peers, work: str) -> list[Line]:
    """The figures: medians, and what one of a hundred takes longer than."""
    during = "" if work == "idle" else f", while `{work}` works"
    made = []
    for kind in KINDS:
        times = {peer: [took * 1e3 for took in found[kind, peer]] for peer in peers}
        made.append(Line(f"{kind}{during}", "ms", times, (_OURS,), (C_LOOP,)))
        late = {peer: [percentile(one, 0.99)] for peer, one in times.items()}
        made.append(Line(f"{kind}{during}: 99th percentile", "ms", late, (_OURS,), (C_LOOP,)))
    return made


def table(found: Times, peers: Peers) -> None:
    """Print median, p99 and maximum in milliseconds, and the ratio of the medians and p99s to the C loop's."""
    print(f"{'':14}{'':18}{'median ms':>10}{'p99 ms':>10}{'max ms':>10}{'median/C':>10}{'p99/C':>8}")
    for kind in KINDS:
        base = found[kind, C_LOOP]
        for peer in peers:
            times = found[kind, peer]
            middle, late = median(times), percentile(times, 0.99)
            ratios = middle / median(base), late / percentile(base, 0.99)
            print(
                f"{kind:14}{peer:18}{middle * 1e3:10.3f}{late * 1e3:10.3f}{max(times) * 1e3:10.3f}"
                f"{ratios[0]:10.1f}{ratios[1]:8.1f}"
            )


class Work:
    """Runs a command again and again, each time with something to do; `going_on()` starts the next when none runs."""

    def __init__(self, daemon: Daemon, word: str, files: int, prefix: list[str]) -> None:
        self._command = [*prefix, *COMMAND, "--config", str(daemon.config), "--root", str(daemon.root), word]
        self._fill = {"clean": self._cache, "backup": self._contexts}[word]
        self._root = daemon.root
        self._files = files
        self._process: subprocess.Popen[bytes] | None = None
        self.took: list[float] = []
        self._begun = 0.0

    def going_on(self) -> bool:
        """Whether one is at work now."""
        if self._process is not None and self._process.poll() is None:
            return True
        if self._process is not None:
            self.took.append(time.monotonic() - self._begun)
            if self._process.returncode not in (0, 3):
                raise SystemExit(f"{self._command[-1]} ended with {self._process.returncode}")
        self._fill()
        self._begun = time.monotonic()
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdin=quiet, stdout=quiet, stderr=quiet)
        time.sleep(0.3)  # imports
        return self._process.poll() is None

    def _cache(self) -> None:
        """So many files of cache, nine of ten older than the rule allows."""
        old = time.time() - 40 * 86400
        self._make(self._root / "prompts/cache", self._files, lambda _: b"{}", lambda n: old if n % 10 else None)

    def _contexts(self) -> None:
        """A fifth as many contexts, all of them new."""
        self._make(self._root / "state/agents", self._files // 5, lambda _: random.randbytes(4000), lambda _: None)

    def _make(
        self, folder: Path, count: int, content: Callable[[int], bytes], at: Callable[[int], float | None]
    ) -> None:
        fd = os.open(folder, os.O_RDONLY)
        for number in range(count):
            name = f"{number:032x}.json"
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=fd)
            os.write(file, content(number))
            os.close(file)
            if (when := at(number)) is not None:
                os.utime(name, (when, when), dir_fd=fd)
        os.close(fd)

    def stop(self) -> None:
        """End the one that runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def main() -> None:
    """Start the peers, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--while", dest="work", choices=["idle", "backup", "clean"], default="idle")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--pin", action="store_true")
    given = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))
    if given.pin:
        os.sched_setaffinity(0, processors[1:])  # the peers inherit it
    base = Path(tempfile.mkdtemp(prefix="bench-repair-", dir="/var/tmp"))
    try:
        with keepers(base) as (others, missing), running(base, _SETTINGS) as daemon:
            peers: Peers = {_OURS: base / "data/logs/agents", **others}
            time.sleep(3.0)  # the first jobs
            until(lambda: not daemon.children(), 60.0)
            if given.pin:
                os.sched_setaffinity(0, processors[:1])
            print(f"{given.work}, {given.rounds} rounds{', pinned' if given.pin else ''}")
            if given.work == "idle":
                found = rounds(given.rounds, peers, base / "away")
            else:
                prefix = ["taskset", "-c", ",".join(map(str, processors))] if given.pin else []
                work = Work(daemon, given.work, given.files, prefix)
                try:
                    found = rounds(given.rounds, peers, base / "away", work.going_on)
                finally:
                    work.stop()
                print(f"each {given.work} took {', '.join(f'{seconds:.1f}' for seconds in work.took)} s")
        table(found, peers)
        keep(Figures(lines(found, peers, given.work), {_OURS: "symbiont-datad run", **COMMANDS}, missing=missing))
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
