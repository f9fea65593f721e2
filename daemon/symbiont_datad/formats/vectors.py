"""Vector stores: which engine wrote what lies in a directory, told by content and never by a name alone.

Pure: the beginnings of files and the names beside them come in. Lance datasets and SQLite databases have modules of
their own. By faiss `impl/index_write.cpp` (fourccs, `write_index_header`); hnswlib `hnswalg.h` (`saveIndex`) and the
fork of it that Chroma ships; qdrant `lib/collection/src/config.rs` and `lib/segment/src/types.rs`.
"""

import json
from dataclasses import dataclass
from enum import StrEnum
from struct import Struct

from symbiont_datad.formats import sqlite

HEAD = 128
"""Bytes at the start of a file by which it is recognised."""

LARGEST_CONFIG = 1 << 20
"""Bytes of a configuration file that are read."""


class Engine(StrEnum):
    """What wrote a store."""

    LANCE = "lance"
    SQLITE = "sqlite"
    QDRANT = "qdrant"
    FAISS = "faiss"
    HNSWLIB = "hnswlib"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class IndexFile:
    """What the head of a file tells: its engine, and the vectors in it and their dimension, None where it doesn't."""

    engine: Engine
    rows: int | None = None
    dimension: int | None = None


_FAISS = Struct("<4siqqqBi")  # fourcc, d, ntotal, two dummies, is_trained, metric_type
_FAISS_DUMMY = 1 << 20
_FAISS_BINARY = Struct("<4siiqBi")  # fourcc, d, code_size, ntotal, is_trained, metric_type
_METRICS = frozenset((*range(6), *range(20, 30)))

_HNSW = Struct("<QQQQQQiIQQQdQ")
"""offsetLevel0, max_elements, count, size_data_per_element, label_offset, offsetData, maxlevel, enterpoint, maxM,
maxM0, M, mult, ef_construction."""
_HNSW_VERSIONED = Struct("<i")  # what Chroma's fork has before it
_FLOAT = 4


def recognise(head: bytes, size: int) -> IndexFile | None:
    """What a file is, given its first `HEAD` bytes and its size; None when it is nothing that is known."""
    if sqlite.is_database(head):
        return IndexFile(Engine.SQLITE)
    return _faiss(head, size) or _hnswlib(head, size)


def _faiss(head: bytes, size: int) -> IndexFile | None:
    if len(head) < _FAISS.size or head[:1] != b"I" or not head[:4].isalnum():
        return None
    if head[1:2] == b"B":
        _, dimension, code_size, rows, trained, metric = _FAISS_BINARY.unpack_from(head)
        sane = dimension > 0 and dimension == 8 * code_size and rows >= 0
    else:
        _, dimension, rows, *dummies, trained, metric = _FAISS.unpack_from(head)
        sane = dimension > 0 and rows >= 0 and dummies == [_FAISS_DUMMY] * 2
    if not sane or trained > 1 or metric not in _METRICS or dimension > 1 << 24:
        return None
    return IndexFile(Engine.FAISS, rows, dimension)


def _hnswlib(head: bytes, size: int) -> IndexFile | None:
    plain = _hnsw_header(head, 0)
    if plain is not None:
        # The vectors follow the header in the same file.
        rows, dimension, per_element = plain
        return IndexFile(Engine.HNSWLIB, rows, dimension) if size >= _HNSW.size + rows * per_element else None
    versioned = _hnsw_header(head, _HNSW_VERSIONED.size)
    if versioned is not None and size == _HNSW_VERSIONED.size + _HNSW.size:
        return IndexFile(Engine.HNSWLIB, versioned[0], versioned[1])  # the vectors are in files beside it
    return None


def _hnsw_header(head: bytes, at: int) -> tuple[int, int, int] | None:
    """Elements, dimension (of floats), bytes of an element."""
    if len(head) < at + _HNSW.size:
        return None
    first, most, rows, per_element, label, data, level, _, max_m, max_m0, m, mult, _ = _HNSW.unpack_from(head, at)
    if first != 0 or rows > most or not 0 < m <= 1 << 16 or max_m != m or max_m0 != 2 * m:
        return None
    if data != max_m0 * 4 + 4 or per_element != label + 8 or label <= data or level < -1 or not 0 < mult < 10:
        return None
    return rows, (label - data) // _FLOAT, per_element


def qdrant_dimension(config: bytes) -> int | None:
    """The dimension in a collection's `config.json`; 0 when it has several vectors; None when it is no such file.

    A collection of the server's. What its client keeps without a server is SQLite.
    """
    try:
        found = json.loads(config)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not {"params", "wal_config"} <= found.keys():
        return None
    if not {"hnsw_config", "optimizer_config", "optimizers_config"} & found.keys():
        return None
    params = found["params"]
    vectors = params.get("vectors") if isinstance(params, dict) else None
    size = vectors.get("size") if isinstance(vectors, dict) else None
    return size if isinstance(size, int) and size > 0 else 0
