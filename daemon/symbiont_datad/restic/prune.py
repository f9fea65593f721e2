"""Removing what no snapshot needs: looking at what there is, and carrying out what prune_plan.py makes of it.

The order, which leaves the repository whole wherever a run is killed: new packs → new index files, which name exactly
the packs that stay → remove the old index files → remove the old packs. What a killed run leaves is blobs that lie in
two packs, and packs that no index names; the next run clears both away.

The caller holds the exclusive lock. Source: restic `doc/design.rst`, "Locks", and its manual, "Removing snapshots".
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import msgspec

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Interrupted, NoSpace
from symbiont_datad.restic.index import ROLL_OVER, Index
from symbiont_datad.restic.inventory import Record, Span, spans, take_inventory, used_blobs, work_ahead
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.prune_plan import Plan, Survey, weigh
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.writer import Writer

_PORTION = 1 << 30
"""At most so many bytes are packed anew before what they replace is removed: that much work a kill can cost."""
_PER_BLOB = 256
"""What a blob may take in a pack's header and in the index, in bytes."""
_READERS = 2
_REMOVERS = 4


@dataclass(slots=True)
class Progress:
    """How far a prune is; another thread may look at it. `bytes` and `bytes_total` of what is packed anew."""

    trees: int = 0
    bytes: int = 0
    bytes_total: int = 0
    packs_removed: int = 0

    def read(self, trees: int) -> None:
        """Count trees that were read."""
        self.trees += trees


@dataclass(slots=True)
class Pruned:
    """What was done: packs and bytes removed, packs and bytes packed anew, index files written.

    `left` are packs that were to be packed anew, but for which there is no room: `needed` bytes would have to be free.
    """

    packs_removed: int = 0
    bytes_removed: int = 0
    packs_repacked: int = 0
    bytes_added: int = 0
    left: tuple[str, ...] = ()
    needed: int = 0


def forget(repository: Repository, snapshots: Iterable[str]) -> None:
    """Remove snapshots, given by their whole ids. What only they need stays until a prune."""
    for name in snapshots:
        repository.backend.remove(FileKind.SNAPSHOT, name)


# What there is


def survey(
    repository: Repository,
    progress: Progress,
    stopping: Callable[[], bool],
    without: Collection[str] = (),
) -> Survey:
    """Look at every snapshot, tree, index file and the list of packs. `without`: ids of snapshots that will be gone.

    Raises Damaged or Missing when something is not there that a snapshot needs, or can't be read: then nothing may be
    pruned, for what looks unused may be what repairs it.
    """
    roots = {bytes.fromhex(found.tree) for name, found in repository.snapshots() if name not in without}
    inventory = take_inventory(repository, stopping)
    used = used_blobs(repository, inventory, roots, progress.read, stopping)
    return weigh(inventory, used)


# Carrying it out


def carry_out(
    repository: Repository, found: Survey, plan: Plan, progress: Progress, stopping: Callable[[], bool]
) -> Pruned:
    """Do what the plan says. Where space is short, bit by bit: what is freed makes room for the next.

    Raises Interrupted, NoSpace when not even an index file can be written, Damaged with its name for a blob that can't
    be moved because it is not whole (its pack stays). After each of these the repository is whole.
    """
    had_index = bool(repository.index_names)
    try:
        pruned = _Run(repository, found, plan, progress, stopping).run()
    finally:  # what the repository knew of its index is no longer so
        with repository.index_lock:
            repository.index = Index()
            repository.index_names = set()
    if had_index:
        repository.load_index()
    return pruned


class _Run:
    """One prune that is under way. `files`: the packs that each index file names, but for the new packs."""

    def __init__(
        self, repository: Repository, found: Survey, plan: Plan, progress: Progress, stopping: Callable[[], bool]
    ) -> None:
        self._repository = repository
        self._found = found
        self._inventory = found.inventory
        self._plan = plan
        self._progress = progress
        self._stopping = stopping
        self._files = dict(found.inventory.files)
        self._file_sizes = dict(found.inventory.file_sizes)
        self._uses = {pack.name: pack for pack in found.packs}
        self._pruned = Pruned()

    def run(self) -> Pruned:
        self._progress.bytes_total = self._plan.repack_bytes
        self._remove(FileKind.DATA, self._plan.left_overs)
        self._count_removed(self._plan.left_overs, self._inventory.left_overs)
        gone, merge = set(self._plan.remove), set(self._plan.merge)
        waiting = list(self._plan.repack)
        while gone or merge or waiting:
            portion, short = self._portion(waiting)
            if not (gone or merge or portion):
                self._pruned.left, self._pruned.needed = tuple(waiting), short
                break
            self._repack(portion)
            self._drop(gone | set(portion), merge)
            waiting = [pack for pack in waiting if pack not in portion]
            gone, merge = set(), set()
        return self._pruned

    # Room

    def _room(self) -> int | None:
        free = self._repository.backend.free()
        return None if free is None else free - self._plan.limits.reserve

    def _portion(self, waiting: list[str]) -> tuple[set[str], int]:
        """Packs whose needed blobs fit into what is free, and the space that is needed for the least of all (bytes)."""
        room = self._room()
        index = sum(self._file_sizes[name] for name in self._files)
        budget = _PORTION if room is None else min(_PORTION, room - index)
        chosen: set[str] = set()
        least = 0
        for pack in waiting:
            needed = self._uses[pack].used + _PER_BLOB * self._inventory.count(pack)
            least = min(least or needed, needed)
            if needed <= budget:
                budget -= needed
                chosen.add(pack)
        return chosen, least + index + self._plan.limits.reserve

    # New packs

    def _repack(self, packs: Collection[str]) -> None:
        """Copy the needed blobs, as they are sealed, into new packs, and have an index file name these."""
        if not packs:
            return
        with Writer(self._repository) as writer, ThreadPoolExecutor(_READERS, "repack") as pool:
            for blobs in work_ahead(pool, self._verified, self._spans(packs), self._stopping):
                for blob, sealed in blobs:
                    writer.store_sealed(blob.id, BlobType(blob.type), sealed, blob.plain_length)
                    self._progress.bytes += blob.length
        self._pruned.packs_repacked += len(packs)
        self._pruned.bytes_added += writer.added.packed

    def _verified(self, span: Span) -> list[tuple[Record, memoryview]]:
        """The sealed blobs of a span, each of which was opened to see that it is whole."""
        return [(blob, sealed) for blob, sealed, _ in span.read(self._repository)]

    def _spans(self, packs: Collection[str]) -> Iterator[Span]:
        used = (self._found.used.data, self._found.used.trees)
        for pack in packs:
            records = map(Record._make, self._inventory.blobs(pack))
            yield from spans(
                pack,
                (
                    blob
                    for blob in records
                    if blob.id in used[blob.type] and (pack, blob.offset) not in self._found.spare
                ),
            )

    # Old index files and packs

    def _drop(self, gone: set[str], merge: set[str]) -> None:
        """Make the index name none of these packs, then remove them."""
        affected = [name for name, packs in self._files.items() if name in merge or not gone.isdisjoint(packs)]
        if not affected:
            return
        room = self._room()
        if room is None or room > sum(self._file_sizes[name] for name in affected):
            self._replace(affected, gone)
            return
        # One at a time; first those of which nothing stays, for which nothing has to be written.
        rest = {
            name: sum(self._inventory.count(pack) for pack in set(self._files[name]) - gone)
            for name in affected
            if not gone.isdisjoint(self._files[name])
        }
        for name in sorted(rest, key=lambda name: rest[name]):
            self._replace([name], gone)

    def _replace(self, names: list[str], gone: set[str]) -> None:
        if self._stopping():
            raise Interrupted("stopped before an index file was replaced")
        elsewhere = {pack for name, packs in self._files.items() if name not in names for pack in packs}
        self._write_index(names, gone, set(elsewhere))
        self._remove(FileKind.INDEX, names)
        removable = {pack for name in names for pack in self._files.pop(name)} & gone - elsewhere
        self._remove(FileKind.DATA, removable)
        self._count_removed(removable, self._inventory.sizes)

    def _write_index(self, names: list[str], gone: set[str], named: set[str]) -> None:
        """Write the index files that stand in for these: the same packs without those that are gone, or `named`."""
        entries: dict[str, list[bytes]] = {}
        count = 0
        for name in names:
            for raw in _RAW_DECODER.decode(self._repository.load_file(FileKind.INDEX, name)).packs:
                pack = _NAME_DECODER.decode(raw).id
                if pack in gone or (pack in named and pack not in self._inventory.split):
                    continue
                named.add(pack)
                entries.setdefault(pack, []).append(bytes(raw))
                count += self._inventory.count(pack)
                if count >= ROLL_OVER:
                    self._save_index(entries)
                    entries, count = {}, 0
        if entries:
            self._save_index(entries)

    def _save_index(self, entries: dict[str, list[bytes]]) -> None:
        text = b'{"packs":[' + b",".join(chain.from_iterable(entries.values())) + b"]}"
        try:
            name = self._repository.save_file(FileKind.INDEX, text)
        except NoSpace as error:
            raise NoSpace(
                f"{error}; not even a new index can be written ({(len(text) >> 10) + 1} KiB at most), and before that "
                f"no pack may be removed. Free that much at {self._repository.backend.location}, without touching the "
                "repository's own files, and prune again"
            ) from None
        self._files[name] = list(entries)
        self._file_sizes[name] = len(text)

    def _remove(self, kind: FileKind, names: Collection[str]) -> None:
        if not names:
            return
        with ThreadPoolExecutor(_REMOVERS, "remove") as pool:
            for _ in pool.map(lambda name: self._repository.backend.remove(kind, name), names):
                pass

    def _count_removed(self, packs: Collection[str], sizes: Mapping[str, int]) -> None:
        self._pruned.packs_removed += len(packs)
        self._pruned.bytes_removed += sum(sizes.get(pack, 0) for pack in packs)
        self._progress.packs_removed += len(packs)


class _RawIndex(msgspec.Struct):
    packs: list[msgspec.Raw]


class _PackName(msgspec.Struct):
    id: str


_RAW_DECODER = msgspec.json.Decoder(_RawIndex)
_NAME_DECODER = msgspec.json.Decoder(_PackName)
