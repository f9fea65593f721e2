"""The loop in which hints and the periodic scan meet."""

import errno
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from symbiont_datad.errors import TreeHeld, UnsafePath
from symbiont_datad.fsops.mount import refuse_unmounted
from symbiont_datad.guard import watch
from symbiont_datad.guard.backoff import Backoff
from symbiont_datad.guard.hints import PARENT, Batch, Hints
from symbiont_datad.guard.reconcile import Reconciliation, reconcile
from symbiont_datad.guard.saves import Saves
from symbiont_datad.guard.scope import EVERYTHING, Scope, covers
from symbiont_datad.layout import Layout
from symbiont_datad.report import Action, Finding, Severity, printable

_TURN_S = 10.0
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """How the guard guards. `require_mount`: see `refuse_unmounted`."""

    reconcile_interval_s: float
    require_mount: str | bool
    backoff_after: int
    watch: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one turn of the guard did, for the log and the ledger: an event's name and fields, with an action or not."""

    event: str
    fields: dict[str, object]
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How the guard stands, in figures.

    `watching` is None where no events are asked for. `unrepaired` drifts can't be put right now; of `backed_off` paths
    something keeps undoing the repair. `reconciles`: comparisons of everything so far, the last one at `reconciled_at`
    (seconds since the epoch; 0.0: none yet).
    """

    watching: bool | None
    unrepaired: int
    backed_off: int
    reconciles: int
    reconciled_at: float


Tell = Callable[[Report], None]


class Guard:
    """Keeps the layout. `tell` gets a report of everything that it does and must return at once.

    `on_root` is called, in the guard's thread, whenever the root may be another directory than it was; `on_save`, in
    any thread, whenever a file may have been saved in one of the layout's `saves`, and must return at once.
    """

    def __init__(
        self,
        layout: Layout,
        settings: GuardSettings,
        tell: Tell,
        on_root: Callable[[], None] = lambda: None,
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._wanted = layout, settings
        self._layout, self._settings = self._wanted
        self._tell = tell
        self._on_root = on_root
        self._saves = Saves(layout.saves, on_save)
        self._hints = Hints()
        self._backoff = Backoff(settings.backoff_after)
        self._watcher: watch.Watcher | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._turning = threading.Lock()
        self._next_scan = 0.0
        self._held_for = ""
        self._complaints: dict[tuple[str, str], str] = {}
        self._backed_off: frozenset[str] = frozenset()
        self._unwatchable: dict[str, str] = {}
        self._rooted = False
        self._reconciles = 0
        self._reconciled_at = 0.0
        self.beat = time.monotonic()

    # The life of the guard

    def create_tree(self) -> Reconciliation:
        """Make the tree as declared, before anything watches it.

        Raises TreeHeld when its file system is not mounted, OSError or UnsafePath when the root can't be reached.
        """
        try:
            self._refuse_unmounted()
        except TreeHeld as error:
            self._hold(str(error))
            raise
        # Deep in open directories there may be many; the first turn of the loop looks at them, after start.
        scope = {"": False}
        result = reconcile(self._layout, scope, now=time.time(), fresh=True)
        self._report(result, scope)
        return result

    def start(self) -> None:
        """Watch, and run the loop in a thread of its own."""
        self._follow(self._unwatched((), everything=True))
        self._next_scan = time.monotonic()
        self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the loop and the watcher's threads."""
        self._stopping.set()
        self._hints.wake()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._watcher is not None:
            self._watcher.stop()

    def reload(self, layout: Layout, settings: GuardSettings) -> None:
        """Go by another layout and other settings from the next turn on; the root must be the same."""
        self._wanted = layout, settings
        self._hints.add_everything()

    def revive(self) -> bool:
        """Start the loop again if its thread has died; True if it had."""
        if self._stopping.is_set() or self._thread is None or self._thread.is_alive():
            return False
        self._hints.add_everything()
        self._start_thread()
        return True

    # What the supervisor asks

    def alive(self) -> bool:
        """Whether the loop turns: it does so every ten seconds, even when nothing happens."""
        moving = time.monotonic() - self.beat < 6 * _TURN_S
        return self._thread is not None and self._thread.is_alive() and moving

    def keeping(self) -> bool:
        """Whether the tree is there and kept, not held."""
        return self._rooted and not self._held_for

    def holding(self) -> bool:
        """Whether the tree is not to be touched."""
        return bool(self._held_for)

    def standing(self) -> Standing:
        """How it stands now."""
        watcher = self._watcher
        watching = None if self._settings.watch == "off" else watcher is not None and watcher.alive()
        unrepaired, backed_off = len(self._complaints), len(self._backed_off)
        return Standing(watching, unrepaired, backed_off, self._reconciles, self._reconciled_at)

    def warnings(self) -> list[str]:
        """What a person should know, in sentences."""
        found = [f"the tree is held: {self._held_for}"] if self._held_for else []
        watcher = self._watcher  # the guard's thread may replace it meanwhile
        if self._settings.watch != "off" and (watcher is None or not watcher.alive()):
            found.append("the watcher is down: repairs wait for the next reconcile")
        found += sorted(set(self._unwatchable.values()))
        found += [
            f"{printable(path) or 'the root'} is repaired less often: something keeps undoing it"
            for path in sorted(self._backed_off)
        ]
        found += [
            f"{printable(path) or 'the root'}: {detail}" for (_, path), detail in sorted(self._complaints.items())
        ]
        return found

    def backing_off(self) -> tuple[str, ...]:
        """The paths that are repaired less often, because something keeps undoing it."""
        return tuple(sorted(map(printable, self._backed_off.copy())))

    # One turn

    def _loop(self) -> None:
        while not self._stopping.is_set():
            batch = self._hints.take(self._patience())
            if self._stopping.is_set():
                return
            with self._turning:
                self._turn(batch)

    def _settle(self) -> None:
        """Take a turn in the watcher's thread, which is awake: to wake the guard's own for each event would make every
        repair wait twice for a processor. What can't be done here is left to the guard's thread."""
        if self._stopping.is_set() or not self._turning.acquire(blocking=False):
            self._hints.wake_for_hints()
            return
        try:
            if self._wanted[1].watch != self._settings.watch:  # the watcher itself is to be replaced
                self._hints.wake_for_hints()
            elif batch := self._hints.take(0.0):
                self._turn(batch)
        except BaseException:  # this thread ends; the guard's looks at everything and starts another watcher
            self._hints.add_everything()
            raise
        finally:
            self._turning.release()

    def _patience(self) -> float:
        """How long to wait for hints, in seconds."""
        now = time.monotonic()
        return max(min(self._next_scan, now + _TURN_S, self._backoff.next_due()) - now, 0.0)

    def _turn(self, batch: Batch) -> None:
        now = self.beat = time.monotonic()  # only who has the turn says so: a turn that hangs stops them all
        self._take_settings()
        revived = self._revive_watcher()
        if batch.overflowed:
            self._tell(Report("watch_overflowed", {}))
        scope: Scope = dict(batch.paths)
        if batch.everything or revived or self._held_for or now >= self._next_scan:  # a mount makes no event
            scope = EVERYTHING
            self._next_scan = now + self._settings.reconcile_interval_s
        scope = {**dict.fromkeys(self._backoff.due(now), False), **scope}
        if scope:
            self._keep(scope, rewatch=scope.get("", False))
        if scope.get("") and not self._held_for:  # others may be due besides
            self._reconciles += 1
            self._reconciled_at = time.time()
        for path in self._backoff.calmed(now):
            self._backed_off -= {path}
            self._tell(Report("repair_resumed", {"path": path}))

    def _take_settings(self) -> None:
        """Go by what `reload` was given. Only a turn does, so that it never sees two layouts."""
        layout, settings = self._wanted
        if settings.watch != self._settings.watch and self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        self._layout, self._settings = layout, settings
        self._saves.places = layout.saves
        self._backoff.limit = settings.backoff_after

    def _keep(self, scope: Scope, *, rewatch: bool) -> None:
        """Reconcile; then watch what is new, and look into that once more, as it may have changed before the watch."""
        for attempt in range(_ROUNDS):
            try:
                self._refuse_unmounted()
                result = reconcile(self._layout, scope, now=time.time(), days=True, allow=self._allow)
            except (FileNotFoundError, NotADirectoryError) as error:  # the root went while we looked
                scope, rewatch = EVERYTHING, True
                if attempt == _ROUNDS - 1:
                    self._hold(str(error))
                continue
            except (TreeHeld, UnsafePath, OSError) as error:
                self._hold(str(error))
                return
            self._release()
            self._report(result, scope)
            new = (*result.appeared, *(path for path, deep in scope.items() if deep))
            scope = dict.fromkeys(self._follow(self._unwatched(new, everything=rewatch)), True)
            if not scope:
                return
            if any(map(self._saves.cover, scope)):  # files may lie there since before the watch
                self._saves.tell()
            rewatch = False

    def _allow(self, path: str) -> bool:
        allowed = self._backoff.allow(path, time.monotonic())
        if not allowed and path not in self._backed_off:
            self._backed_off |= {path}
            self._tell(
                Report(
                    "repair_backed_off",
                    {
                        "path": path,
                        "reason": f"more than {self._backoff.limit} repairs in a minute; something undoes them",
                    },
                )
            )
        return allowed

    # Watching

    def _unwatched(self, new: Iterable[str], *, everything: bool) -> list[str]:
        """The directories whose watches may have ended: all, or those at and below the `new` directories."""
        layout, tree = self._layout, self._layout.tree
        if everything:
            return [PARENT, *layout.watched, *self._saves.directories(tree)]
        prefixes = set(new)
        found = [
            path
            for path in layout.watched
            if any(not new_path or path == new_path or path.startswith(new_path + "/") for new_path in prefixes)
        ]
        return found + [path for new_path in sorted(prefixes) for path in self._saves.directories(tree, new_path)]

    def _follow(self, paths: list[str]) -> list[str]:
        """Watch these directories; hand back those that were not watched before and may hold anything by now."""
        if not paths:
            return []
        try:
            if self._watcher is None:
                self._watcher = watch.start(
                    self._settings.watch, self._layout.tree, self._hints, self._settle, self._saves
                )
            followed = self._watcher.follow(paths) if self._watcher is not None else watch.Followed()
        except (OSError, RuntimeError) as error:  # no more inotify instances, no more threads
            followed = watch.Followed(failed=dict.fromkeys(paths, error))
        known = set(self._unwatchable.values())
        failed = {path: _watch_advice(error) for path, error in followed.failed.items()}
        self._unwatchable = {path: why for path, why in self._unwatchable.items() if path not in paths} | failed
        for reason in sorted(set(failed.values()) - known):
            self._tell(Report("watch_failed", {"reason": reason}))
        return [path for path in followed.new if path != PARENT]

    def _revive_watcher(self) -> bool:
        """Replace a watcher whose threads have died; True if it was so."""
        if self._watcher is None or self._watcher.alive():
            return False
        self._watcher.stop()
        self._watcher = None
        self._tell(Report("watcher_restarted", {}))
        return True

    # Holding

    def _refuse_unmounted(self) -> None:
        refuse_unmounted(self._layout.root, self._settings.require_mount)

    def _hold(self, reason: str) -> None:
        if reason != self._held_for:
            self._held_for = reason
            self._tell(Report("tree_held", {"path": self._layout.root, "reason": reason}))

    def _release(self) -> None:
        if self._held_for:
            self._held_for = ""
            self._tell(Report("tree_released", {"path": self._layout.root}))

    # Telling

    def _report(self, result: Reconciliation, scope: Scope) -> None:
        self._rooted = result.rooted
        if result.rooted and (scope.get("") or "" in result.appeared):
            self._on_root()
        for action in result.actions:
            fields: dict[str, object] = {"path": action.path, "reason": action.reason}
            event = "tree_created" if action.kind == "directory_created" and not action.path else action.kind
            self._tell(Report(event, fields, action))
        self._complain([failure for failure in result.failures if failure.severity != Severity.INFO], scope)

    def _complain(self, failures: list[Finding], scope: Scope) -> None:
        """Say each failure once, and again only when it changes or has been away."""
        for failure in failures:
            if self._complaints.get((failure.kind, failure.path)) != failure.detail:
                event = failure.kind if failure.kind == "repair_refused" else "repair_failed"
                self._tell(Report(event, {"path": failure.path, "reason": failure.detail}))
        elsewhere = {key: text for key, text in self._complaints.items() if not covers(scope, self._layout, key[1])}
        self._complaints = elsewhere | {(failure.kind, failure.path): failure.detail for failure in failures}


def _watch_advice(error: OSError | RuntimeError) -> str:
    if not isinstance(error, OSError):
        return f"can't watch: {error}"
    advice = f"can't watch: {error.strerror or error}"
    if error.filename:
        advice += f" ({printable(str(error.filename))})"
    if error.errno in (errno.EMFILE, errno.ENOSPC):  # no more inotify instances; no more inotify watches
        advice += "; raise fs.inotify.max_user_instances or fs.inotify.max_user_watches (sysctl)"
    return advice
