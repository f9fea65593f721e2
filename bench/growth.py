"""How time and memory grow with the number of contexts: from 1,000 to 1,000,000 of them in one flat directory.

    .venv/bin/python bench/growth.py [--sizes 1000 10000 100000 1000000] [--work DIR] [--json]

Each size is a tree of its own, with a tenth as many files of cache, half of which are due. The commands are those that
users type, one process each and one after the other; the daemon is started between them. The exponent is that of the
largest two sizes, log(time ratio) / log(size ratio): 1 is linear, and what costs nothing in itself is below. Exit code
1: an exponent is above 1.05, or a process took more memory than it may (1 GiB a command, 96 MiB the daemon).
"""

import argparse
import gzip
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.figures import Figures, Line, keep  # noqa: E402
from bench.machine import remove  # noqa: E402
from tests import contexts  # noqa: E402
from tests.process.running import COMMAND, running  # noqa: E402

GZIP, TAR = "gzip -t", "tar, zstd"
_GZIP = "find {0} -name '*.json.gz' -print0 | xargs -0 gzip -t"
_TAR = "tar -C {0} -cf - . | zstd -3 -T0 -q -o {1} && sync {1}"
FLOORS = {"first sweep, with its autosave": GZIP, "first backup": TAR}
"""What reads everything once as well; and packs it."""
LINEAR = 1.05
COMMAND_MIB, DAEMON_MIB = 1024, 96
DAY = 86_400.0
_SETTINGS = """auto_save_interval = "1d"
[backup]
schedule = "1d"
[retention.cache]
max_age = "7d"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the files go")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for size in sorted(given.sizes):
        base = Path(tempfile.mkdtemp(prefix="bench-growth-", dir=given.work))
        try:
            found[size] = measure(base, size)
        finally:
            remove(base)
        print(f"{size:,} contexts measured", file=sys.stderr)
    slopes = exponents(found)
    keep(Figures(list(lines(found)), {GZIP: _GZIP.format("DIR"), TAR: _TAR.format("DIR", "FILE")}))
    if given.json:
        print(json.dumps({"figures": found, "exponents": slopes}))
    else:
        show(found, slopes)
    found = {
        size: {name: one for name, one in steps.items() if name not in FLOORS.values()} for size, steps in found.items()
    }
    slopes = {name: slope for name, slope in slopes.items() if name not in FLOORS.values()}
    limits = {name: DAEMON_MIB if name == "ready" else COMMAND_MIB for name in next(iter(found.values()))}
    heavy = [name for figures in found.values() for name, (_, mib) in figures.items() if mib > limits[name]]
    return int(bool(heavy) or any(slope > LINEAR for slope in slopes.values()))


def measure(base: Path, size: int) -> dict[str, tuple[float, float]]:
    """Seconds and peak MiB of each step, in the order in which a user meets them."""
    root = base / "data"
    files = make(root, size)
    config = base / "datad.toml"
    config.write_text(_SETTINGS)
    found: dict[str, tuple[float, float]] = {}

    def run(name: str, *words: str) -> None:
        found[name] = cost([*COMMAND, "--config", str(config), "--root", str(root), *words], base)

    def start(name: str) -> None:
        with running(base, 'auto_save_interval = "1d"\n[backup]\nschedule = "1d"\n', root=root) as daemon:
            time.sleep(3.0)
            found[name] = daemon.ready_after_s, peak_mib(daemon.pid)

    def floor(name: str, script: str) -> None:
        found[name] = cost(["sh", "-c", script], base)

    floor(GZIP, _GZIP.format(root / "state"))
    run("first sweep, with its autosave", "sweep")
    run("sweep, nothing changed", "sweep")
    change(files, size // 100)
    run("sweep, 1 % changed", "sweep")
    floor(TAR, _TAR.format(root, base / "all.tar.zst"))
    run("first backup", "backup")
    run("backup, nothing changed", "backup")
    change(files, size // 100)
    run("backup, 1 % changed", "backup")
    run("clean", "clean")
    run("verify", "verify")
    run("restore", "restore", "latest", "--target", str(base / "restored"))
    start("ready")
    return found


def make(root: Path, size: int) -> list[Path]:
    """The tree, with so many contexts, some hours old, and a tenth as many files of cache; the contexts' paths."""
    chance, then = random.Random(1), time.time() - 3600
    agents, cache = root / "state/agents", root / "prompts/cache"
    agents.mkdir(parents=True)
    cache.mkdir(parents=True)
    blank = contexts.agent_id("blank")
    text = json.dumps(contexts.context("blank", then, "filling"), ensure_ascii=False)
    made = []
    for number in range(size):
        agent = contexts.agent_id(str(number))
        filling = chance.randbytes(150).hex()
        path = agents / f"{agent}.json.gz"
        path.write_bytes(gzip.compress(text.replace(blank, agent).replace("filling", filling).encode(), 1))
        os.utime(path, (then, then))
        made.append(path)
    for number in range(size // 10):
        path = cache / f"{number:032x}.json"
        path.write_bytes(b"x" * 300)
        at = time.time() - (30 if number % 2 else 1) * DAY
        os.utime(path, (at, at))
    return made


def change(files: list[Path], count: int) -> None:
    """Save so many contexts anew, each with another content, an hour ago."""
    for path in random.sample(files, count):
        value = json.loads(gzip.decompress(path.read_bytes()))
        value["metadata"] = {"changed": random.randbytes(100).hex()}
        at = path.stat().st_mtime + 1
        path.write_bytes(gzip.compress(json.dumps(value).encode(), 1))
        os.utime(path, (at, at))


def cost(command: list[str], base: Path) -> tuple[float, float]:
    """Seconds of a command that must succeed, and the most memory that one process of it had, in MiB."""
    environ = {**os.environ, "HOME": str(base)}
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return taken, usage.ru_maxrss / 1024


def peak_mib(pid: int) -> float:
    """The most memory that a process has had so far, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def lines(found: dict[int, dict[str, tuple[float, float]]]) -> Iterator[Line]:
    """The same for the page: seconds and memory of each step, with the floor of some."""
    for size, steps in found.items():
        for name, (seconds, mib) in steps.items():
            if name not in FLOORS.values():
                floor = FLOORS.get(name)
                values = {"ours": [seconds], **({floor: [steps[floor][0]]} if floor else {})}
                yield Line(name, "s", values, floors=(floor,) if floor else (), size=size)
                yield Line(f"{name}: peak of memory", "MiB", {"ours": [mib]}, size=size)


def exponents(found: dict[int, dict[str, tuple[float, float]]]) -> dict[str, float]:
    """How each step grows between the largest two sizes."""
    if len(found) < 2:
        return {}
    less, more = sorted(found)[-2:]
    return {name: math.log(found[more][name][0] / found[less][name][0]) / math.log(more / less) for name in found[more]}


def show(found: dict[int, dict[str, tuple[float, float]]], slopes: dict[str, float]) -> None:
    """One row a step: seconds and MiB for each size, and the exponent."""
    print(f"{'s (MiB)':32}" + "".join(f"{size:>20,}" for size in found) + f"{'exponent':>10}")
    for name in next(iter(found.values())):
        cells = (f"{figures[name][0]:.2f} ({figures[name][1]:.0f})" for figures in found.values())
        slope = f"{slopes[name]:.2f}" if slopes else ""
        print(f"{name:32}" + "".join(f"{cell:>20}" for cell in cells) + f"{slope:>10}")


if __name__ == "__main__":
    sys.exit(main())
