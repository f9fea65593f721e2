"""Removing what no snapshot needs: a plan, which is pure, and carrying it out.

The order, which leaves the repository whole wherever a run is killed: new packs → new index files, which name exactly
the packs that stay → remove the old index files → remove the old packs. What a killed run leaves is blobs that lie in
two packs, and packs that no index names; the next run clears both away.

The caller holds the exclusive lock. Source: restic `doc/design.rst`, "Locks", and its manual, "Removing snapshots".
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain

import msgspec

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, Interrupted, NoSpace
from symbiont_datad.restic.index import ROLL_OVER, Index
from symbiont_datad.restic.inventory import Inventory, Record, Span, Used, spans, take_inventory, used_blobs, work_ahead
from symbiont_datad.restic.pack import TARGET_SIZE, BlobType
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.writer import Writer

_FEW = 10
"""So many small packs of one kind, or small index files, are worth being put together."""
_MANY = 100
"""To be rid of so many files is worth a run, however little space that frees."""
_PORTION = 1 << 30
"""At most so many bytes are packed anew before what they replace is removed: that much work a kill can cost."""
_PER_BLOB = 256
"""What a blob may take in a pack's header and in the index, in bytes."""
_READERS = 2
_REMOVERS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """How thorough a prune is. `max_unused`: the share of all blobs' bytes that may stay although nothing needs it.

    `max_repack_bytes`: at most so many bytes of packs are packed anew. `small_pack`: packs below this size (bytes) are
    put together once there are ten of a kind. `reserve`: bytes of free space that are left to others meanwhile.
    """

    max_unused: float = 0.05
    max_repack_bytes: int | None = None
    small_pack: int = TARGET_SIZE // 4
    reserve: int = 4 << 20

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0 <= self.max_unused < 1:
            raise ValueError(f"the share that may stay unused is at least 0 and less than 1, not {self.max_unused}")


@dataclass(frozen=True, slots=True)
class PackUse:
    """How much of a pack is needed. `size` of the file, `used` and `unused` of its blobs, all in bytes.

    `kind` is None when tree and data blobs are mixed, as very old versions of restic wrote them.
    """

    name: str
    size: int
    used: int
    unused: int
    kind: BlobType | None

    @property
    def share(self) -> float:
        """The share of its blobs' bytes that nothing needs."""
        return self.unused / (self.used + self.unused)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prune does. Packs and index files by name; `reasons` says why for each that does not just stay.

    `remove`: packs of which nothing is needed. `repack`: packs whose needed blobs move to new ones, in this order.
    `left_overs`: packs that no index names. `merge`: small index files that are put together. Sizes in bytes.
    """

    keep: tuple[str, ...]
    remove: tuple[str, ...]
    repack: tuple[str, ...]
    left_overs: tuple[str, ...]
    merge: tuple[str, ...]
    reasons: Mapping[str, str]
    used_bytes: int
    unused_bytes: int
    unused_after: int
    removed_bytes: int
    repack_bytes: int
    limits: Limits

    @property
    def pays(self) -> bool:
        """Whether more than the allowed share is unused, or so many files can go that it is worth it anyway."""
        new = -(-self.repack_bytes // TARGET_SIZE)
        fewer = len(self.remove) + len(self.repack) + len(self.merge) - new
        return fewer >= _MANY or self.unused_bytes > self.limits.max_unused * (self.used_bytes + self.unused_bytes)

    def only_left_overs(self) -> "Plan":
        """The plan for when it doesn't pay: what killed runs left goes, and all else stays."""
        keep = self.keep + self.remove + self.repack
        reasons = {name: self.reasons[name] for name in self.left_overs}
        nothing = replace(self, keep=keep, remove=(), repack=(), merge=(), reasons=reasons)
        return replace(nothing, unused_after=self.unused_bytes, removed_bytes=0, repack_bytes=0)


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


@dataclass(frozen=True, slots=True)
class Survey:
    """What a plan is made from. `spare`: copies of needed blobs, as pack and offset, that are not needed themselves."""

    inventory: Inventory
    used: Used
    packs: tuple[PackUse, ...]
    spare: frozenset[tuple[str, int]]


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


def weigh(inventory: Inventory, used: Used) -> Survey:
    """How much of each pack is needed; of a blob that lies in several packs, one copy is. Raises Damaged.

    The needed copy is the one in the pack with the least that is needed by nobody: so what a killed run has packed anew
    wins over what it was taken from.
    """
    figures: dict[str, PackUse] = {}
    missing = (used.data, used.trees)
    found: tuple[set[bytes], set[bytes]] = (set(), set())
    copies: dict[tuple[int, bytes], list[tuple[float, str, int, int]]] = {}
    for pack in inventory.packs:
        needed = unneeded = 0
        kinds = set()
        for blob, kind, _, length, _ in inventory.blobs(pack):
            kinds.add(kind)
            if blob in missing[kind]:
                missing[kind].remove(blob)
                found[kind].add(blob)
                needed += length
            elif blob in found[kind]:
                copies[kind, blob] = []
                needed += length
            else:
                unneeded += length
        kind_of = BlobType(kinds.pop()) if len(kinds) == 1 else None
        figures[pack] = PackUse(pack, inventory.sizes[pack], needed, unneeded, kind_of)
    if missing[0] or missing[1]:
        raise _damage(inventory, missing)
    spare = _spare(inventory, figures, copies) if copies else frozenset()
    return Survey(inventory, Used(*found), tuple(figures.values()), spare)


def _spare(
    inventory: Inventory,
    figures: dict[str, PackUse],
    copies: dict[tuple[int, bytes], list[tuple[float, str, int, int]]],
) -> frozenset[tuple[str, int]]:
    """Choose the copies that are not needed, and count them as unused."""
    for pack in inventory.packs:
        for blob, kind, offset, length, _ in inventory.blobs(pack):
            if (kind, blob) in copies:
                copies[kind, blob].append((figures[pack].share, pack, offset, length))
    spare = set()
    for places in copies.values():
        for _, pack, offset, length in sorted(places)[1:]:
            spare.add((pack, offset))
            before = figures[pack]
            figures[pack] = replace(before, used=before.used - length, unused=before.unused + length)
    return frozenset(spare)


def _damage(inventory: Inventory, missing: tuple[set[bytes], set[bytes]]) -> Damaged:
    names = [f"{kind.word} blob {blob.hex()}" for kind in BlobType for blob in sorted(missing[kind])[:3]]
    why = f"; {len(inventory.lost)} packs are not there or not whole" if inventory.lost else ""
    return Damaged(
        f"{len(missing[0]) + len(missing[1])} blobs that snapshots need are missing ({', '.join(names)}{why}); nothing "
        "was pruned: run verify to see which files that concerns"
    )


# The plan


def plan(found: Survey, limits: Limits) -> Plan:
    """Decide what goes, what is packed anew and what stays. Pure.

    Packs with nothing needed go. Mixed packs, and small ones once there are ten, are packed anew; then those with the
    largest unused share, until not more than the allowed share stays unused.
    """
    reasons: dict[str, str] = dict.fromkeys(found.inventory.left_overs, "no index file names it")
    remove: list[str] = []
    kept: dict[str, PackUse] = {}
    for pack in found.packs:
        if pack.used:
            kept[pack.name] = pack
        else:
            remove.append(pack.name)
            reasons[pack.name] = "nothing in it is needed"
    for name in sorted(found.inventory.lost):
        remove.append(name)
        reasons[name] = "it is not there, or not whole, and nothing in it is needed"

    used = sum(pack.used for pack in found.packs)
    unused = sum(pack.unused for pack in found.packs)
    unused_after = sum(pack.unused for pack in kept.values())
    allowed = used * limits.max_unused / (1 - limits.max_unused)
    budget = limits.max_repack_bytes
    repack: list[PackUse] = []
    for pack, reason in _candidates(kept.values(), limits):
        if not reason and unused_after <= allowed:
            break
        if budget is not None and pack.size > budget:
            continue
        if budget is not None:
            budget -= pack.size
        unused_after -= pack.unused
        repack.append(pack)
        reasons[pack.name] = reason or f"{pack.share:.0%} of it is unused"
        del kept[pack.name]

    merge = tuple(sorted(_small_index_files(found.inventory)))
    reasons.update(dict.fromkeys(merge, "it is one of many small index files"))
    sizes = found.inventory.sizes
    return Plan(
        keep=tuple(kept),
        remove=tuple(remove),
        repack=tuple(pack.name for pack in repack),
        left_overs=tuple(found.inventory.left_overs),
        merge=merge,
        reasons=reasons,
        used_bytes=used,
        unused_bytes=unused,
        unused_after=unused_after,
        removed_bytes=sum(sizes.get(name, 0) for name in remove) + sum(pack.size for pack in repack),
        repack_bytes=sum(pack.used for pack in repack),
        limits=limits,
    )


def _candidates(packs: Collection[PackUse], limits: Limits) -> Iterator[tuple[PackUse, str]]:
    """Packs that may be packed anew, with the reason if there is one besides their unused share."""
    mixed = [pack for pack in packs if pack.kind is None]
    for pack in mixed:
        yield pack, "tree and data blobs are mixed in it"
    done = {pack.name for pack in mixed}
    for kind in BlobType:
        small = [pack for pack in packs if pack.kind is kind and pack.size < limits.small_pack]
        if len(small) >= _FEW:
            for pack in sorted(small, key=lambda pack: pack.size):
                yield pack, f"it is one of {len(small)} small packs"
            done.update(pack.name for pack in small)
    rest = [pack for pack in packs if pack.unused and pack.name not in done]
    for pack in sorted(rest, key=lambda pack: (-pack.share, pack.name)):
        yield pack, ""


def _small_index_files(inventory: Inventory) -> list[str]:
    counts = {name: sum(map(inventory.count, packs)) for name, packs in inventory.files.items()}
    small = [name for name, count in counts.items() if count < ROLL_OVER // 4]
    return small if len(small) >= _FEW else []


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
