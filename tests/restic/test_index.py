"""The index: every blob is found, whatever the ids look like, in little memory."""

import random
import struct
import tracemalloc
from collections import Counter
from hashlib import sha256

import msgspec
import pytest

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.index import Index, Place, decode_index, encode_index
from symbiont_datad.restic.pack import BlobType, PackedBlob

CHANCE = random.Random(5)


def pack_of(*ids: bytes, kind: BlobType = BlobType.DATA) -> tuple[bytes, list[PackedBlob]]:
    """A pack with these blobs, each of 100 bytes; every other one is compressed."""
    return sha256(b"".join(ids)).digest(), [
        PackedBlob(blob, kind, 100 * at, 100, 500 * (at % 2)) for at, blob in enumerate(ids)
    ]


def many(count: int) -> list[bytes]:
    """So many random ids."""
    return [CHANCE.randbytes(32) for _ in range(count)]


def places(pack: bytes, blobs: list[PackedBlob]) -> dict[bytes, Place]:
    """Where the index should find them."""
    return {blob.id: Place(pack, blob.type, blob.offset, blob.length, blob.plain_length) for blob in blobs}


def found(index: Index, ids: list[bytes]) -> dict[bytes, Place | None]:
    """What the index finds."""
    return {blob: index.find(blob) for blob in ids}


class TestFind:
    """What was loaded or added is found, and nothing else."""

    def test_few_after_many(self) -> None:
        """A small index file after a large one, with a blob that the large one has too, and one that it has twice."""
        index = Index()
        pack, blobs = pack_of(*many(2000))
        index.load(encode_index([(pack, blobs)]))
        wanted = places(pack, blobs)
        assert wanted == found(index, list(wanted))
        ids = many(3)
        small, few = pack_of(*ids, ids[0], blobs[7].id)
        index.load(encode_index([(small, few)]))
        for blob in few:
            wanted.pop(blob.id, None)
        assert wanted == found(index, list(wanted))
        assert {pack, small} >= {place.pack for blob in few if (place := index.find(blob.id))}
        assert 2 == len(list(index.places(blobs[7].id))) == len(list(index.places(ids[0])))
        assert 2005 == len(index) == len(list(index.blobs()))

    def test_ids_that_begin_alike(self) -> None:
        """Each has its own places, however many others begin with the same bytes."""
        ids = [b"\x07\x07" + CHANCE.randbytes(30) for _ in range(5)]
        index = Index()
        pack, blobs = pack_of(*ids)
        other, one = pack_of(ids[2])
        index.load(encode_index([(pack, blobs), (other, one)]))
        assert [1, 1, 2, 1, 1] == [len(list(index.places(blob))) for blob in ids]
        assert {pack, other} == {place.pack for place in index.places(ids[2])}

    def test_empty(self) -> None:
        """An empty index knows nothing."""
        index = Index()
        assert (0, None, [], []) == (
            len(index),
            index.find(bytes(32)),
            list(index.blobs()),
            list(index.places(bytes(32))),
        )

    def test_load_and_add(self) -> None:
        """Loaded from files and added after a pack was saved, before and after look-ups: all is found."""
        index = Index()
        wanted: dict[bytes, Place] = {}
        for kind in (BlobType.DATA, BlobType.TREE, BlobType.DATA):
            pack, blobs = pack_of(*many(200), kind=kind)
            index.load(encode_index([(pack, blobs)]))
            wanted |= places(pack, blobs)
            pack, blobs = pack_of(*many(200), kind=kind)
            index.add(pack, blobs)
            wanted |= places(pack, blobs)
            assert wanted == found(index, list(wanted))
        assert len(wanted) == len(index)
        assert wanted == dict(index.blobs())
        assert wanted == found(index, list(wanted))
        assert {None} == set(found(index, many(100)).values())
        assert {place.pack for place in wanted.values()} == set(index.packs())

    def test_more_than_one_index_file_holds(self) -> None:
        """60,000 added blobs are sorted in on the way."""
        index = Index()
        wanted: dict[bytes, Place] = {}
        for _ in range(30):
            pack, blobs = pack_of(*many(2000))
            index.add(pack, blobs)
            wanted |= places(pack, blobs)
        assert 60_000 == len(index)
        assert wanted == found(index, list(wanted))

    def test_shared_prefixes(self) -> None:
        """Ids that begin alike, and ids whose bytes look like a shifted neighbour, are told apart."""
        ids = [bytes(32), b"\xff" * 32, *(b"\x07\x07" + bytes([at]) * 30 for at in range(256))]
        ids += [b"\x07" * at + b"\x08" * (32 - at) for at in range(32)]
        ids = list(dict.fromkeys(ids))
        pack, blobs = pack_of(*ids)
        index = Index()
        index.load(encode_index([(pack, blobs)]))
        assert places(pack, blobs) == found(index, ids)
        for absent in (b"\x07" * 31 + b"\x09", bytes(31) + b"\x01", b"\xff" * 31 + b"\xfe"):
            assert index.find(absent) is None
            assert absent not in index

    def test_id_across_two_records(self) -> None:
        """The bytes of an id may turn up across the border of two records; that is no hit."""
        first, second = b"\x05" * 32, b"\x05\x05" + b"\x09" * 30
        across = (first + struct.pack("<IIII", 0, 0, 100, 0) + second)[20:52]
        for ids in ([first, second], [first, second, across]):
            pack, blobs = pack_of(*ids)
            index = Index()
            index.load(encode_index([(pack, blobs)]))
            assert places(pack, blobs).get(across) == index.find(across)

    @pytest.mark.parametrize("fresh", [True, False])
    def test_several_places(self, fresh: bool) -> None:
        """A blob in two packs, and one that is both data and a tree: all places are told."""
        blob = many(1)[0]
        index, wanted = Index(), []
        for kind in (BlobType.DATA, BlobType.TREE, BlobType.DATA):
            pack, blobs = pack_of(*many(1), blob, kind=kind)
            wanted.append(places(pack, blobs)[blob])
            if fresh:
                index.add(pack, blobs)
            else:
                index.load(encode_index([(pack, blobs)]))
        assert sorted(wanted) == sorted(index.places(blob))
        assert index.find(blob) in wanted
        if fresh:  # a blob that moved is found where it is now
            assert wanted[-1] == index.find(blob)
        assert 3 == Counter(found for found, _ in index.blobs())[blob]
        assert 6 == len(index)

    def test_size(self) -> None:
        """A place tells the size of the plaintext."""
        assert (68, 500) == (Place(b"", BlobType.DATA, 0, 100, 0).size, Place(b"", BlobType.DATA, 0, 100, 500).size)


def test_memory_of_a_blob() -> None:
    """A blob takes far less than 200 bytes, and loading does not take much more on the way."""
    texts = [encode_index([pack_of(*many(5000))]) for _ in range(12)]
    tracemalloc.start()
    try:
        index = Index()
        for text in texts:
            index.load(text)
        assert index.find(bytes(32)) is None
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 60_000 == len(index)
    assert kept / 60_000 < 70
    assert peak / 60_000 < 200


class TestFile:
    """Index files as restic has them."""

    def test_fields(self) -> None:
        """The JSON of an index file, to the byte: a plain length only where a blob is compressed."""
        pack = bytes([1]) * 32
        blobs = [PackedBlob(b"\xaa" * 32, BlobType.DATA, 0, 40, 0), PackedBlob(b"\xbb" * 32, BlobType.TREE, 40, 50, 99)]
        assert (
            b'{"packs":[{"id":"' + b"01" * 32 + b'","blobs":[{"id":"' + b"aa" * 32 + b'","type":"data","offset":0,'
            b'"length":40},{"id":"'
            + b"bb" * 32
            + b'","type":"tree","offset":40,"length":50,"uncompressed_length":99}]}]}'
        ) == encode_index([(pack, blobs)])

    def test_unknown_fields(self) -> None:
        """Fields that are not known, as older programs wrote them, are passed over."""
        Index().load(b'{"supersedes":["' + b"00" * 32 + b'"],"packs":[]}')

    @pytest.mark.parametrize(
        "change",
        [
            {"id": "ab"}, {"id": "zz" * 32}, {"id": " " * 64}, {"type": "door"}, {"offset": -1}, {"length": 1 << 32},
            {"offset": "0"}, {"uncompressed_length": -3},
        ],
    )  # fmt: skip
    def test_malformed(self, change: dict[str, object]) -> None:
        """A record that makes no sense is refused, and nothing of its file is kept."""
        good = {"id": "ab" * 32, "type": "data", "offset": 0, "length": 40}
        text = msgspec.json.encode({"packs": [{"id": "01" * 32, "blobs": [good, good | change]}]})
        index = Index()
        with pytest.raises(Damaged):
            index.load(text)
        assert 0 == len(index)

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"{}", b"[]", b'{"packs":7}', b'{"packs":[{"id":"ab","blobs":[]}]}', b"\xff", b'{"\xff":7}',
            b'{"packs":[],"more":' + b"[" * 5000,
        ],
    )  # fmt: skip
    def test_no_index(self, text: bytes) -> None:
        """What is no index file is refused."""
        with pytest.raises(Damaged):
            Index().load(text)
        with pytest.raises(Damaged):
            decode_index(text)
