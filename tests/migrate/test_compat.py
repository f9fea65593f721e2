"""The old place as a link to the new one."""

import os
from pathlib import Path

import pytest

from symbiont_datad.fsops import swap
from symbiont_datad.migrate.compat import Standing, keep_working, put_link, recover_links, standing, take_link_away
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.migration import alone, open_journal, source_path
from symbiont_datad.migrate.target import Compat
from symbiont_datad.report import Finding
from tests.migrate.making import Home, agent, context, everything, write

A = agent(1)


@pytest.fixture(params=["in one step", "in steps"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose old place was brought over; on a system that can exchange two names, and on one that can't."""
    if request.param == "in steps":
        monkeypatch.setattr(swap, "_exchange", swap._exchange_in_steps)
    home = Home(tmp_path)
    write(home.old / f"{A}.json", context())
    home.migrate()
    return home


def keep(home: Home, compat: Compat, source: Source | None = None, *, left: bool = False) -> Finding | None:
    """Have the old place go on working like that."""
    with alone(home.target), open_journal(home.target) as journal:
        row = journal.source(source or home.source())
        assert row is not None
        return keep_working(row, home.target, journal, compat, both_ways=False, left=left)


def test_the_link_leads_to_the_contexts_and_the_old_directory_is_aside(home: Home) -> None:
    """Whole and untouched; what is written through the old path is in the tree."""
    before = everything(home.old)
    assert keep(home, Compat.SYMLINK) is None
    assert str(home.agents.resolve()) == os.readlink(home.old)
    aside = home.old.with_name("contexts.before-migration")
    assert before == {path.replace(".before-migration", ""): one for path, one in everything(aside).items()}
    (home.old / "x").write_bytes(b"new")
    assert b"new" == (home.agents / "x").read_bytes()
    assert ["contexts", "contexts.before-migration"] == sorted(os.listdir(home.old.parent))


def test_it_can_be_asked_for_again_and_taken_away(home: Home) -> None:
    """Twice is once; with another way of working the directory is back."""
    before = everything(home.base / "project")
    keep(home, Compat.SYMLINK)
    linked = everything(home.base / "project")
    keep(home, Compat.SYMLINK)
    assert linked == everything(home.base / "project")
    keep(home, Compat.NONE)
    assert before == everything(home.base / "project")
    keep(home, Compat.SYMLINK)
    keep(home, Compat.MIRROR)
    assert before == everything(home.base / "project")


def test_a_name_that_is_taken_is_left(home: Home) -> None:
    """The old directory gets another one."""
    write(home.old.with_name("contexts.before-migration") / "mine", b"x")
    keep(home, Compat.SYMLINK)
    assert home.old.with_name("contexts.before-migration-1").is_dir()
    assert b"x" == (home.old.with_name("contexts.before-migration") / "mine").read_bytes()


def test_a_place_with_files_that_stay_is_not_linked(home: Home) -> None:
    """They would vanish from where they are looked for. Neither are single logs, or a directory of backups."""
    found = keep(home, Compat.SYMLINK, left=True)
    assert found is not None
    assert ("legacy_not_linked", "warning") == (found.kind, found.severity)
    logs = Source(str(home.base.resolve() / "logs"), Kind.LOGS, ("a.log",))
    write(Path(logs.path) / "a.log", b"x")
    home.migrate(logs)
    found = keep(home, Compat.SYMLINK, logs)
    assert found is not None
    assert "info" == found.severity
    assert not os.path.islink(home.old)
    assert not os.path.islink(logs.path)


@pytest.mark.parametrize("moment", ["before", "made", "in steps", "after", "no link", "away"])
def test_a_kill_in_between_is_put_right(home: Home, moment: str) -> None:
    """Whatever of it was done: the journal is in line with what is there, and the link comes with the next run."""
    first = everything(home.base / "project")
    aside = home.old.with_name("contexts.before-migration")
    with alone(home.target), open_journal(home.target) as journal:
        (row,) = journal.sources()
        journal.set_aside(row.id, str(aside.parent.resolve() / aside.name))
        if moment == "made":
            aside.symlink_to(home.agents.resolve())
        elif moment == "in steps":  # an exchange in steps moves the directory out of its place first
            aside.symlink_to(home.agents.resolve())
            home.old.rename(f"{aside}.aside")
        elif moment == "after":
            home.old.rename(aside)
            home.old.symlink_to(home.agents.resolve())
        elif moment == "no link":
            home.old.rename(aside)
        recover_links(home.target, journal)
        (row,) = journal.sources()
        assert Path(row.at).is_dir()
        assert not Path(row.at).is_symlink()
        if moment == "away":
            assert "" == take_link_away(row, home.target, journal, put_back=True)
            assert first == everything(home.base / "project")
            return
        put_link(row, home.target, journal)
        (row,) = journal.sources()
        assert Standing.LINK is standing(row, home.target)
        assert (str(aside), True) == (row.aside, aside.is_dir())
    home.undo()
    assert first == everything(home.base / "project")


def test_something_else_in_its_place_is_left_by_undo(home: Home) -> None:
    """The old directory stays where it is, and that is told."""
    keep(home, Compat.SYMLINK)
    home.old.unlink()
    write(home.old, b"a file of somebody")
    undone, _ = home.undo()
    assert ["legacy_not_put_back"] == [finding.kind for finding in undone.findings]
    assert b"a file of somebody" == home.old.read_bytes()
    assert home.old.with_name("contexts.before-migration").is_dir()


@pytest.mark.parametrize("moment", ["the link went", "exchanged", "all but the journal"])
def test_a_link_that_was_being_taken_away_is_gone_in_the_end(home: Home, moment: str) -> None:
    """However far it came before a kill: the old directory is in its place, and nothing is beside it."""
    first = everything(home.base / "project")
    keep(home, Compat.SYMLINK)
    aside = home.old.with_name("contexts.before-migration")
    home.old.unlink()
    if moment != "the link went":
        aside.rename(home.old)
    if moment == "exchanged":
        aside.symlink_to(home.agents.resolve())
    keep(home, Compat.NONE)
    assert first == everything(home.base / "project")
    with open_journal(home.target) as journal:
        assert [None] == [row.aside for row in journal.sources()]


def test_the_link_alone_is_taken_away(home: Home) -> None:
    """As at the end of a migration; the old directory stays aside, and what somebody put in the link's place stays."""
    keep(home, Compat.SYMLINK)
    with alone(home.target), open_journal(home.target) as journal:
        (row,) = journal.sources()
        assert "" == take_link_away(row, home.target, journal, put_back=False)
        assert ["contexts.before-migration"] == os.listdir(home.old.parent)
        write(home.old, b"a file of somebody")
        assert "" == take_link_away(row, home.target, journal, put_back=False)
    assert b"a file of somebody" == home.old.read_bytes()


def test_a_link_that_was_only_made_gets_its_place(home: Home) -> None:
    """By the next one who puts it there; a third name that an exchange in steps left behind is no hindrance."""
    aside = home.old.with_name("contexts.before-migration")
    with alone(home.target), open_journal(home.target) as journal:
        aside.symlink_to(home.agents.resolve())
        (row,) = journal.sources()
        journal.set_aside(row.id, str(aside.parent.resolve() / aside.name))
        (row,) = journal.sources()
        put_link(row, home.target, journal)
        assert (True, True) == (home.old.is_symlink(), aside.is_dir() and not aside.is_symlink())
        assert str(home.old) == source_path(str(home.old), home.target)  # still the old place, for who names it again
        assert str(home.agents) == source_path(str(linked(home.base / "other", home.agents)), home.target)


def linked(at: Path, to: Path) -> Path:
    """A link of the user's own."""
    at.symlink_to(to)
    return at


def test_roots_link_is_the_owners(tmp_path: Path) -> None:
    """What root puts beside a user's files belongs to that user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    home = Home(tmp_path)
    write(home.old / f"{A}.json", context())
    os.chown(home.old.parent, 1234, 1235)
    home.migrate()
    keep(home, Compat.SYMLINK)
    assert 1234 == home.old.lstat().st_uid
