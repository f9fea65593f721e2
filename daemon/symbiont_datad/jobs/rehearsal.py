"""A rehearsal of a backup: a repository that can be read and is never written to."""

from collections.abc import Iterator, Sequence

from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.crypto import Key
from symbiont_datad.restic.errors import Missing
from symbiont_datad.restic.polynomial import random_irreducible
from symbiont_datad.restic.records import Config
from symbiont_datad.restic.repository import VERSION, Repository


class _Untouched:
    """A storage as it is, or an empty one; what is saved to it is dropped, and nothing goes."""

    def __init__(self, backend: Backend | None) -> None:
        self._backend = backend

    @property
    def location(self) -> str:
        """Where it is."""
        return self._backend.location if self._backend else "nowhere"

    def create(self) -> None:
        """Do nothing."""

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Drop it."""

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """What is there. Raises Missing, also for what was dropped."""
        if self._backend is None:
            raise Missing(f"{kind}/{name} isn't there")
        return self._backend.load(kind, name, offset, length)

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """What is there."""
        return iter(()) if self._backend is None else self._backend.list(kind)

    def remove(self, kind: FileKind, name: str) -> None:
        """Leave it."""

    def free(self) -> int | None:
        """As much as there is."""
        return None if self._backend is None else self._backend.free()


def rehearsal(repository: Repository | None, level: int | None) -> Repository:
    """The repository with a storage that drops what is written; None stands for one that is yet to be made."""
    if repository is None:
        config = Config(VERSION, "", f"{random_irreducible():x}")
        return Repository(_Untouched(None), Key.random(), "", config, level)
    backend = _Untouched(repository.backend)
    return Repository(backend, repository.key, repository.key_name, repository.config, repository.level)
