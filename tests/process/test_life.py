"""The daemon's life as a process: start, signals, one keeper, kill -9, pid 1, what it was started with."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.running import COMMAND, TREE, Daemon, mode_of, running, until
from tests.torture.clock import WallClock

LINUX = sys.platform == "linux"


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits for its parent to notice has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def stopped_child(daemon: Daemon) -> int:
    """The process of a job, caught at work and stopped. One that has just ended is none."""

    def catch() -> int:
        for pid in daemon.children():
            if b"symbiont_datad.jobs.child" in _command_of(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                while (state := _state_of(pid)) not in "TZX":
                    time.sleep(0.001)
                if state == "T":
                    return pid
        return 0

    return until(catch)


def _state_of(pid: int) -> str:
    """Its state as ps(1) has it; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "X"


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def status_of(daemon: Daemon) -> dict[str, object]:
    """What `status --json` says."""
    command = [*COMMAND, "--config", str(daemon.config), "--root", str(daemon.root), "status", "--json"]
    found: dict[str, object] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def refused(base: Path, root: Path, settings: str = "") -> subprocess.CompletedProcess[str]:
    """A daemon that is expected to end by itself."""
    base.mkdir(exist_ok=True)
    config = base / "refused.toml"
    config.write_text(settings)
    command = [*COMMAND, "--config", str(config), "--root", str(root), "run"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


# Start and end


def test_ready_means_that_the_tree_is_there(tmp_path: Path) -> None:
    """When the service manager hears READY=1, every declared directory is there, and a status in words came along."""
    with running(tmp_path) as daemon:
        assert daemon.is_right()
        (ready,) = (datagram for datagram in daemon.manager.datagrams if datagram.startswith(b"READY=1"))
        assert f"STATUS=keeping {daemon.root}".encode() in ready


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tmp_path: Path, number: int) -> None:
    """SIGTERM and SIGINT end the daemon within five seconds, with exit code 0, after STOPPING=1."""
    with running(tmp_path) as daemon:
        begun = time.monotonic()
        assert 0 == daemon.stop(number)
        assert time.monotonic() - begun < 5.0
        daemon.manager.wait_for("STOPPING=1")
        assert daemon.events("daemon_stopped")
        assert [] == daemon.errors.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="not on this platform: the clock is shown by LD_PRELOAD")
def test_how_long_it_ran_is_not_told_by_the_wall_clock(tmp_path: Path) -> None:
    """It is set back by an hour meanwhile."""
    clock = WallClock(tmp_path)
    with running(tmp_path / "base", environ=clock.environ) as daemon:
        clock.set(-3600.0)
        assert 0 == daemon.stop()
        (stopped,) = daemon.events("daemon_stopped")
        assert stopped["ran_for_s"] >= 0


@pytest.mark.skipif(not LINUX, reason="not on this platform: children are found in /proc")
def test_it_ends_while_a_job_runs(tmp_path: Path) -> None:
    """A job that would go on is asked to end and does; the daemon waits for it and ends with exit code 0."""
    with running(tmp_path, wait=False) as daemon:
        child = stopped_child(daemon)
        daemon.send(signal.SIGTERM)
        daemon.manager.wait_for("STOPPING=1")
        begun = time.monotonic()
        os.kill(child, signal.SIGCONT)
        assert 0 == daemon.process.wait(5)
        assert time.monotonic() - begun < 5.0
        assert gone(child)


@pytest.mark.slow
@pytest.mark.skipif(not LINUX, reason="not on this platform: children are found in /proc")
def test_a_job_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """A job's process that answers nothing doesn't hold the daemon up for more than a few seconds."""
    with running(tmp_path, wait=False) as daemon:
        child = stopped_child(daemon)
        begun = time.monotonic()
        assert 0 == daemon.stop()
        assert time.monotonic() - begun < 5.0
        assert gone(child)


@pytest.mark.skipif(not LINUX, reason="not on this platform: children are found in /proc")
def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Who asks twice doesn't want to wait for jobs: the daemon is gone at once and has killed them."""
    with running(tmp_path, wait=False) as daemon:
        child = stopped_child(daemon)
        daemon.send(signal.SIGTERM)
        daemon.manager.wait_for("STOPPING=1")
        begun = time.monotonic()
        assert 128 + signal.SIGTERM == daemon.stop()
        assert time.monotonic() - begun < 1.0
        until(lambda: gone(child))


def test_a_storm_of_signals_leaves_it_well(tmp_path: Path) -> None:
    """A thousand SIGHUPs, faster than they can be answered, neither end it nor make it deaf for SIGTERM."""
    with running(tmp_path) as daemon:
        for _ in range(1000):
            daemon.send(signal.SIGHUP)
            time.sleep(0.0002)
            assert daemon.manager.datagrams
        daemon.wait_for_event("settings_reloaded")
        (daemon.root / "logs/agents").rmdir()
        until(daemon.is_right)
        assert 0 == daemon.stop()


# One keeper


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    """Exit code 11 and one line with the first one's pid; the first one isn't disturbed."""
    with running(tmp_path) as daemon:
        second = refused(tmp_path / "second", daemon.root)
        assert (11, True) == (second.returncode, f"(process {daemon.pid})" in second.stderr)
        assert 1 == len(second.stderr.splitlines())
        assert daemon.process.poll() is None


@pytest.mark.slow
def test_a_second_daemon_with_other_files_is_refused(tmp_path: Path) -> None:
    """Two daemons that keep their own files in different places still find out that the tree is the same."""
    with running(tmp_path) as daemon:
        second = refused(tmp_path / "second", daemon.root, f"daemon_dir = '{tmp_path}/elsewhere'")
        assert (11, True) == (second.returncode, f"(process {daemon.pid})" in second.stderr)
        assert daemon.process.poll() is None
        assert daemon.is_right()


def test_the_root_stays_locked_after_it_was_made_again(tmp_path: Path) -> None:
    """A root that was moved away and came back as another directory is still kept by one daemon only."""
    with running(tmp_path) as daemon:
        daemon.root.rename(tmp_path / "old")
        until(daemon.is_right)
        second = refused(tmp_path / "second", daemon.root, f"daemon_dir = '{tmp_path}/elsewhere'")
        assert (11, True) == (second.returncode, f"(process {daemon.pid})" in second.stderr)


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    """After kill -9 the next daemon starts at once: no lock file has to be removed by hand."""
    with running(tmp_path) as daemon:
        assert -signal.SIGKILL == daemon.stop(signal.SIGKILL)
    with running(tmp_path) as daemon:
        assert daemon.is_right()


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    """Exit code 2, which the unit does not restart after, and nothing is made."""
    result = refused(tmp_path / "files", tmp_path / "data", "backup_count = 'many'")
    assert (2, True) == (result.returncode, "backup_count" in result.stderr)
    assert not (tmp_path / "data").exists()


# What is left after kill -9


@pytest.mark.skipif(not LINUX, reason="not on this platform: children are found in /proc")
def test_a_job_ends_when_its_daemon_is_killed(tmp_path: Path) -> None:
    """The process of a job doesn't outlive a daemon that was killed with -9."""
    with running(tmp_path, wait=False) as daemon:
        child = stopped_child(daemon)
        daemon.stop(signal.SIGKILL)
        os.kill(child, signal.SIGCONT)
        until(lambda: gone(child), 5.0)


@pytest.mark.slow
@pytest.mark.usefixtures("ample")
def test_the_next_start_catches_up(tmp_path: Path) -> None:
    """A run that fell due while the daemon was dead is made up for at the next start, and the log says so."""
    settings = "schedule.retention_interval = 1"
    with running(tmp_path, settings) as daemon:
        daemon.wait_for_event("job_finished", job="clean")
        daemon.stop(signal.SIGKILL)
    time.sleep(1.1)
    with running(tmp_path, settings) as daemon:
        daemon.wait_for_event("job_caught_up", job="clean")
        daemon.wait_for_event("job_finished", job="clean")


def test_status_tells_whether_it_runs(tmp_path: Path) -> None:
    """`status --json` names the daemon's pid while it runs, and none after it was killed or has ended."""
    with running(tmp_path) as daemon:
        daemon.wait_for_event("daemon_started")
        found = status_of(daemon)
        assert (1, daemon.pid) == (found["schema"], _pid_in(found))
        daemon.stop(signal.SIGKILL)
        assert _pid_in(status_of(daemon)) is None
    with running(tmp_path) as daemon:
        daemon.stop()
        assert _pid_in(status_of(daemon)) is None


def _pid_in(found: dict[str, object]) -> object:
    daemon = found["daemon"]
    return daemon["pid"] if isinstance(daemon, dict) else daemon


# What it was started with


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_umask_changes_no_mode(tmp_path: Path, umask: int) -> None:
    """Directories have their declared modes whatever the umask, at start and when they are made again."""
    with running(tmp_path, 'permissions = {"logs/audit" = "0o770"}', umask=umask) as daemon:
        (daemon.root / "logs/audit").rmdir()
        (daemon.root / "state/sessions").rmdir()
        expected = {path: 0o770 if path == "logs/audit" else 0o755 for path in TREE}
        until(lambda: expected == {path: mode_of(daemon.root / path) for path in TREE})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("with  blanks", marks=pytest.mark.slow),
        "größe-数据-\U0001f5c2",
        pytest.param("a'b\"c$(d);e\\f", marks=pytest.mark.slow),
    ],
)
def test_any_name_will_do_for_the_root(tmp_path: Path, name: str) -> None:
    """Blanks, quotes and any script in the root's path: it is kept, and what is said of it stays ASCII."""
    with running(tmp_path, root=tmp_path / name / "data") as daemon:
        (daemon.root / "state/sessions").rmdir()
        until(daemon.is_right)
        assert str(daemon.root) == daemon.wait_for_event("daemon_started")["path"]
        for datagram in daemon.manager.datagrams:
            assert datagram.isascii()
            assert all(b"=" in line for line in datagram.split(b"\n"))
        assert daemon.pid == _pid_in(status_of(daemon))


def test_a_root_whose_name_is_no_text(tmp_path: Path) -> None:
    """A path that is no UTF-8 is kept as well."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin-\xe9/data"))
    with running(tmp_path, root=root) as daemon:
        (daemon.root / "state/sessions").rmdir()
        until(daemon.is_right)
        assert all(datagram.isascii() for datagram in daemon.manager.datagrams)
        assert daemon.events("daemon_started")
        assert 0 == daemon.stop()


def test_closed_standard_streams_do_no_harm(tmp_path: Path) -> None:
    """Started without standard input, output and error, as some supervisors do, it keeps the tree and ends well."""
    prefix = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with running(tmp_path, prefix=prefix) as daemon:
        (daemon.root / "state/sessions").rmdir()
        until(daemon.is_right)
        assert 0 == daemon.stop()


def test_a_reader_of_the_log_that_goes_away_does_no_harm(tmp_path: Path) -> None:
    """When the pipe that takes its log breaks, the daemon goes on."""
    with running(tmp_path, prefix=("sh", "-c", 'exec "$@" | head -n 1', "sh"), wait=False) as daemon:
        until(lambda: any(one.startswith(b"READY=1") for one in daemon.manager.datagrams))
        with suppress(subprocess.TimeoutExpired):
            daemon.process.wait(0.3)
        pid = int(Path(daemon.root.parent / "datad/locks/keeper.lock").read_text())
        try:
            for _ in range(3):
                (daemon.root / "state/sessions").rmdir()
                until(daemon.is_right)
        finally:
            os.kill(pid, signal.SIGTERM)
            daemon.process.wait(10)


# Process 1


@pytest.mark.skipif(not LINUX, reason="not on this platform: pid namespaces are Linux's")
@pytest.mark.usefixtures("ample")
def test_as_process_1(tmp_path: Path) -> None:
    """In a pid namespace of its own it keeps the tree, buries orphans, ends on SIGTERM, and its jobs run."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a pid namespace")
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    with running(tmp_path, prefix=prefix, environ={"WATCHDOG_USEC": "600000"}) as daemon:
        (daemon.pid,) = daemon.children()
        daemon.wait_for_event("job_finished", job="clean")
        subprocess.run(
            ["nsenter", "--target", str(daemon.pid), "--pid", "sh", "-c", "sleep 0.1 & sleep 0.1 &"], check=True
        )
        until(lambda: any(_is_sleep(pid) for pid in daemon.children()))
        until(lambda: not any(_is_sleep(pid) for pid in daemon.children()), 5.0)
        (daemon.root / "state/sessions").rmdir()
        until(daemon.is_right)
        assert 0 == daemon.stop()


def _is_sleep(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    return False
