"""What the service manager hears, and how often it wants to hear it."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from symbiont_datad.service.notify import Notifier, watchdog_interval


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that `$NOTIFY_SOCKET` names; what it receives was sent."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("notify")
        receiver.settimeout(2.0)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        yield receiver


@pytest.fixture
def notifier(heard: socket.socket) -> Iterator[Notifier]:
    """One that speaks to `heard`."""
    notifier = Notifier()
    yield notifier
    notifier.close()


def test_ready_comes_with_a_status(heard: socket.socket, notifier: Notifier) -> None:
    """One datagram says both."""
    notifier.ready("keeping /srv/data")
    assert b"READY=1\nSTATUS=keeping /srv/data" == heard.recv(4096)


def test_a_reload_comes_with_its_time(heard: socket.socket, notifier: Notifier) -> None:
    """`RELOADING=1` and `MONOTONIC_USEC`, now and in microseconds, share a datagram (sd_notify(3))."""
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    notifier.reloading()
    first, second = heard.recv(4096).split(b"\n")
    name, _, microseconds = second.partition(b"=")
    assert (b"RELOADING=1", b"MONOTONIC_USEC") == (first, name)
    assert before - 1e-5 <= int(microseconds) / 1e6 <= time.clock_gettime(time.CLOCK_MONOTONIC)


@pytest.mark.parametrize(
    "text", ["größe 数据 \U0001f5c2", "a\nb\r\nc\x85d\u2028e", "lone \udce9 surrogate", "READY=0\nX=1"]
)
def test_a_status_is_one_line_of_ascii(heard: socket.socket, notifier: Notifier, text: str) -> None:
    """Whatever is in it, a status is sent, and can't be taken for another assignment."""
    notifier.status(text)
    datagram = heard.recv(4096)
    assert datagram.startswith(b"STATUS=")
    assert datagram.isascii()
    assert 1 == len(datagram.splitlines())


def test_the_same_status_is_sent_once(heard: socket.socket, notifier: Notifier) -> None:
    """A daemon with nothing new to tell wakes nobody; the next change is told again."""
    for text in ("idle", "idle", "busy", "idle"):
        notifier.status(text)
    heard.setblocking(False)
    assert [b"STATUS=idle", b"STATUS=busy", b"STATUS=idle"] == [heard.recv(4096) for _ in range(3)]
    with pytest.raises(BlockingIOError):
        heard.recv(4096)


def test_the_end_and_the_watchdog(heard: socket.socket, notifier: Notifier) -> None:
    """Both are sent as systemd knows them."""
    notifier.alive()
    notifier.stopping()
    assert b"WATCHDOG=1" == heard.recv(4096)
    assert heard.recv(4096).startswith(b"STOPPING=1\n")


def test_a_manager_that_does_not_read_is_not_waited_for(heard: socket.socket, notifier: Notifier) -> None:
    """When the socket is full the daemon goes on after a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fill, suppress(BlockingIOError):
        fill.setblocking(False)
        while True:
            fill.sendto(b"X=1", os.environ["NOTIFY_SOCKET"])
    begun = time.monotonic()
    notifier.ready("late")
    assert time.monotonic() - begun < 1.8


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sdnotify closes no failed socket
def test_nothing_happens_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no socket in the environment, or one that is gone, every call just returns."""
    for address in ("", "/nonexistent/socket"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notifier = Notifier()
        notifier.ready("x")
        notifier.reloading()
        notifier.status("y")
        notifier.alive()
        notifier.stopping()


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [
        ("60000000", None, 60.0),
        ("500000", "own", 0.5),
        ("60000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None, expected: float | None
) -> None:
    """Microseconds, for this process only (sd_watchdog_enabled(3)); what is no number means no watchdog."""
    own = {"own": str(os.getpid())}
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", own.get(pid or "", pid))):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert expected == watchdog_interval()
