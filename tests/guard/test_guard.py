"""The guard in its own thread: what happens to the tree is put right soon, whatever tells of it."""

import os
import resource
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.errors import TreeHeld, UnsafePath
from symbiont_datad.guard import guard as guard_module
from symbiont_datad.guard.guard import Guard, GuardSettings, Report
from symbiont_datad.layout import Layout
from symbiont_datad.report import DriftKind
from tests.conftest import AsNobody
from tests.guard.causes import CAUSES, Cause
from tests.guard.keeping import (
    SCANNING,
    SETTINGS,
    Running,
    eventually,
    guarding,
    is_directory,
    layout_at,
    made,
    mode_of,
)
from tests.support import run_as

OFF = replace(SCANNING, watch="off")
POLLING = replace(SETTINGS, watch="polling")


def mine(root: Path, **settings: object) -> Layout:
    """A layout that declares the test's own user as the owner."""
    layout = layout_at(root, **settings)
    return Layout(
        layout.root, layout.directories, layout.categories, create=layout.create, uid=os.geteuid(), gid=os.getegid()
    )


def well(at: Path) -> bool:
    """Whether a directory is as declared."""
    try:
        return is_directory(at) and mode_of(at) == 0o755 and at.stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("settings", [SETTINGS, OFF], ids=["inotify", "off"])
@pytest.mark.parametrize("path", ["logs/agents", "prompts/cache", "vector_db/collections"])
@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_any_drift_is_repaired_soon(tmp_path: Path, cause: Cause, path: str, settings: GuardSettings) -> None:
    """Told by inotify at once, and without any watcher at the next scan, every kind of drift is repaired."""
    if cause.root_only and os.geteuid():
        pytest.skip("only root can give a directory away")
    layout = mine(tmp_path / "data")
    with guarding(layout, settings) as running:
        at = tmp_path / "data" / path
        for _ in range(20):  # the guard may be quicker than the one who takes a directory's place
            try:
                cause.act(at)
            except OSError:
                time.sleep(0.05)
                continue
            break
        assert eventually(lambda: well(at))
    expected = {
        DriftKind.MISSING: "directory_recreated",
        DriftKind.OBSTRUCTED: "directory_recreated",
        DriftKind.MODE: "permissions_restored",
        DriftKind.OWNER: "owner_restored",
    }[cause.kind]
    assert path in running.said(expected) or path in running.said("directory_recreated")


def test_polling_and_scans_find_everything(tmp_path: Path) -> None:
    """With polling, what goes is back within seconds of a poll, and a mode at the next scan."""
    with guarding(mine(tmp_path / "data"), replace(POLLING, reconcile_interval_s=3.0)):
        root = tmp_path / "data"
        time.sleep(0.3)
        shutil.rmtree(root / "logs", ignore_errors=True)
        (root / "prompts/cache").rename(tmp_path / "cache")
        (root / "state").chmod(0o700)
        assert eventually(lambda: all(well(root / path) for path in ("logs/agents", "prompts/cache", "state")), 8)


def test_polling_alone_tells_of_what_goes(tmp_path: Path) -> None:
    """Between two scans, polling brings back a directory that was removed and one that was moved away."""
    with guarding(mine(tmp_path / "data"), POLLING):
        time.sleep(0.3)
        shutil.rmtree(tmp_path / "data/logs", ignore_errors=True)
        (tmp_path / "data/prompts/cache").rename(tmp_path / "cache")
        paths = ("logs/agents", "logs/audit", "prompts/cache")
        assert eventually(lambda: all(well(tmp_path / "data" / path) for path in paths), 6)


def test_open_children_are_kept_as_they_come(tmp_path: Path) -> None:
    """A directory that a user makes or moves into an open one gets the declared mode."""
    with guarding(mine(tmp_path / "data")):
        collections = tmp_path / "data/vector_db/collections"
        (collections / "made").mkdir(mode=0o700)
        (tmp_path / "outside").mkdir(mode=0o711)
        (tmp_path / "outside").rename(collections / "moved")
        assert eventually(lambda: well(collections / "made") and well(collections / "moved"))
        (collections / "made").chmod(0)
        assert eventually(lambda: well(collections / "made"))
        (collections / "made").rmdir()
        time.sleep(0.2)
        assert not (collections / "made").exists()


@pytest.mark.parametrize(
    "how", ["removed", "moved", "file", "link", "moved and back", "parent removed", "parent moved"]
)
def test_the_root_returns(tmp_path: Path, how: str) -> None:
    """Whatever happens to the root or to what it lies in, the whole tree is there again, and is still watched."""
    root = tmp_path / "above/data"
    with guarding(mine(root)) as running:
        if how == "removed":
            shutil.rmtree(root, ignore_errors=True)
        elif how == "parent removed":
            shutil.rmtree(root.parent, ignore_errors=True)
        elif how == "parent moved":
            root.parent.rename(tmp_path / "elsewhere")
        else:
            root.rename(tmp_path / "elsewhere")
        if how == "file":
            (tmp_path / "file").write_bytes(b"")
            try_to(lambda: (tmp_path / "file").rename(root))
        elif how == "link":
            try_to(lambda: root.symlink_to(tmp_path / "elsewhere"))
        elif how == "moved and back":
            assert eventually(lambda: well(root / "logs/audit"))
            root.rename(tmp_path / "second")
            try_to(lambda: (tmp_path / "elsewhere").rename(root))
        assert eventually(
            lambda: all(well(root / row.path) for row in running.guard._layout.directories if row.required)
        )
        time.sleep(0.2)
        (root / "vector_db/metadata").rmdir()  # and it is watched again
        assert eventually(lambda: well(root / "vector_db/metadata"), 2)
        assert running.guard.keeping()
        assert [] == running.guard.warnings()


def try_to(act: object) -> None:
    """Do it unless the guard was quicker."""
    assert callable(act)
    try:
        act()
    except OSError:
        pass


def test_a_busy_parent_does_not_reach_the_guard(tmp_path: Path) -> None:
    """What other names in the root's parent go through is not among the hints, and takes no turn of the guard."""
    with guarding(mine(tmp_path / "data")) as running:
        beat = running.guard.beat
        for number in range(500):
            (tmp_path / f"other-{number}").mkdir()
            (tmp_path / f"other-{number}").chmod(0o700)
            (tmp_path / f"other-{number}").rmdir()
            (tmp_path / "data-not").write_bytes(b"")
        time.sleep(0.1)
        assert beat == running.guard.beat


def test_a_fight_is_not_fought(tmp_path: Path) -> None:
    """When something undoes each repair, the guard makes fewer, says so once, and others are not held up."""
    settings = replace(SETTINGS, backoff_after=5)
    with guarding(mine(tmp_path / "data"), settings) as running:
        target = tmp_path / "data/logs/audit"
        until, undone = time.monotonic() + 2.5, 0
        while time.monotonic() < until:
            if mode_of(target) == 0o755:
                target.chmod(0o700)
                undone += 1
            time.sleep(0.001)
        assert 5 <= undone <= 8
        assert ["logs/audit"] == running.said("repair_backed_off")
        assert ["logs/audit is repaired less often: something keeps undoing it"] == running.guard.warnings()
        standing = running.guard.standing()
        assert (True, 1, 0) == (standing.watching, standing.backed_off, standing.unrepaired)
        (tmp_path / "data/logs/system").rmdir()  # others are repaired at once
        assert eventually(lambda: well(tmp_path / "data/logs/system"), 1)
        assert eventually(lambda: well(target), 10)


@pytest.mark.slow
def test_a_fight_that_is_over_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once what undid the repairs has stopped for a while, that is said once, and nothing is held back any more."""
    monkeypatch.setattr("symbiont_datad.guard.backoff._WINDOW_S", 0.5)
    with guarding(mine(tmp_path / "data"), replace(SCANNING, backoff_after=1)) as running:
        target = tmp_path / "data/logs/audit"
        while not running.said("repair_backed_off"):
            target.chmod(0o700)
            time.sleep(0.005)
        assert eventually(lambda: bool(running.said("repair_resumed")), 30)
        assert ["logs/audit"] == running.said("repair_resumed")
        assert (True, (), []) == (well(target), running.guard.backing_off(), running.guard.warnings())


def test_the_guard_rests_once_a_held_back_path_is_well(tmp_path: Path) -> None:
    """After a wait for a path that is well by then, the loop sleeps: it takes no turn and no time."""
    with guarding(mine(tmp_path / "data"), replace(SETTINGS, backoff_after=1)) as running:
        target = tmp_path / "data/logs/audit"
        for _ in range(2):
            target.chmod(0o700)
            time.sleep(0.2)
        assert 0o700 == mode_of(target)  # refused once
        target.chmod(0o755)
        time.sleep(1.2)
        thread = running.guard._thread
        assert thread is not None
        beat, before = running.guard.beat, time.process_time()
        time.sleep(0.5)
        assert beat == running.guard.beat
        assert time.process_time() - before < 0.1


def test_settings_are_taken_between_turns(tmp_path: Path) -> None:
    """A reload puts another layout in force at once, with other modes, directories and another way to watch."""
    with guarding(mine(tmp_path / "data")) as running:
        other = mine(tmp_path / "data", permissions={"logs/audit": 0o750}, layout={"directory": [{"path": "extra"}]})
        running.guard.reload(other, OFF)
        assert eventually(lambda: mode_of(tmp_path / "data/logs/audit") == 0o750 and well(tmp_path / "data/extra"))
        (tmp_path / "data/extra").rmdir()
        assert eventually(lambda: well(tmp_path / "data/extra"))
        assert "watch" not in {thread.name for thread in threading.enumerate()}
        before = running.guard.standing()
        assert before.watching is None
        assert eventually(lambda: running.guard.standing().reconciles > before.reconciles + 2)
        assert running.guard.standing().reconciled_at > before.reconciled_at
        running.guard.reload(other, SETTINGS)
        assert eventually(lambda: "watch" in {thread.name for thread in threading.enumerate()})


def test_a_guard_that_dies_is_revived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of ends the thread; `revive` starts another, which looks at everything."""
    with guarding(mine(tmp_path / "data")) as running:
        assert not running.guard.revive()
        caught = threading.Event()
        monkeypatch.setattr(threading, "excepthook", lambda _args: caught.set())
        with monkeypatch.context() as patch:
            patch.setattr(guard_module, "reconcile", lambda *_args, **_kwargs: 1 / 0)
            (tmp_path / "data/logs/audit").rmdir()
            assert caught.wait(5)
            assert eventually(lambda: not running.guard.alive())
        assert running.guard.revive()
        assert eventually(lambda: well(tmp_path / "data/logs/audit"))
        assert running.guard.alive()


def test_a_dead_watcher_is_replaced(tmp_path: Path) -> None:
    """When the watch thread has died, the next turn says so, starts another, and looks at everything."""
    with guarding(mine(tmp_path / "data")) as running:
        watcher = running.guard._watcher
        assert watcher is not None
        watcher.stop()
        assert eventually(lambda: not watcher.alive())
        assert ["the watcher is down: repairs wait for the next reconcile"] == running.guard.warnings()
        assert running.guard.standing().watching is False
        (tmp_path / "data/logs/audit").rmdir()
        running.guard._hints.wake()
        assert eventually(lambda: well(tmp_path / "data/logs/audit"))
        assert 1 == len(running.said("watcher_restarted"))
        (tmp_path / "data/logs/audit").rmdir()
        assert eventually(lambda: well(tmp_path / "data/logs/audit"))


def test_a_place_that_cannot_be_trusted_is_held(tmp_path: Path) -> None:
    """A parent that becomes writable to everybody makes root hold the tree, say so once, and go on when it is fixed."""
    if os.geteuid():
        pytest.skip("only root must not trust such a place")
    root = tmp_path / "above/data"
    with guarding(mine(root), OFF) as running:
        root.parent.chmod(0o777)
        assert eventually(lambda: not running.guard.keeping())
        (root / "logs/audit").rmdir()
        time.sleep(0.3)
        assert not (root / "logs/audit").exists()
        assert 1 == len(running.said("tree_held"))
        assert "everybody can write to" in running.guard.warnings()[0]
        root.parent.chmod(0o755)
        assert eventually(lambda: running.guard.keeping() and well(root / "logs/audit"))
        assert [str(root)] == running.said("tree_released")


def test_a_tree_that_was_refused_at_start_is_not_begun(tmp_path: Path) -> None:
    """Making the tree in a place that root can't trust raises, and makes nothing."""
    if os.geteuid():
        pytest.skip("only root must not trust such a place")
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafePath), guarding(mine(tmp_path / "data")):
        pass
    assert [] == list(tmp_path.iterdir())


def test_without_auto_create_dirs_the_guard_waits(tmp_path: Path) -> None:
    """With `auto_create_dirs` off and no root, the guard makes nothing, says so, and keeps the root when it comes."""
    with guarding(mine(tmp_path / "data", auto_create_dirs=False)) as running:
        assert not running.guard.keeping()
        assert ["the root: nothing there, and auto_create_dirs is off"] == running.guard.warnings()
        assert [] == list(tmp_path.iterdir())
        made(mine(tmp_path / "new"))
        (tmp_path / "new/logs").chmod(0o700)
        (tmp_path / "new").rename(tmp_path / "data")
        assert eventually(lambda: running.guard.keeping() and well(tmp_path / "data/logs"))
        assert [] == running.guard.warnings()


def test_a_required_mount_that_is_missing_makes_nothing(tmp_path: Path) -> None:
    """With `require_mount`, making the tree raises where nothing is mounted, and a guard that runs makes nothing."""
    settings = replace(OFF, require_mount=True)
    with pytest.raises(TreeHeld, match="nothing is mounted at"), guarding(mine(tmp_path / "data"), settings):
        pass
    with guarding(mine(tmp_path / "data"), settings, settle=False) as running:
        assert eventually(lambda: [str(tmp_path / "data")] == running.said("tree_held"))
        assert [] == list(tmp_path.iterdir())


def counted(running: Running) -> int:
    """How many repairs were made."""
    return sum(report.action is not None for report in running.reports)


def test_own_repairs_do_not_echo(tmp_path: Path) -> None:
    """The events of the guard's own repair lead to no second repair."""
    with guarding(mine(tmp_path / "data")) as running:
        before = counted(running)
        (tmp_path / "data/logs/audit").chmod(0o700)
        assert eventually(lambda: well(tmp_path / "data/logs/audit"))
        time.sleep(0.3)
        assert before + 1 == counted(running)


def test_a_complaint_ends_with_a_hint(open_path: Path, as_nobody: AsNobody) -> None:
    """What a guard without rights can't repair is a warning, said once, until a hint (no scan) shows it well."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")
    as_nobody(lambda: made(layout))
    os.chown(open_path / "data/logs/audit", 0, 0)
    (open_path / "data/logs/audit").chmod(0o711)

    def check() -> tuple[list[str], list[str], bool]:
        with guarding(layout) as running:
            before = running.guard.warnings()
            (open_path / "data/state").chmod(0o700)  # a hint of something else answers nothing
            assert eventually(lambda: mode_of(open_path / "data/state") == 0o755)
            assert before == running.guard.warnings()
            (open_path / "data/logs/audit").rmdir()
            well_again = eventually(lambda: [] == running.guard.warnings())
            return before, running.said("repair_failed"), well_again

    complaint = ["logs/audit: mode not repaired: Operation not permitted"]
    assert (complaint, ["logs/audit"], True) == as_nobody(check)


def test_who_watches_leaves_to_the_guards_own_thread_what_it_cant_do(tmp_path: Path) -> None:
    """Another way to watch, and anything once the guard was stopped: the hint is kept and nothing is done about it."""
    told: list[Report] = []
    guard = Guard(mine(tmp_path / "data"), SETTINGS, told.append)
    guard.create_tree()
    told.clear()
    (tmp_path / "data/logs/audit").rmdir()
    guard.reload(mine(tmp_path / "data"), OFF)
    guard._settle()
    assert guard._hints.take(0.0).everything
    guard.stop()  # before it was started
    guard._hints.add("logs/audit")
    guard._settle()
    assert {"logs/audit": False} == guard._hints.take(0.0).paths
    assert ([], False) == (told, (tmp_path / "data/logs/audit").exists())


def test_a_guard_without_a_thread_to_watch_with_says_so(open_path: Path) -> None:
    """Where the user may have no more threads, that is told before the guard's own can't be had."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    layout = layout_at(open_path / "data")
    open_path.chmod(0o777)

    def start() -> list[object]:
        told: list[Report] = []
        guard = Guard(made(layout), SETTINGS, told.append)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with pytest.raises(RuntimeError, match="thread"):
            guard.start()
        return [report.fields["reason"] for report in told if report.event == "watch_failed"]

    (reason,) = run_as(64_123, start)
    assert str(reason).startswith("can't watch: can't start new thread")


def test_a_directory_that_cant_be_watched_is_told_by_its_name(open_path: Path, as_nobody: AsNobody) -> None:
    """One that may not be read, and whose mode is not ours to change."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")
    as_nobody(lambda: made(layout))
    os.chown(open_path / "data/logs", 0, 0)
    (open_path / "data/logs").chmod(0o711)

    def check() -> list[str]:
        with guarding(layout) as running:
            assert eventually(lambda: bool(running.said("watch_failed")))
            return running.guard.warnings()

    assert "can't watch: Permission denied (logs)" in as_nobody(check)
