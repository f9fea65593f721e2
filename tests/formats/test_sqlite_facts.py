"""What is known of a SQLite database without a change to it."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.formats.sqlite_facts import HEADER, Content, content, header, renumbered


def made(path: Path, *statements: str) -> Path:
    """A database in which these were executed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
    return path


def filled(path: Path, *before: str, rows: int = 500, blob: int = 96) -> Path:
    """A database with a table of vectors, of which all but some are deleted again."""
    made(path, *before, "create table items(id integer primary key, body text, vector blob)")
    with closing(sqlite3.connect(path)) as database:
        database.executemany("insert into items(body, vector) values ('x', zeroblob(?))", [(blob,)] * rows)
        database.execute("delete from items where id > 20")
        database.commit()
    return path


@pytest.mark.parametrize(
    ("before", "wal", "auto", "incremental"),
    [
        ("pragma page_size = 1024", False, False, False),
        ("pragma page_size = 65536", False, False, False),
        ("pragma journal_mode = wal", True, False, False),
        ("pragma auto_vacuum = incremental", False, True, True),
        ("pragma auto_vacuum = full", False, True, False),
    ],
)
def test_the_header_says_what_sqlite_says(
    tmp_path: Path, before: str, wal: bool, auto: bool, incremental: bool
) -> None:
    """Sizes, free pages and modes, as the pragmas have them."""
    path = filled(tmp_path / "db", before)
    found = header(path.read_bytes()[:HEADER])
    with closing(sqlite3.connect(path)) as database:
        figures = [
            database.execute(f"pragma {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        ]
    assert found is not None
    assert figures == [found.page_size, found.pages, found.free_pages]
    assert (wal, auto, incremental) == (found.wal, found.auto_vacuum, found.incremental)
    assert found.reclaimable == found.page_size * found.free_pages


def test_what_is_no_header_is_none() -> None:
    """Too short, of another kind, or with a size of pages that there can't be."""
    whole = b"SQLite format 3\0" + b"\x10\x00" + bytes(82)
    assert header(whole) is not None
    for data in (b"", whole[:99], b"x" + whole[1:], whole[:16] + b"\x10\x01" + whole[18:], whole[:16] + bytes(84)):
        assert header(data) is None
    chance = random.Random(2)
    for _ in range(2000):
        header(b"SQLite format 3\0" + chance.randbytes(84))


def test_vectors_are_counted(tmp_path: Path) -> None:
    """Chroma's tables, one table, one with vectors among others; where it isn't clear, nothing is said."""
    assert Content(20, 24) == content(filled(tmp_path / "one"))
    filled(tmp_path / "two")
    made(tmp_path / "two", "create table log(line text)")
    assert Content(20, 24) == content(tmp_path / "two")
    made(tmp_path / "two", "create table more(embedding blob)")
    assert Content() == content(tmp_path / "two")
    chroma = made(
        tmp_path / "chroma", "create table collections(id text primary key, name text, dimension integer)",
        "create table segments(id text primary key)", "create table embeddings(id integer primary key, seq_id blob)",
        "create virtual table words using fts5(body)", "insert into collections values ('c', 'notes', 384)",
        "insert into embeddings values (1, null), (2, null)",
    )  # fmt: skip
    assert Content(2, 384) == content(chroma)
    made(tmp_path / "chroma", "insert into collections values ('d', 'other', 3)")
    assert Content(2, None) == content(chroma)
    assert Content(0, None) == content(made(tmp_path / "empty", "create table t(n)"))


def test_a_hostile_schema_is_harmless(tmp_path: Path) -> None:
    """Names with quotes, views and triggers: nothing of it is executed."""
    path = made(tmp_path / "db", 'create table "a""; drop table b; --"(vector blob)', "create view v as select 1")
    assert Content(0, None) == content(path)


def test_tables_whose_rows_vacuum_could_renumber_are_named(tmp_path: Path) -> None:
    """Those with a key of integers, or without numbers at all, are safe; so is Chroma's database."""

    def named(*statements: str) -> str | None:
        path = tmp_path / "db"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(made(path, *statements))) as database:
            return renumbered(database)

    assert named("create table a(id integer primary key, b)") is None
    assert named("create table a(id text primary key, b) without rowid") is None
    assert "points" == named("create table points(id text primary key, point blob)")
    assert "a" == named("create table a(n)")
    tables = ("collections(id text primary key)", "embeddings(n)", "segments(n)")
    assert named(*(f"create table {table}" for table in tables)) is None
