"""What the tests of the guard and the attacks share: layouts, a guard that runs, and pictures of trees."""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from symbiont_datad.guard.guard import Guard, GuardSettings, Report
from symbiont_datad.guard.reconcile import Reconciliation, reconcile
from symbiont_datad.layout import Directory, Layout, layout_of
from symbiont_datad.settings import Settings

NOW = 1_795_000_000.0
"""Some time, in seconds since the epoch."""

SETTINGS = GuardSettings(reconcile_interval_s=60.0, require_mount=False, backoff_after=1000, watch="auto")
"""A guard that watches, never backs off and hardly ever scans: what it repairs soon, it was told of by an event."""

SCANNING = replace(SETTINGS, reconcile_interval_s=0.1)
"""The same, with a scan ten times a second."""


def layout_at(root: Path, **settings: object) -> Layout:
    """The layout of a data directory at `root`, with the settings given."""
    return layout_of(Settings.model_validate({"root_data_dir": root, **settings}))


def small_layout(root: Path, *rows: Directory) -> Layout:
    """A layout of the root and the rows given, parents before their children."""
    return Layout(
        root=os.path.realpath(root), directories=(Directory("", 0o755, "the data directory"), *rows), categories=()
    )


def made(layout: Layout) -> Layout:
    """The same layout, on the disk."""
    result = reconcile(layout, now=NOW, fresh=True)
    assert () == result.failures
    return layout


def again(layout: Layout) -> Reconciliation:
    """What a whole pass finds and does."""
    return reconcile(layout, now=NOW)


@dataclass
class Running:
    """A guard that runs, and what it has told."""

    guard: Guard
    reports: list[Report] = field(default_factory=list)

    def said(self, event: str) -> list[str]:
        """The paths (or reasons, where there is no path) of the reports of one event."""
        return [str(one.fields.get("path", one.fields.get("reason"))) for one in self.reports if one.event == event]


@contextmanager
def guarding(layout: Layout, settings: GuardSettings = SETTINGS, *, settle: bool = True) -> Iterator[Running]:
    """A guard in its own thread, for as long as the block runs. With `settle` it has made the tree and is at rest."""
    reports: list[Report] = []
    running = Running(Guard(layout, settings, reports.append), reports)
    if settle:
        running.guard.create_tree()
    running.guard.start()
    try:
        if settle:
            time.sleep(0.1)
        yield running
    finally:
        running.guard.stop()
        assert "guard" not in {thread.name for thread in threading.enumerate()}


def eventually(check: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether `check` becomes true in time."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def mode_of(path: Path) -> int:
    """The permission bits of what has the path, links not followed."""
    return stat.S_IMODE(os.lstat(path).st_mode)


def is_directory(path: Path) -> bool:
    """Whether a real directory has the path."""
    return path.is_dir() and not path.is_symlink()


@dataclass(frozen=True, slots=True)
class Seen:
    """All that must not change of a file or directory that is not ours."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: bytes | None


def picture(root: Path) -> dict[str, Seen]:
    """What lies at and below `root`, by relative path."""
    found = {}
    for path in [root, *root.rglob("*")]:
        about = os.lstat(path)
        content = path.read_bytes() if stat.S_ISREG(about.st_mode) else None
        found[str(path.relative_to(root))] = Seen(about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, content)
    return found
