"""Where other file systems begin, bind mounts included."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops import mount
from symbiont_datad.fsops.mount import (
    Mount,
    is_mount_point,
    is_of_this_machine,
    is_volume,
    mount_of,
    mount_points,
    mounts_below,
)
from symbiont_datad.fsops.root import Tree, pinned

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")


@contextmanager
def bound(source: Path, at: Path) -> Iterator[None]:
    """One directory bound over another."""
    subprocess.run(["mount", "--bind", str(source), str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.mark.parametrize(
    "name", ["plain", "with blank", "back\\slash", "tab\tand\nline", "ümläut", os.fsdecode(b"\xff")]
)
def test_mount_points_by_any_name(tmp_path: Path, name: str) -> None:
    """A mount point is found by its name, whatever is in it, while it is one."""
    tree, at = tmp_path / "tree", tmp_path / "tree" / name
    at.mkdir(parents=True)
    (tmp_path / "link").symlink_to(at)
    assert not is_mount_point(str(at))
    with bound(tmp_path, at):
        assert is_mount_point(str(at))
        assert is_mount_point(str(tmp_path / "link"))
        assert str(at) in mount_points()
        assert frozenset({name}) == mounts_below(str(tree))
        assert frozenset() == mounts_below(str(tmp_path / "tre"))
    assert not is_mount_point(str(at))
    assert frozenset() == mounts_below(str(tree))


def test_a_directory_bound_over_itself_is_no_volume(tmp_path: Path) -> None:
    """A sandbox does that to what it leaves writable. With a volume below it is one; one that comes after is hidden."""
    at = tmp_path / "at"
    at.mkdir()
    with bound(at, at):
        assert str(at) in mount_points()
        assert not is_mount_point(str(at))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(at)], check=True)
    try:
        with bound(at, at):
            assert is_mount_point(str(at))
    finally:
        subprocess.run(["umount", str(at)], check=True)


ROOTFS = Mount(1, 0, "8:1", "/", "/")


@pytest.mark.parametrize(
    ("expected", "seen"),
    [
        (False, []),
        (True, [Mount(2, 1, "8:2", "/", "/srv/v")]),
        (True, [Mount(2, 1, "8:1", "/pool/v", "/srv/v")]),
        (False, [Mount(2, 1, "8:1", "/srv/v", "/srv/v")]),
        (True, [Mount(2, 1, "8:2", "/", "/srv/v"), Mount(3, 2, "8:2", "/", "/srv/v")]),
        (False, [Mount(3, 2, "8:1", "/srv/v", "/srv/v"), Mount(2, 1, "8:2", "/", "/srv/v")]),
        (False, [Mount(2, 1, "8:2", "/", "/srv"), Mount(3, 2, "8:2", "/v", "/srv/v")]),
        (True, [Mount(2, 1, "8:2", "/", "/srv"), Mount(3, 2, "8:1", "/srv/v", "/srv/v")]),
        (True, [Mount(2, 1, "8:2", "/", "/srv/v"), Mount(3, 1, "8:3", "/", "/srv/v/inner")]),
    ],
)
def test_which_mounts_are_volumes(expected: bool, seen: list[Mount]) -> None:
    """What is on top counts: a volume, a part of one, the directory itself once more, a volume hidden by that."""
    assert expected is is_volume("/srv/v", [ROOTFS, *seen])


def test_a_bind_mount_of_the_same_file_system_is_told_apart(tmp_path: Path) -> None:
    """Device numbers are equal, the mounts' numbers are not, and the way down ends there."""
    for name in ("data/here/below", "other/below"):
        (tmp_path / name).mkdir(parents=True)
    tree = Tree(str(tmp_path / "data"))
    with bound(tmp_path / "other", tmp_path / "data/here"):
        with pinned(str(tmp_path / "data")) as above, pinned(str(tmp_path / "data/here")) as below:
            assert os.fstat(above).st_dev == os.fstat(below).st_dev
            assert mount_of(above) != mount_of(below)
        for path in ("here", "here/below"):
            with pytest.raises(UnsafePath, match="another file system is mounted there"), tree.directory(path):
                pass
    with tree.directory("here/below") as fd, tree.root() as root_fd:
        assert mount_of(fd) == mount_of(root_fd) > 0


def test_a_root_that_is_a_mount_is_the_tree(tmp_path: Path) -> None:
    """The root itself may be a mount point; what is below it is reached."""
    for name in ("data", "other/below"):
        (tmp_path / name).mkdir(parents=True)
    with bound(tmp_path / "other", tmp_path / "data"), Tree(str(tmp_path / "data")).directory("below") as fd:
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "other/below"))


def test_without_proc_devices_have_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system tells nothing of mounts, there is no mount point known but by its device, and nothing fails."""
    monkeypatch.setattr(mount, "_MOUNTINFO", str(tmp_path / "missing"))
    assert frozenset() == mount_points() == mounts_below("/")
    assert is_mount_point("/proc")
    assert not is_mount_point(str(tmp_path))
    assert -1 == mount_of(10_000)


@pytest.mark.parametrize(
    ("kind", "expected"), [("ext4", True), ("tmpfs", True), ("nfs4", False), ("fuse.sshfs", False), ("overlay", False)]
)
def test_what_only_this_kernel_writes_to(
    kind: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kinds of file systems are known to be so, through a link and for what is not there yet; others are not."""
    info = tmp_path / "mountinfo"
    info.write_text(
        f"21 1 8:1 / / rw - nfs4 server:/ rw\n22 21 8:2 / {tmp_path}/volume rw,relatime shared:1 - {kind} /dev/sdb rw\n"
    )
    monkeypatch.setattr(mount, "_MOUNTINFO", str(info))
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    for path in ("volume", "volume/a/b", "link/a"):
        assert expected is is_of_this_machine(str(tmp_path / path))
    assert not is_of_this_machine(str(tmp_path))
    monkeypatch.setattr(mount, "_MOUNTINFO", str(tmp_path / "none"))
    assert not is_of_this_machine(str(tmp_path / "volume"))
