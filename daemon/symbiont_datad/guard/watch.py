"""Watching: from the file system's events to hints. The one place that knows what the platform's events are like.

Only the directories in which something declared can change are watched (`Layout.watched`), none of them recursively,
and the directory that holds the root.

On Linux the watches are watchdog's inotify watches with a mask of our own. watchdog's filters can't ask for changes of
attributes without asking for every write as well (in 7.1.0 `DirAttribEvent` in a filter is not translated into a mask,
and `DirModifiedEvent` brings `IN_MODIFY`), and its move grouper holds each rename out of a directory back for half a
second. So this module uses the layer below them, `InotifyFD`, which is one thread for all the watches, and hands each
event on at once. A write to a file in a watched directory doesn't even wake that thread.

Elsewhere, or when asked to poll, watchdog's own observer does the work; what it doesn't notice (polling doesn't see a
mode) the periodic reconcile does.
"""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from watchdog.events import DirCreatedEvent, DirMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver, ObservedWatch

from symbiont_datad.fsops.root import Tree
from symbiont_datad.guard.hints import Hints

try:
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyConstants,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchDescriptor,
    )

    _HAVE_INOTIFY = True
except (ImportError, RuntimeError):  # not Linux
    _HAVE_INOTIFY = False

logging.getLogger("watchdog").addHandler(logging.NullHandler())

PARENT = ".."
"""Stands for the directory that holds the root, among the paths that are watched."""

_POLL_S = 1.0


class Watcher(Protocol):
    """Something that turns events into hints."""

    def follow(self, paths: Iterable[str]) -> list[str]:
        """Watch the directories at these paths, as they are now; hand back those that were not watched before.

        Raises OSError when the system allows no more watches; the directories that are missing are passed over.
        """

    def alive(self) -> bool:
        """Whether all its threads run."""

    def stop(self) -> None:
        """End the threads."""


def start(kind: str, tree: Tree, hints: Hints) -> Watcher | None:
    """A watcher of the `kind` that the settings name: `auto`, `polling` or `off` (None). Raises OSError."""
    if kind == "off":
        return None
    if kind == "auto" and _HAVE_INOTIFY:
        return InotifyWatcher(tree, hints)
    return ObserverWatcher(tree, hints, polling=kind == "polling")


if _HAVE_INOTIFY:
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
    _APPEARED = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO
    _IS_DIRECTORY = InotifyConstants.IN_ISDIR

    @dataclass(eq=False)
    class _Watch:
        """One watched directory. watchdog calls it from its thread, which must not die of what happens here."""

        path: str
        root_name: bytes
        hints: Hints
        identity: tuple[int, int]
        descriptor: WatchDescriptor = WatchDescriptor(-1)  # noqa: RUF009 - a NewType of int
        live: bool = True

        @property
        def key(self) -> CallbackId:
            return CallbackId(id(self))

        def on_event(self, event: InotifyEvent) -> None:
            """A change in the directory, or (without a name) of the directory itself."""
            if not event.name:
                self.hints.add("" if self.path == PARENT else self.path)
            elif self.path == PARENT:
                if event.name == self.root_name:
                    self.hints.add("", bool(event.mask & _APPEARED))
            elif event.mask & _IS_DIRECTORY:
                name = os.fsdecode(event.name)
                self.hints.add(f"{self.path}/{name}" if self.path else name, bool(event.mask & _APPEARED))

        def on_watch_deleted(self, wd: WatchDescriptor) -> None:
            """The kernel has ended the watch: the directory is gone, or was unmounted."""
            if self.live:
                self.live = False
                self.hints.add_everything(unwatched=True)

        def on_queue_overflow(self) -> None:
            """The kernel has dropped events."""
            self.hints.add_everything(overflowed=True)

    class InotifyWatcher:
        """inotify, through watchdog's reading thread."""

        def __init__(self, tree: Tree, hints: Hints) -> None:
            self._tree = tree
            self._hints = hints
            self._watches: dict[str, _Watch] = {}
            self._inotify = InotifyFD()
            self._inotify.name = "watch"
            self._inotify.start()

        def follow(self, paths: Iterable[str]) -> list[str]:
            return [path for path in paths if self._watch(path)]

        def _watch(self, path: str) -> bool:
            try:
                with self._tree.parent() if path == PARENT else self._tree.directory(path) as fd:
                    found = os.fstat(fd)
                    identity = found.st_dev, found.st_ino
                    known = self._watches.get(path)
                    if known is not None and known.live and known.identity == identity:
                        return False
                    self._drop(path)
                    watch = _Watch(path, os.fsencode(self._tree.name), self._hints, identity)
                    pinned_path = b"/proc/self/fd/%d" % fd
                    watch.descriptor = self._inotify.add_callback(pinned_path, _CHANGES, watch, watch.key)
                    self._watches[path] = watch
            except (FileNotFoundError, NotADirectoryError):
                self._drop(path)
                return False
            return True

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


class _Handler(FileSystemEventHandler):
    """Turns an observer's events into hints."""

    def __init__(self, tree: Tree, hints: Hints) -> None:
        self._tree = tree
        self._hints = hints

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not event.is_directory:
            return
        appeared = isinstance(event, DirCreatedEvent | DirMovedEvent)
        for path in (event.src_path, event.dest_path):
            text = os.fsdecode(path)
            if text == self._tree.path:
                self._hints.add("", appeared)
            elif text.startswith(self._tree.path + "/"):
                self._hints.add(text[len(self._tree.path) + 1 :], appeared)


class ObserverWatcher:
    """Any of watchdog's observers: FSEvents on macOS, or polling, which works on every file system."""

    def __init__(self, tree: Tree, hints: Hints, *, polling: bool) -> None:
        from watchdog.observers import Observer
        from watchdog.observers.polling import PollingObserver

        self._tree = tree
        self._handler = _Handler(tree, hints)
        self._hints = hints
        self._watches: dict[str, tuple[ObservedWatch, int]] = {}
        self._observer: BaseObserver = PollingObserver(timeout=_POLL_S) if polling else Observer()
        self._observer.start()

    def follow(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if self._watch(path)]

    def _watch(self, path: str) -> bool:
        root = self._tree.path
        absolute = os.path.dirname(root) if path == PARENT else os.path.join(root, path) if path else root
        try:
            inode = os.lstat(absolute).st_ino
        except OSError:
            self._drop(path)
            return False
        known = self._watches.get(path)
        if known is not None and known[1] == inode and known[0] in self._emitting():
            return False
        self._drop(path)  # scheduling the same directory again would hand back its dead emitter
        try:
            self._watches[path] = self._observer.schedule(self._handler, absolute), inode
        except FileNotFoundError:
            return False
        return True

    def _emitting(self) -> set[ObservedWatch]:
        return {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}

    def _drop(self, path: str) -> None:
        known = self._watches.pop(path, None)
        if known is not None:
            self._observer.unschedule(known[0])

    def alive(self) -> bool:
        return self._observer.is_alive() and {watch for watch, _ in self._watches.values()} <= self._emitting()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join(1.0)
