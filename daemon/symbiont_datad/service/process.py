"""What a process owes the system whoever starts it: standard streams, and, as process 1, the burial of orphans."""

import os
import sys
from contextlib import suppress


def open_standard_streams() -> None:
    """Give the process the standard streams that it was started without; else a ledger would become "stderr"."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is `fd`
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # open until the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def reap_orphans(ours: set[int]) -> None:
    """As process 1, bury the dead that nobody else will; our own children are waited for elsewhere."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        with suppress(ChildProcessError):
            os.waitpid(found.si_pid, 0)
