"""A repository's files in memory, so that thousands of repositories can be spoilt in a second."""

from collections.abc import Iterator, Sequence

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Missing


class MemoryBackend:
    """A backend; see `symbiont_datad.restic.backend`."""

    location = "memory"

    def __init__(self) -> None:
        self.files: dict[tuple[FileKind, str], bytes] = {}

    def create(self) -> None:
        """Nothing has to be there."""

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Keep it."""
        self.files[kind, name] = b"".join(parts)

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """A file, or a part of it."""
        try:
            data = self.files[kind, name]
        except KeyError:
            raise Missing(f"{kind.value}/{name}: there is no such file") from None
        return data[offset:] if length is None else data[offset : offset + length]

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Names and sizes."""
        yield from [(name, len(data)) for (own, name), data in self.files.items() if own is kind]

    def remove(self, kind: FileKind, name: str) -> None:
        """Forget it."""
        self.files.pop((kind, name), None)

    def sweep(self, now: float) -> None:
        """Nothing is ever half there."""

    def free(self) -> int | None:
        """There is no limit."""
        return None
