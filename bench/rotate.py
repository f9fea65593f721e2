"""Rotation against logrotate's `copytruncate`, under a writer that holds its log open in append mode.

    .venv/bin/python bench/rotate.py [--directory DIR] [--rotations 25] [--rate 100000] [--size 64]

A process writes numbered lines, so many a second; each tool rotates its log so many times, as a fresh process each
time, and then all that is left is compared with what was written. After that, each rotates a log of `--size` MiB that a
process holds open and does not write to, `--rounds` times. The file system must be ext4 or xfs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figures, Line, keep
from tests.jobs.log_writing import archives_of, content_of, holding, line, until_larger, writing

_LOGROTATE = """
{log} {{
    copytruncate
    rotate 100000
    size 1
    {compress}
}}
"""
_SETTINGS = """
[logs]
rotate_at = 1
keep = "unlimited"
compress = "{compress}"
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to rotate a log: its name, how to prepare a directory, the command, and all archives, the oldest first."""

    name: str
    prepare: Callable[[Path], Path]
    command: Callable[[Path], list[str]]
    archives: Callable[[Path], list[Path]]


def _our_log(compress: str) -> Callable[[Path], Path]:
    def prepare(base: Path) -> Path:
        log = base / "data/logs/agents/a.log"
        log.parent.mkdir(parents=True)
        (base / "datad.toml").write_text(_SETTINGS.format(compress=compress))
        return log

    return prepare


def _our_command(base: Path) -> list[str]:
    command = [sys.executable, "-m", "symbiont_datad", "--config", str(base / "datad.toml"), "--root"]
    return [*command, str(base / "data"), "rotate", "--json"]


def _their_log(compress: str) -> Callable[[Path], Path]:
    def prepare(base: Path) -> Path:
        log = base / "logs/a.log"
        log.parent.mkdir(parents=True)
        (base / "logrotate.conf").write_text(_LOGROTATE.format(log=log, compress=compress))
        (base / "logrotate.conf").chmod(0o644)
        return log

    return prepare


def _their_command(base: Path) -> list[str]:
    return ["logrotate", "-f", "-s", str(base / "state"), str(base / "logrotate.conf")]


def _their_archives(log: Path) -> list[Path]:
    found = [path for path in log.parent.iterdir() if path.name.startswith(f"{log.name}.")]
    return sorted(found, key=lambda path: -int(path.name.removesuffix(".gz").rpartition(".")[2]))


OURS, THEIRS = ("rotate", "rotate, zstd"), ("logrotate copytruncate", "logrotate copytruncate, gzip")
COMMANDS = {OURS[0]: "symbiont-datad rotate", THEIRS[0]: "logrotate -f CONF (copytruncate, rotate 100000, size 1)"}
TOOLS = (
    Tool("rotate", _our_log("none"), _our_command, archives_of),
    Tool("rotate, zstd", _our_log("zstd"), _our_command, archives_of),
    Tool("logrotate copytruncate", _their_log("nocompress"), _their_command, _their_archives),
    Tool("logrotate copytruncate, gzip", _their_log("compress"), _their_command, _their_archives),
)


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of a stream: lines written, missing, there twice, and torn or glued; seconds a rotation took."""

    written: int
    missing: int
    twice: int
    torn: int
    times: list[float]

    @property
    def seconds(self) -> float:
        """The median."""
        return median(self.times)


def under_a_writer(tool: Tool, base: Path, rotations: int, rate: float) -> Loss:
    """Rotate again and again while a process writes."""
    log = tool.prepare(base)
    took = []
    with writing(log, rate=rate) as writer:
        for _ in range(rotations):
            until_larger(log, 100_000)
            took.append(timed(tool.command(base)))
        count = writer.stop()
    found = b"".join(map(content_of, [*tool.archives(log), log])).split(b"\n")
    expected = {line(number).rstrip(b"\n"): number for number in range(count)}
    numbers = [expected.get(one) for one in found if one.strip()]
    known = [number for number in numbers if number is not None]
    return Loss(count, count - len({*known}), len(known) - len({*known}), numbers.count(None), took)


def while_idle(tool: Tool, base: Path, size: int) -> float:
    """Seconds that it takes to rotate a large log that a process holds open."""
    log = tool.prepare(base)
    pattern = b"".join(map(line, range(20_000)))
    with log.open("wb") as file:
        while file.tell() < size:
            file.write(pattern)
    os.sync()
    with holding(log):
        return timed(tool.command(base))


def timed(command: list[str]) -> float:
    """Seconds that a process lived. One that fails ends the benchmark."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    took = time.perf_counter() - started
    if done.stdout.startswith("{"):
        assert json.loads(done.stdout)["findings"] == [], done.stdout
    return took


@contextmanager
def fresh(directory: Path) -> Iterator[Path]:
    """A new directory, for as long as the block runs."""
    base = Path(tempfile.mkdtemp(prefix="datad-bench-", dir=directory)).resolve()
    try:
        yield base
    finally:
        shutil.rmtree(base)


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where; ext4 or xfs")
    parser.add_argument("--rotations", type=int, default=25)
    parser.add_argument("--rate", type=float, default=100_000)
    parser.add_argument("--size", type=int, default=64, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    loss: dict[str, Loss] = {}
    idle: dict[str, list[float]] = {tool.name: [] for tool in TOOLS}

    for tool in TOOLS:
        with fresh(given.directory) as base:
            loss[tool.name] = under_a_writer(tool, base, given.rotations, given.rate)
    for _ in range(given.rounds):
        for tool in TOOLS:
            with fresh(given.directory) as base:
                idle[tool.name].append(while_idle(tool, base, given.size << 20))
    print(f"{given.rotations} rotations under {given.rate:,.0f} lines a second; then {given.size} MiB, held open")
    print(f"{'':30}{'written':>11}{'missing':>9}{'twice':>7}{'torn':>6}{'s each':>8}{f'{given.size} MiB s':>10}")
    for name, one in loss.items():
        figures = f"{one.written:>11,}{one.missing:>9,}{one.twice:>7,}{one.torn:>6,}{one.seconds:>8.2f}"
        print(f"{name:30}{figures}{median(idle[name]):>10.2f}")
    keep(Figures(lines_of(loss, idle, given.size), COMMANDS))


def lines_of(loss: dict[str, Loss], idle: dict[str, list[float]], size: int) -> list[Line]:
    """The same for the page: what writes archives as they are, and what compresses them."""
    made = []
    for ours, theirs, how in ((OURS[0], THEIRS[0], "as they are"), (OURS[1], THEIRS[1], "compressed")):
        both = (ours, theirs)
        lost = {who: [loss[who].missing / loss[who].written * 1e6] for who in both}
        made += [
            Line(f"lost of a million lines, archives {how}", "lines", lost, (ours,)),
            Line(
                f"torn or twice, archives {how}",
                "lines",
                {who: [loss[who].torn + loss[who].twice] for who in both},
                (ours,),
            ),
            Line(f"a rotation under the writer, {how}", "s", {who: loss[who].times for who in both}, (ours,)),
            Line(f"a log of {size} MiB, {how}", "s", {who: idle[who] for who in both}, (ours,)),
        ]
    return made


if __name__ == "__main__":
    main()
