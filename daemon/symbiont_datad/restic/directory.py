"""A directory that is being put together for a snapshot: what is known of it, and what becomes of that."""

import os
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from symbiont_datad.restic.crypto import Buffer
from symbiont_datad.restic.facts import name_of
from symbiont_datad.restic.known import Seen, Trees
from symbiont_datad.restic.large import LARGE, Large, Patch, large_tree, patched_tree
from symbiont_datad.restic.listing import Listing
from symbiont_datad.restic.spool import Spool
from symbiont_datad.restic.text import LongText
from symbiont_datad.restic.tree import encode_tree


class Read(NamedTuple):
    """What became of a file that was read: its node, its size in bytes, and why it may be torn (or "")."""

    node: bytes
    size: int
    error: str


@dataclass(frozen=True, slots=True)
class Last:
    """A large directory as it was. `stay`: the records of entries that are still the same; `names` of the others.

    `records`: of the entries that there are now, those that are not in `stay`.
    """

    large: Large
    stay: set[bytes]
    names: set[bytes]
    records: list[bytes]


@dataclass(frozen=True, slots=True)
class Stream:
    """The text of a long tree as it is to be made. `size`: its bytes."""

    patch: Patch
    source: LongText | Spool

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.patch.size

    def pieces(self) -> Iterator[Buffer]:
        """The text, to be asked for once."""
        return self.patch.stream(self.source.pieces())


@dataclass(slots=True)
class Directory:
    """A directory: its descriptor, and a node for each entry as soon as it is known.

    `quiet`: lstat says the same of every entry as it did the last time. `unsure`: entries that were not read, or are
    torn. `last`: a large directory as it was the last time. `large`: what is to be remembered of one. `spool`: of a
    very large one the nodes of files, while `nodes` has the others.
    """

    fd: int
    path: bytes
    listing: Listing
    digest: bytes
    seen: Seen | None
    quiet: bool
    trees: Trees
    attributes: list[tuple[str, bytes]]
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    unsure: set[bytes] = field(default_factory=set)
    last: Last | None = None
    large: Large | None = None
    spool: Spool | None = None
    reads: list[tuple[Future[list[Read | OSError]], list[bytes]]] = field(default_factory=list)
    children: "list[tuple[bytes, os.stat_result, Directory]]" = field(default_factory=list)
    subtrees: dict[bytes, tuple[os.stat_result, bytes, list[tuple[str, bytes]]]] = field(default_factory=dict)

    def recall(self, without: Collection[bytes] = ()) -> None:
        """Set `last`, if the directory is known as a large one. Of the names in `without`, and directories, none stays:
        their nodes are made anew.
        """
        large = Large.unpack(self.seen.facts) if self.seen is not None and self.seen.facts else None
        if large is None:
            self.last = None
            return
        records = self.listing.records
        were = set(large.records)
        stay = were.copy() if self.quiet else were.intersection(records)
        if names := {*self.listing.directories, *without}:
            stay.difference_update([record for record in records if name_of(record) in names])
        gone = set(map(name_of, were - stay))
        self.last = Last(large, stay, gone, [record for record in records if record not in stay])

    def was_there(self, name: bytes, quoted: str) -> bool:
        """Whether there was an entry of this name that has changed since."""
        return name in self.last.names if self.last is not None else self.trees.get(quoted) is not None

    def is_as_before(self) -> bool:
        """Whether neither the entries nor the trees below have changed. All of those are known by now."""
        return self.quiet and self.seen is not None and self.seen.children == self.below()

    def below(self) -> bytes:
        """The trees below in short."""
        return sha256(b"".join(self.subtrees[name][1] for name in sorted(self.subtrees))).digest()

    def tree(self, before: bytes | LongText) -> bytes | Stream:
        """The tree, now that all nodes are there; `before`: the one that a large directory had. It gives up what it was
        made from.
        """
        nodes, last = self.nodes, self.last
        text: bytes | Stream
        if last is not None:
            patch, self.large = patched_tree(last.large, last.stay, nodes, last.records)
            text = patch.apply(before) if isinstance(before, bytes) else Stream(patch, before)
            self.last = None
        elif self.spool is not None:
            large = self.spool.large
            patch, self.large = patched_tree(large, None, nodes, self.listing.records)
            text = Stream(patch, self.spool)
            self.spool = None
        elif len(nodes) >= LARGE and not self.quiet:
            text, self.large = large_tree(nodes, self.listing.records)
        else:
            text = encode_tree([nodes[name] for name in sorted(nodes)])
        nodes.clear()
        self.listing.forget_files()
        return text
