"""Locks between processes: advisory, released by the kernel when their holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from symbiont_datad.errors import Locked

_TRIES = 5
_PAUSE_S = 0.02
"""`holder` looks at a lock by taking it for an instant; whoever comes in that instant must not be refused."""


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path` for as long as the block runs; it keeps the pid of its last holder.

    The file is made if need be (mode 0600; its directory and the one above that, 0700) and never removed: removing it
    would let two processes hold "the" lock at once. `what` begins the message when somebody else holds it.

    Raises Locked, with the holder's pid.
    """
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `mkdir` makes only the last one with its mode
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _take(fd, what)
        with suppress(OSError):  # a full disk: the lock is held all the same, only its holder can't be told
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)


def _take(fd: int, what: str) -> None:
    for _ in range(_TRIES - 1):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_S)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked(what, _pid(os.pread(fd, 32, 0))) from None


def holder(path: Path) -> int | None:
    """The pid of the process that holds the lock file now; None when nobody does. 0 when it can't be told."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(os.pread(fd, 32, 0)) or 0
    else:
        return None
    finally:
        os.close(fd)


class DirectoryLock:
    """The lock on a directory itself, for as long as that very directory exists.

    It finds a second keeper of one tree even when the two keep their own files in different places. `take` is called
    again whenever the directory was made anew.
    """

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what
        self._fd = -1

    def take(self) -> None:
        """Lock the directory that has the path now. Raises Locked.

        What can't be locked is let pass: a directory that isn't there or can't be read, and file systems without locks.
        """
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if self._fd >= 0 and os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
                os.close(fd)
                return
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _flock_holder(os.fstat(fd))
            os.close(fd)
            raise _locked(self._what, pid) from None
        except OSError:  # NFS and friends: no flock on a directory
            os.close(fd)
            return
        self.release()
        self._fd = fd

    def release(self) -> None:
        """Give the lock up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(what: str, pid: int | None) -> Locked:
    return Locked(f"{what} (process {pid})" if pid else what, pid)


def _pid(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _flock_holder(found: os.stat_result) -> int | None:
    """Who holds a flock on a file, by /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`.

    Where stat(2) tells another device than that file tells (btrfs, overlays), nobody is named.
    """
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields[1] == "FLOCK" and fields[5] == wanted:
                    return int(fields[4]) or None
    except (OSError, ValueError, IndexError):
        pass
    return None
