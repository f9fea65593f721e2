"""Checks: every damage is found, named, and told apart from what it doesn't hurt; beside restic's own verdict."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.restic import scrub
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.checker import Checked, Progress, check
from symbiont_datad.restic.errors import Interrupted, Missing, RepositoryError, Unavailable
from symbiont_datad.restic.index import encode_index
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.pack import BlobType, PackedBlob, Packer
from symbiont_datad.restic.records import Lock, Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.subset import due, subset
from symbiont_datad.restic.tree import Node, encode_node, encode_tree
from symbiont_datad.restic.writer import Writer
from tests.restic.making import IDENTITY, PASSWORD, make_repository, reopen, snapshot
from tests.support import build_tree

NOISE = random.Random(3)
NOW = "2026-11-23T10:00:00Z"


@dataclass(frozen=True)
class Made:
    """A repository of two snapshots, `first` and `second`, that share most of what they hold."""

    path: Path
    first: str
    second: str

    def files(self) -> list[Path]:
        """Every file of it."""
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def of(self, kind: str) -> list[Path]:
        """The files of a kind, without the config."""
        return [path for path in self.files() if path.relative_to(self.path).parts[0] == kind]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small repository with packs of a few blobs, two index files, two keys and a lock; not to be changed."""
    root = tmp_path_factory.mktemp("master")
    text = b"the same line again\n" * 40
    files = {f"{number}.json": text + b"%d" % number for number in range(12)}
    source = build_tree(root / "source", {"state": files, "big": {"noise": NOISE.randbytes(9000)}, "empty": b""})
    repository = make_repository(root / "repository")
    first = snapshot(repository, source, pack_size=2000)
    (source / "state" / "new.json").write_bytes(text + b"new")
    second = snapshot(repository, source, pack_size=2000)
    repository.add_key("another password", IDENTITY, 0.0)
    repository.write_lock(Lock(NOW, False, "elsewhere", "anna", 1))
    return Made(root / "repository", first, second)


@pytest.fixture
def made(master: Made, tmp_path: Path) -> Made:
    """A copy of the small repository, to be damaged."""
    shutil.copytree(master.path, tmp_path / "repository")
    return Made(tmp_path / "repository", master.first, master.second)


def check_all(repository: Repository) -> Checked:
    """Structure and all data."""
    return check(repository, choose=subset("all", NOISE))


def named(checked: Checked) -> set[str]:
    """The files that are named in problems which are not harmless."""
    return {problem.file for problem in checked.problems if not problem.harmless}


def relative(made: Made, path: Path) -> str:
    """How a check names a file."""
    parts = path.relative_to(made.path).parts
    return parts[0] if len(parts) == 1 else f"{parts[0]}/{parts[-1]}"


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def found_after_flip(made: Made, opened: Repository, path: Path, bit: int) -> bool:
    """Whether a check names the file while this bit of it is flipped; or, for what all else needs, opening does."""
    name = relative(made, path)
    flip(path, bit)
    try:
        with suppress(RepositoryError):
            return name in named(check_all(reopen(made.path)))
        with pytest.raises(RepositoryError, match=name):
            reopen(made.path)
        # What is open already must find it as well.
        fresh = Repository(opened.backend, opened.key, opened.key_name, opened.config, opened.level)
        return name in named(check_all(fresh))
    finally:
        flip(path, bit)


class TestWhole:
    """What is well is told to be well."""

    def test_nothing_wrong(self, made: Made) -> None:
        """A whole repository has no problem, and every pack of it is verified."""
        checked = check_all(reopen(made.path))
        assert () == checked.problems
        assert checked.whole
        assert {path.name for path in made.of("data")} == set(checked.packs) == set(checked.verified)

    def test_without_data(self, made: Made) -> None:
        """Without a choice of packs none is read, and none counts as verified."""
        checked = check(reopen(made.path))
        assert ((), ()) == (checked.problems, checked.verified)

    def test_empty(self, tmp_path: Path) -> None:
        """A repository without a snapshot is whole."""
        assert () == check_all(make_repository(tmp_path / "repository")).problems

    def test_uncompressed(self, tmp_path: Path) -> None:
        """Blobs that are stored as they are can be checked too."""
        repository = make_repository(tmp_path / "repository", level=None)
        snapshot(repository, build_tree(tmp_path / "source", {"a": b"a" * 5000, "b": {"c": b"c"}}))
        assert () == check_all(reopen(tmp_path / "repository")).problems

    @pytest.mark.parametrize("first", ["data", "trees"])
    def test_same_bytes_as_data_and_tree(self, tmp_path: Path, first: str) -> None:
        """A file whose content is a tree's text is stored beside that tree, as a blob of the other kind."""
        repository = make_repository(tmp_path / "repository")
        empty = b'{"nodes":[]}\n'
        blob = sha256(empty).digest()
        data, trees = Packer(), Packer()
        data.add(blob, BlobType.DATA, repository.key.seal(empty), 0)
        root = tree(file_node(size=len(empty), content=[blob.hex()]), node(name="b", type="dir", subtree=blob.hex()))
        trees.add(blob, BlobType.TREE, repository.key.seal(empty), 0)
        trees.add(sha256(root).digest(), BlobType.TREE, repository.key.seal(root), 0)
        packers = (data, trees) if first == "data" else (trees, data)
        save_index(repository, *(save_pack(repository, packer) for packer in packers))
        repository.save_snapshot(Snapshot(NOW, sha256(root).hexdigest(), ["/"]))
        assert () == check_all(reopen(tmp_path / "repository")).problems

    def test_progress(self, made: Made) -> None:
        """At the end, progress has counted every byte of every pack's blobs."""
        progress = Progress()
        checked = check(reopen(made.path), choose=sorted, progress=progress)
        assert len(checked.packs) == progress.files == progress.total_files
        assert 0 < progress.bytes <= progress.total_bytes == sum(checked.packs.values())

    def test_stop(self, made: Made) -> None:
        """A check that is told to stop does so, wherever it is."""
        asked, most = 0, 1 << 30

        def stopping() -> bool:
            nonlocal asked
            asked += 1
            return asked > most

        check(reopen(made.path), choose=sorted, stopping=stopping)
        times = asked
        assert times > 10
        for most in range(0, times, 3):  # noqa: B007  # `stopping` uses it
            asked = 0
            with pytest.raises(Interrupted):
                check(reopen(made.path), choose=sorted, stopping=stopping)


class TestProcesses:
    """Much data of a repository in a directory is read by processes; what they find is the same."""

    @pytest.fixture(autouse=True)
    def _always(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scrub, "_MANY", 0)

    def test_damage_is_found(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whole packs are read whole; a flipped bit and a pack that has gone are told as they are without processes."""
        found = check_all(reopen(made.path))
        assert ((), sorted(found.packs)) == (found.problems, sorted(found.verified))
        flip(made.of("data")[0], 80)
        made.of("data")[1].unlink()
        problems = check_all(reopen(made.path)).problems
        monkeypatch.setattr(scrub, "_MANY", 1 << 40)
        assert check_all(reopen(made.path)).problems == problems
        assert 2 <= len(problems)

    def test_a_pack_that_goes_meanwhile(self, made: Made) -> None:
        """It was there when the packs were listed."""
        goes = made.of("data")[0]
        asked = 0

        def choose(_packs: Mapping[str, int]) -> list[str]:
            nonlocal asked
            asked += 1  # before the processes start, and when all is listed
            if asked == 2:
                goes.unlink()
            return [goes.name]

        assert relative(made, goes) in named(check(reopen(made.path), choose=choose))


class TestFlippedBits:
    """A flipped bit anywhere in any file is found, and the file is named."""

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.slow)])
    def test_random_bits(self, made: Made, count: int) -> None:
        """So many random bits over all files, the large ones hit more often; and each file at least once."""
        opened = reopen(made.path)
        files = made.files()
        sizes = [path.stat().st_size for path in files]
        positions = [(path, NOISE.randrange(8 * size)) for path, size in zip(files, sizes, strict=True)]
        for path in NOISE.choices(files, sizes, k=count - len(files)):
            positions.append((path, NOISE.randrange(8 * path.stat().st_size)))
        missed = [(path, bit) for path, bit in positions if not found_after_flip(made, opened, path, bit)]
        assert [] == missed
        assert () == check_all(reopen(made.path)).problems

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_every_byte(self, made: Made) -> None:
        """A bit of every single byte of the config, and of a key, a lock and a snapshot."""
        opened = reopen(made.path)
        kinds = ("keys", "locks", "snapshots")
        for path in [
            made.path / "config",
            *(min(made.of(kind), key=lambda path: path.stat().st_size) for kind in kinds),
        ]:
            bits = [8 * at + NOISE.randrange(8) for at in range(path.stat().st_size)]
            assert [] == [bit for bit in bits if not found_after_flip(made, opened, path, bit)]

    def test_pack_length_and_header(self, made: Made) -> None:
        """A bit of the header's length, of its seal and of its entries: none of the blobs is hurt by that."""
        path = made.of("data")[0]
        size = path.stat().st_size
        for back in (1, 4, 5, 20, 21, 60):
            flip(path, 8 * (size - back))
            (problem,) = check_all(reopen(made.path)).problems
            assert f"data/{path.name}" == problem.file
            assert "; 0 of its " in problem.reason
            assert () == problem.snapshots
            flip(path, 8 * (size - back))


class TestWhatIsHurt:
    """A problem tells which snapshots it hurts, and where; and hides no other."""

    def test_shared_and_own(self, made: Made) -> None:
        """Damage to what both snapshots hold hurts both; damage to what one has hurts that one. Paths are named."""
        repository = reopen(made.path)
        repository.load_index()
        for content, hurt in (
            (b"the same line again\n" * 40 + b"3", {made.first, made.second}),
            (b"the same line again\n" * 40 + b"new", {made.second}),
        ):
            place = repository.find(sha256(content).digest())
            assert place is not None
            path = made.path / "data" / place.pack.hex()[:2] / place.pack.hex()
            flip(path, 8 * place.offset + 77)
            (problem,) = check_all(reopen(made.path)).problems
            assert "1 of its" in problem.reason
            assert hurt == set(problem.snapshots)
            (where,) = problem.paths
            assert where.endswith("/state/new.json" if len(hurt) == 1 else "/state/3.json")
            flip(path, 8 * place.offset + 77)

    def test_snapshots_of_the_same_tree(self, made: Made) -> None:
        """Each of them is hurt."""
        repository = reopen(made.path)
        same = repository.save_snapshot(repository.snapshot(made.second))
        repository.load_index()
        place = repository.find(sha256(b"the same line again\n" * 40 + b"new").digest())
        assert place is not None
        flip(made.path / "data" / place.pack.hex()[:2] / place.pack.hex(), 8 * place.offset + 77)
        (problem,) = check_all(reopen(made.path)).problems
        assert {made.second, same} == set(problem.snapshots)

    def test_damage_hides_no_other(self, made: Made) -> None:
        """A damaged index file, snapshot, key, lock and pack are all found in one run."""
        damaged = [made.of(kind)[0] for kind in ("index", "snapshots", "locks", "data")]
        damaged.append(next(path for path in made.of("keys") if path.name != reopen(made.path).key_name))
        for path in damaged:
            flip(path, 99)
        assert {relative(made, path) for path in damaged} <= named(check_all(reopen(made.path)))

    def test_snapshot(self, made: Made) -> None:
        """A damaged snapshot hurts itself only."""
        flip(made.path / "snapshots" / made.first, 200)
        (problem,) = check_all(reopen(made.path)).problems
        assert (f"snapshots/{made.first}", (made.first,)) == (problem.file, problem.snapshots)

    def test_lost_packs(self, made: Made) -> None:
        """All packs are gone: both snapshots are hurt, whether or not data is read."""
        for path in made.of("data"):
            path.unlink()
        for checked in (check(reopen(made.path)), check_all(reopen(made.path))):
            assert {f"data/{path.name}" for path in made.of("data")} <= named(checked)
            assert {made.first, made.second} == {name for problem in checked.problems for name in problem.snapshots}
            assert not checked.whole

    def test_lost_index(self, made: Made) -> None:
        """Without an index file, what needs its blobs is told with the snapshots, and its packs are only a hint."""
        made.of("index")[0].unlink()
        checked = check(reopen(made.path))
        hurting = [problem for problem in checked.problems if not problem.harmless]
        assert hurting
        assert all(problem.snapshots for problem in hurting)
        assert all(problem.file.startswith(("tree ", "snapshots/")) for problem in hurting)
        assert any(problem.file.startswith("data/") for problem in checked.problems if problem.harmless)

    @pytest.mark.parametrize("size", [0, 3, 30, 500])
    def test_truncated_pack(self, made: Made, size: int) -> None:
        """A pack that was cut off is found by its size, without reading data; only what was behind the cut is lost."""
        path = max(made.of("data"), key=lambda path: path.stat().st_size)
        os.truncate(path, size)
        for checked in (check(reopen(made.path)), check_all(reopen(made.path))):
            assert f"data/{path.name}" in named(checked)
            assert any(f"it has {size} bytes instead of" in problem.reason for problem in checked.problems)

    def test_grown_pack(self, made: Made) -> None:
        """A pack that grew has lost nothing, and is a problem all the same."""
        path = made.of("data")[0]
        with path.open("ab") as file:
            file.write(bytes(7))
        (problem,) = check(reopen(made.path)).problems
        assert f"data/{path.name}" == problem.file
        assert "; 0 of its " in problem.reason

    def test_copy_in_another_pack(self, made: Made) -> None:
        """A blob that another pack holds too is not lost with its pack."""
        repository = reopen(made.path)
        repository.load_index()
        content = b"the same line again\n" * 40 + b"3"
        with Writer(repository) as writer:
            writer.store_as(sha256(content).digest(), BlobType.DATA, content, again=True)
        places = list(repository.index.places(sha256(content).digest()))
        assert 2 == len(places)
        assert () == check_all(reopen(made.path)).problems
        place = next(place for place in places if place.offset or len(places))
        path = made.path / "data" / place.pack.hex()[:2] / place.pack.hex()
        flip(path, 8 * place.offset + 300)
        (problem,) = check_all(reopen(made.path)).problems
        assert "1 of them are in another pack too" in problem.reason
        assert () == problem.snapshots


class TestHints:
    """What takes space and hurts nothing is harmless."""

    def test_pack_without_index(self, made: Made) -> None:
        """A pack that no index file names is what a killed run leaves."""
        repository = reopen(made.path)
        packer = Packer()
        packer.add(sha256(b"x").digest(), BlobType.DATA, repository.key.seal(b"x"), 0)
        pack, _ = save_pack(repository, packer)
        checked = check_all(reopen(made.path))
        (problem,) = checked.problems
        assert (f"data/{pack.hex()}", True) == (problem.file, problem.harmless)
        assert checked.whole
        assert pack.hex() in checked.verified

    def test_two_indexes_say_the_same(self, made: Made) -> None:
        """Two index files that name the same pack: a hint."""
        repository = reopen(made.path)
        text = repository.load_file(FileKind.INDEX, made.of("index")[0].name)
        repository.save_file(FileKind.INDEX, text)
        checked = check_all(reopen(made.path))
        assert checked.problems
        assert checked.whole


PLAIN = Node(name="a", type="file", mtime=NOW, atime=NOW, ctime=NOW, uid=0, gid=0, content=None)


def node(**fields: object) -> bytes:
    """An entry of a tree: `PLAIN` with other fields."""
    return encode_node(msgspec.structs.replace(PLAIN, **fields))


def file_node(**fields: object) -> bytes:
    """A file's entry; empty unless `size` and `content` say otherwise."""
    return node(**({"content": []} | fields))


def tree(*nodes: bytes) -> bytes:
    """A tree's text."""
    return encode_tree(nodes)


def save_pack(repository: Repository, packer: Packer) -> tuple[bytes, list[PackedBlob]]:
    """Save a pack, but not its index."""
    content = bytes(packer.finish(repository.key))
    pack = sha256(content)
    repository.backend.save(FileKind.DATA, pack.hexdigest(), [content])
    return pack.digest(), packer.blobs


def save_index(repository: Repository, *packs: tuple[bytes, list[PackedBlob]]) -> str:
    """Save an index file that names these packs."""
    return repository.save_file(FileKind.INDEX, encode_index(packs))


UNKNOWN = "ab" * 32


class TestMalformed:
    """What is sealed and named rightly, but makes no sense: nobody but a faulty program writes that."""

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (tree(file_node(name="b"), file_node(name="a")), "out of order"),
            (tree(file_node(), file_node()), "out of order"),
            (tree(file_node(name="..")), "no name"),
            (tree(file_node(name="a/b")), "no name"),
            (tree(file_node(name="")), "no name"),
            (tree(file_node(name="a\\qb")), "can't be read"),
            (tree(node(content=None)), "without a list"),
            (tree(file_node(content=[UNKNOWN])), "no pack of the index"),
            (tree(file_node(content=["abc"])), "no id"),
            (tree(file_node(content=["x" * 64])), "no id"),
            (tree(file_node(size=5)), "0 bytes"),
            (tree(node(type="dir")), "without a tree"),
            (tree(node(type="dir", subtree=UNKNOWN)), "no pack of the index"),
            (tree(node(type="door")), "'door' is no type"),
            (b'{"nodes":[{"name":"a","type":"file"}]}\n', "'a': "),
            (b'{"nodes":7}\n', "can't be read"),
        ],
    )
    def test_tree(self, tmp_path: Path, text: bytes, reason: str) -> None:
        """A tree that is not as trees must be is named, and the reason says why."""
        repository = make_repository(tmp_path / "repository")
        with Writer(repository) as writer:
            blob, _ = writer.store(BlobType.TREE, text)
        name = repository.save_snapshot(Snapshot(NOW, blob.hex(), ["/"]))
        (problem,) = check_all(reopen(tmp_path / "repository")).problems
        assert f"tree {blob.hex()}" == problem.file
        assert reason in problem.reason
        assert (name,) == problem.snapshots

    def test_many_faults(self, tmp_path: Path) -> None:
        """Of a tree with a thousand faults only some are told, and how many there are."""
        repository = make_repository(tmp_path / "repository")
        with Writer(repository) as writer:
            blob, _ = writer.store(BlobType.TREE, tree(*(file_node(name=f"{at:04}", size=1) for at in range(1000))))
        repository.save_snapshot(Snapshot(NOW, blob.hex(), ["/"]))
        (problem,) = check(reopen(tmp_path / "repository")).problems
        assert problem.reason.endswith("and 990 more of its entries")

    @pytest.mark.parametrize("tree_id", [UNKNOWN, "abc"])
    def test_snapshot_without_tree(self, made: Made, tree_id: str) -> None:
        """A snapshot whose tree is not there, or no id, is named."""
        name = reopen(made.path).save_snapshot(Snapshot(NOW, tree_id, ["/"]))
        (problem,) = check(reopen(made.path)).problems
        assert (f"snapshots/{name}", (name,)) == (problem.file, problem.snapshots)

    def test_index_contradicts_pack(self, made: Made) -> None:
        """An index that leaves out a blob of a pack, or gives its place wrong, contradicts the pack's header."""
        repository = reopen(made.path)
        packer = Packer()
        for content in (b"one", b"two"):
            packer.add(sha256(content).digest(), BlobType.DATA, repository.key.seal(content), 0)
        pack, blobs = save_pack(repository, packer)
        one, two = blobs
        for told in ([one], [one, PackedBlob(two.id, two.type, two.offset, two.length + 1, 0)], [two]):
            index = save_index(repository, (pack, told))
            assert named(check_all(reopen(made.path))) & {f"data/{pack.hex()}", f"index/{index}"}
            repository.backend.remove(FileKind.INDEX, index)

    def test_indexes_contradict_each_other(self, made: Made) -> None:
        """Two index files that say different things of one pack."""
        repository = reopen(made.path)
        packer = Packer()
        packer.add(sha256(b"one").digest(), BlobType.DATA, repository.key.seal(b"one"), 0)
        pack, (blob,) = save_pack(repository, packer)
        other = PackedBlob(blob.id, blob.type, 0, blob.length + 5, 0)
        indexes = {save_index(repository, (pack, [blob])), save_index(repository, (pack, [other]))}
        assert any(f"index/{name}" in named(check(reopen(made.path))) for name in indexes)

    def test_config_of_another_repository(self, made: Made) -> None:
        """One that was put there since the repository was opened is told: what opens it next goes by that."""
        opened = reopen(made.path)
        other = msgspec.structs.replace(opened.config, id=UNKNOWN)
        opened.backend.save(FileKind.CONFIG, "", [opened.key.seal(msgspec.json.encode(other))])
        assert [("config", "it is not the one that the repository was opened with")] == [
            (problem.file, problem.reason) for problem in check_all(opened).problems
        ]

    @pytest.mark.parametrize("change", [{"kdf": "argon2"}, {"salt": b"short"}, {"data": b""}])
    def test_key_that_opens_nothing(self, made: Made, change: dict[str, Any]) -> None:
        """A key file that is whole, and yet no key, is named."""
        opened = reopen(made.path)
        file = next(filter(lambda entry: entry.current, opened.keys())).file
        text = msgspec.json.encode(msgspec.structs.replace(file, **change))
        name = sha256(text).hexdigest()
        opened.backend.save(FileKind.KEY, name, [text])
        (problem,) = check_all(opened).problems
        assert (f"keys/{name}", "it is no key that can be used") == (problem.file, problem.reason)

    @pytest.mark.parametrize(
        ("blob", "sealed", "plain_length"),
        [(b"other", b"content", 0), (b"content", b"content", 7), (b"content", b"", 0)],
    )
    def test_blob_that_is_not_what_its_id_says(self, made: Made, blob: bytes, sealed: bytes, plain_length: int) -> None:
        """A pack whose name and seals are right, but a blob in it has other content than its id or length says."""
        repository = reopen(made.path)
        packer = Packer()
        packer.add(sha256(blob).digest(), BlobType.DATA, repository.key.seal(sealed), plain_length)
        pack, blobs = save_pack(repository, packer)
        save_index(repository, (pack, blobs))
        assert {f"data/{pack.hex()}"} == named(check_all(reopen(made.path)))


class Flaky(LocalBackend):
    """A directory whose storage fails now and then: `fails(kind, name)` says what happens instead of reading."""

    def __init__(self, path: Path, fails: Callable[[FileKind, str], Exception | bytes | None]) -> None:
        super().__init__(str(path))
        self._fails = fails

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As the protocol has it, or the failure."""
        failure = self._fails(kind, name)
        if isinstance(failure, Exception):
            raise failure
        return super().load(kind, name, offset, length) if failure is None else failure


class TestStorageFails:
    """What the storage does wrong is told apart from damage."""

    def test_away(self, made: Made) -> None:
        """A repository that can't be reached is not a damaged one."""
        away = False

        def fails(kind: FileKind, name: str) -> Exception | None:
            return Unavailable("away") if away and kind is FileKind.DATA else None

        repository = reopen(Flaky(made.path, fails))
        away = True
        with pytest.raises(Unavailable):
            check(repository)
        with pytest.raises(Unavailable):
            check_all(repository)

    def test_unreadable(self, made: Made) -> None:
        """A file that the disk can't read any more is a problem of that file, and hurts the snapshots that need it."""
        path = made.of("data")[2]

        def fails(kind: FileKind, name: str) -> Exception | None:
            return RepositoryError("can't read: input/output error") if name == path.name else None

        checked = check_all(reopen(Flaky(made.path, fails)))
        assert f"data/{path.name}" in named(checked)
        assert any("input/output error" in problem.reason for problem in checked.problems)

    def test_wrong_once(self, made: Made) -> None:
        """Bytes that arrive wrong once are read again, and are no problem: the transport was it, not the disk."""
        seen: set[str] = set()

        def fails(kind: FileKind, name: str) -> bytes | None:
            if kind in (FileKind.DATA, FileKind.INDEX) and name not in seen:
                seen.add(name)
                return b"garbage" * 10
            return None

        checked = check_all(reopen(Flaky(made.path, fails)))
        assert () == checked.problems
        assert set(checked.packs) == set(checked.verified)

    def test_forgotten_meanwhile(self, made: Made) -> None:
        """A snapshot that somebody forgets, and a lock that somebody releases, while the check runs, are no problem."""

        def fails(kind: FileKind, name: str) -> Exception | None:
            return Missing("gone") if name == made.first or kind is FileKind.LOCK else None

        assert () == check(reopen(Flaky(made.path, fails))).problems


class TestSubset:
    """Which packs are read."""

    PACKS = {sha256(b"%d" % number).hexdigest(): 1000 for number in range(400)}  # noqa: RUF012  # never changed

    def test_all(self) -> None:
        """`all` is every pack."""
        assert sorted(self.PACKS) == subset("all", NOISE)(self.PACKS)

    @pytest.mark.parametrize("parts", [1, 2, 7, 256])
    def test_parts_are_all(self, parts: int) -> None:
        """The t parts of t are all packs, each in one of them, by the first byte of its id as restic has it."""
        chosen = [subset(f"{number}/{parts}", NOISE)(self.PACKS) for number in range(1, parts + 1)]
        assert sorted(self.PACKS) == sorted(pack for part in chosen for pack in part)
        assert all(int(pack[:2], 16) % parts == at for at, part in enumerate(chosen) for pack in part)

    @pytest.mark.parametrize(
        ("text", "count"),
        [("5%", 20), ("2.5%", 10), ("100%", 400), ("0.01%", 1), ("100K", 102), ("1G", 400), ("1k", 1)],
    )
    def test_random(self, text: str, count: int) -> None:
        """A share or an amount is taken at random, at least one pack and never one twice."""
        chosen = subset(text, random.Random(1))(self.PACKS)
        assert count == len(chosen) == len(set(chosen))
        assert set(chosen) <= set(self.PACKS)
        if 1 < count < 400:
            assert chosen != subset(text, random.Random(2))(self.PACKS)

    @pytest.mark.parametrize("text", ["5%", "1/2", "100M", "all"])
    def test_no_packs(self, text: str) -> None:
        """Of nothing, nothing is chosen."""
        assert [] == list(subset(text, NOISE)({}))

    @pytest.mark.parametrize("text", ["", "0%", "101%", "0/3", "4/3", "1/257", "0M", "5", "some", "-1%", "1/2/3"])
    def test_refused(self, text: str) -> None:
        """What is no choice is refused, with what there is."""
        with pytest.raises(ValueError, match=r"none of all, a share"):
            subset(text, NOISE)


class TestDue:
    """Packs take turns, so that all data is read in time."""

    @given(
        st.lists(st.integers(1, 10**9), min_size=1, max_size=40),
        st.integers(2, 40),
        st.floats(-0.2, 0.2),
        st.randoms(use_true_random=False),
    )
    def test_all_within(self, sizes: list[int], runs: int, jitter: float, chance: random.Random) -> None:
        """However large the packs are: in as many runs as fit in the time, each is read; and no run reads far more than
        its share, unless what is overdue asks for it."""
        packs = {f"{number:064x}": size for number, size in enumerate(sizes)}
        verified: dict[str, float] = {}
        now = 1e9
        for _ in range(3 * runs):
            for pack in due(packs, verified, now, runs * 86400.0, 86400.0):
                verified[pack] = now
            now += 86400 * (1 + jitter * chance.random())
            if now - 1e9 >= runs * 86400 * 1.25:
                assert set(packs) == set(verified)
                assert all(now - at <= (runs + 1) * 86400 * 1.2 for at in verified.values())

    def test_share(self) -> None:
        """With packs of one size, each day reads its thirtieth, and on the thirtieth day all is read once."""
        packs = {f"{number:064x}": 16 << 20 for number in range(300)}
        verified: dict[str, float] = {}
        for day in range(30):
            chosen = due(packs, verified, 1e9 + day * 86400, 30 * 86400.0, 86400.0)
            assert 10 == len(chosen)
            assert not set(chosen) & set(verified)
            verified |= dict.fromkeys(chosen, 1e9 + day * 86400)
        assert set(packs) == set(verified)

    def test_new_packs_don_t_keep_old_ones_back(self) -> None:
        """However much is new each day, what was read once is read again in time."""
        verified = {"old": 1e9}
        packs = {"old": 1}
        now = 1e9
        for day in range(1, 31):
            now = 1e9 + day * 86400
            packs |= {f"{day}-{number}": 1000 for number in range(20)}
            for pack in due(packs, verified, now, 30 * 86400.0, 86400.0):
                verified[pack] = now
        assert verified["old"] > 1e9

    def test_asked_twice_at_once(self) -> None:
        """No time has passed since: the next pack comes, and nothing is divided by it."""
        packs = {"a": 10, "b": 10}
        assert ["a"] == due(packs, {}, 1e9, 20.0, 0.0)
        assert ["b"] == due(packs, {"a": 1e9}, 1e9, 20.0, 0.0)

    def test_clock_was_ahead(self) -> None:
        """A time in the future counts as never."""
        assert ["a"] == due({"a": 1, "b": 1}, {"a": 9e9, "b": 1e9}, 1e9 + 1, 20.0, 10.0)

    def test_rarely(self) -> None:
        """Who asks less often than the data must be read reads all of it each time."""
        assert ["a", "b"] == due({"a": 1, "b": 1}, {"a": 5.0, "b": 5.0}, 6.0, 10.0, 100.0)

    def test_nothing(self) -> None:
        """Where there are no packs, none is due."""
        assert [] == due({}, {}, 1.0, 30.0, 1.0)


def restic_check(path: Path) -> bool:
    """Whether restic finds the repository whole, with all data read."""
    program = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if program is None:
        pytest.skip("restic is not installed")
    done = subprocess.run(
        [program, "--no-cache", "--no-lock", "-q", "-r", str(path), "check", "--read-data"],
        env={"RESTIC_PASSWORD": PASSWORD, "PATH": os.environ["PATH"], "HOME": str(path)},
        capture_output=True,
        timeout=60,
    )
    return done.returncode == 0


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def _flip_middle(path: Path) -> None:
    flip(path, path.stat().st_size * 4 + 3)


@pytest.mark.slow
class TestBesideRestic:
    """restic complains where we do."""

    def test_whole(self, made: Made) -> None:
        """Both find nothing wrong with a whole repository."""
        assert restic_check(made.path)
        assert check_all(reopen(made.path)).whole

    @pytest.mark.parametrize("damage", [_flip_middle, _cut, Path.unlink])
    @pytest.mark.parametrize("kind", ["index", "snapshots", "data"])
    def test_damaged(self, made: Made, kind: str, damage: Callable[[Path], None]) -> None:
        """A file of each kind that is damaged, cut off or gone; for a snapshot that is gone, neither can know."""
        damage(made.of(kind)[0])
        assert restic_check(made.path) == check_all(reopen(made.path)).whole
        assert check_all(reopen(made.path)).whole == (kind == "snapshots" and damage is Path.unlink)

    def test_random_bits_in_data(self, made: Made) -> None:
        """Bits of packs: bodies, headers and lengths."""
        for path in NOISE.sample(made.of("data"), 4):
            bit = NOISE.randrange(8 * path.stat().st_size)
            flip(path, bit)
            assert not restic_check(made.path)
            assert not check_all(reopen(made.path)).whole
            flip(path, bit)

    def test_pack_without_index(self, made: Made) -> None:
        """Left-overs of a killed run trouble neither."""
        repository = reopen(made.path)
        packer = Packer()
        packer.add(sha256(b"x").digest(), BlobType.DATA, repository.key.seal(b"x"), 0)
        save_pack(repository, packer)
        assert restic_check(made.path)
        assert check_all(reopen(made.path)).whole
