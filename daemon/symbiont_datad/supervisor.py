"""The life of the process: startup, main loop, shutdown.

startup    settings → the keeper's lock → ledger → tree → guard → schedule → READY=1
main loop  every few seconds: feed the watchdog if the parts really move, look at the clock, replace what has died
shutdown   STOPPING=1 → no more jobs → end those that run → guard → ledger → lock
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from symbiont_datad import __version__, events
from symbiont_datad.errors import ExitCode, Locked, SettingsError, TreeHeld
from symbiont_datad.events import emit
from symbiont_datad.fsops.limit import memory_limit
from symbiont_datad.fsops.lock import DirectoryLock, hold
from symbiont_datad.guard.guard import Guard, GuardSettings
from symbiont_datad.guard.space import SpaceWatch, Watched
from symbiont_datad.jobs.audit import audit_log
from symbiont_datad.jobs.children import Children
from symbiont_datad.jobs.context import Progress, job_settings, require_mount
from symbiont_datad.jobs.secrets import check_secrets
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.live import LiveState, write_state
from symbiont_datad.migrate.transition import Transition
from symbiont_datad.observation import Observation, recorder
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Health, JobReport, Outcome
from symbiont_datad.schedule import Schedule
from symbiont_datad.service.endpoint import Endpoint, listening
from symbiont_datad.service.figures import Facts, Scheduling
from symbiont_datad.service.meter import Meter, Textfile
from symbiont_datad.service.notify import Notifier, watchdog_interval
from symbiont_datad.service.pages import Pages
from symbiont_datad.service.priority import short_slices
from symbiont_datad.service.probe import Probe, trouble
from symbiont_datad.service.process import open_standard_streams, reap_orphans
from symbiont_datad.service.request import Answer, Asked, Routes
from symbiont_datad.settings_places import state_directory
from symbiont_datad.timetable import timetables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from symbiont_datad.settings import Settings

_TURN_S = 10.0
_STATE_EVERY_S = 30.0
_LAST_SWEEP_S = 2.5
_CHILD_GRACE_S = 3.5
"""From the end of the main loop on: so long may the last sweep take, and so long any job's process is waited for."""
_RETRY_S = 600.0
"""So long after a failed run of a heavy job it is tried again, if its timetable has it later: a repository that is away
may be back soon."""
_ROOMY = 256 << 20
"""Bytes of memory below which jobs run one at a time: two that save snapshots at once may take more than 64 MiB."""
_HEAVY = ("backup", "verify", "optimize")
_SOON = ("templates",)
"""Jobs without a timetable: an event asks for them."""
_AGAIN_S = 2.0
"""So much later such a job runs that could not, because a sweep was just doing its work."""
_HELD_S = 10.0
"""So much later a job looks again whether the tree may be touched."""


class Supervisor:
    """Owns the guard and the schedule. `load` reads the settings, at start and at every SIGHUP."""

    def __init__(self, load: "Callable[[], Settings]") -> None:
        self._load = load
        self._stopping = False
        self._reload = False
        self._notifier = Notifier()
        self._observation = Observation()
        self._meter = Meter(self._facts)
        self._endpoint = Endpoint(self._routes())
        self._children = Children(
            lambda: self._jobs,
            lambda: self._ledger,
            self._is_stopping,
            lambda: self._notifier.status(self._summary()),
        )
        self._failing: dict[str, str] = {}
        self._refused = ""
        self._no_ledger = ""
        self._been_ready = False
        self._started_at = self._settings_at = 0.0
        self._transition = Transition(lambda: self._jobs.migration, lambda: self._ledger, self._run_job)

    def run(self) -> ExitCode:
        """Keep the tree until a signal says to stop. Raises SettingsError or Locked when it can't begin."""
        begun = time.monotonic()
        open_standard_streams()
        with self._signals(), ExitStack() as stack:
            self._startup(stack)
            self._main_loop()
            self._notifier.stopping()
            self._notifier.close()
        emit("daemon_stopped", ran_for_s=round(time.monotonic() - begun))
        return ExitCode.DONE

    # Startup

    def _startup(self, stack: ExitStack) -> None:
        begun = time.monotonic()
        self._started_at = self._settings_at = time.time()
        self._settings = self._load()
        events.configure(self._settings.logging.format, self._settings.logging.level)
        self._jobs = job_settings(self._settings)
        check_secrets(self._jobs.repository.secrets)
        self._listening = listening(self._settings)
        root = self._jobs.layout.root
        stack.enter_context(hold(self._jobs.lock_path("keeper"), f"{root} is kept by another daemon"))
        self._leave(self._state(Health(True, False), {}))  # what a daemon before us left tells of that one
        self._ledger = Ledger(None)
        stack.callback(self._close_ledger)
        self._open_ledger()
        self._recorder = stack.enter_context(recorder(lambda: self._ledger, self._observation.count))
        events.send_security_events_to(audit_log(lambda: self._jobs.layout))
        stack.callback(events.send_security_events_to, None)
        self._root_lock = DirectoryLock(root, f"{root} is kept by another daemon")
        stack.callback(self._root_lock.release)
        self._guard = Guard(
            self._jobs.layout, _guard_settings(self._settings), self._recorder, self._lock_root, self._on_save
        )
        with suppress(TreeHeld):  # the guard says so, and makes the tree when it may
            self._guard.create_tree()
            self._root_lock.take()
        stack.callback(self._write_state, final=True)
        limit = memory_limit()
        self._schedule = Schedule(self._run_job, in_turn=limit is not None and limit < _ROOMY)
        with short_slices():
            self._guard.start()
        stack.callback(self._guard.stop)
        self._space = SpaceWatch(self._watched(), self._recorder, self._make_room)
        stack.callback(self._space.stop)
        stack.callback(self._end_jobs)
        stack.callback(self._meter.close)
        stack.callback(self._endpoint.close)
        stack.callback(self._transition.stop)
        for job in self._schedule.start(timetables(self._settings), self._last_successes()):
            emit("job_caught_up", job=job)
        emit(
            "daemon_started",
            path=root,
            directories=len(self._jobs.layout.directories),
            ready_after_s=round(time.monotonic() - begun, 3),
        )
        self._endpoint.follow(self._listening)
        self._meter.follow(*_metering(self._settings))
        self._notifier.ready(self._summary())
        self._write_state()
        self._space.start()
        self._transition.start()

    def _open_ledger(self) -> None:
        """Begin the ledger, unless that is done. Where it can't be, the tree is kept all the same."""
        if self._ledger.path == self._jobs.ledger_path:
            return
        try:
            found = Ledger(self._jobs.ledger_path)
        except (LedgerError, OSError) as error:
            if str(error) != self._no_ledger:
                self._no_ledger = str(error)
                emit("ledger_failed", reason=self._no_ledger)
            return
        self._ledger, self._no_ledger = found, ""
        with suppress(LedgerError):
            found.keep_reserve()
        if found.replaced is not None:
            emit("ledger_replaced", path=str(found.replaced))

    def _close_ledger(self) -> None:
        self._ledger.close()

    def _on_save(self) -> None:
        self._schedule.soon("templates", self._settings.prompts.debounce)

    def _lock_root(self) -> None:
        with suppress(Locked, OSError):
            self._root_lock.take()

    def _last_successes(self) -> "Mapping[str, float]":
        try:
            found = self._ledger.last_successes()
        except LedgerError as error:
            emit("ledger_failed", reason=str(error))
            return {}
        # What was never verified is due some time after it was made, and not at the first start, when there is nothing.
        return {"verify": found.get("backup", time.time()), **found}

    # Main loop

    def _main_loop(self) -> None:
        interval = watchdog_interval()
        turn_s = min(_TURN_S, interval / 3) if interval else _TURN_S
        while not self._wait(turn_s):
            if self._reload:
                self._reload = False
                self._read_settings_again()
            with short_slices():
                if self._guard.revive():
                    self._observation.count("watcher_restarted")
                    emit("watcher_restarted", reason="the guard's thread had died")
            self._space.start()
            jump = self._schedule.check_clock()
            if jump:
                emit("clock_jumped", seconds=round(jump, 1))
            if os.getpid() == 1:
                with self._children.pids() as ours:
                    reap_orphans(ours)
            health = self._health()
            if health.alive:
                self._notifier.alive()
            self._notifier.status(self._summary())
            self._open_ledger()
            self._endpoint.follow(self._listening)
            self._meter.follow(*_metering(self._settings))
            late = time.monotonic() - self._left.beat > _STATE_EVERY_S
            if self._transition.look() or late or (health.alive, health.ready) != (self._left.alive, self._left.ready):
                self._write_state()

    def _wait(self, timeout_s: float) -> bool:
        """Wait until a signal comes, but no longer than that; true when it is time to end."""
        if not self._stopping and select.select([self._signalled], [], [], timeout_s)[0]:
            os.read(self._signalled, 4096)
        return self._is_stopping()

    def _read_settings_again(self) -> None:
        self._notifier.reloading()
        self._refused = ""
        begun = time.time()
        try:
            settings = self._load()
            self._refuse_moved(settings)
            jobs = job_settings(settings)
            check_secrets(jobs.repository.secrets)
            wanted = listening(settings)
        except (SettingsError, OSError, ValueError) as error:
            self._refused = str(error).partition("\n")[0]
            emit("settings_refused", reason=str(error))
        else:
            self._settings, self._jobs, self._listening = settings, jobs, wanted
            self._settings_at = begun
            events.configure(settings.logging.format, settings.logging.level)
            self._guard.reload(self._jobs.layout, _guard_settings(settings))
            self._schedule.reload(timetables(settings), self._last_successes())
            self._space.reload(self._watched())
            self._endpoint.follow(wanted)
            self._meter.follow(*_metering(settings))
            emit("settings_reloaded")
        self._write_state()
        self._notifier.ready(self._summary())

    def _refuse_moved(self, settings: "Settings") -> None:
        for name in ("root_data_dir", "daemon_dir"):
            old, new = getattr(self._settings, name), getattr(settings, name)
            if old != new:
                raise SettingsError(f"{name} = {new}: was {old} at start; a change needs a restart")

    # Jobs

    def _is_stopping(self) -> bool:
        return self._stopping

    def _run_job(self, name: str) -> None:
        """Called by the schedule in a thread of its own."""
        if self._is_stopping():
            return
        if self._guard.holding():
            again = self._schedule.soon if name in _SOON else self._schedule.retry
            again(name, _HELD_S)
            return
        report = self._children.run(name)
        if self._is_stopping():  # it was asked to end, and did not have to leave a report
            return
        if report is None:
            if name in _SOON:
                self._schedule.soon(name, _AGAIN_S)
            return
        if report.outcome is Outcome.FAILED:
            self._failing[name] = report.message
            if name in _HEAVY:
                self._schedule.retry(name, _RETRY_S)
            elif name in _SOON:
                self._schedule.soon(name, _RETRY_S)
        else:
            self._failing.pop(name, None)
            if name == "optimize" and report.counts.get("later"):
                self._schedule.retry(name, self._jobs.vectors.keep_versions_s + _RETRY_S)
        self._write_state()

    def _make_room(self, name: str) -> JobReport | None:
        """Called by the watch on free space, in its own thread."""
        report = self._children.run(name) if not self._is_stopping() else None
        return report if not self._is_stopping() else None

    def _watched(self) -> Watched:
        """What the watch on free space goes by."""
        location = self._settings.repository_path()
        return Watched(self._jobs.layout.tree, str(location) if location else "", self._jobs.marks)

    def _end_jobs(self) -> None:
        """Have a last sweep save what changed since the one before, if there is time, and end all other jobs."""
        begun = time.monotonic()
        self._schedule.stop()
        self._children.stop(but=["sweep"])
        if self._settings.autosave.on_stop and self._been_ready and "sweep" not in self._children.progress():
            thread = threading.Thread(target=self._children.run, args=("sweep", True), name="last sweep", daemon=True)
            thread.start()
            thread.join(_LAST_SWEEP_S)
        elif self._settings.autosave.on_stop:
            self._children.wait(begun + _LAST_SWEEP_S)
        self._children.stop()
        self._children.wait(begun + _CHILD_GRACE_S)
        self._children.kill()

    # What is said of it

    def _health(self) -> Health:
        parts = {"the guard": self._guard.alive(), "the schedule": self._schedule.alive()}
        warnings = [f"{part} doesn't move" for part, alive in parts.items() if not alive]
        warnings += self._guard.warnings()
        warnings += self._space.warnings()
        warnings += self._transition.warnings()
        warnings += [f"nothing is recorded: {self._no_ledger}"] if self._no_ledger else []
        warnings += [part.problem for part in (self._endpoint, self._meter) if part.problem]
        warnings += [f"the new settings were refused: {self._refused}"] if self._refused else []
        warnings += [f"{job} failed: {reason}" for job, reason in sorted(self._failing.copy().items())]
        return Health(all(parts.values()), self._guard.keeping(), tuple(warnings))

    def _routes(self) -> Routes:
        """What is answered over HTTP."""

        def answer(probe: Probe) -> Answer:
            why = trouble(probe, self._left, os.getpid(), time.monotonic())
            return Answer(503 if why else 200, f"{why or 'ok'}\n".encode())

        pages = Pages(lambda: self._jobs.layout.root, lambda: self._jobs.daemon_dir)
        return {
            "/": Asked(pages.answer),
            **{f"/{probe}z": partial(answer, probe) for probe in Probe},
            "/metrics": self._meter.answer,
        }

    def _facts(self) -> Facts:
        """Called by the meter, in its own thread."""
        schedule = self._schedule
        return self._observation.facts(
            self._health(),
            self._guard.standing(),
            Scheduling(schedule.gaps_s(), schedule.next_runs(), frozenset(self._children.progress())),
            self._space.spaces(),
            self._ledger if self._ledger.on_disk else None,
            started_at=self._started_at,
            refused=bool(self._refused),
            rules=tuple(self._settings.retention.named),
            now=time.time(),
        )

    def _summary(self) -> str:
        health = self._health()
        if health.warnings:
            return f"{len(health.warnings)} warning(s): {health.warnings[0]}"
        upcoming = sorted((at, job) for job, at in self._schedule.next_runs().items())
        following = (
            f"; next {upcoming[0][1]} at {datetime.fromtimestamp(upcoming[0][0], UTC):%H:%M:%SZ}" if upcoming else ""
        )
        children = sorted(self._children.progress().items())
        running = f"; running {', '.join(_standing(name, progress) for name, progress in children)}" * bool(children)
        return f"keeping {self._jobs.layout.root}{running}{following}"

    def _write_state(self, final: bool = False) -> None:
        """Leave the daemon's state for `status`; `final` when it ends."""
        if final:
            self._leave(replace(self._state(Health(False, False), {}), running=False, active_jobs=()))
        else:
            self._leave(self._state(self._health(), self._schedule.next_runs()))

    def _state(self, health: Health, next_runs: "Mapping[str, float]") -> LiveState:
        self._been_ready |= health.ready
        return LiveState(
            pid=os.getpid(),
            started_at=self._started_at,
            written_at=time.time(),
            running=True,
            ready=health.ready,
            warnings=health.warnings,
            next_runs=next_runs,
            active_jobs=tuple(sorted(self._children.progress())),
            started=self._been_ready,
            alive=health.alive,
            beat=time.monotonic(),
            every_s=_STATE_EVERY_S + _TURN_S,
            version=__version__,
            backing_off=self._guard.backing_off() if health.ready else (),
            settings_at=self._settings_at,
            legacy=self._transition.states(),
        )

    def _leave(self, state: LiveState) -> None:
        self._left = state
        runtime = state_directory(os.environ, "RUNTIME_DIRECTORY") if state.running else None
        with suppress(OSError):
            write_state(self._jobs.daemon_dir, state, runtime)

    # Signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop gracefully, and at once the second time; SIGHUP reads the settings again.

        A handler may interrupt any line of the main thread, so it takes no lock (not even that of an Event): it sets
        a flag, and the pipe that Python writes the signal's number to ends the wait.
        """

        def stop(number: int, _frame: FrameType | None) -> None:
            if self._stopping:
                self._children.kill()
                os._exit(128 + number)
            self._stopping = True

        def reload(_number: int, _frame: FrameType | None) -> None:
            self._reload = True

        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        self._signalled, written = os.pipe()
        for fd in (self._signalled, written):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            os.close(self._signalled)
            os.close(written)


def _metering(settings: "Settings") -> tuple[Textfile | None, str | None]:
    """What the settings ask of the meter."""
    metrics = settings.metrics
    textfile = Textfile(metrics.textfile, metrics.textfile_interval) if metrics.textfile is not None else None
    return textfile, metrics.tree


def _guard_settings(settings: "Settings") -> GuardSettings:
    guard = settings.guard
    return GuardSettings(
        reconcile_interval_s=guard.reconcile_interval,
        require_mount=require_mount(settings),
        backoff_after=guard.backoff_after,
        watch=guard.watch,
    )


def _standing(name: str, progress: Progress | None) -> str:
    """How far a job is: `backup: 40 %, 12,000 files, 300 MiB`."""
    if progress is None:
        return name
    parts = [progress.phase] if progress.phase != name else []
    if progress.total_bytes and progress.bytes <= progress.total_bytes:  # else it was a guess, and is passed
        parts.append(f"{progress.bytes / progress.total_bytes:.0%}".replace("%", " %"))
    parts += [f"{progress.files:,} files"] if progress.files else []
    parts += [format_size(progress.bytes)] if progress.bytes else []
    return f"{name}: {', '.join(parts)}" if parts else name
