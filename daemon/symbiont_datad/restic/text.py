"""The text of a tree that is too long to be in memory as a whole: it is read in pieces, and made of pieces.

A flat directory is one tree, and that one blob: 430 MB of JSON for a million files. Compressed it is a quarter of that.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from symbiont_datad.restic.compression import compress_stream, decompress_stream
from symbiont_datad.restic.crypto import Buffer, Key
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.tree import HEAD, TAIL

LONG = 8 << 20
"""Bytes from which on a text is long."""

_PIECE = 1 << 20
_BORDER = b'},{"name":"'
_NODE = re.compile(rb'\{"name":"(?:[^"\\]++|\\.)*+","type":"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class LongText:
    """A stored text, compressed as it is stored, which is unpacked anew each time that it is read.

    `plain_length`: its length in bytes; 0 when it is not compressed.
    """

    packed: bytes
    plain_length: int

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.plain_length or len(self.packed)

    def pieces(self) -> Iterator[Buffer]:
        """The text, a MiB at a time. Raises Damaged."""
        if self.plain_length:
            return decompress_stream(self.packed)
        view = memoryview(self.packed)
        return (view[at : at + _PIECE] for at in range(0, len(view), _PIECE))

    def verify(self, blob: bytes) -> None:
        """Raises Damaged unless this is the text with that hash, and as long as it should be."""
        hashed, size = sha256(), 0
        for piece in self.pieces():
            hashed.update(piece)
            size += len(piece)
        if hashed.digest() != blob or size != self.size:
            raise Damaged(f"blob {blob.hex()} has other content than its name says")


def seal_text(pieces: Iterable[Buffer], size: int, key: Key, level: int | None) -> tuple[bytes, bytearray, int]:
    """The id of a long text of `size` bytes, the text as it lies in a pack, and its plain length (see `seal_blob`)."""
    hashed = sha256()

    def seen() -> Iterator[Buffer]:
        for piece in pieces:
            hashed.update(piece)
            yield piece

    sealed = key.seal_stream(seen() if level is None else compress_stream(seen(), level, size=size))
    return hashed.digest(), sealed, 0 if level is None else size


def parts_of(text: bytes | LongText) -> Iterable[bytes]:
    """A tree; a long one as several trees, which have its nodes in order, a MiB or so each."""
    return (text,) if isinstance(text, bytes) else parts(text.pieces())


def parts(text: Iterable[Buffer]) -> Iterator[bytes]:
    """The pieces of a tree as trees.

    It is cut where a node begins, which no other place looks like: in a string the quotes would be escaped. A tree that
    is written in another way than restic's comes as it is, in one part.
    """
    pieces = iter(text)
    rest = bytearray()
    begun = False
    for piece in pieces:
        before = len(rest)
        rest += piece
        if not begun:
            if len(rest) < len(HEAD):
                continue
            if not rest.startswith(HEAD):
                yield b"".join((rest, *pieces))
                return
            begun = True
        border = _last_border(rest, before)
        if border > 0:
            yield b"".join((memoryview(rest)[:border], TAIL))
            rest = bytearray(HEAD) + memoryview(rest)[border + 1 :]
    yield bytes(rest)


def _last_border(text: bytearray, start: int) -> int:
    """Where the comma before the last node is, of those that begin at `start` or later; -1 when there is none."""
    at = text.rfind(_BORDER, start)
    while at >= 0 and not _NODE.match(text, at + 2):  # the name of an attribute, or one that is cut
        at = text.rfind(_BORDER, start, at + 1)
    return at + 1 if at >= 0 else -1
