"""What reaches the daemon from the file system, what must not, and what happens when watching fails."""

import ctypes
import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import Tree
from symbiont_datad.guard import watch
from symbiont_datad.guard.hints import PARENT, Batch, Hints
from symbiont_datad.guard.saves import Saves
from symbiont_datad.layout import Layout
from tests.conftest import AsNobody
from tests.guard.keeping import SETTINGS, eventually, guarding, is_directory, layout_at, made, mode_of
from tests.support import run_as

if sys.platform != "linux":
    pytest.skip("not on this platform: inotify", allow_module_level=True)

GOING = ("vector_db/collections", "vector_db/metadata", "logs/agents")
LIMITS = Path("/proc/sys/user")


@contextmanager
def watching(layout: Layout, kind: str = "auto") -> Iterator[tuple[watch.Watcher, Hints]]:
    """A watcher that follows all that the guard would."""
    hints = Hints()
    watcher = watch.start(kind, layout.tree, hints)
    assert watcher is not None
    try:
        followed = watcher.follow([PARENT, *layout.watched])
        assert {} == followed.failed
        yield watcher, hints
    finally:
        watcher.stop()


def limit(name: str, value: int) -> None:
    """Set one of the kernel's limits for inotify in a user namespace of this process's own, with root as the only user.

    The limits of fs.inotify are the whole machine's, and other tests run beside this one (user_namespaces(7)).
    """
    root = Path("/proc/self/uid_map")
    if root.read_text().split()[2] != "1":
        if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER
            raise OSError(ctypes.get_errno(), "no user namespace")
        root.write_text("0 0 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text("0 0 1")
    (LIMITS / name).write_text(str(value))


def wakes(thread: int | None) -> int:
    """How often a thread of ours gave up the processor to wait (proc(5), `voluntary_ctxt_switches`)."""
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))


AGENT = """
import os, sys
root = sys.argv[1]
places = [root + "/logs/agents", root + "/logs", root + "/state/agents"]
for number in range(20000):
    path = f"{places[number % 3]}/{number % 10}.log"
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    os.write(fd, b"one more line\\n")
    os.pread(fd, 64, 0)
    os.close(fd)
    if number % 100 == 0:
        os.listdir(places[number % 3])
"""


def test_appends_do_not_wake_the_daemon(tmp_path: Path) -> None:
    """Twenty thousand opens, appends, reads and closes of log files wake neither of the guard's threads."""
    root = tmp_path / "data"
    layout = made(layout_at(root))
    for place in ("logs/agents", "logs", "state/agents"):
        for number in range(10):
            (root / place / f"{number}.log").write_bytes(b"")
    with guarding(layout) as running:
        time.sleep(0.3)
        by_name = {thread.name: thread.native_id for thread in threading.enumerate()}
        before = {name: wakes(by_name[name]) for name in ("guard", "watch")}
        subprocess.run([sys.executable, "-c", AGENT, str(root)], check=True, timeout=50)
        after = {name: wakes(by_name[name]) for name in ("guard", "watch")}
        assert 20000 * len(b"one more line\n") == sum(path.stat().st_size for path in root.rglob("*.log"))
        assert after["watch"] - before["watch"] <= 2
        assert after["guard"] - before["guard"] <= 5  # it turns every ten seconds
        told = len(running.reports)
        (root / "logs/agents").chmod(0o700)
        assert eventually(lambda: mode_of(root / "logs/agents") == 0o755)
        assert eventually(lambda: told + 1 == len(running.reports))
        assert wakes(by_name["watch"]) > after["watch"]


def test_what_agents_do_with_files_gives_no_hints(tmp_path: Path) -> None:
    """New files, renames, modes and removals of files in any directory, watched or not, are no hints."""
    layout = made(layout_at(tmp_path / "data"))
    with watching(layout) as (_, hints):
        for row in layout.directories:
            if row.required:
                at = tmp_path / "data" / row.path / "file"
                at.write_bytes(b"x")
                at.chmod(0o600)
                at.rename(at.with_name("other"))
                at.with_name("other").unlink()
        assert not hints.take(0.3)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda root: (root / "logs/agents").chmod(0o700), {"logs/agents": False}),
        (lambda root: (root / "logs/agents").rmdir(), {"logs/agents": False}),
        (lambda root: (root / "logs/agents").rename(root.parent / "x"), {"logs/agents": False}),
        (lambda root: (root / "vector_db/collections/x").mkdir(), {"vector_db/collections/x": True}),
        (lambda root: (root / "logs/unknown").mkdir(), {"logs/unknown": True}),
        (lambda root: root.chmod(0o700), {"": False}),
        (lambda root: (root / "logs").chmod(0o700), {"logs": False}),
        (lambda root: root.parent.chmod(0o700), {"": False}),
        (lambda root: (root.parent / "other").mkdir(), {}),
        (lambda root: root.rename(root.parent / "away"), {"": False}),
    ],
)
def test_hints_name_what_happened(tmp_path: Path, act: object, expected: dict[str, bool]) -> None:
    """Each change of a directory is one hint by its path, deep when the directory is new there."""
    layout = made(layout_at(tmp_path / "data"))
    assert callable(act)
    with watching(layout) as (_, hints):
        act(tmp_path / "data")
        time.sleep(0.1)
        assert Batch(expected) == hints.take(0)


def test_following_twice_is_nothing_new(tmp_path: Path) -> None:
    """Directories that are watched already are not handed back, until they were replaced."""
    layout = made(layout_at(tmp_path / "data"))
    with watching(layout) as (watcher, _):
        assert [] == watcher.follow([PARENT, *layout.watched]).new
        (tmp_path / "data/logs").rename(tmp_path / "logs")
        made(layout)
        assert ["logs"] == watcher.follow([PARENT, *layout.watched]).new
        assert [] == watcher.follow([PARENT, *layout.watched]).new


def test_a_link_is_not_followed_by_a_watch(tmp_path: Path) -> None:
    """A link in place of a watched directory is passed over: what happens behind it is no hint."""
    for kind in ("auto", "polling"):
        layout = made(layout_at(tmp_path / kind / "data"))
        outside = tmp_path / kind / "outside"
        outside.mkdir()
        shutil.rmtree(tmp_path / kind / "data/logs")
        (tmp_path / kind / "data/logs").symlink_to(outside)
        with watching(layout, kind) as (watcher, hints):
            assert watch.Followed() == watcher.follow(["logs"])
            (outside / "new").mkdir()
            assert not hints.take(1.5 if kind == "polling" else 0.2)


def overflow(hints: Hints, place: Path) -> None:
    """Make more happen than the kernel's queue holds, while the watcher's thread waits for the hints' lock."""
    size = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with hints._lock:
        names = [str(place / "noise"), str(place / "more noise")]
        os.mkdir(names[0])
        for number in range(size // 2 + 3000):  # two events each; what the thread has read already is in no queue
            os.rename(names[number % 2], names[1 - number % 2])


def test_overflow_means_everything(tmp_path: Path) -> None:
    """When more happens than the kernel's queue holds, the batch says that everything must be looked at, and why."""
    layout = made(layout_at(tmp_path / "data"))
    with watching(layout) as (_, hints):
        overflow(hints, tmp_path / "data/vector_db")
        batch = hints.take(5)
        while not batch.overflowed:
            batch = hints.take(5)
            assert batch, "nothing is told of the overflow"
        assert batch.everything


def test_overflow_is_told_and_everything_repaired(tmp_path: Path) -> None:
    """A guard whose events were lost repairs what they would have told of, and says that they were lost."""
    with guarding(layout_at(tmp_path / "data")) as running:
        noise = tmp_path / "data/vector_db"
        hints = running.guard._hints
        overflow(hints, noise)
        assert eventually(lambda: "watch_overflowed" in {report.event for report in running.reports})
        (tmp_path / "data/logs/audit").rmdir()
        assert eventually(lambda: is_directory(tmp_path / "data/logs/audit"))


@pytest.mark.parametrize(
    ("name", "too_few", "advice"),
    [
        ("max_inotify_watches", 3, "fs.inotify.max_user_watches"),
        ("max_inotify_instances", 0, "fs.inotify.max_user_instances"),
    ],
)
def test_what_cannot_be_watched_is_told_and_scanned(tmp_path: Path, name: str, too_few: int, advice: str) -> None:
    """When the kernel allows no more watches or instances, the guard says what to raise, scans, and recovers."""
    if os.geteuid():
        pytest.skip("only root can change the kernel's limits")
    layout = made(layout_at(tmp_path / "data"))

    def check() -> None:
        limit(name, too_few)
        with guarding(layout, replace(SETTINGS, reconcile_interval_s=0.3), settle=False) as running:
            assert eventually(lambda: "watch_failed" in {report.event for report in running.reports})
            assert any(advice in text for text in running.guard.warnings())
            (tmp_path / "data/logs/audit").rmdir()
            assert eventually(lambda: is_directory(tmp_path / "data/logs/audit"))
            time.sleep(0.5)
            limit(name, 10000)
            assert eventually(lambda: [] == running.guard.warnings())
            assert 1 == [report.event for report in running.reports].count("watch_failed")

    run_as(0, check)


def test_no_descriptor_left_ends_nothing(tmp_path: Path) -> None:
    """A guard that can open nothing for a while holds the tree, and goes on when it can again."""
    layout = made(layout_at(tmp_path / "data"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with guarding(layout, replace(SETTINGS, reconcile_interval_s=0.1, watch="off")) as running:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            assert eventually(lambda: not running.guard.keeping())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (tmp_path / "data/logs/audit").rmdir()
        assert eventually(lambda: running.guard.keeping() and is_directory(tmp_path / "data/logs/audit"))
        assert ["tree_held", "tree_released"] == [
            report.event for report in running.reports if report.event.startswith("tree_")
        ]


def test_a_directory_that_may_not_be_read_is_named(open_path: Path, as_nobody: AsNobody) -> None:
    """inotify needs to read what it watches: where it may not, that is said by name, and watched once it may."""
    open_path.chmod(0o777)
    layout = layout_at(open_path / "data")

    def check() -> None:
        made(layout)
        os.chmod(open_path / "data/logs", 0o311)
        hints = Hints()
        watcher = watch.start("auto", layout.tree, hints)
        assert watcher is not None
        followed = watcher.follow([PARENT, *layout.watched])
        assert ["logs"] == list(followed.failed)
        assert errno.EACCES == followed.failed["logs"].errno  # type: ignore[union-attr]
        assert len(layout.watched) - 1 == len(followed.new)  # all but `logs` and the `archives` that are not there
        os.chmod(open_path / "data/logs", 0o755)
        assert ["logs"] == watcher.follow(["logs"]).new
        watcher.stop()

    as_nobody(check)


def test_a_parent_that_may_not_be_read_is_no_complaint(open_path: Path, as_nobody: AsNobody) -> None:
    """Where the root's parent may be entered and not listed (as /home often is), the root's own watch is enough."""
    (open_path / "home").mkdir()
    (open_path / "home/data").mkdir()
    os.chown(open_path / "home/data", 65534, 65534)
    (open_path / "home").chmod(0o711)
    layout = layout_at(open_path / "home/data")

    def check() -> None:
        made(layout)
        hints = Hints()
        watcher = watch.start("auto", layout.tree, hints)
        assert watcher is not None
        followed = watcher.follow([PARENT, *layout.watched])
        assert {} == followed.failed
        assert PARENT not in followed.new
        os.chmod(open_path / "home/data", 0o700)
        assert Batch({"": False}) == hints.take(5)
        watcher.stop()

    as_nobody(check)


def test_polling_survives_directories_that_come_and_go(tmp_path: Path) -> None:
    """Over twenty cycles of removal and return, polling keeps watching, without a thread or a restart too many."""
    layout = layout_at(tmp_path / "data")
    with guarding(layout, replace(SETTINGS, watch="polling")) as running, pytest.MonkeyPatch.context() as patch:
        watcher = running.guard._watcher
        assert isinstance(watcher, watch.ObserverWatcher)
        for emitter in list(watcher._observer.emitters):
            patch.setattr(emitter, "_timeout", 0.05)
        before = threading.active_count()
        patch.setattr("watchdog.observers.polling.DEFAULT_EMITTER_TIMEOUT", 0.05)
        watcher._observer._timeout = 0.05
        time.sleep(1.1)  # the polls that had begun at a second's pace
        for cycle in range(20):
            if cycle % 2:
                shutil.rmtree(tmp_path / "data/vector_db", ignore_errors=True)  # the guard is at work
            else:
                (tmp_path / "data/logs").rename(tmp_path / f"logs-{cycle}")
            assert eventually(lambda: all(is_directory(tmp_path / "data" / path) for path in GOING)), cycle
        assert eventually(lambda: threading.active_count() == before), [t.name for t in threading.enumerate()]
        assert running.guard.alive()
        assert [] == running.guard.warnings()
        assert [] == running.said("watcher_restarted")
        assert watcher is running.guard._watcher
        (tmp_path / "data/vector_db/metadata").rmdir()
        assert eventually(lambda: is_directory(tmp_path / "data/vector_db/metadata"))


def test_polling_tells_of_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is written where saves matter, and of that alone; a file is no hint."""
    monkeypatch.setattr(watch, "_POLL_S", 0.05)
    layout = made(layout_at(tmp_path / "data"))
    told = threading.Event()
    hints = Hints()
    watcher = watch.start("polling", layout.tree, hints, saves=Saves(("prompts/templates",), told.set))
    assert watcher is not None
    try:
        assert {} == watcher.follow(["prompts/templates"]).failed
        numbers = iter(range(10_000))  # again and again: the first look may come after the first write
        assert eventually(lambda: bool((tmp_path / f"data/prompts/templates/{next(numbers)}").write_bytes(b"x")) and
                          told.is_set(), 30)  # fmt: skip
        assert not {path for path in hints.take(0.0).paths if path.startswith("prompts/templates/")}
    finally:
        watcher.stop()


def test_a_watcher_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    """What a watcher opened is closed when it was stopped, of either kind."""
    layout = made(layout_at(tmp_path / "data"))
    for kind in ("auto", "polling"):
        threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with watching(layout, kind):
                pass
        assert eventually(lambda threads=threads: threading.active_count() == threads)  # type: ignore[misc]
        assert eventually(lambda before=descriptors: len(os.listdir("/proc/self/fd")) == before)  # type: ignore[misc]


def test_off_is_no_watcher(tmp_path: Path) -> None:
    """Without a watcher there is none to start."""
    assert watch.start("off", Tree(str(tmp_path)), Hints()) is None
