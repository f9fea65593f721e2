"""Metrics for those who ask over HTTP, and in a file for node_exporter's textfile collector.

A thread of its own gathers and renders, so that who answers requests waits for nothing. What it has rendered serves for
a second, however many ask; while nobody asks, and there is no file to write, it sleeps. Neither the thread nor the
library for it is there before the metrics are wanted.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.root import Tree, resolve
from symbiont_datad.fsops.write import write_atomic
from symbiont_datad.service.figures import Facts, figures
from symbiont_datad.service.request import Answer

_FRESH_S = 1.0
"""So long what was rendered is the answer."""
_SLOW_S = 1.0
"""After so long a time of gathering, who asks gets what there was before."""


@dataclass(frozen=True, slots=True)
class Textfile:
    """A file that is to have the metrics, and the seconds between two writes of it."""

    path: Path
    every_s: float


class Meter:
    """Has the metrics as text. `gather` hands over the facts, in the meter's thread.

    `problem` says in words why the file can't be written; it is empty when it can.
    """

    def __init__(self, gather: Callable[[], Facts]) -> None:
        self._gather = gather
        self._textfile: Textfile | None = None
        self._tree: str | None = None
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._answer: Answer | None = None
        self._rendered_at = 0.0
        self._coming: Future[Answer] | None = None
        self._asked_at = 0.0
        self._lock = threading.Lock()
        self._failed = False
        self._next_write = 0.0
        self.problem = ""

    def follow(self, textfile: Textfile | None, tree: str | None) -> None:
        """Write this file from now on, and give every metric the label `tree`; None: no file, no label."""
        if (textfile, tree) == (self._textfile, self._tree) and (textfile is None or self._alive()):
            return
        if textfile is None:
            self.problem = ""
        self._textfile, self._tree = textfile, tree
        self._next_write = 0.0
        if textfile is not None:
            self._start()
        self._wanted.set()

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def answer(self) -> Answer | Future[Answer]:
        """The metrics, hardly older than a second; at once where there are such, else when they are gathered."""
        with self._lock:
            now = time.monotonic()
            if self._answer is not None and now - self._rendered_at < _FRESH_S:
                return self._answer
            if self._coming is None:
                self._coming, self._asked_at = Future(), now
                self._start()
                self._wanted.set()
            elif self._answer is not None and now - self._asked_at > _SLOW_S:
                return self._answer
            return self._coming

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self) -> None:
        if not self._alive():
            self._thread = threading.Thread(target=self._loop, name="metrics", daemon=True)
            self._thread.start()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            textfile = self._textfile
            patience = None if textfile is None else max(self._next_write - time.monotonic(), 0.0)
            self._wanted.wait(patience)
            self._wanted.clear()
            if self._stopping.is_set():
                return
            body = self._render()
            if textfile is not None and time.monotonic() >= self._next_write:
                self._next_write = time.monotonic() + textfile.every_s
                self._write(textfile.path, body)

    def _render(self) -> bytes:
        """Gather and render anew; hand back the text, which is empty when that went wrong."""
        from symbiont_datad.service.exposition import CONTENT_TYPE, rendered  # only where it is wanted: memory

        try:
            answer = Answer(200, rendered(figures(self._gather()), self._tree), CONTENT_TYPE)
            self._failed = False
        except Exception as error:  # whatever it is, the thread must outlive it, and nobody gets old figures for new
            if not self._failed:
                self._failed = True
                emit("metrics_failed", reason=f"{type(error).__name__}: {error}")
            answer = Answer(500, b"the metrics could not be gathered\n")
        with self._lock:
            self._answer, self._rendered_at = answer, time.monotonic()
            coming, self._coming = self._coming, None
        if coming is not None:
            coming.set_result(answer)
        return answer.body if answer.status == 200 else b""

    def _write(self, path: Path, body: bytes) -> None:
        try:
            if not body:
                raise OSError("they could not be gathered")
            directory, name = os.path.split(path)
            with Tree(resolve(directory)).root() as fd:
                write_atomic(fd, name, body, 0o644, durable=False)
        except (OSError, UnsafePath) as error:
            found = f"metrics.textfile can't be written: {getattr(error, 'strerror', None) or error}"
            if found != self.problem:
                emit("metrics_failed", path=str(path), reason=found)
            self.problem = found
        else:
            self.problem = ""
