"""Processes that read small files: Python threads would wait for each other, as most of that work is Python's own.

A process gets a directory's descriptor and the names of files in it through a socket, and answers with their nodes and
with their content, compressed and sealed. What is stored already, and how packs are filled, is decided by the one who
asks. A process ends when its socket closes, so it never outlives who started it.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from hashlib import sha256
from types import TracebackType
from typing import Self

import msgspec

from symbiont_datad.restic.chunk import WHOLE
from symbiont_datad.restic.crypto import Buffer, Key
from symbiont_datad.restic.nodes import file_node
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.reading import Reader
from symbiont_datad.restic.writer import seal_blob

_LENGTH = struct.Struct("<I")
_HEAD = 16


class _Task(msgspec.Struct, array_like=True, gc=False):
    """Files to read, with their owners as lstat told them; one descriptor, of their directory, comes with it."""

    names: list[bytes]
    owners: list[int]


class _Order(msgspec.Struct, array_like=True, gc=False):
    """How to seal: the master key as in a key file, and zstd's level. The first thing that a process is told."""

    master: bytes
    level: int | None


class Sealed(msgspec.Struct, array_like=True, gc=False):
    """A small file: its node, its size in bytes, why it may be torn (or ""), how it begins, and its sealed blobs, each
    with its id and its plain length."""

    node: bytes
    size: int
    error: str
    head: bytes
    blobs: list[tuple[bytes, bytes, int]]


class Crew:
    """One process for each thread that asks, started when it asks for the first time."""

    def __init__(self, key: Key, level: int | None) -> None:
        self._order = msgspec.msgpack.encode(_Order(key.to_master(), level))
        self._local = threading.local()
        self._lock = threading.Lock()
        self._members: list[_Member] = []
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.end()
        self._members.clear()

    def read(self, dir_fd: int, names: list[bytes], owners: list[int]) -> list[Sealed | None] | None:
        """What the processes make of these files; None for one that the caller has to read itself, or for all of them
        when no process can be had (it was killed, or there is no room for one more).
        """
        if self._failed:
            return None
        try:
            return self._member().read(dir_fd, names, owners)
        except (OSError, EOFError, msgspec.MsgspecError):
            self._failed = True
            return None

    def _member(self) -> "_Member":
        try:
            found: _Member = self._local.member
        except AttributeError:
            found = self._local.member = _Member(self._order)
            with self._lock:
                self._members.append(found)
        return found


class _Member:
    """One process, seen from the one that asks."""

    def __init__(self, order: bytes) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        _send(self._socket, order)

    def read(self, dir_fd: int, names: list[bytes], owners: list[int]) -> list[Sealed | None]:
        _send(self._socket, msgspec.msgpack.encode(_Task(names, owners)), dir_fd)
        answer, _ = _receive(self._socket)
        return msgspec.msgpack.decode(answer, type=list[Sealed | None])

    def end(self) -> None:
        self._socket.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Collector:
    """A sink that seals what it is given."""

    def __init__(self, key: Key, level: int | None) -> None:
        self._key = key
        self._level = level
        self.blobs: list[tuple[bytes, bytes, int]] = []
        self.head = b""

    def store(self, _kind: BlobType, plain: Buffer) -> tuple[bytes, bool]:
        if len(plain) > WHOLE:
            raise BufferError  # it has grown: no small file any more
        blob = sha256(plain).digest()
        self.head = bytes(plain[:_HEAD])
        self.blobs.append((blob, *seal_blob(plain, self._key, self._level)))
        return blob, True


def main(fd: int) -> None:
    """Read files until the socket closes."""
    with socket.socket(fileno=fd) as asking, suppress(EOFError, ConnectionError, KeyboardInterrupt):
        order = msgspec.msgpack.decode(_receive(asking)[0], type=_Order)
        key = Key.from_master(order.master)

        while True:
            text, dir_fd = _receive(asking)
            task = msgspec.msgpack.decode(text, type=_Task)
            try:
                answer = [
                    _read(dir_fd, name, owner, _Collector(key, order.level))
                    for name, owner in zip(task.names, task.owners, strict=True)
                ]
            finally:
                os.close(dir_fd)
            _send(asking, msgspec.msgpack.encode(answer))


def _read(dir_fd: int, name: bytes, owner: int, sink: _Collector) -> Sealed | None:
    try:
        content = Reader(sink, 0, None).read(dir_fd, name, owner)
    except (OSError, BufferError):
        return None
    if content.size > WHOLE:  # it has grown: then the repository's own seed decides where it is cut
        return None
    return Sealed(file_node(name, content), content.size, content.error, sink.head, sink.blobs)


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
    main(int(sys.argv[1]))
