"""Notices of what is written in directories: hints, and nothing more. By inotify(7); elsewhere nothing is ever noticed.

What is asked for is little: a file that was written is told of when it is closed, one that is held open is not.
"""

import ctypes
import os
import select
import struct
from contextlib import suppress
from dataclasses import dataclass, field

_CLOSE_WRITE, _MOVED_TO, _CREATE, _DELETE_SELF, _MOVE_SELF = 0x8, 0x80, 0x100, 0x400, 0x800
_ONLYDIR, _IS_DIRECTORY, _OVERFLOW, _IGNORED = 0x01000000, 0x40000000, 0x4000, 0x8000
_MASK = _CLOSE_WRITE | _MOVED_TO | _CREATE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name (inotify(7))
_BUFFER = 64 * 1024

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Noticed:
    """What was noticed. `files`: the number that the watch was given, and the name in it. `lost`: there was more.

    `changed`: numbers of watches whose directory has a new directory in it, or has gone.
    """

    files: set[tuple[int, str]] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    lost: bool = False


class Notices:
    """Watches on directories. One thread waits; others may wake it."""

    def __init__(self) -> None:
        self._fd = -1
        if hasattr(_LIBC, "inotify_init1"):
            self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._numbers: dict[int, int] = {}
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._awake, False)

    def follow(self, fd: int, number: int) -> bool:
        """Watch a directory by a descriptor of it; notices have the number. False where that can't be."""
        if self._fd < 0:
            return False
        watch = _LIBC.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % fd, _MASK)
        if watch < 0:
            return False
        self._numbers[watch] = number
        return True

    def wait(self, timeout_s: float) -> Noticed:
        """What is noticed, as soon as something is; nothing after the time, or when `wake` was called."""
        noticed = Noticed()
        waiting = [self._awake, *([self._fd] if self._fd >= 0 else [])]
        ready, _, _ = select.select(waiting, [], [], max(timeout_s, 0.0))
        if self._awake in ready:
            with suppress(BlockingIOError):
                os.read(self._awake, 4096)
        if self._fd in ready:
            self._read(noticed)
        return noticed

    def _read(self, noticed: Noticed) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._fd, _BUFFER):
                at = 0
                while at < len(data):
                    watch, mask, _, length = _EVENT.unpack_from(data, at)
                    name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
                    at += _EVENT.size + length
                    self._take(noticed, watch, mask, os.fsdecode(name))

    def _take(self, noticed: Noticed, watch: int, mask: int, name: str) -> None:
        number = self._numbers.get(watch)
        if mask & _OVERFLOW:
            noticed.lost = True
        elif mask & _IGNORED:
            self._numbers.pop(watch, None)
        elif number is None:
            return
        elif mask & (_DELETE_SELF | _MOVE_SELF) or mask & _IS_DIRECTORY:
            noticed.changed.add(number)
        elif mask & (_CLOSE_WRITE | _MOVED_TO):
            noticed.files.add((number, name))

    def wake(self) -> None:
        """Have `wait` return."""
        with suppress(OSError):
            os.write(self._wake, b"x")

    def close(self) -> None:
        """Give all watches up."""
        for fd in (self._fd, self._awake, self._wake):
            if fd >= 0:
                os.close(fd)
        self._fd = self._awake = self._wake = -1  # who still wakes it must not write into what has the number next
