"""Vector stores are recognised by what is in them."""

import json
import random
import struct

import pytest

from symbiont_datad.formats.vectors import (
    HEAD,
    Engine,
    IndexFile,
    qdrant_dimension,
    recognise,
)


def faiss(code: bytes = b"IxF2", dimension: int = 24, rows: int = 500, dummy: int = 1 << 20) -> bytes:
    """The head of an index as faiss writes it (seen with 1.15.1)."""
    return struct.pack("<4siqqqBi", code, dimension, rows, dummy, dummy, 1, 1) + bytes(100)


def hnswlib(rows: int = 500, dimension: int = 24, m: int = 16, most: int = 1000, prefix: bytes = b"") -> bytes:
    """The header of an index as hnswlib 0.8.0 writes it; `prefix` is the version that Chroma puts before it."""
    data = m * 2 * 4 + 4
    label = data + 4 * dimension
    fields = (0, most, rows, label + 8, label, data, 2, 7, m, 2 * m, m, 0.36, 100)
    return prefix + struct.pack("<QQQQQQiIQQQdQ", *fields)


@pytest.mark.parametrize("code", [b"IxF2", b"IHNf", b"IwFl", b"IxMp", b"IxPT", b"IwPQ", b"IxSQ"])
def test_faiss_is_known_by_its_header(code: bytes) -> None:
    """Whatever index it is, its dimension and number of vectors stand at its beginning."""
    assert IndexFile(Engine.FAISS, 500, 24) == recognise(faiss(code), 48045)


def test_a_binary_faiss_index() -> None:
    """Its header has the size of a code as well; the dimension is in bits."""
    head = struct.pack("<4siiqBi", b"IBxF", 32, 4, 100, 1, 1) + bytes(100)
    assert IndexFile(Engine.FAISS, 100, 32) == recognise(head, 433)


def test_hnswlib_is_known_by_its_sizes() -> None:
    """They have to fit each other and the file. Chroma's has a version before them, and its vectors elsewhere."""
    head = hnswlib() + bytes(100)
    assert IndexFile(Engine.HNSWLIB, 500, 24) == recognise(head, 122612)
    assert recognise(head, 1000) is None
    chroma = hnswlib(400, prefix=struct.pack("<i", 1))
    assert IndexFile(Engine.HNSWLIB, 400, 24) == recognise(chroma, len(chroma))
    assert recognise(hnswlib(rows=2000), 1 << 30) is None
    assert recognise(bytes(HEAD), 1 << 30) is None


def test_what_only_looks_like_it_is_nothing() -> None:
    """Text that begins with the same letters, other numbers, files that are cut off."""
    for head in (
        b"Ix" + b"a" * 100,
        b"Image: a picture of a cat" * 6,
        faiss(dimension=0),
        faiss(dummy=7),
        faiss()[:30],
    ):
        assert recognise(head, 1 << 20) is None
    assert IndexFile(Engine.SQLITE) == recognise(b"SQLite format 3\0" + bytes(100), 4096)


def test_whatever_the_bytes_nothing_happens() -> None:
    """Random changes of heads are an answer, or none."""
    chance = random.Random(11)
    for _ in range(3000):
        head = bytearray(chance.choice([faiss(), hnswlib() + bytes(9), bytes(HEAD)])[:HEAD])
        for _ in range(chance.randrange(1, 6)):
            head[chance.randrange(len(head))] = chance.randrange(256)
        recognise(bytes(head[: chance.randrange(HEAD + 1)]), chance.randrange(1 << 20))


CONFIG = {
    "params": {"vectors": {"size": 384, "distance": "Cosine"}, "shard_number": 1},
    "hnsw_config": {"m": 16}, "optimizer_config": {}, "wal_config": {"wal_capacity_mb": 32},
}  # fmt: skip


def test_a_collection_of_qdrant_is_known_by_its_configuration() -> None:
    """With the dimension, if there is one vector; any other config.json is somebody else's."""
    assert 384 == qdrant_dimension(json.dumps(CONFIG).encode())
    several = {**CONFIG, "params": {"vectors": {"a": {"size": 3}, "b": {"size": 4}}}}
    assert 0 == qdrant_dimension(json.dumps(several).encode())
    for other in (b"", b"{", b"[]", b'{"params": {}}', b'{"model_type": "bert", "hidden_size": 384}'):
        assert qdrant_dimension(other) is None
    for missing in ("params", "wal_config", ("hnsw_config", "optimizer_config")):
        other = json.dumps({key: value for key, value in CONFIG.items() if key not in missing}).encode()
        assert qdrant_dimension(other) is None
