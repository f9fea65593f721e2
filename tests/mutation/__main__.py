"""`python -m tests.mutation`; see scripts/mutate."""

# ruff: noqa: T201  # a script prints

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

from tests.mutation.modules import MODULES, Module
from tests.mutation.workspace import function_of, prepare, sources

PROJECT = Path(__file__).resolve().parents[2]
PLACE = PROJECT / ".venv" / "mutation"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")

_MEMORY = 4 << 30  # a mutant that never stops may also take more and more


class Change(NamedTuple):
    """What a mutant is known by, whatever its number: the lines that it changes, before and after."""

    source: str
    function: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of the code, and how it ended: killed, timeout, survived, no tests, …; `diff` of those that live."""

    name: str
    source: str
    status: str
    diff: str = ""

    @property
    def change(self) -> Change:
        """The change itself."""
        lines = self.diff.splitlines()[3:]
        before = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
        after = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
        return Change(self.source, function_of(self.name), before, after)


def main() -> int:
    """Mutate what was asked for; 1 when something survived that is not known to be equivalent."""
    parser = argparse.ArgumentParser(
        prog="scripts/mutate", description="Breaks pure code, and sees whether a test notices."
    )
    parser.add_argument("module", nargs="*", help=f"which: {', '.join(MODULES)}; all, if none is named")
    parser.add_argument("--survivors", action="store_true", help="go on from the last run: what is new, and what lived")
    parser.add_argument("--show", action="store_true", help="run nothing; print what the last run found")
    given = parser.parse_args()
    unknown = set(given.module) - set(MODULES)
    if unknown:
        parser.error(f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    found: dict[str, list[Mutant]] = {}
    for name in given.module or MODULES:
        place, module = PLACE / name, MODULES[name]
        begun = time.monotonic()
        if not given.show:
            mutate(place, module, anew=not given.survivors)
        found[name] = list(results(place, module))
        print(f"{name}: {len(found[name])} mutants, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    known = equivalents()
    alive = [one for some in found.values() for one in some if one.diff and one.change not in known]
    for one in alive:
        print(f"\n{one.name}: {one.status}\n{one.diff}" if one.status != "not checked" else f"{one.name}: not checked")
    lived = {one.change for some in found.values() for one in some if one.diff}
    files = {source for name in found for source in sources(PLACE / name, MODULES[name])}
    for change in known - lived:
        if change.source in files:
            print(f"\nlisted as equivalent, but killed, or not there: {change}")
    print(f"\n{table(found, known)}")
    return 1 if alive else 0


def mutate(place: Path, module: Module, *, anew: bool) -> None:
    """Try all mutants of a module, or go on from the last run: those that are new or not reached, and survivors."""
    lived = {one.name for one in results(place, module) if one.diff}
    if anew:
        shutil.rmtree(place / "mutants", ignore_errors=True)
    prepare(place, PROJECT, module)
    run(place)
    again = [one.name for one in results(place, module) if one.diff and one.name in lived]
    if again and not anew:
        run(place, again)


def run(place: Path, mutants: Sequence[str] = ()) -> None:
    """Have mutmut make the mutants and try those that are new (or those named), one at a time."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *mutants]
    with (place / "log").open("wb") as log:
        ended = subprocess.run(command, cwd=place, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if ended.returncode:
        sys.exit(f"mutmut failed; {place / 'log'} says why")


def results(place: Path, module: Module) -> Iterator[Mutant]:
    """What became of the mutants in the last run; nothing, where there was none."""
    if not place.exists():
        return
    with chdir(place):
        for source in sources(place, module):
            meta = Path("mutants") / f"{source}.meta"
            codes = json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
            for name, code in codes.items():
                status = status_by_exit_code[code]
                diff = "" if status in ("killed", "timeout") else get_diff_for_mutant(name, path=source)
                yield Mutant(name, source, status, diff)


def equivalents() -> set[Change]:
    """The changes that are listed as changing nothing."""
    rows = tomllib.loads(EQUIVALENT.read_text()).get("equivalent", [])
    return {Change(row["source"], row["function"], row["before"], row["after"]) for row in rows if row["reason"]}


def table(found: dict[str, list[Mutant]], known: set[Change]) -> str:
    """The figures, as a table of Markdown."""
    lines = ["| module | mutants | killed | timed out | survived | equivalent | score |", "| --- |" + " ---: |" * 6]
    total: Counter[str] = Counter()
    for name, mutants in found.items():
        tally = Counter(_kind(one, known) for one in mutants)
        total += tally
        lines.append(_row(name, tally))
    return "\n".join([*lines, _row("all", total)])


def _kind(one: Mutant, known: set[Change]) -> str:
    if not one.diff:
        return one.status
    return "equivalent" if one.change in known else "survived"


def _row(name: str, tally: Counter[str]) -> str:
    caught, count = tally["killed"] + tally["timeout"], tally.total() - tally["equivalent"]
    figures = (tally.total(), tally["killed"], tally["timeout"], tally["survived"], tally["equivalent"])
    return f"| {name} | {' | '.join(map(str, figures))} | {caught / max(count, 1):.1%} |"


if __name__ == "__main__":
    os.nice(19)
    sys.exit(main())
