"""All that one run consists of: a disk, a clock, a repository somewhere, a daemon, writers of logs, and the model."""

import errno
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from symbiont_datad.formats.state_name import context_name
from tests import contexts
from tests.process.running import COMMAND, Daemon, running, until
from tests.restic.backends.servers import BUCKET, rclone_server
from tests.torture.clock import WallClock
from tests.torture.disk import Disk
from tests.torture.log_writer import LogWriter
from tests.torture.model import HELD, Model, Violation
from tests.torture.plan import Scene
from tests.torture.wire import Wire

SETTINGS = """
auto_save_interval = 1
guard.backoff_after = 1000000
guard.reconcile_interval = 1
guard.require_mount = {require_mount}
[state]
settle = "0s"
[backup]
repository = "{repository}"
password_file = "{password_file}"
schedule = "2s"
verify_schedule = "5s"
keep_within = "1h"
[schedule]
retention_interval = 1
rotation_interval = 1
[logs]
rotate_at = "4KiB"
keep = 100000
[retention.cache]
max_files = 30
"""
PATIENCE_S = 120.0
PASSWORD = "open sesame"


class Machine:
    """One run below `base`. Used as a context manager; the daemon is ready when it is entered."""

    def __init__(self, base: Path, scene: Scene) -> None:
        self.base = base
        self.scene = scene
        self.model = Model()
        self.done: list[str] = []
        self.logs: list[Path] = []
        self.writers: dict[str, LogWriter] = {}
        self.disk: Disk | None = None
        self.wire: Wire | None = None
        self.canary = base / "canary"
        self.cost: list[tuple[int, int]] = []
        """What the daemon that runs now had at each look: bytes that are resident, and descriptors."""
        self.growth = (0, 0)
        """By how much these grew at most in the life of one daemon."""
        self._stack = ExitStack()
        self._running: AbstractContextManager[Daemon] | None = None
        self._daemon: Daemon | None = None

    def __enter__(self) -> Self:
        with self._stack:
            self._prepare()
            self.start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _prepare(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        own = self.base / "own"
        own.mkdir()
        place = self.base
        if self.scene.on:
            self.disk = self._stack.enter_context(Disk(self.scene.on, self.base / "mounts"))
            place = self.disk.at
        self.root = place if self.scene.volume else place / "data"
        self.canary.mkdir()
        (self.canary / "file").write_text("untouched")
        self.canary.chmod(0o711)
        self.canary_was = [os.lstat(path) for path in (self.canary, self.canary / "file")]
        self.clock = WallClock(own)
        self.repository = str(self.root.parent / "backups")
        self.environ: dict[str, str] = {}
        if self.scene.s3:
            server = self._stack.enter_context(rclone_server(own / "server"))
            self.wire = Wire(server.port)
            self._stack.callback(self.wire.close)
            self.repository = f"s3://{BUCKET}/torture"
            self.environ = {**server.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.wire.port}"}
        self.password_file = own / "password"
        self.password_file.write_text(PASSWORD)
        self.password_file.chmod(0o600)
        self._stack.callback(self._end)

    def _end(self) -> None:
        self.restore_order()
        for writer in self.writers.values():
            writer.kill()
        self.leave()

    # The daemon

    @property
    def daemon(self) -> Daemon:
        """The one that runs now."""
        assert self._daemon is not None
        return self._daemon

    def start(self) -> None:
        """Start a daemon, and wait until it is ready."""
        settings = SETTINGS.format(
            require_mount=str(self.disk is not None).lower(),
            repository=self.repository,
            password_file=self.password_file,
        )
        environ = {**self.environ, **self.clock.environ}
        self._running = running(self.base / "own", settings, root=self.root, environ=environ, wait=False)
        self._daemon = daemon = self._running.__enter__()
        self.logs.append(daemon.log)
        self.cost.clear()

        def look() -> bool:
            self.check(daemon.process.poll() is None, f"it ends before it is ready: {daemon.errors.read_text()}")
            return any(datagram.startswith(b"READY=1") for datagram in daemon.manager.datagrams)

        try:
            until(look, PATIENCE_S)
        except TimeoutError:
            raise self.violation(f"it does not get ready: {daemon.log.read_text()[-2000:]}") from None

    def leave(self) -> None:
        """What is left to do when the daemon has ended; ends it where it hasn't."""
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command that somebody types."""
        command = [*COMMAND, "--config", str(self.daemon.config), "--root", str(self.root), *arguments]
        environ = {**os.environ, **self.environ, **self.clock.environ, "HOME": str(self.base / "own")}
        try:
            return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise self.violation(f"{arguments} takes for ever: {error.stderr!r}") from None

    def restore_order(self) -> None:
        """The disk has room again, and the network works."""
        if self.disk is not None:
            self.disk.free()
        if self.wire is not None:
            self.wire.mend()

    # The tree

    def context(self, name: str) -> Path:
        """Where an agent's state lies."""
        return self.root / "state/agents" / context_name(contexts.agent_id(name), gzip=True)

    def write(self, write: Callable[[], None]) -> bool:
        """Do it, and again while the directory is missing: the daemon is just making it. False: the disk is full."""
        full = False

        def look() -> bool:
            nonlocal full
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    write()
                except OSError as error:
                    if not is_full(error):
                        raise
                    full = True
                return True
            full = self.disk is not None and self.disk.full  # then the directory can't be made now
            return full

        until(look, PATIENCE_S)
        return not full

    def hold_logs(self) -> None:
        """Start the writers that hold logs open, those that don't run."""
        for log in HELD:
            if log not in self.writers:

                def start(log: str = log) -> None:
                    self.writers[log] = LogWriter(self.root / log, self.model.lines[log])

                self.write(start)

    def release_log(self, log: str) -> None:
        """End the writer that holds it, if there is one, and count its lines."""
        if log in self.writers:
            self.model.lines[log] = self.writers.pop(log).stop()

    # What is not true

    def violation(self, what: str) -> Violation:
        """What to raise when something is not as it must be."""
        number = len(self.done)
        return Violation(f"after {number} steps, the last ones {self.done[-10:]}: {what}", number)

    def check(self, true: bool, what: str) -> None:
        """Raises Violation."""
        if not true:
            raise self.violation(what)


def is_full(error: OSError) -> bool:
    """Whether it means that the disk is full."""
    return error.errno == errno.ENOSPC
