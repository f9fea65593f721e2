"""Where a repository's files lie: the small interface that every kind of storage has."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Protocol


class FileKind(StrEnum):
    """The kinds of files of a repository. The value is the directory's name; the config is a single file of that name.

    Source: restic `doc/design.rst`, "Repository Layout".
    """

    CONFIG = "config"
    KEY = "keys"
    DATA = "data"
    INDEX = "index"
    SNAPSHOT = "snapshots"
    LOCK = "locks"


class Backend(Protocol):
    """A place for a repository's files. All calls may come from several threads at once.

    `name` is the file's name (64 hex digits); it is ignored for the config, which is one file. Failures are raised as
    RepositoryError: `Missing` when there is no such file, `NoSpace` when the place is full, `Unavailable` when it can't
    be reached even after retries, plain RepositoryError (with the reason) otherwise.
    """

    @property
    def location(self) -> str:
        """Where it is, for messages: a path or URL, without credentials."""

    def create(self) -> None:
        """Make what has to be there before the first file is saved (directories). It may all be there already."""

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Store a file made of `parts`, whole or not at all; when this returns, it survives a loss of power.

        A file of that name is replaced: names are hashes, so it has the same content.
        """

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The file's bytes from `offset` on: `length` of them, or all. Fewer come only when the file is shorter."""

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Name and size (bytes) of every file of the kind, in no order. What is no repository file is left out."""

    def remove(self, kind: FileKind, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    def free(self) -> int | None:
        """Free space in bytes; None where there is no such limit."""
