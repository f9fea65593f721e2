"""Files that change while they are open: how backups read them so that the copy is whole (see `restic.reading`)."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from symbiont_datad.formats import lance, sqlite
from symbiont_datad.fsops.root import beneath, readable
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.reading import NotCopied, open_regular


class LiveFiles:
    """SQLite databases are copied between two transactions; Lance datasets are read versions first."""

    def __init__(self, scratch: Path, stopping: Callable[[], bool]) -> None:
        """`scratch`: a directory of our own for the copies; what a killed run has left in it is removed. Nobody's
        lock is waited for once `stopping()` is true.
        """
        self._scratch = scratch
        self._stopping = stopping
        shutil.rmtree(scratch, ignore_errors=True)

    def is_database(self, head: bytes) -> bool:
        """Whether a file that begins so is a SQLite database."""
        return sqlite.is_database(head)

    companions = sqlite.ENDINGS

    @contextmanager
    def copy(self, dir_fd: int, name: bytes) -> Iterator[int]:
        """A descriptor of a consistent copy. Raises NotCopied, OSError, or Interrupted when asked to stop."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with sqlite.consistent_copy(dir_fd, name, self._scratch, stopping=self._stopping) as fd:
                yield fd
        except sqlite.NotCopied as error:
            if self._stopping():
                raise Interrupted("asked to stop") from error
            raise NotCopied(error.reason) from error

    def is_dataset(self, names: Iterable[bytes]) -> bool:
        """Whether a directory with these entries is a Lance dataset."""
        return lance.is_dataset(frozenset(names))

    def reading_order(self, names: Sequence[bytes]) -> Sequence[bytes]:
        """The entries of a dataset, those that point at others first."""
        return lance.reading_order(names)

    def versions(self, dataset_fd: int) -> frozenset[bytes]:
        """The versions that a dataset has now, by the names of their manifests."""
        return frozenset(filter(lance.is_manifest, _names(dataset_fd, lance.VERSIONS)))

    def lacking(self, dataset_fd: int, versions: frozenset[bytes]) -> frozenset[bytes]:
        """Those of these versions that are gone by now, or that lack a file which they need."""
        there: dict[bytes, frozenset[bytes]] = {}

        def is_there(path: bytes) -> bool:
            folder, _, name = path.rpartition(b"/")
            if folder not in there:
                there[folder] = frozenset(_names(dataset_fd, folder))
            return name in there[folder]

        return frozenset(name for name in versions if not _is_whole(dataset_fd, name, is_there))


def _is_whole(dataset_fd: int, version: bytes, is_there: Callable[[bytes], bool]) -> bool:
    """Whether a version is there with all that it needs; of a manifest that nobody understands, whether it is there."""
    try:
        with readable(os.fsdecode(lance.VERSIONS), dataset_fd) as versions_fd:
            fd = open_regular(version, versions_fd, os.geteuid())
        with open(fd, "rb") as file:
            needed = lance.needed(file.read())
    except OSError:
        return False
    except ValueError:
        return True
    return all(map(is_there, needed))


def _names(fd: int, folder: bytes) -> list[bytes]:
    """What lies in a directory below this one; nothing when it is not there, or when a link would lead to it."""
    if not folder:
        return [os.fsencode(name) for name in os.listdir(fd)]
    try:
        with beneath(fd, os.fsdecode(folder)) as found, readable(".", found) as below:
            return [os.fsencode(name) for name in os.listdir(below)]
    except (FileNotFoundError, NotADirectoryError):
        return []
