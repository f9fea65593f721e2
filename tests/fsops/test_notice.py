"""Notices of what is written in directories."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.fsops import notice
from symbiont_datad.fsops.notice import Notices

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: inotify")


@pytest.fixture
def notices() -> Iterator[Notices]:
    """Notices without a watch."""
    made = Notices()
    yield made
    made.close()


def follow(notices: Notices, path: Path, number: int) -> None:
    """Watch a directory."""
    fd = os.open(path, os.O_RDONLY)
    assert notices.follow(fd, number)
    os.close(fd)


def test_files_that_were_written_are_noticed(tmp_path: Path, notices: Notices) -> None:
    """By the number of the watch and their name: when they are closed, or moved in. Names may be any bytes."""
    follow(notices, tmp_path, 7)
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"b\xff")).write_bytes(b"x")
    (tmp_path / "a").rename(tmp_path / "c")
    with (tmp_path / "d").open("wb"):
        noticed = notices.wait(5.0)
    assert {(7, "a"), (7, os.fsdecode(b"b\xff")), (7, "c")} == noticed.files
    assert {(7, "d")} == notices.wait(5.0).files
    (tmp_path / "a").touch()
    (tmp_path / "a").read_bytes()
    assert {(7, "a")} == notices.wait(5.0).files


def test_reading_is_no_news(tmp_path: Path, notices: Notices) -> None:
    """Neither is a removal; the wait ends with the time."""
    (tmp_path / "a").write_bytes(b"x")
    follow(notices, tmp_path, 1)
    (tmp_path / "a").read_bytes()
    (tmp_path / "a").unlink()
    noticed = notices.wait(0.01)
    assert (set(), set(), False) == (noticed.files, noticed.changed, noticed.lost)


def test_new_directories_and_the_end_of_one_are_changes(tmp_path: Path, notices: Notices) -> None:
    """Both mean that there is something to be watched, or not any more."""
    (tmp_path / "sub").mkdir()
    follow(notices, tmp_path, 1)
    follow(notices, tmp_path / "sub", 2)
    (tmp_path / "new").mkdir()
    assert {1} == notices.wait(5.0).changed
    (tmp_path / "sub").rmdir()
    assert {2} == notices.wait(5.0).changed


def test_a_queue_that_ran_over_is_told(tmp_path: Path, notices: Notices) -> None:
    """Something was lost: everything has to be looked at."""
    follow(notices, tmp_path, 1)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    fds = [os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
    for number in range(limit + 10):
        os.close(os.open(tmp_path / "ab"[number % 2], os.O_WRONLY))
    for fd in fds:
        os.close(fd)
    assert notices.wait(5.0).lost


def test_a_wait_can_be_ended(notices: Notices) -> None:
    """By another thread, also before it began."""
    notices.wake()
    notices.wait(60.0)
    threading.Timer(0.05, notices.wake).start()
    notices.wait(60.0)


def test_what_cant_be_watched_is_not(tmp_path: Path, notices: Notices) -> None:
    """A file is no directory."""
    (tmp_path / "a").write_bytes(b"x")
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    assert not notices.follow(fd, 1)
    os.close(fd)


def test_what_was_closed_is_left_alone(tmp_path: Path) -> None:
    """It watches nothing any more, can be closed once more, and who wakes it writes into no file that came since."""
    notices = Notices()
    notices.close()
    files = [(tmp_path / f"{number}").open("wb", buffering=0) for number in range(6)]
    notices.wake()
    notices.close()
    for file in files:
        file.close()
    assert [0] * 6 == [path.stat().st_size for path in tmp_path.iterdir()]
    fd = os.open(tmp_path, os.O_RDONLY)
    assert not notices.follow(fd, 1)
    os.close(fd)


def test_where_there_is_no_inotify_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait ends with its time, or when it is woken."""
    monkeypatch.setattr(notice, "_LIBC", object())
    notices = Notices()
    fd = os.open(tmp_path, os.O_RDONLY)
    assert not notices.follow(fd, 1)
    os.close(fd)
    (tmp_path / "a").write_bytes(b"x")
    assert not notices.wait(0.01).files
    notices.wake()
    notices.wait(60.0)
    notices.close()
