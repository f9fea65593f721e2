"""A rotation in a process of its own that dies at a named call, or is killed from outside at any moment."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from multiprocessing.process import BaseProcess
from typing import Any

from symbiont_datad.fsops import collapse, rename
from symbiont_datad.jobs import rotation
from symbiont_datad.jobs.context import JobSettings
from tests.jobs.making import NOW, run

_SETTLE_S = 0.01
_MET = 77

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "symbiont_datad.jobs.rotate"])


class How(Enum):
    """What happens at a call."""

    KILLED_BEFORE = "killed before the call"
    KILLED_AFTER = "killed after the call"
    FAILS = "the call fails"
    KILLED_WITHIN = "killed within the call"
    """Only calls count that can be done by half: a write in place, and a collapse, which then leaves NUL bytes."""
    FAILS_WITHIN = "the call fails half done"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens at the call number `at` of those that change something on a disk."""

    at: int
    how: How


def start(
    settings: JobSettings, trouble: Trouble | None = None, *, endless: bool = False, now: float = NOW
) -> BaseProcess:
    """A process that rotates, once or over and over. It is forked from one that has everything imported."""
    process = _processes.Process(target=_rotate, args=(settings, trouble, endless, now))
    process.start()
    return process


def met(settings: JobSettings, trouble: Trouble, now: float = NOW) -> bool:
    """Whether a rotation came to the call at which there is trouble; else it ended as it should."""
    process = start(settings, trouble, now=now)
    process.join(60)
    code = process.exitcode
    assert code in (0, _MET, -signal.SIGKILL), f"{trouble}: exit code {code}"
    return code != 0


def _rotate(settings: JobSettings, trouble: Trouble | None, endless: bool, now: float) -> None:
    rotation.SETTLE_S = _SETTLE_S
    maker = _Maker(trouble) if trouble is not None else None
    while True:
        report = run("rotate", settings, now=now).report
        if maker is not None and maker.made:
            os._exit(_MET)
        if not endless:
            assert report.outcome in ("done", "left"), report
            return


class _Maker:
    """Counts the calls that change something, and makes trouble at one of them."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._calls = 0
        self.made = False
        within = trouble.how in (How.KILLED_WITHIN, How.FAILS_WITHIN)
        if not within:
            for name in ("rename", "unlink", "fsync", "fdatasync", "ftruncate", "utime", "fchmod"):
                setattr(os, name, self._troubled(getattr(os, name)))
            rename.renameat2 = self._troubled(rename.renameat2)
        write, remove = os.pwrite, collapse._collapse
        os.pwrite = self._troubled(write, _half_written if within else write)
        collapse._collapse = self._troubled(remove, _half_collapsed if within else remove)

    def _troubled(self, call: Callable[..., Any], last: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """A call that makes trouble when it is its turn; `last` is what it does then."""

        def troubled(*arguments: Any, **named: Any) -> Any:
            self._calls += 1
            if self._calls != self._trouble.at:
                return call(*arguments, **named)
            self.made = True
            if self._trouble.how not in (How.KILLED_BEFORE, How.FAILS):
                with suppress(OSError):
                    (last or call)(*arguments, **named)
            if self._trouble.how in (How.FAILS, How.FAILS_WITHIN):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return troubled


_write, _collapse = os.pwrite, collapse._collapse


def _half_written(fd: int, data: bytes, offset: int) -> None:
    _write(fd, data[: len(data) // 2], offset)


def _half_collapsed(fd: int, length: int, offset: int = 0) -> None:
    """As xfs leaves a file when a kill comes: all has moved, and the size is as it was."""
    size = os.fstat(fd).st_size
    _collapse(fd, length, offset)
    os.ftruncate(fd, size)
