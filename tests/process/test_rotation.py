"""A daemon that rotates logs while agents and the daemon itself write to them."""

import json
from pathlib import Path

import pytest

from tests.jobs.log_writing import archives_of, assert_stream, content_of, writing
from tests.process.running import mode_of, running, until

SETTINGS = """
[logs]
rotate_at = "1KiB"
keep = "unlimited"

[schedule]
rotation_interval = "1s"
"""


@pytest.mark.slow
def test_a_daemon_rotates_under_its_agents(tmp_path: Path) -> None:
    """Several rotations by the daemon: archives and live log are the stream, and what it did is told in sum."""
    with running(tmp_path, SETTINGS) as daemon:
        log = daemon.root / "logs/agents/a.log"
        with writing(log, rate=20_000) as writer:
            until(lambda: len(archives_of(log)) >= 3, 60.0)
            count = writer.stop()
        told = daemon.wait_for_event("logs_rotated")
        assert told["logs"] >= 1
        assert told["bytes"] > 1024
        assert 0 == daemon.stop()
    assert_stream(log, count)


@pytest.mark.slow
def test_no_line_of_the_security_log_is_lost(tmp_path: Path) -> None:
    """Each repair is a line, while the log is rotated again and again: none is missing, none is there twice."""
    settings = SETTINGS.replace("1KiB", "1B") + "[guard]\nbackoff_after = 1000000\n"
    with running(tmp_path, settings) as daemon:
        log = daemon.root / "logs/audit/security.log"
        agents = daemon.root / "state/agents"
        repairs = 0
        while len(archives_of(log)) < 3:
            agents.chmod(0o700)
            until(lambda: mode_of(agents) == 0o755)
            repairs += 1
            daemon.wait_for_event("permissions_restored", count=repairs)
        assert 0 == daemon.stop()
        expected = len(daemon.events("permissions_restored"))
    lines = b"".join(map(content_of, [*archives_of(log), log])).splitlines()
    found = [json.loads(line) for line in lines if line.strip()]
    assert expected == sum(entry["event"] == "permissions_restored" for entry in found)
    assert [entry["timestamp"] for entry in found] == sorted(entry["timestamp"] for entry in found)
