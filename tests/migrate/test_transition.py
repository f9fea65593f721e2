"""The thread that keeps old places: it lives as long as there is something to keep, and outlives all trouble."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.ledger import Ledger
from symbiont_datad.migrate import keeping, transition
from symbiont_datad.migrate.compat import keep_working
from symbiont_datad.migrate.migration import alone, open_journal
from symbiont_datad.migrate.target import Compat
from symbiont_datad.migrate.transition import Transition
from tests.migrate.making import HOUR, NOW, Home, agent, context, write
from tests.process.running import until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose old place was brought over and is a link now; who keeps it is in a hurry."""
    monkeypatch.setattr(transition, "_RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(transition, "_AGAIN_S", 0.01)
    monkeypatch.setattr(keeping, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(keeping, "_LINKS_S", 0.01)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path.resolve())
    write(home.old / f"{agent(1)}.json", context("a"), NOW - HOUR)
    home.migrate()
    with alone(home.target), open_journal(home.target) as journal:
        (row,) = journal.sources()
        keep_working(row, home.target, journal, Compat.SYMLINK, both_ways=False, left=False)
    return home


@pytest.fixture
def kept(home: Home, tmp_path: Path) -> Iterator[Transition]:
    """What keeps it, with a ledger that takes nothing."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        with closing(sqlite3.connect(ledger.path)) as db:
            db.execute("alter table actions rename to hidden")
        found = Transition(lambda: home.target, lambda: ledger, lambda _name: None)
        yield found
        found.stop()
        until(lambda: "transition" not in [thread.name for thread in threading.enumerate()], 30.0)


def test_trouble_is_told_once_and_outlived(home: Home, kept: Transition, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal that can't be read is a warning as long as it is one; then the link is kept again."""
    journal = home.target.journal_path
    whole = journal.rename(journal.with_name("whole"))
    assert ["whole"] == [path.name for path in journal.parent.iterdir() if path.is_file()]
    journal.write_bytes(b"no database" * 1000)
    home.old.unlink()
    kept.look()
    (warning,) = until(kept.warnings, 30.0)
    assert "the old place can't be kept in step: " in warning
    assert not home.old.is_symlink()
    whole.replace(journal)
    until(home.old.is_symlink, 30.0)
    until(lambda: not kept.warnings(), 30.0)
    kept.stop()
    said = capsys.readouterr().out
    assert (1, 1) == (said.count("mirror_failed"), said.count("mirror_resumed"))


def test_a_command_at_work_is_waited_for(home: Home, kept: Transition) -> None:
    """It is no trouble; what was to be done is done when it has ended."""
    home.old.unlink()
    with alone(home.target):
        kept.look()
        until(lambda: "transition" in [thread.name for thread in threading.enumerate()], 30.0)
    until(home.old.is_symlink, 30.0)
    assert () == kept.warnings()
    assert [("symlink", str(home.old))] == until(lambda: [(one.compat, one.path) for one in kept.states()], 30.0)


def test_where_nothing_is_left_to_be_kept_the_thread_ends(home: Home, kept: Transition) -> None:
    """Until somebody asks for it again."""
    with alone(home.target), open_journal(home.target) as journal:
        (row,) = journal.sources()
        keep_working(row, home.target, journal, Compat.NONE, both_ways=False, left=False)
    assert kept.look()
    until(lambda: "transition" not in [thread.name for thread in threading.enumerate()], 30.0)
    until(lambda: [one.compat for one in kept.states()] == ["none"], 30.0)
    until(lambda: not kept.look(), 30.0)


def test_what_waits_for_a_migration_is_told_until_it_has_come(home: Home, kept: Transition) -> None:
    """Once each when it starts; where the places can't be looked at nothing waits."""
    more = home.base / "data" / "contexts"
    write(more / f"{agent(2)}.json", context("b"), NOW - HOUR)
    kept.start()
    until(lambda: str(more) in [one.path for one in kept.states()], 30.0)
    home.migrate(home.source(at=more))
    kept.look()
    until(lambda: "not migrated" not in [one.compat for one in kept.states()] or kept.look(), 30.0)
    kept.stop()
    until(lambda: "transition" not in [thread.name for thread in threading.enumerate()], 30.0)
    home.target.journal_path.write_bytes(b"no database" * 1000)
    assert () == transition.waiting(home.target)
