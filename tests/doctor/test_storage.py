"""The repository as the doctor sees it."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.doctor import storage
from symbiont_datad.doctor.storage import Failure, Storage
from symbiont_datad.jobs.context import JobSettings, job_settings
from symbiont_datad.jobs.repository import MARK, identity, opened
from symbiont_datad.jobs.secrets import Secrets
from symbiont_datad.ledger import Ledger
from symbiont_datad.quantities import Share
from symbiont_datad.restic.records import Lock, format_time
from symbiont_datad.settings import load
from tests.jobs.snapshotting import cheap_repository
from tests.support import AMPLE

NOW = 1_800_000_000.0
GOOD = Storage("/r", known=True, snapshots=3, newest=NOW - 60, free=90, total=100, expected=5)


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """Settings of a tree in a directory of its own."""
    root = tmp_path / "data"
    root.mkdir()
    return job_settings(load(overrides={"root_data_dir": str(root)}, environ={"HOME": str(tmp_path), **AMPLE}).settings)


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        pytest.param([], GOOD, id="good"),
        pytest.param([], Storage("/r", failure=Failure("no_repository", "none")), id="not made yet"),
        pytest.param(
            [("no_repository", "error")],
            Storage("/r", known=True, failure=Failure("no_repository", "none")),
            id="there was one",
        ),
        pytest.param(
            [("wrong_password", "error")], Storage("/r", failure=Failure("wrong_password", "no")), id="password"
        ),
        pytest.param([("stale_locks", "warning")], replace(GOOD, locks=2, stale=1), id="a left lock"),
        pytest.param([], replace(GOOD, locks=2), id="locks of those who work"),
        pytest.param([("unreadable_locks", "warning")], replace(GOOD, locks=1, unreadable=1), id="a broken lock"),
        pytest.param([("snapshots_unread", "error")], replace(GOOD, unread=1), id="a broken snapshot"),
        pytest.param([("snapshot_ahead", "warning")], replace(GOOD, newest=NOW + 9000), id="from the future"),
        pytest.param(
            [("no_room_for_backup", "error")], replace(GOOD, free=4, min_free=Share(percent=5)), id="too little room"
        ),
        pytest.param(
            [("no_room_for_backup", "warning")],
            replace(GOOD, free=12, expected=9, min_free=Share(percent=5)),
            id="room for one more",
        ),
        pytest.param([], replace(GOOD, free=None, total=None, expected=10**12), id="an object store"),
    ],
)
def test_judging(kinds: list[tuple[str, str]], seen: Storage) -> None:
    """Each finding says where, what and what to do."""
    found = storage.judge(seen, NOW).findings
    assert kinds == [(one.kind, one.severity) for one in found]
    assert all(one.path and one.detail and one.remedy for one in found)


def test_a_real_one(settings: JobSettings) -> None:
    """Not made yet, then open; a wrong password; gone although the ledger knows of it."""
    with Ledger(None) as ledger:
        seen = storage.look(settings, ledger)
        assert (False, "no_repository") == (seen.known, seen.failure and seen.failure.kind)
        repository = opened(cheap_repository(settings).repository)
        seen = storage.look(settings, ledger)
        assert (None, 0, 0) == (seen.failure, seen.snapshots, seen.locks)
        assert seen.free is not None
        other = replace(settings.repository, secrets=Secrets(False, Path("/none"), password="something else"))
        wrong = replace(settings, snapshots=replace(settings.snapshots, repository=other))
        seen = storage.look(wrong, ledger)
        assert seen.failure is not None
        assert "wrong_password" == seen.failure.kind
        ledger.update_marks({f"{MARK}/{settings.repository.location}": repository.config.id}, ())
        os.rename(settings.repository.location, f"{settings.repository.location}.away")
        assert ["no_repository"] == [one.kind for one in storage.judge(storage.look(settings, ledger), NOW).findings]


def test_locks_that_were_left(settings: JobSettings) -> None:
    """One of a process that is gone, one that can't be read; one of this process is none of them."""
    repository = opened(cheap_repository(settings).repository)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    me = identity()
    for pid in (int(gone.stdout), os.getpid()):
        lock = Lock(
            time=format_time(time.time()), exclusive=False, hostname=me.lock_hostname, username=me.username, pid=pid,
            uid=me.uid, gid=me.gid, namespace=me.namespace,
        )  # fmt: skip
        repository.write_lock(lock)
    Path(settings.repository.location, "locks", "ab" * 32).write_bytes(b"torn")
    with Ledger(None) as ledger:
        seen = storage.look(settings, ledger)
    assert (3, 1, 1) == (seen.locks, seen.stale, seen.unreadable)


def test_a_store_that_does_not_answer_is_not_waited_for(settings: JobSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and is silent: the probe ends, and says so."""
    with socket.create_server(("127.0.0.1", 0)) as server, Ledger(None) as ledger:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "A" * 12)
        away = replace(settings.repository, location="s3://bucket/prefix")
        silent = replace(settings, snapshots=replace(settings.snapshots, repository=away))
        seen = storage.look(silent, ledger, patience_s=0.1)
    assert seen.failure is not None
    assert "repository_slow" == seen.failure.kind


def test_a_key_that_is_missing_closes_the_repository(tmp_path: Path, settings: JobSettings) -> None:
    """What the settings lack is told as that."""
    given: dict[str, object] = {"root_data_dir": settings.layout.root, "enable_encryption": True}
    closed = job_settings(load(overrides=given, environ={"HOME": str(tmp_path), **AMPLE}).settings)
    with Ledger(None) as ledger:
        failure = storage.look(closed, ledger).failure
    assert failure is not None
    assert "repository_closed" == failure.kind


def test_a_ledger_that_can_not_be_read_knows_of_no_repository(tmp_path: Path, settings: JobSettings) -> None:
    """Nor how much a backup will need; the repository is looked at all the same."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
            db.execute("drop table usage")
            db.execute("drop table seen")
        found = storage.look(settings, ledger)
    assert (False, None, "no_repository") == (found.known, found.expected, found.failure and found.failure.kind)
