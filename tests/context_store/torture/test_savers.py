"""Savers that are killed, and savers that are many: what was acknowledged is there."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from symbiont_datad import ContextStore, FilePersistenceConfig
from symbiont_datad.formats.age import new_identity
from symbiont_datad.formats.context import judge, judge_sealed
from symbiont_datad.formats.state_name import Role, name_of
from tests.context_store.torture import counter, saver
from tests.context_store.torture.saver import AGENT

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("DATAD_SAVER_KILLS", "200"))
"""So many savers are killed in the slow test, in each of three modes. DATAD_SAVER_KILLS=500 is for a while."""
SAVES = int(os.environ.get("DATAD_SAVES", "100"))
"""So often each of eight processes saves in the slow test."""
SEED = int(os.environ.get("DATAD_SEED", "0")) or random.randrange(1, 1 << 32)


def python(*words: str | Path) -> "subprocess.Popen[bytes]":
    """A Python process with this project on its path."""
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}{os.pathsep}{ROOT}"}
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)


@dataclass
class Savers:
    """A process that starts savers."""

    into: IO[bytes]
    told: IO[bytes]

    def kill_one(self, after_s: float) -> int:
        """Start a saver, kill it so long after its first save; hand back the last number that it acknowledged."""
        self.into.write(b"\n")
        self.into.flush()
        pid = int(self.told.readline())
        last = int(self.told.readline())
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        while (line := self.told.readline()) != b"gone\n":
            last = int(line)
        return last


@contextmanager
def savers(root: Path, mode: str, key: Path) -> Iterator[Savers]:
    """A process that starts savers, for as long as the block runs."""
    with python(saver.__file__, root, mode, key) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Savers(process.stdin, process.stdout)
        process.stdin.close()


def kill_savers(tmp_path: Path, mode: str, kills: int) -> None:
    """Kill savers of one agent one after another; look at all of it after each."""
    chance = random.Random(SEED)
    key = tmp_path / "key"
    key.write_text(new_identity() + "\n")
    key.chmod(0o600)
    config = FilePersistenceConfig(
        root_data_dir=tmp_path / "data", enable_compression=mode != "plain", enable_encryption=mode == "sealed"
    )
    store = ContextStore(config, key=key)
    agents = tmp_path / "data/state/agents"
    backups: list[str] = []
    with savers(tmp_path / "data", mode, key) as all_of_them:
        for number in range(kills):
            last = all_of_them.kill_one(chance.uniform(0, 0.02))
            loaded = store.load(AGENT)
            where = f"kill {number}, seed {SEED}"
            assert int(loaded.context["metadata"]["count"]) in (last, last + 1), where
            assert "" == loaded.note, where
            names = os.listdir(agents)
            backups = [name for name in names if (one := name_of(name)) and one.role is Role.BACKUP]
            for name in backups:
                data = (agents / name).read_bytes()
                assert (judge_sealed(data) if mode == "sealed" else judge(data)).kind is None, where
            # No more than one of each name that is being written.
            assert len(names) - len(backups) <= 3, where
    assert len(backups) <= config.backup_count + 1


@pytest.mark.parametrize("mode", ["gzip", "plain", "sealed"])
def test_a_killed_saver_leaves_the_last_state_or_the_next(tmp_path: Path, mode: str) -> None:
    """The context is whole, and so is each backup."""
    kill_savers(tmp_path, mode, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["gzip", "plain", "sealed"])
def test_savers_killed_at_many_moments(tmp_path: Path, mode: str) -> None:
    """The same, at many moments."""
    kill_savers(tmp_path, mode, KILLS)


def count_together(tmp_path: Path, times: int) -> None:
    """Eight processes count in one context."""
    process = python(counter.__file__, tmp_path / "data", "8", str(times))
    acknowledged, _ = process.communicate()
    assert 0 == process.returncode
    last = dict(line.split() for line in acknowledged.decode().splitlines())
    loaded = ContextStore(FilePersistenceConfig(root_data_dir=tmp_path / "data")).load(AGENT)
    counts = loaded.context["memory"]["working_memory"]["variables"]
    assert {**{name: int(number) for name, number in last.items()}, "all": 8 * times} == counts
    assert {f"p{number}": str(times) for number in range(8)} == last
    assert "" == loaded.note


def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    """What each has acknowledged is in the context when all are done."""
    count_together(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_processes_lose_nothing_in_many_saves(tmp_path: Path) -> None:
    """The same, for longer."""
    count_together(tmp_path, SAVES)
