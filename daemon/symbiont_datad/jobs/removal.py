"""Carrying a plan out: the rows of the ledger first, then the files, then the rows confirmed.

While one batch of files is removed, the rows of the one before are confirmed and those of the next are written: SQLite
works on one core, and the file system on the other. A batch is unlinked by a few threads, because an unlink often waits
for the disk (an ext4 without a journal discards the blocks of each file at once), and each waits for itself.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from symbiont_datad.events import emit
from symbiont_datad.fsops.remove import Failure, remove
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext, Progress
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action

BATCH = 1000
"""How many files go between two looks at `stopping()`; also the rows of one transaction."""

_THREADS = 8
_FEW = 64  # files that one thread removes sooner than several
_ATTEMPTS = 3  # times in a row that the ledger refuses (it waits seconds for a lock) before it is asked less often

T = TypeVar("T")


class Planned(NamedTuple):
    """One file to remove and the action that tells of it."""

    entry: Entry
    action: Action


class Removed(NamedTuple):
    """What was done, what was not, and whether `stopping()` ended it."""

    actions: list[Action]
    failures: list[Failure]
    interrupted: bool


class Book:
    """The rows of a run's actions. A ledger that can't be written is told of once, and the work goes on.

    What could not be written down before is written down afterwards: by then it has made room on a full disk. What
    can't be even then is kept, and tried again at the end (`settle`).
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._failures = 0
        self._told = False
        self._unwritten: list[Action] = []
        self._unconfirmed: list[tuple[range, list[str]]] = []

    def plan(self, actions: Sequence[Action]) -> range | None:
        """Write down what is about to happen; None when that was not possible."""
        if self._failures >= _ATTEMPTS:
            return None
        try:
            rows = self._context.ledger.plan(actions, self._context.now, self._context.run)
        except LedgerError as error:
            self._failed(error)
            return None
        self._failures = 0
        return rows

    def confirm(self, rows: range | None, done: Sequence[Action], failed: Sequence[Failure]) -> None:
        """Write down how it went."""
        if rows is None:
            self._unwritten += done
        else:
            self._unconfirmed.append((rows, [failure.path for failure in failed]))
        if self._failures < _ATTEMPTS or rows is not None:
            self.settle()

    def settle(self) -> bool:
        """Write down what could not be written down before; whether all is written down by now."""
        ledger, run = self._context.ledger, self._context.run
        try:
            while self._unconfirmed:
                rows, failed = self._unconfirmed[0]
                ledger.confirm(run, failed, rows)
                del self._unconfirmed[0]
            if self._unwritten:
                ledger.record(self._unwritten, self._context.now, run)
                self._unwritten = []
                self._failures = 0
        except LedgerError as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if not self._told:
            self._told = True
            emit("ledger_failed", reason=str(error))


def remove_recorded(context: JobContext, book: Book, planned: Sequence[Planned]) -> Removed:
    """Remove what is planned, batch by batch. Fastest in the order of the paths: the ledger's index is in that order.

    A kill at any time leaves no removed file without a row.
    """
    entries, actions = [one.entry for one in planned], [one.action for one in planned]
    return carry_out(context, book, entries, actions, partial(remove, context.layout.tree), threads=_THREADS)


def carry_out(
    context: JobContext,
    book: Book,
    things: Sequence[T],
    actions: Sequence[Action],
    work: Callable[[Sequence[T]], list[Failure]],
    *,
    threads: int = 1,
    batch: int = 0,
    phase: str = "remove",
) -> Removed:
    """Do `work` to all things, a `batch` at a time (0: `BATCH`), each batch in up to so many `threads`.

    The actions are those of the things, in the same order and with their paths. `work` hands back what it left, by
    these paths. `phase`: what the job's progress calls it.
    """
    context.progress.begin(phase, len(actions), sum(action.bytes for action in actions))
    done: list[Action] = []
    failures: list[Failure] = []
    interrupted = False
    size = batch or BATCH
    with ThreadPoolExecutor(threads) as pool:
        under_way: _UnderWay[T] | None = None
        for start in range(0, len(things), size):
            if context.stopping():
                interrupted = True
                break
            some = actions[start : start + size]
            rows = book.plan(some)
            failed = under_way.wait() if under_way else []
            following = _UnderWay(pool, threads, things[start : start + size], some, rows, work)
            if under_way:
                _close(context.progress, book, under_way, failed, done, failures)
            under_way = following
        if under_way:
            _close(context.progress, book, under_way, under_way.wait(), done, failures)
    return Removed(done, failures, interrupted)


class _UnderWay(Generic[T]):
    """A batch that is being worked on."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        threads: int,
        things: Sequence[T],
        actions: Sequence[Action],
        rows: range | None,
        work: Callable[[Sequence[T]], list[Failure]],
    ) -> None:
        self.actions = actions
        self.rows = rows
        size = -(-len(things) // threads) if len(things) > _FEW else len(things)
        self._parts: list[Future[list[Failure]]] = [
            pool.submit(work, things[start : start + size]) for start in range(0, len(things), size)
        ]

    def wait(self) -> list[Failure]:
        return [failure for part in self._parts for failure in part.result()]


def _close(
    progress: Progress,
    book: Book,
    batch: "_UnderWay[T]",
    failed: list[Failure],
    done: list[Action],
    failures: list[Failure],
) -> None:
    kept = {failure.path for failure in failed}
    finished = [action for action in batch.actions if action.path not in kept]
    progress.files += len(batch.actions)
    progress.bytes += sum(action.bytes for action in batch.actions)
    book.confirm(batch.rows, finished, failed)
    done += finished
    failures += failed
