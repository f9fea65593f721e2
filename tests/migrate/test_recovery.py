"""Migrations and undos that are killed at a certain moment, and the ones that come after."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from symbiont_datad.migrate import apply, places
from symbiont_datad.migrate.journal import Journal
from tests.migrate.making import HOUR, NOW, Home, agent, context, die, dies, everything, lost, unloadable, write

MOMENTS: dict[str, tuple[object, str]] = {
    "the root has no mode yet": (places, "_complete"),
    "a directory has no mode yet": (places, "_complete"),
    "directories are made": (Journal, "finish_directories"),
    "copies are written down": (apply.Carrier, "_rename_all"),
    "the tree's own has its second name": (apply, "_give_second_name"),
    "the renames are made": (Journal, "settle"),
}


def fill(home: Home, *, rooted: bool) -> None:
    """An old place that meets a tree: new contexts, one that is newer than the tree's, a file in a directory."""
    for number in range(1, 4):
        write(home.old / f"{agent(number)}.json", context(f"old {number}"), NOW - HOUR)
    if rooted:
        write(home.live(1), context("tree", zipped=True), NOW - 90 * HOUR)
    write(home.old / "archives" / agent(2) / "archive_1.json", b"{}")


def killed_at(moment: str, work: Callable[[], object]) -> None:
    """Do it in a process that is killed when it has come so far."""
    where, name = MOMENTS[moment]
    real = getattr(where, name)

    def second_name(*words: int | str) -> None:
        real(*words)
        die()

    def until_then() -> None:
        setattr(where, name, second_name if name == "_give_second_name" else die)
        work()

    dies(until_then)


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_kill_at_a_moment_is_gone_on_from(tmp_path: Path, moment: str) -> None:
    """The next run comes to the same tree as one that nobody killed, nothing is staged, and undo takes all back."""
    whole, home = Home(tmp_path / "whole"), Home(tmp_path / "killed")
    for one in (whole, home):
        fill(one, rooted=moment != "the root has no mode yet")
    whole.migrate()
    first = everything(home.root, home.old)
    killed_at(moment, home.migrate)
    assert [] == (unloadable(home.agents, ".json.gz") if home.agents.exists() else [])
    home.migrate()
    expected = {path.replace("/whole/", "/killed/"): one for path, one in everything(whole.root).items()}
    assert expected == everything(home.root)
    assert [] == lost(home.old, home.root)
    home.undo()
    assert first == everything(home.root, home.old)


def test_an_undo_that_was_killed_is_ended_by_another(tmp_path: Path) -> None:
    """What it had put back already is seen to be there, and is not taken for something that was written since."""
    home = Home(tmp_path)
    fill(home, rooted=True)
    first = everything(home.root, home.old)
    home.migrate()

    def until_all_is_back() -> None:
        Journal.unmake = die  # type: ignore[method-assign]
        home.undo()

    dies(until_all_is_back)
    undone, _ = home.undo()
    assert ([], []) == (undone.kept, undone.findings)
    assert first == everything(home.root, home.old)


@pytest.mark.parametrize("size", [0, 1], ids=["of the same size", "of another size"])
def test_what_only_seems_to_be_back_is_kept(tmp_path: Path, size: int) -> None:
    """A file with the mode and time of what was there before, and other bytes: somebody's own, and it stays beside."""
    home = Home(tmp_path)
    fill(home, rooted=True)
    before = home.live(1).read_bytes()
    home.migrate()
    other = write(home.live(1), bytes(len(before) + size), NOW - 90 * HOUR).read_bytes()
    undone, _ = home.undo()
    assert before == home.live(1).read_bytes()
    assert [other] == [(home.root / path).read_bytes() for path in undone.kept]


def test_a_journal_that_was_laid_down_in_the_same_second_is_not_overwritten(tmp_path: Path) -> None:
    """Nor is the third: each has a name of its own."""
    laid_down = [Journal(tmp_path / "journal.db").lay_down("undone", NOW).name for _ in range(3)]
    assert [f"journal-undone-{NOW}.db", f"journal-undone-{NOW}-1.db", f"journal-undone-{NOW}-2.db"] == laid_down


def test_directories_are_let_go_of(tmp_path: Path) -> None:
    """However many directories there are, few are held open at a time: the last ones that were used."""
    home = Home(tmp_path)
    paths = [f"{number}" for number in range(places._HELD + 10)]
    for path in paths:
        (home.root / path).mkdir(parents=True)
    with places.Folders(home.target.tree) as folders:
        look = partial(map, lambda path: folders.lstat(f"{path}/x"))
        assert {None} == set(look(paths)) | set(look(paths))
        assert paths[-places._HELD :] == list(folders._held)
