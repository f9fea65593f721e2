"""A migration against `cp -a` and `sha256sum` of both sides: 50,000 contexts in one flat directory, on this disk.

    python bench/migrate.py [--directory DIR] [--files 50000] [--rounds 3] [--converted]

Each round makes a legacy directory twice, syncs, and lets each tool bring one over, in turns. `cp` and `sha256sum` are
told nothing of what a context is; ours also judges each, writes it down in a journal and a ledger, flushes everything
to the disk, and counts its whole life. With `--converted` the contexts are plain and compression is on, so that each is
packed as well. Run by hand: it takes some minutes.
"""

import argparse
import gzip
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import contexts

DAY = 86_400.0
WORDS = ["agent", "plan", "policy", "tool", "secret", "budget", "invoice", "customer", "retry", "cluster", "vector"]


def context(random: Random, number: int) -> bytes:
    """A whole context, with every kind of item, of 6 to 25 KB as the runtime writes them."""
    turns = [
        contexts.turn(1_790_000_000 + turn, " ".join(random.choices(WORDS, k=random.randint(5, 60))))
        for turn in range(random.randint(2, 40))
    ]
    return contexts.plain(contexts.context(f"agent {number}", conversation_history=turns))


def make(folder: Path, files: int, plain: bool) -> None:
    """A legacy directory with so many contexts; a few hundred different ones, each under many names."""
    folder.mkdir(parents=True)
    random, now = Random(1), time.time()
    bodies = [context(random, number) for number in range(300)]
    if not plain:
        bodies = [gzip.compress(body, mtime=0) for body in bodies]
    fd = os.open(folder, os.O_RDONLY)
    for number in range(files):
        name = f"{UUID(int=random.getrandbits(128), version=4)}.json{'' if plain else '.gz'}"
        file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
        os.write(file, bodies[number % len(bodies)])
        os.close(file)
        os.utime(name, (now - DAY - number, now - DAY - number), dir_fd=fd)
    os.close(fd)


class Took(NamedTuple):
    """Seconds by the clock, and of processor time."""

    clock_s: float
    cpu_s: float


def timed(command: list[str], base: Path, environment: dict[str, str]) -> Took:
    """How long a command took, with all the processes that it started."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=base)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(time.perf_counter() - started, cpu_s)


def ours(base: Path) -> Took:
    """What `symbiont-datad migrate` takes."""
    config = base / "datad.toml"
    config.write_text(f'root_data_dir = "{base}/ours/data"\n')
    environment = {**os.environ, "HOME": str(base / "home")}
    words = ["-m", "symbiont_datad", "--config", str(config), "migrate", "--from", str(base / "legacy-1"), "--yes"]
    return timed([sys.executable, *words], base, environment)


def theirs(base: Path) -> Took:
    """What `cp -a`, then `sha256sum` of both sides take."""
    command = (
        "cp -a legacy-2 theirs && find legacy-2 -type f -print0 | xargs -0 sha256sum >/dev/null "
        "&& find theirs -type f -print0 | xargs -0 sha256sum >/dev/null"
    )
    return timed(["sh", "-c", command], base, dict(os.environ))


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where; no tmpfs")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--converted", action="store_true")
    arguments = parser.parse_args()
    mine, peers = list[Took](), list[Took]()
    whole = Path(tempfile.mkdtemp(prefix="datad-bench-", dir=arguments.directory)).resolve()
    try:
        # All rounds stay until the end: ext4 is slow for minutes to make files where many were deleted.
        for number in range(arguments.rounds):
            base = whole / str(number)
            (base / "home").mkdir(parents=True)
            for name in ("legacy-1", "legacy-2"):
                make(base / name, arguments.files, plain=arguments.converted)
            for turn in [0, 1] if number % 2 else [1, 0]:
                os.sync()
                time.sleep(1)
                (mine if turn else peers).append(ours(base) if turn else theirs(base))
            brought = len(os.listdir(base / "ours" / "data" / "state" / "agents"))
            assert brought == arguments.files, brought
            times = [f"{one.clock_s:.2f} s ({one.cpu_s:.2f} s of processor time)" for one in (mine[-1], peers[-1])]
            print(f"round {number + 1}: migrate {times[0]}, cp and sha256sum {times[1]}", flush=True)
    finally:
        shutil.rmtree(whole)
    print(f"\n{arguments.files:,} contexts{', converted' if arguments.converted else ''}; median of {arguments.rounds}")
    theirs_took, ours_took = ([median(column) for column in zip(*side, strict=True)] for side in (peers, mine))
    for name, (clock_s, cpu_s) in (("cp -a, sha256sum of both sides", theirs_took), ("migrate", ours_took)):
        print(f"{name:32}{clock_s:7.2f} s   {clock_s / theirs_took[0]:.2f}   {cpu_s:7.2f} s of processor time")


if __name__ == "__main__":
    main()
