"""Small files of a restore, opened, unpacked and written by other processes (see `crew`).

A process gets what is wanted of a piece of a pack (see `wanted`), with the descriptor of the directory that it is for,
reads the piece itself, and answers with what it left: a blob that is damaged, a file that can't be made. That is for
the one who asks to try once more, and to tell.
"""

import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from symbiont_datad.restic.backend import Backend
from symbiont_datad.restic.crew import Crew, Serve
from symbiont_datad.restic.crypto import Key
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.filling import Owner, make_small
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.notes import small_of
from symbiont_datad.restic.wanted import note_of, read_group

_TICK_NS = 10_000_000
"""So far a file's time may be behind the clock: file systems look at it once in a tick of the system, at 100 Hz."""


class _Order(msgspec.Struct, array_like=True, gc=False):
    """Where the repository is, and its master key as in a key file. The first thing that a process is told."""

    location: str
    master: bytes


class _Task(msgspec.Struct, array_like=True, gc=False):
    """What is wanted of a piece of a pack, all of it small files."""

    pack: str
    wanted: list[bytes]


class Done(msgspec.Struct, array_like=True, gc=False):
    """What came of it: so many files, and their size in bytes in sum.

    `left`: what is still wanted; `failed`: names of files whose metadata could not be set, with errno and reason.
    """

    files: int
    size: int
    left: Sequence[bytes]
    failed: Sequence[tuple[bytes, int, str]]


def unsealing_crew(backend: Backend, key: Key) -> Crew | None:
    """Processes that write files of a repository in a directory; None elsewhere, where it is the network that takes the
    time."""
    if type(backend) is not LocalBackend:
        return None
    return Crew(__name__, msgspec.msgpack.encode(_Order(backend.location, key.to_master())))


def make_files(crew: Crew, dir_fd: int, pack: str, wanted: list[bytes]) -> Done:
    """Have the crew make these files, none of which may be there. A process that was killed has left none.

    The directory must be one that the restore has made: when a process is killed, what has one of the names and was
    made since it was asked counts as its own.
    """
    began = time.time_ns() - _TICK_NS
    answer = crew.ask(msgspec.msgpack.encode(_Task(pack, wanted)), dir_fd)
    if answer is not None:
        return msgspec.msgpack.decode(answer, type=Done)
    for one in wanted:
        _remove_since(dir_fd, small_of(note_of(one)).name, began)
    return Done(0, 0, wanted, ())


def _remove_since(dir_fd: int, name: bytes, began: int) -> None:
    """Remove a file that was made since then."""
    with suppress(OSError):
        found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_ctime_ns >= began:
            os.unlink(name, dir_fd=dir_fd)


def serve(order: bytes) -> Serve:
    """What one of the processes does."""
    told = msgspec.msgpack.decode(order, type=_Order)
    backend, key = LocalBackend(told.location), Key.from_master(told.master)

    def answer(text: bytearray, dir_fd: int) -> bytes:
        task = msgspec.msgpack.decode(text, type=_Task)
        done = files = 0
        left: list[bytes] = []
        failed: list[tuple[bytes, int, str]] = []
        born: Owner | None = None
        try:
            for wanted, plain in read_group(backend, key, task.pack, task.wanted):
                if isinstance(plain, str):
                    left += wanted
                    continue
                for one in wanted:
                    small = small_of(note_of(one))
                    try:
                        born, failure = make_small(dir_fd, small, plain, born, overwrite=False)
                    except OSError:
                        left.append(one)
                        continue
                    files += 1
                    done += len(plain)
                    if failure is not None:
                        failed.append((small.name, failure.errno or 0, failure.strerror or str(failure)))
        except RepositoryError:  # the storage is away
            return msgspec.msgpack.encode(Done(0, 0, task.wanted, ()))
        return msgspec.msgpack.encode(Done(files, done, left, failed))

    return answer
