"""The network between a machine and a server, which can be cut in several ways and mended again."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Literal

Cut = Literal["refused", "silent", "broken"]
"""No connection is made; or it is, and nothing comes through; or it breaks after some bytes."""

_BROKEN_AFTER = 700
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close(2) resets the connection


class Wire:
    """A port on loopback (`port`) that leads to the port `to`, until it is closed."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._cut: Cut | None = None
        self._mended = threading.Event()
        self._mended.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self._closed = False
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def cut(self) -> Cut | None:
        """How it is cut now, if it is."""
        return self._cut

    def sever(self, how: Cut) -> None:
        """Cut it. What is on its way is lost, unless it is merely silent."""
        self._mended.clear()
        self._cut = how
        if how != "silent":
            self._reset_all()

    def mend(self) -> None:
        """It is whole again."""
        self._cut = None
        self._mended.set()

    def close(self) -> None:
        """Nobody needs it any more."""
        self._closed = True
        self.mend()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._reset_all()
        self._accepting.join()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut == "refused":
                _reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to), 10)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        carried = 0
        with suppress(OSError):
            while data := one.recv(65536):
                if self._cut == "silent":
                    self._mended.wait()
                other.sendall(data)
                carried += len(data)
                if self._cut == "broken" and carried > _BROKEN_AFTER:
                    break
        for end in (one, other):
            with self._lock:
                self._open.discard(end)
            _reset(end)

    def _reset_all(self) -> None:
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _reset(end)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        end.close()
