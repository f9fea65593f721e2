"""Snapshots by a daemon: on its timetable, told while they are made, interrupted, refused, and read by restic."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.process.running import COMMAND, Daemon, running, until
from tests.process.test_life import gone

OFTEN = 'auto_save_interval = 1\n[backup]\nschedule = "2s"\n[state]\nsettle = "0s"\n'
RARELY = 'auto_save_interval = "1h"\n'


def restic(base: Path, *arguments: str) -> str:
    """What restic says about the repository, which has no password."""
    found = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if found is None:
        pytest.skip("restic is not installed")
    # Older ones have no --insecure-no-password.
    version = subprocess.run([found, "version"], capture_output=True, text=True, timeout=60, check=True).stdout
    if tuple(map(int, version.split()[1].split(".")[:2])) < (0, 17):
        pytest.skip("this restic wants a password")
    command = [found, "--no-cache", "--insecure-no-password", "--repo", str(base / "backups"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def backing_up(daemon: Daemon) -> int:
    """The process of a backup, as soon as there is one."""

    def look() -> int:
        for pid in daemon.children():
            try:
                if b"child\0backup\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except FileNotFoundError:
                continue
        return 0

    return until(look)


@contextmanager
def a_locked_database(base: Path) -> Iterator[None]:
    """A database in the tree that can't be copied while the block runs: a backup waits for it."""
    path = base / "data/vector_db/metadata.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("create table t (n)")
        database.execute("begin exclusive")
        yield
        database.execute("rollback")


@pytest.mark.slow
def test_snapshots_on_the_timetable(tmp_path: Path) -> None:
    """A new daemon makes a backup at once, an autosave when state changes, and restic finds all of it whole."""
    with running(tmp_path, OFTEN) as daemon:
        daemon.wait_for_event("snapshot_created", job="backup")
        (daemon.root / "state/sessions/s.json").write_text("{}")
        daemon.wait_for_event("snapshot_created", job="sweep")
        daemon.wait_for_event("snapshot_created", job="backup", count=2)
        assert 1 == len(daemon.events("repository_created"))
        assert [] == daemon.events("job_failed")
        assert 3 <= len(daemon.recorded("snapshot_created"))
        assert 0 == daemon.stop()
    assert "no errors were found" in restic(tmp_path, "check", "--read-data")
    assert "state/sessions/s.json" in restic(tmp_path, "ls", "latest")


@pytest.mark.slow
def test_progress_is_told_and_a_hangup_survived(tmp_path: Path) -> None:
    """While a backup is under way, STATUS= says how far it is; the signal that `restic unlock` sends is survived."""
    logs = tmp_path / "data/logs/system"
    logs.mkdir(parents=True)
    for number in range(20):
        (logs / f"{number}.log").write_bytes(b"a line\n" * 1000)
    with running(tmp_path, RARELY, wait=False) as daemon:
        with a_locked_database(tmp_path):
            pid = backing_up(daemon)
            until(lambda: list((tmp_path / "backups").glob("locks/*")))
            os.kill(pid, signal.SIGHUP)
            told = re.compile(rb"running backup: ([0-9]+ %, )?20 files")
            until(lambda: [one for one in daemon.manager.datagrams if told.search(one)])
        assert 0 == daemon.wait_for_event("job_finished", job="backup")["count_torn"]


@pytest.mark.slow
def test_a_daemon_that_is_killed_loses_no_backup(tmp_path: Path) -> None:
    """kill -9 amid a backup: its process ends and leaves no lock, and the next daemon makes the backup."""
    with a_locked_database(tmp_path):
        with running(tmp_path, RARELY) as daemon:
            pid = backing_up(daemon)
            until(lambda: list((tmp_path / "backups").glob("locks/*")))
            daemon.stop(signal.SIGKILL)
        until(lambda: gone(pid), 30.0)  # before the database is free, or the backup might just end
    until(lambda: not [*(tmp_path / "backups").glob("locks/*"), *(tmp_path / "datad").glob("copies/*/*")])
    with running(tmp_path, RARELY) as daemon:
        daemon.wait_for_event("snapshot_created", job="backup")
    assert "no errors were found" in restic(tmp_path, "check", "--read-data")


@pytest.mark.slow
def test_a_repository_that_is_lost_is_said_and_not_made_again(tmp_path: Path) -> None:
    """Its disk is not mounted: the runs fail with a message, STATUS= warns, and the empty directory stays empty."""
    with running(tmp_path, OFTEN) as daemon:
        daemon.wait_for_event("job_finished", job="backup")
        daemon.stop()
    (tmp_path / "backups").rename(tmp_path / "away")
    (tmp_path / "backups").mkdir()
    with running(tmp_path, OFTEN) as daemon:
        failed = daemon.wait_for_event("job_failed", job="backup")
        assert "is its disk mounted?" in str(failed["reason"])
        until(lambda: [one for one in daemon.manager.datagrams if b"backup failed" in one], 20.0)
        assert [] == os.listdir(tmp_path / "backups")
        (tmp_path / "backups").rmdir()
        (tmp_path / "away").rename(tmp_path / "backups")
        daemon.wait_for_event("snapshot_created", job="backup")


def test_without_its_key_nothing_begins(tmp_path: Path) -> None:
    """With encryption on, a missing key is an error at start that names the setting; a reload to that is refused."""
    lost = f'enable_encryption = true\n[encryption]\nkey_file = "{tmp_path}/lost.key"\n'
    config = tmp_path / "lost.toml"
    config.write_text(lost)
    command = [*COMMAND, "--config", str(config), "--root", str(tmp_path / "other/data"), "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert 2 == done.returncode
    assert "encryption.key_file" in done.stderr
    assert not (tmp_path / "other/data").exists()
    with running(tmp_path, RARELY) as daemon:
        daemon.reload(lost)
        assert "encryption.key_file" in str(daemon.wait_for_event("settings_refused")["reason"])
