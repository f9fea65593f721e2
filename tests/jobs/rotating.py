"""A rotation in a process of its own that dies at a named call, or is killed from outside at any moment."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from symbiont_datad.fsops import collapse, swap
from symbiont_datad.jobs import rotation
from symbiont_datad.jobs.context import JobSettings
from tests.jobs.making import NOW, run

_SETTLE_S = 0.01

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__, "symbiont_datad.jobs.rotate"])


@dataclass(frozen=True, slots=True)
class Death:
    """Where a process dies: instead of its call number `at` of those that change something on a disk.

    With `after` it dies as soon as that call has done its work; a write in place is then done by half only.
    """

    at: int
    after: bool


def start(settings: JobSettings, death: Death | None = None, *, endless: bool = False, now: float = NOW) -> BaseProcess:
    """A process that rotates, once or over and over. It is forked from one that has everything imported."""
    process = _processes.Process(target=_rotate, args=(settings, death, endless, now))
    process.start()
    return process


def died(settings: JobSettings, death: Death, now: float = NOW) -> bool:
    """Whether a rotation comes to the call at which it is to die; else it ended as it should."""
    process = start(settings, death, now=now)
    process.join(60)
    code = process.exitcode
    assert code in (0, -signal.SIGKILL), f"{death}: exit code {code}"
    return code != 0


def _rotate(settings: JobSettings, death: Death | None, endless: bool, now: float) -> None:
    rotation.SETTLE_S = _SETTLE_S
    if death is not None:
        _Doom(death).arm()
    while True:
        report = run("rotate", settings, now=now).report
        if not endless:
            assert report.outcome in ("done", "left"), report
            return


class _Doom:
    """Counts the calls that change something, and ends the process at one of them."""

    def __init__(self, death: Death) -> None:
        self._death = death
        self._calls = 0

    def arm(self) -> None:
        for name in ("rename", "unlink", "fsync", "fdatasync", "pwrite", "ftruncate", "link", "utime", "fchmod"):
            setattr(os, name, self._doomed(getattr(os, name), half=name == "pwrite"))
        swap._renameat2 = self._doomed(swap._renameat2)
        collapse._collapse = self._doomed(collapse._collapse)

    def _doomed(self, call: Callable[..., Any], *, half: bool = False) -> Callable[..., Any]:
        def doomed(*arguments: Any, **named: Any) -> Any:
            self._calls += 1
            if self._calls != self._death.at:
                return call(*arguments, **named)
            if self._death.after:
                if half:
                    fd, data, *rest = arguments
                    arguments = (fd, data[: len(data) // 2], *rest)
                with suppress(OSError):
                    call(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return doomed
