"""Watching on Linux: watchdog's inotify reader, with a mask of our own.

watchdog's filters can't ask for changes of attributes without asking for every write as well (in 7.1.0
`DirAttribEvent` in a filter is not translated into a mask, and `DirModifiedEvent` brings `IN_MODIFY`), and its move
grouper holds each rename out of a directory back for half a second. So this module uses the layer below them,
`InotifyFD`, which is one thread for all the watches, and hands each event on at once. A write to a file in a watched
directory doesn't even wake that thread.
"""

import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from watchdog.observers.inotify_c import (
    DEFAULT_EVENT_BUFFER_SIZE,
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import Tree
from symbiont_datad.guard.hints import PARENT, Hints
from symbiont_datad.guard.saves import Saves
from symbiont_datad.guard.watch import Followed, follow_each

_CHANGES = Mask(
    InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
_SAVES = Mask(_CHANGES | InotifyConstants.IN_CLOSE_WRITE)
"""Where saves matter: the end of a write, too. Nothing is told while somebody writes, or of who only reads."""
_RENAME_S = 1e-4
"""A rename tells of itself while it holds the directory's lock. Who goes to work at once on the same processor stops it
halfway, waits for that lock, and has by then used up its turn: the repair comes 2 ms later, not 0.3 ms."""
_APPEARED = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO
_IS_DIRECTORY = InotifyConstants.IN_ISDIR


@dataclass(eq=False)
class _Watch:
    """One watched directory. watchdog calls it from its thread, which must not die of what happens here."""

    path: str
    root_name: bytes
    hints: Hints
    identity: tuple[int, int]
    saves: Saves | None = None
    """Who is told of saves here; None where nobody is."""
    descriptor: WatchDescriptor = WatchDescriptor(-1)  # noqa: RUF009  # a NewType of int
    live: bool = True

    @property
    def key(self) -> CallbackId:
        return CallbackId(id(self))

    def on_event(self, event: InotifyEvent) -> None:
        """A change in the directory, or (without a name) of the directory itself."""
        if self.saves is not None and event.name and not event.mask & InotifyConstants.IN_ATTRIB:
            self.saves.tell()
        if not event.name:
            self.hints.add("" if self.path == PARENT else self.path, wake=False)
        elif self.path == PARENT:
            if event.name == self.root_name:
                self.hints.add("", bool(event.mask & _APPEARED), wake=False)
        elif event.mask & _IS_DIRECTORY:
            name = os.fsdecode(event.name)
            path = f"{self.path}/{name}" if self.path else name
            self.hints.add(path, bool(event.mask & _APPEARED), wake=False)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The kernel has ended the watch: the directory is gone, or was unmounted."""
        if self.live:
            self.live = False
            self.hints.add_everything(wake=False)

    def on_queue_overflow(self) -> None:
        """The kernel has dropped events."""
        self.hints.add_everything(overflowed=True, wake=False)


class _Reader(InotifyFD):
    """watchdog's reading thread. Each time it has handed on what it read, it calls `settle`."""

    def __init__(self, settle: Callable[[], None]) -> None:
        super().__init__()
        self.name = "watch"
        self._settle = settle

    def read_events(self, *, event_buffer_size: int = DEFAULT_EVENT_BUFFER_SIZE) -> list[InotifyEvent]:
        self._settle()
        found = super().read_events(event_buffer_size=event_buffer_size)
        if any(event.mask & InotifyConstants.IN_MOVED_FROM for event in found):
            time.sleep(_RENAME_S)
        return found


class InotifyWatcher:
    """inotify, through watchdog's reading thread."""

    def __init__(self, tree: Tree, hints: Hints, settle: Callable[[], None], saves: Saves) -> None:
        self._tree = tree
        self._hints = hints
        self._saves = saves
        self._watches: dict[str, _Watch] = {}
        self._inotify = _Reader(settle)
        self._inotify.start()

    def follow(self, paths: Iterable[str]) -> Followed:
        return follow_each(paths, self._watch)

    def _watch(self, path: str) -> bool:
        try:
            with self._tree.parent() if path == PARENT else self._tree.directory(path) as fd:
                found = os.fstat(fd)
                identity = found.st_dev, found.st_ino
                known = self._watches.get(path)
                if known is not None and known.live and known.identity == identity:
                    return False
                self._drop(path)
                self._watches[path] = self._add(path, fd, identity)
        except (FileNotFoundError, NotADirectoryError, UnsafePath):
            self._drop(path)
            return False
        return True

    def _add(self, path: str, fd: int, identity: tuple[int, int]) -> _Watch:
        saves = self._saves if self._saves.cover(path) else None
        watch = _Watch(path, os.fsencode(self._tree.name), self._hints, identity, saves)
        pinned_path = b"/proc/self/fd/%d" % fd
        try:
            watch.descriptor = self._inotify.add_callback(pinned_path, _SAVES if saves else _CHANGES, watch, watch.key)
        except FileNotFoundError:
            raise OSError(errno.ENOSYS, "/proc is not mounted") from None
        if (
            watch.descriptor < 0
        ):  # inotify must read what it watches; watchdog passes EACCES over, and keeps the callback
            self._inotify.remove_callbacks([(watch.descriptor, watch.key)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return watch

    def _drop(self, path: str) -> None:
        watch = self._watches.pop(path, None)
        if watch is not None and watch.live:
            watch.live = False
            self._inotify.remove_callbacks([(watch.descriptor, watch.key)])

    def alive(self) -> bool:
        return self._inotify.is_alive()

    def stop(self) -> None:
        for watch in self._watches.values():
            watch.live = False
        self._inotify.stop()
        self._inotify.join(1.0)
