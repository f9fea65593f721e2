"""Agents at their worst beside a daemon that is killed again and again, and a model of what must be true.

The order of steps and their choices come from a seed, so a run can be made again (how the daemon's processes get along
with it is chance each time). After some steps the model is compared with the disk; at the end everything is.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from symbiont_datad.formats.state_name import backup_name, context_name
from symbiont_datad.ledger import Ledger
from tests import contexts
from tests.jobs.log_writing import lines, stream_of
from tests.process.running import COMMAND, Daemon, running, until

SETTINGS = """
auto_save_interval = 1
guard.backoff_after = 1000000
guard.reconcile_interval = 1
[state]
settle = "0s"
[backup]
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
AGENTS = tuple(f"agent {number}" for number in range(8))
LOGS = ("logs/agents/a.log", "logs/agents/b.log", "logs/symbiont.log")
DIRECTORIES = ("logs/system", "state/sessions", "prompts/cache", "vector_db/indexes", "vector_db/metadata")
"""Directories that are mistreated as wholes; what is in them goes with them."""
COMMANDS = ("sweep", "backup", "rotate", "clean", "verify", "prune", "status", "check", "snapshots")
PATIENCE_S = 60.0


class Violation(AssertionError):
    """Something that must be true is not."""


@dataclass(slots=True)
class Model:
    """What must be true. `saved`: each agent's last acknowledged content; `broken`: those whose save was cut since."""

    saved: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOGS, 0))
    history: dict[str, bytes] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)


class Torture:
    """One run below `base`. Used as a context manager; `step` does something, `settle` compares."""

    def __init__(self, base: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.base = base
        self.root = base / "data"
        self.model = Model()
        self.done: list[str] = []
        self.canary = base / "canary"
        self.canary.mkdir(parents=True)
        (self.canary / "file").write_text("untouched")
        self.canary.chmod(0o711)
        self._running: AbstractContextManager[Daemon] | None = None
        self._daemon: Daemon | None = None
        self._logs: list[Path] = []
        self._steps: tuple[tuple[int, Callable[[], None]], ...] = (
            (12, self.save), (6, self.save_in_place), (5, self.crash_in_a_save), (12, self.append),
            (4, self.delete_agent), (4, self.write_history), (8, self.write_cache), (4, self.chmod),
            (3, self.remove_directory), (3, self.rename_directory), (3, self.link_directory),
            (3, self.put_file_in_place), (2, self.kill_daemon), (2, self.kill_child), (2, self.pause_daemon),
            (2, self.reload), (2, self.command), (1, self.corrupt), (4, self.wait),
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def daemon(self) -> Daemon:
        """The daemon that runs now."""
        assert self._daemon is not None
        return self._daemon

    def _start(self) -> None:
        self._running = running(self.base, SETTINGS, root=self.root)
        self._daemon = self._running.__enter__()
        self._logs.append(self._daemon.log)

    def _leave(self) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None

    def step(self) -> str:
        """One random step; hand back its name."""
        (chosen,) = self.random.choices([step for _, step in self._steps], [weight for weight, _ in self._steps])
        name: str = chosen.__name__
        self.done.append(name)
        chosen()
        return name

    # What agents do

    def _path(self, name: str) -> Path:
        return self.root / "state/agents" / context_name(contexts.agent_id(name), gzip=True)

    def _content(self, name: str) -> bytes:
        return contexts.zipped(contexts.context(name, at=time.time(), text=f"{name} {self.random.random()}"))

    def _retry(self, write: Callable[[], None]) -> None:
        """Do it again while the directory is missing: the daemon is just making it."""

        def look() -> bool:
            with suppress(FileNotFoundError, NotADirectoryError):
                write()
                return True
            return False

        until(look, PATIENCE_S)

    def save(self) -> None:
        """A save that is whole or not at all."""
        name = self.random.choice(AGENTS)
        content = self._content(name)

        def write() -> None:
            temporary = self.root / "state/agents" / f".{contexts.agent_id(name)}.tmp"
            temporary.write_bytes(content)
            temporary.replace(self._path(name))

        self._retry(write)
        self._saved(name, content)

    def _saved(self, name: str, content: bytes) -> None:
        self.model.saved[name] = content
        self.model.broken.discard(name)

    def _back_up(self, name: str) -> None:
        """As the runtime does before each save."""
        if name in self.model.saved and name not in self.model.broken:
            backup = backup_name(contexts.agent_id(name), int(time.time()), gzip=True)
            (self.root / "state/agents" / backup).write_bytes(self.model.saved[name])

    def save_in_place(self) -> None:
        """The runtime's save: a backup first, then the file itself is written over."""
        name = self.random.choice(AGENTS)
        content = self._content(name)

        def write() -> None:
            self._back_up(name)
            self._path(name).write_bytes(content)

        self._retry(write)
        self._saved(name, content)

    def crash_in_a_save(self) -> None:
        """The same, but its process dies in the middle."""
        name = self.random.choice(AGENTS)
        if name not in self.model.saved or name in self.model.broken:
            return
        content = self._content(name)
        cut = self.random.choice((0, 10, len(content) // 2, len(content) - 3))

        def write() -> None:
            self._back_up(name)
            self._path(name).write_bytes(content[:cut])

        self._retry(write)
        self.model.broken.add(name)

    def delete_agent(self) -> None:
        """An agent that is removed, with its backups, stays removed."""
        name = self.random.choice(AGENTS)
        if name not in self.model.saved:
            return
        self.model.saved.pop(name)
        self.model.broken.discard(name)
        for path in sorted(
            (self.root / "state/agents").glob(f"{contexts.agent_id(name)}*"), key=lambda one: len(one.name)
        ):
            path.unlink(missing_ok=True)

    def append(self) -> None:
        """Some lines of a log, opened for each of them."""
        log = self.random.choice(LOGS)
        for _ in range(self.random.randint(1, 60)):
            line = lines(1, self.model.lines[log])

            def write(log: str = log, line: bytes = line) -> None:
                with open(self.root / log, "ab", buffering=0) as file:
                    file.write(line)

            self._retry(write)
            self.model.lines[log] += 1

    def write_history(self) -> None:
        """A prompt that was executed."""
        name = f"prompts/history/2026-11-{self.random.randint(1, 28):02}/{len(self.model.history)}.json"
        content = json.dumps({"n": self.random.random()}).encode()

        def write() -> None:
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).write_bytes(content)

        self._retry(write)
        self.model.history[name] = content

    def write_cache(self) -> None:
        """What can be made again."""
        for _ in range(self.random.randint(1, 12)):
            name = f"prompts/cache/{self.random.getrandbits(60):x}.json"

            def write(path: Path = self.root / name) -> None:
                if (
                    path.parent.is_symlink()
                ):  # the daemon is about to put that right; an agent that follows it is no test
                    raise FileNotFoundError
                path.write_text('{"a": 1}')

            self._retry(write)
            self.model.cached.add(name)

    # What happens to directories

    def _directory(self) -> Path:
        path = self.random.choice(DIRECTORIES)
        if path == "prompts/cache":
            self.model.cached.clear()
        return self.root / path

    def chmod(self) -> None:
        """Another mode."""
        path = self.root / self.random.choice((*DIRECTORIES, "state", "logs"))
        mode = self.random.choice((0o700, 0o777, 0o1755))
        with suppress(FileNotFoundError):
            if not path.is_symlink():  # chmod(1) would follow one that this workload has put there
                path.chmod(mode)

    def remove_directory(self) -> None:
        """It is gone, with all that was in it."""
        shutil.rmtree(self._directory(), ignore_errors=True)

    def rename_directory(self) -> None:
        """It is moved elsewhere."""
        with suppress(FileNotFoundError):
            self._directory().rename(self.base / f"moved-{len(self.done)}")

    def link_directory(self) -> None:
        """A link to what is none of the daemon's business takes its place."""
        self._replaced(self._directory(), lambda path: path.symlink_to(self.canary))

    def put_file_in_place(self) -> None:
        """A file takes its place."""
        self._replaced(self._directory(), lambda path: path.write_text("in the way") and None)

    def _replaced(self, path: Path, make: Callable[[Path], object]) -> None:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(FileExistsError, IsADirectoryError, FileNotFoundError):  # the daemon was quicker
            make(path)

    # What happens to the daemon

    def kill_daemon(self) -> None:
        """And start it again."""
        self.daemon.send(signal.SIGKILL)
        self.daemon.process.wait(PATIENCE_S)
        self._leave()
        self._start()

    def kill_child(self) -> None:
        """One of its jobs, if there is one."""
        for pid in self.daemon.children()[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def pause_daemon(self) -> None:
        """It stands still for a moment."""
        self.daemon.send(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.05, 0.5))
        self.daemon.send(signal.SIGCONT)

    def reload(self) -> None:
        """It reads its settings again."""
        self.daemon.send(signal.SIGHUP)

    def wait(self) -> None:
        """Give it some time."""
        time.sleep(self.random.uniform(0.1, 1.0))

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command."""
        command = [*COMMAND, "--config", str(self.daemon.config), "--root", str(self.root), *arguments]
        environ = {**os.environ, "HOME": str(self.base)}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S)

    def command(self) -> None:
        """Somebody runs the same job by hand; no traceback comes of it."""
        name = self.random.choice(
            ("sweep", "backup", "rotate", "clean", "verify", "prune", "status", "check", "snapshots")
        )
        done = self.run(name)
        self._assert("Traceback" not in done.stderr, f"{name}: {done.stderr}")
        self._assert(done.returncode in (0, 1, 3, 10, 11), f"{name}: {done.returncode} {done.stderr}")

    def corrupt(self) -> None:
        """A bit of a snapshot or an index is flipped: `verify` tells, and when the file is mended, it doesn't."""
        files = sorted(
            path for kind in ("snapshots", "index") for path in (self.base / "backups" / kind).glob("[0-9a-f]*")
        )
        if not files:
            return
        file = self.random.choice(files)
        try:
            whole = file.read_bytes()
            spoilt = bytearray(whole)
            spoilt[self.random.randrange(len(spoilt))] ^= 1 << self.random.randrange(8)
            file.write_bytes(spoilt)
        except FileNotFoundError:
            return  # it was just forgotten
        done = self._verified()
        if file.exists():  # else it was forgotten meanwhile, and is nobody's loss
            self._assert(done.returncode != 0, f"a flipped bit in {file} was not found: {done.stdout}")
            file.write_bytes(whole)

    def _verified(self) -> "subprocess.CompletedProcess[str]":
        """What `verify` says when nobody else is verifying."""

        def look() -> "subprocess.CompletedProcess[str] | None":
            done = self.run("verify")
            return done if done.returncode != 11 else None

        found = until(look, PATIENCE_S)
        assert found is not None
        return found

    # What must be true

    def _assert(self, true: bool, what: str) -> None:
        if not true:
            raise Violation(f"after {len(self.done)} steps, the last ones {self.done[-10:]}: {what}")

    def settle(self) -> None:
        """Nobody does anything: soon all is as it should be."""
        try:
            until(self.daemon.is_right, PATIENCE_S)
            until(
                lambda: all(self._path(name).read_bytes() == self.model.saved[name] for name in self.model.broken),
                PATIENCE_S,
            )
        except TimeoutError:
            broken = {name: self._path(name).read_bytes() == self.model.saved[name] for name in self.model.broken}
            self._assert(False, f"not right or not healed: {self.daemon.is_right()} {broken}")
        self.model.broken.clear()
        for name in AGENTS:
            found = self._path(name).read_bytes() if self._path(name).exists() else None
            self._assert(found == self.model.saved.get(name), f"{name} has other state than it saved")
        for path, content in self.model.history.items():
            self._assert((self.root / path).read_bytes() == content, f"{path} is another one")
        self._assert((self.canary / "file").read_text() == "untouched", "what is outside was written to")
        self._assert(["file"] == os.listdir(self.canary), f"in the canary: {os.listdir(self.canary)}")
        self._assert(self.canary.stat().st_mode & 0o7777 == 0o711, "what is outside has another mode")
        self._check_cost()

    def _is_broken(self, name: str) -> bool:
        return self._path(name).read_bytes() != self.model.saved[name]

    def _check_cost(self) -> None:
        pid = self.daemon.pid
        (rss,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        self._assert(int(rss.split()[1]) < 200 << 10, f"the daemon has {rss}")
        self._assert(len(os.listdir(f"/proc/{pid}/fd")) < 150, "the daemon has too many descriptors")

    def finish(self) -> None:
        """Settle, end the daemon, and look at everything that it has left."""
        self.settle()
        self._assert(self.daemon.stop() == 0, "it did not end well")
        self._assert(self.run("rotate").returncode in (0, 3), "the rotation that a kill left can't be put right")
        for log, count in self.model.lines.items():
            if count:
                told = b"".join(line + b"\n" for line in stream_of(self.root / log).split(b"\n") if line.strip())
                self._assert(told == lines(count), f"{log} lost, doubled or tore lines")
        with Ledger.for_reading(self.base / "datad/ledger.db") as ledger:
            removed = {row.path for row in ledger.actions(kinds=("file_removed", "file_quarantined"))}
            forgotten = {row.path for row in ledger.actions(kinds=("snapshot_forgotten",))}
        gone = {path for path in self.model.cached if not (self.root / path).exists()}
        self._assert(gone <= removed, f"gone without a row: {sorted(gone - removed)[:5]}")
        self._check_snapshots(forgotten)

    def _check_snapshots(self, forgotten: set[str]) -> None:
        events = [json.loads(line) for log in self._logs for line in log.read_bytes().split(b"\n")[:-1]]
        told = {event["id"][:8] for event in events if event["event"] == "snapshot_created" and event.get("id")}
        there = {path.name[:8] for path in (self.base / "backups/snapshots").glob("[0-9a-f]*")}
        self._assert(told <= there | forgotten, f"snapshots were lost: {sorted(told - there - forgotten)}")
        if there:
            done = self.run("verify", "--read-data")
            self._assert(done.returncode == 0, f"the repository is not whole: {done.stdout} {done.stderr}")
        tracebacks = [path for path in self.base.glob("errors-*") if b"Traceback" in path.read_bytes()]
        self._assert(not tracebacks, f"{[path.read_text()[-2000:] for path in tracebacks]}")
