"""Pruning: nothing that is needed goes, whatever happens; what is not needed does."""

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing, NoSpace
from symbiont_datad.restic.index import decode_index, encode_index
from symbiont_datad.restic.inventory import Inventory, Used, take_inventory
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.pack import BlobType, Packer
from symbiont_datad.restic.prune import Progress, Pruned, carry_out, forget, survey
from symbiont_datad.restic.prune_plan import Limits, PackUse, Plan, Survey, plan
from symbiont_datad.restic.records import IndexFile, IndexPack
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import decode_tree
from symbiont_datad.restic.writer import Writer
from tests.restic.making import PASSWORD, exit_code_in_child, make_repository, read_snapshot, reopen, snapshot
from tests.support import Tree, build_tree, read_tree

THOROUGH = Limits(max_unused=0)


def never() -> bool:
    """Nobody wants it to stop."""
    return False


def prune(repository: Repository, limits: Limits = THOROUGH) -> Pruned:
    """Survey, plan and carry out."""
    found = survey(repository, Progress(), never)
    return carry_out(repository, found, plan(found, limits), Progress(), never)


class Made(NamedTuple):
    """A repository in which a prune has something to do, and what its snapshots hold."""

    path: Path
    trees: dict[str, Tree]

    def check(self, path: Path | None = None) -> None:
        """Fail unless each snapshot can be read whole, and no index names a pack that is not there."""
        repository = reopen(path or self.path)
        assert self.trees == {name: read_snapshot(repository, name) for name, _ in repository.snapshots()}
        assert set() == take_inventory(repository, never).lost


def noise(seed: int, size: int) -> bytes:
    """Bytes that can't be compressed."""
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Twelve snapshots, of which nine were forgotten; packs wholly, partly and not at all unused; left-overs."""
    path, source = tmp_path_factory.mktemp("pattern") / "repository", tmp_path_factory.mktemp("source")
    repository = make_repository(path)
    names, trees = [], {}
    for turn in range(12):
        files = {f"{i}.bin": noise(i if i % 4 else 1000 * turn + i, 3000) for i in range(8)}
        shutil.rmtree(source, ignore_errors=True)
        build_tree(source, {"files": files, f"turn {turn}": {"note": b"%d" % turn, "empty": b""}})
        names.append(snapshot(repository, source, pack_size=16_000))
        trees[names[-1]] = read_tree(source)
    forget(repository, names[:4] + names[5:10])
    repository.backend.save(FileKind.DATA, "ab" * 32, [b"a pack that no index names"])
    for directory in (path / "data").iterdir():
        if not any(directory.iterdir()):
            directory.rmdir()  # a copy is made faster without
    return Made(path, {name: trees[name] for name in (names[4], names[10], names[11])})


@pytest.fixture
def made(pattern: Made, tmp_path: Path) -> Made:
    """A copy of that repository."""
    return Made(shutil.copytree(pattern.path, tmp_path / "repository"), pattern.trees)


# What is kept and what goes


def test_what_is_not_needed_goes_and_all_else_stays(made: Made) -> None:
    """After a thorough prune the packs hold exactly what the snapshots need, and each snapshot is read whole."""
    before = dict(LocalBackend(str(made.path)).list(FileKind.DATA))

    pruned = prune(reopen(made.path))

    made.check()
    after = survey(reopen(made.path), Progress(), never)
    assert {pack.unused for pack in after.packs} == {0}
    assert {} == after.inventory.left_overs
    sizes = after.inventory.sizes
    assert pruned.bytes_removed == sum(size for pack, size in before.items() if pack not in sizes)
    assert pruned.packs_removed == len(before.keys() - sizes.keys())
    assert pruned.packs_repacked > 0


def test_a_second_prune_has_nothing_to_do(made: Made) -> None:
    """What was pruned stays as it is."""
    prune(reopen(made.path))

    assert Pruned() == prune(reopen(made.path))


def test_a_repository_without_snapshots_becomes_empty(made: Made) -> None:
    """When everything is forgotten, no pack and no index file is left."""
    repository = reopen(made.path)
    forget(repository, made.trees)

    prune(repository)

    assert [] == [*repository.backend.list(FileKind.DATA), *repository.backend.list(FileKind.INDEX)]


def test_the_same_repository_object_stores_again_what_was_pruned(made: Made, tmp_path: Path) -> None:
    """A snapshot made after a prune does not rely on blobs that went: what the object knew of its index is renewed."""
    repository = reopen(made.path)
    repository.load_index()
    source = build_tree(tmp_path / "other", {"gone": noise(2, 3000), "kept": noise(3, 3000)})
    forget(repository, made.trees)
    prune(repository)

    name = snapshot(repository, source)

    assert read_tree(source) == read_snapshot(reopen(made.path), name)


def test_snapshots_that_will_be_forgotten_can_be_left_out_of_account(made: Made) -> None:
    """A dry run tells what a prune would free after a forget that was not done."""
    repository = reopen(made.path)
    others = list(made.trees)[1:]

    found = survey(repository, Progress(), never, without=others)

    forget(repository, others)
    assert survey(repository, Progress(), never).packs == found.packs


def test_a_blob_in_two_packs_is_kept_once(made: Made) -> None:
    """Of two copies one is needed: that in the pack which holds less that nobody needs."""
    repository = reopen(made.path)
    prune(repository)
    whole = take_inventory(repository, never)
    repository.load_index()
    blobs = [blob for pack in whole.packs for blob, kind, *_ in whole.blobs(pack) if kind == BlobType.DATA]
    with Writer(repository) as writer:
        writer.store(BlobType.DATA, b"nobody needs this")
        for blob in blobs:
            assert writer.store_as(blob, BlobType.DATA, repository.load_blob(blob), again=True)

    prune(reopen(made.path))

    made.check()
    assert whole.packs.keys() == take_inventory(reopen(made.path), never).packs.keys()


def test_a_file_with_the_content_of_a_tree_does_not_hide_what_the_tree_needs(tmp_path: Path) -> None:
    """A tree and a file may be the same bytes, so the same id: what the tree points to stays all the same."""
    repository = make_repository(tmp_path / "repository")
    source = build_tree(tmp_path / "source", {"inner": {"file": b"only in the inner tree"}})
    name = snapshot(repository, source)
    root = decode_tree(repository.load_blob(bytes.fromhex(repository.snapshot(name).tree)))
    text = repository.load_blob(bytes.fromhex(root[0].subtree))
    build_tree(tmp_path / "other", {"a": text})
    other = snapshot(repository, tmp_path / "other")
    forget(repository, [])

    prune(repository)

    assert {"a": text} == read_snapshot(reopen(tmp_path / "repository"), other)
    assert read_tree(source) == read_snapshot(reopen(tmp_path / "repository"), name)


def test_mixed_packs_are_packed_anew_apart(tmp_path: Path) -> None:
    """A pack with trees and data, as very old versions of restic wrote them, becomes two."""
    repository = make_repository(tmp_path / "repository")
    source = build_tree(tmp_path / "source", {"file": b"content"})
    name = snapshot(repository, source)
    packer = Packer()
    found = take_inventory(repository, never)
    for pack in found.packs:
        for blob, kind, offset, length, plain in found.blobs(pack):
            packer.add(blob, BlobType(kind), repository.backend.load(FileKind.DATA, pack, offset, length), plain)
    save_pack(repository, packer)
    for pack in found.packs:
        repository.backend.remove(FileKind.DATA, pack)
    assert [None] == [pack.kind for pack in survey(repository, Progress(), never).packs if pack.used]

    prune(reopen(tmp_path / "repository"), Limits())

    again = reopen(tmp_path / "repository")
    assert {BlobType.DATA, BlobType.TREE} == {pack.kind for pack in survey(again, Progress(), never).packs}
    assert read_tree(source) == read_snapshot(again, name)


def save_pack(repository: Repository, packer: Packer) -> None:
    """Save a pack made by hand, and an index file that names it."""
    content = packer.finish(repository.key)
    pack = sha256(content).digest()
    repository.backend.save(FileKind.DATA, pack.hex(), [content])
    repository.save_file(FileKind.INDEX, encode_index([(pack, packer.blobs)]))


def test_an_index_written_twice_counts_once(made: Made) -> None:
    """A kill between new and old index files leaves packs that two of them name: their blobs count once."""
    repository = reopen(made.path)
    figures = survey(repository, Progress(), never).packs
    for name, _ in list(repository.backend.list(FileKind.INDEX)):
        repository.save_file(FileKind.INDEX, repository.load_file(FileKind.INDEX, name))

    assert sorted(figures, key=by_name) == sorted(survey(repository, Progress(), never).packs, key=by_name)

    prune(repository)
    made.check()


def by_name(pack: PackUse) -> str:
    """Its name."""
    return pack.name


def test_what_two_index_files_say_of_one_pack_is_taken_together(made: Made) -> None:
    """An index file may name part of a pack's blobs, and another one the rest."""
    repository = reopen(made.path)
    for name, _ in list(repository.backend.list(FileKind.INDEX)):
        index = decode_index(repository.load_file(FileKind.INDEX, name))
        repository.backend.remove(FileKind.INDEX, name)
        for half in (0, 1):
            packs = [IndexPack(pack.id, pack.blobs[half::2]) for pack in index.packs]
            repository.save_file(FileKind.INDEX, msgspec.json.encode(IndexFile(packs)))

    prune(repository, Limits(max_unused=0.3))

    made.check()


def test_many_small_index_files_become_one(tmp_path: Path) -> None:
    """Each backup adds an index file; ten small ones are put together."""
    repository = make_repository(tmp_path / "repository")
    names = [
        snapshot(repository, build_tree(tmp_path / "source", {"file": noise(turn, 100)}), pack_size=1)
        for turn in range(10)
    ]

    prune(repository, Limits(small_pack=0))

    assert 1 == len(list(repository.backend.list(FileKind.INDEX)))
    assert {"file": noise(4, 100)} == read_snapshot(reopen(tmp_path / "repository"), names[4])


def test_blobs_that_are_not_compressed_stay_so(tmp_path: Path) -> None:
    """Packing anew copies blobs as they are sealed, also where compression is on now."""
    path = tmp_path / "repository"
    source = tmp_path / "source"
    repository = make_repository(path, level=None)
    first = snapshot(repository, build_tree(source, {"a": b"a" * 5000, "b": b"b" * 5000}))
    (source / "a").unlink()
    second = snapshot(repository, source)
    forget(repository, [first])

    pruned = prune(reopen(path))

    assert pruned.packs_repacked
    inventory = take_inventory(reopen(path), never)
    assert {0} == {plain for pack in inventory.packs for *_, plain in inventory.blobs(pack)}
    assert {"b": b"b" * 5000} == read_snapshot(reopen(path), second)


# Damage


def files_of(path: Path) -> dict[str, bytes]:
    """Every file of a repository."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def needed_pack(repository: Repository) -> str:
    """A pack of which only a part is needed."""
    return max(survey(repository, Progress(), never).packs, key=lambda pack: (pack.used > 0, pack.unused)).name


@pytest.mark.parametrize("keep", [None, 100], ids=["gone", "cut short"])
def test_a_needed_blob_that_is_missing_stops_a_prune(made: Made, keep: int | None) -> None:
    """Where a pack is gone or cut short, a prune tells which blobs, and changes nothing."""
    repository = reopen(made.path)
    pack = needed_pack(repository)
    file = made.path / "data" / pack[:2] / pack
    if keep is None:
        file.unlink()
    else:
        os.truncate(file, keep)
    before = files_of(made.path)

    with pytest.raises(Damaged, match=r"blobs? that snapshots need (is|are) missing.*blob [0-9a-f]{64}.*verify"):
        prune(repository)

    assert before == files_of(made.path)


def test_a_tree_that_is_missing_stops_a_prune(made: Made) -> None:
    """Without a tree nobody knows what else is needed: nothing is changed."""
    repository = reopen(made.path)
    found = survey(repository, Progress(), never).inventory
    pack, _ = found.trees[bytes.fromhex(repository.snapshot(next(iter(made.trees))).tree)]
    repository.backend.remove(FileKind.DATA, pack)
    before = files_of(made.path)

    with pytest.raises(Missing, match=r"tree [0-9a-f]{64}"):
        prune(repository)

    assert before == files_of(made.path)


def test_an_index_file_that_is_damaged_stops_a_prune(made: Made) -> None:
    """Without one index file, packs look as if nobody needed them: nothing is changed."""
    file = next((made.path / "index").iterdir())
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = files_of(made.path)

    with pytest.raises(Damaged, match=f"index/{file.name}"):
        prune(reopen(made.path))

    assert before == files_of(made.path)


def test_damage_is_never_copied(made: Made) -> None:
    """A needed blob with a flipped bit is named, with its pack, which stays; no other snapshot suffers."""
    repository = reopen(made.path)
    found = survey(repository, Progress(), never)
    pack = needed_pack(repository)
    blob, offset = next(
        (blob, offset) for blob, _, offset, _, _ in found.inventory.blobs(pack) if blob in found.used.data
    )
    file = made.path / "data" / pack[:2] / pack
    content = bytearray(file.read_bytes())
    content[offset + 20] ^= 1
    file.write_bytes(content)
    packs = {name for name, _ in repository.backend.list(FileKind.DATA)} - {"ab" * 32}

    with pytest.raises(Damaged, match=f"data/{pack}: blob {blob.hex()}"):
        prune(repository)

    assert packs <= {name for name, _ in repository.backend.list(FileKind.DATA)}
    content[offset + 20] ^= 1
    file.write_bytes(content)
    made.check()


# The plan


def pack(name: str, used: int, unused: int, kind: BlobType | None = BlobType.DATA) -> PackUse:
    """A pack by its figures."""
    return PackUse(name, used + unused, used, unused, kind)


def planned(*packs: PackUse, limits: Limits | None = None, left_overs: dict[str, int] | None = None) -> Plan:
    """The plan for these packs, none of which is small unless `limits` says so."""
    inventory = Inventory(sizes={each.name: each.size for each in packs}, left_overs=left_overs or {})
    return plan(Survey(inventory, Used(), packs, frozenset()), limits or Limits(small_pack=0))


def test_the_emptiest_packs_are_packed_anew_until_little_is_unused() -> None:
    """Packs go by their unused share, and no more of them than it takes."""
    found = planned(pack("a", 900, 100), pack("b", 300, 700), pack("c", 990, 10), pack("d", 0, 1000))

    assert (("d",), ("b",), ("a", "c")) == (found.remove, found.repack, found.keep[:2])
    assert {"d": "nothing in it is needed", "b": "70% of it is unused"} == found.reasons
    assert (2190, 1810, 110, 2000, 300) == (
        found.used_bytes, found.unused_bytes, found.unused_after, found.removed_bytes, found.repack_bytes,
    )  # fmt: skip


def test_nothing_unused_stays_when_nothing_may() -> None:
    """With a share of 0 every pack that is not wholly needed is packed anew."""
    found = planned(pack("a", 999, 1), pack("b", 1000, 0), limits=Limits(max_unused=0, small_pack=0))

    assert (("a",), ("b",)) == (found.repack, found.keep)


def test_no_more_is_packed_anew_than_is_allowed() -> None:
    """A bound on the work is kept, also where more is unused than may be."""
    limits = Limits(max_unused=0, max_repack_bytes=1500, small_pack=0)

    found = planned(pack("a", 500, 500), pack("b", 600, 400), pack("c", 300, 100), limits=limits)

    assert (("a", "c"), ("b",)) == (found.repack, found.keep)


@pytest.mark.parametrize(("count", "expected"), [(9, 0), (10, 10)])
def test_ten_small_packs_of_a_kind_are_put_together(count: int, expected: int) -> None:
    """Fewer are not worth it: there is always one that is not full yet."""
    trees = [pack(f"t{i}", 10, 0, BlobType.TREE) for i in range(9)]
    data = [pack(f"d{i}", 10, 0) for i in range(count)]

    found = planned(*trees, *data, limits=Limits(small_pack=100))

    assert expected == len(found.repack)
    assert all(name.startswith("d") for name in found.repack)


def test_a_prune_pays_when_much_is_unused_or_many_files_can_go() -> None:
    """Above the allowed share, or for a hundred files."""
    assert not planned(pack("a", 960, 0), pack("b", 0, 40)).pays
    assert planned(pack("a", 940, 0), pack("b", 0, 60)).pays
    assert planned(*(pack(f"{i}", 10, 0) for i in range(101)), limits=Limits(small_pack=100)).pays


def test_left_overs_go_also_when_a_prune_does_not_pay() -> None:
    """Then they are all that goes."""
    found = planned(pack("a", 970, 10), pack("b", 0, 20), left_overs={"c": 7})

    only = found.only_left_overs()

    assert (("c",), (), (), ("a", "b")) == (only.left_overs, only.remove, only.repack, only.keep)
    assert ({"c": "no index file names it"}, 30, 0) == (only.reasons, only.unused_after, only.removed_bytes)


def test_a_share_that_is_none_is_refused() -> None:
    """All of a repository can't be allowed to be unused."""
    with pytest.raises(ValueError, match=r"less than 1, not 1\.5"):
        Limits(max_unused=1.5)


# Stopping, dying, no room


class Watched:
    """A backend that does something before every save and remove."""

    def __init__(self, backend: Backend, before: Callable[[], None]) -> None:
        self._backend = backend
        self._before = before
        self._lock = threading.Lock()
        self.location = backend.location
        self.load = backend.load
        self.list = backend.list
        self.create = backend.create

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """As the protocol has it."""
        with self._lock:
            self._before()
        self._backend.save(kind, name, parts)

    def remove(self, kind: FileKind, name: str) -> None:
        """As the protocol has it."""
        with self._lock:
            self._before()
        self._backend.remove(kind, name)

    def free(self) -> int | None:
        """As the protocol has it."""
        return self._backend.free()


def dies_at(path: Path, number: int) -> bool:
    """Prune in a child process that is gone at once before its save or remove of that number; whether it came there."""

    def count() -> None:
        nonlocal number
        number -= 1
        if number == 0:
            os._exit(9)

    code = exit_code_in_child(lambda: prune(reopen(Watched(LocalBackend(str(path)), count))))
    assert code in (0, 9)
    return code == 9


def moments_of_death(made: Made, at: Path, step: int = 1) -> Iterator[int]:
    """A copy of the repository at `at`, pruned until it died before each save and remove in turn."""
    number = 1
    while True:
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(made.path, at, copy_function=os.link)  # a repository's files are never written to again
        if not dies_at(at, number):
            break
        yield number
        number += step
    assert number > 20  # there was something to do


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_every_snapshot_whole(made: Made, tmp_path: Path) -> None:
    """Whichever save or remove is never done: all can be read, and the next prune brings it to the same end."""
    prune(reopen(shutil.copytree(made.path, tmp_path / "pruned")))
    expected = needed(tmp_path / "pruned")

    for _ in moments_of_death(made, tmp_path / "killed"):
        made.check(tmp_path / "killed")
        prune(reopen(tmp_path / "killed"))
        made.check(tmp_path / "killed")
        assert expected == needed(tmp_path / "killed")


def needed(path: Path) -> list[tuple[bytes, int]]:
    """Every blob of a repository as often as it is there, with its type."""
    inventory = take_inventory(reopen(path), never)
    assert {} == inventory.left_overs
    return sorted((blob, kind) for pack in inventory.packs for blob, kind, *_ in inventory.blobs(pack))


def is_stopped(path: Path, patience: int) -> bool:
    """Prune, and ask it to stop after it has looked so many times whether it should; whether it did."""
    asked = [False] * patience + [True]
    repository = reopen(path)
    found = survey(repository, Progress(), never)
    try:
        carry_out(repository, found, plan(found, THOROUGH), Progress(), lambda: asked.pop(0))
    except Interrupted:
        return True
    return False


def test_a_prune_can_be_stopped_at_any_time(made: Made) -> None:
    """Asked to stop, it stops; what it did so far counts, and another one ends it."""
    patience = 0
    while is_stopped(made.path, patience):
        made.check()
        patience += 1
    assert 3 == patience  # before the first blobs move, before the next, and before the index is replaced
    assert Pruned() == prune(reopen(made.path))


def test_a_survey_can_be_stopped(made: Made) -> None:
    """Reading index and trees takes a while; that can be ended too."""
    with pytest.raises(Interrupted):
        survey(reopen(made.path), Progress(), lambda: True)


class Small(LocalBackend):
    """A directory on a disk of so many bytes."""

    def __init__(self, path: Path, capacity: int) -> None:
        super().__init__(str(path))
        self._files, self._capacity = path, capacity

    def free(self) -> int | None:
        """What is left of it."""
        return self._capacity - sum(file.stat().st_size for file in self._files.rglob("*") if file.is_file())

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """As the protocol has it."""
        if (self.free() or 0) < sum(map(len, parts)):
            raise NoSpace(f"can't save {kind}/{name}: no space left on device")
        super().save(kind, name, parts)


def size_of(path: Path) -> int:
    """The bytes of all files of a repository."""
    return sum(map(len, files_of(path).values()))


def test_where_space_is_short_a_prune_goes_bit_by_bit(made: Made) -> None:
    """What the first packs free makes room for the next: it takes no more than is free at any time."""
    backend = Small(made.path, size_of(made.path) + 24_000)

    pruned = prune(reopen(backend), Limits(max_unused=0, reserve=1000))

    assert (0, ()) == (pruned.needed, pruned.left)
    made.check()
    assert {0} == {pack.unused for pack in survey(reopen(made.path), Progress(), never).packs}


def test_on_a_full_disk_what_is_wholly_unused_goes_first(made: Made) -> None:
    """Left-overs, then packs that need no more than a shorter index: so there is room for the rest."""
    backend = Small(made.path, size_of(made.path))

    pruned = prune(reopen(backend), Limits(max_unused=0, reserve=1000))

    assert pruned.packs_repacked
    made.check()
    assert {0} == {pack.unused for pack in survey(reopen(made.path), Progress(), never).packs}


def test_packs_for_which_there_is_no_room_are_left(made: Made) -> None:
    """A prune that can't move what is needed does what it can, and tells how much has to be free."""
    reserve = 10 << 20
    backend = Small(made.path, size_of(made.path) + 10_000)

    pruned = prune(reopen(backend), Limits(max_unused=0, reserve=reserve))

    made.check()
    assert pruned.packs_removed
    assert pruned.left
    assert reserve < pruned.needed < reserve + 30_000


def test_without_room_for_an_index_nothing_goes_and_the_user_is_told(tmp_path: Path) -> None:
    """Not a byte is free, and all that could go is named by the index file that the rest needs."""
    path = tmp_path / "repository"
    repository = make_repository(path)
    source = build_tree(tmp_path / "source", {"a": noise(1, 3000), "b": noise(2, 3000)})
    first = snapshot(repository, source, pack_size=1000)
    forget(repository, [first])
    snapshot(repository, build_tree(tmp_path / "half", {"a": noise(1, 3000)}))
    before = files_of(path)

    with pytest.raises(NoSpace, match=r"not even a new index can be written.*Free that much"):
        prune(reopen(Small(path, size_of(path))), Limits(max_unused=0, reserve=0))

    assert before == files_of(path)


def fill(path: Path) -> None:
    """Write to a file until not a block is free."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_full_file_system_can_be_pruned(made: Made, tmp_path: Path) -> None:
    """On a real file system without a free block a prune makes room, and all that stays is whole."""
    at = tmp_path / "full"
    at.mkdir()
    size = size_of(made.path) + (1 << 20)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], timeout=10).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        shutil.copytree(made.path, at / "repository")
        (at / "repository/data/ab" / ("ab" * 32)).unlink()
        fill(at / "agents' data")
        repository = reopen(at / "repository")
        assert 0 == repository.backend.free()

        pruned = prune(repository, Limits(max_unused=0, reserve=0))

        assert pruned.packs_repacked
        made.check(at / "repository")
        assert {0} == {pack.unused for pack in survey(reopen(at / "repository"), Progress(), never).packs}
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True, timeout=10)


# With restic


def restics() -> list[str]:
    """The versions of restic that are here."""
    found = [path for path in (os.environ.get("DATAD_RESTIC"), shutil.which("restic")) if path]
    if not found:
        pytest.skip("restic is not installed")
    return list(dict.fromkeys(found))


def restic(program: str, path: Path, *arguments: str) -> str:
    """What restic prints. Fails when it does."""
    done = subprocess.run(
        [program, "--no-cache", "-r", str(path), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(path.parent), "RESTIC_PASSWORD": PASSWORD},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_restic_finds_no_fault_after_a_prune(made: Made, tmp_path: Path) -> None:
    """Real restic reads all that a prune leaves, prunes it itself, and we prune what restic has pruned."""
    prune(reopen(made.path))
    for number, program in enumerate(restics()):
        path = shutil.copytree(made.path, tmp_path / f"{number}")
        assert "no errors were found" in restic(program, path, "check", "--read-data")
        gone, *_ = made.trees
        restic(program, path, "forget", gone)
        restic(program, path, "prune", "--max-unused", "0")
        restic(program, path, "backup", str(build_tree(tmp_path / "source", {"a": noise(1, 3000), "b": noise(77, 99)})))
        names = [name for name, _ in reopen(path).snapshots() if name not in made.trees]
        prune(reopen(path))
        assert "no errors were found" in restic(program, path, "check", "--read-data")
        forget(reopen(path), names)
        prune(reopen(path))
        assert "no errors were found" in restic(program, path, "check", "--read-data")
        Made(path, {name: tree for name, tree in made.trees.items() if name != gone}).check()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_restic_finds_no_fault_after_a_kill(made: Made, tmp_path: Path) -> None:
    """Wherever a prune was killed, real restic reads everything; restic, or we, end the work."""
    programs = restics()
    for number in moments_of_death(made, tmp_path / "killed", step=5):
        for program in programs:
            assert "no errors were found" in restic(program, tmp_path / "killed", "check", "--read-data")
        if number % 2:
            prune(reopen(tmp_path / "killed"))
        else:
            restic(programs[0], tmp_path / "killed", "prune", "--max-unused", "0")
        made.check(tmp_path / "killed")
        assert "no errors were found" in restic(programs[0], tmp_path / "killed", "check", "--read-data")


@pytest.mark.slow
def test_a_repository_of_version_1_is_pruned(tmp_path: Path) -> None:
    """What restic made without compression is packed anew without, and restic reads it."""
    source = tmp_path / "source"
    for number, program in enumerate(restics()):
        path = tmp_path / f"{number}"
        restic(program, path, "init", "--repository-version", "1")
        build_tree(source, {"a": b"a" * 9000, "b": b"b" * 9000})
        restic(program, path, "backup", str(source))
        (source / "a").unlink()
        restic(program, path, "backup", str(source))
        repository = reopen(path)
        snapshots = sorted(repository.snapshots(), key=lambda pair: pair[1].at)
        forget(repository, [snapshots[0][0]])

        assert prune(repository).packs_repacked

        assert "no errors were found" in restic(program, path, "check", "--read-data")
        assert {"b": b"b" * 9000} == read_snapshot(reopen(path), snapshots[1][0])


def test_an_index_of_many_blobs_is_divided(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more is left of index files than one may name, several stand in for them; nothing is lost between two."""

    def indexes(path: Path, at_most: int) -> int:
        repository = reopen(path)
        found = survey(repository, Progress(), never)
        planned = plan(found, THOROUGH)
        with monkeypatch.context() as patch:
            patch.setattr("symbiont_datad.restic.prune.ROLL_OVER", at_most)
            carry_out(repository, found, planned, Progress(), never)
        made.check(path)
        assert 0 == prune(reopen(path)).packs_removed
        return len(list((path / "index").iterdir()))

    whole = indexes(shutil.copytree(made.path, tmp_path / "whole"), 50_000)
    assert whole < indexes(made.path, 1)
