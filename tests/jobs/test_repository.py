"""The repository is made once, never in the place of one that is away, and each failure has its own exit code."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.errors import DatadError, ExitCode, Locked, NoRepository, Unusable, WrongPassword
from symbiont_datad.fsops.process import this_process
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.repository import identity, locked, made, opened, opened_or_made, told
from symbiont_datad.ledger import Ledger
from symbiont_datad.restic import errors as restic
from symbiont_datad.restic.lock import hold
from tests.conftest import AsNobody
from tests.jobs.making import ledger_of, settings_for, snapshots_in
from tests.support import NOBODY


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """An empty tree, and no repository yet."""
    return settings_for(tmp_path)


def begin(settings: JobSettings) -> str:
    """The id of the repository, which is made if need be."""
    with ledger_of(settings) as ledger:
        return opened_or_made(settings, ledger).config.id


def files_below(path: Path) -> list[str]:
    """Every file below a directory."""
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_it_is_made_once(settings: JobSettings, tmp_path: Path) -> None:
    """The first call makes it, for nobody but its owner; the second opens the same."""
    first = begin(settings)
    assert 0o700 == (tmp_path / "backups").stat().st_mode & 0o7777
    assert first == begin(settings) == opened(settings.repository).config.id


def test_one_that_is_lost_is_not_made_again(settings: JobSettings, tmp_path: Path) -> None:
    """Where there was one before, an empty directory is a disk that is not mounted, and nothing is written to it."""
    found = begin(settings)
    (tmp_path / "backups").rename(tmp_path / "away")
    (tmp_path / "backups").mkdir()
    with pytest.raises(NoRepository, match="is its disk mounted") as raised:
        begin(settings)
    assert ExitCode.NO_REPOSITORY is raised.value.exit_code
    assert [] == os.listdir(tmp_path / "backups")
    (tmp_path / "backups").rmdir()
    (tmp_path / "away").rename(tmp_path / "backups")
    assert found == begin(settings)


def test_another_place_has_a_repository_of_its_own(settings: JobSettings, tmp_path: Path) -> None:
    """Only the place that is known is expected to have one."""
    first = begin(settings)
    assert first != begin(replace(settings, snapshots=snapshots_in(tmp_path / "other")))


def test_without_a_ledger_none_is_made(settings: JobSettings, tmp_path: Path) -> None:
    """A ledger that can't be opened can't tell whether there was a repository; one that is there is used."""
    with Ledger(None) as ledger, pytest.raises(NoRepository):
        opened_or_made(settings, ledger)
    assert not (tmp_path / "backups").exists()
    found = made(settings.repository).config.id
    with Ledger(None) as ledger:
        assert found == opened_or_made(settings, ledger).config.id


def test_several_may_be_the_first(settings: JobSettings) -> None:
    """Sweep and backup begin at the same moment, and find one repository."""
    with ThreadPoolExecutor(4) as pool:
        assert 1 == len(set(pool.map(lambda _: begin(settings), range(4))))


def test_another_password_opens_nothing(settings: JobSettings, tmp_path: Path) -> None:
    """A wrong password is told apart from everything else, and changes nothing."""
    begin(settings)
    before = files_below(tmp_path / "backups")
    wrong = replace(settings, snapshots=snapshots_in(tmp_path / "backups", password="something else"))
    with pytest.raises(WrongPassword, match="repository key add") as raised:
        begin(wrong)
    assert ExitCode.WRONG_PASSWORD is raised.value.exit_code
    assert before == files_below(tmp_path / "backups")


def test_a_place_that_can_not_be_is_told(settings: JobSettings, tmp_path: Path) -> None:
    """Where a file stands in the way of the repository, one line says so."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unusable, match="not a directory"):
        begin(replace(settings, snapshots=snapshots_in(tmp_path / "file/backups")))


@pytest.mark.parametrize(
    ("error", "ours", "code"),
    [
        (restic.NoRepository("x"), NoRepository, 10),
        (restic.RepositoryLocked("x"), Locked, 11),
        (restic.WrongPassword("x"), WrongPassword, 12),
        (restic.Interrupted("x"), DatadError, 130),
        (restic.Damaged("x"), Unusable, 1),
        (restic.NoSpace("x"), Unusable, 1),
        (restic.Unavailable("x"), Unusable, 1),
        (restic.LockLost("x"), Unusable, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_failure_is_told_as_ours(error: Exception, ours: type[DatadError], code: int) -> None:
    """What goes wrong with a repository leaves this room as one of our own errors, with the exit code that belongs."""
    with pytest.raises(ours) as raised, told():
        raise error
    assert code == raised.value.exit_code


def test_a_lock_of_another_host_is_waited_for(settings: JobSettings) -> None:
    """A command fails at once with exit code 11; a job of the daemon waits until the other is done."""
    begin(settings)
    repository = opened(settings.repository)
    other = replace(identity(), hostname="another-host", namespace="another-boot")
    with hold(repository, other, exclusive=True, settle_s=0.0):
        with pytest.raises(Locked, match="another-host") as raised, told(), locked(repository):
            raise AssertionError("it was not refused")
        assert ExitCode.LOCKED is raised.value.exit_code
    with ThreadPoolExecutor(1) as pool:
        with hold(repository, other, exclusive=True, settle_s=0.0):
            waiting = pool.submit(lambda: _lock_and_go(settings))
            time.sleep(0.3)
            assert not waiting.done()
        assert waiting.result(10)


def _lock_and_go(settings: JobSettings) -> bool:
    with locked(opened(settings.repository), patience_s=10.0) as lock:
        return bool(lock.name)


def test_waiting_for_a_lock_ends_when_asked(settings: JobSettings) -> None:
    """A daemon that stops does not wait minutes for another host."""
    begin(settings)
    repository = opened(settings.repository)
    other = replace(identity(), hostname="another-host", namespace="another-boot")
    begun = time.monotonic()
    with (
        hold(repository, other, exclusive=True, settle_s=0.0),
        pytest.raises(restic.Interrupted),
        locked(repository, patience_s=60.0, stopping=lambda: True),
    ):
        raise AssertionError("it was not refused")
    assert 5.0 > time.monotonic() - begun


def test_a_process_is_told_from_all_others() -> None:
    """Pid, user and host are those of this process; where the system tells, the space of its pid has a name."""
    found = this_process()
    assert (os.getpid(), os.getuid(), os.getgid()) == (found.pid, found.uid, found.gid)
    assert "" not in (found.hostname, found.username)
    if Path("/proc/self/ns/pid").exists():
        assert str(Path("/proc/self/ns/pid").stat().st_ino) in found.namespace


def test_a_lock_that_was_lost_to_another_one_says_whose(settings: JobSettings) -> None:
    """That one was quicker: it is told as locked, and not as lost."""
    with pytest.raises(Locked, match="by somebody") as raised, told():
        raise restic.LockLost("lost") from restic.RepositoryLocked("locked by somebody")
    assert ExitCode.LOCKED is raised.value.exit_code


def test_where_none_can_be_made_it_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory that belongs to somebody else: one line says so, and another try is welcome."""
    settings = settings_for(open_path)
    settings.daemon_dir.mkdir()
    os.chown(settings.daemon_dir, NOBODY, NOBODY)

    def tried() -> str:
        try:
            return begin(settings)
        except Unusable as error:
            return str(error)

    assert "permission denied" in as_nobody(tried)
    assert not (open_path / "backups").exists()
