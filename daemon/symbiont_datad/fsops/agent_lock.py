"""The lock on one agent's state, between threads and processes: those that save it, and the one that heals it.

There is one lock file for all agents, in `state/` and so not where the runtime lists contexts. What is locked is one
byte of it for each agent (fcntl(2), "Open file description locks"): no file is made for an agent, and none is left. The
file stays empty. A lock ends with its holder, however that ends.
"""

import fcntl
import os
import random
import stat
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from symbiont_datad.errors import Locked, UnsafePath

LOCK = ".contexts.lock"

_SET = getattr(fcntl, "F_OFD_SETLK", None)
_FLOCK = struct.Struct("@qqihh" if sys.platform == "darwin" else "@hhqqi")
_PAUSE_S = 0.0005, 0.01


@contextmanager
def hold_agent(state_fd: int, agent: str, *, patience_s: float) -> Iterator[None]:
    """Hold the lock on an agent while the block runs; `state_fd` is the pinned directory `state/`.

    Who holds it is waited for so long. Raises Locked, or OSError when there is no lock file and none can be made.
    Where the system has no such locks (old ones), all agents share one.
    """
    fd = _taken(state_fd, agent, time.monotonic() + patience_s)
    try:
        yield
    finally:
        _set(fd, agent, fcntl.F_UNLCK)  # by itself: a process that was forked meanwhile has the descriptor too
        os.close(fd)


def _taken(state_fd: int, agent: str, until: float) -> int:
    while True:
        fd = _open(state_fd)
        try:
            _lock(fd, agent, until)
            # A restore in place may have put another file there since it was opened.
            if os.path.samestat(os.fstat(fd), os.stat(LOCK, dir_fd=state_fd, follow_symlinks=False)):
                return fd
        except FileNotFoundError:
            pass  # it has just been removed
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(state_fd: int) -> int:
    """The lock file, made if need be: for all who can make files in the directory can save an agent's state."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(LOCK, flags, dir_fd=state_fd)
    except FileNotFoundError:
        try:
            fd = os.open(LOCK, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=state_fd)
        except FileExistsError:
            return _open(state_fd)
        above = os.fstat(state_fd)
        if os.geteuid() == 0:
            os.fchown(fd, above.st_uid, above.st_gid)
        writable = above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        os.fchmod(fd, 0o600 | writable | writable << 1)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafePath(f"{LOCK}: is no file")
    return fd


def _lock(fd: int, agent: str, until: float) -> None:
    pause, longest = _PAUSE_S
    while not _set(fd, agent, fcntl.F_WRLCK):
        if time.monotonic() >= until:
            raise Locked(f"the state of agent {agent} is being saved by somebody else")
        time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  # a pause
        pause = min(2 * pause, longest)


def _set(fd: int, agent: str, kind: int) -> bool:
    try:
        if _SET is None:
            fcntl.flock(fd, fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            fcntl.fcntl(fd, _SET, _range(agent, kind))
    except (BlockingIOError, PermissionError):  # POSIX lets a system say either
        return False
    return True


def _range(agent: str, kind: int) -> bytes:
    """The one byte that stands for an agent, as `struct flock`."""
    place = int.from_bytes(blake2b(agent.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 2
    if sys.platform == "darwin":
        return _FLOCK.pack(place, 1, 0, kind, os.SEEK_SET)
    return _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
