"""Processes killed at random moments: what they said they had done is done, and the next one needs no help."""

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import FileKind
from tests.restic.torture.peers import check_with_restic
from tests.restic.torture.working import Ledger, Source, Task, local, start

KILLS = int(os.environ.get("DATAD_KILLS", "500"))
"""So many processes are killed by all tests here together. DATAD_KILLS=5000 is for a night."""
SEED = int(os.environ.get("DATAD_SEED", "0")) or random.randrange(1, 1 << 32)
"""DATAD_SEED=… does again what failed; the moments are then as alike as clocks allow."""

_RESTIC_EVERY = 20
_LATEST = 1.15
"""The last moment at which a process is killed, as a share of the time that it usually takes: some do end."""

_SPARED = 0.1
"""The share of processes that nobody kills, so that it is known how long they take."""


@dataclass
class Torturer:
    """Starts processes and kills them. `usual_s`: how long each kind of work takes when nobody kills it."""

    random: random.Random
    usual_s: dict[str, float] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def run(self, task: Task, ledger: Ledger, source: Source | None = None, *, let_live: bool = False) -> bool:
        """Do a task and kill it at some moment, or let it end; check all. Hands back whether it was killed."""
        worker = start(task)
        begun = time.monotonic()
        worker.go_on()
        usual = self.usual_s.get(task.work, 0.0)
        spared = let_live or not usual or self.random.random() < _SPARED
        delay = 60.0 if spared else self.random.uniform(0, _LATEST * usual)
        worker.process.join(delay)
        if worker.process.exitcode is None:
            worker.kill()
        code = worker.end()
        took = time.monotonic() - begun
        told = list(worker.told())
        tree = source.tree if source else None
        where = f"{task.work} after {took:.4f} s, seed {SEED}: {told}"
        assert code in (0, -9), where
        try:
            ledger.note(told, tree)
            ledger.check(tree)
        except Exception as error:
            error.add_note(where)
            raise
        if code == 0:
            if spared:
                self.usual_s[task.work] = max(took, (usual + took) / 2)
            self.done[task.work] += 1
            return False
        self.killed[task.work] += 1
        return True


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_at_any_moment_loses_nothing_and_needs_no_help(tmp_path: Path) -> None:
    """Backups, prunes and changes of the key are killed one after another, in one repository. After each of them every
    acknowledged snapshot holds what it should and a password works; restic finds the repository whole; and whoever
    comes next works at once, though there are locks, packs and temporary files of the dead.
    """
    torturer = Torturer(random.Random(SEED))
    place, source = tmp_path / "repository", Source(tmp_path / "source", SEED)
    ledger = Ledger(str(place), "password 0")
    turn = 0

    def task(work: str) -> Task:
        return Task(
            work,
            str(place),
            ledger.password,
            source=str(source.path),
            memory=str(tmp_path / "memory"),
            new_password=f"password {turn}",
        )

    torturer.run(task("init"), ledger)
    for work in ("backup", "prune", "change_key"):
        turn += 1
        torturer.run(task(work), ledger, source)
    while torturer.killed.total() < KILLS:
        turn += 1
        source.change()
        work = torturer.random.choices(("backup", "prune", "change_key"), (6, 3, 1))[0]
        torturer.run(task(work), ledger, source)
        if torturer.killed.total() % _RESTIC_EVERY == 0:
            check_with_restic(str(place), ledger.password)
    for work in ("backup", "prune", "change_key"):
        turn += 1
        assert not torturer.run(task(work), ledger, source, let_live=True)
    check_with_restic(str(place), ledger.password)
    assert [] == list(local(place).list(FileKind.LOCK)), "locks of the dead are left"
    assert {"backup", "prune", "change_key"} == torturer.killed.keys()


@pytest.mark.slow
def test_a_kill_while_a_repository_is_made_needs_no_help(tmp_path: Path) -> None:
    """Wherever the making of a repository was cut short: whoever comes next makes it, or finds it made."""
    chance = random.Random(SEED)
    usual = 0.0
    ends: Counter[str] = Counter()
    rounds = max(KILLS // 20, 10)
    # So many, and then until each moment was met: chance may leave one out, and the shortest is soon over.
    for number in range(rounds * 8):
        if number >= rounds and ends["a key"] and ends["directories"]:
            break
        place = tmp_path / f"{number}"
        task = Task("init", str(place), "a password")
        worker = start(task)
        begun = time.monotonic()
        worker.go_on()
        worker.process.join(usual * chance.random() ** (1 + number % 2) if number else 60.0)
        worker.kill()
        if worker.end() == 0:
            usual = max(usual, time.monotonic() - begun)
        keys, config = list(local(place).list(FileKind.KEY)), list(local(place).list(FileKind.CONFIG))
        ends["made" if config else "a key" if keys else "directories" if place.exists() else "nothing"] += 1
        if not config:
            again = start(task)
            again.go_on()
            code = again.end()
            assert (0, [("made",)]) == (code, list(again.told())), f"number {number}, seed {SEED}"
        Ledger(str(place), "a password").check(None)
        if number % _RESTIC_EVERY == 0:
            check_with_restic(str(place), "a password")
    assert ends["directories"], ends
