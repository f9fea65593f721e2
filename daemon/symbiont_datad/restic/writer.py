"""Adding blobs: each is stored once, packs are closed at 16 MiB and saved behind the work, the index follows them."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Self

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.compression import compress
from symbiont_datad.restic.crypto import OVERHEAD, Buffer
from symbiont_datad.restic.index import ROLL_OVER, encode_index
from symbiont_datad.restic.pack import TARGET_SIZE, BlobType, PackedBlob, Packer
from symbiont_datad.restic.repository import Repository

_UPLOADS = 2
_WORTH = 64
"""Smaller blobs (bytes) are never compressed: the frame would take what it saves."""


@dataclass(slots=True)
class Added:
    """What was added so far. Sizes in bytes; `packed` as stored, with the seals and without the packs' headers."""

    data_blobs: int = 0
    tree_blobs: int = 0
    plain: int = 0
    packed: int = 0


class Writer:
    """Adds blobs to a repository, from any number of threads.

    Used as a context manager: leaving the block saves what is left, and the index. Leaving it by an exception saves
    only the index of the packs that are there, so that the next run need not store them again. A blob is sure to stay
    only after `finish`.
    """

    def __init__(self, repository: Repository, *, pack_size: int = TARGET_SIZE) -> None:
        self._repository = repository
        self._pack_size = pack_size
        self._local = threading.local()
        self._lock = threading.Lock()
        self._packers: list[dict[BlobType, Packer]] = []
        self._claimed: set[bytes] = set()
        self._unindexed: list[tuple[bytes, list[PackedBlob]]] = []
        self._uploads = ThreadPoolExecutor(_UPLOADS, "upload")
        self._room = threading.Semaphore(_UPLOADS)
        self._under_way: list[Future[None]] = []
        self.added = Added()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
            else:
                self._uploads.shutdown(wait=True)
                if self._unindexed and issubclass(kind, Exception):
                    self._save_index()
        finally:
            self._uploads.shutdown(wait=True)

    def store(self, kind: BlobType, plain: Buffer) -> tuple[bytes, bool]:
        """Make sure that the repository holds this blob; hand back its id, and whether it was new.

        Raises what saving an earlier pack has raised (RepositoryError).
        """
        blob = sha256(plain).digest()
        return blob, self.store_as(blob, kind, plain)

    def store_as(self, blob: bytes, kind: BlobType, plain: Buffer, *, again: bool = False) -> bool:
        """Like `store`, for a blob whose id is known; with `again` also when the repository holds it elsewhere."""
        with self._lock:
            if blob in self._claimed:
                return False
            if not again and self._repository.find(blob) is not None:
                return False
            self._claimed.add(blob)
        size = len(plain)
        level = self._repository.level
        plain_length = 0
        if level is not None and size > _WORTH:
            smaller = compress(plain, level)
            if len(smaller) < size:
                plain, plain_length = smaller, size
        sealed = self._repository.key.seal(plain)
        self._pack(blob, kind, sealed, plain_length, size)
        return True

    def store_sealed(self, blob: bytes, kind: BlobType, sealed: Buffer, plain_length: int) -> None:
        """Store a blob as it lies in another pack, sealed with the same key; also when it is stored elsewhere."""
        with self._lock:
            if blob in self._claimed:
                return
            self._claimed.add(blob)
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
        for upload in self._under_way:
            upload.result()
        self._under_way.clear()
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
            done = [upload for upload in self._under_way if upload.done()]
            self._under_way = [upload for upload in self._under_way if not upload.done()]
            for upload in done:
                upload.result()
            self._under_way.append(self._uploads.submit(self._save_pack, packer))

    def _save_pack(self, packer: Packer) -> None:
        try:
            content = packer.finish(self._repository.key)
            pack = sha256(content).digest()
            self._repository.backend.save(FileKind.DATA, pack.hex(), [content])
            del content
            packer.content = bytearray()
        finally:
            self._room.release()
        with self._repository.index_lock:
            self._repository.index.add(pack, packer.blobs)
        full: list[tuple[bytes, list[PackedBlob]]] = []
        with self._lock:
            self._claimed.difference_update(blob.id for blob in packer.blobs)
            self._unindexed.append((pack, packer.blobs))
            if sum(len(blobs) for _, blobs in self._unindexed) >= ROLL_OVER:
                full, self._unindexed = self._unindexed, []
        if full:
            self._write_index(full)

    def _save_index(self) -> None:
        if self._unindexed:
            self._write_index(self._unindexed)
            self._unindexed = []

    def _write_index(self, packs: list[tuple[bytes, list[PackedBlob]]]) -> None:
        name = self._repository.save_file(FileKind.INDEX, encode_index(packs))
        self._repository.index_names.add(name)
