"""Saves: directories in which it matters when a file was written, and who is told of it.

They are watched by the guard's own watcher, beside the layout. A word of a save is a hint like all others: it says
"look soon", and not what happened.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import Tree, readable

_DIRECTORIES = 64
_ENTRIES = 10_000
"""So much below one place is looked at and watched. What lies beyond is found by the next sweep."""


class Saves:
    """Some places (directories, relative to the root), with what is below them, and whom to tell of a save there.

    `tell` is called in the watcher's threads and must return at once.
    """

    def __init__(self, places: tuple[str, ...] = (), tell: Callable[[], None] = lambda: None) -> None:
        self.places = places
        self.tell = tell

    def cover(self, path: str) -> bool:
        """Whether the directory at `path` is one of the places, or lies below one."""
        return f"{path}/".startswith(tuple(f"{place}/" for place in self.places))

    def directories(self, tree: Tree, path: str | None = None) -> list[str]:
        """The directories to watch at and below `path`, or at and below every place, as they are on the disk now."""
        if path is None:
            tops = list(self.places)
        elif self.cover(path):
            tops = [path]
        else:
            tops = [place for place in self.places if f"{place}/".startswith(f"{path}/" if path else "")]
        return [found for top in tops for found in _below(tree, top)]


def _below(tree: Tree, top: str) -> Iterator[str]:
    """A directory and what directories are below it, those above first. What can't be read has none."""
    left, entries = _DIRECTORIES, _ENTRIES
    waiting = deque([top])
    while waiting and left:
        left -= 1
        path = waiting.popleft()
        yield path
        try:
            with tree.directory(path) as fd, readable(".", fd) as listed, os.scandir(listed) as found:
                for entry in found:
                    entries -= 1
                    if entries < 0:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
        except (OSError, UnsafePath):
            continue
