"""Comparing a directory with a tree: every way in which an entry can be another one is told with its path."""

import os
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.restic.compare import Comparer
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.tree import Node
from tests.restic.making import make_repository
from tests.support import Link, build_tree

WHEN = "2026-01-01T00:00:00Z"


def node(name: str, kind: str, **fields: Any) -> Node:
    """An entry of a tree."""
    given = {"content": None, "uid": 0, "gid": 0, **fields}
    return Node(name=name, type=kind, mtime=WHEN, atime=WHEN, ctime=WHEN, **given)


Reasons = Callable[[Node], list[str]]


@pytest.fixture
def reasons(tmp_path: Path) -> Reasons:
    """What is told of one entry, compared with what lies in the directory `there`."""
    (tmp_path / "there").mkdir()
    repository = make_repository(tmp_path / "repository")

    def compare(wanted: Node) -> list[str]:
        fd = os.open(tmp_path / "there", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return [reason for _, reason in Comparer(repository).compare_node(wanted, fd)]
        finally:
            os.close(fd)

    return compare


def test_a_name_that_leads_out_is_told(reasons: Reasons) -> None:
    """Nobody goes where such a name would lead."""
    assert ["that is no name of a file"] == reasons(node("..", "dir"))


def test_an_entry_of_another_kind(reasons: Reasons, tmp_path: Path) -> None:
    """What stands in its place is named."""
    build_tree(tmp_path / "there", {"a": {}, "b": b"", "c": Link("nowhere")})
    os.mkfifo(tmp_path / "there/fifo")
    assert ["it is dir instead of file"] == reasons(node("a", "file", content=[]))
    assert ["it is file instead of symlink"] == reasons(node("b", "symlink", linktarget="x"))
    assert ["it links to something else"] == reasons(node("c", "symlink", linktarget="elsewhere"))
    assert [] == reasons(node("c", "symlink", linktarget="nowhere"))
    assert ["Not a directory"] == reasons(node("b", "dir"))
    assert [] == reasons(node("fifo", "fifo"))
    assert ["it is fifo instead of file"] == reasons(node("fifo", "file", content=[]))


def test_another_device(reasons: Reasons, tmp_path: Path) -> None:
    """A device's number counts."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(tmp_path / "there/null", 0o020600, os.makedev(1, 3))
    assert [] == reasons(node("null", "chardev", device=os.makedev(1, 3)))
    assert ["it is another device"] == reasons(node("null", "chardev", device=os.makedev(1, 5)))


def test_a_socket_is_passed_over(reasons: Reasons) -> None:
    """It is not restored, so it is not missed."""
    assert [] == reasons(node("socket", "socket"))


def test_content_that_can_not_be_compared(reasons: Reasons, tmp_path: Path) -> None:
    """A blob that the index does not know, and what is no blob's id."""
    build_tree(tmp_path / "there", {"a": b"a"})
    lost = sha256(b"a").hexdigest()
    assert [f"blob {lost} is in no pack that the index knows"] == reasons(node("a", "file", content=[lost]))
    (reason,) = reasons(node("a", "file", content=["zz"]))
    assert "zz" in reason


def test_what_is_not_selected_is_not_looked_at(tmp_path: Path) -> None:
    """As for the restore: what was left out then is not missed now."""
    comparer = Comparer(make_repository(tmp_path / "repository"), select=lambda path, _: path != b"left out")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert () == comparer.compare_node(node("left out", "file", content=[]), fd)
        ((path, _),) = comparer.compare_node(node("missed", "file", content=[]), fd)
        assert b"missed" == path
    finally:
        os.close(fd)


def test_it_ends_when_asked(tmp_path: Path) -> None:
    """Between two entries."""
    comparer = Comparer(make_repository(tmp_path / "repository"), stopping=lambda: True)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(Interrupted):
            comparer.compare_node(node("a", "file", content=[]), fd)
    finally:
        os.close(fd)


def test_sockets_on_the_disk_are_something_else(
    reasons: Reasons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is a socket there is no FIFO."""
    monkeypatch.chdir(tmp_path / "there")  # an address has 108 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
    assert ["it is socket instead of fifo"] == reasons(node("s", "fifo"))
