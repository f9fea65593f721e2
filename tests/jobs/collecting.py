"""What the tests of collections share: stores as their engines write them, in small."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.formats.test_lance import manifest, message
from tests.formats.test_vectors import CONFIG, faiss


def vector_table(path: Path, rows: int = 600, keep: int = 60, *before: str, blob: int = 1024) -> Path:
    """A database like Chroma's in WAL mode: many rows were added, and only the last `keep` of them are left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in (*before, "pragma journal_mode = wal"):
            database.execute(statement)
        database.execute(
            "create table embeddings(id integer primary key, agent text, body text not null, vector blob not null)"
        )
        database.execute("create index by_agent on embeddings(agent)")
        with database:
            database.execute("begin")
            database.executemany(
                "insert into embeddings(agent, body, vector) values (?, ?, zeroblob(?))",
                [(f"agent {n % 7}", f"text {n}", blob) for n in range(rows)],
            )
        database.execute("delete from embeddings where id <= ?", (rows - keep,))
        database.execute("pragma wal_checkpoint(truncate)")
    return path


def lance_dataset(path: Path, versions: int = 3, rows: int = 100, deleted: int = 0, dimension: int = 8) -> Path:
    """A dataset in which each version has all its rows in one new file of 1,000 bytes. Only the manifests are real."""
    for name in ("data", "_versions", "_transactions"):
        (path / name).mkdir(parents=True)
    for version in range(1, versions + 1):
        (path / f"data/{version}.lance").write_bytes(bytes(1000))
        content = manifest(
            (1, message((2, b"vector"), (5, b"fixed_size_list:float:%d" % dimension))),
            (
                2,
                message((2, message((1, b"%d.lance" % version))), (3, message((2, 1), (3, 1), (4, deleted))), (4, rows))
                if deleted
                else message((2, message((1, b"%d.lance" % version))), (4, rows)),
            ),
            (3, version),
        )
        (path / f"_versions/{2**64 - 1 - version:020}.manifest").write_bytes(content)
    if deleted:
        (path / "_deletions").mkdir()
        (path / "_deletions/0-1-1.arrow").write_bytes(bytes(50))
    return path


def qdrant_collection(path: Path) -> Path:
    """A collection of a Qdrant server: its configuration, and a shard."""
    (path / "0/segments/a").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "0/segments/a/vectors.dat").write_bytes(faiss() + bytes(500))
    return path
