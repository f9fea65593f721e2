"""Adding blobs: each is stored once, packs are closed at 16 MiB and saved behind the work, the index follows them."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Self

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.compression import compress
from symbiont_datad.restic.crypto import OVERHEAD, Buffer, Key
from symbiont_datad.restic.errors import LockLost, RepositoryError
from symbiont_datad.restic.index import ROLL_OVER, encode_index
from symbiont_datad.restic.pack import TARGET_SIZE, BlobType, PackedBlob, Packer
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.text import seal_text

_UPLOADS = 2
_WORTH = 64
"""Smaller blobs (bytes) are never compressed: the frame would take what it saves."""

_TREE_LEVEL = 1
"""zstd's level for trees: half of one is hashes, and the rest repeats what stands just before. So level 1 packs it
tighter than any other up to 12, and is twice as fast as 3."""


@dataclass(slots=True)
class Added:
    """What was added so far. Sizes in bytes; `packed` as stored, with the seals and without the packs' headers."""

    data_blobs: int = 0
    tree_blobs: int = 0
    plain: int = 0
    packed: int = 0


def seal_blob(plain: Buffer, key: Key, level: int | None) -> tuple[bytes, int]:
    """A blob as it lies in a pack, and its plain length; that is 0 when compression is off or does not pay."""
    size = len(plain)
    if level is not None and size > _WORTH:
        smaller = compress(plain, level)
        if len(smaller) < size:
            return key.seal(smaller), size
    return key.seal(plain), 0


class Writer:
    """Adds blobs to a repository, from any number of threads.

    Used as a context manager: leaving the block saves what is left, and the index. When that fails, or the block is
    left by an exception, only the index of the packs that are there is saved, so that the next run need not store them
    again (but not after LockLost, for somebody may have removed them). A blob is sure to stay only after `finish`.
    Once a pack could not be saved, every call that would save one raises that error.
    """

    def __init__(
        self, repository: Repository, *, pack_size: int = TARGET_SIZE, blobs_in_index: int = ROLL_OVER
    ) -> None:
        """`pack_size`: bytes at which a pack is closed; `blobs_in_index`: so many blobs close an index file."""
        self._repository = repository
        self._pack_size = pack_size
        self._blobs_in_index = blobs_in_index
        self._local = threading.local()
        self._lock = threading.Lock()
        self._packers: list[dict[BlobType, Packer]] = []
        self._claimed: dict[BlobType, set[bytes]] = {kind: set() for kind in BlobType}
        self._unindexed: list[tuple[bytes, list[PackedBlob]]] = []
        self._uploads = ThreadPoolExecutor(_UPLOADS, "upload")
        self._room = threading.Semaphore(_UPLOADS)
        self._under_way: list[Future[None]] = []
        self._failure: BaseException | None = None
        self.added = Added()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        except Exception as failure:
            self._give_up(failure)
            raise
        else:
            if isinstance(error, Exception):
                self._give_up(error)
        finally:
            self._uploads.shutdown(wait=True)

    def _give_up(self, why: Exception) -> None:
        """Have the index name the packs that are there. It only saves work: what was raised before counts more."""
        self._uploads.shutdown(wait=True)
        if not isinstance(why, LockLost):
            with suppress(RepositoryError):
                self._save_index()

    def store(self, kind: BlobType, plain: Buffer) -> tuple[bytes, bool]:
        """Make sure that the repository holds this blob; hand back its id, and whether it was new.

        Raises what saving an earlier pack has raised (RepositoryError).
        """
        blob = sha256(plain).digest()
        return blob, self.store_as(blob, kind, plain)

    def store_as(self, blob: bytes, kind: BlobType, plain: Buffer, *, again: bool = False) -> bool:
        """Like `store`, for a blob whose id is known; with `again` also when the repository holds it elsewhere."""
        with self._lock:
            claimed = self._claimed[kind]
            if blob in claimed:
                return False
            if not again and (place := self._repository.find(blob)) is not None and place.type is kind:
                return False
            claimed.add(blob)
        level = self._tree_level if kind is BlobType.TREE else self._repository.level
        sealed, plain_length = seal_blob(plain, self._repository.key, level)
        self._pack(blob, kind, sealed, plain_length, len(plain))
        return True

    def seal_tree(self, pieces: Iterable[Buffer], size: int) -> tuple[bytes, bytearray, int]:
        """The id of a long tree of `size` bytes, the tree as `store_sealed` takes it, and its plain length."""
        return seal_text(pieces, size, self._repository.key, self._tree_level)

    @property
    def _tree_level(self) -> int | None:
        level = self._repository.level
        return None if level is None else min(level, _TREE_LEVEL)

    def store_sealed(
        self, blob: bytes, kind: BlobType, sealed: Buffer, plain_length: int, *, again: bool = True
    ) -> None:
        """Store a blob that is sealed with the repository's key already, as it lies in another pack, say.

        Unless `again` is off, also when the repository holds it elsewhere.
        """
        with self._lock:
            claimed = self._claimed[kind]
            if blob in claimed:
                return
            if not again and (place := self._repository.find(blob)) is not None and place.type is kind:
                return
            claimed.add(blob)
        self._pack(blob, kind, sealed, plain_length, plain_length or len(sealed) - OVERHEAD)

    def _pack(self, blob: bytes, kind: BlobType, sealed: Buffer, plain_length: int, size: int) -> None:
        packers = self._own_packers()
        packer = packers[kind]
        packer.add(blob, kind, sealed, plain_length)
        if packer.size >= self._pack_size:
            packers[kind] = Packer()
            self._upload(packer)
        with self._lock:
            added = self.added
            if kind is BlobType.DATA:
                added.data_blobs += 1
            else:
                added.tree_blobs += 1
            added.plain += size
            added.packed += len(sealed)

    def finish(self) -> None:
        """Save what is left, wait for all packs, save the index. Raises RepositoryError."""
        for kind in BlobType:
            rest = Packer()
            for packers in self._packers:
                rest.absorb(packers[kind])
                packers[kind] = Packer()
                if rest.size >= self._pack_size:
                    self._upload(rest)
                    rest = Packer()
            if rest.blobs:
                self._upload(rest)
        wait(self._under_way)
        if self._failure is not None:
            raise self._failure
        self._save_index()

    def _own_packers(self) -> dict[BlobType, Packer]:
        try:
            found: dict[BlobType, Packer] = self._local.packers
        except AttributeError:
            found = self._local.packers = {kind: Packer() for kind in BlobType}
            with self._lock:
                self._packers.append(found)
        return found

    def _upload(self, packer: Packer) -> None:
        self._room.acquire()
        with self._lock:
            if self._failure is not None:
                self._room.release()
                raise self._failure
            self._under_way = [upload for upload in self._under_way if not upload.done()]
            self._under_way.append(self._uploads.submit(self._save_pack, packer))

    def _save_pack(self, packer: Packer) -> None:
        try:
            content = packer.finish(self._repository.key)
            pack = sha256(content).digest()
            self._repository.backend.save(FileKind.DATA, pack.hex(), [content])
            del content
            packer.content = bytearray()
            self._note(pack, packer.blobs)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            raise
        finally:
            self._room.release()

    def _note(self, pack: bytes, blobs: list[PackedBlob]) -> None:
        """Have the index name a pack that was saved: at once the one in memory, and in time a file."""
        with self._repository.index_lock:
            self._repository.index.add(pack, blobs)
        with self._lock:
            for blob in blobs:
                self._claimed[blob.type].discard(blob.id)
            self._unindexed.append((pack, blobs))
            if sum(len(blobs) for _, blobs in self._unindexed) < self._blobs_in_index:
                return
            full, self._unindexed = self._unindexed, []
        try:
            self._write_index(full)
        except BaseException:
            with self._lock:
                self._unindexed += full
            raise

    def _save_index(self) -> None:
        if self._unindexed:
            self._write_index(self._unindexed)
            self._unindexed = []

    def _write_index(self, packs: list[tuple[bytes, list[PackedBlob]]]) -> None:
        name = self._repository.save_file(FileKind.INDEX, encode_index(packs))
        self._repository.index_names.add(name)
