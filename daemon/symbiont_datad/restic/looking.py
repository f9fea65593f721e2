"""What lstat says of all entries of a directory; of very many, by two processes at once, and ahead of time.

Nearly all the time of a listing goes into the calls themselves, for which Python has one core. Where there is a second
one, another process begins with what is last, and both go on until they meet. It starts in 10 ms, because it loads next
to nothing, and it is no loss when it can't be had: then one process does it all.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from operator import methodcaller
from select import select
from struct import Struct
from threading import Thread
from typing import IO, Self

from symbiont_datad.restic.facts import Facts, facts_of

MANY = 20_000
"""Entries from which on a second process saves more than it costs."""

_AT_ONCE = 1024
"""Entries that are looked at in one go, so that no line of Python runs for each."""

_LARGE = 512 << 10
"""The size (bytes) of a directory that has about so many: file systems need 20 bytes and more for each."""

_FRESH_S = 1.0
"""So old may be what was seen ahead. It is less than the time in which a file that has changed is not trusted yet
(see `known`): whoever goes by the time at which the listing was asked for is right as well."""

_LENGTH = Struct("<Q")
_HEAD = Struct("<QqII")
"""An answer's beginning: bytes, youngest ctime, regular files, and how many are none, whose positions come next."""

_FIRST, _LAST = -(2**63), 2**63 - 1
_POSITION = Struct("<I")
_AHEAD = "ahead"
_PROGRAM = f"from {__name__} import main; main()"

_encoded = methodcaller("encode", "utf-8", "surrogateescape")

Part = tuple[Sequence[bytes], Facts | None]
"""Names, and what is to be said of them: None if one of them could not be looked at."""

_ahead: "dict[tuple[int, int], _Other]" = {}
"""Who has begun with which directory, by its device and inode."""


def look_at_all(fd: int, omit: Collection[bytes]) -> list[Part]:
    """All entries of an open directory but those in `omit`, in the order in which the file system names them.

    Raises OSError when the directory can't be read.
    """
    names, done, other = _beginning(fd, omit)
    work = _Work(names, done)
    if other is None:
        work.take(fd)
    else:
        with other:
            beside = Thread(target=work.have_taken, args=(other,), name="look")
            beside.start()
            work.take(fd)
            beside.join()
        work.take_what_is_left(fd)
    return work.parts


def look_ahead(fd: int) -> None:
    """Have another process begin with an open directory, if it seems to be large. `look_at_all` joins it, if that is
    called within a second; until then this process may be busy with something else.
    """
    own = os.fstat(fd)
    if own.st_size >= _LARGE and _cores() > 1 and (other := _Other.start(fd, _AHEAD)) is not None:
        _ahead[own.st_dev, own.st_ino] = other


def forget_ahead() -> None:
    """Give up what nobody has asked for."""
    while _ahead:
        _ahead.popitem()[1].end()


def _beginning(fd: int, omit: Collection[bytes]) -> "tuple[list[bytes], list[Facts | None], _Other | None]":
    """All names, what is known of the last parts of them, and who helps with the rest."""
    if _ahead:
        own = os.fstat(fd)
        other = _ahead.pop((own.st_dev, own.st_ino), None)
        if other is not None:
            with suppress(OSError, EOFError):
                if not omit and time.monotonic() - other.began < _FRESH_S:
                    return *other.report(), other
            other.end()
    names = _names_in(fd)
    if omit:
        names = [name for name in names if name not in omit]
    return names, [], _Other.start(fd) if len(names) >= MANY and _cores() > 1 else None


class _Work:
    """The parts of a directory: two may take from them at once."""

    def __init__(self, names: Sequence[bytes], done: Sequence[Facts | None]) -> None:
        """`done`: what is known of the last parts."""
        self._names = _parts(names)
        self._looks = [*(None for _ in range(len(self._names) - len(done))), *done]
        self._ahead = deque(range(len(self._names) - len(done)))
        self._left: set[int] = set()

    @property
    def parts(self) -> list[Part]:
        """What is known by now."""
        return list(zip(self._names, self._looks, strict=True))

    def take(self, fd: int) -> None:
        """Look at what is ahead, the first first."""
        with suppress(IndexError):
            while True:
                at = self._ahead.popleft()
                try:
                    self._looks[at] = _look(fd, self._names[at])
                except OSError:
                    self._left.add(at)

    def have_taken(self, other: "_Other") -> None:
        """Have another process look at what is ahead, the last first."""
        with suppress(OSError, EOFError, IndexError):
            while True:
                at = self._ahead.pop()
                self._looks[at] = other.look(self._names[at])

    def take_what_is_left(self, fd: int) -> None:
        """Look at what the other process has not done."""
        self._ahead.extend(at for at, facts in enumerate(self._looks) if facts is None and at not in self._left)
        self.take(fd)


def _look(fd: int, names: Sequence[bytes]) -> Facts:
    """What lstat says of these names. Raises OSError for the first that can't be looked at."""
    return facts_of(map(partial(os.stat, dir_fd=fd, follow_symlinks=False), names))


def _names_in(fd: int) -> list[bytes]:
    return list(map(_encoded, os.listdir(fd)))


def _parts(names: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Other:
    """The other process, seen from the one that asks."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.began = time.monotonic()
        self._process = process
        self._asking, self._answers = process.stdin, process.stdout

    @classmethod
    def start(cls, fd: int, ahead: str = "") -> Self | None:
        """Start one for a directory; None if none can be had."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-S", "-c", _PROGRAM, str(fd), ahead],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(fd,),
                process_group=0,  # Ctrl-C is for the one that asks
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        except OSError:
            return None
        return cls(process)

    def look(self, names: Sequence[bytes]) -> Facts | None:
        """What lstat says of these names; None if one can't be looked at. Raises OSError or EOFError if it is gone."""
        _send(self._asking, b"/".join(names))  # no name has a slash in it
        return _unpack(_receive(self._answers))

    def report(self) -> tuple[list[bytes], list[Facts | None]]:
        """All names, and what one that was started to look ahead has found of the last parts of them. Raises as `look`
        does.
        """
        _send(self._asking, b"")
        names = _receive(self._answers)
        (count,) = _LENGTH.unpack(_receive(self._answers))
        done = [_unpack(_receive(self._answers)) for _ in range(count)]
        return names.split(b"/") if names else [], done[::-1]

    def end(self) -> None:
        """Have it end."""
        with suppress(BrokenPipeError), self._process:  # closes the pipes, and waits
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


# The other process itself


def main() -> None:
    """Answer until nobody asks any more. The directory's descriptor is the first argument; with a second one, begin
    with what is last until somebody asks.
    """
    fd, ahead = int(sys.argv[1]), sys.argv[2] == _AHEAD
    asking, answers = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, OSError, KeyboardInterrupt):
        if ahead:
            names = _names_in(fd)
            done = []
            for part in reversed(_parts(names)):
                if select([asking], [], [], 0)[0]:
                    break
                done.append(_answer(fd, part))
            _receive(asking)
            for text in (b"/".join(names), _LENGTH.pack(len(done)), *done):
                _send(answers, text)
        while True:
            _send(answers, _answer(fd, _receive(asking).split(b"/")))
    os._exit(0)  # at once: there is nothing to tidy up, and nobody to be told that nobody listens


def _answer(fd: int, names: Sequence[bytes]) -> bytes:
    try:
        facts = _look(fd, names)
    except OSError:
        return b""
    latest_ns = min(max(facts.latest_ns, _FIRST), _LAST)
    head = _HEAD.pack(facts.size, latest_ns, facts.files, len(facts.others))
    return b"".join((head, *map(_POSITION.pack, facts.others), facts.packed))


def _unpack(answer: bytes) -> Facts | None:
    if not answer:
        return None
    size, latest_ns, files, others = _HEAD.unpack_from(answer)
    start = _HEAD.size + others * _POSITION.size
    positions = [position for (position,) in _POSITION.iter_unpack(answer[_HEAD.size : start])]
    return Facts(answer[start:], positions, files, size, latest_ns)


def _send(to: IO[bytes], text: bytes) -> None:
    to.write(_LENGTH.pack(len(text)))
    to.write(text)
    to.flush()


def _receive(of: IO[bytes]) -> bytes:
    """A message. Raises EOFError when there comes no whole one any more."""
    head = of.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    length = _LENGTH.unpack(head)[0]
    text = of.read(length)
    if len(text) < length:
        raise EOFError
    return text
