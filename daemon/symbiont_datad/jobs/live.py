"""Files that change while they are open: how backups read them so that the copy is whole (see `restic.reading`)."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from symbiont_datad.formats import lance, sqlite
from symbiont_datad.fsops.root import readable
from symbiont_datad.restic.reading import NotCopied


class LiveFiles:
    """SQLite databases are copied between two transactions; Lance datasets are read versions first."""

    def __init__(self, scratch: Path) -> None:
        """`scratch`: a directory of our own for the copies; what a killed run has left in it is removed."""
        self._scratch = scratch
        shutil.rmtree(scratch, ignore_errors=True)

    def is_database(self, head: bytes) -> bool:
        """Whether a file that begins so is a SQLite database."""
        return sqlite.is_database(head)

    def companions(self, name: bytes) -> Sequence[bytes]:
        """The files beside a database that are no part of a copy of it."""
        return sqlite.companions(name)

    @contextmanager
    def copy(self, dir_fd: int, name: bytes) -> Iterator[int]:
        """A descriptor of a consistent copy. Raises NotCopied or OSError."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with sqlite.consistent_copy(dir_fd, name, self._scratch) as fd:
                yield fd
        except sqlite.NotCopied as error:
            raise NotCopied(error.reason) from error

    def is_dataset(self, names: Iterable[bytes]) -> bool:
        """Whether a directory with these entries is a Lance dataset."""
        return lance.is_dataset(frozenset(names))

    def reading_order(self, names: Sequence[bytes]) -> Sequence[bytes]:
        """The entries of a dataset, those that point at others first."""
        return lance.reading_order(names)

    def versions(self, dataset_fd: int) -> frozenset[bytes]:
        """The versions of the dataset: while these are there, so is their data."""
        try:
            with readable(os.fsdecode(lance.VERSIONS), dataset_fd) as fd:
                return frozenset(filter(lance.is_manifest, map(os.fsencode, os.listdir(fd))))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
