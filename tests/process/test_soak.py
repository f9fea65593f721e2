"""Long use: what a daemon has after much work is no more than after some."""

import os
import time
from pathlib import Path

import pytest

from tests.process.running import Daemon, mode_of, running, until

_SETTINGS = """
guard.backoff_after = 1000000
auto_save_interval = 1
[schedule]
usage_interval = 1
retention_interval = 1
"""
_ROUNDS = 40
_REPAIRS = 50


def rss_kib(daemon: Daemon) -> int:
    (line,) = (one for one in Path(f"/proc/{daemon.pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1])


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


@pytest.mark.slow
def test_work_leaves_nothing_behind(tmp_path: Path) -> None:
    """2,000 repairs and 200 runs of jobs: the second half adds neither memory nor descriptors nor threads."""
    with running(tmp_path, _SETTINGS) as daemon:
        paths = [daemon.root / name for name in ("logs/agents", "state/sessions", "prompts/history/today")]
        seen = []
        for number in range(_ROUNDS):
            until_runs(daemon, 200 * number // _ROUNDS)
            paths[2].mkdir(exist_ok=True)
            for repair in range(_REPAIRS):
                if repair % 2:
                    paths[0].rmdir()
                    until_right(paths[0])
                else:
                    path = paths[1 + repair // 2 % 2]
                    path.chmod(0o700)
                    until_right(path)
            seen.append((rss_kib(daemon), threads(daemon)))
        until_runs(daemon, 200)
        least = min(until_quiet(daemon) for _ in range(20))
        half = seen[_ROUNDS // 2 :]
        assert max(rss for rss, _ in half) < 1.02 * max(rss for rss, _ in seen[: _ROUNDS // 2]) + 256
        assert max(count for _, count in half) <= max(count for _, count in seen[: _ROUNDS // 2])
        assert least < 20
        assert len(daemon.events("directory_recreated")) >= _ROUNDS * _REPAIRS // 2
        assert [] == daemon.events("job_failed")
        assert 0 == daemon.stop()


def runs(daemon: Daemon) -> int:
    """How many runs of jobs have ended."""
    return len(daemon.events("job_finished")) + len(daemon.events("job_left_something"))


def until_runs(daemon: Daemon, count: int) -> None:
    until(lambda: runs(daemon) >= count, 60.0)


def until_right(path: Path) -> None:
    until(lambda: mode_of(path) == 0o755)


def threads(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/task"))


def until_quiet(daemon: Daemon) -> int:
    """How many descriptors are open, a moment later."""
    time.sleep(0.05)
    return descriptors(daemon)
