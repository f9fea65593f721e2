"""What is restored takes the place of what is live in one step, and what was live is kept whole."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops import rename, swap
from symbiont_datad.fsops.root import QUARANTINE, Tree, pinned
from symbiont_datad.fsops.swap import STAGED, exchange, put_in_place, stage_file, staging
from symbiont_datad.fsops.write import Changed
from tests.conftest import AsNobody
from tests.guard.keeping import NOW
from tests.support import NOBODY, Link, build_tree, read_tree
from tests.support import Tree as Data

NODES: list[Data | bytes | Link] = [b"content", {"a": {"b": b"deep"}, "l": Link("nowhere")}, Link("elsewhere")]


@pytest.fixture(params=["in one step", "in steps"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to exchange; the second is that of systems without renameat2(2)."""
    if request.param == "in steps":
        monkeypatch.setattr(rename, "_LIBC", object())


def swap_in(root: Path, path: str, new: Data | bytes | Link) -> str | None:
    """Stage `new` for `path` and put it in place."""
    tree = Tree(str(root))
    with staging(tree, path, NOW) as stage:
        build_tree((root / stage.place).parent, {stage.name: new})
        return put_in_place(stage, kind="replaced", reason=f"a restore of {path}", now=NOW)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("new", NODES, ids=["file", "directory", "link"])
@pytest.mark.parametrize("old", NODES, ids=["over a file", "over a directory", "over a link"])
@pytest.mark.parametrize("path", ["state", "state/agents/a.json"])
def test_the_new_is_in_place_and_the_old_in_quarantine(
    tmp_path: Path, path: str, old: Data | bytes | Link, new: Data | bytes | Link
) -> None:
    """Any kind of entry replaces any other, whole; the old one is in quarantine with a record; nothing else is left."""
    folder = tmp_path / os.path.dirname(path)
    build_tree(folder, {os.path.basename(path): old})
    found = swap_in(tmp_path, path, new)
    assert found is not None
    assert {os.path.basename(path): new} == {
        name: node for name, node in read_tree(folder).items() if name != QUARANTINE
    }
    cell = (tmp_path / found).parent
    quarantined = read_tree(cell)
    assert old == quarantined["item"]
    record = json.loads((cell / "record.json").read_text())
    assert (path, "replaced", f"a restore of {path}") == (
        record["path"],
        record["kind"],
        record["reason"],
    )


def test_what_was_not_there_is_just_put_there(tmp_path: Path) -> None:
    """With nothing at the path, nothing goes to quarantine."""
    build_tree(tmp_path, {"state": {}})
    assert swap_in(tmp_path, "state/a.json", b"new") is None
    assert {"state": {"a.json": b"new"}, QUARANTINE: {}} == read_tree(tmp_path)


def test_where_all_cant_be_flushed_at_once_each_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put in place is durable on systems without syncfs(2) as well: files and directories, no link."""
    synced: set[int] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(swap, "_LIBC", object())
    monkeypatch.setattr(os, "fsync", fsync)
    new: Data = {"a": b"1", "d": {"b": b"2", "link": Link("../../outside")}}
    build_tree(tmp_path, {"outside": b"theirs"})
    swap_in(tmp_path, "state", new)
    assert new == read_tree(tmp_path / "state")
    assert {(tmp_path / "state" / path).stat().st_ino for path in ("", "a", "d", "d/b")} <= synced
    assert (tmp_path / "outside").stat().st_ino not in synced


def test_a_stage_that_is_not_used_goes(tmp_path: Path) -> None:
    """When restoring fails, the live file is untouched, and the stage is gone with all in it."""
    build_tree(tmp_path, {"state": {"a": b"live"}})

    def fail() -> None:
        with staging(Tree(str(tmp_path)), "state/a", NOW) as stage:
            build_tree((tmp_path / stage.place).parent, {"a": {"b": {"c": b"half"}}})
            assert 0o700 == os.fstat(stage.fd).st_mode & 0o7777
            raise RuntimeError("the repository is damaged")

    with pytest.raises(RuntimeError):
        fail()
    assert {"state": {"a": b"live"}, QUARANTINE: {}} == read_tree(tmp_path)


@pytest.mark.parametrize("path", ["", QUARANTINE, f"{QUARANTINE}/x/item"])
def test_root_and_quarantine_are_refused(tmp_path: Path, path: str) -> None:
    """The root is replaced child by child, and the quarantine never."""
    with pytest.raises(OSError, match="can't be replaced"), staging(Tree(str(tmp_path)), path, NOW):
        pass
    assert {} == read_tree(tmp_path)


def test_an_exchange_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be exchanged stays as it is, and so does a file that had to wait aside meanwhile."""
    build_tree(tmp_path, {"state": {"a": b"live"}, "new": {}})
    with pinned(str(tmp_path / "new")) as new, pinned(str(tmp_path / "state")) as state:
        for way in (exchange, swap._exchange_in_steps):
            with pytest.raises(FileNotFoundError):
                way(new, "a", state, "a")
    assert {"state": {"a": b"live"}, "new": {}} == read_tree(tmp_path)

    def failing(*_args: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(swap, "_exchange", failing)
    with pytest.raises(OSError, match="busy"):
        swap_in(tmp_path, "state/a", b"new")
    assert {"state": {"a": b"live"}, "new": {}, QUARANTINE: {}} == read_tree(tmp_path)


def test_what_was_live_stays_when_it_cannot_move_on(tmp_path: Path) -> None:
    """If the old one can't get its name in the cell, it stays where the new one was: it is all that is left of it."""
    build_tree(tmp_path, {"state": {"a": b"live"}})

    def fail() -> None:
        with staging(Tree(str(tmp_path)), "state/a", NOW) as stage:
            build_tree(tmp_path / QUARANTINE / stage.cell, {"item": {"something": b""}, STAGED: {"a": b"new"}})
            put_in_place(stage, kind="k", reason="r", now=NOW)

    with pytest.raises(OSError, match="directory"):
        fail()
    (cell,) = (tmp_path / QUARANTINE).iterdir()
    assert b"new" == (tmp_path / "state/a").read_bytes()
    assert b"live" == (cell / STAGED / "a").read_bytes()
    assert "state/a" == json.loads((cell / "record.json").read_text())["path"]


KILLED = """
import os, signal, sys
from symbiont_datad.fsops import swap
from symbiont_datad.fsops.root import Tree
if sys.argv[3] == "steps":
    swap._exchange = swap._exchange_in_steps
calls = 0
def die(event, args):
    global calls
    if event in ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir") or event == "ctypes.call_function":
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
tree = Tree(sys.argv[1])
with swap.staging(tree, "state/a", 0) as stage:
    os.mkdir("a", dir_fd=stage.fd)
    with open(f"{sys.argv[1]}/{stage.place}/new", "wb") as file:
        file.write(b"new")
    sys.addaudithook(die)
    swap.put_in_place(stage, kind="k", reason="r", now=0)
"""


@pytest.mark.parametrize("way", ["one", "steps"])
def test_killed_at_any_call(tmp_path: Path, way: str) -> None:
    """Killed before any of its calls, the old and the new are both there, whole; in one step, one of them in place."""
    for call in range(1, 20):
        root = build_tree(tmp_path / str(call), {"state": {"a": {"old": b"old"}}})
        done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(call), way], timeout=30)
        wholes = [
            path for path in root.rglob("*") if path.is_dir() and read_tree(path) in ({"old": b"old"}, {"new": b"new"})
        ]
        assert 2 == len(wholes), (call, wholes)
        if way == "one":
            assert root / "state/a" in wholes
        if done.returncode == 0:
            assert call > 3
            return
        assert -signal.SIGKILL == done.returncode
    pytest.fail("it never ended")


def replace_live(root: Path, unchanged: Callable[[os.stat_result | None], bool]) -> str | None:
    """Put a file in the place of `state/a`, unless that has changed."""
    with staging(Tree(str(root)), "state/a", NOW) as stage:
        stage_file(stage, b"ours", mode=0o644, uid=0, gid=0, mtime_ns=0)
        return put_in_place(stage, kind="x", reason="y", now=NOW, unchanged=unchanged)


def test_what_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Where nothing was, something is by the time that the new entry is ready: it stays, and the new one goes."""
    build_tree(tmp_path, {"state": {}})

    def appear(found: os.stat_result | None) -> bool:
        assert found is None
        (tmp_path / "state/a").write_bytes(b"theirs")
        return True

    with pytest.raises(Changed):
        replace_live(tmp_path, appear)
    assert {"state": {"a": b"theirs"}, QUARANTINE: {}} == read_tree(tmp_path)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_has_changed_stays_in_its_place(tmp_path: Path, at: int) -> None:
    """Whether that is seen before the swap or right after it: the live file is there, and nothing else is left."""
    build_tree(tmp_path, {"state": {"a": b"live"}})
    looks = 0

    def unchanged(found: os.stat_result | None) -> bool:
        nonlocal looks
        assert found is not None
        looks += 1
        return looks != at + 1

    with pytest.raises(Changed):
        replace_live(tmp_path, unchanged)
    assert {"state": {"a": b"live"}, QUARANTINE: {}} == read_tree(tmp_path)


def test_who_saved_the_new_one_keeps_it(tmp_path: Path) -> None:
    """When both the old and the new file were written to in the moment of the swap, what has the name now stays."""
    build_tree(tmp_path, {"state": {"a": b"live"}})
    looks = 0

    def unchanged(_found: os.stat_result | None) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            (tmp_path / "state/a").write_bytes(b"saved by name")
        return looks != 3

    found = replace_live(tmp_path, unchanged)
    assert found is not None
    assert (b"saved by name", b"live") == ((tmp_path / "state/a").read_bytes(), (tmp_path / found).read_bytes())


def test_staged_file_has_what_it_was_given(tmp_path: Path) -> None:
    """Content, mode and time; no bits that would run it as somebody else."""
    build_tree(tmp_path, {"state": {}})
    with staging(Tree(str(tmp_path)), "state/a", NOW) as stage:
        stage_file(stage, b"x" * 100_000, mode=0o106751, uid=os.geteuid(), gid=os.getegid(), mtime_ns=7)
        put_in_place(stage, kind="x", reason="y", now=NOW)
    found = (tmp_path / "state/a").stat()
    assert (100_000, 0o751, 7, 1) == (found.st_size, found.st_mode & 0o7777, found.st_mtime_ns, found.st_nlink)


def test_an_ordinary_users_file_is_theirs(open_path: Path, as_nobody: AsNobody) -> None:
    """Whose it was: they can give it to nobody, and to no group that they are not in."""
    build_tree(open_path, {"data": {"state": {"a": b"live"}}})
    for path in (open_path / "data", *(open_path / "data").rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    found = as_nobody(lambda: replace_live(open_path / "data", lambda _: True))
    assert found is not None
    assert (b"ours", b"live") == ((open_path / "data/state/a").read_bytes(), (open_path / "data" / found).read_bytes())
    about = (open_path / "data/state/a").stat()
    assert (NOBODY, NOBODY, 0o644) == (about.st_uid, about.st_gid, about.st_mode & 0o7777)


def test_who_removed_the_new_one_finds_the_old_one_in_quarantine(tmp_path: Path) -> None:
    """When the old file was written to in the moment of the swap, and the new one is gone, nothing is put there."""
    build_tree(tmp_path, {"state": {"a": b"live"}})
    looks = 0

    def unchanged(_found: os.stat_result | None) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            (tmp_path / "state/a").unlink()
        return looks != 3

    found = replace_live(tmp_path, unchanged)
    assert found is not None
    assert ({}, b"live") == (read_tree(tmp_path / "state"), (tmp_path / found).read_bytes())
