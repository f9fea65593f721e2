"""The status page, made when somebody asks, in a thread of its own that ends when nobody does.

What makes the page is imported by that thread: a daemon that nobody looks at carries none of it.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from symbiont_datad.service.request import Answer

_FRESH_S = 1.0
"""So long a page is good for others who ask for the same."""
_IDLE_S = 30.0
_WAITING = 8
"""Pages that wait to be made; who asks for one more is sent away."""
_KEPT = 8
_REST = 3
"""So many times longer than a page took, the next one waits."""
_INTERVAL_S = 0.0005
"""While a page is made the interpreter's lock changes hands this often, instead of every 5 ms: a repair asks for it a
dozen times."""

Render = Callable[[str, Path, str], Answer]


class Pages:
    """Pages for queries. `render` makes one of the data directory, the daemon's own, and the query."""

    def __init__(self, root: Callable[[], str], daemon_dir: Callable[[], Path], render: Render | None = None) -> None:
        self._root = root
        self._daemon_dir = daemon_dir
        self._render = render or _render
        self._lock = threading.Lock()
        self._asked: queue.Queue[str] = queue.Queue()
        self._coming: dict[str, Future[Answer]] = {}
        self._made: dict[str, tuple[float, Answer]] = {}
        self._running = False

    def answer(self, query: str) -> Answer | Future[Answer]:
        """The page for a query: at once where it is fresh, else when it is made."""
        with self._lock:
            made = self._made.get(query)
            if made is not None and time.monotonic() - made[0] < _FRESH_S:
                return made[1]
            if query in self._coming:
                return self._coming[query]
            if len(self._coming) >= _WAITING:
                return Answer(503, b"busy\n")
            coming = self._coming[query] = Future[Answer]()
            self._asked.put(query)
            if not self._running:
                self._running = True
                threading.Thread(target=self._loop, name="page", daemon=True).start()
        return coming

    def _loop(self) -> None:
        while True:
            try:
                query = self._asked.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._asked.empty():
                        self._running = False
                        self._made.clear()
                        return
                continue
            begun = time.monotonic()
            self._make(query)
            # At most a quarter of one processor is for pages, however many ask.
            time.sleep(min(_REST * (time.monotonic() - begun), 1.0))

    def _make(self, query: str) -> None:
        try:
            with _yielding():
                answer = self._render(self._root(), self._daemon_dir(), query)
        except Exception as error:  # whoever asked hears of it; the thread goes on
            with self._lock:
                coming = self._coming.pop(query)
            coming.set_exception(error)
            return
        with self._lock:
            self._made[query] = time.monotonic(), answer
            while len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]
            coming = self._coming.pop(query)
        coming.set_result(answer)


@contextmanager
def _yielding() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _render(root: str, daemon_dir: Path, query: str) -> Answer:
    from symbiont_datad.service.page.document import answer

    return answer(root, daemon_dir, query, time.time())
