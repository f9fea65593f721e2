"""What the index files say, pack by pack, and which blobs the snapshots need: the figures that prune decides by.

In memory a blob takes about 50 bytes here, and one that is needed about 130 more, however many there are.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import msgspec

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing
from symbiont_datad.restic.index import decode_index
from symbiont_datad.restic.pack import header_size
from symbiont_datad.restic.records import UNREADABLE
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.text import LongText, parts_of

S = TypeVar("S")
T = TypeVar("T")

_RECORD = struct.Struct("<32sBIII")  # id, type, offset, length, plain length
_READERS = 2
_AHEAD = 3
_GAP = 256 << 10
"""Bytes that are rather read and thrown away than skipped by one more request."""
_SPAN = 4 << 20
"""Bytes of blobs, as they are when opened, that are read at once; a single blob may have more."""


class Record(NamedTuple):
    """One blob in a pack. `length` as sealed, `plain_length` 0 when it is not compressed; both in bytes."""

    id: bytes
    type: int
    offset: int
    length: int
    plain_length: int


class Span(NamedTuple):
    """Blobs of one pack that lie close to each other, in their order: read with one request."""

    pack: str
    blobs: list[Record]

    def read(self, repository: Repository) -> Iterator[tuple[Record, memoryview, bytes | LongText]]:
        """Each blob as it is sealed and as it is opened; a long tree stays compressed.

        Raises Missing, or Damaged with the names of pack and blob.
        """
        start = self.blobs[0].offset
        end = self.blobs[-1].offset + self.blobs[-1].length
        content = memoryview(repository.backend.load(FileKind.DATA, self.pack, start, end - start))
        for blob in self.blobs:
            sealed = content[blob.offset - start : blob.offset - start + blob.length]
            try:
                plain = repository.open_text(blob.id, sealed, blob.plain_length)
            except Damaged as error:
                raise Damaged(f"data/{self.pack}: blob {blob.id.hex()}: {error}") from None
            yield blob, sealed, plain


@dataclass(slots=True)
class Inventory:
    """What there is. `packs` are those that an index names and that are there whole, by name: packed records.

    `files`: the packs that each index file names; `file_sizes` in bytes. `sizes`: of each pack in `packs`, in bytes.
    `split`: packs of which two index files say different things; both count. `lost`: packs that an index names, but
    that are not there or have another size. `left_overs`: packs that are there and no index names, with their size: a
    killed run left them. `trees`: where each tree lies.
    """

    packs: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    file_sizes: dict[str, int] = field(default_factory=dict)
    split: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    left_overs: dict[str, int] = field(default_factory=dict)
    trees: dict[bytes, tuple[str, Record]] = field(default_factory=dict)

    def blobs(self, pack: str) -> Iterator[tuple[bytes, int, int, int, int]]:
        """The pack's blobs, each with the fields of a Record."""
        return _RECORD.iter_unpack(self.packs[pack])

    def count(self, pack: str) -> int:
        """The number of the pack's blobs; 0 for a pack that is lost."""
        return len(self.packs.get(pack, b"")) // _RECORD.size


def take_inventory(repository: Repository, stopping: Callable[[], bool]) -> Inventory:
    """Read all index files and list all packs. Raises Damaged when an index file is, for then nothing is sure."""
    backend = repository.backend
    found = Inventory()
    for name, size in list(backend.list(FileKind.INDEX)):
        if stopping():
            raise Interrupted("stopped while the index was read")
        text = repository.load_file(FileKind.INDEX, name)
        found.file_sizes[name] = size
        try:
            found.files[name] = list(_read_index(text, found))
        except (Damaged, ValueError, struct.error) as error:
            raise Damaged(f"{FileKind.INDEX}/{name}: {error}") from None
    listed = dict(backend.list(FileKind.DATA))
    for pack, records in list(found.packs.items()):
        compressed = size = 0
        trees: dict[bytes, tuple[str, Record]] = {}
        for blob, kind, offset, length, plain_length in _RECORD.iter_unpack(records):
            size += length
            if plain_length:
                compressed += 1
            if kind:
                trees[blob] = (pack, Record(blob, kind, offset, length, plain_length))
        if listed.get(pack) == size + header_size(found.count(pack), compressed):
            found.sizes[pack] = listed[pack]
            found.trees.update(trees)
        else:
            del found.packs[pack]
            found.lost.add(pack)
    found.left_overs = {
        pack: size for pack, size in listed.items() if pack not in found.sizes and pack not in found.lost
    }
    return found


def _read_index(text: bytes, found: Inventory) -> Iterator[str]:
    """Add the packs of an index file; hand back their names."""
    packs = found.packs
    record, unhex = _RECORD.pack, bytes.fromhex
    for pack in decode_index(text).packs:
        records = b"".join(
            [
                record(unhex(blob.id), blob.type == "tree", blob.offset, blob.length, blob.uncompressed_length)
                for blob in pack.blobs
            ]
        )
        if packs.setdefault(pack.id, records) != records:
            found.split.add(pack.id)
            both = packs[pack.id] + records
            parts = (both[at : at + _RECORD.size] for at in range(0, len(both), _RECORD.size))
            packs[pack.id] = b"".join(dict.fromkeys(parts))
        yield pack.id


# What the snapshots need


class _Node(msgspec.Struct, gc=False):
    """What says which blobs a node needs; the rest of it is passed over."""

    type: str = ""
    content: list[str] | None = None
    subtree: str = ""


class _Tree(msgspec.Struct):
    nodes: list[_Node]


_DECODER = msgspec.json.Decoder(_Tree)


@dataclass(slots=True)
class Used:
    """The ids of the blobs that are needed. A tree and a file may have the same content: they are two blobs."""

    data: set[bytes] = field(default_factory=set)
    trees: set[bytes] = field(default_factory=set)


def used_blobs(
    repository: Repository,
    inventory: Inventory,
    roots: Iterable[bytes],
    read: Callable[[int], None],
    stopping: Callable[[], bool],
) -> Used:
    """All blobs that can be reached from these trees; each tree is read once, and `read` is told how many were.

    Raises Missing or Damaged when a tree is, and Interrupted.
    """
    used = Used()
    level = set(roots)
    with ThreadPoolExecutor(_READERS, "trees") as pool:
        while level:
            used.trees |= level
            below: set[bytes] = set()
            spans = _spans_of(inventory, level)
            for count, content, subtrees in work_ahead(pool, partial(_scan, repository), spans, stopping):
                used.data |= content
                below |= subtrees
                read(count)
            level = below - used.trees
    return used


def _spans_of(inventory: Inventory, trees: Iterable[bytes]) -> Iterator[Span]:
    by_pack: dict[str, list[Record]] = {}
    for tree in trees:
        place = inventory.trees.get(tree)
        if place is None:
            raise Missing(f"tree {tree.hex()} is in no pack that is there and that the index knows")
        by_pack.setdefault(place[0], []).append(place[1])
    for pack, blobs in by_pack.items():
        yield from spans(pack, blobs)


def _scan(repository: Repository, span: Span) -> tuple[int, set[bytes], set[bytes]]:
    """What the trees of a span need: their number, data blobs, trees."""
    content: set[bytes] = set()
    subtrees: set[bytes] = set()
    unhex = bytes.fromhex
    for blob, _, text in span.read(repository):
        for part in parts_of(text):
            try:
                nodes = _DECODER.decode(part).nodes
            except UNREADABLE as error:
                raise Damaged(f"tree {blob.id.hex()} can't be read ({error})") from None
            content.update(map(unhex, chain.from_iterable(node.content for node in nodes if node.content)))
            for node in nodes:
                if node.subtree:
                    subtrees.add(unhex(node.subtree))
                elif node.type == "dir":
                    raise Damaged(f"tree {blob.id.hex()} has a directory without a tree")
    return len(span.blobs), content, subtrees


# Reading many blobs


def spans(pack: str, blobs: Iterable[Record]) -> Iterator[Span]:
    """The blobs of a pack, put together where they lie close to each other."""
    group: list[Record] = []
    end = size = 0
    for blob in sorted(blobs, key=lambda blob: blob.offset):
        plain = max(blob.length, blob.plain_length)
        if group and (blob.offset - end > _GAP or size + plain > _SPAN):
            yield Span(pack, group)
            group, size = [], 0
        group.append(blob)
        size += plain
        end = blob.offset + blob.length
    if group:
        yield Span(pack, group)


def work_ahead(
    pool: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S], stopping: Callable[[], bool]
) -> Iterator[T]:
    """What `work` makes of each item, in order; a few are under way. Raises what it raises, and Interrupted."""
    under_way: deque[Future[T]] = deque()
    for item in items:
        if stopping():
            raise Interrupted("stopped between two reads")
        under_way.append(pool.submit(work, item))
        if len(under_way) > _AHEAD:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
