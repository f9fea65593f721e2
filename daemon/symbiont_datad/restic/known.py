"""What is known from before: the trees of earlier snapshots, and what lstat said when they were made.

A directory whose entries look exactly as they did is the same tree, without a look at its files or at the old tree.
That memory is a small file beside the repository (`Memory`): it saves time and nothing depends on it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import msgspec

from symbiont_datad.restic.errors import Damaged, RepositoryError
from symbiont_datad.restic.facts import Fact
from symbiont_datad.restic.metadata import time_ns
from symbiont_datad.restic.records import UNREADABLE, format_time_ns
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.text import LongText, parts_of
from symbiont_datad.restic.tree import Node, decode_tree, name_nodes, split_tree, unquote

SLACK_NS = 2_000_000_000
"""A file whose last change is this close to the time when it was read may have changed after that, unseen: clocks of
file systems tick as slowly as that."""

_FORMAT = 4
_END = b"\xff" * 256
"""It comes after every name."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """One directory as it was: digests of what lstat said of its entries and of the trees below it; and its tree.

    `entries` is empty when they could have changed unseen since. `before_ns`: what changed later than that may have
    changed once more after it was read. `facts`: of a large directory, what `large` keeps of it.
    """

    entries: bytes
    children: bytes
    tree: bytes
    before_ns: int
    facts: bytes = b""


class _File(msgspec.Struct, array_like=True):
    format: int
    repository: str
    indexes: list[str]
    directories: dict[str, Seen]


@dataclass(slots=True)
class Memory:
    """The directories that were seen, by absolute path."""

    repository: str
    directories: dict[bytes, Seen] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, repository: str, indexes: Iterable[str]) -> "Memory":
        """The memory at `path`; empty when it is not of this repository, or when an index file that there was is gone.

        Index files go when a repository is pruned or repaired. Then a tree that is remembered may have gone too.
        """
        try:
            found = msgspec.msgpack.decode(path.read_bytes(), type=_File)
        except (OSError, *UNREADABLE):
            return cls(repository)
        if found.format != _FORMAT or found.repository != repository or not set(found.indexes) <= set(indexes):
            return cls(repository)
        return cls(repository, {os.fsencode(name): seen for name, seen in found.directories.items()})

    def save(self, path: Path, indexes: Iterable[str]) -> None:
        """Write the memory, whole or not at all; one that can't be written is no loss."""
        directories = {
            name.decode("utf-8", "surrogateescape"): seen for name, seen in self.directories.items() if _is_text(name)
        }
        content = msgspec.msgpack.encode(_File(_FORMAT, self.repository, sorted(indexes), directories))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(slots=True)
class Known:
    """One entry of an earlier snapshot: its node, and the node as it is encoded.

    `before_ns`: what changed later than that may have changed once more after it was read.
    """

    node: Node
    raw: bytes
    before_ns: int

    def is_unchanged(self, found: Fact) -> bool:
        """Whether a regular file is the one that was stored, by all that lstat tells."""
        node = self.node
        return (
            node.type == "file"
            and node.size == found.size
            and node.inode == found.inode
            and node.uid == found.uid
            and node.gid == found.gid
            and not node.error
            and found.ctime_ns < self.before_ns
            and _is_time(node.mtime, found.mtime_ns)
            and _is_time(node.ctime, found.ctime_ns)
        )


def _is_time(text: str, ns: int) -> bool:
    """Whether a node's time is this one. restic writes times in the zone of its machine."""
    if text.endswith("Z"):
        return text == format_time_ns(ns)
    try:
        return time_ns(text) == ns
    except Damaged:
        return False


class Trees:
    """The trees that one directory had in earlier snapshots, the best first; read when somebody asks."""

    def __init__(self, repository: Repository, trees: Callable[[], Iterable[tuple[bytes, int]]]) -> None:
        """`trees`: their ids, each with its `before_ns` (see `Known`). For one that comes twice the first counts."""
        self._repository = repository
        self._trees = trees
        self._nodes: list[dict[str, Known]] | None = None
        self._directories: dict[str, list[tuple[bytes, int]]] | None = None

    def ids(self) -> list[bytes]:
        """Their ids."""
        return list(self._wanted())

    def get(self, name: str) -> Known | None:
        """What the best of the trees that has this (quoted) name says of it."""
        return next((nodes[name] for nodes in self._read() if name in nodes), None)

    def below(self, name: str) -> "Trees":
        """The trees of a subdirectory."""
        return Trees(self._repository, lambda: self._subtrees(name))

    def in_order(self) -> "InOrder":
        """The same for names that are asked for in their order, for which no more than a part of a tree is decoded."""
        return InOrder([_Reader(parts_of(text), before_ns) for text, before_ns in self._texts()])

    def text(self) -> bytes | LongText | None:
        """The best tree; None when it can't be read."""
        for tree in self.ids()[:1]:
            self._repository.need_index()
            with suppress(RepositoryError):
                return self._repository.load_text(tree)
        return None

    def files(self) -> dict[bytes, bytes] | None:
        """The encoded nodes of the best tree that are no directories, by raw name; None when it can't be read."""
        text = self.text()
        with suppress(RepositoryError):
            if text is not None:
                named = chain.from_iterable(map(name_nodes, parts_of(text)))
                return {unquote(name): bytes(raw) for name, kind, raw in named if kind != "dir"}
        return None

    def forget(self) -> None:
        """Give up the memory that the trees take; they are read again when somebody asks."""
        self._nodes = self._directories = None

    def _wanted(self) -> dict[bytes, int]:
        wanted: dict[bytes, int] = {}
        for tree, before_ns in self._trees():
            wanted.setdefault(tree, before_ns)
        return wanted

    def _subtrees(self, name: str) -> Iterable[tuple[bytes, int]]:
        if self._directories is None:
            self._directories = {}
            for known in self._known_directories():
                if known.node.subtree:
                    found = self._directories.setdefault(known.node.name, [])
                    found.append((bytes.fromhex(known.node.subtree), known.before_ns))
        return self._directories.get(name, ())

    def _known_directories(self) -> Iterator[Known]:
        """The directories in all trees, the best tree first; no more than a part of a long one is decoded at a time."""
        if self._nodes is not None:
            yield from (known for nodes in self._nodes for known in nodes.values())
            return
        for text, before_ns in self._texts():
            with suppress(RepositoryError):
                for part in parts_of(text):
                    yield from (known for known in _decoded(part, before_ns).values() if known.node.type == "dir")

    def _texts(self) -> Iterator[tuple[bytes | LongText, int]]:
        for tree, before_ns in self._wanted().items():
            self._repository.need_index()
            with suppress(RepositoryError):  # it is damaged: then nothing is known, and all is stored anew
                yield self._repository.load_text(tree), before_ns

    def _read(self) -> list[dict[str, Known]]:
        if self._nodes is None:
            self._nodes = []
            for text, before_ns in self._texts():
                with suppress(RepositoryError):
                    nodes: dict[str, Known] = {}
                    for part in parts_of(text):
                        nodes |= _decoded(part, before_ns)
                    self._nodes.append(nodes)
        return self._nodes


def _decoded(text: bytes, before_ns: int) -> dict[str, Known]:
    """The nodes of a tree, by name. Raises Damaged."""
    pairs = zip(decode_tree(text), split_tree(text), strict=True)
    return {node.name: Known(node, bytes(raw), before_ns) for node, raw in pairs}


class _Reader:
    """One tree, of which a part is decoded."""

    def __init__(self, texts: Iterable[bytes], before_ns: int) -> None:
        self._texts = iter(texts)
        self._before_ns = before_ns
        self._nodes: dict[bytes, Known] = {}
        self._last = b""

    def get(self, name: bytes) -> Known | None:
        while name > self._last:
            try:
                found = _decoded(next(self._texts, b""), self._before_ns)
                self._nodes = {unquote(quoted): known for quoted, known in found.items()}
                self._last = next(reversed(self._nodes), self._last)
            except RepositoryError:  # it is at its end, or damaged
                self._nodes, self._last = {}, _END
        return self._nodes.get(name)


class InOrder:
    """Earlier trees of a directory, which are asked for one name after the other."""

    def __init__(self, readers: list[_Reader]) -> None:
        self._readers = readers

    def get(self, name: bytes) -> Known | None:
        """What the best of the trees that has this (raw) name says of it."""
        for reader in self._readers:
            known = reader.get(name)
            if known is not None:
                return known
        return None
