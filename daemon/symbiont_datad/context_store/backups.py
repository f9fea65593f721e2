"""Which of an agent's backups go when it has saved again."""

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress

from symbiont_datad.context_store.files import meaning_of
from symbiont_datad.formats.state_name import Role, name_of
from symbiont_datad.fsops.root import readable

_LIST_EVERY_S = 60.0


class Backups:
    """What is known of the backups without listing the directory at each save: it may hold a hundred thousand files.

    Those that other processes make are known when it is listed again, and what is too many of them goes then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, set[str]] = {}
        self._listed_at = -_LIST_EVERY_S

    def rotate(self, fd: int, agent: str, made: Collection[str], keep: int) -> None:
        """Remove all but the newest `keep` backups of an agent, whose context is whole. `fd`: the pinned directory.

        Those that were just made (`made`) are the newest, even if the clock was set back since the others were.
        """
        with self._lock:
            if time.monotonic() - self._listed_at >= _LIST_EVERY_S:
                self._list(fd)
            known = self._known.setdefault(agent, set())
            known.update(made)
            newest = sorted(known, key=lambda name: (name in made, meaning_of(name).seconds, name), reverse=True)
            surplus = newest[keep:]
            known.difference_update(surplus)
        for name in surplus:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)

    def _list(self, fd: int) -> None:
        self._known.clear()
        with readable(".", fd) as listing:
            for name in os.listdir(listing):
                meaning = name_of(name) if ".backup." in name else None
                if meaning is not None and meaning.role is Role.BACKUP:
                    self._known.setdefault(meaning.agent, set()).add(name)
        self._listed_at = time.monotonic()
