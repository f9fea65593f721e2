"""A journal of a migration that somebody has spoilt, or that has no room."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.migrate.journal import Journal, JournalError
from tests.cli.test_restore import small_disk


@pytest.mark.parametrize("schema", [b"\xe3" * 5, b"name\x00"])
def test_a_journal_whose_schema_is_no_text_is_refused(tmp_path: Path, schema: bytes) -> None:
    """sqlite3 can't even put SQLite's message into words; it is one line all the same."""
    path = tmp_path / "migration.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table names (n)")
    path.write_bytes(path.read_bytes().replace(b"names", schema).replace(b"(n)", b"(n,"))
    with pytest.raises(JournalError, match=r"migration\.db"):
        Journal(path)


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Nothing of it is touched; so is one that is no file."""
    path = tmp_path / "migration.db"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma user_version = 99")
    with pytest.raises(JournalError, match=r"was written by a newer version \(schema 99\)"):
        Journal(path)
    (tmp_path / "directory.db").mkdir()
    with pytest.raises(JournalError, match="Is a directory"):
        Journal(tmp_path / "directory.db")


def test_a_journal_that_lacks_a_table_says_so(tmp_path: Path) -> None:
    """Whether it is read or written."""
    path = tmp_path / "migration.db"
    with Journal(path) as journal:
        with closing(sqlite3.connect(path)) as database:
            database.execute("drop table meta")
        with pytest.raises(JournalError, match=r"migration\.db: no such table: meta"):
            journal.get("cell")
        with pytest.raises(JournalError, match=r"migration\.db: no such table: meta"):
            journal.put("cell", "x")
        assert [] == journal.sources()


def test_what_fails_in_the_middle_was_never_written(tmp_path: Path) -> None:
    """All of it or nothing, whatever goes wrong."""
    with Journal(tmp_path / "migration.db") as journal:

        def written() -> None:
            with journal.transaction():
                journal.put("cell", "x")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            written()
        assert "" == journal.get("cell")


def test_a_full_disk_keeps_a_journal_from_being_written(tmp_path: Path) -> None:
    """What it had stays, and there is more when there is room again."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        with Journal(disk / "migration.db") as journal:
            journal.put("cell", "x")
            free = os.statvfs(disk)
            (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
            with pytest.raises(JournalError, match=r"migration\.db: (database or )?disk"):
                journal.put("cell", "y" * 100_000)
            assert "x" == journal.get("cell")
            (disk / "filler").unlink()
            journal.put("cell", "y" * 100_000)
        with Journal(disk / "migration.db") as journal:
            assert "y" * 100_000 == journal.get("cell")
