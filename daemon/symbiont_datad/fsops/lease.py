"""Whether anybody has a file open for writing: asked of the kernel, which sees every process of every user.

A read lease is given only while no process has the file open for writing, be it of another user, in another container
or only mapped into memory (fcntl(2), "Leases"; Linux `fs/locks.c`, check_conflicting_open). It is given back at once.
Whoever opens the file for writing in between waits for that instant; whoever opens it with `O_NONBLOCK` is told to
try again (EWOULDBLOCK).
"""

import errno
import fcntl
import signal
import time
from contextlib import suppress
from enum import Enum

_SET_LEASE = getattr(fcntl, "F_SETLEASE", None)  # Linux alone has it
_SET_SIGNAL = getattr(fcntl, "F_SETSIG", 10)
_PAUSE_S = 0.0005
_HELD = {errno.EAGAIN, errno.EBUSY}


class Held(Enum):
    """Whether a file is open for writing anywhere."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"
    """The system does not tell, or not about a file of another user."""


def held(fd: int, patience_s: float = 0.0) -> Held:
    """Whether anybody has the file open for writing. `fd` must be open for reading alone, or it is its own answer.

    With `patience_s` it is asked again and again for so long: of a file that is opened for each append, and closed, the
    answer is no, as soon as it was seen closed once.
    """
    deadline = time.monotonic() + patience_s
    while (answer := _asked(fd)) is Held.YES and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return answer


def _asked(fd: int) -> Held:
    if _SET_LEASE is None:
        return Held.UNKNOWN
    try:
        # The signal that tells of an open meanwhile: this one is ignored where nobody handles it, SIGIO would kill.
        fcntl.fcntl(fd, _SET_SIGNAL, signal.SIGURG)
        fcntl.fcntl(fd, _SET_LEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Held.YES if error.errno in _HELD else Held.UNKNOWN
    with suppress(OSError):
        fcntl.fcntl(fd, _SET_LEASE, fcntl.F_UNLCK)
    return Held.NO
