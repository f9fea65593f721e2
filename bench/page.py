"""Runs the benchmarks one after the other and keeps their figures in docs/benchmarks.md.

    scripts/bench [--quick] [--list] [NAME…]

Each case is a script of its own in this directory. What it prints becomes its section of the page, with the command,
the day and the load of the machine when it began; sections of cases that were not run stay as they were. `--quick` uses
smaller sizes, to see that everything works, and writes nothing. Exit code 1: a case failed, missed a bar, or lacks a
peer.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/benchmarks.md"


@dataclass(frozen=True, slots=True)
class Case:
    """One script: what it answers, its arguments, those for `--quick`, and the programs that it can't do without."""

    title: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


CASES = {
    "create": Case("Making a tree", (), ("--rounds", "3"), ("systemd-tmpfiles",)),
    "repair": Case(
        "How long until a directory is right again", (), ("--rounds", "20"), ("gcc", "inotifywait", "taskset")
    ),
    "appends": Case("A storm of appends to logs", (), ("--seconds", "3")),
    "idle": Case("Nothing happens for ten minutes", ("--seconds", "600"), ("--seconds", "5")),
    "ready": Case("From exec to ready", (), ("--starts", "1")),
    "sweep": Case("A sweep over contexts", (), ("--contexts", "1000", "--rounds", "1"), ("gzip",)),
    "snapshots": Case("Snapshots", (), ("--scale", "0.02", "--rounds", "1"), ("borg",)),
    "clean": Case("Retention", (), ("--files", "3000", "--rounds", "1"), ("find", "systemd-tmpfiles")),
    "rotate": Case("Rotation of logs", (), ("--rotations", "2", "--size", "2", "--rounds", "1"), ("logrotate",)),
    "ledger": Case("A ledger with 1,000,000 rows", (), ("--rows", "20000", "--starts", "1")),
    "growth": Case("From 1,000 to 1,000,000 contexts", (), ("--sizes", "100", "1000")),
}


def main() -> int:
    """Run the cases; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="small sizes; the page is not written")
    parser.add_argument("--list", action="store_true", help="the cases, and nothing else")
    given = parser.parse_args()
    if unknown := set(given.names) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if given.list:
        print("\n".join(f"{name:12}{case.title}" for name, case in CASES.items()))
        return 0
    failed = []
    for name in given.names or CASES:
        case = CASES[name]
        missing = [program for program in case.needs if shutil.which(program) is None]
        if missing:
            print(f"== {name}: not run, {' and '.join(missing)} missing")
            failed.append(name)
            continue
        words = ["bench/" + name + ".py", *(case.quick if given.quick else case.full)]
        print(f"== {' '.join(words)}", flush=True)
        load, begun = os.getloadavg()[0], time.time()
        code, text = run(words)
        if code != 0:
            print(f"== {name}: ended with exit code {code}")
            failed.append(name)
        if text and not given.quick:
            keep(name, section(name, words, text, load, begun, code))
    return int(bool(failed))


def run(words: list[str]) -> tuple[int, str]:
    """Run a script, show what it prints as it comes, hand back its exit code and that."""
    lines = []
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line.rstrip())
    return process.returncode, "\n".join(lines).strip("\n")


def section(name: str, words: list[str], text: str, load: float, begun: float, code: int) -> str:
    """The section of a case, from its heading on."""
    at = datetime.fromtimestamp(begun, UTC)
    missed = "" if code == 0 else f" Exit code {code}: a bar was missed, or the case failed."
    facts = f"`{' '.join(words)}` on {at:%Y-%m-%d}, load {load:.1f} when it began.{missed}"
    return f"## {CASES[name].title}\n\n<!-- {name} -->\n{machine()}\n{facts}\n\n```text\n{text}\n```\n"


def machine() -> str:
    """The machine and the versions, in a line. No name of a host, no path."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kind = subprocess.run(["stat", "-f", "-c", "%T", "/var/tmp"], capture_output=True, text=True, check=True).stdout
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release().split('-')[0]}, {kind.strip()}, Python {platform.python_version()}."
    )


def keep(name: str, new: str) -> None:
    """Put a section in its place on the page; the order is that of the cases."""
    head, found = read()
    found[name] = new
    text = "\n".join([head, *(found[one] for one in CASES if one in found)])
    PAGE.write_text(text, encoding="utf-8")


HEAD = """# Benchmarks

Written by `scripts/bench`. Each section is what one script of `bench/` printed; what the scripts do, how they are to
be read, and what the figures say is in [bench/README.md](../bench/README.md). Ratios hold on other machines, absolute
figures don't.
"""


def read() -> tuple[str, dict[str, str]]:
    """The head of the page as it should be, and the sections that it has by now."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    named = {found[1]: one.rstrip("\n") + "\n" for one in sections if (found := re.search(r"<!-- (\w+) -->", one))}
    return HEAD, named


if __name__ == "__main__":
    sys.exit(main())
