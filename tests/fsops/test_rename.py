"""Moving without taking the place of anything, in one step and in several."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.fsops import rename
from symbiont_datad.fsops.rename import rename_new
from tests.support import Link, build_tree, read_tree


@pytest.fixture(params=["in one step", "in several"])
def two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two directories, pinned, on a system with the flag and on one without."""
    if request.param == "in several":

        def unknown(*_: object) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(rename, "renameat2", unknown)
    build_tree(tmp_path, {"a": {"f": b"1", "d": {"x": b"2"}, "l": Link("gone"), "taken": b"3", "e": {}}, "b": {}})
    fds = os.open(tmp_path / "a", os.O_RDONLY), os.open(tmp_path / "b", os.O_RDONLY)
    yield fds
    for fd in fds:
        os.close(fd)


def test_files_links_and_directories_move(two: tuple[int, int], tmp_path: Path) -> None:
    """Each is the same afterwards, and gone from where it was."""
    for name in ("f", "d", "l"):
        rename_new(two[0], name, two[1], name)
    assert {"f": b"1", "d": {"x": b"2"}, "l": Link("gone")} == read_tree(tmp_path / "b")
    assert {"taken", "e"} == set(os.listdir(tmp_path / "a"))


@pytest.mark.parametrize("name", ["taken", "e"])
def test_what_has_the_name_is_not_replaced(two: tuple[int, int], tmp_path: Path, name: str) -> None:
    """Not even an empty directory by an empty directory, which rename(2) itself would replace."""
    build_tree(tmp_path / "b", {"taken": b"theirs", "e": {}})
    with pytest.raises(FileExistsError):
        rename_new(two[0], name, two[1], name)
    assert {"taken": b"theirs", "e": {}} == read_tree(tmp_path / "b")
    assert (tmp_path / "a" / name).exists()


def test_a_name_in_the_same_directory(two: tuple[int, int], tmp_path: Path) -> None:
    """A file gets another name, and what has that name already is kept."""
    with pytest.raises(FileExistsError):
        rename_new(two[0], "f", two[0], "taken")
    rename_new(two[0], "f", two[0], "free")
    assert (b"1", b"3") == ((tmp_path / "a/free").read_bytes(), (tmp_path / "a/taken").read_bytes())
    assert not (tmp_path / "a/f").exists()


def test_what_is_gone_is_an_error(two: tuple[int, int]) -> None:
    """Nothing moves then."""
    with pytest.raises(FileNotFoundError):
        rename_new(two[0], "gone", two[1], "gone")
