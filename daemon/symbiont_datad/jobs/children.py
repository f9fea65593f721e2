"""The jobs that are under way, each in a process of its own."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from symbiont_datad.errors import Locked
from symbiont_datad.events import emit
from symbiont_datad.jobs.context import JobSettings, Progress
from symbiont_datad.jobs.runner import Child
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import JobReport, Outcome

_STEP_S = 0.02


class Children:
    """Runs jobs for the daemon, and ends them with it.

    All calls may come from several threads at once.
    """

    def __init__(
        self,
        settings: Callable[[], JobSettings],
        ledger: Callable[[], Ledger],
        is_stopping: Callable[[], bool],
        on_progress: Callable[[], None],
    ) -> None:
        """`settings` and `ledger` of the moment, and whether the daemon is about to end. `on_progress` is called after
        each change of a job's progress.
        """
        self._settings = settings
        self._ledger = ledger
        self._is_stopping = is_stopping
        self._on_progress = on_progress
        self._children: dict[str, Child] = {}
        self._starting = threading.Lock()

    def run(self, name: str, last: bool = False) -> JobReport | None:
        """Run a job and wait for it; None when another run of it is under way.

        `last`: it may run although the daemon is about to end.
        """
        try:
            with self._starting:
                child = self._children[name] = Child(name, self._settings())
            if self._is_stopping() and not last:  # `stop` may not have seen it
                child.stop()
            try:
                report = child.wait(self._on_progress)
            finally:
                del self._children[name]
        except Locked as error:
            emit("job_skipped", job=name, reason=str(error))
            return None
        except OSError as error:  # no process, no memory: the next run may have more luck
            emit("job_failed", job=name, reason=str(error))
            return JobReport(name, Outcome.FAILED, time.time(), 0.0, message=str(error))
        if report.lost and not self._is_stopping():  # nobody else has said so
            emit("job_failed", job=name, reason=report.message)
            with suppress(LedgerError):
                self._ledger().count_lost(report)
        return report

    def progress(self) -> Mapping[str, Progress | None]:
        """The jobs that run, and how far each is, as it told last."""
        return {name: child.progress for name, child in self._children.copy().items()}

    @contextmanager
    def pids(self) -> Iterator[set[int]]:
        """Their process ids; no other one starts while the block runs."""
        with self._starting:
            yield {child.pid for child in list(self._children.values())}

    def stop(self, but: Collection[str] = ()) -> None:
        """Ask all but these to end between two steps."""
        for name, child in list(self._children.items()):
            if name not in but:
                child.stop()

    def wait(self, until: float) -> None:
        """Wait for the end of all, until this time of the monotonic clock."""
        while self._children and time.monotonic() < until:
            time.sleep(_STEP_S)

    def kill(self) -> None:
        """End all at once."""
        for child in list(self._children.values()):
            child.kill()
