"""SIGHUP: settings are read again, and what is wrong changes nothing."""

import signal
from pathlib import Path

import pytest

from tests.process.running import Daemon, mode_of, running, until

_WITHOUT_ROOT = ("sh", "-c", 'for last; do :; done; exec "$1" "$2" "$3" "$4" "$5" "$last"', "sh")
"""Starts the command after it without its `--root DIR`."""


def lines(datagram: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in datagram.decode("ascii").split("\n"))


def test_the_protocol_of_a_reload(tmp_path: Path) -> None:
    """RELOADING=1 and the monotonic time come in one datagram, READY=1 follows (sd_notify(3), `Type=notify-reload`)."""
    with running(tmp_path) as daemon:
        seen = len(daemon.manager.datagrams)
        daemon.send(signal.SIGHUP)
        reloading = daemon.manager.wait_for("RELOADING=1", after=seen)
        ready = daemon.manager.wait_for("READY=1", after=seen)
        assert reloading < ready
        found = lines(daemon.manager.datagrams[reloading])
        assert {"RELOADING", "MONOTONIC_USEC"} == set(found)
        uptime_us = float(Path("/proc/uptime").read_text().split()[0]) * 1e6
        assert uptime_us == pytest.approx(int(found["MONOTONIC_USEC"]), abs=10e6)


def test_a_new_mode_takes_effect(tmp_path: Path) -> None:
    """A mode that the new file declares is set on the directory that is there, and kept from then on."""
    with running(tmp_path) as daemon:
        audit = daemon.root / "logs/audit"
        daemon.reload('permissions = {"logs/audit" = "0o750"}')
        until(lambda: mode_of(audit) == 0o750)
        audit.chmod(0o777)
        until(lambda: mode_of(audit) == 0o750)
        assert daemon.events("settings_reloaded")


def test_a_new_directory_takes_effect(tmp_path: Path) -> None:
    """A directory that the new file adds is made and kept; one that is no longer declared is left alone."""
    with running(tmp_path) as daemon:
        daemon.reload('[[layout.directory]]\npath = "reports"\nmode = "0o700"\nopen = true')
        until(lambda: mode_of(daemon.root / "reports") == 0o700)
        (daemon.root / "reports/2026").mkdir(mode=0o755)
        until(lambda: mode_of(daemon.root / "reports/2026") == 0o700)
        (daemon.root / "reports/2026").rmdir()
        daemon.reload("")
        (daemon.root / "reports").rmdir()
        (daemon.root / "state/sessions").rmdir()
        until(lambda: mode_of(daemon.root / "state/sessions") == 0o755)
        assert mode_of(daemon.root / "reports") is None


@pytest.mark.slow
def test_a_new_interval_takes_effect(tmp_path: Path) -> None:
    """A job that ran once at start runs every second when the new file says so."""
    with running(tmp_path) as daemon:
        daemon.wait_for_event("job_finished", job="clean")
        daemon.reload("schedule.retention_interval = 1")
        daemon.wait_for_event("job_finished", job="clean", count=3)


def test_a_new_log_level_takes_effect(tmp_path: Path) -> None:
    """With the level raised, a repair is no longer logged; with it lowered again, the next one is."""
    with running(tmp_path) as daemon:
        daemon.reload('logging.level = "error"')
        (daemon.root / "state/sessions").rmdir()
        until(lambda: "state/sessions" in daemon.recorded("directory_recreated"))  # it would be in the log by then
        daemon.reload('logging.level = "info"')
        (daemon.root / "logs/system").rmdir()
        daemon.wait_for_event("directory_recreated", path="logs/system")
        repaired = [event["path"] for event in daemon.events("directory_recreated")]
        assert ["logs/system"] == repaired, daemon.log.read_text()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("auto_save_interval = 'soon'", "auto_save_interval"),
        ("no = such = toml", "datad-"),
        ("unknown_setting = 1", "unknown_setting"),
        ("owner = 'nobody-of-that-name'", "owner"),
    ],
)
def test_a_bad_file_is_reported_and_changes_nothing(tmp_path: Path, settings: str, named: str) -> None:
    """Wrong values, broken TOML and unknown names are told of in the log; the settings from before stay in force."""
    good = 'permissions = {"logs/audit" = "0o750"}'
    with running(tmp_path, good) as daemon:
        daemon.reload(settings)
        assert named in daemon.wait_for_event("settings_refused")["reason"]
        _still_kept(daemon)
        assert not daemon.events("settings_reloaded")


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    """The file that was named on the command line has vanished, or can't be read: the old settings stay."""
    with running(tmp_path, 'permissions = {"logs/audit" = "0o750"}') as daemon:
        daemon.config.unlink()
        daemon.send(signal.SIGHUP)
        daemon.wait_for_event("settings_refused")
        daemon.config.mkdir()
        daemon.send(signal.SIGHUP)
        daemon.wait_for_event("settings_refused", count=2)
        _still_kept(daemon)


def test_a_moved_root_is_refused(tmp_path: Path) -> None:
    """The root and the daemon's own directory can't change while it runs; the other new settings don't apply either."""
    with running(tmp_path, 'permissions = {"logs/audit" = "0o750"}') as daemon:
        daemon.reload(f"daemon_dir = '{tmp_path}/elsewhere'\n[permissions]\n'logs/audit' = '0o700'")
        assert "daemon_dir" in daemon.wait_for_event("settings_refused")["reason"]
        assert not (tmp_path / "elsewhere").exists()
        _still_kept(daemon)


def test_a_moved_root_without_a_command_line_is_refused(tmp_path: Path) -> None:
    """The same for a root that comes from the file."""
    first, second = tmp_path / "one/data", tmp_path / "two/data"
    with running(tmp_path, f"root_data_dir = '{first}'", root=first, prefix=_WITHOUT_ROOT) as daemon:
        daemon.reload(f"root_data_dir = '{second}'")
        assert "root_data_dir" in daemon.wait_for_event("settings_refused")["reason"]
        assert not second.exists()
        assert daemon.is_right()


def _still_kept(daemon: Daemon) -> None:
    audit = daemon.root / "logs/audit"
    audit.rmdir()
    until(lambda: mode_of(audit) == 0o750)
    assert daemon.process.poll() is None
