"""Locks of a repository: files that say who works on it, so that a prune never meets a backup.

Any number of shared locks may be held at once (backups, restores), or one exclusive lock and no other (prune). Taking
one goes as restic does it: look at the others, write, wait, look again. Two that write at the same time see each other
in the second look, and both step back. The wait is for storage that shows a new file late. On a file system of this
machine whoever looks sees all that was written before, so of two who write first and then look, one at least sees the
other without any wait (`settle_s` 0).

A lock is refreshed by writing a new file and then removing the old one. One that was not refreshed for STALE_S is
stale, and whoever finds it removes it; so its holder must stop in time (`HeldLock.check`).

**A pid says little where containers share a host name.** A dead process's lock is told from a living one's by its pid,
if the lock names the pid namespace that we are in as well (`namespace`, a field of ours that restic passes over). A
lock without one is restic's own: it is stale by its age alone. The other way round, `restic unlock` takes every lock
with its own host name for one of its own processes: it removes the lock if it can't find the pid, and otherwise *sends
that process a SIGHUP* to see whether it lives. A process in a container therefore writes a host name that no restic has
(`host/ns-…`), and restic goes by the age of its locks; any other holder of a lock has to survive a SIGHUP.

Source: restic `doc/design.rst`, "Locks", and restic 0.19 `lock_file.go`, `lock.go`, `lock_file_unix.go`.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from symbiont_datad.restic.errors import LockLost, RepositoryLocked
from symbiont_datad.restic.records import Lock, format_time, parse_time

STALE_S = 30 * 60.0
"""Age in seconds from which on a lock no longer counts. restic's own."""

_INTERVAL_S = 5 * 60.0
_VALID_S = STALE_S - 1.5 * _INTERVAL_S  # before it is stale, so that clocks may differ a little; as restic has it
SETTLE_S = 0.2
"""How long a new lock file may take until everybody sees it, in seconds. restic's own."""

_LOOKS = 5  # at a lock file that can't be read, before it counts as a lock
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0  # between two tries for a lock that somebody else holds


class LockStore(Protocol):
    """Where lock files lie. All calls may come from several threads at once, and may raise RepositoryError."""

    def lock_files(self) -> Iterator[tuple[str, Lock | None]]:
        """Name and content of every lock file; None when it can't be read: it is being written, removed, or broken."""

    def write_lock(self, lock: Lock) -> str:
        """Store a new lock file, and return its name, which no other has."""

    def remove_lock(self, name: str) -> None:
        """Remove a lock file; one that is not there is no error."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who takes locks.

    `namespace` names the space of numbers that `pid` is from, so that no other on any machine has the same name (the id
    of the boot and the inode of `/proc/self/ns/pid`); empty when unknown. `own_pid_space`: the process may share its
    host name with others that don't see its pid (it is in a container), so restic must not go by the pid.
    """

    hostname: str
    username: str
    pid: int
    uid: int
    gid: int
    namespace: str = ""
    own_pid_space: bool = False

    @property
    def lock_hostname(self) -> str:
        """The host name as its locks give it."""
        return f"{self.hostname}/ns-{self.namespace or 'own'}" if self.own_pid_space else self.hostname


def is_stale(lock: Lock, identity: Identity, now: float) -> bool:
    """Whether the lock's holder is gone, as far as can be told from here; `now` in seconds since the epoch.

    It is when it did not refresh the lock for STALE_S, or when its pid is dead and is certainly a number of our own.
    """
    try:
        if now - parse_time(lock.time).timestamp() > STALE_S:
            return True
    except (ValueError, OverflowError):
        pass  # who wrote that may still live
    same_numbers = lock.namespace != "" and lock.namespace == identity.namespace
    return same_numbers and lock.hostname == identity.lock_hostname and not _is_alive(lock.pid)


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return True  # no process, but groups of them; nothing can be told
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def unlock(store: LockStore, identity: Identity, *, all: bool = False, now: float | None = None) -> int:  # noqa: A002
    """Remove the stale locks, or all of them, also those that can't be read. Returns how many. Raises RepositoryError.

    With `all`, who holds a lock finds out within minutes (LockLost): nobody else should be at work then.
    """
    at = time.time() if now is None else now
    doomed = [name for name, lock in store.lock_files() if all or (lock is not None and is_stale(lock, identity, at))]
    for name in doomed:
        store.remove_lock(name)
    return len(doomed)


class HeldLock:
    """A lock that is held. `check` before anything is written or removed in the repository."""

    def __init__(
        self,
        store: LockStore,
        identity: Identity,
        *,
        exclusive: bool,
        valid_s: float,
        settle_s: float,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self.exclusive = exclusive
        self.name = ""
        """The name of its file; another one after each refresh."""
        self.failure: Exception | None = None
        """Why the last refresh failed; None when it did not."""
        self.refused: Exception | None = None
        """What the second look of an eager lock found against it; None when it found nothing, or is still to come."""
        self._store = store
        self._identity = identity
        self._valid_s = valid_s
        self._settle_s = settle_s
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._turn = threading.Lock()
        self._refreshed = (0.0, 0.0)
        self._lost = ""
        self._leftover: list[str] = []
        self._looked = threading.Event()

    def check(self) -> None:
        """Make sure that the lock still excludes the others. Cheap, unless it is about to become stale.

        It could not be refreshed in time when the repository was away or the machine was asleep; then that is tried
        once more here, which works if its file is still there: nobody took it for stale. Raises LockLost, from then
        on always.
        """
        if self.refused is not None:
            raise self.refused
        if self._is_old() and not self._lost:
            self.refresh()
        if self._is_old() and not self._lost:
            self._lost = f"it could not be refreshed for {self._age():.0f} s: {self.failure}"
        if self._lost:
            raise LockLost(f"The lock on the repository was lost: {self._lost}.")

    def confirm(self) -> None:
        """Make sure that nobody excludes us, before something is written that counts. An eager lock waits here for its
        second look.

        Raises RepositoryLocked when somebody was quicker, what the store raised, or LockLost as `check` does.
        """
        self._looked.wait()
        self.check()

    def refresh(self) -> None:
        """Put a new lock file in the place of the old one. Raises nothing: see `failure` and `check`."""
        with self._turn:
            if self._lost:
                return
            try:
                self._replace()
                self.failure = None
            except Exception as error:  # it runs in a thread of its own, which must live on and try again
                self.failure = error

    def _age(self) -> float:
        """Seconds since the last refresh, by the clock that runs on in sleep or the one that nobody sets."""
        wall, steady = self._refreshed
        return max(self._now() - wall, self._monotonic() - steady)

    def _is_old(self) -> bool:
        return self._age() > self._valid_s

    def _take(self, eager: bool) -> None:
        """One try to get the lock. Raises RepositoryLocked, or what the store raises."""
        wall, steady = self._now(), self._monotonic()
        self._look()
        self.name, self._refreshed = self._write()
        # Who has locked since our look has his second one after `settle_s`. If our file came later, he has not seen it,
        # and may be done and gone when we look again: until then we must not learn what there was before.
        if eager and max(self._now() - wall, self._monotonic() - steady) < self._settle_s:
            return
        try:
            self._sleep(self._settle_s)
            self._look()
        except BaseException:
            self._remove(self.name)
            raise
        self._looked.set()

    def _look_again(self) -> None:
        """The second look of an eager lock. Raises nothing: see `confirm`."""
        try:
            with self._turn:
                self._look()
        except Exception as error:  # whatever it was, nobody has looked
            self.refused = error
        finally:
            self._looked.set()

    def _write(self) -> tuple[str, tuple[float, float]]:
        """Write a lock file: its name, and the times (both clocks) from which its age counts."""
        written = (self._now(), self._monotonic())
        lock = Lock(
            time=format_time(written[0]),
            exclusive=self.exclusive,
            hostname=self._identity.lock_hostname,
            username=self._identity.username,
            pid=self._identity.pid,
            uid=self._identity.uid,
            gid=self._identity.gid,
            namespace=self._identity.namespace,
        )
        return self._store.write_lock(lock), written

    def _look(self) -> None:
        """Remove what is stale. Raises RepositoryLocked when somebody holds a lock that excludes ours."""
        unreadable: list[str] = []
        for attempt in range(_LOOKS):
            if attempt:
                self._sleep((self._settle_s or SETTLE_S) * attempt)
            unreadable = []
            for name, lock in self._store.lock_files():
                if name == self.name or name in self._leftover:
                    continue
                if lock is None:
                    unreadable.append(name)
                elif is_stale(lock, self._identity, self._now()):
                    self._store.remove_lock(name)
                elif self.exclusive or lock.exclusive:
                    raise RepositoryLocked(_held_by(lock))
            if not unreadable:
                return
        raise RepositoryLocked(
            f"There is a lock on the repository that can't be read ({unreadable[0]}). If nobody is at work on the "
            "repository, `repository unlock --all` removes it."
        )

    def _replace(self) -> None:
        """Write a new file, see that the old one was there all the time, and remove it.

        If it was not, somebody took the lock for stale and may hold one that excludes ours. Who is about to do so and
        has not removed it yet sees the new one in its second look.
        """
        if not self._is_there():
            return
        name, written = self._write()
        try:
            self._sleep(self._settle_s)
            there = self._is_there()
        except BaseException:
            self._remove(name)
            raise
        if there:
            name, self.name, self._refreshed = self.name, name, written
        self._remove(name)

    def _is_there(self) -> bool:
        if any(name == self.name for name, _ in self._store.lock_files()):
            return True
        self._lost = "somebody removed it"
        return False

    def _remove(self, *names: str) -> None:
        """Remove lock files of our own; those that can't be removed now are tried again the next time."""
        names, self._leftover = (*self._leftover, *names), []
        for name in names:
            try:
                self._store.remove_lock(name)
            except Exception:  # it does no harm for longer than until it is stale
                self._leftover.append(name)

    def _release(self) -> None:
        with self._turn:
            self._remove(*filter(None, [self.name]))


@contextmanager
def hold(
    store: LockStore,
    identity: Identity,
    *,
    exclusive: bool,
    eager: bool = False,
    retry_for_s: float = 0.0,
    interval_s: float = _INTERVAL_S,
    valid_s: float = _VALID_S,
    settle_s: float = SETTLE_S,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[HeldLock]:
    """Hold a lock for as long as the block runs; a thread refreshes it every `interval_s` seconds.

    While somebody else holds one that excludes it, it is tried again for `retry_for_s` seconds. `sleep` is how to wait;
    it may raise, to give up. An `eager` lock begins its block before the second look, unless the first one and writing
    the file took too long for that: until `confirm` has been called, nothing may be written there but packs, which are
    worth nothing without an index, and nothing may be removed; and what is read there may be on its way out.

    `valid_s`: how long after the last refresh the lock is trusted. A lock file that can't be removed at the end is no
    error: it becomes stale.

    Raises RepositoryLocked, and what the store raises when the first lock file can't be written.
    """
    lock = HeldLock(
        store,
        identity,
        exclusive=exclusive,
        valid_s=valid_s,
        settle_s=settle_s,
        now=now,
        monotonic=monotonic,
        sleep=sleep,
    )
    over = threading.Event()
    refresher = threading.Thread(target=_keep, args=(lock, over, interval_s), name="lock", daemon=True)
    try:
        _take(lock, eager, monotonic() + retry_for_s, monotonic, sleep)
        refresher.start()
        yield lock
    finally:
        over.set()
        if refresher.ident is not None:
            refresher.join()
        lock._release()


def _take(
    lock: HeldLock, eager: bool, until: float, monotonic: Callable[[], float], sleep: Callable[[float], object]
) -> None:
    """Try until it works or the time is over. The pauses differ, so that two who meet don't meet for ever."""
    pause = _PAUSE_S
    while True:
        try:
            lock._take(eager)
        except RepositoryLocked:
            left = until - monotonic()
            if left <= 0:
                raise
            sleep(min(left, pause * random.uniform(0.5, 1.5)))  # noqa: S311  # a pause
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            return


def _keep(lock: HeldLock, over: threading.Event, interval_s: float) -> None:
    """Take an eager lock's second look; refresh the lock until it is over, after a failure soon again."""
    if not lock._looked.is_set():
        over.wait(lock._settle_s)
        lock._look_again()
    while not over.wait(interval_s / 5 if lock.failure else interval_s):
        lock.refresh()


def _held_by(lock: Lock) -> str:
    """Who holds it, since when, and what to do."""
    try:
        since = datetime.fromtimestamp(parse_time(lock.time).timestamp(), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError):
        since = lock.time
    return (
        f"The repository is locked{' exclusively' if lock.exclusive else ''} by {lock.username}@{lock.hostname} "
        f"(process {lock.pid}); the lock was last refreshed at {since}. A lock that is left over becomes stale "
        f"{STALE_S / 60:.0f} minutes after that, or as soon as its process is known to be dead, and "
        "`repository unlock` removes it then; if nobody is at work on the repository, `repository unlock --all` "
        "removes it at once."
    )
