"""What a benchmark ran on: the machine and the programs, in words. No name of a host, no path."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

WORK = "/var/tmp"
"""Where benchmarks make their files: a real disk."""


def described() -> str:
    """The machine in a line."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kind = _first(["findmnt", "-n", "-o", "FSTYPE", "-T", WORK])
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release().split('-')[0]}, {kind}, Python {platform.python_version()}"
    )


def remove(tree: Path) -> None:
    """Remove a tree of a million files: eight at a time, because some disks make each wait."""
    script = 'find "$1" -type f -print0 | xargs -0 -r -P 8 -n 500 rm -f; rm -rf "$1"'
    subprocess.run(["sh", "-c", script, "sh", str(tree)], check=True)


def versions(programs: Iterable[str]) -> dict[str, str]:
    """The versions of programs, as the system's packages have them, or as they say themselves; empty: not there."""
    found = {}
    for program in programs:
        path = os.environ.get("DATAD_RESTIC") if program == "restic" else None
        path = path or shutil.which(program)
        found[program] = _version(path, program) if path else ""
    return found


def _version(path: str, program: str) -> str:
    if program in ("restic", "borg"):
        word = "version" if program == "restic" else "--version"
        return " ".join(_first([path, word]).split()[1:2])
    real = os.path.realpath(path)
    names = (real, real.removeprefix("/usr"), f"/usr/sbin/{program}")  # packages name what was there before the merge
    owner = next(filter(None, (_first(["dpkg-query", "-S", name]) for name in names)), "")
    package = owner.partition(":")[0].partition(",")[0]
    version = _first(["dpkg-query", "-W", "-f", "${Version}", package]) if package else ""
    return version or " ".join(_first([path, "--version"]).split()[-1:])


def _first(command: list[str]) -> str:
    """The first line that a command prints; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()
