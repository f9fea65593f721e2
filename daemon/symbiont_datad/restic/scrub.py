"""Reading packs whole: whether every byte is what was written, and when not, which blobs are lost.

The plain way is fast and says only whether a pack is whole. A pack that is not is read once more, blob by blob: the
error may have been the transport's, and much of a damaged pack is often still good.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Self

import msgspec

from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.chunk import LARGEST
from symbiont_datad.restic.compression import decompress_many
from symbiont_datad.restic.contents import Contents, Problem, Progress, reason_of
from symbiont_datad.restic.crew import Crew, Serve
from symbiont_datad.restic.crypto import Buffer, Key
from symbiont_datad.restic.errors import Damaged, Missing, RepositoryError
from symbiont_datad.restic.index import Place
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.pack import PackedBlob, header_length, open_header, parse_header
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.subset import Choice
from symbiont_datad.restic.text import LongText

_THREADS = min(max(os.cpu_count() or 1, 2), 4)
_MANY = 64 << 20
"""Bytes from which on processes of their own read packs: they take 0.1 s to start."""
_PIECE = 256 << 10
_PLAIN = 512 << 10
"""Bytes of a pack, as stored and unpacked, that a thread has in memory at once, or a single blob where that is more.

So few, that they stay in the processor's cache.
"""

REMEDY = "`restic repair packs` saves the blobs that are good; the next backup stores again what it still finds"
ORPHAN_REMEDY = "no index file names it, so nothing needs it; prune removes it"


class Reading:
    """Reads packs behind other work. Used as a context manager: leaving the block by an exception ends the reading.

    Its processes start when the block is entered, and `begin` may come when they are there.
    """

    def __init__(self, repository: Repository, choose: Choice, ask: Callable[[], None]) -> None:
        """`choose`: what will be read, as far as it can be told yet. `ask` is called between two pieces of a pack, by
        several threads; what it raises ends the reading.
        """
        self._repository = repository
        self._ask = ask
        self._pool = ThreadPoolExecutor(_THREADS, "scrub")
        self._crew: Crew | None = None
        # Processes read a directory themselves; elsewhere it is the network that takes the time.
        if type(repository.backend) is LocalBackend:
            sizes = dict(repository.backend.list(FileKind.DATA))
            if sum(sizes[name] for name in choose(sizes)) >= _MANY:
                self._crew = scrubbing_crew(repository)

    def __enter__(self) -> Self:
        if self._crew is not None:
            self._crew.start(_THREADS)
        return self

    def begin(self, names: Sequence[str], contents: Contents, progress: Progress) -> None:
        """Begin to read these packs. Those that are not whole become `contents.suspects`."""
        self._scrubber = _Scrubber(self._repository, contents, progress, self._ask, self._crew)
        progress.phase, progress.files, progress.bytes = "data", 0, 0
        progress.total_files, progress.total_bytes = len(names), sum(contents.sizes[name] for name in names)
        self._work = [self._pool.submit(self._scrubber.read, name) for name in names]

    def finish(self) -> list[str]:
        """Wait until all is read; hand back those that are whole. Raises what `ask` raised, or Unavailable."""
        for work in self._work:
            work.result()
        return self._scrubber.whole

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._crew is not None:
            self._crew.__exit__(kind, error, trace)


class _Order(msgspec.Struct, array_like=True):
    """Where the repository is, and its master key as in a key file. The first thing that a process is told."""

    location: str
    master: bytes


class _Task(msgspec.Struct, array_like=True):
    """A pack to read, and what the index says of it: see `verify_pack`."""

    name: str
    size: int
    header: bytes


class _Answer(msgspec.Struct, array_like=True):
    """Why a pack is not whole; empty when it is. `gone`: there is no such pack any more."""

    reason: str = ""
    gone: bool = False


def scrubbing_crew(repository: Repository) -> Crew:
    """Processes that read packs of a repository in a directory (see `crew`)."""
    return Crew(__name__, msgspec.msgpack.encode(_Order(repository.backend.location, repository.key.to_master())))


def serve(order: bytes) -> Serve:
    """What one of the processes does."""
    told = msgspec.msgpack.decode(order, type=_Order)
    backend, key = LocalBackend(told.location), Key.from_master(told.master)

    def answer(text: bytearray, _fd: int) -> bytes:
        task = msgspec.msgpack.decode(text, type=_Task)
        try:
            verify_pack(backend, key, task.name, task.size, task.header, lambda _: None)
        except Missing:
            return msgspec.msgpack.encode(_Answer("it is gone", True))
        except RepositoryError as error:
            return msgspec.msgpack.encode(_Answer(reason_of(error)))
        return msgspec.msgpack.encode(_Answer())

    return answer


@dataclass(slots=True)
class _Scrubber:
    """What the threads share."""

    repository: Repository
    contents: Contents
    progress: Progress
    ask: Callable[[], None]
    crew: Crew | None = None
    whole: list[str] = field(default_factory=list)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def read(self, name: str) -> None:
        """Verify one pack, and note what came out."""
        try:
            self.verify(name)
        except Missing:
            if name in self.contents.packs:
                self.contents.suspects[name] = "it went while the repository was checked"
        except RepositoryError as error:
            self.contents.suspects.setdefault(name, reason_of(error))
        else:
            self.whole.append(name)
        with self._counting:
            self.progress.files += 1

    def verify(self, name: str) -> None:
        """Read a pack. Raises Damaged when anything in it is not as its name, its header and the index say."""
        self.ask()
        entry = self.contents.packs.get(name)
        # The size that the index implies, so that a file of another size is found to be damaged.
        size = entry.size if entry is not None else self.contents.sizes[name]
        header = entry.header if entry is not None else b""
        if self.crew is not None:
            text = self.crew.ask(msgspec.msgpack.encode(_Task(name, size, header)))
            if text is not None:
                answer = msgspec.msgpack.decode(text, type=_Answer)
                if answer.reason:
                    raise Missing(answer.reason) if answer.gone else Damaged(answer.reason)
                self._tick(size)
                return
        verify_pack(self.repository.backend, self.repository.key, name, size, header, self._tick)

    def _tick(self, count: int) -> None:
        self.ask()
        with self._counting:
            self.progress.bytes += count


def verify_pack(backend: Backend, key: Key, name: str, size: int, header: bytes, tick: Callable[[int], None]) -> None:
    """Read a pack of this size. Raises Damaged when anything in it is not as its name and its header say.

    `header`: the SHA-256 of the plain header that the index implies; empty when no index names the pack. `tick` is told
    how many bytes were read since the last time.
    """
    load = backend.load
    length = header_length(load(FileKind.DATA, name, max(size - 4, 0), 4), size)
    tail = load(FileKind.DATA, name, size - length)
    if len(tail) != length:
        raise Damaged("its header has another length than its blobs leave")
    plain = open_header(tail, key)
    if header and sha256(plain).digest() != header:
        raise Damaged("its header names other blobs than the index does")
    hashed = sha256()
    for start, end, group in _pieces(parse_header(plain)):
        piece = load(FileKind.DATA, name, start, end - start)
        hashed.update(piece)
        _verify(key, start, memoryview(piece), group)
        del piece  # before the next one is there
        tick(end - start)
    hashed.update(tail)
    if hashed.hexdigest() != name:
        raise Damaged("its content changed since it was written")


def _pieces(blobs: list[PackedBlob]) -> Iterator[tuple[int, int, list[PackedBlob]]]:
    """The blobs of a pack in groups that are read at once, each with where it begins and ends in the pack."""
    group: list[PackedBlob] = []
    plain = 0
    for blob in blobs:
        group.append(blob)
        start, end = group[0].offset, blob.offset + blob.length
        plain += blob.size
        if end - start >= _PIECE or plain >= _PLAIN:
            yield start, end, group
            group, plain = [], 0
    if group:
        yield group[0].offset, group[-1].offset + group[-1].length, group


def _verify(key: Key, start: int, piece: memoryview, blobs: list[PackedBlob]) -> None:
    """Open these blobs, which lie in `piece` from `start` on. Raises Damaged when one is not what its id says.

    In three rounds, because this is where a check spends its time. Of a long tree there is never the whole text.
    """
    if len(blobs) == 1 and blobs[0].plain_length > LARGEST:
        LongText(key.open(piece), blobs[0].plain_length).verify(blobs[0].id)
        return
    open_sealed = key.open
    opened = [open_sealed(piece[blob.offset - start : blob.offset - start + blob.length]) for blob in blobs]
    frames: list[Buffer] = []
    sizes: list[int] = []
    for blob, content in zip(blobs, opened, strict=True):
        if blob.plain_length:
            frames.append(content)
            sizes.append(blob.plain_length)
    plains = iter(decompress_many(frames, sizes))
    for blob, content in zip(blobs, opened, strict=True):
        plain = next(plains) if blob.plain_length else content
        if sha256(plain).digest() != blob.id:
            raise Damaged(f"blob {blob.id.hex()} has other content than its name says")


def examine_suspects(repository: Repository, contents: Contents, ask: Callable[[], None]) -> list[str]:
    """Find out what is lost in each of `contents.suspects`, and note it; hand back those that are whole after all.

    A blob is not lost when a pack that is no suspect holds it too.
    """
    blobs: dict[str, list[tuple[bytes, Place]]] = {name: [] for name in contents.suspects}
    if blobs:
        for blob, place in repository.index.blobs():
            if (name := place.pack.hex()) in blobs:
                blobs[name].append((blob, place))
    scrubber = _Scrubber(repository, contents, Progress(), ask)
    for name, reason in contents.suspects.items():
        try:
            scrubber.verify(name)
        except RepositoryError as error:
            reason_of(error)
        else:
            scrubber.whole.append(name)
            continue
        if name not in contents.packs:
            contents.add(Problem(f"data/{name}", reason, ORPHAN_REMEDY))
            continue
        damaged = _damaged(repository, name, blobs[name])
        lost = [blob for blob in damaged if not _is_elsewhere(repository, blob, contents)]
        reason = f"{reason}; {len(damaged)} of its {len(blobs[name])} blobs can't be read"
        if len(lost) < len(damaged):
            reason += f", but {len(damaged) - len(lost)} of them are in another pack too"
        contents.add(Problem(f"data/{name}", reason, REMEDY), lost)
    return scrubber.whole


def _damaged(repository: Repository, name: str, blobs: Sequence[tuple[bytes, Place]]) -> list[bytes]:
    """The blobs of a pack that can't be read."""
    try:
        pack = memoryview(repository.backend.load(FileKind.DATA, name))
    except RepositoryError as error:
        reason_of(error)
        return [blob for blob, _ in blobs]
    damaged = []
    for blob, place in blobs:
        try:
            repository.open_blob(blob, pack[place.offset : place.offset + place.length], place.plain_length)
        except Damaged:
            damaged.append(blob)
    return damaged


def _is_elsewhere(repository: Repository, blob: bytes, contents: Contents) -> bool:
    return any(place.pack.hex() not in contents.suspects for place in repository.index.places(blob))
