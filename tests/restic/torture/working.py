"""Work on a repository in a process of its own, which can be killed at any moment; and what must be true afterwards.

The process tells what it does through a pipe, each thing only once it is so (or, where something is taken away, before
it may be so). The other side keeps a `Ledger` of what it was told, and `Ledger.check` compares the repository with it.
"""

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from symbiont_datad.fsops.process import this_process
from symbiont_datad.restic.archived import Options, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.crypto import Scrypt
from symbiont_datad.restic.errors import LockLost, NoRepository, RepositoryError, RepositoryExists, RepositoryLocked
from symbiont_datad.restic.inventory import take_inventory
from symbiont_datad.restic.known import Memory
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import HeldLock, Identity, hold
from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.prune import Progress, carry_out, forget, survey
from symbiont_datad.restic.prune_plan import Limits, plan
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository, create_repository, open_repository
from symbiont_datad.restic.writer import Writer
from tests.restic.making import read_snapshot
from tests.support import Tree, build_tree

SCRYPT = Scrypt(n=1 << 4)
"""A password that costs little to try: it is tried thousands of times."""

_ENDED_S = 60.0


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to do with the repository at `place`: one of `WORK`, by its name.

    `settle_s`: between the two looks of a lock, and `patience_s`: how long somebody else's lock is waited for, both in
    seconds. `new_password` is what a change of the key is to set, `keep` how many snapshots of this host a prune keeps.
    `blobs_in_index` and `pack_size` (bytes) are small, so that little data makes many files. With `pause` the process
    waits once more when it holds its (first) lock.
    """

    work: str
    place: str
    password: str
    source: str = ""
    memory: str = ""
    new_password: str = ""
    hostname: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    keep: int = 3
    settle_s: float = 0.02
    patience_s: float = 0.0
    pack_size: int = 20_000
    blobs_in_index: int = 25
    pause: bool = False


class Teller:
    """The process's end of the pipe. What is told here is known to the other side, even if the process dies then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, *what: object) -> None:
        """Tell something."""
        self._pipe.send(what)

    def wait(self, where: str) -> None:
        """Tell where we are, and wait to be sent on."""
        self(where)
        self._pipe.recv()


def _identity(task: Task) -> Identity:
    who = Identity(**asdict(this_process()))
    return replace(who, hostname=task.hostname) if task.hostname else who


def _backend(task: Task) -> Backend:
    return backend_at(task.place, task.environ)


def _opened(task: Task) -> Repository:
    return open_repository(_backend(task), task.password)


@contextmanager
def _locked(task: Task, repository: Repository, *, exclusive: bool = False, eager: bool = False) -> Iterator[HeldLock]:
    with hold(
        repository,
        _identity(task),
        exclusive=exclusive,
        eager=eager,
        settle_s=task.settle_s,
        retry_for_s=task.patience_s,
    ) as lock:
        yield lock


def _never() -> bool:
    return False


def init(task: Task, tell: Teller) -> None:
    """Make the repository."""
    create_repository(
        _backend(task), task.password, _identity(task), time.time(), scrypt=SCRYPT, settle_s=task.settle_s
    )
    tell("made")


def join(task: Task, tell: Teller) -> None:
    """Make the repository, unless there is one already."""
    try:
        _opened(task)
    except NoRepository:
        with suppress(RepositoryExists):
            init(task, tell)
    tell("joined")


def backup(task: Task, tell: Teller) -> None:
    """Make a snapshot of the source, as the backup job does it."""
    repository = _opened(task)
    with _locked(task, repository, eager=True) as lock:
        if task.pause:
            tell.wait("locked")
        identity = _identity(task)
        mine = [pair for pair in repository.snapshots() if pair[1].hostname == identity.hostname]
        options = Options(identity, parents=tuple(sorted(mine, key=_time_of)[-1:]))
        memory = Memory(repository.config.id)
        if task.memory:
            memory = Memory.load(Path(task.memory), repository.config.id, _index_files(repository))
        target = os.fsencode(task.source)
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        writer = Writer(repository, pack_size=task.pack_size, blobs_in_index=task.blobs_in_index)
        with writer:
            archived = Archiver(repository, writer, options, memory).archive([(target, fd)])
            try:
                lock.confirm()
            except RepositoryLocked as error:
                raise LockLost(str(error)) from error
        os.close(fd)
        lock.check()
        name = repository.save_snapshot(snapshot_of(archived, writer.added, options, [target], time.time_ns()))
        tell("saved", name, [os.fsdecode(path) for path, _ in archived.unread + archived.torn])
        if task.memory:
            memory.save(Path(task.memory), _index_files(repository))


def prune(task: Task, tell: Teller) -> None:
    """Forget all but the newest snapshots of each host, and free all the space that can be."""
    repository = _opened(task)
    with _locked(task, repository, exclusive=True):
        if task.pause:
            tell.wait("locked")
        by_host: dict[str, list[tuple[str, Snapshot]]] = {}
        for name, snapshot in repository.snapshots():
            by_host.setdefault(snapshot.hostname, []).append((name, snapshot))
        doomed = [name for all_ in by_host.values() for name, _ in sorted(all_, key=_time_of)[: -task.keep]]
        tell("forgetting", doomed)
        forget(repository, doomed)
        found = survey(repository, Progress(), _never)
        carry_out(repository, found, plan(found, Limits(max_unused=0, small_pack=0)), Progress(), _never)
        tell("pruned")


def change_key(task: Task, tell: Teller) -> None:
    """Let the new password open the repository, and no other any more."""
    repository = _opened(task)
    with _locked(task, repository):
        if task.pause:
            tell.wait("locked")
        repository.add_key(task.new_password, _identity(task), time.time(), SCRYPT)
        tell("added", task.new_password)
    repository = open_repository(repository.backend, task.new_password)
    with _locked(task, repository, exclusive=True):
        tell("removing", task.password)
        keys = repository.keys()
        for key in keys:
            if not key.current:
                repository.remove_key(key.name)
        tell("removed", task.password)


WORK: dict[str, Callable[[Task, Teller], None]] = {
    "init": init, "join": join, "backup": backup, "prune": prune, "change_key": change_key,
}  # fmt: skip


def _time_of(pair: tuple[str, Snapshot]) -> str:
    return pair[1].time


def _index_files(repository: Repository) -> list[str]:
    return [name for name, _ in repository.backend.list(FileKind.INDEX)]


# The process


@dataclass
class Worker:
    """A process at work, in a process group of its own, which waits to be sent on."""

    process: BaseProcess
    pipe: Connection

    def go_on(self) -> None:
        """Let it work."""
        self.pipe.send(None)

    def wait_for(self, where: str) -> None:
        """Wait until it is there, and waits itself."""
        assert (where,) == self.pipe.recv()

    def kill(self) -> None:
        """End it and all that it has started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Its number."""
        pid = self.process.pid
        assert pid is not None
        return pid

    def end(self, timeout_s: float = _ENDED_S) -> int:
        """Wait for its end; hand back its exit code. One that does not end is killed, and fails the test."""
        wait([self.process.sentinel], timeout_s)
        with _one_at_a_time:
            self.process.join(0)
            code = self.process.exitcode
        if code is None:
            self.kill()
            raise AssertionError("a process did not end")
        return code

    def told(self) -> Iterator[tuple[Any, ...]]:
        """All that it told until its end."""
        with suppress(EOFError, ConnectionError):
            while True:
                yield self.pipe.recv()


_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])
_one_at_a_time = threading.Lock()
"""A start looks for processes that ended. If another thread looks at the same one then, one of the two reads the end of
a pipe, and takes it for exit code 255."""


def start(task: Task) -> Worker:
    """A process that waits to begin this task. It is forked from one that has everything imported: that takes 10 ms."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=run, args=(task, theirs))
    with _one_at_a_time:
        process.start()
    theirs.close()
    worker = Worker(process, ours)
    worker.wait_for("ready")
    return worker


def run(task: Task, pipe: Connection) -> None:
    """What the process does. It ends with 1, and tells the error, when the repository says what is wrong."""
    os.setpgid(0, 0)

    tell = Teller(pipe)
    tell.wait("ready")
    try:
        WORK[task.work](task, tell)
    except RepositoryError as error:
        tell("failed", type(error).__name__, str(error))
        code = 1
    except BaseException:
        tell("crashed", traceback.format_exc())
        code = 2
    else:
        code = 0
    pipe.close()
    sys.stderr.flush()
    sys.exit(code)


# What is known from outside


class Source:
    """A tree that changes from turn to turn, on the disk and as data."""

    def __init__(self, path: Path, seed: int, changes: int | None = None) -> None:
        """Two of the same `seed` begin alike; with different `changes` they become different."""
        self.path = path
        self._random = random.Random(seed)
        noise = self._random.randbytes
        self._files: dict[str, dict[str, bytes]] = {
            "quiet": {f"{i}": noise(1500) for i in range(6)},
            "small": {f"{i}": noise(100) * 9 for i in range(12)},
            "large": {f"{i}": noise(9000) for i in range(4)},
        }
        self._files["large"]["huge"] = noise(1_200_000)  # in chunks, and a pack of its own
        if changes is not None:
            self._random.seed(changes)
        build_tree(path, self._files)

    @property
    def tree(self) -> Tree:
        """What it holds now, as data that no longer changes."""
        return {name: dict(files) for name, files in self._files.items()}

    def change(self) -> None:
        """Rewrite, add and remove a few files, as an agent would."""
        for _ in range(self._random.randint(1, 4)):
            folder = self._random.choice(("small", "small", "large"))
            name = f"{self._random.randrange(14)}"
            if self._random.random() < 0.2:
                self._files[folder].pop(name, None)
                (self.path / folder / name).unlink(missing_ok=True)
            else:
                content = self._random.randbytes(300) * (3 if folder == "small" else 30)
                self._files[folder][name] = content
                (self.path / folder / name).write_bytes(content)


class Ledger:
    """What must be true of a repository, by all that was told."""

    def __init__(self, place: str, password: str, environ: Mapping[str, str] | None = None) -> None:
        self.place = place
        self.password = password
        self.environ = environ or {}
        self.snapshots: dict[str, Tree] = {}
        """The snapshots that must be there, with what they hold."""
        self._going: dict[str, Tree] = {}
        self._gone_passwords: list[str] = []

    def note(self, told: Sequence[tuple[Any, ...]], tree: Tree | None) -> None:
        """Take in what a process told; `tree` is what its source held."""
        for what in told:
            match what:
                case ("saved", str(name), unread):
                    assert [] == unread
                    assert tree is not None
                    self.snapshots[name] = tree
                case ("forgetting", names):
                    self._going = {name: self.snapshots.pop(name) for name in names if name in self.snapshots}
                case ("pruned",):
                    self._going = {}
                case ("added", password):
                    self.password = password
                case ("removed", password):
                    self._gone_passwords.append(password)
                case ("crashed", text):
                    raise AssertionError(text)

    def check(self, tree: Tree | None) -> None:
        """Fail unless each snapshot holds what it should, and each pack that an index names is there.

        A snapshot that nobody told of was saved by a process that was killed before it could tell: then the source held
        `tree`.
        """
        repository = open_repository(backend_at(self.place, self.environ), self.password)
        found = dict(repository.snapshots())
        assert set() == self.snapshots.keys() - found.keys(), "snapshots are gone"
        expected = {**self._going, **self.snapshots}
        for name in found:
            held = expected.get(name, tree)
            assert held is not None
            assert held == read_snapshot(repository, name), f"snapshot {name} holds something else"
            self.snapshots[name] = held
        self._going = {}
        inventory = take_inventory(repository, _never)
        assert set() == inventory.lost, "an index names packs that are not there"
        for password in self._gone_passwords:
            with suppress(RepositoryError):
                open_repository(repository.backend, password)
                raise AssertionError(f"{password} still opens the repository")
        self._gone_passwords = self._gone_passwords[-3:]


def leftovers(place: str) -> list[str]:
    """The temporary files in a repository's directory."""
    return sorted(str(path.relative_to(place)) for path in Path(place).rglob("*-tmp-*"))


def local(place: Path) -> LocalBackend:
    """The backend of a repository in a directory."""
    return LocalBackend(str(place))
