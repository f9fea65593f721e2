"""What a prune would do: how much of each pack is needed, and what is to become of it. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.index import ROLL_OVER
from symbiont_datad.restic.inventory import Inventory, Used
from symbiont_datad.restic.pack import TARGET_SIZE, BlobType

_FEW = 10
"""So many small packs of one kind, or small index files, are worth being put together."""
_MANY = 100
"""To be rid of so many files is worth a run, however little space that frees."""


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


@dataclass(frozen=True, slots=True)
class Survey:
    """What a plan is made from. `spare`: copies of needed blobs, as pack and offset, that are not needed themselves."""

    inventory: Inventory
    used: Used
    packs: tuple[PackUse, ...]
    spare: frozenset[tuple[str, int]]


# What there is


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
