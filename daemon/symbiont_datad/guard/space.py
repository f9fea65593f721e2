"""The watch on free space: it notices in time when a disk fills up, and has room made.

A thread of its own looks, because asking a file system that hangs (NFS) would hang whoever asks. It looks seldom where
there is plenty, and a few times before the mark where the space shrinks (`retention.pressure.next_look_s`).
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.space import space_at, space_of
from symbiont_datad.guard.guard import Report, Tell
from symbiont_datad.report import JobReport
from symbiont_datad.retention.pressure import Marks, Space, next_look_s, pressed, told

CALM_S = 30.0
"""So long there must be room again before it is said that it is over: a writer may fill it up at once."""

_SELDOM_S = 10.0
_AT_ONCE_S = 1.0
_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 300.0
"""Between two runs that freed nothing; doubled each time."""
_PRUNE_EVERY_S = 3600.0

_FEWER = "keep fewer snapshots (`[backup]`), or give the repository more room"

Run = Callable[[str], JobReport | None]
"""Runs a job by its name and waits for it; None when it could not be run now."""


@dataclass(slots=True)
class _Disk:
    """One file system that is watched, and what is known of it. Times by the monotonic clock."""

    path: str
    job: str
    space: Space | None = None
    looked_at: float = 0.0
    is_pressed: bool = False
    pressed_at: float = 0.0
    next_run: float = 0.0
    pause_s: float = 0.0
    complained: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched: the tree, and a repository on a disk (empty: there is none), by the same marks."""

    tree: Tree
    repository: str
    marks: Marks


@dataclass
class SpaceWatch:
    """Watches in a thread. `tell` gets what is to be said, `run` makes room: the jobs `relieve` and `prune`."""

    watched: Watched
    tell: Tell
    run: Run
    calm_s: float = CALM_S
    clock: Callable[[], float] = time.monotonic
    _disks: dict[str, _Disk] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _pruned_at: float = -_PRUNE_EVERY_S

    def start(self) -> None:
        """Begin to watch; or again, where the thread has died."""
        if self._thread is None or not (self._thread.is_alive() or self._stopping.is_set()):
            self._thread = threading.Thread(target=self._loop, name="space", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the watch; a job that runs is the caller's to end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def reload(self, watched: Watched) -> None:
        """Go by other marks from the next look on."""
        self.watched = watched

    def warnings(self) -> list[str]:
        """The disks that are nearly full, in sentences."""
        return [disk.warning for disk in list(self._disks.values()) if disk.warning]

    def spaces(self) -> dict[str, tuple[Space, bool]]:
        """What each disk had at the last look, and whether that is too little: `tree`, and `repository` where it has a
        disk of its own."""
        names = {"relieve": "tree", "prune": "repository"}
        return {
            names[disk.job]: (disk.space, disk.is_pressed)
            for disk in list(self._disks.values())
            if disk.space is not None
        }

    def _loop(self) -> None:
        while not self._stopping.wait(self.look()):
            pass

    def look(self) -> float:
        """Look at every disk and do what there is to do; hand back the seconds until the next look."""
        watched = self.watched
        found = _disks(watched)
        self._disks = {path: self._disks.get(path) or _Disk(path, job) for path, (job, _) in found.items()}
        return min(
            (self._look_at(self._disks[path], space, watched.marks) for path, (_, space) in found.items()),
            default=_SELDOM_S,
        )

    def _look_at(self, disk: _Disk, space: Space, marks: Marks) -> float:
        now = self.clock()
        passed = now - disk.looked_at
        shrinking = (disk.space.free_bytes - space.free_bytes) / passed if disk.space and passed > 0 else 0.0
        disk.space, disk.looked_at = space, now
        if not pressed(space, marks):
            disk.warning = ""
            if disk.is_pressed and now - disk.pressed_at >= self.calm_s:
                disk.is_pressed = disk.complained = False
                self.tell(Report("pressure_ended", {"path": disk.path, "reason": told(space)}))
            return next_look_s(space, marks, shrinking)
        disk.pressed_at = now
        disk.warning = f"{disk.path} is nearly full: {told(space)}"
        if not disk.is_pressed:
            disk.is_pressed = True
            self.tell(Report("pressure_began", {"path": disk.path, "reason": told(space)}))
        if now >= disk.next_run:
            self._relieve(disk, marks)
        return min(max(disk.next_run - self.clock(), 0.0), _SELDOM_S) or _AT_ONCE_S

    def _relieve(self, disk: _Disk, marks: Marks) -> None:
        """Have room made; where nothing was left to be removed, say so once, and wait longer each time."""
        report = self.run(disk.job)
        now = self.clock()
        still = self._pressed(disk, marks)
        if still and disk.job == "relieve" and report is not None and not report.actions_total and self._may_prune(now):
            self._pruned_at = now
            pruned = self.run("prune")
            report = pruned if pruned is not None and pruned.actions_total else report
            still = self._pressed(disk, marks)
        if not still or (report is not None and report.actions_total):
            disk.next_run, disk.pause_s = self.clock() + _AT_ONCE_S, 0.0
        else:
            disk.pause_s = min(max(2 * disk.pause_s, _PAUSE_S), _LONGEST_PAUSE_S)
            disk.next_run = self.clock() + disk.pause_s
        advice = report.message or (_FEWER if disk.job == "prune" else "") if report is not None else ""
        if still and advice and not disk.complained:
            disk.complained = True
            self.tell(Report("pressure_unrelieved", {"path": disk.path, "reason": f"{still}; {advice}"}))

    def _pressed(self, disk: _Disk, marks: Marks) -> str:
        """What a disk has free now, if that is too little; else an empty text."""
        found = _disks(self.watched).get(disk.path)
        return told(found[1]) if found is not None and pressed(found[1], marks) else ""

    def _may_prune(self, now: float) -> bool:
        """Whether the repository is on the tree's own disk, and was not pruned for a while."""
        repository = self.watched.repository
        apart = repository in self._disks
        return bool(repository) and not apart and os.path.isdir(repository) and now - self._pruned_at >= _PRUNE_EVERY_S


def _disks(watched: Watched) -> dict[str, tuple[str, Space]]:
    """The file systems that can be asked now, by a path on each: the job that makes room there, and what it has."""
    found: dict[str, tuple[str, Space]] = {}
    device = -1
    try:
        stat, device = space_of(watched.tree)
        found[watched.tree.path] = "relieve", _space(stat)
    except (OSError, UnsafePath):
        pass
    try:
        if watched.repository:
            stat, other = space_at(watched.repository)
            if other != device:
                found[watched.repository] = "prune", _space(stat)
    except OSError:
        pass
    return found


def _space(found: os.statvfs_result) -> Space:
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, found.f_favail, found.f_files)
