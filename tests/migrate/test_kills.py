"""Migrations that are killed at any moment: what comes after goes on, loses nothing, and can still be taken back."""

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.migrate import apply, migration
from symbiont_datad.migrate.compat import keep_working
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.migration import alone, open_journal
from symbiont_datad.migrate.target import Compat
from tests.migrate.making import HOUR, NOW, Home, agent, context, everything, lost, unloadable, write

KILLS = int(os.environ.get("DATAD_KILLS", "20"))
"""So many runs are killed."""


def fill(home: Home) -> None:
    """An old place with everything that a plan can decide about, and a tree that it meets."""
    for number in range(60):
        write(home.old / f"{agent(number)}.json", context(f"old {number}"), NOW - HOUR)
    for number in range(0, 60, 5):
        at, same = NOW - HOUR * (0.5 if number % 2 else 90), number % 3 == 0
        text = f"old {number}" if same else f"tree {number}"
        write(home.agents / f"{agent(number)}.json.gz", context(text, zipped=True), at)
        write(home.old / f"{agent(number)}.backup.{number}.json", context("b"))
        write(home.old / "archives" / agent(number) / "archive_1.json", b"{}")
    write(home.agents / f"{agent(1)}.json.gz", b"", NOW - 2 * HOUR)
    for number in range(6):
        write(home.old / f"{agent(61)}.backup.{number}.json", context(f"backup {number}"))
        write(home.old / f"{agent(70 + number)}.json", b"{", NOW - HOUR)
    write(home.old / "deep" / "x.bin", random.Random(1).randbytes(300_000))


def link(home: Home) -> None:
    """Migrate, and let a link take the place of the old directory."""
    home.migrate()
    with alone(home.target), open_journal(home.target) as journal:
        (row,) = journal.sources()
        keep_working(row, home.target, journal, Compat.SYMLINK, both_ways=False, left=False)


def killed(work: Callable[[], object], after_s: float) -> bool:
    """Do it in a process that is killed after a time; whether it was killed before it had ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def unpacked(home: Home) -> dict[str, object]:
    """The tree without the names of cells: two migrations of one place come to the same."""
    found: dict[str, object] = {}
    for path, one in everything(home.root).items():
        if QUARANTINE in path and one[0] == "file" and not path.endswith("record.json"):
            path = path.partition("/item/")[2]
        elif QUARANTINE in path:
            continue
        found[path.removeprefix(str(home.base))] = one[:2] + one[3:]
    return found


def torture(base: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    """Kill migrations, links and undos at random moments, again and again, until so many were killed."""
    monkeypatch.setattr(migration, "_CHUNK", 15)
    monkeypatch.setattr(migration, "_FEW", 4)
    monkeypatch.setattr(apply, "_FEW", 4)
    whole = Home(base / "whole")
    fill(whole)
    started = time.monotonic()
    link(whole)
    took = time.monotonic() - started
    expected = {path.replace("/whole", ""): one for path, one in unpacked(whole).items()}
    dice, done, number = random.Random(kills), 0, 0
    while done < kills:
        number += 1
        home = Home(base / str(number))
        fill(home)
        first = everything(home.root, home.old)
        while killed(partial(link, home), dice.uniform(0, took)):
            done += 1
            assert [] == half_written(home)
            if dice.random() < 0.3:
                break
        link(home)
        aside = home.old.with_name("contexts.before-migration")
        assert (True, str(home.agents.resolve())) == (home.old.is_symlink(), os.readlink(home.old))
        assert {path: one for path, one in first.items() if "/contexts" in path} == {
            path.replace(".before-migration", ""): one for path, one in everything(aside).items()
        }
        assert [] == lost(aside, home.root)
        assert [] == unloadable(home.agents, ".json.gz")
        assert expected == unpacked(home)
        while killed(home.undo, dice.uniform(0, took)):
            done += 1
        if home.target.journal_path.exists():
            home.undo()
        assert first == everything(home.root, home.old)
        assert not aside.exists()


def half_written(home: Home) -> list[str]:
    """Contexts in the tree that would not load, but for the one that was broken before."""
    broken = f"{agent(1)}.json.gz: empty"
    return [one for one in unloadable(home.agents, ".json.gz") if one != broken] if home.agents.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is gone on from with the same result, and can be taken back."""
    torture(tmp_path, monkeypatch, KILLS)


def test_a_migration_after_an_undo_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """It has to be ended first."""
    home = Home(tmp_path)
    fill(home)
    home.migrate()
    with Journal(home.target.journal_path) as journal:
        journal.put("undoing", "yes")
    with pytest.raises(migration.Refused, match="`symbiont-datad migrate --undo` ends it"):
        home.migrate()
