"""Locks: who excludes whom, what is stale, and how a lock that was lost is noticed."""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from symbiont_datad.restic.errors import LockLost, RepositoryLocked, Unavailable
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import STALE_S, HeldLock, Identity, LockStore, hold, is_stale, unlock
from symbiont_datad.restic.records import Lock, format_time
from symbiont_datad.restic.repository import open_repository

ME = Identity("host", "anna", os.getpid(), 1000, 1000, namespace="boot-1")
START = datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp()


class Files:
    """A store over a dict. `away` makes every call fail; `broken` are names that can't be read."""

    def __init__(self, *locks: Lock) -> None:
        self.files: dict[str, Lock] = {}
        self.broken: set[str] = set()
        self.away = False
        self.stays = False
        self._numbers = itertools.count(1)
        for lock in locks:
            self.write_lock(lock)

    def lock_files(self) -> Iterator[tuple[str, Lock | None]]:
        """As the protocol has it."""
        self._reach()
        yield from [(name, None if name in self.broken else lock) for name, lock in list(self.files.items())]

    def write_lock(self, lock: Lock) -> str:
        """As the protocol has it."""
        self._reach()
        name = f"lock-{next(self._numbers)}"
        self.files[name] = lock
        return name

    def remove_lock(self, name: str) -> None:
        """As the protocol has it."""
        self._reach()
        if self.stays:
            raise Unavailable("read only")
        self.files.pop(name, None)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the store is away")


class Directory:
    """A store over a directory of JSON files, for many processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lock_files(self) -> Iterator[tuple[str, Lock | None]]:
        """As the protocol has it."""
        for name in os.listdir(self.path):
            try:
                yield name, msgspec.json.decode((self.path / name).read_bytes(), type=Lock)
            except FileNotFoundError:
                continue
            except msgspec.DecodeError:
                yield name, None  # it is being written

    def write_lock(self, lock: Lock) -> str:
        """As the protocol has it."""
        name = f"{os.getpid()}-{threading.get_ident()}-{random.getrandbits(64):x}"
        time.sleep(random.uniform(0, 0.005))  # as slow as storage may be: others write between our look and our file
        (self.path / name).write_bytes(msgspec.json.encode(lock))
        return name

    def remove_lock(self, name: str) -> None:
        """As the protocol has it."""
        (self.path / name).unlink(missing_ok=True)


@dataclass
class Clock:
    """Both clocks, and a sleep that only moves them on."""

    wall: float = START
    steady: float = 0.0
    slept: list[float] = field(default_factory=list)
    while_asleep: Callable[[], object] | None = None

    def sleep(self, seconds: float) -> None:
        """Time passes, and what others do meanwhile."""
        self.slept.append(seconds)
        self.wall += seconds
        self.steady += seconds
        if self.while_asleep:
            self.while_asleep()

    def hold(
        self, store: LockStore, *, exclusive: bool, retry_for_s: float = 0.0, who: Identity = ME
    ) -> AbstractContextManager[HeldLock]:
        """`hold` with this clock, and without a refresh that is not asked for."""
        return hold(
            store,
            who,
            exclusive=exclusive,
            retry_for_s=retry_for_s,
            now=lambda: self.wall,
            monotonic=lambda: self.steady,
            sleep=self.sleep,
        )


def lock(**fields: object) -> Lock:
    """A lock of somebody on another host, refreshed at START."""
    theirs = Lock(format_time(START), False, "elsewhere", "bert", 4711, 1001, 1001)
    return msgspec.structs.replace(theirs, **fields)


def dead_pid() -> int:
    """The pid of a child that has ended and was waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_lock_lies_there_while_it_is_held() -> None:
    """The file says who holds it, in restic's own words and order, and goes at the end."""
    store = Files()
    with Clock().hold(store, exclusive=True) as held:
        assert [held.name] == [*store.files]
        assert (
            '{"time":"2026-11-23T10:00:00Z","exclusive":true,"hostname":"host","username":"anna",'
            f'"pid":{os.getpid()},"uid":1000,"gid":1000,"namespace":"boot-1"}}'
        ) == msgspec.json.encode(store.files[held.name]).decode()
        held.check()
    assert {} == store.files


def test_a_shared_lock_says_that_it_is_not_exclusive() -> None:
    """`exclusive` is always written; uid and gid of root are not, nor a namespace that is not known."""
    text = msgspec.json.encode(Lock("2026-11-23T10:00:00Z", False, "h", "root", 1)).decode()
    assert '{"time":"2026-11-23T10:00:00Z","exclusive":false,"hostname":"h","username":"root","pid":1}' == text


@pytest.mark.parametrize(
    ("theirs", "ours", "excluded"),
    [(False, False, False), (False, True, True), (True, False, True), (True, True, True)],
)
def test_an_exclusive_lock_excludes_all(theirs: bool, ours: bool, excluded: bool) -> None:
    """Only shared locks go together, and who is refused leaves nothing behind."""
    store, clock = Files(lock(exclusive=theirs)), Clock()
    with ExitStack() as stack:
        if excluded:
            with pytest.raises(RepositoryLocked):
                stack.enter_context(clock.hold(store, exclusive=ours))
            assert ["lock-1"] == [*store.files]
        else:
            stack.enter_context(clock.hold(store, exclusive=ours))
            assert 2 == len(store.files)


def test_who_came_at_the_same_moment_is_seen_in_the_second_look() -> None:
    """A lock that is written while ours is being written makes us step back, after the wait."""
    store, clock = Files(), Clock()
    clock.while_asleep = lambda: store.write_lock(lock())
    with pytest.raises(RepositoryLocked), clock.hold(store, exclusive=True):
        pass
    assert [0.2] == clock.slept
    assert ["elsewhere"] == [one.hostname for one in store.files.values()]


def test_an_eager_lock_begins_before_the_second_look() -> None:
    """It is a lock from the start, and sure of itself only after `confirm`."""
    store = Files()
    begun = time.monotonic()
    with hold(store, ME, exclusive=False, eager=True, settle_s=0.3) as held:
        held.check()
        assert time.monotonic() - begun < 0.25
        held.confirm()
        assert time.monotonic() - begun >= 0.3
        assert [False] == [found.exclusive for found in store.files.values()]
    assert {} == store.files


@pytest.mark.parametrize("exclusive", [False, True], ids=["a shared one", "an exclusive one"])
def test_an_eager_lock_gives_way_to_who_was_quicker(exclusive: bool) -> None:
    """Somebody who came at the same moment is seen in the second look; from then on the lock is refused."""
    store = Files()
    with hold(store, ME, exclusive=exclusive, eager=True, settle_s=0.1) as held:
        store.write_lock(lock(exclusive=not exclusive, time=format_time(time.time())))
        with pytest.raises(RepositoryLocked):
            held.confirm()
        with pytest.raises(RepositoryLocked):
            held.check()
        assert isinstance(held.refused, RepositoryLocked)


def test_the_message_says_who_and_what_to_do() -> None:
    """User, host, process, since when, how, and the remedy."""
    store = Files(lock(exclusive=True))
    with pytest.raises(RepositoryLocked) as caught, Clock().hold(store, exclusive=False):
        pass
    assert (
        "The repository is locked exclusively by bert@elsewhere (process 4711); the lock was last refreshed at "
        "2026-11-23 10:00:00 UTC. "
    ) in str(caught.value)
    assert "`repository unlock` removes it" in str(caught.value)


def test_a_lock_without_a_time_is_respected() -> None:
    """Who wrote it may still live; the message has what stands there."""
    store = Files(lock(exclusive=True, time="yesterday"))
    with pytest.raises(RepositoryLocked, match="last refreshed at yesterday"), Clock().hold(store, exclusive=False):
        pass


def test_a_lock_is_tried_again_while_there_is_time() -> None:
    """The others' lock goes after a while, and ours is taken; the pauses grow."""
    store, clock = Files(lock(exclusive=True)), Clock()
    clock.while_asleep = lambda: store.files.pop("lock-1", None) if clock.wall > START + 20 else None
    with clock.hold(store, exclusive=True, retry_for_s=60):
        assert START + 20 < clock.wall < START + 60
    assert 3 < len(clock.slept) < 12


def test_trying_again_ends_in_time() -> None:
    """After the time that was given it is tried a last time, and then refused."""
    clock = Clock()
    with pytest.raises(RepositoryLocked), clock.hold(Files(lock(exclusive=True)), exclusive=True, retry_for_s=60):
        pass
    assert START + 60 == pytest.approx(clock.wall)


def test_waiting_can_be_given_up() -> None:
    """`sleep` may raise, and no lock stays, neither in the pause nor between the two looks."""
    for store in (Files(lock(exclusive=True)), Files()):
        before, clock = {**store.files}, Clock()
        clock.while_asleep = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt), clock.hold(store, exclusive=True, retry_for_s=60):
            pass
        assert before == store.files


def test_a_lock_that_cannot_be_read_is_looked_at_again() -> None:
    """It is being written or removed for a moment; one that stays so counts as a lock, and the message names it."""
    store, clock = Files(lock(exclusive=True)), Clock()
    store.broken = {"lock-1"}
    with pytest.raises(RepositoryLocked, match=r"can't be read \(lock-1\)"), clock.hold(store, exclusive=False):
        pass
    clock.while_asleep = lambda: store.files.pop("lock-1", None)
    with clock.hold(store, exclusive=True):
        assert 1 == len(store.files)


def test_age_makes_stale() -> None:
    """Half an hour without a refresh, wherever the holder is; a time in the future or one that is none does not."""
    assert not is_stale(lock(), ME, START + STALE_S)
    assert is_stale(lock(), ME, START + STALE_S + 1)
    assert is_stale(lock(time="2026-11-23T10:00:00.123456789+01:00"), ME, START + STALE_S)
    assert not is_stale(lock(), ME, START - 1e6)
    assert not is_stale(lock(time="yesterday"), ME, START + 1e6)


def test_a_dead_process_makes_stale_only_where_its_pid_is_known() -> None:
    """Same host name and same pid namespace, or nothing is known about the pid; restic's locks have no namespace."""
    dead = lock(hostname="host", namespace="boot-1", pid=dead_pid())
    assert is_stale(dead, ME, START)
    for foreign in (
        msgspec.structs.replace(dead, pid=os.getpid()),
        msgspec.structs.replace(dead, pid=0),
        msgspec.structs.replace(dead, pid=-1),
        msgspec.structs.replace(dead, pid=1 << 70),
        msgspec.structs.replace(dead, hostname="other"),
        msgspec.structs.replace(dead, namespace="boot-2"),
        msgspec.structs.replace(dead, namespace=""),
    ):
        assert not is_stale(foreign, ME, START)
        assert not is_stale(foreign, replace(ME, namespace=""), START)


def test_a_stale_lock_is_removed_on_the_way() -> None:
    """What a crash left does not hold up the next run."""
    store = Files(lock(hostname="host", namespace="boot-1", pid=dead_pid(), exclusive=True), lock(time=format_time(0)))
    with Clock().hold(store, exclusive=True):
        assert ["lock-3"] == [*store.files]


def test_a_container_does_not_give_its_host_name_to_restic() -> None:
    """restic would judge our pid by its own numbers: so no restic has the host name that is written."""
    inside = replace(ME, own_pid_space=True, namespace="4026532201")
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True, who=inside) as held:
        written = store.files[held.name]
        assert "host/ns-4026532201" == written.hostname
        assert not is_stale(written, inside, START)
        gone = msgspec.structs.replace(written, pid=dead_pid())
        assert is_stale(gone, inside, START)
        assert not is_stale(gone, replace(inside, namespace="4026532202"), START)


def test_unlock_removes_what_is_stale_or_all() -> None:
    """A lock that can't be read goes only with all."""
    store = Files(lock(), lock(time=format_time(START - STALE_S - 1)), lock())
    store.broken = {"lock-3"}
    assert 1 == unlock(store, ME, now=START)
    assert ["lock-1", "lock-3"] == [*store.files]
    assert 2 == unlock(store, ME, all=True)
    assert {} == store.files


def test_a_refresh_puts_a_new_file_in_the_place_of_the_old() -> None:
    """Before the old file goes, the new one is there: at no time is there none."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=False) as held:
        seen: list[list[str]] = []
        clock.wall += 300
        clock.while_asleep = lambda: seen.append([*store.files])
        held.refresh()
        assert [["lock-1", "lock-2"]] == seen
        assert {"lock-2": format_time(START + 300.2)} == {name: one.time for name, one in store.files.items()}
        held.check()
    assert {} == store.files


def test_a_thread_refreshes() -> None:
    """The lock file changes by itself, after a failure too, and the reason of the failure can be looked up."""
    store = Files()
    with hold(store, ME, exclusive=True, interval_s=0.05, settle_s=0.001) as held:
        first = held.name
        wait_until(lambda: held.name != first)
        store.away = True
        wait_until(lambda: held.failure is not None)
        assert "the store is away" == str(held.failure)
        second = held.name
        store.away = False
        wait_until(lambda: held.name != second and held.failure is None)
        held.check()
    assert {} == store.files


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, ten seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("clock_name", ["wall", "steady"])
def test_a_lock_that_cannot_be_refreshed_is_lost(clock_name: str) -> None:
    """By either clock: the one that runs on while the machine sleeps, and the one that nobody can set back."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True) as held:
        store.away = True
        setattr(clock, clock_name, getattr(clock, clock_name) + 22 * 60)
        held.check()
        setattr(clock, clock_name, getattr(clock, clock_name) + 60)
        with pytest.raises(LockLost, match="could not be refreshed for 1380 s: the store is away"):
            held.check()
        store.away = False
        with pytest.raises(LockLost):
            held.check()
    assert {} == store.files


def test_a_lock_outlives_sleep_when_nobody_took_it_for_stale() -> None:
    """Its file is still there after two hours of sleep: it is refreshed, and work goes on."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True) as held:
        clock.wall += 7200
        held.check()
        assert {"lock-2": format_time(START + 7200.2)} == {name: one.time for name, one in store.files.items()}


@pytest.mark.parametrize("moment", ["before", "while it is refreshed"])
def test_a_lock_that_somebody_removed_is_lost(moment: str) -> None:
    """Whoever took it for stale holds the repository now: ours is not put back, and nothing of ours stays."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True) as held:
        clock.wall += 7200

        def take_over() -> None:
            unlock(store, replace(ME, hostname="other"), now=clock.wall)
            store.write_lock(lock(time=format_time(clock.wall), exclusive=True))
            clock.while_asleep = None

        if moment == "before":
            take_over()
        else:
            clock.while_asleep = take_over
        with pytest.raises(LockLost, match="somebody removed it"):
            held.check()
        assert ["elsewhere"] == [one.hostname for one in store.files.values()]
    assert 1 == len(store.files)


def test_a_lost_lock_is_not_refreshed() -> None:
    """Somebody else may hold the repository by now."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True) as held:
        store.files.clear()
        held.refresh()
        held.refresh()
        assert {} == store.files
        with pytest.raises(LockLost):
            held.check()


def test_a_store_that_goes_away_during_a_refresh_costs_nothing() -> None:
    """The old file is still there and counts; the new one goes as soon as it can."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True) as held:
        clock.while_asleep = lambda: setattr(store, "away", True)
        held.refresh()
        assert "the store is away" == str(held.failure)
        held.check()
        store.away, clock.while_asleep = False, None
        held.refresh()
        assert [held.name] == [*store.files]
    assert {} == store.files


def test_a_file_that_cannot_be_removed_is_no_error() -> None:
    """It is tried again with the next refresh; at the end it is left to become stale."""
    store, clock = Files(), Clock()
    with clock.hold(store, exclusive=True) as held:
        store.stays = True
        held.refresh()
        held.check()
        assert 2 == len(store.files)
        store.stays = False
        held.refresh()
        assert [held.name] == [*store.files]
        store.stays = True
    assert 1 == len(store.files)


WORKERS, THREADS, SECONDS = 3, 2, 0.7


def contend(locks: Path, holders: Path, settle_s: float) -> dict[str, int]:
    """Take locks of both kinds for a while; who holds one says so in `holders` and looks who else is there."""
    store, counts, start = Directory(locks), {"x": 0, "s": 0, "wrong": 0}, time.monotonic()
    me = Identity("host", "anna", os.getpid(), 1000, 1000, "boot-1")

    def work(number: int) -> None:
        dice, done = random.Random(os.getpid() * 100 + number), set[str]()
        while time.monotonic() < start + SECONDS or (len(done) < 2 and time.monotonic() < start + 20 * SECONDS):
            kind = dice.choice("xs")
            try:
                with hold(store, me, exclusive=kind == "x", settle_s=settle_s):
                    mine = holders / f"{kind}-{os.getpid()}-{number}"
                    mine.touch()
                    time.sleep(dice.uniform(0, 0.01))
                    found = [name[0] for name in os.listdir(holders)]
                    counts["wrong"] += "x" in found and len(found) > 1
                    counts[kind] += 1
                    done.add(kind)
                    mine.unlink()
            except RepositoryLocked:
                pass
            time.sleep(dice.uniform(0, 0.05))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


@pytest.mark.parametrize("settle_s", [0.002, 0.0])
def test_an_exclusive_lock_is_never_held_beside_another(settle_s: float, tmp_path: Path) -> None:
    """Processes with several threads each, all at once: whoever holds an exclusive lock is alone. Where all see at once
    what one writes, as here, nobody has to wait for that.
    """
    locks, holders = tmp_path / "locks", tmp_path / "holders"
    locks.mkdir()
    holders.mkdir()
    command = [sys.executable, __file__, str(locks), str(holders), str(settle_s)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(WORKERS)]
    results = [json.loads(worker.communicate(timeout=30)[0]) for worker in workers]
    total = {key: sum(result[key] for result in results) for key in ("x", "s", "wrong")}
    assert 0 == total["wrong"]
    assert total["x"] >= WORKERS * THREADS
    assert total["s"] >= WORKERS * THREADS
    assert [] == os.listdir(locks)


@pytest.mark.slow
def test_restic_and_we_respect_each_other(tmp_path: Path) -> None:
    """restic is refused where we are in the way, `restic unlock` spares our lock, and signals us outside containers."""
    restic = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if not restic:
        pytest.skip("restic is not installed")
    (tmp_path / "file").write_text("content")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RESTIC_REPOSITORY": str(tmp_path / "repository"),
        "RESTIC_PASSWORD": "test",
    }

    def run(*arguments: str) -> str:
        command = [restic, "--no-cache", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert "already locked" in done.stderr or done.returncode == 0, done.stderr
        return done.stderr

    run("init")
    run("backup", "file")
    store = open_repository(LocalBackend(str(tmp_path / "repository")), "test")
    here = replace(ME, hostname=socket.gethostname())
    contained = replace(here, own_pid_space=True)
    hangups: list[int] = []
    handler = signal.signal(signal.SIGHUP, lambda number, _: hangups.append(number))
    try:
        with hold(store, here, exclusive=False, settle_s=0.01):
            assert "" == run("backup", "file")
            assert f"already locked by PID {os.getpid()} on {here.hostname} by anna" in run("prune")
        with hold(store, contained, exclusive=True, settle_s=0.01) as held:
            assert "already locked exclusively" in run("backup", "file")
            run("unlock")
            assert [held.name] == [name for name, _ in store.lock_files()]
            assert [] == hangups
        with hold(store, here, exclusive=True, settle_s=0.01) as held:
            run("unlock")
            assert [held.name] == [name for name, _ in store.lock_files()]
            assert [signal.SIGHUP] == hangups
    finally:
        signal.signal(signal.SIGHUP, handler)
    store.write_lock(lock(time=format_time(time.time()), hostname=here.hostname, pid=dead_pid(), exclusive=True))
    run("unlock")
    assert [] == list(store.lock_files())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(contend(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))))
