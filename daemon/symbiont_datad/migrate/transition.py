"""The time between a migration and its finish, as the daemon keeps it: links stay right, mirrors are kept in step.

While nothing is linked or mirrored there is no thread, and each look is one stat of the journal. Notices are hints: a
hint has single files looked at, and a scan of everything finds what no notice told of. How often it scans depends on
what a scan costs, so that it takes no more than a thousandth of a core however many files there are.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from symbiont_datad.errors import DatadError, Locked
from symbiont_datad.events import emit
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.migrate.target import Target
from symbiont_datad.report import Action, Legacy

if TYPE_CHECKING:
    from symbiont_datad.fsops.notice import Notices

_AGAIN_S = 2.0
_RETRY_S = (5.0, 60.0)


class Transition:
    """Keeps what a migration has left to be kept, and tells of what waits for one.

    `target` is asked for each time: a reload may change it. `run_job` runs a job by its name.
    """

    def __init__(
        self, target: Callable[[], Target], ledger: Callable[[], Ledger], run_job: Callable[[str], None]
    ) -> None:
        self._target, self._ledger, self._run_job = target, ledger, run_job
        self._waiting: tuple[Legacy, ...] = ()
        self._seen: tuple[int, ...] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._notices: Notices | None = None
        self._states: tuple[Legacy, ...] = ()
        self._told: tuple[Legacy, ...] = ()
        self._problem = ""

    def start(self) -> None:
        """Go on with what is to be kept, and look for data of before the tree, in a thread that ends then."""
        self.look()
        threading.Thread(target=self._look_for_legacy, name="legacy", daemon=True).start()

    def _look_for_legacy(self) -> None:
        """It is brought over if the settings ask for it; else somebody should know of it."""
        target = self._target()
        self._waiting = waiting(target)
        if self._waiting and target.automatic:
            self._run_job("migrate")
            self._waiting = waiting(target)
        for one in self._waiting:
            emit("legacy_data_found", path=one.path, kind=one.kind, command="symbiont-datad migrate")

    def look(self) -> bool:
        """See whether there is something to keep; called every few seconds. Whether something is new since then."""
        mark = _mark(self._target())
        if mark != self._seen and self._waiting:
            self._waiting = waiting(self._target())
        states = self.states()
        new = mark != self._seen or states != self._told
        self._told = states
        if mark != self._seen and not (self._thread is not None and self._thread.is_alive()):
            self._seen = mark
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="transition", daemon=True)
            self._thread.start()
        return new

    def stop(self) -> None:
        """End the thread, between two files."""
        self._stopping.set()
        if self._notices is not None:
            self._notices.wake()
        if self._thread is not None:
            self._thread.join(5.0)

    def states(self) -> tuple[Legacy, ...]:
        """The old places: those that wait for a migration, and how the others go on working."""
        return (*self._waiting, *self._states)

    def warnings(self) -> tuple[str, ...]:
        """What a person should know."""
        return (f"the old place can't be kept in step: {self._problem}",) if self._problem else ()

    # The thread

    def _run(self) -> None:
        """Until nothing is left to be kept."""
        from symbiont_datad.migrate.keeping import NOTHING_LEFT, Keeping  # here, because it loads much

        keeping = Keeping(self._target(), self._record)
        self._notices = keeping.notices
        wait_s, retries, mark = 0.0, 0, self._seen
        try:
            while not self._stopping.is_set():
                noticed = keeping.notices.wait(wait_s)
                if self._stopping.is_set():
                    return
                mark = _mark(self._target())
                try:
                    wait_s = keeping.turn(noticed)
                except Locked:  # a command is at work
                    keeping.doubt()
                    wait_s = _AGAIN_S
                except Exception as error:  # whatever it is: the thread must not end of it, and somebody be told
                    wait_s = min(_RETRY_S[0] * 2**retries, _RETRY_S[1])
                    retries += 1
                    keeping.doubt()
                    self._failed(str(error))
                else:
                    retries = 0
                    self._recovered()
                self._states = keeping.states()
                if wait_s == NOTHING_LEFT:
                    return
        finally:
            self._notices = None
            keeping.close()
            self._seen = mark  # as it was before the last turn: what a command did since is still to be seen

    def _record(self, actions: Sequence[Action]) -> None:
        if actions:
            with suppress(LedgerError):
                self._ledger().record(actions, time.time())

    def _failed(self, reason: str) -> None:
        if reason != self._problem:
            self._problem = reason
            emit("mirror_failed", reason=reason)

    def _recovered(self) -> None:
        if self._problem:
            self._problem = ""
            emit("mirror_resumed")


def waiting(target: Target) -> tuple[Legacy, ...]:
    """Legacy data that lies in old places and was not brought over; nothing where that can't be told."""
    from symbiont_datad.migrate.detect import detect, home_of, unmigrated

    try:
        sources = unmigrated(detect(target, os.getcwd(), home_of(os.environ), os.environ), target)
    except (DatadError, OSError):
        return ()
    return tuple(Legacy(source.path, source.kind, "not migrated", False, None, None, 0, 0) for source in sources)


def _mark(target: Target) -> tuple[int, ...] | None:
    """What tells one state of the journal from another; None when there is none."""
    mark: list[int] = []
    for path in (target.journal_path, target.journal_path.with_name(f"{target.journal_path.name}-wal")):
        try:
            found = os.stat(path)
        except OSError:
            continue
        mark += [found.st_ino, found.st_mtime_ns, found.st_size]
    return tuple(mark) or None
