"""The HTTP server of probes: one thread, few connections, short patience.

Whoever is slow, silent or many costs the daemon a descriptor for some seconds, and nothing else: all sockets are
served by one thread that never waits for one of them, nor for an answer that takes its time. When there are too many
connections the oldest goes. After each answer the thread pauses, so that a flood of requests leaves the interpreter to
the guard.
"""

import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from symbiont_datad.service.request import LARGEST_HEAD, Access, Later, Routes, is_whole, refusal, response

_PATIENCE_S = 5.0
"""So long has a caller for its request and for taking the answer, together."""
_LINGER_S = 1.0
_MOST = 64
"""Connections at a time."""
_PAUSE_S = 0.0005
"""After each answer, so less than 2,000 are given in a second."""
_BACKLOG = 128
_END, _READY = b".", b"r"
"""What wakes the thread: it is time to end; an answer that was asked for is there."""


@dataclass(slots=True)
class _Connection:
    """A caller. It is read from until `answer` is there, then written to, then read from until it hangs up.

    While an answer is made `later`, nothing is read.
    """

    socket: socket.socket
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None
    later: Later | None = None


class Server:
    """Answers `routes` at an address, for those who have `access`, until it is closed.

    Raises OSError when it can't listen there.
    """

    def __init__(self, host: str, port: int, routes: Routes, access: Access) -> None:
        self._routes = routes
        self._access = access
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._listener = socket.socket(family, kind, protocol)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen(_BACKLOG)
            self._listener.setblocking(False)
        except OSError:
            self._listener.close()
            raise
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        self._connections: dict[int, _Connection] = {}  # the oldest first
        self._closing = threading.Lock()
        self._closed = False
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._loop, name="http", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Hang up, and free the address."""
        with self._closing:
            os.write(self._waker, _END)
            self._closed = True
        self._thread.join(2.0)
        os.close(self._waker)

    def _wake(self, _: object) -> None:
        """Called by whoever has made an answer; by then the server may be closed."""
        with self._closing, suppress(BlockingIOError):
            if not self._closed:
                os.write(self._waker, _READY)

    def _loop(self) -> None:
        try:
            while self._serve():
                pass
        finally:
            for connection in list(self._connections.values()):
                self._drop(connection)
            self._selector.close()
            self._listener.close()
            os.close(self._woken)

    def _serve(self) -> bool:
        """Do what there is to do; false when it is time to end."""
        now = time.monotonic()
        nearest = min((one.deadline for one in self._connections.values()), default=None)
        for key, _ in self._selector.select(None if nearest is None else max(nearest - now, 0.0)):
            if key.fileobj == self._woken:
                if _END in os.read(self._woken, 4096):
                    return False
                self._answer_ready()
                continue
            if key.fileobj is self._listener:
                self._accept()
            elif (connection := self._connections.get(key.fd)) is not None:  # it may have had to go for a new one
                self._attend(connection)
        now = time.monotonic()
        for connection in [one for one in self._connections.values() if one.deadline <= now]:
            self._expire(connection)
        return True

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # it hung up before we came, or there are no more descriptors
            time.sleep(_PAUSE_S)
            return
        accepted.setblocking(False)
        if len(self._connections) >= _MOST:
            self._drop(next(iter(self._connections.values())))
        self._connections[accepted.fileno()] = _Connection(accepted, time.monotonic() + _PATIENCE_S)
        self._selector.register(accepted, selectors.EVENT_READ)

    def _attend(self, connection: _Connection) -> None:
        try:
            if connection.answer is None:
                self._read(connection)
            elif connection.answer:
                self._write(connection)
            elif not connection.socket.recv(LARGEST_HEAD):
                self._drop(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        piece = connection.socket.recv(LARGEST_HEAD - len(connection.received))
        connection.received += piece
        if is_whole(connection.received) or len(connection.received) >= LARGEST_HEAD:
            found = response(bytes(connection.received), self._routes, self._access)
            if isinstance(found, Later):
                connection.later = found
                self._selector.unregister(connection.socket)
                found.answer.add_done_callback(self._wake)
                return
            self._answer(connection, found)
        elif not piece:
            self._drop(connection)

    def _answer_ready(self) -> None:
        """Give the answers that were made meanwhile."""
        for connection in list(self._connections.values()):
            later = connection.later
            if later is None or not later.answer.done():
                continue
            connection.later = None
            self._selector.register(connection.socket, selectors.EVENT_READ)
            try:
                self._answer(connection, later.encoded())
            except BlockingIOError:
                pass
            except OSError:
                self._drop(connection)

    def _answer(self, connection: _Connection, answer: bytes) -> None:
        connection.answer = memoryview(answer)
        self._selector.modify(connection.socket, selectors.EVENT_WRITE)
        self._write(connection)
        time.sleep(_PAUSE_S)

    def _write(self, connection: _Connection) -> None:
        assert connection.answer is not None
        connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        if connection.answer:
            return
        # To close now would take the answer back from a caller that still sends (RFC 9112, 9.6): it hangs up first.
        connection.socket.shutdown(socket.SHUT_WR)
        connection.deadline = time.monotonic() + _LINGER_S
        self._selector.modify(connection.socket, selectors.EVENT_READ)

    def _expire(self, connection: _Connection) -> None:
        if connection.answer is None and connection.received:
            with suppress(OSError):
                connection.socket.send(refusal(408 if connection.later is None else 503))
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)
        connection.socket.close()
