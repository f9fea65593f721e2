"""The cases of the page: which script measures what, in which pieces, and what it needs.

A piece is one run of a script. Its figures are kept by themselves, so that a long case can be measured when there is
time for it, and the page is made of what all pieces have left.
"""

import shutil
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """One run of a script: its arguments, those for `--quick`, and the minutes after which it is ended."""

    name: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    limit_min: float = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """What a script answers, and its pieces. `needs`: programs it can't do without; `peers`: those it can leave out."""

    title: str
    pieces: tuple[Piece, ...]
    needs: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The programs that are not there, and can't be done without."""
        return [program for program in self.needs if shutil.which(program) is None]


def _sizes(*rows: tuple[str, str, float], quick: tuple[str, ...], option: str = "--files") -> tuple[Piece, ...]:
    """A piece for each size: its name, its arguments but for the size, its limit. `--quick` has the first two only."""
    number = {"1k": 1000, "5k": 5000, "10k": 10_000, "50k": 50_000, "100k": 100_000, "1M": 1_000_000}
    few = [str(300 * 3**place) for place in range(2)]
    return tuple(
        Piece(
            name,
            (option, str(number[name]), *(word.replace("_", " ") for word in further.split())),
            (option, few[place], *quick) if place < len(few) else (),
            limit,
        )
        for place, (name, further, limit) in enumerate(rows)
    )


MILLION = "--rounds 1 --only find_-delete --only systemd-tmpfiles --only tmpreaper --only clean,_file_by_file"
"""Underscores are blanks. A tree of a million files for each tool: those that do the same."""

CASES = {
    "create": Case("Making a tree", (Piece("all", (), ("--rounds", "3"), 2.0),), ("systemd-tmpfiles",)),
    "repair": Case(
        "How long until a directory is right again",
        tuple(
            Piece(work, ("--while", work, "--rounds", "200"), ("--while", work, "--rounds", "9", "--files", "9999"), 5)
            for work in ("idle", "backup", "clean")
        ),
        ("gcc",),
        ("inotifywait", "incrond"),
    ),
    "appends": Case("A storm of appends to logs", (Piece("all", ("--seconds", "15"), ("--seconds", "2"), 3.0),)),
    "idle": Case("Nothing happens for ten minutes", (Piece("all", ("--seconds", "600"), ("--seconds", "3"), 13.0),)),
    "ready": Case("From exec to ready", (Piece("all", (), ("--starts", "1", "--sizes", "0", "500", "2000"), 4.0),)),
    "sweep": Case(
        "A sweep over contexts",
        _sizes(
            ("1k", "--rounds 5", 2.0), ("10k", "--rounds 5", 3.0), ("100k", "--rounds 1", 6.0),
            quick=("--rounds", "1"), option="--contexts",
        ),
        ("gzip",),
    ),
    "snapshots": Case(
        "Snapshots",
        (
            Piece("5%", ("--scale", "0.05", "--rounds", "3"), ("--scale", "0.005", "--rounds", "1"), 3.0),
            Piece("25%", ("--scale", "0.25", "--rounds", "3"), ("--scale", "0.01", "--rounds", "1"), 5.0),
            Piece("all", ("--rounds", "3"), (), 15.0),
        ),
        ("tar", "zstd"),
        ("restic", "borg"),
    ),
    "clean": Case(
        "Retention",
        _sizes(
            ("10k", "--rounds 3", 5.0), ("100k", "--rounds 2", 10.0), ("1M", MILLION, 20.0),
            quick=("--rounds", "1"),
        ),
        ("find",),
        ("systemd-tmpfiles", "tmpreaper"),
    ),
    "rotate": Case(
        "Rotation of logs",
        (Piece("all", ("--rotations", "15"), ("--rotations", "2", "--size", "2", "--rounds", "1"), 5.0),),
        ("logrotate",),
    ),
    "migrate": Case(
        "Migration",
        _sizes(("5k", "--rounds 3", 3.0), ("50k", "--rounds 2", 6.0), quick=("--rounds", "1")),
        ("cp", "sha256sum"),
        ("rsync",),
    ),
    "ledger": Case("Questions to a large ledger", (Piece("all", (), ("--rows", "20000", "--starts", "1"), 5.0),)),
    "scrapes": Case(
        "Scrapes of the metrics",
        (Piece("all", ("--seconds", "15"), ("--seconds", "2", "--rate", "100"), 3.0),),
        ("gcc",),
    ),
    "growth": Case(
        "From 1,000 to 1,000,000 contexts",
        _sizes(("1k", "", 2.0), ("10k", "", 3.0), ("100k", "", 6.0), ("1M", "", 25.0), quick=(), option="--sizes"),
        ("gzip", "tar", "zstd"),
    ),
}  # fmt: skip
