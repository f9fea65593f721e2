"""Small files, read, compressed and sealed by other processes (see `crew`).

A process gets the names of files, with the descriptor of the directory that they are in, and answers with their nodes
and their content. What is stored already, and how packs are filled, is decided by the one who asks.
"""

from hashlib import sha256

import msgspec

from symbiont_datad.restic.chunk import WHOLE
from symbiont_datad.restic.crew import Crew, Serve
from symbiont_datad.restic.crypto import Buffer, Key
from symbiont_datad.restic.nodes import file_node
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.reading import Reader
from symbiont_datad.restic.writer import seal_blob

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


def sealing_crew(key: Key, level: int | None) -> Crew:
    """Processes that seal with this key, compressed at zstd's `level` if it is one."""
    return Crew(__name__, msgspec.msgpack.encode(_Order(key.to_master(), level)))


def seal_files(crew: Crew, dir_fd: int, names: list[bytes], owners: list[int]) -> list[Sealed | None] | None:
    """What the crew makes of these files; None for one that the caller has to read itself, or for all of them."""
    answer = crew.ask(msgspec.msgpack.encode(_Task(names, owners)), dir_fd)
    return None if answer is None else msgspec.msgpack.decode(answer, type=list[Sealed | None])


def serve(order: bytes) -> Serve:
    """What one of the processes does (see `crew`)."""
    told = msgspec.msgpack.decode(order, type=_Order)
    key = Key.from_master(told.master)

    def answer(text: bytearray, dir_fd: int) -> bytes:
        task = msgspec.msgpack.decode(text, type=_Task)
        files = zip(task.names, task.owners, strict=True)
        return msgspec.msgpack.encode(
            [_read(dir_fd, name, owner, _Collector(key, told.level)) for name, owner in files]
        )

    return answer


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


def _read(dir_fd: int, name: bytes, owner: int, sink: _Collector) -> Sealed | None:
    try:
        content = Reader(sink, 0, None).read(dir_fd, name, owner)
    except (OSError, BufferError):
        return None
    if content.size > WHOLE:  # it has grown: then the repository's own seed decides where it is cut
        return None
    return Sealed(file_node(name, content), content.size, content.error, sink.head, sink.blobs)
