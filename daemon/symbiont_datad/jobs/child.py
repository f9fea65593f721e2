"""The process that runs one job for the daemon: `python -m symbiont_datad.jobs.child NAME FD`.

The settings come pickled on standard input, the report goes pickled to the descriptor FD, and standard input stays
open: when it closes, the daemon has died, and the job ends between two steps. Log lines go where the daemon's go.

Imports here are few on purpose: this starts every few minutes.
"""

import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace

from symbiont_datad.errors import Locked
from symbiont_datad.events import configure
from symbiont_datad.jobs.runner import open_ledger, run_here

_NICENESS = 10  # the I/O priority follows it (ioprio_set(2), "IOPRIO_CLASS_NONE")


def main(name: str, report_fd: int) -> None:
    """Run the job `name` with the settings from standard input; the report goes to the descriptor."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with suppress(OSError):
        os.nice(_NICENESS)
    settings = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    configure(settings.log_format, settings.log_level)
    answer: object
    with open_ledger(settings) as ledger:
        try:
            report = run_here(name, settings, ledger, stopping=stop.is_set)
            answer = replace(report, actions=(), findings=())
        except Locked as error:
            answer = error
    with os.fdopen(report_fd, "wb") as pipe:
        pickle.dump(answer, pipe)


def _watch_parent(stop: threading.Event) -> None:
    with suppress(OSError):
        os.read(0, 1)
    stop.set()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
