"""How far a long command is: a bar on a terminal (stderr), lines of JSON with `--json` (stdout), else nothing.

A line of JSON is `{"message_type": "status", …}`, as restic has it, with the names that our own documents use. The last
line of the output is the document, with `"message_type": "summary"`.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from symbiont_datad.cli.show import SCHEMA
from symbiont_datad.quantities import format_duration, format_size
from symbiont_datad.report import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import Task, TaskID

    from symbiont_datad.jobs.context import Progress

_BAR_S, _LINE_S = 0.1, 1.0
"""Seconds between two looks: for a bar, for a line of JSON. What is over sooner prints none."""


@contextmanager
def watched(progress: "Progress", as_json: bool) -> Iterator[None]:
    """Show the progress for as long as the block runs; another thread looks at it, a few times a second."""
    show: _Lines | _Bar
    if as_json:
        show, interval = _Lines(), _LINE_S
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        show, interval = _Bar(), _BAR_S
    else:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(progress, show, interval, over), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        show.close()


def _follow(progress: "Progress", show: "_Lines | _Bar", interval: float, over: threading.Event) -> None:
    with suppress(OSError):  # nobody looks any more
        while not over.wait(interval):
            show(progress)


class _Lines:
    """Lines of JSON on stdout."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, now: "Progress") -> None:
        """Print one line."""
        now = _sensible(now)
        elapsed = time.monotonic() - self._started
        line: dict[str, Any] = {
            "schema": SCHEMA,
            "message_type": "status",
            "phase": now.phase,
            "elapsed_s": round(elapsed, 1),
            "files": now.files,
            "bytes": now.bytes,
        }
        if now.total_bytes or now.total_files:
            share = _share(now)
            line |= {"total_files": now.total_files, "total_bytes": now.total_bytes, "share_done": round(share, 4)}
            if share:
                line["remaining_s"] = round(elapsed * (1 - share) / share, 1)
        line["current"] = printable(now.current)
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is left to do."""


class _Bar:
    """A bar on stderr; it is gone when the work is done."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._phase = ""

    def __call__(self, now: "Progress") -> None:
        """Draw it as it is now."""
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        if self._task is None or now.phase != self._phase:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._phase = now.phase
            self._task = self._bar.add_task(now.phase, total=None, told="")
        now = _sensible(now)
        by_bytes = bool(now.bytes or now.total_bytes)
        self._bar.update(
            self._task,
            completed=now.bytes if by_bytes else now.files,
            total=(now.total_bytes if by_bytes else now.total_files) or None,
        )
        self._bar.update(self._task, told=_told(now, self._bar.tasks[-1]))

    def close(self) -> None:
        """Take it off the screen."""
        if self._bar is not None:
            self._bar.stop()


def _new_bar() -> "Bar":
    # rich costs 50 ms, which only those pay who see the bar.
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[told]}", markup=False),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def _sensible(now: "Progress") -> "Progress":
    """As it is now, without a total that was guessed and is passed: what is left is not known then."""
    if now.bytes <= now.total_bytes or not now.total_bytes:
        return replace(now)
    return replace(now, total_bytes=0, total_files=0)


def _told(now: "Progress", task: "Task") -> str:
    """Bytes, rate, files and the time left, as far as they are known, in 56 characters or so."""
    parts = []
    if now.total_bytes:
        parts.append(f"{format_size(now.bytes)} of {format_size(now.total_bytes)}")
    elif now.bytes:
        parts.append(format_size(now.bytes))
    if now.bytes and task.speed:
        parts.append(f"{format_size(int(task.speed))}/s")
    if now.files:
        of = f" of {now.total_files:,}" if now.total_files and not now.total_bytes else ""
        parts.append(f"{now.files:,}{of} files")
    if task.time_remaining is not None:
        parts.append(f"{format_duration(math.ceil(task.time_remaining))} left")
    return "  ".join(parts)


def _share(now: "Progress") -> float:
    """How much of it is done, from 0 to 1."""
    if now.total_bytes:
        return min(now.bytes / now.total_bytes, 1.0)
    return min(now.files / now.total_files, 1.0) if now.total_files else 0.0
