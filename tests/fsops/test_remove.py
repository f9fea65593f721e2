"""What was planned is removed, and nothing that took its place."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops.remove import Failure, remove, remove_directories
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry, walk
from tests.conftest import AsNobody
from tests.support import Link, build_tree, read_tree
from tests.support import Tree as Data


def planned(root: Path) -> list[Entry]:
    """Everything that lies in a tree, as if all of it were to go."""
    return sorted(walk(Tree(str(root)), on_error=lambda path, error: pytest.fail(f"{path}: {error}")))


def fifo_instead(path: Path) -> None:
    """A FIFO in the place of a file."""
    path.unlink()
    os.mkfifo(path)


def test_files_and_links_are_removed_and_directories_stay(tree: Callable[[Data], Path]) -> None:
    """Planned files and links go, a link's target stays, names of any bytes are no matter."""
    root = tree({"a": b"1", "d": {"b\n": b"2", "\udcff": b"3"}, "e": {"link": Link("../keep")}, "keep": {}})
    assert [] == remove(Tree(str(root)), planned(root))
    assert {"d": {}, "e": {}, "keep": {}} == read_tree(root)


@pytest.mark.parametrize(
    "replace",
    [
        pytest.param(lambda path: path.write_bytes(b"newer"), id="written to"),
        pytest.param(lambda path: os.utime(path, ns=(0, 0)), id="touched"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), id="a link"),
        pytest.param(fifo_instead, id="a FIFO"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a directory"),
        pytest.param(lambda path: os.replace(shutil.copy2(path, f"{path}2"), path), id="a copy"),
    ],
)
def test_what_took_the_place_of_a_file_is_kept(tree: Callable[[Data], Path], replace: Callable[[Path], object]) -> None:
    """A file that was replaced or written after the plan is another one, and stays; its neighbour goes."""
    root = tree({"d": {"f": b"old", "g": b"old"}})
    plan = planned(root)
    replace(root / "d/f")
    kept = os.lstat(root / "d/f")
    assert [Failure("d/f", "changed since it was planned", True)] == remove(Tree(str(root)), plan)
    assert ["f"] == os.listdir(root / "d")
    assert os.path.samestat(kept, os.lstat(root / "d/f"))


def test_what_is_gone_already_is_no_trouble(tree: Callable[[Data], Path]) -> None:
    """A file, or its whole directory, that somebody else removed first counts as changed."""
    root = tree({"a": b"", "d": {"f": b""}, "e": {"f": b""}, "z": b""})
    plan = planned(root)
    (root / "a").unlink()
    shutil.rmtree(root / "d")
    shutil.rmtree(root / "e")
    (root / "e").write_bytes(b"")
    assert ["a", "d/f", "e/f"] == [failure.path for failure in remove(Tree(str(root)), plan) if failure.changed]
    assert ["e"] == os.listdir(root)


@pytest.mark.parametrize("hard", [False, True], ids=["other files", "the same files"])
def test_a_link_in_place_of_a_directory_leads_nowhere(tree: Callable[[Data], Path], hard: bool, tmp_path: Path) -> None:
    """A directory that became a link after the plan: nothing behind the link goes, not even the same files."""
    root = tree({"history": {"day": {"f": b"x"}}})
    plan = planned(root)
    outside = build_tree(tmp_path / "outside", {} if hard else {"f": b"x"})
    if hard:
        (outside / "f").hardlink_to(root / "history/day/f")
    shutil.rmtree(root / "history/day")
    (root / "history/day").symlink_to(outside)
    (failure,) = remove(Tree(str(root)), plan)
    assert ("history/day/f", True) == (failure.path, failure.changed)
    assert {"f": b"x"} == read_tree(outside)


@pytest.mark.timeout(10)
def test_fifos_are_neither_opened_nor_removed(tree: Callable[[Data], Path]) -> None:
    """A FIFO that somebody planned to remove stays, and nothing waits for its other end."""
    root = tree({"d": {"f": b""}})
    os.mkfifo(root / "d/fifo")
    assert [Failure("d/fifo", "neither a file nor a link", False)] == remove(Tree(str(root)), planned(root))
    assert ["fifo"] == os.listdir(root / "d")


def test_a_file_with_another_name_loses_only_this_one(tree: Callable[[Data], Path], tmp_path: Path) -> None:
    """Unlinking one name of a file leaves the other one and its content."""
    root = tree({"f": b"x"})
    (tmp_path / "other").hardlink_to(root / "f")
    assert [] == remove(Tree(str(root)), planned(root))
    assert b"x" == (tmp_path / "other").read_bytes()


def test_what_may_not_be_removed_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """Without permission on a directory its files stay, with the system's reason; others go on."""
    root = build_tree(open_path / "tree", {"closed": {"f": b""}, "open": {"f": b""}})
    (root / "open").chmod(0o777)
    plan = planned(root)
    failures = as_nobody(lambda: remove(Tree(str(root)), plan))
    assert [Failure("closed/f", "Permission denied", False)] == failures
    assert {"closed": {"f": b""}, "open": {}} == read_tree(root)


def test_empty_directories_go_from_the_bottom_up(tree: Callable[[Data], Path]) -> None:
    """Nested empty directories go at once; one that is not empty, is gone or is a link stays as it is."""
    root = tree({"a": {"b": {"c": {}}}, "full": {"f": b""}, "link": Link("a2"), "a2": {}})
    failures = remove_directories(Tree(str(root)), ["a", "a/b", "a/b/c", "full", "gone", "link"])
    assert {"full": True, "gone": True, "link": True} == {failure.path: failure.changed for failure in failures}
    assert {"full": {"f": b""}, "link": Link("a2"), "a2": {}} == read_tree(root)
