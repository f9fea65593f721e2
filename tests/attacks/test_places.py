"""Places that can't be trusted, and mounts inside the tree."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.lock import DirectoryLock
from symbiont_datad.fsops.write import quarantine
from symbiont_datad.guard.reconcile import reconcile
from tests.guard.keeping import (
    NOW,
    SCANNING,
    SETTINGS,
    again,
    eventually,
    guarding,
    is_directory,
    layout_at,
    made,
    mode_of,
    picture,
)
from tests.support import NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root trusts places less, and mounts")

OFF = replace(SCANNING, watch="off")


@contextmanager
def mounted(at: Path, source: Path | None = None) -> Iterator[Path]:
    """A tmpfs at the path, or another directory bound there."""
    what = ["--bind", str(source)] if source else ["-t", "tmpfs", "-o", "size=1m,mode=0711", "test"]
    subprocess.run(["mount", *what, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def fill(fd: int) -> None:
    """Write until nothing fits any more."""
    try:
        while True:
            os.write(fd, bytes(65536))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@pytest.mark.parametrize("root", ["data", "deeper/data"])
def test_a_world_writable_parent_is_refused(open_path: Path, root: str) -> None:
    """Below a directory that everybody can write to, root makes, changes and locks nothing, and says why."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / root)
    with pytest.raises(UnsafePath, match="everybody can write to"):
        again(layout)
    assert [] == list(open_path.iterdir())
    (open_path / root).mkdir(parents=True, mode=0o700)
    before = picture(open_path)
    for _ in range(2):
        with pytest.raises(UnsafePath):
            again(layout)
    assert before == picture(open_path)


def test_a_sticky_parent_is_fine_for_what_is_roots(open_path: Path) -> None:
    """In a directory like /tmp root makes its tree and keeps it."""
    open_path.chmod(0o1777)
    layout = made(layout_at(open_path / "above/data"))
    assert () == again(layout).drifts


@pytest.mark.parametrize("root", ["theirs", "theirs/data"])
def test_a_sticky_parent_is_refused_for_what_is_somebodys(open_path: Path, root: str) -> None:
    """A directory that somebody else has put into one like /tmp is not taken for the tree, nor for what it lies in."""
    open_path.chmod(0o1777)
    (open_path / "theirs").mkdir(mode=0o711)
    os.chown(open_path / "theirs", NOBODY, NOBODY)
    before = picture(open_path)
    with pytest.raises(UnsafePath):
        again(layout_at(open_path / root))
    assert before == picture(open_path)


@pytest.mark.parametrize("bind", [False, True], ids=["tmpfs", "bind"])
@pytest.mark.parametrize("path", ["logs", "vector_db/collections/x", "vector_db/collections", "logs/audit", "var"])
def test_a_mount_inside_the_tree_is_not_entered(tmp_path: Path, path: str, bind: bool) -> None:
    """What is mounted inside the tree keeps its mode, and nothing is made, moved or watched in it; it is told once."""
    layout = made(layout_at(tmp_path / "data", state_dir="var/state", owner="65534", group="65534"))
    at = tmp_path / "data" / path
    at.mkdir(exist_ok=True)
    (tmp_path / "other").mkdir(mode=0o711)
    with mounted(at, tmp_path / "other" if bind else None):
        before = picture(at)
        result = again(layout)
        assert before == picture(at)
        assert [("mount_point", path)] == [(failure.kind, failure.path) for failure in result.failures]
        assert () == result.actions
        assert () == result.drifts
        for scope in ({path: True}, {path: False}, {path.split("/")[0]: True}, {f"{path}/new": True}):
            assert () == reconcile(layout, scope, now=NOW).actions
        with guarding(layout) as running:
            (tmp_path / "data/prompts/cache").rmdir()
            (at / "made").mkdir()
            assert eventually(lambda: is_directory(tmp_path / "data/prompts/cache"))
            assert [] == running.guard.warnings()
            (at / "made").rmdir()
        assert mode_of(at) == 0o711
        assert [] == list(at.iterdir())


def test_a_mounted_quarantine_is_not_used(tmp_path: Path) -> None:
    """Where something is mounted at `.quarantine`, moving there is refused each time and leaves nothing behind."""
    layout = made(layout_at(tmp_path / "data"))
    (tmp_path / "data/.quarantine").mkdir()
    (tmp_path / "data/logs/audit").rmdir()
    (tmp_path / "data/logs/audit").write_bytes(b"")
    with mounted(tmp_path / "data/.quarantine") as at:
        for _ in range(3):
            (failure,) = again(layout).failures
            assert ("repair_refused", "logs/audit") == (failure.kind, failure.path)
        assert [] == list(at.iterdir())
        assert 0o711 == mode_of(at)
    assert () == again(layout).failures


def test_a_full_disk_stops_only_what_needs_space(tmp_path: Path) -> None:
    """On a disk without room, modes are repaired, what can't be moved aside is reported, and there is no litter."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk") as disk:
        disk.chmod(0o755)
        layout = made(layout_at(disk / "data"))
        (disk / "data/logs/audit").rmdir()
        (disk / "data/logs/audit").write_bytes(b"kept")
        fd = os.open(disk / "data/logs/system/full.log", os.O_WRONLY | os.O_CREAT)
        fill(fd)
        os.close(fd)
        (disk / "data/state").chmod(0o700)
        for _ in range(3):
            (failure,) = again(layout).failures
            assert ("logs/audit", "obstructed not repaired: No space left on device") == (failure.path, failure.detail)
        assert 0o755 == mode_of(disk / "data/state")
        assert b"kept" == (disk / "data/logs/audit").read_bytes()
        assert [] == list((disk / "data/.quarantine").iterdir())
        with pytest.raises(OSError, match="No space left"):
            quarantine(layout.tree, "logs/audit", kind="damaged", reason="test", now=NOW)
        (disk / "data/logs/system/full.log").unlink()
        assert () == again(layout).failures
        assert is_directory(disk / "data/logs/audit")


def test_a_read_only_disk_is_reported(tmp_path: Path) -> None:
    """On a file system that became read-only, each repair is one failure in words, and the root's loss is raised."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk") as disk:
        disk.chmod(0o755)
        layout = made(layout_at(disk / "data"))
        (disk / "data/logs/audit").rmdir()
        (disk / "data/state").chmod(0o700)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert {"missing not repaired: Read-only file system", "mode not repaired: Read-only file system"} == {
            failure.detail for failure in again(layout).failures
        }
        with pytest.raises(OSError, match="Read-only file system"):
            again(layout_at(disk / "above/data"))


@pytest.mark.parametrize("bind", [False, True], ids=["tmpfs", "bind"])
@pytest.mark.parametrize("named", [False, True], ids=["true", "path"])
def test_a_required_mount_comes_and_goes(tmp_path: Path, bind: bool, named: bool) -> None:
    """With `require_mount` nothing is made without the mount; the tree is held when it goes, kept when it is back."""
    disk, store = tmp_path / "disk", tmp_path / "store"
    disk.mkdir()
    store.mkdir()
    (tmp_path / "link").symlink_to("disk")  # the user may have written the mount's path with a link in it
    settings = replace(OFF, require_mount=str(tmp_path / "link") if named else True)
    with guarding(layout_at(disk / "data"), settings, settle=False) as running:
        for turn in range(1, 3):
            assert eventually(lambda: bool(running.guard.warnings()))
            assert [] == list(disk.iterdir())
            with mounted(disk, store if bind else None):
                if not bind:
                    disk.chmod(0o755)
                assert eventually(lambda: running.guard.keeping() and is_directory(disk / "data/vector_db/metadata"))
                assert [] == running.guard.warnings()
                assert turn == len(running.said("tree_released"))
            assert eventually(lambda: not running.guard.keeping())
        assert [] == list(disk.iterdir())


def test_inotify_tells_when_the_mount_goes(tmp_path: Path) -> None:
    """With a watcher, an unmounted root is noticed at once, not at the next scan."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk):
        disk.chmod(0o755)
        context = guarding(layout_at(disk / "data"), replace(SETTINGS, require_mount=True))
        running = context.__enter__()
    try:
        assert eventually(lambda: not running.guard.keeping(), 3)
        assert [] == list(disk.iterdir())
    finally:
        context.__exit__(None, None, None)


def test_the_lock_lets_go_of_an_unreachable_root(tmp_path: Path) -> None:
    """A lock on a root that isn't there, or is a link, is let pass rather than raised."""
    lock = DirectoryLock(str(tmp_path / "data"), "kept")
    lock.take()
    (tmp_path / "data").symlink_to(tmp_path)
    lock.take()
    lock.release()
