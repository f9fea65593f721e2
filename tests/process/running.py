"""A daemon as a process of its own, with a service manager made of a socket: what tests/process and bench share."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from symbiont_datad.ledger import Ledger
from tests.support import own_environ

T = TypeVar("T")

COMMAND = (sys.executable, "-m", "symbiont_datad")
TREE = (
    "", "state", "state/agents", "state/sessions", "logs", "logs/system", "logs/agents", "logs/audit", "prompts",
    "prompts/templates", "prompts/history", "prompts/cache", "vector_db", "vector_db/collections", "vector_db/indexes",
    "vector_db/metadata",
)  # fmt: skip
"""The directories of the built-in layout that are always there, parents first."""


def until(look: Callable[[], T], timeout_s: float = 10.0) -> T:
    """Look again and again until something true is seen; hand it back. Raises TimeoutError with what was seen last."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s} s still {seen!r}")
        time.sleep(0.005)
    return seen


class Manager:
    """A service manager as far as sd_notify(3) goes: a socket that keeps each datagram that a daemon sends."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="notify-")  # short: an address has 108 bytes
        self.address = f"{self._directory}/socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)
        self._received: list[bytes] = []

    @property
    def datagrams(self) -> list[bytes]:
        """All that came so far, each as it was sent."""
        with suppress(BlockingIOError):
            while True:
                self._received.append(self._socket.recv(65536))
        return self._received

    def wait_for(self, line: str, timeout_s: float = 10.0, after: int = 0) -> int:
        """The number of the first datagram from number `after` on with a line that begins so."""
        prefix = line.encode()

        def look() -> int:
            for number, datagram in enumerate(self.datagrams[after:], after):
                if any(part.startswith(prefix) for part in datagram.split(b"\n")):
                    return number + 1
            return 0

        return until(look, timeout_s) - 1

    def close(self) -> None:
        """Give up the socket."""
        self._socket.close()
        shutil.rmtree(self._directory)


@dataclass
class Daemon:
    """A daemon that runs. `pid` is that of the daemon itself, also when something else started it."""

    root: Path
    process: "subprocess.Popen[bytes]"
    manager: Manager
    log: Path
    errors: Path
    config: Path
    pid: int
    ready_after_s: float = 0.0
    _read: int = field(default=0, repr=False)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The lines of its log so far, or those of one event."""
        lines = self.log.read_bytes().split(b"\n")[:-1]
        found = [json.loads(line) for line in lines]
        return [entry for entry in found if not name or entry["event"] == name]

    def wait_for_event(self, name: str, timeout_s: float = 10.0, count: int = 1, **fields: object) -> dict[str, Any]:
        """The `count`th event of this name and with these fields, as soon as it has happened."""

        def look() -> dict[str, Any] | None:
            same = [entry for entry in self.events(name) if all(entry.get(key) == fields[key] for key in fields)]
            return same[count - 1] if len(same) >= count else None

        try:
            found = until(look, timeout_s)
        except TimeoutError:
            raise AssertionError(f"no {name} {fields} in\n{self.log.read_text()}\n{self.errors.read_text()}") from None
        assert found is not None
        return found

    def send(self, number: int) -> None:
        """Send a signal to the daemon, and to nothing else."""
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        """End it with a signal; hand back its exit code."""
        with suppress(ProcessLookupError):
            self.send(number)
        return self.process.wait(timeout_s)

    def reload(self, settings: str) -> None:
        """Write other settings, and tell the daemon; returns when it has read them."""
        self.config.write_text(settings, encoding="utf-8")
        seen = len(self.manager.datagrams)
        self.send(signal.SIGHUP)
        reloading = self.manager.wait_for("RELOADING=1", after=seen)
        self.manager.wait_for("READY=1", after=reloading)

    def recorded(self, kind: str) -> list[str]:
        """The paths of one kind of action in its ledger so far."""
        with Ledger.for_reading(self.root.parent / "datad/ledger.db") as ledger:
            return [row.path for row in ledger.actions(kinds=(kind,))]

    def is_right(self) -> bool:
        """Whether every directory of the built-in layout is there with mode 0755."""
        return all(mode_of(self.root / path) == 0o755 for path in TREE)

    def children(self) -> list[int]:
        """The pids of its child processes."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(FileNotFoundError):
                found += [int(pid) for pid in (task / "children").read_text().split()]
        return found


def mode_of(path: Path) -> int | None:
    """The mode of a directory; None when there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mode & 0o7777 if (found.st_mode & 0o170000) == 0o040000 else None


@contextmanager
def running(
    base: Path,
    settings: str = "",
    *,
    root: Path | None = None,
    environ: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    wait: bool = True,
    umask: int = -1,
) -> Iterator[Daemon]:
    """A daemon of the tree `base/data` (or `root`) with these settings, ready unless `wait` is false; ended after.

    Its own files are beside the root, its log is JSON in a file. `prefix` is a command to start it with. There is no
    last sweep at its end, unless `environ` asks for it.
    """
    base.mkdir(parents=True, exist_ok=True)
    tag = f"{random.getrandbits(32):08x}"
    root = root or base / "data"
    config = base / f"datad-{tag}.toml"
    config.write_text(settings, encoding="utf-8")
    log, errors = base / f"log-{tag}", base / f"errors-{tag}"
    manager = Manager()
    kept = {key: value for key, value in own_environ().items() if not key.startswith("WATCHDOG_")}
    own = {"HOME": str(base), "NOTIFY_SOCKET": manager.address, "SYMBIONT_DATAD_AUTOSAVE__ON_STOP": "false"}
    given = {**kept, **own, **(environ or {})}
    begun = time.monotonic()
    with log.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [*prefix, *COMMAND, "--config", str(config), "--root", str(root), "run"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=given,
            umask=umask,
        )
    daemon = Daemon(root, process, manager, log, errors, config, process.pid)
    try:
        if wait:
            _wait_until_ready(daemon)
            daemon.ready_after_s = time.monotonic() - begun
        yield daemon
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                daemon.send(signal.SIGCONT)
                daemon.send(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        manager.close()


def _wait_until_ready(daemon: Daemon) -> None:
    def look() -> bool:
        if daemon.process.poll() is not None:
            said = daemon.errors.read_text()
            raise AssertionError(f"the daemon ended with {daemon.process.returncode} before it was ready: {said}")
        return any(datagram.startswith(b"READY=1") for datagram in daemon.manager.datagrams)

    until(look, 30.0)
