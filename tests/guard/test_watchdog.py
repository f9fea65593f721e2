"""The contract with watchdog: what `guard/inotify.py` uses of its insides. An upgrade that changes it fails here."""

import errno
import inspect
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("not on this platform: inotify", allow_module_level=True)

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)

from symbiont_datad.guard import inotify
from symbiont_datad.guard.hints import Hints
from tests.conftest import AsNobody
from tests.guard.keeping import eventually

ALL = Mask(inotify._CHANGES)


@dataclass
class Recorder:
    """A callback that remembers what it was called with."""

    events: list[tuple[int, bytes]] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    overflows: int = 0

    def on_event(self, event: InotifyEvent) -> None:
        self.events.append((event.mask, event.name))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self.deleted.append(wd)

    def on_queue_overflow(self) -> None:
        self.overflows += 1


@pytest.fixture
def reader() -> Iterator[InotifyFD]:
    """A reading thread of its own."""
    reader = InotifyFD()
    reader.start()
    yield reader
    reader.stop()
    reader.join(5)
    assert not reader.is_alive()


def test_our_callback_has_what_the_protocol_asks_for() -> None:
    """Every method of `WatchCallback` is one of ours, with as many arguments."""
    for name, method in inspect.getmembers(WatchCallback, inspect.isfunction):
        if not name.startswith("_"):
            assert len(inspect.signature(method).parameters) == len(
                inspect.signature(getattr(inotify._Watch, name)).parameters
            )
    assert {"on_event", "on_watch_deleted", "on_queue_overflow"} <= set(dir(WatchCallback))


def test_the_mask_is_the_kernels() -> None:
    """The numbers are those of inotify(7), and nothing that a write, an open or a close does is among them."""
    assert 0x01000FC4 == ALL  # ONLYDIR, and ATTRIB to MOVE_SELF without MODIFY, OPEN, CLOSE and ACCESS
    assert not ALL & (
        InotifyConstants.IN_MODIFY
        | InotifyConstants.IN_OPEN
        | InotifyConstants.IN_ACCESS
        | InotifyConstants.IN_CLOSE_WRITE
        | InotifyConstants.IN_CLOSE_NOWRITE
    )


def test_each_event_comes_at_once_and_with_its_name(tmp_path: Path, reader: InotifyFD) -> None:
    """Callbacks get mask and name of each event; a rename out of the directory isn't held back for its other half."""
    recorder = Recorder()
    reader.add_callback(os.fsencode(tmp_path), ALL, recorder, CallbackId(1))
    (tmp_path / "new").mkdir()
    (tmp_path / "new").rename(tmp_path.parent / "moved-out")
    (tmp_path.parent / "moved-out").rmdir()
    assert eventually(lambda: len(recorder.events) == 2, 0.3)
    assert [(0x40000100, b"new"), (0x40000040, b"new")] == recorder.events


def test_a_path_of_proc_names_the_directory(tmp_path: Path, reader: InotifyFD) -> None:
    """A watch through /proc/self/fd is on the pinned directory itself, whatever has its name by then."""
    (tmp_path / "one").mkdir()
    fd = os.open(tmp_path / "one", os.O_PATH)
    (tmp_path / "one").rename(tmp_path / "two")
    (tmp_path / "one").mkdir()
    recorder = Recorder()
    reader.add_callback(b"/proc/self/fd/%d" % fd, ALL, recorder, CallbackId(1))
    os.close(fd)
    (tmp_path / "one/not-this").mkdir()
    (tmp_path / "two/this").mkdir()
    assert eventually(lambda: bool(recorder.events))
    assert [b"this"] == [name for _, name in recorder.events]


def test_the_end_of_a_watch_is_told_once(tmp_path: Path, reader: InotifyFD) -> None:
    """When the directory goes, `on_watch_deleted` is called with the descriptor that `add_callback` gave."""
    (tmp_path / "one").mkdir()
    recorder = Recorder()
    wd = reader.add_callback(os.fsencode(tmp_path / "one"), ALL, recorder, CallbackId(1))
    (tmp_path / "one").rmdir()
    assert eventually(lambda: [wd] == recorder.deleted)


def test_removed_callbacks_are_silent(tmp_path: Path, reader: InotifyFD) -> None:
    """After `remove_callbacks` nothing is called any more, a second time is no error, and others go on."""
    first, second = Recorder(), Recorder()
    wd = reader.add_callback(os.fsencode(tmp_path), ALL, first, CallbackId(1))
    assert wd == reader.add_callback(os.fsencode(tmp_path), ALL, second, CallbackId(2))
    reader.remove_callbacks([(wd, CallbackId(1))])
    (tmp_path / "new").mkdir()
    assert eventually(lambda: 1 == len(second.events))
    assert ([], []) == (first.events, first.deleted)
    reader.remove_callbacks([(wd, CallbackId(2))])
    reader.remove_callbacks([(wd, CallbackId(2))])
    (tmp_path / "newer").mkdir()
    assert not eventually(lambda: len(second.events) > 1, 0.2)
    assert [] == second.deleted


def test_an_overflow_reaches_every_callback(tmp_path: Path) -> None:
    """IN_Q_OVERFLOW, which the kernel sends without a watch, calls `on_queue_overflow` of all."""
    reader = InotifyFD()  # not started: the event is handed in by hand, as the thread would
    recorders = [Recorder(), Recorder()]
    for number, recorder in enumerate(recorders):
        (tmp_path / str(number)).mkdir()
        reader.add_callback(os.fsencode(tmp_path / str(number)), ALL, recorder, CallbackId(number))
    reader.handle_event(InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b""))
    assert [1, 1] == [recorder.overflows for recorder in recorders]
    reader.start()
    reader.stop()
    reader.join(5)


def test_a_directory_that_may_not_be_read_is_descriptor_minus_one(open_path: Path, as_nobody: AsNobody) -> None:
    """watchdog passes EACCES over in silence; we go by the descriptor. Should it raise one day, that is fine too."""
    (open_path / "closed").mkdir(mode=0o311)
    hints = Hints()

    def check() -> tuple[int, int]:
        reader = InotifyFD()
        try:
            wd = reader.add_callback(os.fsencode(open_path / "closed"), ALL, Recorder(), CallbackId(1))
        except OSError as error:
            return -1, error.errno or 0
        reader.remove_callbacks([(wd, CallbackId(1))])
        return wd, errno.EACCES

    assert (-1, errno.EACCES) == as_nobody(check)
    assert not hints.take(0)


def test_what_is_missing_or_no_directory_raises(tmp_path: Path, reader: InotifyFD) -> None:
    """ENOENT and ENOTDIR come as OSError with their numbers."""
    (tmp_path / "file").write_bytes(b"")
    for name, number in (("nothing", errno.ENOENT), ("file", errno.ENOTDIR)):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            reader.add_callback(os.fsencode(tmp_path / name), ALL, Recorder(), CallbackId(1))
        assert number == caught.value.errno


def test_stop_ends_the_thread_and_closes_its_descriptors(tmp_path: Path) -> None:
    """A stopped reader is gone, with its descriptors."""
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    reader = InotifyFD()
    reader.start()
    reader.add_callback(os.fsencode(tmp_path), ALL, Recorder(), CallbackId(1))
    assert reader.is_alive()
    reader.stop()
    reader.join(5)
    assert before == (len(os.listdir("/proc/self/fd")), threading.active_count())
