"""Links, hard links and other things planted where the daemon will act: nothing outside the tree changes.

CVE-2017-18078 (chmod and chown of a hard link), CVE-2011-1098 (predictable names of temporary files).
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.fsops.write import append_line, quarantine, write_atomic
from symbiont_datad.guard.reconcile import reconcile
from tests.attacks.support import Scene, scene
from tests.guard.keeping import NOW, again, is_directory, mode_of
from tests.support import NOBODY, run_as

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")


@pytest.mark.parametrize("owner", [{}, {"owner": "65534", "group": "65534"}], ids=["no owner", "owner"])
@pytest.mark.parametrize("place", ["state/agents", "vector_db/collections", "vector_db/collections/x", "logs/audit"])
def test_hard_links_are_not_touched(open_path: Path, place: str, owner: dict[str, object]) -> None:
    """Hard links to root's files, in any directory that is repaired, keep the mode and owner of root's files."""
    stage = scene(open_path, **owner)
    at = stage.root / place
    at.mkdir(exist_ok=True)
    for name in ("secret", "passwd"):
        os.link(stage.canary / name, at / name)
    before = stage.layout
    at.chmod(0o777)
    os.chown(at, 7, 7)
    result = again(before)
    assert result.actions
    assert 0o755 == mode_of(at)
    stage.assert_unharmed()


@pytest.mark.parametrize("link", [False, True], ids=["hard link", "link"])
@pytest.mark.parametrize("place", ["state", "logs/audit", "vector_db/collections", "prompts/history"])
def test_a_link_in_a_directorys_place_is_moved_not_followed(open_path: Path, place: str, link: bool) -> None:
    """A link to the canary in place of a directory is quarantined as a link; so is a hard link to a file of it."""
    stage = scene(open_path)
    at = stage.root / place
    at.rename(stage.root.parent / "away")
    if link:
        at.symlink_to(stage.canary / "logs")
    else:
        os.link(stage.canary / "secret", at)
    again(stage.layout)
    assert is_directory(at)
    assert NOBODY == at.stat().st_uid  # as what it is in
    (cell,) = (stage.root / QUARANTINE).iterdir()
    record = json.loads((cell / "record.json").read_text())
    assert (place, link) == (record["path"], record["type"] == "a symbolic link")
    (cell / "item").unlink()
    stage.assert_unharmed()


def _link(target: str) -> Callable[[Scene, Path], None]:
    return lambda stage, at: at.symlink_to(stage.canary / target)


def _file(_stage: Scene, at: Path) -> None:
    at.write_bytes(b"")


def _hard_link(stage: Scene, at: Path) -> None:
    os.link(stage.canary / "secret", at)


def _open_directory(_stage: Scene, at: Path) -> None:
    at.mkdir()
    at.chmod(0o777)
    os.chown(at, NOBODY, NOBODY)
    for number in ("", "-1", "-2"):
        (at / f"20261118T110640Z{number}").symlink_to("/nowhere")


@pytest.mark.parametrize(
    "plant", [_link("agents"), _link("secret"), _link("missing"), _file, _hard_link, _open_directory],
    ids=["link to a directory", "link to a file", "dangling link", "file", "hard link", "open directory"],
)  # fmt: skip
def test_a_planted_quarantine_is_not_used(open_path: Path, plant: Callable[[Scene, Path], None]) -> None:
    """Whatever has the name `.quarantine`, things go into a real directory that others can't enter, inside the root."""
    stage = scene(open_path)
    plant(stage, stage.root / QUARANTINE)
    (stage.root / "logs/audit").rmdir()
    (stage.root / "logs/audit").write_bytes(b"in the way")
    assert () == again(stage.layout).failures
    assert is_directory(stage.root / QUARANTINE)
    assert 0o700 == mode_of(stage.root / QUARANTINE)
    (item,) = (stage.root / QUARANTINE).glob("*/item")
    assert b"in the way" == item.read_bytes()
    for path in stage.root.glob(".quarantine.obstruction-*"):
        path.unlink()
    stage.assert_unharmed()


@pytest.mark.parametrize("hard", [False, True], ids=["link", "hard link"])
def test_planted_temporary_files_are_not_written_through(open_path: Path, hard: bool) -> None:
    """The temporary file of an atomic write can be foretold; a link or hard link by its name is removed, not opened."""
    stage = scene(open_path)
    place = stage.root / "state"
    planted = place / f".record.json.{os.getpid()}.tmp"
    if hard:
        os.link(stage.canary / "secret", planted)
    else:
        planted.symlink_to(stage.canary / "secret")
    with stage.layout.tree.directory("state") as fd:
        write_atomic(fd, "record.json", b"ours")
    assert b"ours" == (place / "record.json").read_bytes()
    assert not planted.exists()
    stage.assert_unharmed()


@pytest.mark.parametrize("hard", [False, True], ids=["link", "hard link"])
def test_the_target_of_an_atomic_write_is_replaced(open_path: Path, hard: bool) -> None:
    """A link or hard link by the final name is replaced by the new file; what it led to is as it was."""
    stage = scene(open_path)
    target = stage.root / "state/record.json"
    if hard:
        os.link(stage.canary / "secret", target)
    else:
        target.symlink_to(stage.canary / "secret")
    with stage.layout.tree.directory("state") as fd:
        write_atomic(fd, "record.json", b"ours")
    assert not target.is_symlink()
    assert b"ours" == target.read_bytes()
    stage.assert_unharmed()


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "FIFO", "directory"])
def test_a_planted_audit_log_is_not_written_to(open_path: Path, kind: str) -> None:
    """`security.log` as a link, hard link, FIFO or directory makes the line fail: nothing blocks or changes."""
    stage = scene(open_path)
    at = stage.root / "logs/audit/security.log"
    if kind == "link":
        at.symlink_to(stage.canary / "passwd")
    elif kind == "dangling link":
        at.symlink_to(stage.canary / "made-by-root")
    elif kind == "hard link":
        os.link(stage.canary / "passwd", at)
    elif kind == "FIFO":
        os.mkfifo(at)
    else:
        at.mkdir()
    with stage.layout.tree.directory("logs/audit") as fd, pytest.raises(OSError, match=r"security\.log"):
        append_line(fd, "security.log", b"line\n")
    at.rmdir() if kind == "directory" else at.unlink()
    stage.assert_unharmed()


def test_the_audit_log_is_written_where_nobody_meddles(open_path: Path) -> None:
    """Without an attack the lines arrive, in a file that only root reads."""
    stage = scene(open_path)
    with stage.layout.tree.directory("logs/audit") as fd:
        append_line(fd, "security.log", b"one\n")
        append_line(fd, "security.log", b"two\n")
    at = stage.root / "logs/audit/security.log"
    assert (b"one\ntwo\n", 0o600) == (at.read_bytes(), mode_of(at))


def test_a_directory_of_roots_is_not_given_away(open_path: Path) -> None:
    """What takes the place of a directory that root has just made is not handed to the attacker with what is in it."""
    stage = scene(open_path)
    private = stage.root / "private"
    private.mkdir(mode=0o700)
    (private / "key").write_bytes(b"root's")
    (stage.root / "sessions").mkdir()
    real = os.mkdir

    def swapped(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """mkdir, and the attacker at once."""
        real(path, mode, dir_fd=dir_fd)
        if path == "logs":
            os.rename(stage.root / "logs", stage.root / "gone")
            os.rename(private, stage.root / "logs")

    (stage.root / "logs").rename(stage.root / "old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", swapped)
        result = again(stage.layout)
    assert "repair_refused" in {failure.kind for failure in result.failures}
    assert 0 == (stage.root / "logs").stat().st_uid
    with pytest.raises(PermissionError):
        run_as(NOBODY, lambda: (stage.root / "logs/key").read_bytes() if os.listdir(stage.root / "logs") else b"")


def test_quarantine_takes_what_it_looked_at(open_path: Path) -> None:
    """What is swapped in while the record is written is not moved: that fails, and leaves nothing in the quarantine."""
    stage = scene(open_path)
    (stage.root / "bad").write_bytes(b"bad")
    real = os.fsync

    def meanwhile(fd: int) -> None:
        if (stage.root / "good").exists():
            (stage.root / "good").rename(stage.root / "bad")
        real(fd)

    (stage.root / "good").write_bytes(b"good")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", meanwhile)
        with pytest.raises(OSError, match="something else is there by now"):
            quarantine(stage.layout.tree, "bad", kind="damaged", reason="test", now=NOW)
    assert b"good" == (stage.root / "bad").read_bytes()
    assert [] == list((stage.root / QUARANTINE).iterdir())
    assert () == reconcile(stage.layout, now=NOW).failures
