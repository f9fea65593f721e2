"""Files that are read while others write to them: databases, datasets, and files of somebody else."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs.live import LiveFiles
from symbiont_datad.restic.reading import open_regular
from tests.conftest import AsNobody
from tests.formats.test_sqlite import LEFT_WAL, holding, query
from tests.restic.making import read_snapshot, reopen
from tests.restic.test_archiver import SETTLED_S, Backups
from tests.support import NOBODY, Link, Tree, build_tree


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    """Nothing was backed up yet; databases and datasets are read as the daemon reads them."""
    found = Backups(tmp_path)
    found.source.mkdir()
    live = LiveFiles(tmp_path / "scratch", lambda: False)
    found.options = replace(found.options, live=live)
    return found


def test_a_database_is_copied_without_what_lies_beside_it(backups: Backups) -> None:
    """With all that was committed. What only has such a name, beside what is no database, is a file as others are."""
    others: Tree = {
        "text": b"no database", "text-wal": b"1", "alone-wal": b"2", "link": Link("x.db"), "link-journal": b"3",
        "folder": {"a": b"4"}, "folder-shm": b"5",
    }  # fmt: skip
    build_tree(backups.source, others)
    with holding(backups.source / "x.db", *LEFT_WAL):
        assert {"x.db", "x.db-wal", "x.db-shm"} <= {path.name for path in backups.source.iterdir()}
        for taken in (backups.take(), backups.take()):
            found = dict(read_snapshot(reopen(backups.repository), taken.name))
            database = found.pop("x.db")
            assert isinstance(database, bytes)
            assert [(1,), (2,)] == query(database, "SELECT n FROM t ORDER BY n")
            assert ((), ()) == (taken.archived.torn, taken.archived.unread)
            assert others == found


def test_a_database_that_cant_be_copied_is_stored_as_it_is(backups: Backups) -> None:
    """And told: whether it is whole nobody knows."""
    with closing(sqlite3.connect(backups.source / "x.db")) as database:
        database.execute("CREATE TABLE t (n)")
    whole = (backups.source / "x.db").read_bytes()
    (backups.source / "x.db").write_bytes(whole[: len(whole) // 2])
    taken = backups.take()
    ((path, reason),) = taken.archived.torn
    assert os.fsencode(backups.source / "x.db") == path
    assert reason.startswith("no consistent copy: ")
    assert {"x.db": whole[: len(whole) // 2]} == read_snapshot(reopen(backups.repository), taken.name)


# Datasets. In this thread `stopping` is asked when a directory is begun with, and before files of one are read.


def dataset(count: int) -> Tree:
    """A dataset of so many versions, of which nobody understands the manifests."""
    return {"_versions": {f"{number}.manifest": b"%d" % number for number in range(count)}, "data": {"a": b"rows"}}


def cleaning_up(versions: Path, turns: Callable[[int], bool]) -> Callable[[], bool]:
    """Removes the first version that there is, when asked in this thread; `turns` says whether, by how often it was."""
    asked, here = iter(range(1_000_000)), threading.get_ident()

    def stopping() -> bool:
        if threading.get_ident() == here and turns(next(asked)):
            min(versions.iterdir()).unlink()
        return False

    return stopping


def test_a_dataset_that_holds_still_is_read_once(backups: Backups) -> None:
    """The next snapshot has what has changed in it, and the rest as it was."""
    tree: dict[str, Tree] = {"set": dataset(3)}
    build_tree(backups.source, tree)
    first = backups.take()
    assert tree == read_snapshot(reopen(backups.repository), first.name)
    assert backups.node(first.name) == backups.node(backups.take().name)
    (backups.source / "set/data/b").write_bytes(b"more rows")
    assert {"set": {**dataset(3), "data": {"a": b"rows", "b": b"more rows"}}} == read_snapshot(
        reopen(backups.repository), backups.take().name
    )


@pytest.mark.slow
def test_a_dataset_that_is_remembered_is_read_where_it_has_changed(backups: Backups) -> None:
    """When it has held still for long enough; also when nothing but what is below it has changed."""
    build_tree(backups.source, {"set": dataset(3)})
    backups.take()
    time.sleep(SETTLED_S)
    backups.take()
    counts = backups.take().archived.counts
    assert (0, 0, 4) == (counts.files_new, counts.files_changed, counts.files_unmodified)
    (backups.source / "set/data/a").write_bytes(b"other rows")
    taken = backups.take()
    assert (1, 3) == (taken.archived.counts.files_changed, taken.archived.counts.files_unmodified)
    expected = {**dataset(3), "data": {"a": b"other rows"}}
    assert {"set": expected} == read_snapshot(reopen(backups.repository), taken.name)


def test_a_dataset_is_read_again_when_versions_go_meanwhile(backups: Backups) -> None:
    """What is stored then is all of one time, and nothing counts twice."""
    build_tree(backups.source, {"set": dataset(5)})
    versions = backups.source / "set/_versions"
    taken = backups.take(stopping=cleaning_up(versions, lambda asked: asked == 2))
    assert ((), ()) == (taken.archived.torn, taken.archived.unread)
    assert 4 == len(list(versions.iterdir()))
    found = read_snapshot(reopen(backups.repository), taken.name)
    left = {path.name: path.read_bytes() for path in versions.iterdir()}
    assert {"set": {"_versions": left, "data": {"a": b"rows"}}} == found
    assert 5 == taken.archived.counts.files


def test_a_dataset_that_is_cleaned_up_without_end_is_told(backups: Backups) -> None:
    """After some turns it is stored as far as it could be read, and the next snapshot reads it anew."""
    build_tree(backups.source, {"set": dataset(100)})
    versions = backups.source / "set/_versions"
    taken = backups.take(stopping=cleaning_up(versions, lambda _: True))
    expected = os.fsencode(backups.source / "set"), "versions were cleaned up while it was read"
    assert (expected,) == taken.archived.torn
    assert {"a": b"rows"} == read_snapshot(reopen(backups.repository), taken.name)["set"]["data"]  # type: ignore[index,call-overload]
    again = backups.take()
    assert () == again.archived.torn
    left = {path.name: path.read_bytes() for path in versions.iterdir()}
    assert {"set": {"_versions": left, "data": {"a": b"rows"}}} == read_snapshot(reopen(backups.repository), again.name)


def test_a_file_that_somebody_else_has_put_there_is_read(open_path: Path, as_nobody: AsNobody) -> None:
    """Not without a trace in its access time, which only its owner may ask for."""
    (open_path / "a").write_bytes(b"theirs")

    def read() -> bytes:
        dir_fd = os.open(open_path, os.O_RDONLY)
        fd = open_regular(b"a", dir_fd, NOBODY)
        return os.read(fd, 100)

    assert b"theirs" == as_nobody(read)
