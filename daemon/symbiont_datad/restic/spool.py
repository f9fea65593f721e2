"""Where the nodes of a very large directory wait for their tree: in the order of their names, and compressed."""

from array import array
from collections.abc import Iterator

from symbiont_datad.restic.compression import compress, decompress
from symbiont_datad.restic.crypto import Buffer
from symbiont_datad.restic.large import Large
from symbiont_datad.restic.tree import HEAD, TAIL

_CHUNK = 1 << 20
_LEVEL = 1


class Spool:
    """The text of a tree that grows at its end; read once."""

    def __init__(self) -> None:
        self.large = Large([], array("I"))
        self._chunks: list[tuple[bytes, int]] = []
        self._open = bytearray(HEAD)

    def add(self, record: bytes, node: bytes) -> None:
        """Append the node of an entry with this record (see `facts`). Names come in order."""
        self.large.records.append(record)
        self.large.lengths.append(len(node) + 1)
        self._open += node
        self._open += b","
        if len(self._open) >= _CHUNK:
            self._chunks.append((compress(self._open, _LEVEL), len(self._open)))
            self._open.clear()

    def pieces(self) -> Iterator[Buffer]:
        """The text, with a comma behind its last node; what was read is given up."""
        self._chunks.reverse()
        while self._chunks:
            yield decompress(*self._chunks.pop())
        yield bytes(self._open) + TAIL
        self._open.clear()
