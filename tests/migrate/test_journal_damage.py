"""A journal of a migration that somebody has spoilt."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.migrate.journal import Journal, JournalError


@pytest.mark.parametrize("schema", [b"\xe3" * 5, b"name\x00"])
def test_a_journal_whose_schema_is_no_text_is_refused(tmp_path: Path, schema: bytes) -> None:
    """sqlite3 can't even put SQLite's message into words; it is one line all the same."""
    path = tmp_path / "migration.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table names (n)")
    path.write_bytes(path.read_bytes().replace(b"names", schema).replace(b"(n)", b"(n,"))
    with pytest.raises(JournalError, match=r"migration\.db"):
        Journal(path)
