"""Running a job: its lock, its row in the ledger, its events, and a report whatever happens.

`run_here` runs a job in this process; commands and job processes call it. `Child` has a process of its own do that, at
low priority: so the daemon's memory stays flat, its repairs don't wait for a job, and a job that dies takes
nothing with it.
"""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from symbiont_datad.errors import DatadError, Locked
from symbiont_datad.events import emit
from symbiont_datad.fsops.lock import hold
from symbiont_datad.fsops.mount import refuse_unmounted
from symbiont_datad.jobs import JOBS
from symbiont_datad.jobs.context import JobContext, JobSettings, Progress, RepositorySettings
from symbiont_datad.jobs.secrets import repository_password
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.report import JobReport, Outcome
from symbiont_datad.restic.stretching import stretch_ahead


def run_here(
    name: str,
    settings: JobSettings,
    ledger: Ledger,
    *,
    now: float | None = None,
    dry_run: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    patience_s: float = 0.0,
    progress: Progress | None = None,
    subset: str = "",
    undo: str = "",
    names: tuple[str, ...] = (),
    no_snapshot: bool = False,
) -> JobReport:
    """Run the job `name` in this process and hand back its report.

    A job that raises has failed: its report says why. So it does when the tree's file system is not mounted.
    Raises Locked when another run of it is under way. A dry run takes no lock and leaves no row. For the options from
    `patience_s` on see JobContext.

    The work is done even when the ledger can't be written: on a full disk `clean` is what makes room.
    """
    started = time.time() if now is None else now
    if JOBS[name].opens:
        open_ahead(settings.repository)
    function = JOBS[name].load()
    context = JobContext(
        settings,
        ledger,
        0,
        started,
        dry_run,
        stopping,
        patience_s,
        progress or Progress(),
        subset,
        undo,
        names,
        no_snapshot,
    )

    def work(context: JobContext) -> JobReport:
        refuse_unmounted(settings.layout.root, settings.require_mount)
        return function(context)

    if dry_run:
        return _timed(lambda: work(context), name, started)
    lock = JOBS[name].lock or name
    with hold(settings.lock_path(lock), f"another {lock} is running"):
        try:
            run = ledger.begin_run(name, started)
        except LedgerError as error:
            run = 0  # no run has this number
            emit("ledger_failed", job=name, reason=str(error))
        emit("job_started", job=name)
        report = _timed(lambda: work(replace(context, run=run)), name, started)
        try:
            ledger.replace_findings(name, report.findings, started)
            ledger.finish_run(run, report)
        except LedgerError as error:
            emit("ledger_failed", job=name, reason=str(error))
        _hand_over(ledger, settings)
    _tell(report)
    return report


def open_ahead(settings: RepositorySettings) -> None:
    """Begin with what takes longest of opening the repository, while the modules that work with it are imported."""
    stretch_ahead(settings.location, lambda: repository_password(settings.secrets))


def open_ledger(settings: JobSettings) -> Ledger:
    """The ledger; where it can't be opened, one in memory, so that a job can run (`ledger_failed` says so)."""
    try:
        return Ledger(settings.ledger_path)
    except (LedgerError, OSError) as error:
        emit("ledger_failed", reason=str(error))
        return Ledger(None)


def _hand_over(ledger: Ledger, settings: JobSettings) -> None:
    """Write down what only a ledger in memory knows, if the real one can be opened by now: the job has made room."""
    if ledger.on_disk:
        return
    with suppress(LedgerError, OSError), Ledger(settings.ledger_path) as found:
        found.take_over(ledger)


def _timed(work: Callable[[], JobReport], name: str, started: float) -> JobReport:
    clock = time.monotonic()
    try:
        report = work()
    except DatadError as error:
        report = JobReport(name, Outcome.FAILED, started, 0.0, message=str(error), exit_code=error.exit_code)
    except (LedgerError, OSError) as error:
        report = JobReport(name, Outcome.FAILED, started, 0.0, message=str(error))
    return replace(report, started_at=started, duration_s=time.monotonic() - clock)


_EVENTS = {
    Outcome.DONE: "job_finished",
    Outcome.LEFT: "job_left_something",
    Outcome.FAILED: "job_failed",
    Outcome.INTERRUPTED: "job_left_something",
}


def _tell(report: JobReport) -> None:
    emit(
        _EVENTS[report.outcome],
        job=report.job,
        duration_s=round(report.duration_s, 3),
        actions=report.actions_total,
        bytes=report.bytes_total,
        **({"reason": report.message} if report.message else {}),
        **{f"count_{key}": value for key, value in report.counts.items()},
    )


def _environment() -> dict[str, str]:
    """The daemon's own, with its import path, and without what lets a process speak for it to the service manager."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class Child:
    """One run of a job in a process of its own."""

    def __init__(self, name: str, settings: JobSettings) -> None:
        """Start the process. It ends by itself when this one dies: it reads a pipe that then closes."""
        self.name = name
        self.progress: Progress | None = None
        """How far it is, as it told last."""
        self._started = time.time()
        self._report, report_pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "symbiont_datad.jobs.child", name, str(report_pipe)],
                stdin=subprocess.PIPE,
                pass_fds=(report_pipe,),
                env=_environment(),
                process_group=0,
            )
        except BaseException:
            os.close(self._report)
            raise
        finally:
            os.close(report_pipe)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died already: `wait` says how
            pickle.dump(settings, self._process.stdin)
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait(self, on_progress: Callable[[], None] = lambda: None) -> JobReport:
        """The report, when the process has ended; of a process that died, one that says so.

        `on_progress` is called after each change of `progress`. Raises Locked when another run of the job was under
        way.
        """
        answer: object = None
        with open(self._report, "rb") as pipe, suppress(EOFError, pickle.UnpicklingError):  # it died while it wrote
            while True:
                answer = pickle.load(pipe)
                if isinstance(answer, Progress):
                    self.progress = answer
                    on_progress()
        with suppress(BrokenPipeError), self._process:  # closes its standard input
            pass
        code = self._process.returncode
        if isinstance(answer, JobReport):
            return answer
        if isinstance(answer, Locked):
            raise answer
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return JobReport(
            self.name,
            Outcome.FAILED,
            self._started,
            time.time() - self._started,
            message=f"the job's process ended with {how} and left no report",
            lost=True,
        )

    def stop(self) -> None:
        """Ask the process to end between two steps; `kill` is for one that does not."""
        self._process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
