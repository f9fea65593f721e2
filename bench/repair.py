"""How long until a directory is right again: the daemon, a bare inotify loop in C, and inotifywait with a shell loop.

    .venv/bin/python bench/repair.py [--rounds 500] [--pin]

Each round removes a directory, renames it out of the tree, or takes rights from it, and looks without pause until it is
there with mode 0755. The peers take turns within every round, so noise of the machine hits all of them. A second table
has the same while `symbiont-datad clean` works on 100,000 cache files of the same tree.

The process that measures never sleeps in its loop, so it takes one processor for itself, and on a machine with two the
scheduler often has a peer wait behind it. With --pin it has the first processor and the peers have the others: that
shows the peers' own work.
"""

import argparse
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.process.running import COMMAND, Daemon, running, until

_SETTINGS = """
guard.backoff_after = 1000000000
[retention]
undo_window = 0
require_snapshot = false
"""
_CACHE_FILES = 100_000
_SHELL = """
inotifywait -m -q -e delete,moved_from,attrib "$1" | while read -r _ events name; do
    [ "$name" = "$2" ] || continue
    case $events in
        *ATTRIB*) [ "$(stat -c %a "$1/$2")" = 755 ] || chmod 755 "$1/$2" ;;
        *) mkdir -p "$1/$2" ;;
    esac
done
"""

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
                time.sleep(random.uniform(0.002, 0.005))
                one[kind, peer] = measure(path, away, damage)
        if going_on():
            done += 1
            for key, took in one.items():
                found[key].append(took)
    return found


def table(found: Times, peers: Peers) -> None:
    """Print median, p99 and maximum in milliseconds, and the ratio of the medians and p99s to the C loop's."""
    print(f"{'':14}{'':14}{'median ms':>10}{'p99 ms':>10}{'max ms':>10}{'median/C':>10}{'p99/C':>8}")
    for kind in KINDS:
        base = sorted(found[kind, "C loop"])
        for peer in peers:
            times = sorted(found[kind, peer])
            median, late = times[len(times) // 2], times[len(times) * 99 // 100]
            ratios = median / base[len(base) // 2], late / base[len(base) * 99 // 100]
            print(
                f"{kind:14}{peer:14}{median * 1e3:10.3f}{late * 1e3:10.3f}{times[-1] * 1e3:10.3f}"
                f"{ratios[0]:10.1f}{ratios[1]:8.1f}"
            )


@contextmanager
def process(*command: str, group: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block runs; with `group`, what it started ends with it."""
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=group)
    try:
        yield started
    finally:
        if group:
            os.killpg(started.pid, 15)
        else:
            started.terminate()
        started.wait()


class Cleaning:
    """Runs `clean` on a full cache again and again; `going_on()` starts the next one when there is none."""

    def __init__(self, daemon: Daemon, prefix: list[str]) -> None:
        self._daemon = daemon
        self._prefix = prefix
        self._cache = daemon.root / "prompts" / "cache"
        self._process: subprocess.Popen[bytes] | None = None
        self.took: list[float] = []
        self._begun = 0.0

    def going_on(self) -> bool:
        """Whether a clean is at work now."""
        if self._process is not None and self._process.poll() is None:
            return True
        if self._process is not None:
            self.took.append(time.monotonic() - self._begun)
            if self._process.returncode not in (0, 3):
                raise SystemExit(f"clean ended with {self._process.returncode}")
        self._fill()
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            [*self._prefix, *COMMAND, "--config", str(self._daemon.config), "--root", str(self._daemon.root), "clean"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)  # imports
        return self._process.poll() is None

    def _fill(self) -> None:
        """100,000 files, nine of ten older than the rule allows."""
        old = time.time() - 40 * 86400
        fd = os.open(self._cache, os.O_RDONLY)
        for number in range(_CACHE_FILES):
            name = f"{number:032x}.json"
            file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
            os.write(file, b"{}")
            os.close(file)
            if number % 10:
                os.utime(name, (old, old), dir_fd=fd)
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
    parser.add_argument("--pin", action="store_true")
    given = parser.parse_args()
    count = given.rounds
    processors = sorted(os.sched_getaffinity(0))
    if given.pin:
        os.sched_setaffinity(0, processors[1:])  # the peers inherit it
    base = Path(tempfile.mkdtemp(prefix="bench-repair-", dir="/var/tmp"))
    try:
        loop = base / "inotify_loop"
        subprocess.run(["gcc", "-O2", "-o", loop, Path(__file__).parent / "inotify_loop.c"], check=True)
        peers: Peers = {
            "daemon": base / "data/logs/agents",
            "C loop": base / "c/dir",
            "inotifywait": base / "shell/dir",
        }
        for peer in ("C loop", "inotifywait"):
            peers[peer].mkdir(parents=True)
        with (
            process(str(loop), str(peers["C loop"])),
            process("bash", "-c", _SHELL, "bash", str(base / "shell"), "dir", group=True),
            running(base, _SETTINGS) as daemon,
        ):
            time.sleep(3.0)  # the first jobs
            until(lambda: not daemon.children(), 60.0)
            if given.pin:
                os.sched_setaffinity(0, processors[:1])
            print(f"idle, {count} rounds{', pinned' if given.pin else ''}")
            table(rounds(count, peers, base / "away"), peers)
            run_clean = Cleaning(daemon, ["taskset", "-c", ",".join(map(str, processors))] if given.pin else [])
            if importlib.util.find_spec("symbiont_datad.jobs.clean") is None:
                print("\nno jobs/clean.py yet: nothing measured while a clean runs")
                return
            try:
                found = rounds(count, peers, base / "away", run_clean.going_on)
            finally:
                run_clean.stop()
            took = ", ".join(f"{seconds:.1f}" for seconds in run_clean.took)
            print(f"\nwhile `clean` works on {_CACHE_FILES} cache files, {count} rounds (cleans took {took} s)")
            table(found, peers)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
