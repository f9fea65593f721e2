"""The tools that `snapshots.py` compares: what is run for each case, with everything at its default."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OURS, RESTIC, BORG, TAR = "ours", "restic", "borg", "tar, zstd"
FIRST, NOTHING, CHANGED, PRUNE, CHECK, CHECK_DATA, RESTORE = (
    "first", "nothing", "changed", "prune", "check", "check-data", "restore",
)  # fmt: skip
CASES = {
    FIRST: "first backup",
    NOTHING: "nothing changed",
    CHANGED: "1 % changed",
    PRUNE: "forget, prune",
    CHECK: "check",
    CHECK_DATA: "check with data",
    RESTORE: "restore",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One command: its arguments, what its environment has besides, and the directory (it is made) where it starts."""

    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None


Tool = Callable[[str, Path], list[Run]]
"""The commands of a case (or of `init` and `version`), for a tool whose own directory is given."""


def ours(case: str, own: Path, source: Path) -> list[Run]:
    """This project: settings in a file that names the repository, all else at its default."""
    config = own / "datad.toml"
    if case == "init":
        text = f'root_data_dir = "{source}"\ndaemon_dir = "{own}/datad"\nbackup_count = 100\n'
        config.write_text(f'{text}[backup]\nrepository = "{own}/repository"\n')
    words = {
        "init": ["repository", "init"],
        "version": ["--version"],
        **{case: ["backup"] for case in (FIRST, NOTHING, CHANGED)},
        PRUNE: ["prune"],
        CHECK: ["verify"],
        CHECK_DATA: ["verify", "--read-data"],
        RESTORE: ["restore", "latest", "--target", f"{own}/restored"],
    }
    environment = {"SYMBIONT_DATAD_BACKUP_COUNT": "1"} if case == PRUNE else {}
    options = [] if case == "version" else ["--config", str(config)]
    return [Run([sys.executable, "-m", "symbiont_datad", *options, *words[case]], environment)]


def restic(case: str, own: Path, source: Path) -> list[Run]:
    """restic with its cache, quiet, as it is run from a timetable."""
    words = {
        "init": ["init"],
        "version": ["version"],
        **{case: ["backup", str(source)] for case in (FIRST, NOTHING, CHANGED)},
        PRUNE: ["forget", "--keep-last", "1", "--prune"],
        CHECK: ["check"],
        CHECK_DATA: ["check", "--read-data"],
        RESTORE: ["restore", f"latest:{source}", "--target", f"{own}/restored"],
    }
    environment = {
        "RESTIC_PASSWORD": "bench",
        "RESTIC_REPOSITORY": f"{own}/repository",
        "RESTIC_CACHE_DIR": f"{own}/cache",
    }
    return [Run([restic_path(), "-q", *words[case]], environment)]


def restic_path() -> str:
    """The restic that is measured."""
    return os.environ.get("DATAD_RESTIC") or shutil.which("restic") or "restic"


def borg(case: str, own: Path, source: Path) -> list[Run]:
    """borg with the nearest that it has: encryption, zstd at level 3."""
    repository = f"{own}/repository"
    words = {
        "init": [["init", "--encryption", "repokey", repository]],
        "version": [["--version"]],
        **{
            case: [["create", "--compression", "zstd,3", f"{repository}::{case}", "."]]
            for case in (FIRST, NOTHING, CHANGED)
        },
        PRUNE: [["prune", "--keep-last", "1", repository], ["compact", repository]],
        CHECK: [["check", repository]],
        CHECK_DATA: [["check", "--verify-data", repository]],
        RESTORE: [["extract", f"{repository}::{CHANGED}"]],
    }
    directory = {FIRST: source, NOTHING: source, CHANGED: source, RESTORE: own / "restored"}.get(case)
    environment = {"BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": f"{own}/home"}
    return [Run(["borg", *one], environment, directory) for one in words[case]]


def tar(case: str, own: Path, source: Path) -> list[Run]:
    """The floor: everything read and packed once, everything unpacked; it knows of nothing that it has seen before."""
    archive = f"{own}/repository/all.tar.zst"
    words = {
        "init": ["mkdir", f"{own}/repository"],
        "version": ["zstd", "--version"],
        FIRST: ["sh", "-c", 'tar -C "$1" -cf - . | zstd -3 -T0 -q -o "$2" && sync "$2"', "sh", str(source), archive],
        RESTORE: ["sh", "-c", 'mkdir "$2" && zstd -dq "$1" -c | tar -C "$2" -xf -', "sh", archive, f"{own}/restored"],
    }
    return [Run(words[case])] if case in words else []


TOOLS = {OURS: ours, RESTIC: restic, BORG: borg, TAR: tar}


def commands(tool: str) -> Iterator[tuple[str, str]]:
    """What is run for each case."""
    for case in CASES:
        if case not in (NOTHING, CHANGED):
            for run in TOOLS[tool](case, Path("OWN"), Path("DATA")):
                first, *further = run.command
                if first == sys.executable:
                    first, further = "symbiont-datad", further[2:]
                yield case, " ".join([Path(first).name, *further])
