"""The cells of the quarantine: listed by their records, measured, and removed whole."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops.cells import Cell, cells, extent, holds, remove_cell
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import DEPTH_LIMIT
from symbiont_datad.fsops.write import quarantine
from tests.conftest import AsNobody
from tests.support import NOBODY, Link, build_tree, read_tree
from tests.support import Tree as Data

NOW = 1_795_000_000.0
RECORD = {
    "kind": "removed",
    "path": "logs",
    "rule": "logs",
    "reason": "old",
    "at": "2026-11-18T11:06:40Z",
    "until": "2026-11-19T11:06:40Z",
    "run": "20261118T110640Z",
    "files": 3,
    "bytes": 30,
}


def cell(record: object = RECORD, content: Data | None = None) -> Data:
    """A cell as data."""
    return {"record.json": json.dumps(record).encode(), **({"files": content} if content is not None else {})}


def names(root: Path) -> list[str]:
    """The cells, in their order."""
    return [one.name for one in cells(Tree(str(root)))]


def test_a_record_says_what_a_cell_is(tree: Callable[[Data], Path]) -> None:
    """All of it comes back, times as numbers; it can be undone until its time is over."""
    root = tree({".quarantine": {"20261118T110640Z": cell()}})
    expected = Cell("20261118T110640Z", NOW, "removed", "logs", "logs", "old", NOW + 86_400, "20261118T110640Z", 3, 30)
    assert [expected] == cells(Tree(str(root)))
    assert expected.undoable
    assert ".quarantine/20261118T110640Z" == expected.place


def test_cells_come_in_the_order_in_which_they_were_made(tree: Callable[[Data], Path]) -> None:
    """By time, and by number within a second: ten comes after two."""
    stamp = "20261118T110640Z"
    others = {f"{stamp}-{number}": cell() for number in (10, 2)}
    older = {"20261018T110640Z": cell({"at": "2026-10-18T11:06:40Z", "kind": "obstruction"})}
    root = tree({".quarantine": {**others, stamp: cell(), **older}})
    assert ["20261018T110640Z", stamp, f"{stamp}-2", f"{stamp}-10"] == names(root)


def test_what_quarantine_makes_is_a_cell_that_cant_be_undone(tree: Callable[[Data], Path]) -> None:
    """A thing that stood in the way has a kind and no end."""
    root = tree({"bad": b"x"})
    quarantine(Tree(str(root)), "bad", kind="obstruction", reason="in the way", now=NOW)
    (one,) = cells(Tree(str(root)))
    assert ("obstruction", "bad", NOW, None, False) == (one.kind, one.path, one.at, one.until, one.undoable)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 60_000,
        b'{"kind": 5, "until": "tomorrow", "at": [], "files": -1, "bytes": 1e99}',
        b'{"kind": "removed", "until": "99999-01-01"}',
        b'{"kind": "removed", "files": true}' + b" " * 100_000,
    ],
)
def test_any_record_can_be_read(tree: Callable[[Data], Path], record: bytes) -> None:
    """Whoever owns the tree can write what they like: the cell is listed, and has no end that isn't there."""
    root = tree({".quarantine": {"20261118T110640Z": {"record.json": record}}})
    (one,) = cells(Tree(str(root)))
    assert (NOW, None, False) == (one.at, one.until, one.undoable)


def test_what_is_no_cell_is_passed_over(tree: Callable[[Data], Path], tmp_path: Path) -> None:
    """Files, links and FIFOs in the quarantine, and a record that is a FIFO, hold nobody up."""
    root = tree({".quarantine": {"file": b"", "link": Link("/etc"), "cell": {}}})
    os.mkfifo(root / ".quarantine/fifo")
    os.mkfifo(root / ".quarantine/cell/record.json")
    assert ["cell"] == names(root)
    assert [] == cells(Tree(str(tmp_path / "tree/.quarantine")))
    assert [] == cells(Tree(str(tmp_path)))


def test_holds_finds_files_and_directories_by_their_old_path(tree: Callable[[Data], Path]) -> None:
    """Also what lies in a directory; nothing else, and no link is followed."""
    root = tree({".quarantine": {"c": cell(content={"logs": {"a\n": b"", "d": {"x": b""}, "l": Link("/etc")}})}})
    (one,) = cells(Tree(str(root)))
    found = [holds(Tree(str(root)), one, path) for path in ("logs/a\n", "logs/d", "logs/d/x", "logs/l", "logs")]
    assert [True] * 5 == found
    assert [False] * 2 == [holds(Tree(str(root)), one, path) for path in ("logs/b", "logs/l/passwd")]


def test_extent_counts_what_would_be_freed(tree: Callable[[Data], Path]) -> None:
    """Files with a name elsewhere give nothing back; directories have inodes too."""
    root = tree({".quarantine": {"c": cell(content={"a": b"x" * 5000, "b": b"y" * 10})}, "other": b"z" * 100})
    os.link(root / "other", root / ".quarantine/c/files/linked")
    found = extent(Tree(str(root)), ".quarantine/c")
    record = (root / ".quarantine/c/record.json").stat()
    assert (4, 5110 + record.st_size) == (found.files, found.bytes)
    assert 5 == found.inodes  # the cell, its files/, a, b, the record
    assert 5000 <= found.allocated


def test_a_cell_goes_with_all_that_is_in_it(tree: Callable[[Data], Path]) -> None:
    """Things of every kind are unlinked; what links lead to stays."""
    root = tree({".quarantine": {"c": cell(content={"d": {"l": Link("../../../../keep")}, "x": b""})}, "keep": b"1"})
    os.mkfifo(root / ".quarantine/c/files/fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(root / ".quarantine/c/files/socket"))
    if os.geteuid() == 0:
        os.mknod(root / ".quarantine/c/files/null", 0o020600, os.makedev(1, 3))
    assert "" == remove_cell(Tree(str(root)), "c")
    assert [] == os.listdir(root / ".quarantine")
    assert b"1" == (root / "keep").read_bytes()
    assert "" == remove_cell(Tree(str(root)), "c")


def test_a_link_in_place_of_a_cell_is_not_followed(tree: Callable[[Data], Path]) -> None:
    """What it leads to stays."""
    root = tree({".quarantine": {"c": Link("../keep")}, "keep": {"x": b"1"}})
    assert "Not a directory" in remove_cell(Tree(str(root)), "c")
    assert b"1" == (root / "keep/x").read_bytes()


def test_asked_to_stop_it_leaves_the_record(tree: Callable[[Data], Path]) -> None:
    """The next run knows what the rest is, and finishes."""
    root = tree({".quarantine": {"c": cell(content={str(number): b"" for number in range(50)})}})
    looks = iter(range(1000))
    assert "it was asked to stop" == remove_cell(Tree(str(root)), "c", lambda: next(looks) > 20)
    assert 0 < len(os.listdir(root / ".quarantine/c/files")) < 50
    assert ["c"] == names(root)
    assert "" == remove_cell(Tree(str(root)), "c")


def test_many_files_go_too(tree: Callable[[Data], Path]) -> None:
    """Several threads at work, in several directories; asked to stop, they do."""
    days: Data = {f"d{day}": {f"{number}\n": b"" for number in range(300)} for day in range(5)}
    root = tree({".quarantine": {"c": cell(content=days), "d": cell(content=days)}})
    assert "" == remove_cell(Tree(str(root)), "c")
    assert ["d"] == names(root)
    assert "it was asked to stop" == remove_cell(Tree(str(root)), "d", lambda: True)
    assert 1500 == len(list(root.glob(".quarantine/d/files/*/*")))


def test_closed_directories_are_opened(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory of ours without any permission goes as well; one of somebody else is named."""
    root = build_tree(open_path / "tree", {".quarantine": {"c": cell(content={"d": {"x": b""}})}})
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (root / ".quarantine/c/files/d").chmod(0)
    assert "" == as_nobody(lambda: remove_cell(Tree(str(root)), "c"))
    build_tree(root / ".quarantine", {"r": cell(content={"d": {"x": b""}})})
    assert "Permission denied" in as_nobody(lambda: remove_cell(Tree(str(root)), "r"))
    assert (root / ".quarantine/r/files/d/x").exists()


def test_a_stamp_that_is_no_time_says_nothing(tree: Callable[[Data], Path]) -> None:
    """Then the directory's own time counts."""
    root = tree({".quarantine": {"20261399T999999Z": {}}})
    os.utime(root / ".quarantine/20261399T999999Z", (NOW, NOW))
    assert [Cell("20261399T999999Z", NOW)] == cells(Tree(str(root)))


def test_what_lies_too_deep_stays(tree: Callable[[Data], Path]) -> None:
    """No hostile depth exhausts the descriptors or the stack; what is left is said."""
    stamp = "20261118T110640Z"
    root = tree({".quarantine": {stamp: cell()}})
    path = root / f".quarantine/{stamp}/files"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    for _ in range(DEPTH_LIMIT + 1):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert f"it is deeper than {DEPTH_LIMIT} directories" == remove_cell(Tree(str(root)), stamp)
    assert path.is_dir()


def test_another_file_system_in_a_cell_stays(tree: Callable[[Data], Path]) -> None:
    """With what is above it, and the record; all else goes, and the rest once it is not mounted any more."""
    root = tree({".quarantine": {"20261118T110640Z": cell(content={"a": b"1", "d": {"m": {}, "b": b"2"}})}})
    at = root / ".quarantine/20261118T110640Z"
    if subprocess.run(["mount", "-t", "tmpfs", "none", at / "files/d/m"], capture_output=True).returncode:
        pytest.skip("not on this platform: a file system can't be mounted here")
    try:
        (at / "files/d/m/theirs").write_bytes(b"precious")
        assert "another file system is mounted in it" == remove_cell(Tree(str(root)), at.name)
        assert {"record.json": cell()["record.json"], "files": {"d": {"m": {"theirs": b"precious"}}}} == read_tree(at)
    finally:
        subprocess.run(["umount", at / "files/d/m"], check=True)
    assert "" == remove_cell(Tree(str(root)), at.name)
    assert not at.exists()
