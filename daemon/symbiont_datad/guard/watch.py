"""Watching: from the file system's events to hints. The one place that knows what the platform's events are like.

Only the directories in which something declared can change are watched (`Layout.watched`), none of them recursively,
and the directory that holds the root.

On Linux `inotify` does it. Elsewhere, or when asked to poll, watchdog's own observers do; what they don't notice
(polling doesn't see a mode) the periodic reconcile does.
"""

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from watchdog.events import (
    EVENT_TYPE_CLOSED_NO_WRITE,
    EVENT_TYPE_OPENED,
    DirCreatedEvent,
    DirMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, ObservedWatch

from symbiont_datad.fsops.root import Tree
from symbiont_datad.guard.hints import PARENT, Hints
from symbiont_datad.guard.saves import Saves

logging.getLogger("watchdog").addHandler(logging.NullHandler())

_POLL_S = 1.0
_READING = (EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE)


@dataclass(frozen=True, slots=True)
class Followed:
    """What came of an attempt to watch directories: those that were not watched before, and those that can't be.

    What is missing, or belongs to another mount, is in neither.
    """

    new: list[str] = field(default_factory=list)
    failed: dict[str, OSError | RuntimeError] = field(default_factory=dict)


class Watcher(Protocol):
    """Something that turns events into hints."""

    def follow(self, paths: Iterable[str]) -> Followed:
        """Watch the directories at these paths, as they are now. Raises nothing."""

    def alive(self) -> bool:
        """Whether its threads run."""

    def stop(self) -> None:
        """End the threads."""


def start(
    kind: str, tree: Tree, hints: Hints, settle: Callable[[], None] | None = None, saves: Saves | None = None
) -> Watcher | None:
    """A watcher of the `kind` that the settings name: `auto`, `polling` or `off` (None). Raises OSError.

    A watcher may call `settle` in its own thread when it has given hints, instead of waking another thread for them.
    In the directories that `saves` cover, it tells of files too.
    """
    saves = saves or Saves()
    if kind == "off":
        return None
    if kind == "auto" and sys.platform == "linux":
        from symbiont_datad.guard.inotify import InotifyWatcher

        return InotifyWatcher(tree, hints, settle or hints.wake_for_hints, saves)
    return ObserverWatcher(tree, hints, saves, polling=kind == "polling")


def follow_each(paths: Iterable[str], follow: Callable[[str], bool]) -> Followed:
    """Follow one path after another, where `follow` tells whether the path was not watched before or raises OSError."""
    followed = Followed()
    for path in paths:
        try:
            if follow(path):
                followed.new.append(path)
        except OSError as error:
            # A parent that may not be listed is common (/home), and the root's own watch tells when the root goes.
            if path != PARENT or error.errno != errno.EACCES:
                followed.failed[path] = error
    return followed


class _Handler(FileSystemEventHandler):
    """Turns an observer's events into hints."""

    def __init__(self, tree: Tree, hints: Hints, saves: Saves) -> None:
        self._tree = tree
        self._hints = hints
        self._saves = saves

    def on_any_event(self, event: FileSystemEvent) -> None:
        above = os.path.dirname(os.fsdecode(event.dest_path or event.src_path))
        if event.event_type not in _READING and self._saves.cover(os.path.relpath(above, self._tree.path)):
            self._saves.tell()
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

    def __init__(self, tree: Tree, hints: Hints, saves: Saves, *, polling: bool) -> None:
        from watchdog.observers import Observer
        from watchdog.observers.polling import PollingObserverVFS

        self._tree = tree
        self._handler = _Handler(tree, hints, saves)
        self._hints = hints
        self._watches: dict[str, tuple[ObservedWatch, int]] = {}
        self._observer: BaseObserver = (
            PollingObserverVFS(os.lstat, os.scandir, polling_interval=_POLL_S) if polling else Observer()
        )
        self._observer.start()

    def follow(self, paths: Iterable[str]) -> Followed:
        return follow_each(paths, self._watch)

    def _watch(self, path: str) -> bool:
        root = self._tree.path
        absolute = os.path.dirname(root) if path == PARENT else os.path.join(root, path) if path else root
        try:
            found = os.lstat(absolute)
            known = self._watches.get(path)
            if known is not None and known[1] == found.st_ino and known[0] in self._emitting():
                return False
            self._drop(path)  # scheduling the same directory again would hand back its dead emitter
            if not stat.S_ISDIR(found.st_mode):
                return False
            self._watches[path] = self._observer.schedule(self._handler, absolute), found.st_ino
        except (FileNotFoundError, NotADirectoryError):
            self._drop(path)
            return False
        return True

    def _emitting(self) -> set[ObservedWatch]:
        return {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}

    def _drop(self, path: str) -> None:
        known = self._watches.pop(path, None)
        if known is not None:
            self._observer.unschedule(known[0])

    def alive(self) -> bool:
        # An emitter ends when its directory goes. It gets another when `follow` sees the directory again.
        return self._observer.is_alive()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join(1.0)
