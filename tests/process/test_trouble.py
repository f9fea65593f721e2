"""The daemon when things go wrong: threads that die, queues and disks that are full, files that are damaged, a hang."""

import ctypes
import os
import pty
import select
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from symbiont_datad.guard.guard import Guard, GuardSettings, Report
from symbiont_datad.layout import layout_of
from symbiont_datad.settings import Settings
from tests.process.running import COMMAND, TREE, mode_of, running, until

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and change the kernel's settings")


# Threads that die


class Guarded:
    """A guard in this process, and what it told."""

    def __init__(self, root: Path, reconcile_interval_s: float) -> None:
        self.root = root
        self.told: list[Report] = []
        self._goes_by = (
            layout_of(Settings.model_validate({"root_data_dir": root})),
            GuardSettings(reconcile_interval_s, False, 1000, "auto"),
        )
        self.guard = Guard(*self._goes_by, self.told.append)
        self.guard.create_tree()
        self.guard.start()

    def is_right(self) -> bool:
        return all(mode_of(self.root / path) == 0o755 for path in TREE)

    def wake(self) -> None:
        """Give the guard's own thread something to do."""
        self.guard.reload(*self._goes_by)

    def events(self) -> list[str]:
        return [report.event for report in self.told]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[float], Guarded]]:
    """Starts a guard with a reconcile interval in seconds; it is stopped after the test."""
    started: list[Guarded] = []

    def start(reconcile_interval_s: float) -> Guarded:
        started.append(Guarded(tmp_path / "data", reconcile_interval_s))
        return started[-1]

    yield start
    for one in started:
        one.guard.stop()


def kill_thread(name: str, wake: Callable[[], object]) -> None:
    """End a thread of this process: it gets SystemExit as soon as it runs Python again, which `wake` makes it do."""
    (thread,) = (one for one in threading.enumerate() if one.name == name)
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    deadline = time.monotonic() + 5.0
    while thread.is_alive():
        wake()
        thread.join(0.02)
        assert time.monotonic() < deadline, f"{name} doesn't die"


def toggle(path: Path) -> None:
    """Something that the watcher is told of and the guard looks at."""
    path.mkdir()
    path.rmdir()


dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@dies
def test_a_dead_watcher_is_replaced(guarded: Callable[[float], Guarded]) -> None:
    """After the watcher's thread has died the next reconcile repairs all, and the new watcher sees events again."""
    one = guarded(1.0)
    kill_thread("watch", lambda: toggle(one.root / "prompts/history/today"))
    (one.root / "logs/agents").rmdir()
    (one.root / "state").chmod(0o700)
    until(one.is_right, 5.0)
    until(lambda: "watcher_restarted" in one.events(), 5.0)
    until(lambda: not one.guard.warnings(), 5.0)
    begun = time.monotonic()
    for _ in range(5):
        (one.root / "logs/agents").rmdir()
        until(one.is_right)
    assert time.monotonic() - begun < 2.0


@dies
def test_a_dead_guard_is_revived(guarded: Callable[[float], Guarded]) -> None:
    """A guard whose thread has died is not alive; `revive` starts it again and everything is looked at."""
    one = guarded(3600.0)
    kill_thread("guard", one.wake)
    assert not one.guard.alive()
    (one.root / "logs/agents").rmdir()
    assert one.guard.revive()
    until(one.is_right)
    assert one.guard.alive()
    assert not one.guard.revive()


# What floods


@as_root
@pytest.mark.slow
def test_more_events_than_the_kernel_keeps(tmp_path: Path) -> None:
    """200,000 events against a queue of 64: hints are lost, the log says so, and the tree is right soon after."""
    before = QUEUE.read_text()
    try:
        QUEUE.write_text("64")
        with running(tmp_path, "guard.backoff_after = 1000000\nguard.reconcile_interval = '1h'") as daemon:
            QUEUE.write_text(before)
            history = daemon.root / "prompts/history"
            for number in range(2000):
                stopped = number % 200 == 0  # a daemon that keeps up never sees the queue overflow
                if stopped:
                    daemon.send(signal.SIGSTOP)
                    until(lambda: {"T"} == thread_states(daemon.pid), 5.0)
                path = history / f"d{number % 10}"
                for _ in range(50):
                    path.mkdir()
                    path.rmdir()
                if number % 100 == 0:
                    with suppress(FileNotFoundError):
                        (daemon.root / "logs/agents").rmdir()
                        (daemon.root / "state/sessions").rmdir()
                if stopped:
                    daemon.send(signal.SIGCONT)
            daemon.wait_for_event("watch_overflowed")
            (daemon.root / "logs/audit").chmod(0o777)
            until(daemon.is_right, 30.0)
            time.sleep(1.0)
            assert daemon.is_right()
            assert 0 == daemon.stop()
    finally:
        QUEUE.write_text(before)


# Disks and files


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    """A file system on a directory, for as long as the block runs."""
    where.mkdir()
    subprocess.run(["mount", *options, str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.slow
def test_nothing_touches_a_tree_that_is_held(tmp_path: Path) -> None:
    """Without the volume no job runs and no command either; with it, the jobs come by themselves."""
    volume = tmp_path / "volume"
    volume.mkdir()
    command = [*COMMAND, "--root", str(volume)]
    environ = {**os.environ, "HOME": str(tmp_path), "SYMBIONT_DATAD_GUARD__REQUIRE_MOUNT": "true"}
    with running(tmp_path, "guard.require_mount = true", root=volume) as daemon:
        daemon.wait_for_event("tree_held")
        for words in (["backup"], ["sweep", "--dry-run"], ["check"], ["restore", "latest", "--in-place"], ["init"]):
            done = subprocess.run([*command, *words], env=environ, capture_output=True, text=True, timeout=60)
            assert (1, True) == (done.returncode, "nothing is mounted at" in done.stderr), (words, done)
        assert [] == [*daemon.events("job_started"), *daemon.events("job_finished"), *daemon.events("job_failed")]
        assert [] == list(volume.iterdir())
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(volume)], check=True)
        try:
            daemon.wait_for_event("job_finished", 60.0, job="sweep")
            daemon.wait_for_event("snapshot_created", 60.0, job="backup")
            assert 0 == daemon.stop()
        finally:
            subprocess.run(["umount", "--lazy", str(volume)], check=True)


def fill(directory: Path) -> None:
    """Leave not a byte free."""
    with (directory / "fill").open("ab", buffering=0) as file, suppress(OSError):
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@pytest.mark.slow
@as_root
def test_a_full_disk_for_the_ledger(tmp_path: Path) -> None:
    """The daemon goes on repairing when its own disk is full, says so once, and records again when there is room."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        settings = f"daemon_dir = '{small}/datad'\nguard.backoff_after = 1000000"
        with running(tmp_path, settings) as daemon:
            daemon.wait_for_event("job_finished", job="usage")
            until(lambda: not daemon.children())
            fill(small)
            sessions = daemon.root / "state/sessions"
            for _ in range(300):
                sessions.rmdir()
                until(lambda: mode_of(sessions) == 0o755)
            daemon.wait_for_event("ledger_failed")
            assert len(daemon.events("ledger_failed")) < 5
            (small / "fill").unlink()
            (daemon.root / "logs/system").rmdir()
            daemon.wait_for_event("directory_recreated", path="logs/system")
            assert 0 == daemon.stop()
            with sqlite3.connect(small / "datad/ledger.db") as ledger:
                assert [("logs/system",)] == ledger.execute(
                    "select path from actions where path = 'logs/system' and kind = 'directory_recreated'"
                ).fetchall()
            ledger.close()


@as_root
def test_a_start_with_a_full_disk_for_the_ledger(tmp_path: Path) -> None:
    """A daemon that can't even begin its ledger keeps the tree all the same, and says what is wrong."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        fill(small)
        with running(tmp_path, f"daemon_dir = '{small}/datad'") as daemon:
            assert daemon.is_right()
            (daemon.root / "state/sessions").rmdir()
            until(daemon.is_right)
            daemon.wait_for_event("ledger_failed")
            assert 0 == daemon.stop()


def test_a_damaged_ledger_is_moved_aside(tmp_path: Path) -> None:
    """A file that is no ledger any more is kept under another name, and the daemon begins a new one."""
    ledger = tmp_path / "datad/ledger.db"
    with running(tmp_path) as daemon:
        daemon.stop()
    ledger.write_bytes(b"\0" * 5000 + b"not a database" * 100)
    damaged = ledger.read_bytes()
    with running(tmp_path) as daemon:
        aside = Path(daemon.wait_for_event("ledger_replaced")["path"])
        assert damaged == aside.read_bytes()
        assert daemon.is_right()
        (daemon.root / "state/sessions").rmdir()
        daemon.wait_for_event("directory_recreated", path="state/sessions")
    with sqlite3.connect(ledger) as found:
        assert [("state/sessions",)] == found.execute("select path from actions").fetchall()[-1:]
    found.close()


# The watchdog


def test_the_watchdog_is_fed(tmp_path: Path) -> None:
    """With `$WATCHDOG_USEC` of half a second, WATCHDOG=1 comes several times a second."""
    with running(tmp_path, environ={"WATCHDOG_USEC": "500000"}) as daemon:
        begun = time.monotonic()
        first = daemon.manager.wait_for("WATCHDOG=1")
        third = daemon.manager.wait_for("WATCHDOG=1", after=daemon.manager.wait_for("WATCHDOG=1", after=first + 1) + 1)
        assert third > first
        assert time.monotonic() - begun < 1.5


def thread_states(pid: int) -> set[str]:
    """The states of a process's threads, as proc(5) abbreviates them: `T` is stopped by a signal."""
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


@as_root
@pytest.mark.slow
def test_the_watchdog_is_not_fed_while_the_guard_hangs(tmp_path: Path) -> None:
    """On a file system that stands still the guard can't move: a minute later WATCHDOG=1 stops, and comes back after.

    The file system is frozen (fsfreeze(8)) while the daemon is stopped, after a directory was removed, so that the
    repair is what hangs.
    """
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        settings = f"daemon_dir = '{tmp_path}/datad'\nguard.reconcile_interval = '1h'"
        with running(tmp_path, settings, root=disk / "data", environ={"WATCHDOG_USEC": "3000000"}) as daemon:
            daemon.manager.wait_for("WATCHDOG=1")
            until(lambda: not daemon.children(), 20.0)
            daemon.send(signal.SIGSTOP)
            until(lambda: {"T"} == thread_states(daemon.pid), 5.0)  # a thread that still runs would repair it at once
            (daemon.root / "state/sessions").rmdir()
            subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
            try:
                assert not (daemon.root / "state/sessions").exists()
                daemon.send(signal.SIGCONT)
                time.sleep(64.0)
                seen = len(daemon.manager.datagrams)
                time.sleep(4.0)
                late = daemon.manager.datagrams[seen:]
                assert not [datagram for datagram in late if datagram.startswith(b"WATCHDOG")]
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)
            daemon.manager.wait_for("WATCHDOG=1", after=seen)
            until(daemon.is_right)


# Logs


def test_on_a_terminal_the_log_is_in_colour(tmp_path: Path) -> None:
    """With a terminal for standard error the lines are coloured text, one an event."""
    ours, theirs = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "JOURNAL_STREAM")}
    process = subprocess.Popen(
        [*COMMAND, "--root", str(tmp_path / "data"), "run"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**environ, "HOME": str(tmp_path), "TERM": "xterm"},
    )
    os.close(theirs)
    said = b""
    try:
        while b"daemon_started" not in said and select.select([ours], [], [], 10.0)[0]:
            said += os.read(ours, 65536)
    finally:
        process.terminate()
        process.wait(10)
        os.close(ours)
    (line,) = (line for line in said.splitlines() if b"daemon_started" in line)
    assert b"\x1b[" in line
    assert not line.startswith(b"{")
