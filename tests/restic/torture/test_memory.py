"""What a backup costs the daemon itself."""

import random
import time
from pathlib import Path

import pytest

from tests.process.running import Daemon, running

SETTINGS = 'auto_save_interval = "1h"\n[backup]\nschedule = "3s"\n[state]\nsettle = "0s"\n'
FILES = 20_000
MIB = 1 << 20


def resident(daemon: Daemon) -> int:
    """The daemon's memory in bytes, its child processes not counted."""
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return pages * 4096


def after_backups(daemon: Daemon, count: int) -> int:
    """The daemon's memory after this many more backups, once it has nothing to do."""
    done = len(daemon.events("snapshot_created"))
    daemon.wait_for_event("job_finished", 120.0, count=done + count, job="backup")
    time.sleep(1.0)
    return resident(daemon)


@pytest.mark.slow
def test_a_backup_leaves_the_daemons_memory_as_it_was(tmp_path: Path) -> None:
    """A backup of 20,000 files and 200 MiB after some of next to nothing: the daemon is not a MiB larger for it, nor
    after two more of which each reads 50 MiB anew.
    """
    noise = random.Random(5).randbytes(MIB)
    with running(tmp_path, SETTINGS) as daemon:
        before = after_backups(daemon, 3)
        agents, system = daemon.root / "state/agents", daemon.root / "logs/system"
        for number in range(FILES):
            (agents / f"{number}.txt").write_bytes(noise[number : number + 100])
        for number in range(200):
            (system / f"{number}.bin").write_bytes(noise[number:] + noise[:number])
        seen = [after_backups(daemon, 1)]
        for turn in range(2):
            for number in range(50):
                (system / f"{number}.bin").write_bytes(noise[1000 * turn + number :] + b"%d" % turn)
            seen.append(after_backups(daemon, 2))
        last = daemon.events("snapshot_created")[-1]
        assert last["files"] > FILES
        assert last["bytes"] > 190 * MIB
        assert [] == daemon.events("job_failed")
        assert max(seen) < before + MIB
