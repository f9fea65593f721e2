"""Reading many blobs: pack after pack, each in large pieces, by several threads; and blobs that lie in two packs.

What is wanted is kept as one short string of bytes each, since there may be millions.
"""

import struct
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, TypeVar

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing, RepositoryError, Unavailable
from symbiont_datad.restic.index import Place
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.text import LongText, parts_of

S = TypeVar("S")

_AT_ONCE = 16 << 20
"""Bytes that are read in one go; a blob is never divided."""
_GAP = 512 << 10
"""Unwanted bytes between two blobs that are read all the same, instead of asking twice."""

_OPENED = 1 << 20
"""Bytes that are opened at once, or a single blob where that is more."""

_HEAD = struct.Struct(">III32s")  # offset, length, plain length, blob; big-endian, so that bytes sort by offset
_ID = 32


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
        pack, _, offset, length, plain_length = place
        wanted = _HEAD.pack(offset, length, plain_length, blob) + note
        try:
            self._packs[pack].append(wanted)
        except KeyError:
            self._packs[pack] = [wanted]

    def run(
        self,
        deliver: Callable[[S, bytes, bytes], None],
        lost: Callable[[bytes, str], None],
        *,
        state: Callable[[], AbstractContextManager[S]],
        threads: int,
        stopping: Callable[[], bool],
    ) -> None:
        """Call `deliver(state, note, plaintext)` for each blob, in several threads; each has a state of its own.

        A blob that is damaged or missing is looked for in other packs. When there is none, `lost(note, reason)` is
        called, in this thread. Raises Interrupted, Unavailable, and what `deliver` raises.
        """
        tried: dict[bytes, set[bytes]] = {}
        while self._packs:
            packs = iter(self._packs.items())
            with ThreadPoolExecutor(threads, "fetch") as pool:
                for _ in range(threads):
                    pool.submit(self._work, packs, deliver, state, stopping)
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
        packs: Iterator[tuple[bytes, list[bytes]]],
        deliver: Callable[[S, bytes, bytes], None],
        state: Callable[[], AbstractContextManager[S]],
        stopping: Callable[[], bool],
    ) -> None:
        try:
            with state() as own:
                while True:
                    with self._lock:
                        pack, wanted = next(packs, (b"", []))
                    if not wanted:
                        return
                    wanted.sort()
                    for group in _groups(wanted):
                        if self._failure is not None:
                            return
                        if stopping():
                            raise Interrupted("asked to stop")
                        self._read(pack, group, partial(deliver, own))
                    wanted.clear()
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _read(self, pack: bytes, group: list[bytes], deliver: Callable[[bytes, bytes], None]) -> None:
        """Read one piece of a pack, open the blobs in it, deliver each to all who want it."""
        start, end = _span(group)
        name = pack.hex()
        try:
            data = memoryview(self._repository.backend.load(FileKind.DATA, name, start, end - start))
        except Unavailable:
            raise
        except RepositoryError as error:
            data, reason = memoryview(b""), str(error)
        else:
            reason = ""
        for blobs in _batches(group):
            opened = [reason] * len(blobs) if reason else self._open(name, data, start, list(blobs))
            for (head, notes), plain in zip(blobs.items(), opened, strict=True):
                for note in notes:
                    if isinstance(plain, str):
                        with self._lock:
                            self._missed.append(_Missed(pack, head[-_ID:], note, plain))
                    else:
                        deliver(note, plain)

    def _open(self, name: str, data: memoryview, start: int, heads: list[bytes]) -> list[bytes | str]:
        """Each blob's plaintext, or why it can't be had."""
        sealed: list[tuple[bytes, memoryview, int]] = []
        for head in heads:
            offset, length, plain_length, blob = _HEAD.unpack(head)
            sealed.append((blob, data[offset - start : offset - start + length], plain_length))
        try:
            return list(self._repository.open_blobs(sealed))
        except Damaged:
            return [self._open_one(name, *one) for one in sealed]

    def _open_one(self, name: str, blob: bytes, sealed: memoryview, plain_length: int) -> bytes | str:
        try:
            return self._repository.open_blob(blob, sealed, plain_length)
        except Damaged as error:
            return f"data/{name}: {error}"


def _batches(group: list[bytes]) -> Iterator[dict[bytes, list[bytes]]]:
    """What is wanted of a group, blob by blob, each with its notes; as many blobs as are opened at once."""
    blobs: dict[bytes, list[bytes]] = {}
    size = 0
    for wanted in group:
        head, note = wanted[: _HEAD.size], wanted[_HEAD.size :]
        if head in blobs:
            blobs[head].append(note)
            continue
        _, length, plain_length, _ = _HEAD.unpack(head)
        size += max(length, plain_length)
        if blobs and size > _OPENED:
            yield blobs
            blobs, size = {}, max(length, plain_length)
        blobs[head] = [note]
    yield blobs


def _span(group: list[bytes]) -> tuple[int, int]:
    offset, length = _HEAD.unpack_from(group[-1])[:2]
    start: int = _HEAD.unpack_from(group[0])[0]
    return start, offset + length


def _groups(wanted: list[bytes]) -> Iterator[list[bytes]]:
    """What is wanted of one pack, in order, in groups that are read at once."""
    group: list[bytes] = []
    start = end = 0
    for item in wanted:
        offset, length, _, _ = _HEAD.unpack_from(item)
        if group and (offset - end > _GAP or offset + length - start > _AT_ONCE):
            yield group
            group = []
        if not group:
            start = offset
        group.append(item)
        end = offset + length
    yield group


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
