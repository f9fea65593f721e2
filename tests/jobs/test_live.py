"""Files that change while a backup reads them: what can't be copied whole is said, and versions are told apart."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbiont_datad.formats.sqlite import MAGIC
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.live import LiveFiles
from symbiont_datad.report import Outcome
from tests.formats.test_lance import manifest, message
from tests.jobs.collecting import lance_dataset, vector_table
from tests.jobs.making import run, settings_for, write
from tests.jobs.snapshotting import cheap_repository, held_by, snapshots

DB = "vector_db/collections/notes/db"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """An empty tree with a repository."""
    return cheap_repository(settings_for(tmp_path))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process is in the middle of a transaction that nobody may read beside."""
    code = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("pragma journal_mode = delete")
database.execute("begin exclusive")
print(flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"\n" == process.stdout.readline()
        yield
        process.communicate()


def test_a_damaged_database_is_told_of(settings: JobSettings) -> None:
    """There is no whole copy to be had: the snapshot says that it is incomplete, and the finding says why."""
    write(Path(settings.layout.root, DB), MAGIC + b"nonsense" * 1000)
    ran = run("backup", settings, now=time.time())
    assert [("torn_in_snapshot", DB)] == [(one.kind, one.path) for one in ran.report.findings]
    assert "SQLite can't copy it" in ran.report.findings[0].detail
    assert ["backup", "incomplete"] == snapshots(settings)[0][1].tags


def test_nobody_is_waited_for_once_it_is_to_stop(settings: JobSettings) -> None:
    """A database that is locked is waited for; asked to stop meanwhile, the backup ends, and nothing is saved."""
    path = vector_table(Path(settings.layout.root, DB))
    copies = settings.daemon_dir / "copies/backup"

    asked = threading.Event()

    def stopping() -> bool:
        if copies.is_dir() and any(copies.iterdir()):  # it is at it
            asked.set()
        return asked.is_set()

    with locked(path):
        report = run("backup", settings, now=time.time(), stopping=stopping).report
    assert (Outcome.INTERRUPTED, []) == (report.outcome, snapshots(settings))
    assert not copies.exists()
    assert Outcome.DONE == run("backup", settings, now=time.time()).report.outcome
    assert DB in held_by(settings, snapshots(settings)[0])


@pytest.fixture
def lacking(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Tells which of the four versions of the dataset at `tmp_path/dataset` lack something."""
    path = lance_dataset(tmp_path / "dataset", versions=4)
    live, fd = LiveFiles(tmp_path / "scratch", lambda: False), os.open(path, os.O_RDONLY)
    versions = live.versions(fd)
    yield lambda: sorted(number for number in range(1, 5) if name_of(number).encode() in live.lacking(fd, versions))
    os.close(fd)


def name_of(version: int) -> str:
    """What the manifest of a version is called."""
    return f"{2**64 - 1 - version:020}.manifest"


def test_a_version_that_is_gone_or_lacks_a_file_is_lacking(tmp_path: Path, lacking: Callable[[], list[int]]) -> None:
    """One that nobody understands lacks nothing as long as it is there; what a link leads to does not count."""
    path = tmp_path / "dataset"
    assert [] == lacking()
    (path / "data/1.lance").unlink()
    (path / "_versions" / name_of(2)).unlink()
    (path / "_versions" / name_of(3)).write_bytes(b"of another time")
    assert [1, 2] == lacking()
    (path / "data").rename(tmp_path / "elsewhere")
    (path / "data").symlink_to(tmp_path / "elsewhere")
    assert [1, 2, 4] == lacking()


def test_a_file_beside_the_directories_counts_as_well(tmp_path: Path, lacking: Callable[[], list[int]]) -> None:
    """Row ids of a fragment may lie in a file of the dataset's own directory."""
    path = tmp_path / "dataset"
    rows = message((6, message((1, b"rows.bin"))), (4, 1))
    (path / "_versions" / name_of(4)).write_bytes(manifest((2, rows), (3, 4)))
    assert [4] == lacking()
    (path / "rows.bin").write_bytes(b"1")
    assert [] == lacking()
