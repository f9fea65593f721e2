"""The walk lists what is there: every kind of thing, once, without following or opening any."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import DEPTH_LIMIT, Entry, walk
from tests.conftest import AsNobody
from tests.support import Link, build_tree
from tests.support import Tree as Data


def listed(root: Path, path: str = "") -> tuple[list[Entry], list[tuple[str, str]]]:
    """What a walk finds, in the order of the paths, and what it could not read."""
    errors: list[tuple[str, str]] = []
    entries = walk(Tree(str(root)), path, on_error=lambda where, error: errors.append((where, str(error))))
    return sorted(entries), errors


def test_a_walk_finds_everything_but_the_quarantine(tree: Callable[[Data], Path]) -> None:
    """Files at any depth and links are listed with what lstat says; directories and the quarantine are not."""
    root = tree({"a": b"12345", "d": {"e": {"f": b""}, "l": Link("/etc")}, ".quarantine": {"x": b""}, "empty": {}})
    entries, errors = listed(root)
    assert [] == errors
    assert ["a", "d/e/f", "d/l"] == [entry.path for entry in entries]
    found = os.lstat(root / "a")
    assert found.st_size == entries[0].size == 5
    assert (found.st_ino, found.st_mtime_ns, found.st_atime_ns) == (
        entries[0].inode,
        entries[0].mtime_ns,
        entries[0].atime_ns,
    )
    assert (found.st_mode, found.st_nlink, found.st_uid, found.st_gid) == (
        entries[0].mode,
        entries[0].nlink,
        entries[0].uid,
        entries[0].gid,
    )
    assert (found.st_ctime_ns, found.st_blocks * 512) == (entries[0].ctime_ns, entries[0].allocated)
    assert [True, True, False] == [entry.is_file for entry in entries]


def test_a_walk_can_begin_anywhere(tree: Callable[[Data], Path]) -> None:
    """Paths are relative to the root wherever it begins; the quarantine can be walked when it is asked for."""
    root = tree({"d": {"e": {"f": b""}}, ".quarantine": {"cell": {"item": b""}}})
    assert ["d/e/f"] == [entry.path for entry in listed(root, "d")[0]]
    assert [".quarantine/cell/item"] == [entry.path for entry in listed(root, ".quarantine")[0]]
    assert ([], []) == listed(root, "gone")
    assert ([], []) == listed(root, "d/e/f")


def test_names_and_things_of_every_kind_are_listed(tmp_path: Path) -> None:
    """Newlines and bytes that are no UTF-8 in a name, a FIFO and a socket: all are listed and none is opened."""
    os.mkfifo(tmp_path / "fifo")
    for name in (b"a\nb", b"\xff\xfe", b"-rf"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        entries, errors = listed(tmp_path)
        os.close(here)
    assert [] == errors
    assert {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK} == {
        entry.path: stat.S_IFMT(entry.mode) for entry in entries if not entry.is_file
    }
    assert {"a\nb", "\udcff\udcfe", "-rf"} == {entry.path for entry in entries if entry.is_file}


def test_a_linked_directory_is_a_link(tree: Callable[[Data], Path]) -> None:
    """A link to a directory is listed, and neither entered nor begun at."""
    root = tree({"real": {"f": b""}, "link": Link("real")})
    assert ["link", "real/f"] == [entry.path for entry in listed(root)[0]]
    assert [] == listed(root, "link")[0]


def test_what_lies_too_deep_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """A directory below the limit is reported; what lies above it is listed."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH_LIMIT + 5):
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    entries, errors = listed(tmp_path)
    assert DEPTH_LIMIT + 1 == len(entries)
    assert ["d/" * DEPTH_LIMIT + "d"] == [path for path, _ in errors]


def test_what_cant_be_read_is_an_error_and_the_rest_is_listed(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory without permissions is reported with its path; its neighbours are listed."""
    root = build_tree(open_path / "tree", {"closed": {"secret": b""}, "open": {"f": b""}})
    (root / "closed").chmod(0o700)
    entries, errors = as_nobody(lambda: listed(root))
    assert ["open/f"] == [entry.path for entry in entries]
    assert ["closed"] == [path for path, _ in errors]


def test_what_goes_while_it_is_listed_is_no_error(tree: Callable[[Data], Path]) -> None:
    """A directory that is removed between its parent's list and its own is passed over."""
    root = tree({"a": b"", "gone": {"f": b""}})
    errors: list[str] = []
    walked = walk(Tree(str(root)), on_error=lambda path, _: errors.append(path))
    assert "a" == next(walked).path
    (root / "gone/f").unlink()
    (root / "gone").rmdir()
    assert ([], []) == (list(walked), errors)


def fifo_instead(path: Path) -> None:
    """A FIFO in the place of a file."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        pytest.param(lambda path: os.chmod(path, 0o600), False, id="mode"),
        pytest.param(lambda path: os.utime(path, ns=(0, 1)), True, id="time"),
        pytest.param(lambda path: path.write_bytes(b"other"), True, id="content"),
        pytest.param(fifo_instead, True, id="type"),
        pytest.param(
            lambda path: path.rename(path.with_name("g")) and (path.parent / "g").rename(path), False, id="name"
        ),
    ],
)
def test_a_file_differs_when_it_or_its_content_is_another(
    tree: Callable[[Data], Path], change: Callable[[Path], object], differs: bool
) -> None:
    """An entry tells another file or other content from the same file with another mode."""
    root = tree({"f": b"x"})
    ((entry,), _) = listed(root)
    change(root / "f")
    assert differs == entry.differs(os.lstat(root / "f"))
