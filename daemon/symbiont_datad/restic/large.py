"""A large directory as it was when its tree was made: what lstat said of each entry, and how long its node is.

With that, the tree of a directory of which little has changed is the old tree's text with a few pieces in the place of
others: no node that stays is decoded, or even looked at.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import msgspec

from symbiont_datad.restic.compression import LARGEST, compress_stream, decompress_stream
from symbiont_datad.restic.crypto import Buffer
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.facts import name_of, without_match
from symbiont_datad.restic.records import UNREADABLE
from symbiont_datad.restic.text import LongText
from symbiont_datad.restic.tree import HEAD, TAIL, encode_tree

LARGE = 100
"""Entries from which on a directory is remembered entry by entry."""

_LEVEL = 1
_PIECE = 1 << 20
_SLICE = 8192
"""Records that are encoded at once."""


class _Packed(msgspec.Struct, array_like=True):
    records: list[bytes]
    lengths: bytes


@dataclass(frozen=True, slots=True)
class Large:
    """The entries of a directory in the order of its tree: of each the record (see `facts`), and the bytes of its node
    with the comma behind it.
    """

    records: list[bytes]
    lengths: "array[int]"

    @classmethod
    def unpack(cls, packed: bytes) -> Self | None:
        """What was kept; None if it can't be read."""
        try:
            text = bytearray()
            for piece in decompress_stream(packed):  # into one buffer: there may be hundreds of them
                text += piece
                if len(text) > LARGEST:
                    return None
            found = msgspec.msgpack.decode(text, type=_Packed)
            lengths = array("I", found.lengths)
        except (Damaged, *UNREADABLE, ValueError):
            return None
        return cls(found.records, lengths) if len(lengths) == len(found.records) else None

    def pack(self, is_doubtful: Callable[[bytes], bool] | None) -> bytes:
        """All this, to be kept. A record that is doubtful will match nothing."""
        return b"".join(compress_stream(self._encoded(is_doubtful), _LEVEL, checksum=True))

    def _encoded(self, is_doubtful: Callable[[bytes], bool] | None) -> Iterator[bytes]:
        """What `_Packed` is as msgpack (an array of two, the first an array of many), a slice at a time."""
        encode = msgspec.msgpack.encode
        yield b"\x92\xdd" + len(self.records).to_bytes(4, "big")
        for start in range(0, len(self.records), _SLICE):
            records = self.records[start : start + _SLICE]
            if is_doubtful is not None:
                records = [without_match(record) if is_doubtful(record) else record for record in records]
            yield encode(records)[3 if len(records) > 15 else 1 :]  # without the header of this slice
        yield encode(self.lengths.tobytes())

    @property
    def size(self) -> int:
        """Bytes of the text of the tree."""
        return len(HEAD) + sum(self.lengths) - bool(self.lengths) + len(TAIL)

    def fits(self, text: bytes | LongText) -> bool:
        """Whether this is the text of its tree, as far as a glance tells."""
        if isinstance(text, LongText):
            return text.size == self.size
        return len(text) == self.size and text.startswith(HEAD) and text.endswith(TAIL)


@dataclass(frozen=True, slots=True)
class Patch:
    """How the text of a tree is made from that of another one. `size`: its bytes.

    `steps`: from where to where the other one's text goes on (without the last comma), or a node, each.
    """

    steps: list[tuple[int, int] | bytes]
    size: int

    def apply(self, text: bytes) -> bytes:
        """The text, made from the other one."""
        view = memoryview(text)
        return encode_tree([step if isinstance(step, bytes) else view[slice(*step)] for step in self.steps])

    def stream(self, text: Iterable[Buffer]) -> Iterator[Buffer]:
        """The text, a MiB or so at a time, made from the pieces of the other one. Raises Damaged if that is cut."""
        source = iter(text)
        piece = memoryview(b"")
        begin = 0  # where the piece is in the other text
        made = bytearray(HEAD)
        for number, step in enumerate(self.steps):
            if number:
                made += b","
            if isinstance(step, bytes):
                made += step
                continue
            at, end = step
            while at < end:
                while begin + len(piece) <= at:
                    begin += len(piece)
                    piece = memoryview(next(source, b""))
                    if not piece:
                        raise Damaged("the text of a tree is too short")
                some = piece[at - begin : end - begin]
                made += some
                at += len(some)
                if len(made) >= _PIECE:
                    yield made
                    made = bytearray()
        yield made + TAIL


def large_tree(nodes: Mapping[bytes, bytes], records: Iterable[bytes]) -> tuple[bytes, Large]:
    """The tree of these nodes (by name), and what to remember of it. `records`: theirs, and maybe others."""
    by_name = {name_of(record): record for record in records}
    names = sorted(nodes)
    text = encode_tree([nodes[name] for name in names])
    return text, Large([by_name[name] for name in names], array("I", [len(nodes[name]) + 1 for name in names]))


def patched_tree(
    before: Large, stay: Container[bytes] | None, nodes: Mapping[bytes, bytes], records: Iterable[bytes]
) -> tuple[Patch, Large]:
    """The tree in which of what was there `before` only the records in `stay` are left (None: all of them), and `nodes`
    (by name) are added. `records`: those of the nodes, and maybe others.
    """
    old, lengths = before.records, before.lengths
    starts = array("Q", accumulate(lengths, initial=len(HEAD)))
    by_name = {name: record for record in records if (name := name_of(record)) in nodes}
    gone = [] if stay is None else [(place, b"") for place, record in enumerate(old) if record not in stay]
    added = [(bisect_left(old, name, key=name_of), name) for name in nodes]
    steps: list[tuple[int, int] | bytes] = []
    after = Large([], array("I"))
    at = 0

    def keep(end: int) -> None:
        if end > at:
            steps.append((starts[at], starts[end] - 1))
            after.records.extend(old[at:end])
            after.lengths.extend(lengths[at:end])

    # What is added at a place comes before what goes there. (No name is empty.)
    for place, name in sorted(gone + added, key=lambda change: (change[0], not change[1], change[1])):
        keep(place)
        at = place
        if name:
            steps.append(nodes[name])
            after.records.append(by_name[name])
            after.lengths.append(len(nodes[name]) + 1)
        else:
            at += 1
    keep(len(old))
    return Patch(steps, after.size), after
