"""Reading files into a repository: open without following a link, read, and look whether the file held still."""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from symbiont_datad.restic.chunk import WHOLE, pieces
from symbiont_datad.restic.crypto import Buffer
from symbiont_datad.restic.facts import name_of
from symbiont_datad.restic.pack import BlobType

TRIES = 3
"""How often a file that changes while it is read is read."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOATIME = getattr(os, "O_NOATIME", 0)
_HEAD = 16
"""Bytes at the start of a file by which a live database is recognised."""


class NotCopied(Exception):
    """No consistent copy of a live database could be had; the text says why, in one clause."""


class Live(Protocol):
    """Files that change while they are open, and how they are read so that the copy is whole."""

    def is_database(self, head: bytes) -> bool:
        """Whether a file that begins so is a database with a way of its own to be copied."""

    @property
    def companions(self) -> tuple[bytes, ...]:
        """How the names of the files beside a database go on that are no part of a copy of it."""

    def copy(self, dir_fd: int, name: bytes) -> AbstractContextManager[int]:
        """A descriptor of a consistent copy. Raises NotCopied or OSError."""

    def is_dataset(self, names: Iterable[bytes]) -> bool:
        """Whether a directory with these entries is a dataset whose parts must be read in an order."""

    def reading_order(self, names: Sequence[bytes]) -> Sequence[bytes]:
        """The entries of a dataset, what names others first."""

    def versions(self, dataset_fd: int) -> frozenset[bytes]:
        """The versions that a dataset has now."""

    def lacking(self, dataset_fd: int, versions: frozenset[bytes]) -> frozenset[bytes]:
        """Those of these versions that are gone by now, or that lack a file which they need."""


class Sink(Protocol):
    """Where what was read goes."""

    def store(self, kind: BlobType, plain: Buffer) -> tuple[bytes, bool]:
        """Take a blob; hand back its id, and whether it is new."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of one file: its chunks' ids and its size in bytes. `found` is what fstat said when it was opened.

    `error`: empty, or why the content may be torn.
    """

    chunks: list[str]
    size: int
    found: os.stat_result
    attributes: list[tuple[str, bytes]]
    error: str = ""


def open_regular(name: bytes, dir_fd: int, owner: int) -> int:
    """A descriptor of a regular file, opened without a trace in its access time where that is allowed.

    Raises OSError; FileNotFoundError also when something else has the name by now.
    """
    flags = _FLAGS
    if os.geteuid() in (0, owner):
        flags |= _NOATIME
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        if not flags & _NOATIME:
            raise
        fd = os.open(name, _FLAGS, dir_fd=dir_fd)
    return fd


def attributes_of(fd: int) -> list[tuple[str, bytes]]:
    """The extended attributes of an open file; none where the system or the file system has none."""
    return _attributes(fd, follow=True)


def attributes_at(dir_fd: int, name: bytes) -> list[tuple[str, bytes]]:
    """The extended attributes of what can't be opened to read them: a link, FIFO, socket or device."""
    return _attributes(b"/proc/self/fd/%d/%s" % (dir_fd, name), follow=False)


def _attributes(target: int | bytes, *, follow: bool) -> list[tuple[str, bytes]]:
    if not hasattr(os, "listxattr"):  # Python has it on Linux only
        return []
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError:
        return []
    found = []
    for name in names:  # in the system's order, as restic has them: then equal trees are stored once
        try:
            found.append((as_text(name), os.getxattr(target, name, follow_symlinks=follow)))
        except OSError:  # it went, or we may not
            continue
    return found


def as_text(name: str) -> str:
    """A name from the system as JSON can have it: what is no UTF-8 in it is replaced, for a node has text there."""
    return name if name.isprintable() else os.fsencode(name).decode("utf-8", "replace")


class Reader:
    """Reads files into a sink; used by several threads if the sink can be."""

    def __init__(self, sink: Sink, seed: int, live: Live | None) -> None:
        """`seed` decides where large files are cut (see `chunk`)."""
        self._sink = sink
        self._seed = seed
        self._live = live

    def read(self, dir_fd: int, name: bytes, owner: int) -> Content:
        """Store the content of a file. Raises OSError, or what storing raises (RepositoryError)."""
        fd = open_regular(name, dir_fd, owner)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(2, "it was replaced by something else")
            if self._live is not None and found.st_size > _HEAD and self._live.is_database(os.pread(fd, _HEAD, 0)):
                return self._database(fd, dir_fd, name, found)
            return self._settled(fd, found)
        finally:
            os.close(fd)

    def databases(self, dir_fd: int, records: Sequence[bytes]) -> tuple[set[bytes], set[bytes]]:
        """What lies beside live databases and is no part of a copy, and the databases that may be ahead of their file.

        What was committed lies in the log beside a database until it is moved over, and lstat of the database itself
        tells nothing of it. `records`: of all entries of the directory (see `facts`).
        """
        apart: set[bytes] = set()
        living: set[bytes] = set()
        live = self._live
        if live is None:
            return apart, living
        beside = [name_of(record) for record in records if record.endswith(live.companions)]
        names = frozenset(map(name_of, records)) if beside else frozenset()
        for name in beside:
            for ending in live.companions:
                owner = name.removesuffix(ending)
                if owner != name and owner in names and self._is_database(dir_fd, owner):
                    apart.add(name)
                    living.add(owner)
        return apart, living

    def _is_database(self, dir_fd: int, name: bytes) -> bool:
        """Whether the file is a live database, by how it begins."""
        try:
            fd = os.open(name, _FLAGS, dir_fd=dir_fd)
        except OSError:
            return False
        try:
            found = os.fstat(fd)
            return (
                self._live is not None
                and stat.S_ISREG(found.st_mode)
                and self._live.is_database(os.pread(fd, _HEAD, 0))
            )
        finally:
            os.close(fd)

    def _settled(self, fd: int, found: os.stat_result) -> Content:
        """Read until the file holds still, or has only grown behind what was read."""
        chunks, size = self._store(fd, found.st_size)
        for _ in range(TRIES - 1):
            now = os.fstat(fd)
            if size == found.st_size and _same(now, found):
                return Content(chunks, size, found, attributes_of(fd))
            # A log that is appended to: if what was read is still the same, it is what the file held then.
            if now.st_size > size == found.st_size and self._store(fd, size)[0] == chunks:
                return Content(chunks, size, found, attributes_of(fd))
            found = os.fstat(fd)
            chunks, size = self._store(fd, found.st_size)
        torn = size != found.st_size or not _same(os.fstat(fd), found)
        return Content(chunks, size, found, attributes_of(fd), "changed while it was read" if torn else "")

    def _database(self, fd: int, dir_fd: int, name: bytes, found: os.stat_result) -> Content:
        assert self._live is not None
        try:
            with self._live.copy(dir_fd, name) as copy:
                chunks, size = self._store(copy, os.fstat(copy).st_size)
        except NotCopied as error:
            return replace(self._settled(fd, found), error=f"no consistent copy: {error}")
        return Content(chunks, size, found, attributes_of(fd))

    def _store(self, fd: int, size: int) -> tuple[list[str], int]:
        """Store the first `size` bytes; hand back the chunks, and how many bytes there were."""
        if size <= WHOLE:
            data = os.pread(fd, size, 0) if size else b""
            return ([self._sink.store(BlobType.DATA, data)[0].hex()] if data else []), len(data)
        chunks, length = [], 0
        last: tuple[int, bytes] | None = None
        for piece, is_hole in pieces(fd, size, self._seed):
            length += len(piece)
            if is_hole and last is not None and last[0] == len(piece):
                chunks.append(last[1].hex())
                continue
            blob, _ = self._sink.store(BlobType.DATA, piece)
            last = (len(piece), blob) if is_hole else None
            chunks.append(blob.hex())
        return chunks, length


def _same(now: os.stat_result, found: os.stat_result) -> bool:
    return (
        now.st_mtime_ns == found.st_mtime_ns and now.st_ctime_ns == found.st_ctime_ns and now.st_size == found.st_size
    )
