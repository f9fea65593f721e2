"""The index as it is in memory, kept in a file: index files are JSON, and reading it takes twenty times as long.

The file counts only while every index file that it was made of is there: they are named by their hash, so they are the
same then. It saves time, and nothing depends on it.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from symbiont_datad.restic.index import Index
from symbiont_datad.restic.records import UNREADABLE

_FORMAT = 1
_DIGEST = 32
_FEW, _SHARE = 1000, 8
"""So many blobs, and that part of all, that the file lacks are read anew each time rather than the file written."""


class _Kept(msgspec.Struct, array_like=True):
    format: int
    repository: str
    files: list[str]
    packs: list[bytes]
    table: bytes
    starts: bytes


class IndexCache:
    """One repository's index in a file."""

    def __init__(self, path: Path, repository: str) -> None:
        """`repository`: its id."""
        self._path = path
        self._repository = repository
        self._blobs = 0

    def load(self, files: Collection[str]) -> tuple[Index, list[str]] | None:
        """The index, and the index files whose content it has: some of `files`, which are there now. None: no such."""
        try:
            content = memoryview(self._path.read_bytes())
            if sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
                return None
            kept = msgspec.msgpack.decode(content[_DIGEST:], type=_Kept)
        except (OSError, *UNREADABLE):
            return None
        if kept.format != _FORMAT or kept.repository != self._repository or not set(kept.files) <= set(files):
            return None
        index = Index.of_table(kept.packs, kept.table, kept.starts)
        self._blobs = len(index)
        return index, kept.files

    def save(self, index: Index, files: Collection[str]) -> None:
        """Keep the index, if it has grown by much; `files` are those whose content it has."""
        if len(index) - self._blobs < max(_FEW, len(index) // _SHARE):
            return
        kept = _Kept(_FORMAT, self._repository, sorted(files), *index.as_table())
        content = msgspec.msgpack.encode(kept)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(temporary, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(sha256(content).digest())
                file.write(content)
            temporary.replace(self._path)
        self._blobs = len(index)
