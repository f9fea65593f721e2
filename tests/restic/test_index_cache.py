"""The index in a file: it is what it was, or it is not there."""

import random
from pathlib import Path

import pytest

from symbiont_datad.restic.index import Index, encode_index
from symbiont_datad.restic.index_cache import IndexCache
from symbiont_datad.restic.pack import BlobType, PackedBlob
from symbiont_datad.restic.writer import Writer
from tests.restic.making import make_repository, reopen

CHANCE = random.Random(11)
FILES = {"a" * 64, "b" * 64}


def index_of(count: int) -> tuple[Index, list[bytes]]:
    """An index of so many blobs, and their ids."""
    ids = [CHANCE.randbytes(32) for _ in range(count)]
    index = Index()
    for start in range(0, count, 100):
        blobs = [PackedBlob(blob, BlobType.DATA, 50 * at, 50, 70) for at, blob in enumerate(ids[start : start + 100])]
        index.load(encode_index([(CHANCE.randbytes(32), blobs)]))
    return index, ids


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be; its directory isn't there yet."""
    return tmp_path / "cache" / "index"


def test_it_is_what_it_was(path: Path) -> None:
    """Every blob is found where it was, and what is added then as well; nobody else can read the file."""
    index, ids = index_of(1500)
    IndexCache(path, "mine").save(index, FILES)
    found = IndexCache(path, "mine").load({*FILES, "c" * 64})
    assert found is not None
    kept, files = found
    assert FILES == set(files)
    assert [index.find(blob) for blob in ids] == [kept.find(blob) for blob in ids]
    new = PackedBlob(CHANCE.randbytes(32), BlobType.TREE, 0, 90, 0)
    kept.load(encode_index([(b"p" * 32, [new])]))
    place = kept.find(new.id)
    assert place is not None
    assert (b"p" * 32, BlobType.TREE, 90) == (place.pack, place.type, place.length)
    assert 1501 == len(kept) == len(list(kept.blobs()))
    assert 0o600 == path.stat().st_mode & 0o777


def test_when_it_does_not_count(path: Path) -> None:
    """For another repository, and when an index file that it was made of is gone: after a prune, say."""
    IndexCache(path, "mine").save(index_of(1000)[0], FILES)
    assert IndexCache(path, "other").load(FILES) is None
    assert IndexCache(path, "mine").load({"a" * 64}) is None
    assert IndexCache(path.with_name("none"), "mine").load(FILES) is None


def test_damage_is_seen(path: Path) -> None:
    """Whichever byte is another one, and however much is missing, it does not count."""
    IndexCache(path, "mine").save(index_of(1000)[0], FILES)
    content = path.read_bytes()
    for place in [0, 31, 32, len(content) - 1, *(CHANCE.randrange(len(content)) for _ in range(30))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << CHANCE.randrange(8)
        path.write_bytes(damaged)
        assert IndexCache(path, "mine").load(FILES) is None
    for length in (0, 1, 32, 33, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert IndexCache(path, "mine").load(FILES) is None


def test_it_is_written_when_that_pays(path: Path) -> None:
    """Not for a few blobs more: they are read from their index files."""
    IndexCache(path, "mine").save(index_of(10)[0], FILES)
    assert not path.exists()
    cache = IndexCache(path, "mine")
    cache.save(index_of(1000)[0], FILES)
    before = path.stat().st_ino
    cache.save(index_of(1500)[0], FILES)
    assert before == path.stat().st_ino
    cache.save(index_of(2000)[0], FILES)
    assert before != path.stat().st_ino


def test_a_file_that_can_not_be_written_is_no_loss(path: Path) -> None:
    """It only saves time."""
    path.parent.write_bytes(b"in the way")
    IndexCache(path, "mine").save(index_of(1000)[0], FILES)
    assert IndexCache(path, "mine").load(FILES) is None


def test_a_repository_reads_no_index_file_that_is_kept(tmp_path: Path) -> None:
    """Only what has come since; without a place to keep it nothing is kept."""
    repository = make_repository(tmp_path / "repository")
    repository.keep_index()
    with Writer(repository) as writer:
        ids = [writer.store(BlobType.DATA, b"%d" % number)[0] for number in range(1200)]
    (first,) = [path.name for path in (tmp_path / "repository/index").iterdir()]
    opened = reopen(tmp_path / "repository")
    opened.index_cache = IndexCache(tmp_path / "cache", opened.config.id)
    opened.keep_index()  # it was not read
    assert not (tmp_path / "cache").exists()
    opened.load_index()
    opened.keep_index()
    (tmp_path / "repository/index" / first).write_bytes(b"nobody reads this")
    with Writer(opened) as writer:
        ids.append(writer.store(BlobType.DATA, b"new")[0])
    again = reopen(tmp_path / "repository")
    again.index_cache = IndexCache(tmp_path / "cache", again.config.id)
    again.load_index()
    assert all(again.find(blob) for blob in ids)
