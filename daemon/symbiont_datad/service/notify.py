"""Telling the service manager (sd_notify(3)): ready, reloading, stopping, status, alive."""

import os
import time

from sdnotify import SystemdNotifier

_PATIENCE_S = 1.0
"""A service manager that doesn't read must not keep the daemon from ending; what it doesn't take is dropped."""


class Notifier:
    """Speaks to `$NOTIFY_SOCKET`; says nothing where there is none.

    Status lines are ASCII, one line: sdnotify encodes them as latin-1 and drops what doesn't fit without a word.
    """

    def __init__(self) -> None:
        self._notifier = SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.settimeout(_PATIENCE_S)
        self._status = ""

    def ready(self, status: str) -> None:
        """The start (or a reload) is done."""
        self._send(f"READY=1\nSTATUS={_ascii(status)}")

    def reloading(self) -> None:
        """A reload has begun; the time stamp goes in the same datagram (systemd 253, `Type=notify-reload`)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def status(self, text: str) -> None:
        """Say what is going on; the same text twice is sent once."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_ascii(text)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Give up the socket."""
        if self._notifier.socket is not None:
            self._notifier.socket.close()
            self._notifier.socket = None

    def _send(self, state: str) -> None:
        self._notifier.notify(state)


def watchdog_interval() -> float | None:
    """How often, in seconds, the service manager wants to hear that the daemon lives; None if it doesn't ask.

    `$WATCHDOG_USEC` is in microseconds and meant for the process `$WATCHDOG_PID` (sd_watchdog_enabled(3)).
    """
    pid = os.environ.get("WATCHDOG_PID")
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if (pid is not None and pid != str(os.getpid())) or not microseconds.isdigit() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1e6


def _ascii(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())
