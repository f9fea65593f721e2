"""Carrying a removal out: the rows of the ledger first, then the files, then the rows confirmed.

While one batch of files is unlinked, the rows of the one before are confirmed and those of the next are written: SQLite
works on one core, and the file system on the other. A batch is unlinked by a few threads, because an unlink often waits
for the disk (an ext4 without a journal discards the blocks of each file at once), and each waits for itself.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from symbiont_datad.events import emit
from symbiont_datad.fsops.remove import Failure, remove
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action

BATCH = 1000
"""How many files go between two looks at `stopping()`; also the rows of one transaction."""

_THREADS = 8
_FEW = 64  # files that one thread removes sooner than several
_ATTEMPTS = 3  # batches in a row that the ledger refuses (it waits seconds for a lock) before it is not asked again


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

    A batch whose rows could not be written before is written down afterwards: by then it has made room on a full disk.
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._failures = 0
        self._told = False

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
        try:
            if rows is not None:
                self._context.ledger.confirm(self._context.run, [failure.path for failure in failed], rows)
            elif self._failures < _ATTEMPTS:
                self._context.ledger.record(done, self._context.now, self._context.run)
                self._failures = 0
        except LedgerError as error:
            self._failed(error)

    def _failed(self, error: LedgerError) -> None:
        self._failures += 1
        if not self._told:
            self._told = True
            emit("ledger_failed", reason=str(error))


def remove_recorded(context: JobContext, book: Book, planned: Sequence[Planned]) -> Removed:
    """Remove what is planned, batch by batch. Fastest in the order of the paths: the ledger's index is in that order.

    A kill at any time leaves no removed file without a row.
    """
    done: list[Action] = []
    failures: list[Failure] = []
    interrupted = False
    with ThreadPoolExecutor(_THREADS) as pool:
        under_way: _UnderWay | None = None
        for start in range(0, len(planned), BATCH):
            if context.stopping():
                interrupted = True
                break
            batch = planned[start : start + BATCH]
            rows = book.plan([one.action for one in batch])
            failed = under_way.wait() if under_way else []
            following = _UnderWay(context, pool, batch, rows)
            if under_way:
                _close(book, under_way, failed, done, failures)
            under_way = following
        if under_way:
            _close(book, under_way, under_way.wait(), done, failures)
    return Removed(done, failures, interrupted)


class _UnderWay:
    """A batch that is being removed."""

    def __init__(
        self, context: JobContext, pool: ThreadPoolExecutor, batch: Sequence[Planned], rows: range | None
    ) -> None:
        self.batch = batch
        self.rows = rows
        entries = [one.entry for one in batch]
        size = -(-len(entries) // _THREADS) if len(entries) > _FEW else len(entries)
        tree = context.layout.tree
        self._parts: list[Future[list[Failure]]] = [
            pool.submit(remove, tree, entries[start : start + size]) for start in range(0, len(entries), size)
        ]

    def wait(self) -> list[Failure]:
        return [failure for part in self._parts for failure in part.result()]


def _close(book: Book, batch: _UnderWay, failed: list[Failure], done: list[Action], failures: list[Failure]) -> None:
    kept = {failure.path for failure in failed}
    removed = [one.action for one in batch.batch if one.entry.path not in kept]
    book.confirm(batch.rows, removed, failed)
    done += removed
    failures += failed
