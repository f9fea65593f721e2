"""Where the watcher's threads leave word of what may have changed, and the guard picks it up."""

import threading
from dataclasses import dataclass, field

PARENT = ".."
"""Stands for the directory that holds the root, among the paths that are watched."""

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """What came in since the last batch: paths, with true for those whose children matter too (see `Scope`).

    `everything` says that there was too much to tell, or that something was lost. `overflowed` says why: the kernel's
    queue did overflow.
    """

    paths: dict[str, bool] = field(default_factory=dict)
    everything: bool = False
    overflowed: bool = False

    def __bool__(self) -> bool:
        return bool(self.paths) or self.everything


class Hints:
    """A set of hints that threads add to and one thread takes from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._batch = Batch()

    def add(self, path: str, deep: bool = False, *, wake: bool = True) -> None:
        """Something happened to the directory at `path`; `deep` when what is in it is new too.

        Without `wake` nobody who waits is woken: the caller sees to it that the hint is taken.
        """
        with self._lock:
            batch = self._batch
            if batch.everything:
                return
            if len(batch.paths) >= _MOST and path not in batch.paths:
                self._batch = Batch({}, True, batch.overflowed)
            else:
                batch.paths[path] = deep or batch.paths.get(path, False)
        if wake:
            self._some.set()

    def add_everything(self, *, overflowed: bool = False, wake: bool = True) -> None:
        """Hints were lost, or a watch was: all must be looked at."""
        with self._lock:
            self._batch = Batch({}, True, self._batch.overflowed or overflowed)
        if wake:
            self._some.set()

    def wake_for_hints(self) -> None:
        """End a `take` that waits, if there are hints for it."""
        if self._batch:
            self._some.set()

    def wake(self) -> None:
        """End a `take` that waits, with whatever there is."""
        self._some.set()

    def take(self, timeout_s: float) -> Batch:
        """Wait for hints, at most `timeout_s` seconds, and take them all; the batch may be empty."""
        self._some.wait(timeout_s)
        with self._lock:
            self._some.clear()
            batch, self._batch = self._batch, Batch()
        return batch
