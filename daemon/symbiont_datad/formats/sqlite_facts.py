"""What can be known of a SQLite database without a change to the tree: by its header, and by a frozen copy of it."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from urllib.parse import quote

from symbiont_datad.formats.sqlite import MAGIC

HEADER = 100
"""Bytes of the header."""

_FIELDS = Struct(">16sHBBBBBBIIIIIIIIIIII")
"""The header up to the application id (sqlite.org/fileformat2.html, "The Database Header")."""

_VECTOR_COLUMNS = ("vector", "embedding", "embeddings")
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Header:
    """A database by the header of its file; what waits in its `-wal` is not in it. Sizes in bytes.

    `free` are pages that nothing uses. `incremental`: they can be given back step by step. `changes` counts
    transactions, but not those in WAL mode.
    """

    page_size: int
    pages: int
    free_pages: int
    wal: bool
    auto_vacuum: bool
    incremental: bool
    changes: int

    @property
    def reclaimable(self) -> int:
        """Bytes that the file has and nothing needs."""
        return self.free_pages * self.page_size


def header(head: bytes) -> Header | None:
    """What the first `HEADER` bytes of a file say; None when they are no header."""
    if len(head) < HEADER or not head.startswith(MAGIC):
        return None
    fields = _FIELDS.unpack_from(head)
    page_size = 1 << 16 if fields[1] == 1 else fields[1]
    if page_size < 512 or page_size & (page_size - 1):
        return None
    changes, pages, free = fields[8], fields[9], fields[11]
    return Header(page_size, pages, min(free, pages), fields[2] == 2, fields[15] != 0, fields[18] != 0, changes)


@dataclass(frozen=True, slots=True)
class Content:
    """The vectors in a database, as far as its tables are understood; None where they are not."""

    rows: int | None = None
    dimension: int | None = None


def content(path: Path) -> Content:
    """What is in a whole database that nobody else has, by its path. Its schema is a stranger's: nothing in it is run.

    Chroma's and Qdrant's tables are known; of others, the only table, or the only one with a column of vectors, counts.
    Raises `sqlite3.Error` when it can't be read, and UnicodeDecodeError when not even SQLite's message can.
    """
    with closing(
        sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1", uri=True, timeout=0)
    ) as database:
        database.text_factory = lambda text: text.decode(errors="replace")
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA cell_size_check=ON")
        tables = _tables(database)
        if {"collections", "embeddings", "segments"} <= tables.keys():  # Chroma's
            found = database.execute("SELECT DISTINCT dimension FROM collections WHERE dimension > 0").fetchmany(2)
            return Content(_count(database, "embeddings"), found[0][0] if len(found) == 1 else None)
        with_vectors = {name: set(columns) & set(_VECTOR_COLUMNS) for name, columns in tables.items()}
        candidates = [name for name, columns in with_vectors.items() if columns] or list(tables)
        if len(candidates) != 1:
            return Content()
        (table,) = candidates
        dimension = None
        for column in sorted(with_vectors[table]):
            dimension = dimension or _dimension(database, table, column)
        return Content(_count(database, table), dimension)


def _tables(database: sqlite3.Connection) -> dict[str, list[str]]:
    """The ordinary tables with their columns. Virtual ones, and those that keep their content, are left out."""
    found = database.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite_%'"
    )
    names = [name for (name,) in found.fetchall()]
    return {name: [row[1] for row in database.execute(f"PRAGMA table_info({_quoted(name)})")] for name in names}


def _count(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()[0])


def _dimension(database: sqlite3.Connection, table: str, column: str) -> int | None:
    """The number of floats in a column of blobs, if they all have the same size as far as the first ones tell."""
    query = f"SELECT DISTINCT length({_quoted(column)}), typeof({_quoted(column)}) FROM {_quoted(table)} LIMIT 2"
    sizes = database.execute(query).fetchall()
    if len(sizes) != 1 or sizes[0][1] != "blob" or not sizes[0][0] or sizes[0][0] % _FLOAT:
        return None
    return int(sizes[0][0]) // _FLOAT


def renumbered(database: sqlite3.Connection) -> str | None:
    """A table whose rows VACUUM may give other numbers, None when there is none that matters.

    It may where no column is an INTEGER PRIMARY KEY (sqlite.org/lang_vacuum.html), and a program that goes by the
    implicit numbers would be lost. Chroma does not, and vacuums its database itself.
    """
    tables = _tables(database)
    if {"collections", "embeddings", "segments"} <= tables.keys():
        return None
    for name in tables:
        keys = [row for row in database.execute(f"PRAGMA table_info({_quoted(name)})") if row[5]]
        if len(keys) == 1 and str(keys[0][2]).upper() == "INTEGER":
            continue
        try:
            database.execute(f"SELECT rowid FROM {_quoted(name)} LIMIT 1")
        except sqlite3.OperationalError:  # it has no numbers at all: WITHOUT ROWID
            continue
        return name
    return None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
