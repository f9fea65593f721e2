"""Reading many blobs: pack after pack, each in large pieces, by several threads; and blobs that lie in two packs."""

import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing
from symbiont_datad.restic.index import Place
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.text import LongText, parts_of
from symbiont_datad.restic.wanted import blob_of, groups, note_of, read_group, want

S = TypeVar("S")

Help = Callable[[S, str, list[bytes]], list[bytes]]
"""A thread's state, a pack's name, what is wanted of a piece of it -> what of that is still to be delivered."""


class _Missed(NamedTuple):
    pack: bytes
    blob: bytes
    note: bytes
    reason: str


class Fetch:
    """Blobs that are wanted, each with a note of what for. `want` all of them, then `run` once."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._packs: dict[bytes, list[bytes]] = {}
        self._missed: list[_Missed] = []
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def want(self, blob: bytes, place: Place, note: bytes) -> None:
        """Ask for a blob that lies at `place`; one that several ask for is read once."""
        wanted = want(blob, place, note)
        try:
            self._packs[place.pack].append(wanted)
        except KeyError:
            self._packs[place.pack] = [wanted]

    def run(
        self,
        deliver: Callable[[S, bytes, bytes], None],
        lost: Callable[[bytes, str], None],
        *,
        state: Callable[[], AbstractContextManager[S]],
        threads: int,
        stopping: Callable[[], bool],
        helps: Help[S] | None = None,
    ) -> None:
        """Call `deliver(state, note, plaintext)` for each blob, in several threads; each has a state of its own.

        `helps`: asked by all threads but one before they read a piece. A blob that is damaged or missing is looked for
        in other packs. When there is none, `lost(note, reason)` is called, in this thread. Raises Interrupted,
        Unavailable, and what `deliver` raises.
        """
        tried: dict[bytes, set[bytes]] = {}
        while self._packs:
            packs = deque(sorted(self._packs.items(), key=lambda item: len(item[1])))
            with ThreadPoolExecutor(threads, "fetch") as pool:
                for number in range(threads):
                    pool.submit(self._work, packs, deliver, helps if number else None, state, stopping)
            if self._failure is not None:
                raise self._failure
            self._packs, missed, self._missed = {}, self._missed, []
            for item in missed:
                tried.setdefault(item.blob, set()).add(item.pack)
            elsewhere = places_of(self._repository, tried) if missed else {}
            for item in missed:
                places = [place for place in elsewhere.get(item.blob, ()) if place.pack not in tried[item.blob]]
                if places:
                    self.want(item.blob, places[0], item.note)
                else:
                    lost(item.note, item.reason)

    def _work(
        self,
        packs: deque[tuple[bytes, list[bytes]]],
        deliver: Callable[[S, bytes, bytes], None],
        helps: Help[S] | None,
        state: Callable[[], AbstractContextManager[S]],
        stopping: Callable[[], bool],
    ) -> None:
        try:
            with state() as own:
                while True:
                    try:  # few large blobs are for this process, many small ones for those that help
                        pack, wanted = packs.popleft() if helps is None else packs.pop()
                    except IndexError:
                        return
                    wanted.sort()
                    for piece in groups(wanted):
                        if self._failure is not None:
                            return
                        if stopping():
                            raise Interrupted("asked to stop")
                        group = piece if helps is None else helps(own, pack.hex(), piece)
                        if group:
                            self._read(pack, group, own, deliver)
                    wanted.clear()
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _read(self, pack: bytes, group: list[bytes], own: S, deliver: Callable[[S, bytes, bytes], None]) -> None:
        """Read one piece of a pack, and deliver each blob in it to all who want it."""
        for wanted, plain in read_group(self._repository.backend, self._repository.key, pack.hex(), group):
            for one in wanted:
                if isinstance(plain, str):
                    with self._lock:
                        self._missed.append(_Missed(pack, blob_of(one), note_of(one), plain))
                else:
                    deliver(own, note_of(one), plain)


def places_of(repository: Repository, blobs: Container[bytes]) -> dict[bytes, list[Place]]:
    """Every place of these blobs. It looks at the whole index, so it is for the few that a damage concerns."""
    found: dict[bytes, list[Place]] = {}
    with repository.index_lock:
        for blob, place in repository.index.blobs():
            if blob in blobs:
                found.setdefault(blob, []).append(place)
    return found


class TreeLoader:
    """Loads trees; one that is damaged or missing in its pack is looked for in others."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._places: dict[bytes, list[Place]] | None = None

    def load(self, tree: bytes) -> Iterable[bytes]:
        """A tree's JSON; of a long one as several trees, which have its nodes in order (see `text.parts_of`).

        Raises Missing, Damaged or another RepositoryError.
        """
        return parts_of(self._text(tree))

    def _text(self, tree: bytes) -> bytes | LongText:
        try:
            return self._repository.load_text(tree)
        except (Damaged, Missing) as error:
            reason = error
        for place in self._all_places().get(tree, ()):
            name = place.pack.hex()
            try:
                sealed = self._repository.backend.load(FileKind.DATA, name, place.offset, place.length)
                return self._repository.open_text(tree, sealed, place.plain_length)
            except (Damaged, Missing):
                continue
        raise reason

    def _all_places(self) -> dict[bytes, list[Place]]:
        if self._places is None:
            self._places = {}
            with self._repository.index_lock:
                for blob, place in self._repository.index.blobs():
                    if place.type is BlobType.TREE:
                        self._places.setdefault(blob, []).append(place)
        return self._places
