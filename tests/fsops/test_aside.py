"""What is moved aside comes back as it was, and nothing that took its place is touched on either way."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops.aside import aside, bring_back, drop_if_empty, record_of, returning
from symbiont_datad.fsops.cells import REMOVED, Cell, cells
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry, walk
from tests.conftest import AsNobody
from tests.support import NOBODY, Link, build_tree, read_tree
from tests.support import Tree as Data

NOW = 1_795_000_000.0


def record(files: int = 1) -> dict[str, object]:
    """The record of a cell of the rule `logs`."""
    return record_of(REMOVED, path="logs", rule="logs", reason="old", now=NOW, until=NOW + 60, files=files, size=10)


def planned(root: Path, path: str = "") -> list[Entry]:
    """Everything below a path, as if all of it were to go."""
    return sorted(walk(Tree(str(root)), path, on_error=lambda where, error: pytest.fail(f"{where}: {error}")))


def move(root: Path, entries: list[Entry], directories: tuple[str, ...] = ()) -> list[Failure]:
    """Move files, and whole directories, into one cell."""
    with aside(Tree(str(root)), record(), NOW) as cell:
        failures = cell.move(entries)
        for path in directories:
            failure = cell.move_directory(path, planned(root, path))
            failures += [failure] if failure else []
    return failures


def only_cell(root: Path) -> Cell:
    """The one cell that there is."""
    (found,) = cells(Tree(str(root)))
    return found


def undo(root: Path) -> list[Failure]:
    """Bring back all that can come back, and hand back what can't."""
    tree, cell = Tree(str(root)), only_cell(root)
    found, taken = returning(tree, cell)
    return taken + bring_back(tree, cell, [one.path for one in found])


CONTENT: Data = {"logs": {"a\n.log": b"1", "d": {"\udcff": b"2", "l": Link("../a"), "e": {"deep": b"3"}}}, "keep": b"k"}


def test_there_and_back_is_nothing(tree: Callable[[Data], Path]) -> None:
    """Contents, modes, owners and times of files are the same, and so are directories that went meanwhile."""
    root = tree(CONTENT)
    (root / "logs/d").chmod(0o2750)
    (root / "logs/d/\udcff").chmod(0o604)
    os.utime(root / "logs/a\n.log", ns=(5, 7))
    before = {path: path.lstat() for path in root.rglob("*") if path.is_file()}
    assert [] == move(root, planned(root, "logs"))
    assert {"logs": {"d": {"e": {}}}, "keep": b"k"} == {
        name: node for name, node in read_tree(root).items() if name != ".quarantine"
    }
    (root / "logs/d/e").rmdir()
    (root / "logs/d").rmdir()
    assert [] == undo(root)
    assert drop_if_empty(Tree(str(root)), only_cell(root))
    assert CONTENT == {name: node for name, node in read_tree(root).items() if name != ".quarantine"}
    assert 0o2750 == (root / "logs/d").stat().st_mode & 0o7777
    for path, was in before.items():
        now = path.lstat()
        assert (was.st_ino, was.st_mode, was.st_uid, was.st_mtime_ns) == (
            now.st_ino,
            now.st_mode,
            now.st_uid,
            now.st_mtime_ns,
        )


def test_a_directory_goes_as_one(tree: Callable[[Data], Path]) -> None:
    """One rename there and one back: the directory itself is the same."""
    root = tree(CONTENT)
    inode = (root / "logs/d").stat().st_ino
    assert [] == move(root, [], ("logs/d",))
    assert {"logs": {"a\n.log": b"1"}, "keep": b"k"} == {
        name: node for name, node in read_tree(root).items() if name != ".quarantine"
    }
    assert [("logs/d", True, 3, 6)] == [
        (one.path, one.directory, one.files, one.bytes) for one in returning(Tree(str(root)), only_cell(root))[0]
    ]
    assert [] == undo(root)
    assert inode == (root / "logs/d").stat().st_ino


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: (d / "new").write_bytes(b""), id="a new file"),
        pytest.param(lambda d: (d / "e/new").write_bytes(b""), id="a new file deep in it"),
        pytest.param(lambda d: (d / "e/deep").write_bytes(b"4"), id="written to"),
        pytest.param(lambda d: (d / "e/deep").unlink(), id="one less"),
        pytest.param(lambda d: os.mkfifo(d / "fifo"), id="a FIFO"),
    ],
)
def test_a_directory_that_has_changed_stays(tree: Callable[[Data], Path], change: Callable[[Path], object]) -> None:
    """Whole or not at all: what is no longer as planned is where it was, and the cell is gone again."""
    root = tree(CONTENT)
    members = planned(root, "logs/d")
    change(root / "logs/d")
    with aside(Tree(str(root)), record(), NOW) as cell:
        assert Failure("logs/d", "changed since it was planned", True) == cell.move_directory("logs/d", members)
    assert (root / "logs/d").is_dir()
    assert [] == os.listdir(root / ".quarantine")


def test_what_took_the_place_of_a_file_is_kept(tree: Callable[[Data], Path]) -> None:
    """A file that was written, replaced or removed after the plan is not moved; its neighbour is."""
    root = tree({"logs": {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}})
    plan = planned(root, "logs")
    (root / "logs/a").write_bytes(b"newer")
    (root / "logs/b").unlink()
    (root / "logs/b").symlink_to("/etc/passwd")
    (root / "logs/c").unlink()
    assert [("logs/a", True), ("logs/b", True), ("logs/c", True)] == [
        (failure.path, failure.changed) for failure in move(root, plan)
    ]
    assert ["a", "b"] == sorted(os.listdir(root / "logs"))


def test_what_is_there_again_is_not_replaced(tree: Callable[[Data], Path]) -> None:
    """It is named and stays in the quarantine; the rest comes back; a second time it comes back as well."""
    root = tree({"logs": {"a": b"old", "b": b"old", "d": {"x": b"old"}}})
    move(root, planned(root, "logs"))
    build_tree(root / "logs", {"a": b"new", "d": {"x": {}}})
    assert {"logs/a", "logs/d/x"} == {failure.path for failure in undo(root)}
    assert {"a": b"new", "b": b"old", "d": {"x": {}}} == read_tree(root / "logs")
    assert not drop_if_empty(Tree(str(root)), only_cell(root))
    (root / "logs/a").unlink()
    (root / "logs/d/x").rmdir()
    assert [] == undo(root)
    assert {"a": b"old", "b": b"old", "d": {"x": b"old"}} == read_tree(root / "logs")


def test_a_place_that_is_a_link_by_now_is_taken(tree: Callable[[Data], Path], tmp_path: Path) -> None:
    """Nothing is put where a link leads; a directory that became one is named."""
    root = tree({"logs": {"d": {"x": b"old"}}})
    move(root, planned(root, "logs"))
    (root / "logs/d").rmdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "logs/d").symlink_to(outside)
    assert ["logs/d"] == [failure.path for failure in undo(root)]
    assert [] == os.listdir(outside)


def test_nothing_moved_leaves_no_cell(tree: Callable[[Data], Path]) -> None:
    """Not even when the block ends with an error."""
    root = tree({"logs": {}})
    move(root, [])
    with pytest.raises(RuntimeError), aside(Tree(str(root)), record(), NOW):
        raise RuntimeError
    assert [] == os.listdir(root / ".quarantine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("where", ["logs/d/e", "logs/d", "logs"])
def test_no_mount_is_crossed(tree: Callable[[Data], Path], where: str) -> None:
    """A directory in which something is mounted, or that is on another file system, stays where it is."""
    root = tree({"logs": {"d": {"e": {}, "x": b"1"}}})
    members = planned(root, "logs/d")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root / where)], check=True)
    try:
        (root / where / "theirs").write_bytes(b"2")
        with aside(Tree(str(root)), record(), NOW) as cell:
            assert cell.move_directory("logs/d", members) is not None
            if where != "logs/d/e":
                assert [] != cell.move(members)
        assert b"2" == (root / where / "theirs").read_bytes()
    finally:
        subprocess.run(["umount", str(root / where)], check=True)


def test_root_keeps_owners(open_path: Path, as_nobody: AsNobody) -> None:
    """Directories that stand in the cell for those of the tree have their owner, so that they come back as theirs."""
    del as_nobody
    root = build_tree(open_path / "tree", {"logs": {"d": {"x": b"1"}}})
    os.chown(root / "logs/d", NOBODY, NOBODY)
    move(root, planned(root, "logs"))
    (root / "logs/d").rmdir()
    assert [] == undo(root)
    assert NOBODY == (root / "logs/d").stat().st_uid


def test_what_can_not_be_moved_is_told(tree: Callable[[Data], Path], tmp_path: Path) -> None:
    """A FIFO; a file that went; a directory behind a link by now; a name that is no directory any more."""
    root = tree({"a": {"f": b"1"}, "b": {"f": b"2"}, "c": {"f": b"3"}, "d": {"f": b"4"}})
    os.mkfifo(root / "a/fifo")
    entries = planned(root)
    (root / "a/f").unlink()
    (root / "b").rename(tmp_path / "moved")
    (root / "b").symlink_to(tmp_path / "moved")
    members = planned(root, "c")
    with aside(Tree(str(root)), record(), NOW) as moving:
        failures = {one.path: (one.reason, one.changed) for one in moving.move(entries)}
        (root / "c").rmdir()
        (root / "c").write_bytes(b"")
        no_directory, gone = moving.move_directory("c", members), moving.move_directory("none/x", members)
    assert {"a/fifo": ("neither a file nor a link", False), "a/f": ("gone already", True)} == {
        path: failures[path] for path in ("a/fifo", "a/f")
    }
    assert Failure("c", "no directory any more", True) == no_directory
    assert Failure("none/x", "gone already", True) == gone
    assert b"2" == (tmp_path / "moved/f").read_bytes()


def test_a_file_at_the_top_comes_back(tree: Callable[[Data], Path]) -> None:
    """It was in no directory but the root."""
    root = tree({"top": b"1"})
    assert [] == move(root, planned(root))
    assert [] == undo(root)
    assert b"1" == (root / "top").read_bytes()
