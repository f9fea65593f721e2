"""Adding blobs: each once, in packs of the right size, named by the index; and what a failure leaves."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.crypto import OVERHEAD
from symbiont_datad.restic.errors import LockLost, NoSpace, Unavailable
from symbiont_datad.restic.index import decode_index
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.pack import BlobType, header_length, read_header
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.writer import Added, Writer
from tests.restic.making import exit_code_in_child, make_repository, reopen

DATA, TREE = BlobType.DATA, BlobType.TREE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the repository of a test lies."""
    return tmp_path / "repository"


@pytest.fixture
def repository(path: Path) -> Repository:
    """A new repository."""
    return make_repository(path)


class Failing(LocalBackend):
    """A directory in which saving fails, with the error that `when` hands back for a kind of file."""

    def __init__(self, path: Path, when: Callable[[FileKind], Exception | None]) -> None:
        super().__init__(str(path))
        self._when = when

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """As the protocol has it."""
        if error := self._when(kind):
            raise error
        super().save(kind, name, parts)


def failing_after(path: Path, packs: int, error: Exception) -> Repository:
    """The repository at the path, in which no more than so many packs can be saved."""
    left = iter(range(packs))
    reopen(path)
    return reopen(Failing(path, lambda kind: error if kind is FileKind.DATA and next(left, None) is None else None))


def packs(repository: Repository) -> dict[str, int]:
    """Every pack with its size."""
    return dict(repository.backend.list(FileKind.DATA))


def indexed(repository: Repository) -> list[list[str]]:
    """The ids of the blobs that each index file names."""
    texts = [repository.load_file(FileKind.INDEX, name) for name, _ in repository.backend.list(FileKind.INDEX)]
    return [[blob.id for pack in decode_index(text).packs for blob in pack.blobs] for text in texts]


def noise(number: int, size: int = 1000) -> bytes:
    """Bytes of which no two numbers share any, and that can't be compressed."""
    return b"".join(sha256(b"%d %d" % (number, part)).digest() for part in range(size // 32 + 1))[:size]


def store(repository: Repository, count: int, pack_size: int, error: Exception | None = None) -> None:
    """Store so many blobs, and leave the block with the error if there is one."""
    with Writer(repository, pack_size=pack_size) as writer:
        for number in range(count):
            writer.store(DATA, noise(number))
        if error:
            raise error


# What is stored


@pytest.mark.parametrize("plain", [b"", b"short", b"a" * 5000, noise(1)], ids=["empty", "short", "even", "noise"])
def test_what_was_stored_is_read_by_another_process(repository: Repository, path: Path, plain: bytes) -> None:
    """Whether it is worth compressing or not."""
    with Writer(repository) as writer:
        blob, new = writer.store(DATA, plain)

    assert (sha256(plain).digest(), True) == (blob, new)
    other = reopen(path)
    other.load_index()
    assert plain == other.load_blob(blob)


def test_only_what_becomes_smaller_is_compressed(repository: Repository) -> None:
    """A blob that compression would make longer lies in the pack as it is."""
    with Writer(repository) as writer:
        even, _ = writer.store(DATA, b"a" * 5000)
        rough, _ = writer.store(DATA, noise(1))

    found = [repository.find(blob) for blob in (even, rough)]

    assert [(5000, True), (0, False)] == [
        (place.plain_length, place.length < 5000 and place.size != place.length - OVERHEAD) for place in found if place
    ]


def test_a_blob_is_stored_once(repository: Repository, path: Path) -> None:
    """Neither the same writer, nor the next one, nor another process stores it again."""
    with Writer(repository) as writer:
        assert [True, False] == [writer.store(DATA, noise(1))[1] for _ in range(2)]
        assert Added(data_blobs=1, plain=1000, packed=1000 + OVERHEAD) == writer.added
    before = packs(repository)
    other = reopen(path)
    other.load_index()

    for again in (repository, other):
        with Writer(again) as writer:
            assert not writer.store(DATA, noise(1))[1]

    assert before == packs(repository)
    assert 1 == len(indexed(repository))


def test_threads_store_a_blob_once(repository: Repository) -> None:
    """Many threads with the same blobs at the same time: each blob is in one pack."""
    blobs = [noise(number) for number in range(200)]
    together = threading.Barrier(4)

    def store_all(writer: Writer) -> int:
        together.wait()
        return sum(writer.store(DATA, blob)[1] for blob in blobs)

    with Writer(repository, pack_size=20_000) as writer, ThreadPoolExecutor(4) as pool:
        new = sum(pool.map(store_all, [writer] * 4))

    assert 200 == new == writer.added.data_blobs
    assert sorted(sha256(blob).hexdigest() for blob in blobs) == sorted(chain(*indexed(repository)))


def test_a_tree_and_a_file_of_the_same_content_are_two_blobs(repository: Repository) -> None:
    """Who looks for a file's content does not find a tree, even if the bytes are the same."""
    with Writer(repository) as writer:
        kinds = [writer.store(kind, b'{"nodes":[]}\n')[1] for kind in (TREE, DATA, TREE, DATA)]

    assert [True, True, False, False] == kinds
    assert {(DATA,), (TREE,)} == kinds_of_packs(repository)


def test_data_and_trees_lie_in_packs_of_their_own(repository: Repository) -> None:
    """Whatever the order in which they come."""
    with Writer(repository) as writer:
        for number in range(10):
            writer.store(DATA, noise(number))
            writer.store(TREE, noise(100 + number))

    assert {(DATA,) * 10, (TREE,) * 10} == kinds_of_packs(repository)


def kinds_of_packs(repository: Repository) -> set[tuple[BlobType, ...]]:
    """The kinds of the blobs in each pack, by the packs' own headers."""
    contents = [repository.backend.load(FileKind.DATA, pack) for pack in packs(repository)]
    ends = [content[-header_length(content[-4:], len(content)) :] for content in contents]
    return {tuple(blob.type for blob in read_header(end, repository.key)) for end in ends}


def test_a_pack_is_closed_at_its_size(repository: Repository) -> None:
    """Once it has reached the size, and only the last one is smaller."""
    with Writer(repository, pack_size=10_000) as writer:
        for number in range(55):
            writer.store(DATA, noise(number))

    sizes = sorted(packs(repository).values())

    assert 6 == len(sizes)
    assert 5 * 1032 <= sizes[0] < 6 * 1032
    assert all(10_000 <= size < 11_000 for size in sizes[1:])


def test_what_several_threads_have_left_goes_into_common_packs(repository: Repository) -> None:
    """At the end the beginnings of packs of all threads are put together."""
    together = threading.Barrier(3)

    def store_one(writer: Writer, number: int) -> None:
        together.wait()
        writer.store(DATA, noise(number))

    with Writer(repository) as writer, ThreadPoolExecutor(3) as pool:
        list(pool.map(store_one, [writer] * 3, range(3)))

    assert 1 == len(packs(repository))


def test_an_index_file_is_closed_at_its_size(repository: Repository, path: Path) -> None:
    """Long runs leave index files on the way; together they name each blob once."""
    with Writer(repository, pack_size=1, blobs_in_index=10) as writer:
        blobs = [writer.store(DATA, noise(number))[0] for number in range(25)]

    found = indexed(repository)

    assert [5, 10, 10] == sorted(map(len, found))
    assert {blob.hex() for blob in blobs} == set(chain(*found))
    other = reopen(path)
    other.load_index()
    assert noise(24) == other.load_blob(blobs[-1])


def test_nothing_stored_leaves_nothing(repository: Repository) -> None:
    """No pack and no index file."""
    with Writer(repository):
        pass

    assert ({}, []) == (packs(repository), indexed(repository))


def test_a_sealed_blob_moves_as_it_is(repository: Repository, path: Path) -> None:
    """Also when it is stored elsewhere; but one writer moves it once."""
    with Writer(repository) as writer:
        blob, _ = writer.store(DATA, b"a" * 5000)
    place = repository.find(blob)
    assert place is not None
    sealed = repository.backend.load(FileKind.DATA, place.pack.hex(), place.offset, place.length)

    with Writer(repository) as writer:
        writer.store(DATA, b"something before it")
        for _ in range(2):
            writer.store_sealed(blob, DATA, sealed, place.plain_length)

    repository.backend.remove(FileKind.DATA, place.pack.hex())
    assert 2 == writer.added.data_blobs
    moved = repository.find(blob)
    assert moved is not None
    assert sealed == repository.backend.load(FileKind.DATA, moved.pack.hex(), moved.offset, moved.length)
    assert b"a" * 5000 == repository.load_blob(blob)


# What fails


def test_a_pack_that_can_not_be_saved_is_told(repository: Repository, path: Path) -> None:
    """At the latest when the block is left; and no index file names what is not there."""
    full = failing_after(path, 0, NoSpace("the disk is full"))

    with pytest.raises(NoSpace, match="the disk is full"), Writer(full) as writer:
        writer.store(DATA, noise(1))

    assert ({}, []) == (packs(repository), indexed(repository))


def test_a_failure_stays(repository: Repository, path: Path) -> None:
    """Who goes on in spite of the error gets it again, and again at the end: nothing is taken for stored."""
    full = failing_after(path, 1, NoSpace("the disk is full"))
    writer = Writer(full, pack_size=1)
    stored = 0
    for number in range(20):
        with suppress(NoSpace):
            writer.store(DATA, noise(number))
            stored += 1

    with pytest.raises(NoSpace), writer:
        pass

    assert stored <= 5  # those that were under way
    assert 1 == len(packs(repository))


def test_threads_that_wait_for_room_are_told_of_a_failure(repository: Repository, path: Path) -> None:
    """None of them waits for ever."""
    away = failing_after(path, 2, Unavailable("the server is away"))

    def store_many(writer: Writer, first: int) -> int:
        for number in range(first, first + 50):
            try:
                writer.store(DATA, noise(number))
            except Unavailable:
                return 1
        return 0

    with pytest.raises(Unavailable), Writer(away, pack_size=1) as writer, ThreadPoolExecutor(8) as pool:
        assert 8 == sum(pool.map(store_many, [writer] * 8, range(0, 8000, 1000)))


@pytest.mark.parametrize("error", [NoSpace("the disk is full"), RuntimeError("a bug")])
def test_an_exception_saves_the_index_of_what_is_there(repository: Repository, path: Path, error: Exception) -> None:
    """The packs that were saved before it need not be stored again by the next run."""
    with pytest.raises(type(error)):
        store(repository, 12, 5000, error)

    other = reopen(path)
    other.load_index()
    assert 2 == len(packs(repository))
    assert [10] == list(map(len, indexed(repository)))
    with Writer(other) as writer:
        assert 2 == sum(writer.store(DATA, noise(number))[1] for number in range(12))


def test_a_failure_at_the_end_saves_the_index_of_what_is_there(repository: Repository, path: Path) -> None:
    """The last pack finds the disk full: those before it are named all the same."""
    full = failing_after(path, 2, NoSpace("the disk is full"))

    with pytest.raises(NoSpace):
        store(full, 12, 5000)

    assert [10] == list(map(len, indexed(repository)))


def test_an_index_that_can_not_be_saved_on_the_way_is_saved_at_the_end(repository: Repository, path: Path) -> None:
    """What it was to name is named by the one that is saved on leaving."""
    errors = iter([Unavailable("the server is away")])
    away = reopen(Failing(path, lambda kind: next(errors, None) if kind is FileKind.INDEX else None))

    with pytest.raises(Unavailable), Writer(away, pack_size=1, blobs_in_index=1) as writer:
        writer.store(DATA, noise(1))

    assert [[sha256(noise(1)).hexdigest()]] == indexed(repository)


def test_the_first_error_counts(repository: Repository, path: Path) -> None:
    """When the index can't be saved either, the error that began it all is raised."""
    away = reopen(Failing(path, lambda kind: Unavailable("the server is away") if kind is FileKind.INDEX else None))

    with pytest.raises(NoSpace, match="the disk is full"):
        store(away, 1, 1, NoSpace("the disk is full"))

    assert [] == indexed(repository)


def test_without_the_lock_nothing_more_is_written(repository: Repository) -> None:
    """Whoever took the lock may have removed our packs: an index file must not name them."""
    with pytest.raises(LockLost):
        store(repository, 1, 1, LockLost("somebody removed our lock"))

    assert [] == indexed(repository)


def test_what_was_acknowledged_survives_a_kill(repository: Repository, path: Path) -> None:
    """After `finish` a process may die at any time: all that it stored is read."""

    def store_and_die() -> None:
        with Writer(reopen(path), pack_size=5000) as writer:
            for number in range(12):
                writer.store(DATA, noise(number))
            writer.finish()
            os._exit(9)

    assert 9 == exit_code_in_child(store_and_die)
    repository.load_index()
    assert [noise(n) for n in range(12)] == [repository.load_blob(sha256(noise(n)).digest()) for n in range(12)]


def test_what_was_sealed_elsewhere_is_stored_once(repository: Repository) -> None:
    """However often it is given; and not at all where the repository has it, unless that copy is to go."""
    plain = noise(5)
    blob, text = sha256(plain).digest(), repository.key.seal(plain)
    with Writer(repository) as writer:
        for _ in range(3):
            writer.store_sealed(blob, DATA, text, 0)
    assert (1, len(text)) == (writer.added.data_blobs, writer.added.packed)
    for again, count in ((False, 0), (True, 1)):
        with Writer(repository) as writer:
            writer.store_sealed(blob, DATA, text, 0, again=again)
        assert count == writer.added.data_blobs
    repository.load_index()
    assert plain == repository.load_blob(blob)
