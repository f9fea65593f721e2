"""Giving an entry its owner, attributes, mode and times: what can't be given is told, and all the rest is given."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.restic.metadata import Metadata, apply, apply_by_name
from tests.conftest import AsNobody
from tests.support import NOBODY

WANTED = Metadata(0o640, os.geteuid(), os.getegid(), (1_000_000_000, 5), (1_000_000_000, 7), [])


def with_attributes(*attributes: tuple[str, bytes]) -> Metadata:
    """The same with extended attributes."""
    return Metadata(WANTED.mode, WANTED.uid, WANTED.gid, WANTED.atime, WANTED.mtime, list(attributes))


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file that was just made."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


def born(fd: int) -> tuple[int, int]:
    """Whose file it is."""
    found = os.fstat(fd)
    return found.st_uid, found.st_gid


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("nonsense.a", "its attribute nonsense.a can't be set: Operation not supported"),
        ("user.a\0b", "there can be no attribute 'user.a\\x00b'"),
    ],
)
def test_an_attribute_that_there_can_not_be(fd: int, attribute: str, reason: str) -> None:
    """It is told as root; mode, times and the other attributes are set all the same."""
    if os.geteuid() != 0:
        pytest.skip("others leave out what they can't set")
    with pytest.raises(OSError, match=r"attribute") as caught:
        apply(fd, with_attributes((attribute, b"x"), ("user.b", b"y")), born(fd))
    assert reason == caught.value.strerror
    found = os.fstat(fd)
    assert (0o640, 1_000_000_000_000_000_007) == (stat.S_IMODE(found.st_mode), found.st_mtime_ns)
    assert b"y" == os.getxattr(fd, "user.b")


def test_others_leave_out_what_is_roots(open_path: Path, as_nobody: AsNobody) -> None:
    """Attributes of the system are not theirs to set, and that is no failure; those of users are."""
    path = open_path / "file"
    path.touch()
    os.chown(path, NOBODY, NOBODY)
    wanted = Metadata(0o640, NOBODY, NOBODY, WANTED.atime, WANTED.mtime, [("trusted.a", b"x"), ("user.b", b"y")])

    def give() -> bytes:
        fd = os.open(path, os.O_RDWR)
        apply(fd, wanted, (NOBODY, NOBODY))
        return os.getxattr(fd, "user.b")

    assert b"y" == as_nobody(give)


def test_nothing_can_be_given_on_a_disk_that_turned_read_only(tmp_path: Path) -> None:
    """The first failure is told: the owner's."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        (tmp_path / "file").touch()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        try:
            with pytest.raises(OSError, match="its owner can't be set: Read-only file system"):
                apply(fd, with_attributes(("user.a", b"x")), (1, 1))
        finally:
            os.close(fd)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_what_took_the_place_is_not_changed(tmp_path: Path) -> None:
    """A link was made, and is a file or has another name by now."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    (tmp_path / "file").touch(0o600)
    os.symlink("nowhere", tmp_path / "link")
    os.link(tmp_path / "link", tmp_path / "other", follow_symlinks=False)
    try:
        for name in (b"file", b"link"):
            with pytest.raises(OSError, match="something else is there by now"):
                apply_by_name(name, fd, stat.S_IFLNK, WANTED)
    finally:
        os.close(fd)
    assert 0o600 == stat.S_IMODE((tmp_path / "file").stat().st_mode)
