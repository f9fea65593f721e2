"""A large directory as it was when its tree was made: what lstat said of each entry, and how long its node is.

With that, the tree of a directory of which little has changed is the old tree's text with a few pieces in the place of
others: no node that stays is decoded, or even looked at.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import msgspec

from symbiont_datad.restic.compression import compress, decompress_any
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.facts import name_of, without_match
from symbiont_datad.restic.records import UNREADABLE
from symbiont_datad.restic.tree import HEAD, TAIL, encode_tree

LARGE = 100
"""Entries from which on a directory is remembered entry by entry."""

_LEVEL = 1


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
            found = msgspec.msgpack.decode(decompress_any(packed), type=_Packed)
            lengths = array("I", found.lengths)
        except (Damaged, *UNREADABLE, ValueError):
            return None
        return cls(found.records, lengths) if len(lengths) == len(found.records) else None

    def pack(self, is_doubtful: Callable[[bytes], bool] | None) -> bytes:
        """All this, to be kept. A record that is doubtful will match nothing."""
        records = self.records
        if is_doubtful is not None:
            records = [without_match(record) if is_doubtful(record) else record for record in records]
        return compress(msgspec.msgpack.encode(_Packed(records, self.lengths.tobytes())), _LEVEL, checksum=True)

    def fits(self, text: bytes) -> bool:
        """Whether this is the text of its tree, as far as a glance tells."""
        size = len(HEAD) + sum(self.lengths) - bool(self.lengths) + len(TAIL)
        return len(text) == size and text.startswith(HEAD) and text.endswith(TAIL)


def large_tree(nodes: Mapping[bytes, bytes], records: Iterable[bytes]) -> tuple[bytes, Large]:
    """The tree of these nodes (by name), and what to remember of it. `records`: theirs, and maybe others."""
    by_name = {name_of(record): record for record in records}
    names = sorted(nodes)
    text = encode_tree([nodes[name] for name in names])
    return text, Large([by_name[name] for name in names], array("I", [len(nodes[name]) + 1 for name in names]))


def patched_tree(
    text: bytes, before: Large, stay: Container[bytes], nodes: Mapping[bytes, bytes], records: Iterable[bytes]
) -> tuple[bytes, Large]:
    """The tree `text`, in which of what was there `before` only the records in `stay` are left, and `nodes` (by name)
    are added. `records`: those of the nodes, and maybe others.
    """
    old, lengths = before.records, before.lengths
    starts = list(accumulate(lengths, initial=len(HEAD)))
    by_name = {name_of(record): record for record in records}
    gone = [(place, b"") for place, record in enumerate(old) if record not in stay]
    added = [(bisect_left(old, name, key=name_of), name) for name in nodes]
    pieces: list[bytes | memoryview] = []
    after = Large([], array("I"))
    at = 0

    def keep(end: int) -> None:
        if end > at:
            pieces.append(memoryview(text)[starts[at] : starts[end] - 1])
            after.records.extend(old[at:end])
            after.lengths.extend(lengths[at:end])

    # What is added at a place comes before what goes there. (No name is empty.)
    for place, name in sorted(gone + added, key=lambda change: (change[0], not change[1], change[1])):
        keep(place)
        at = place
        if name:
            pieces.append(nodes[name])
            after.records.append(by_name[name])
            after.lengths.append(len(nodes[name]) + 1)
        else:
            at += 1
    keep(len(old))
    return encode_tree(pieces), after
