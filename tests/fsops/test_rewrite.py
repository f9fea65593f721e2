"""A file is replaced by one with its mode, owner and times, or not at all."""

import os
from pathlib import Path

import pytest

from symbiont_datad.fsops.rewrite import replace_file, rewrite
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry, look
from tests.conftest import AsNobody
from tests.support import NOBODY


def listed(root: Path, path: str) -> Entry:
    """A file as a walk lists it."""
    found = look(Tree(str(root)), path)
    assert found is not None
    return found


def test_only_the_content_is_another(tmp_path: Path) -> None:
    """Mode, owner and both times stay, and nothing is left beside it."""
    file = tmp_path / "a.json"
    file.write_bytes(b"old")
    file.chmod(0o640)
    os.utime(file, ns=(5, 1_000_000_007))
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    before = listed(tmp_path, "a.json")
    after = rewrite(Tree(str(tmp_path)), before, b"new")
    assert after is not None
    assert after == listed(tmp_path, "a.json")
    assert before == after._replace(inode=before.inode)
    assert b"new" == file.read_bytes()
    assert ["a.json"] == os.listdir(tmp_path)


def test_a_file_that_has_changed_is_left(tmp_path: Path) -> None:
    """So is one that is gone."""
    file = tmp_path / "a.json"
    file.write_bytes(b"old")
    entry = listed(tmp_path, "a.json")
    file.write_bytes(b"newer")
    assert rewrite(Tree(str(tmp_path)), entry, b"new") is None
    assert {"a.json": b"newer"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    file.unlink()
    assert rewrite(Tree(str(tmp_path)), entry, b"new") is None
    assert [] == os.listdir(tmp_path)


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no temporary file."""
    file = tmp_path / "a.json"
    file.write_bytes(b"old")

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        rewrite(Tree(str(tmp_path)), listed(tmp_path, "a.json"), b"new")
    monkeypatch.undo()
    assert {"a.json": b"old"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_planted_temporary_is_never_opened(tmp_path: Path) -> None:
    """A hard link to somebody else's file in its place is unlinked."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.link(victim, tmp_path / ".a.json.tmp")
    fd = os.open(tmp_path, os.O_RDONLY)
    replace_file(fd, "a.json", b"new", None)
    os.close(fd)
    assert {"a.json": b"new", "victim": b"precious"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_others_files_are_refused(open_path: Path, as_nobody: AsNobody) -> None:
    """They would belong to somebody else afterwards."""
    (open_path / "a.json").write_bytes(b"old")
    open_path.chmod(0o777)
    entry = listed(open_path, "a.json")
    with pytest.raises(PermissionError, match="belongs to uid 0"):
        as_nobody(lambda: rewrite(Tree(str(open_path)), entry, b"new"))
    assert [b"old"] == [path.read_bytes() for path in open_path.iterdir()]


def test_an_ordinary_user_rewrites_what_is_theirs(open_path: Path, as_nobody: AsNobody) -> None:
    """The mode stays, and the group too where they are in it; what is new has what the umask leaves."""
    os.chown(open_path, NOBODY, NOBODY)
    for name, group in (("a.json", 0), ("b.json", NOBODY)):
        (open_path / name).write_bytes(b"old")
        (open_path / name).chmod(0o640)
        os.chown(open_path / name, NOBODY, group)

    def replace() -> None:
        os.umask(0o027)
        for name in ("a.json", "b.json"):
            assert rewrite(Tree(str(open_path)), listed(open_path, name), b"new") is not None
        fd = os.open(open_path, os.O_RDONLY)
        replace_file(fd, "c.json", b"new", None)
        os.close(fd)

    as_nobody(replace)
    assert {(name, NOBODY, NOBODY, 0o640, b"new") for name in ("a.json", "b.json", "c.json")} == {
        (path.name, path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777, path.read_bytes())
        for path in open_path.iterdir()
    }
