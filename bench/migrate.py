"""A migration against `cp -a` and rsync, alone and with a look at what came: 50,000 contexts in one flat directory.

    python bench/migrate.py [--directory DIR] [--files 50000] [--rounds 3] [--converted]

Each round makes a legacy directory, syncs, and lets each tool bring it over, in turns. The peers are told nothing of
what a context is; ours also judges each, writes it down in a journal and a ledger, flushes everything
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

from bench.figures import Figures, Line, keep
from bench.machine import remove
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
    words = ["-m", "symbiont_datad", "--config", str(config), "migrate", "--from", str(base / "legacy"), "--yes"]
    return timed([sys.executable, *words], base, environment)


_SUMS = " && ".join(f"find {place} -type f -print0 | xargs -0 sha256sum >/dev/null" for place in ("legacy", "{0}"))
OURS = "migrate"
FLUSHED = 10_000
"""rsync waits for the disk at each file: of more files it would take many minutes."""
PEERS = {
    "cp -a": "cp -a legacy {0}",
    "rsync -a": "rsync -a legacy/ {0}/",
    "cp -a, sha256sum of both sides": f"cp -a legacy {{0}} && {_SUMS}",
    "rsync -a --fsync, rsync -anc": "rsync -a --fsync legacy/ {0}/ && rsync -anc legacy/ {0}/",
}


def theirs(base: Path, name: str) -> Took:
    """What a peer takes."""
    place = f"theirs-{list(PEERS).index(name)}"
    took = timed(["sh", "-c", PEERS[name].format(place)], base, dict(os.environ))
    assert len(os.listdir(base / place)) == len(os.listdir(base / "legacy"))
    return took


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where; no tmpfs")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--converted", action="store_true")
    arguments = parser.parse_args()
    missing = [] if shutil.which("rsync") else ["rsync"]
    peers = [name for name in PEERS if not (missing and name.startswith("rsync"))]
    names = [OURS, *(name for name in peers if "--fsync" not in name or arguments.files <= FLUSHED)]
    took: dict[str, list[Took]] = {name: [] for name in names}
    whole = Path(tempfile.mkdtemp(prefix="datad-bench-", dir=arguments.directory)).resolve()
    try:
        # All rounds stay until the end: ext4 is slow for minutes to make files where many were deleted.
        for number in range(arguments.rounds):
            base = whole / str(number)
            (base / "home").mkdir(parents=True)
            make(base / "legacy", arguments.files, plain=arguments.converted)
            for turn in range(len(names)):
                name = names[(number + turn) % len(names)]
                os.sync()
                time.sleep(1)
                took[name].append(ours(base) if name == OURS else theirs(base, name))
            brought = len(os.listdir(base / "ours" / "data" / "state" / "agents"))
            assert brought == arguments.files, brought
            print(
                f"round {number + 1}: {', '.join(f'{name} {took[name][-1].clock_s:.2f} s' for name in names)}",
                flush=True,
            )
    finally:
        remove(whole)
    print(f"\n{arguments.files:,} contexts{', converted' if arguments.converted else ''}; median of {arguments.rounds}")
    for name in names:
        clock_s, cpu_s = (median(column) for column in zip(*took[name], strict=True))
        share = clock_s / median(one.clock_s for one in took["cp -a"])
        print(f"{name:32}{clock_s:7.2f} s   {share:.2f}   {cpu_s:7.2f} s of processor time")
    clocks = {name: [one.clock_s for one in took[name]] for name in names}
    commands = {OURS: "symbiont-datad migrate --from legacy --yes"}
    commands |= {name: PEERS[name].format("new") for name in names if name in PEERS}
    keep(Figures([Line("contexts brought over", "s", clocks, (OURS,), (), arguments.files)], commands, missing=missing))


if __name__ == "__main__":
    main()
