"""Locks between processes: one holder, known by its pid, gone with its process."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbiont_datad.errors import ExitCode, Locked
from symbiont_datad.fsops.lock import DirectoryLock, _flock_holder, hold, holder
from tests.conftest import AsNobody

HOLD = """
import sys, time
from pathlib import Path
from symbiont_datad.fsops.lock import DirectoryLock, hold
if sys.argv[1] == "file":
    context = hold(Path(sys.argv[2]), "held")
    context.__enter__()
else:
    lock = DirectoryLock(sys.argv[2], "held")
    lock.take()
print("holding", flush=True)
time.sleep(60)
"""


@contextmanager
def another(kind: str, path: Path) -> Iterator[int]:
    """Another process that holds the lock; it is killed at the end, which lets the lock go."""
    with subprocess.Popen([sys.executable, "-c", HOLD, kind, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert b"holding\n" == process.stdout.readline()
            yield process.pid
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    """Who comes second is told who is first; when that one is killed, the lock is free, and the file is still there."""
    path = tmp_path / "locks/keeper.lock"
    assert holder(path) is None
    with another("file", path) as pid:
        assert pid == holder(path)
        with pytest.raises(Locked, match=rf"busy \(process {pid}\)") as caught, hold(path, "busy"):
            pass
        assert (pid, ExitCode.LOCKED) == (caught.value.holder, caught.value.exit_code)
    assert holder(path) is None
    with hold(path, "busy"):
        assert os.getpid() == holder(path)
        assert f"{os.getpid()}\n" == path.read_text()
    assert (0o600, 0o700) == (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode))


def test_what_is_made_for_a_lock_is_closed(tmp_path: Path) -> None:
    """Its directory and the one above, which is the daemon's own, can be looked into by nobody else."""
    path = tmp_path / "datad/locks/keeper.lock"
    with hold(path, "busy"):
        assert [0o600, 0o700, 0o700] == [stat.S_IMODE(one.stat().st_mode) for one in (path, *path.parents[:2])]


def test_looking_never_refuses_a_taker(tmp_path: Path) -> None:
    """While others ask a thousand times a second who holds a lock, whoever wants it gets it."""
    path = tmp_path / "a.lock"
    path.write_text("")
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            holder(path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            with hold(path, "busy"):
                pass
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_lock_is_let_go_when_its_block_fails(tmp_path: Path) -> None:
    """An exception in the block frees the lock."""
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "a.lock", "busy"):
        raise ZeroDivisionError
    assert holder(tmp_path / "a.lock") is None


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Nothing is truncated or written through a link."""
    (tmp_path / "canary").write_bytes(b"mine")
    (tmp_path / "a.lock").symlink_to("canary")
    with pytest.raises(OSError, match="symbolic link"), hold(tmp_path / "a.lock", "busy"):
        pass
    with pytest.raises(OSError, match="symbolic link"):
        holder(tmp_path / "a.lock")
    assert b"mine" == (tmp_path / "canary").read_bytes()


def test_an_odd_lock_file_has_no_holder_that_can_be_told(tmp_path: Path) -> None:
    """What is in the file may be anything; held is held."""
    path = tmp_path / "a.lock"
    with another("file", path):
        path.write_bytes(b"\xffnot a pid")
        assert 0 == holder(path)
        with pytest.raises(Locked) as caught, hold(path, "busy"):
            pass
        assert ("busy", None) == (str(caught.value), caught.value.holder)


def test_a_directory_has_one_keeper(tmp_path: Path) -> None:
    """The second keeper of a directory is refused with the first one's pid, until that one is gone."""
    lock = DirectoryLock(str(tmp_path), "kept")
    with another("directory", tmp_path) as pid, pytest.raises(Locked, match=rf"kept \(process {pid}\)"):
        lock.take()
    lock.take()
    lock.take()
    with pytest.raises(Locked, match=rf"kept \(process {os.getpid()}\)"):
        DirectoryLock(str(tmp_path), "kept").take()
    lock.release()
    lock.release()
    DirectoryLock(str(tmp_path), "kept").take()


def test_a_lock_goes_with_the_directory(tmp_path: Path) -> None:
    """After the directory was made anew, the new one is locked and the old one is not; no descriptor is left over."""
    root = tmp_path / "data"
    root.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    lock, other = DirectoryLock(str(root), "kept"), DirectoryLock(str(tmp_path / "moved"), "kept")
    lock.take()
    root.rename(tmp_path / "moved")
    root.mkdir()
    with pytest.raises(Locked):
        other.take()
    lock.take()
    other.take()
    with pytest.raises(Locked):
        DirectoryLock(str(root), "kept").take()
    lock.release()
    other.release()
    assert before == len(os.listdir("/proc/self/fd"))


def test_a_refused_lock_keeps_the_one_it_has(tmp_path: Path) -> None:
    """When the directory that came in its place is somebody else's, the lock on the old one stays."""
    root = tmp_path / "data"
    root.mkdir()
    lock = DirectoryLock(str(root), "kept")
    lock.take()
    root.rename(tmp_path / "moved")
    root.mkdir()
    with another("directory", root):
        with pytest.raises(Locked):
            lock.take()
        with pytest.raises(Locked):
            DirectoryLock(str(tmp_path / "moved"), "kept").take()
    lock.release()


def test_what_cannot_be_locked_is_let_pass(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory that is missing, a link, or may not be read is no error: the guard tells of those."""
    (open_path / "closed").mkdir(mode=0o711)
    (open_path / "link").symlink_to("closed")
    begun = time.monotonic()

    def check() -> None:
        for name in ("missing", "link", "closed"):
            DirectoryLock(str(open_path / name), "kept").take()

    as_nobody(check)
    assert time.monotonic() - begun < 5


def test_of_a_directory_that_nobody_holds_nobody_is_named(tmp_path: Path) -> None:
    """Whatever others hold meanwhile."""
    (tmp_path / "other").mkdir()
    other = DirectoryLock(str(tmp_path / "other"), "taken")
    other.take()
    assert _flock_holder(tmp_path.stat()) is None
    other.release()
