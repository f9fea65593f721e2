"""Whose the directories are."""

import os
from pathlib import Path

import pytest

from symbiont_datad.doctor import owners
from symbiont_datad.doctor.owners import Place
from tests.conftest import AsNobody
from tests.support import NOBODY

OURS = Place("the tree", "/t", True, 1000, 1000, 0o755)


def kinds(*places: Place, me: int = 1000, wanted: int | None = None) -> list[str]:
    """What is found of some places."""
    found = owners.judge(places, me, wanted).findings
    assert all(one.path and one.detail and one.remedy for one in found)
    return [one.kind for one in found]


@pytest.mark.parametrize(
    ("expected", "own"),
    [
        pytest.param([], Place("own", "/o", True, 1000, 1000, 0o700), id="right"),
        pytest.param([], Place("own", "/o", there=False), id="not there yet"),
        pytest.param(["open_to_all"], Place("own", "/o", True, 1000, 1000, 0o777), id="open"),
        pytest.param(["own_open"], Place(owners.OWN, "/o", True, 1000, 1000, 0o755), id="others look in"),
        pytest.param(["not_yours"], Place("own", "/o", True, 0, 0, 0o700, mine=False), id="root's"),
        pytest.param(["not_writable"], Place("own", "/o", True, 1000, 0, 0o500, mine=False), id="closed to its owner"),
        pytest.param(
            ["strangers_files"],
            Place("own", "/o", True, 1000, 1000, 0o700, strangers=3, stranger="/o/x", stranger_uid=0),
            id="after a sudo",
        ),
        pytest.param(["unsafe_place"], Place("own", "/o", True, 1000, 1000, 0o700, problem="open above"), id="unsafe"),
    ],
)
def test_judging(expected: list[str], own: Place) -> None:
    """Each finding names the directory and says what to do."""
    assert expected == kinds(OURS, own)


def test_the_owner_that_the_settings_want() -> None:
    """Another one is told of; root may look at everybody's."""
    assert ["owner_differs"] == kinds(OURS, wanted=7)
    assert [] == kinds(OURS, me=0, wanted=1000)


@pytest.mark.skipif(os.geteuid() != 0, reason="not on this platform: only root gives files away")
def test_files_of_strangers_are_counted(tmp_path: Path) -> None:
    """What root left in a user's directories is found two levels deep; a tree in an open directory is unsafe."""
    own = tmp_path / "datad"
    (own / "locks" / "deep").mkdir(parents=True)
    for path in (own, own / "locks", own / "locks" / "deep"):
        os.chown(path, NOBODY, NOBODY)
    (own / "ledger.db").write_bytes(b"")
    (own / "locks" / "deep" / "x").write_bytes(b"")
    (own / "locks" / "y").write_bytes(b"")
    os.chown(own / "ledger.db", NOBODY, NOBODY)
    _, found = owners.look(str(tmp_path), str(own), None)
    assert (2, 0) == (found.strangers, found.stranger_uid)
    assert found.stranger in (str(own / "locks/deep/x"), str(own / "locks/y"))
    (tmp_path / "open" / "data").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    root, missing = owners.look(str(tmp_path / "open" / "data"), str(tmp_path / "none"), None)
    assert "everybody can write to" in root.problem
    assert not missing.there


def test_what_lies_behind_a_closed_door_is_said_to(open_path: Path, as_nobody: AsNobody) -> None:
    """Another user's directory, into which nobody may look: neither there nor missing."""
    (open_path / "closed" / "own").mkdir(parents=True)
    (open_path / "closed").chmod(0o700)
    _, found = as_nobody(lambda: owners.look(str(open_path), str(open_path / "closed" / "own"), None))
    assert (True, False, "Permission denied") == (found.there, found.mine, found.problem)
