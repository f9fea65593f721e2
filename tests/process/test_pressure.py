"""A disk that fills up, with the real daemon: room is made in time, state is as it was, and the ledger is whole."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.process.running import Daemon, running, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
]

TIMES = int(os.environ.get("DATAD_FILL_TIMES", "8"))
"""So many times what the disk holds is written to it."""

SIZE = 60_000

WRITER = """
import os, sys, time
folder, files, size, patience = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
body, number, full = b'{"a": "' + b"x" * size + b'"}', 0, 0
end = time.monotonic() + 120
while number < files and time.monotonic() < end and not (patience and full > patience):
    try:
        fd = os.open(f"{folder}/{number:08}.json", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(fd, body)
        finally:
            os.close(fd)
        number += 1
    except OSError:
        full += 1
print(number)
"""
"""Writes files as fast as it can, and over a file that the full disk cut off."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(where)], check=True)
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def free(disk: Path) -> float:
    """The part of the disk that is free."""
    found = os.statvfs(disk)
    return found.f_bavail / found.f_blocks


def state_of(root: Path) -> dict[str, bytes]:
    """Everything below state."""
    return {str(path): path.read_bytes() for path in (root / "state").rglob("*") if path.is_file()}


def fill_state(root: Path) -> None:
    """Contexts and sessions as the runtime writes them."""
    for number in range(20):
        for folder in ("agents", "sessions"):
            path = root / "state" / folder / f"{number:08x}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"agent_id": number, "memory": "x" * 2000}))
            os.utime(path, (time.time() - 3600, time.time() - 3600))


def write(folder: Path, files: int, patience: int = 0) -> int:
    """Let the writer write so many files, or until the disk was full more often than its patience lasts (0: for ever);
    how many it wrote.
    """
    command = [sys.executable, "-c", WRITER, str(folder), str(files), str(SIZE), str(patience)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def settled(daemon: Daemon) -> None:
    """Wait for the end of the first run of each job."""

    def ended() -> bool:
        over = {one.get("job") for one in daemon.events() if one["event"] in ("job_finished", "job_left_something")}
        return {"usage", "clean", "sweep", "backup"} <= over and not daemon.children()

    until(ended, 60.0)


def rows_of(base: Path, *kinds: str) -> dict[str, list[tuple[str, str]]]:
    """The rows of the ledger by path: state and reason. The ledger itself has to be whole."""
    with closing(sqlite3.connect(base / "datad/ledger.db")) as db:
        assert [("ok",)] == db.execute("pragma integrity_check").fetchall()
        found: dict[str, list[tuple[str, str]]] = {}
        marks = ", ".join("?" * len(kinds))
        query = f"select path, state, reason from actions where kind in ({marks}) order by id"
        for path, state, reason in db.execute(query, kinds):
            found.setdefault(path, []).append((state, reason))
        return found


@pytest.mark.timeout(300)
def test_a_writer_at_full_speed(disk: Path, tmp_path: Path) -> None:
    """On 64 MiB with everything on it (tree, ledger, repository): the cache is trimmed while a writer fills it, state
    is byte for byte the same, repairs go on, every file that went has a row, and the daemon is well afterwards.
    """
    root = disk / "data"
    fill_state(root)
    with running(tmp_path, "guard.backoff_after = 1000000", root=root) as daemon:
        settled(daemon)
        before, cache = state_of(root), root / "prompts/cache"
        wanted = TIMES * (64 << 20) // SIZE
        written = write(cache, wanted)
        assert wanted == written
        daemon.wait_for_event("pressure_began", path=str(root))
        (root / "logs/audit").rmdir()
        until(daemon.is_right)
        until(lambda: free(disk) >= 0.1, 30.0)
        daemon.wait_for_event("room_made")
        until(lambda: not daemon.children(), 60.0)
        daemon.wait_for_event("pressure_ended", 60.0, path=str(root))
        assert before == state_of(root)
        assert daemon.is_right()
        assert not daemon.events("pressure_unrelieved")
        there = set(os.listdir(cache))
        rows = rows_of(disk, "file_removed")
        gone = {f"{number:08}.json" for number in range(written)} - there
        assert gone <= {path.rpartition("/")[2] for path in rows}
        for path, said in rows.items():
            assert all(state in ("done", "planned", "failed") for state, _ in said)
            assert any("the disk is nearly full" in reason for _, reason in said)
            assert path.rpartition("/")[2] not in there or said[-1][0] != "done"
        assert 0 == daemon.stop()


@pytest.mark.timeout(300)
def test_when_nothing_may_go_it_says_so_and_keeps_the_tree(disk: Path, tmp_path: Path) -> None:
    """A disk that is full of what no rule may touch: told once, with what would help; repairs go on."""
    root = disk / "data"
    fill_state(root)
    settings = "guard.backoff_after = 1000000\n[retention.cache]\nprotect = ['**']"
    with running(tmp_path, settings, root=root) as daemon:
        settled(daemon)
        before = state_of(root)
        write(root / "prompts/cache", 10_000, patience=100)
        told = daemon.wait_for_event("pressure_unrelieved", 60.0, path=str(root))
        assert "free space beside the tree" in told["reason"] or "a backup would let" in told["reason"]
        for _ in range(20):
            (root / "state/sessions").rename(root / "state/moved")
            until((root / "state/sessions").is_dir)
            (root / "state/sessions").rmdir()
            (root / "state/moved").rename(root / "state/sessions")
        until(daemon.is_right)
        assert 1 == len(daemon.events("pressure_unrelieved"))
        assert before == state_of(root)
        rows_of(disk, "file_removed")
        assert 0 == daemon.stop()
