"""One holder for each agent, among threads and processes; agents don't wait for each other."""

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.errors import Locked, UnsafePath
from symbiont_datad.fsops import agent_lock
from symbiont_datad.fsops.agent_lock import LOCK, hold_agent
from tests.conftest import AsNobody


@pytest.fixture(params=["a byte for each agent", "one for all"])
def state(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The descriptor of a directory; once with the locks of systems that have none for a part of a file."""
    if request.param == "one for all":
        monkeypatch.setattr(agent_lock, "_SET", None)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def held(state: int, agent: str) -> bool:
    """Whether somebody holds an agent."""
    try:
        with hold_agent(state, agent, patience_s=0):
            return False
    except Locked:
        return True


def test_second_holder_is_refused(state: int, tmp_path: Path) -> None:
    """While the block runs, and not after it; the file stays, empty, and there is one for all agents."""
    with hold_agent(state, "a", patience_s=0):
        assert held(state, "a")
    assert not held(state, "a")
    assert ([LOCK], 0) == (os.listdir(tmp_path), (tmp_path / LOCK).stat().st_size)


def test_agents_are_apart(tmp_path: Path) -> None:
    """Who saves one agent does not keep others waiting."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with hold_agent(fd, "a", patience_s=0), hold_agent(fd, "b", patience_s=0):
        assert held(fd, "a")
        assert not held(fd, "c")
    os.close(fd)


def test_who_is_patient_gets_it(state: int) -> None:
    """A thread waits for another one."""
    order: list[str] = []

    def wait() -> None:
        with hold_agent(state, "a", patience_s=30):
            order.append("second")

    with hold_agent(state, "a", patience_s=0):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert ["first", "second"] == order


def test_a_lock_ends_with_its_holder(state: int) -> None:
    """A process that is killed holds nothing any more; one that is forked meanwhile does not hold on."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with hold_agent(state, "a", patience_s=0):
            os.write(theirs, b"!")
            time.sleep(60)
        os._exit(1)
    assert b"!" == os.read(ours, 1)
    assert held(state, "a")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not held(state, "a")
    with hold_agent(state, "a", patience_s=0):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(1)
    assert not held(state, "a")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
    os.close(theirs)


def test_an_exception_goes_through(state: int) -> None:
    """What the block raises is the caller's, FileNotFoundError too, and the lock is free."""
    with pytest.raises(FileNotFoundError, match="mine"), hold_agent(state, "a", patience_s=0):
        raise FileNotFoundError("mine")
    assert not held(state, "a")


@pytest.mark.parametrize("another", [False, True], ids=["gone", "replaced"])
def test_a_file_that_is_replaced_while_one_waits_is_no_lock(state: int, tmp_path: Path, another: bool) -> None:
    """Who waited for a lock on a file that a restore has moved away takes the new one's."""
    got: list[int] = []
    (tmp_path / "other").touch()

    def wait() -> None:
        with hold_agent(state, "a", patience_s=30):
            got.append((tmp_path / LOCK).stat().st_ino)

    with hold_agent(state, "a", patience_s=0):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        os.link(tmp_path / LOCK, tmp_path / "aside")
        if another:
            (tmp_path / "other").rename(tmp_path / LOCK)
        else:
            (tmp_path / LOCK).unlink()
    thread.join()
    assert [(tmp_path / LOCK).stat().st_ino] == got
    assert got != [(tmp_path / "aside").stat().st_ino]


@pytest.mark.parametrize(("above", "expected"), [(0o755, 0o600), (0o775, 0o660), (0o777, 0o666), (0o700, 0o600)])
def test_who_can_save_can_lock(tmp_path: Path, above: int, expected: int) -> None:
    """The file can be opened by those who can write to the directory."""
    tmp_path.chmod(above)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert not held(fd, "a")
    assert expected == stat.S_IMODE((tmp_path / LOCK).stat().st_mode)
    os.close(fd)


def test_it_can_be_shared(open_path: Path, as_nobody: AsNobody) -> None:
    """Root and another user, in a directory of that user's."""
    os.chown(open_path, 65534, 65534)
    fd = os.open(open_path, os.O_RDONLY)
    with hold_agent(fd, "a", patience_s=0):
        assert as_nobody(lambda: held(fd, "a"))
    assert not as_nobody(lambda: held(fd, "a"))
    (open_path / LOCK).unlink()
    assert not as_nobody(lambda: held(fd, "a"))  # who is not root makes it too
    found = (open_path / LOCK).stat()
    assert (65534, 0o600) == (found.st_uid, stat.S_IMODE(found.st_mode))
    assert not held(fd, "a")
    os.close(fd)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("planted", ["link", "fifo", "directory"])
def test_what_is_planted_is_refused(tmp_path: Path, planted: str) -> None:
    """A link is not followed, a FIFO not waited for."""
    place = tmp_path / LOCK
    match planted:
        case "link":
            place.symlink_to(tmp_path / "victim")
        case "fifo":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises((OSError, UnsafePath)):
        held(fd, "a")
    assert not (tmp_path / "victim").exists()
    os.close(fd)
