"""Snapshots against restic and borg: time, processor time, memory and size, on the same files, in turns.

    .venv/bin/python bench/snapshots.py [--rounds 5] [--scale 1.0] [--only CASE…] [--peer NAME…] [--work DIR] [--json]

The files: 60,000 contexts as the runtime writes them with compression off, in one flat directory, and 8 × 64 MiB of
vectors, which hardly compress; `--scale 0.2` makes a fifth of each. What is run is what users type, with everything at
its default. restic is `DATAD_RESTIC` (a path), or the one in PATH; it keeps a cache, as borg does.

A round makes new repositories and goes through the cases in order, each with one tool after the other; who begins
changes from round to round. All files are in the page cache, and what the tool before wrote is on disk before the next
one starts. In a first round that is not timed, memory is measured (the proportional set sizes of the tool's whole
process tree, every 20 ms; looking so often costs time), and what was restored is compared with the source. A ratio is
the median of the rounds' own ratios. Where peers are measured, at full size, exit code 1 says that a bar was missed.
"""

import argparse
import compileall
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import symbiont_datad

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.archivers import (  # noqa: E402
    BORG,
    CASES,
    CHANGED,
    CHECK,
    CHECK_DATA,
    FIRST,
    NOTHING,
    OURS,
    PRUNE,
    RESTIC,
    RESTORE,
    TAR,
    TOOLS,
    Run,
    commands,
    restic_path,
)  # fmt: skip
from bench.corpus import CONTEXTS, change, differences, files_below, make  # noqa: E402
from bench.figures import Figures, Line, keep  # noqa: E402

LONGEST_S = 900.0
SAMPLE_S = 0.02
NOT_OURS = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
"""What may be set where programs are developed, and slows one down that is installed."""
SETTLE_S = 2.5
"""So old a change has to be before a tool trusts that there was no other one after it."""

BARS = {FIRST: 0.8, NOTHING: 0.2, CHANGED: 0.3, PRUNE: 0.8, CHECK_DATA: 1.0, RESTORE: 0.7}
"""The share of restic's time that is allowed."""
SIZE_BAR, MEMORY_BAR = 1.02, 1.0
NEEDS = {
    NOTHING: {FIRST},
    CHANGED: {FIRST},
    PRUNE: {FIRST, CHANGED},
    CHECK: {FIRST},
    CHECK_DATA: {FIRST},
    RESTORE: {FIRST, CHANGED},
}


# Measuring


@dataclass(frozen=True, slots=True)
class Cost:
    """What commands cost: seconds, seconds of processor time with all child processes, and peak of memory in bytes.

    The peak is 0 where nobody looked.
    """

    wall_s: float
    cpu_s: float
    peak: int


class Sampler(threading.Thread):
    """Looks at the memory of a process and its descendants until told to stop; `peak` is the largest sum in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.peak = 0

    def run(self) -> None:
        """Look until stopped."""
        while not self._over.wait(SAMPLE_S):
            self.peak = max(self.peak, sum(map(_pss, _family(self._pid))))

    def stop(self) -> None:
        """End the looking."""
        self._over.set()
        self.join()


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _family(int(child))
    except OSError:  # it has ended
        return


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def measure(runs: Iterable[Run], log: Path, *, memory: bool = False) -> Cost:
    """Run commands, one after the other; what they say goes to the log. Raises SystemExit for one that fails."""
    wall = cpu = 0.0
    peak = 0
    for run in runs:
        environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS} | run.environment
        if run.directory:
            run.directory.mkdir(exist_ok=True)
        with log.open("ab") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                run.command, env=environment, cwd=run.directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
            sampler = Sampler(process.pid) if memory else None
            if sampler:
                sampler.start()
            timer = threading.Timer(LONGEST_S, os.killpg, (process.pid, signal.SIGKILL))
            timer.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            finally:
                wall += time.perf_counter() - started
                timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if sampler:
            sampler.stop()
            peak = max(peak, sampler.peak)
        cpu += usage.ru_utime + usage.ru_stime
        if process.returncode:
            raise SystemExit(f"{' '.join(run.command)}: exit code {process.returncode}\n{log.read_text()[-2000:]}")
    return Cost(wall, cpu, peak)


@dataclass(slots=True)
class Results:
    """What was measured, by tool: the costs of each case round by round, peaks of memory, sizes of the repository."""

    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    peaks: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)


def one_round(work: Path, tools: Sequence[str], cases: Sequence[str], number: int, results: Results) -> None:
    """All cases with all tools, in new repositories. Round 0 looks at memory instead of the clock."""
    source = work / "data"
    log = work / "log"
    for tool in tools:
        shutil.rmtree(work / tool, ignore_errors=True)
        (work / tool).mkdir()
        measure(TOOLS[tool]("init", work / tool, source), log)
    for case in cases:
        if case == CHANGED:
            change(source, number)
            time.sleep(SETTLE_S)
        for turn in range(len(tools)):
            tool = tools[(number + turn) % len(tools)]
            own = work / tool
            runs = TOOLS[tool](case, own, source)
            if not runs:
                continue
            os.sync()
            warm = source if case in (FIRST, NOTHING, CHANGED) else own / "repository"
            for path, _ in files_below(warm):
                (warm / path).read_bytes()  # some systems drop from their page cache what nobody has used for a while
            cost = measure(runs, log, memory=number == 0)
            print(f"round {number} {tool:7}{case:11}{cost.wall_s:8.2f} s{cost.cpu_s:8.2f} s CPU", file=sys.stderr)
            if number:
                results.costs.setdefault(tool, {}).setdefault(case, []).append(cost)
            else:
                results.peaks.setdefault(tool, {})[case] = cost.peak
            if case in (FIRST, PRUNE):
                results.sizes.setdefault(tool, {})[case] = size_of(own / "repository")
            if case == RESTORE:
                if number == 0 and tool != TAR and (found := differences(source, own / "restored")):
                    raise SystemExit(f"{tool}: {len(found)} files came back different: {', '.join(found[:5])}")
                # It goes when all is done: ext4 without a journal takes long to make a file where many were removed in
                # the last five minutes (fs/ext4/ialloc.c, "recently_deleted").
                (own / "restored").rename(Path(tempfile.mkdtemp(prefix="restored-", dir=work)) / tool)


def size_of(root: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(found.st_size for _, found in files_below(root))


# The report


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what each tool took, the ratio of ours to restic's, and the bar."""

    what: str
    figures: dict[str, str]
    ratio: float | None
    bar: float | None
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the ratio is above the bar."""
        return self.ratio is not None and self.bar is not None and self.ratio > self.bar

    def line(self, tools: Sequence[str]) -> str:
        """As a line of a Markdown table."""
        verdict = "" if self.bar is None or self.ratio is None else "**missed**" if self.missed else "ok"
        cells = [self.what, *(self.figures.get(tool, "–") for tool in tools)]
        cells += ["–" if self.ratio is None else f"{self.ratio:.2f}", f"≤ {self.bar}" if self.bar else "", verdict]
        return f"| {' | '.join([*cells, self.note])} |"


def rows(results: Results, cases: Sequence[str]) -> Iterator[Row]:
    """The lines of the report."""
    for case in cases:
        costs = {tool: found[case] for tool, found in results.costs.items() if case in found}
        figures = {tool: _spread([cost.wall_s for cost in found]) for tool, found in costs.items()}
        ratio = _ratio(costs, lambda cost: cost.wall_s)
        cpu = _ratio(costs, lambda cost: cost.cpu_s)
        yield Row(f"{CASES[case]}, s", figures, ratio, BARS.get(case), "" if cpu is None else f"CPU {cpu:.2f}")
    for case in cases:
        yield _bytes_row(
            f"{CASES[case]}, peak MiB",
            {tool: found[case] for tool, found in results.peaks.items() if case in found},
            MEMORY_BAR,
        )
    for case in (FIRST, PRUNE):
        if case in cases:
            sizes = {tool: found[case] for tool, found in results.sizes.items() if case in found}
            yield _bytes_row(f"repository after {CASES[case]}, MiB", sizes, SIZE_BAR)


def _bytes_row(what: str, found: dict[str, int], bar: float) -> Row:
    ratio = found[OURS] / found[RESTIC] if RESTIC in found else None
    return Row(what, {tool: f"{size / (1 << 20):.1f}" for tool, size in found.items()}, ratio, bar)


def _ratio(costs: dict[str, list[Cost]], of: Callable[[Cost], float]) -> float | None:
    if RESTIC not in costs:
        return None
    return median(of(a) / of(b) for a, b in zip(costs[OURS], costs[RESTIC], strict=True))


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def machine(work: Path) -> str:
    """One line about the machine."""
    model = next((line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    mounts = [line.split() for line in _lines("/proc/self/mounts")]
    place = max((m for m in mounts if f"{work}/".startswith(m[1].rstrip("/") + "/")), key=lambda m: len(m[1]))
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} × {model}, {memory} GiB, Linux {platform.release()}, {place[2]}, "
        f"Python {platform.python_version()}, load {load:.1f} at start"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def version(tool: str, work: Path) -> str:
    """What a tool says of its version. Raises SystemExit when it isn't there."""
    command = TOOLS[tool]("version", work, work)[0].command
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(" compiled")[0].strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{tool} can't be run: {error}; --peer chooses others") from None


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number and size of files")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--peer", nargs="+", choices=[RESTIC, BORG], default=[RESTIC, BORG])
    parser.add_argument("--work", type=Path, help="a directory for the files, which stay")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON document on stdout")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then too
    wanted = set(given.only or CASES)
    for case in tuple(wanted):
        wanted |= NEEDS.get(case, set())
    cases = [case for case in CASES if case in wanted]
    peers = [peer for peer in given.peer if shutil.which(restic_path() if peer == RESTIC else peer)]
    tools = [OURS, *peers, TAR]
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
    work = (given.work or Path(tempfile.mkdtemp(prefix="bench-snapshots-", dir="/var/tmp"))).resolve()
    try:
        versions = {tool: version(tool, work) for tool in tools}
        about = machine(work)
        compileall.compile_dir(Path(symbiont_datad.__file__).parent, quiet=1)  # as the installer of a package does
        if not (work / "data").exists():
            make(work / "data", given.scale)
            time.sleep(SETTLE_S)
        results = Results()
        for number in range(given.rounds + 1):
            one_round(work, tools, cases, number, results)
        found = list(rows(results, [case for case in cases if not given.only or case in given.only]))
        keep(
            Figures(
                list(lines(results, cases, round(CONTEXTS * given.scale))),
                {f"{tool}, {CASES[case]}": text for tool in tools for case, text in commands(tool)},
                missing=[peer for peer in given.peer if peer not in peers],
            )
        )
        if given.json:
            print(json.dumps(document(about, versions, given.rounds, results, found), indent=2))
        else:
            show(about, versions, given.rounds, found, tools, work)
    finally:
        for path in work.glob("restored-*") if given.work else [work]:
            shutil.rmtree(path)
    if any(row.missed for row in found) and given.scale >= 1:  # of fewer files a bar says nothing
        raise SystemExit(1)


def show(about: str, versions: dict[str, str], rounds: int, found: list[Row], tools: list[str], work: Path) -> None:
    """Print the tables, and what was run."""
    print(f"{about}\n{'; '.join(versions.values())}; median (least–most) of {rounds}\n")
    print(f"| {' | '.join(['', *tools, 'ratio', 'bar', '', ''])} |\n|{' --- |' * (len(tools) + 5)}")
    for row in found:
        print(row.line(tools))
    print("\nWhat was run:")
    for tool in tools:
        for case, text in commands(tool):
            print(f"  {CASES[case]:16}{text}")


def lines(results: Results, cases: Sequence[str], size: int) -> Iterator[Line]:
    """The same for the page."""
    for case in cases:
        times = {tool: [one.wall_s for one in found[case]] for tool, found in results.costs.items() if case in found}
        yield Line(CASES[case], "s", times, floors=(TAR,), size=size)
    for case in cases:
        peaks = {tool: [found[case] / 2**20] for tool, found in results.peaks.items() if case in found and tool != TAR}
        yield Line(f"{CASES[case]}: peak of memory", "MiB", peaks, size=size)
    for case in (FIRST, PRUNE):
        if case in cases:
            sizes = {tool: [found[case] / 2**20] for tool, found in results.sizes.items() if case in found}
            yield Line(f"repository after {CASES[case]}", "MiB", sizes, floors=(TAR,), size=size)


def document(about: str, versions: dict[str, str], rounds: int, results: Results, found: list[Row]) -> dict[str, Any]:
    """All figures. Times in seconds, sizes in bytes."""
    return {
        "machine": about,
        "versions": versions,
        "rounds": rounds,
        "wall_s": _by(results, lambda cost: cost.wall_s),
        "cpu_s": _by(results, lambda cost: cost.cpu_s),
        "peak_bytes": results.peaks,
        "repository_bytes": results.sizes,
        "rows": [{"what": row.what, "ratio": row.ratio, "bar": row.bar, "missed": row.missed} for row in found],
    }


def _by(results: Results, of: Callable[[Cost], float]) -> dict[str, dict[str, list[float]]]:
    return {
        tool: {case: [of(cost) for cost in costs] for case, costs in cases.items()}
        for tool, cases in results.costs.items()
    }


if __name__ == "__main__":
    main()
