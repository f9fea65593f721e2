"""Processes that help: Python threads would wait for each other where most of the work is Python's own.

A process is told once what it is for, then gets one piece of work after another through a socket, with a descriptor
where it needs one, and answers. It ends when its socket closes, so it never outlives who started it. What it gets and
answers is the business of the module that it runs (`sealing`, `scrub`).
"""

import gc
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Self

_LENGTH = struct.Struct("<I")
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(8 << 20), "MALLOC_TRIM_THRESHOLD_": str(4 << 20)}
"""Have glibc give back at once what only a large tree needs, and keep what every piece of work needs again: to get that
anew each time would take a quarter of the processor time (mallopt(3))."""

Serve = Callable[[bytearray, int], bytes]
"""A piece of work and the descriptor that came with it (-1: none, else it is closed afterwards) -> the answer."""


class Crew:
    """One process for each thread that asks, started when it asks for the first time, or by `start`."""

    def __init__(self, module: str, order: bytes) -> None:
        """`module` has a function `serve`, which makes a `Serve` of the order."""
        self._module = module
        self._order = order
        self._local = threading.local()
        self._lock = threading.Lock()
        self._members: list[_Member] = []
        self._idle: list[_Member] = []
        self.failed = False
        """Whether no process can be had any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End all processes; others are started for who asks then. Nobody may be asking now."""
        for member in self._members:
            member.dismiss()
        for member in self._members:
            member.wait()
        self._members.clear()
        self._idle.clear()
        self._local = threading.local()

    def start(self, count: int) -> None:
        """Start so many processes now, so that they are there when somebody asks: they take 0.1 s."""
        with suppress(OSError):
            for _ in range(count):
                member = _Member(self._module, self._order)
                self._members.append(member)
                self._idle.append(member)

    def ask(self, text: bytes, fd: int | None = None) -> bytearray | None:
        """What this thread's process answers; None, from then on always, when no process can be had: it was killed, or
        there is no room for one more. Then the caller does the work itself.
        """
        if self.failed:
            return None
        try:
            member = self._member()
        except OSError:
            self.failed = True
            return None
        try:
            return member.ask(text, fd)
        except (OSError, EOFError):
            self.failed = True
            member.dismiss()
            member.wait()  # so that nothing is still done of what it was asked for
            return None

    def _member(self) -> "_Member":
        try:
            found: _Member = self._local.member
        except AttributeError:
            with self._lock:
                if self._idle:
                    found = self._idle.pop()
                else:
                    found = _Member(self._module, self._order)
                    self._members.append(found)
            self._local.member = found
        return found


class _Member:
    """One process, seen from the one that asks."""

    def __init__(self, module: str, order: bytes) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), module],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**_GIVE_BACK, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        try:
            _send(self._socket, order)
        except OSError:
            self.dismiss()
            self.wait()
            raise

    def ask(self, text: bytes, fd: int | None) -> bytearray:
        _send(self._socket, text, fd)
        return _receive(self._socket)[0]

    def dismiss(self) -> None:
        self._socket.close()

    def wait(self) -> None:
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(fd: int, module: str) -> None:
    """Do what is asked until the socket closes."""
    gc.disable()  # what is made here has no cycles
    with socket.socket(fileno=fd) as asking, suppress(EOFError, ConnectionError, KeyboardInterrupt):
        serve: Serve = import_module(module).serve(bytes(_receive(asking)[0]))
        while True:
            text, with_it = _receive(asking)
            try:
                answer = serve(text, with_it)
            finally:
                if with_it >= 0:
                    os.close(with_it)
            _send(asking, answer)


def _send(to: socket.socket, text: bytes, fd: int | None = None) -> None:
    header = _LENGTH.pack(len(text))
    if fd is None:
        to.sendall(header)
    else:
        socket.send_fds(to, [header], [fd])  # so short a message is never sent in part
    to.sendall(text)


def _receive(of: socket.socket) -> tuple[bytearray, int]:
    """A message, and the descriptor that came with it (-1: none). Raises EOFError."""
    header, fds, _, _ = socket.recv_fds(of, _LENGTH.size, 1)
    while len(header) < _LENGTH.size:
        more = of.recv(_LENGTH.size - len(header))
        if not more:
            raise EOFError
        header += more
    text = bytearray(_LENGTH.unpack(header)[0])
    with memoryview(text) as view:
        at = 0
        while at < len(text):
            count = of.recv_into(view[at:])
            if not count:
                raise EOFError
            at += count
    return text, fds[0] if fds else -1


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # at once: whoever asked waits for the end, and there is nothing to tidy up
