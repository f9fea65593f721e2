"""The process that runs one job for the daemon: `python -m symbiont_datad.jobs.child NAME FD`.

The settings come pickled on standard input. How far the job is goes pickled to the descriptor FD every few seconds, and
the report after it. Standard input stays open: when it closes, the daemon has died, and the job ends between two
steps. Log lines go where the daemon's go.

Imports here are few on purpose: this starts every few minutes.
"""

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import BinaryIO

from symbiont_datad.errors import Locked
from symbiont_datad.events import configure, emit, send_security_events_to
from symbiont_datad.fsops.limit import go_first
from symbiont_datad.jobs.audit import audit_log
from symbiont_datad.jobs.context import Progress
from symbiont_datad.jobs.runner import open_ledger, run_here
from symbiont_datad.jobs.stopping import Stop

_PATIENCE_S = 300.0  # for another host that prunes the repository just now
_TELL_EVERY_S = 2.0
_NICENESS = 10  # the I/O priority follows it (ioprio_set(2), "IOPRIO_CLASS_NONE")


def main(name: str, report_fd: int) -> None:
    """Run the job `name` with the settings from standard input; the report goes to the descriptor."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `restic unlock` sends one, to see whether a lock's process lives
    with suppress(OSError):
        os.nice(_NICENESS)
    go_first()  # a job can run again; without the daemon nobody keeps the tree
    try:
        settings = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the daemon died while it started this
        return
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    configure(settings.log_format, settings.log_level)
    send_security_events_to(audit_log(lambda: settings.layout))
    answer: object
    with _reporting(report_fd) as pipe, open_ledger(settings) as ledger:
        progress = Progress()
        with _telling(name, progress, pipe):
            try:
                report = run_here(
                    name, settings, ledger, stopping=stop.is_set, patience_s=_PATIENCE_S, progress=progress
                )
                answer = replace(report, actions=(), findings=())
            except Locked as error:
                answer = error
        with suppress(BrokenPipeError):
            pickle.dump(answer, pipe)
            pipe.flush()


@contextmanager
def _reporting(fd: int) -> Iterator[BinaryIO]:
    """The pipe to the daemon. Where that has died nobody hears what is still in it when it is closed."""
    pipe = open(fd, "wb")  # noqa: SIM115  # closed below
    try:
        yield pipe
    finally:
        with suppress(BrokenPipeError):
            pipe.close()


@contextmanager
def _telling(name: str, progress: Progress, pipe: BinaryIO) -> Iterator[None]:
    """While the block runs, tell the daemon every few seconds how far the job is, once there is something to tell."""
    over = threading.Event()

    def tell() -> None:
        with suppress(OSError):
            while not over.wait(_TELL_EVERY_S):
                if progress.phase:
                    now = replace(progress)
                    emit("job_progressed", job=name, phase=now.phase, files=now.files, bytes=now.bytes)
                    pickle.dump(now, pipe)
                    pipe.flush()

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch_parent(stop: Stop) -> None:
    with suppress(OSError):
        os.read(0, 1)
    stop.set()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
