"""Optimising gives back what a collection doesn't need, keeps what it holds, and is made only after a snapshot."""

import importlib.util
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.errors import Locked
from symbiont_datad.fsops.lock import hold
from symbiont_datad.jobs import optimizer
from symbiont_datad.jobs.context import JobSettings, VectorSettings
from symbiont_datad.report import JobReport, Outcome, Severity
from tests.conftest import AsNobody
from tests.jobs.collecting import lance_dataset, qdrant_collection, vector_table
from tests.jobs.making import Ran, ledger_of, run, settings_for, stop_after, write
from tests.jobs.snapshotting import cheap_repository, held_by, snapshots
from tests.support import NOBODY, read_tree

DB = "data/vector_db/collections/notes/db"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree with no collection; what is in it counts as at rest at once."""
    settings = cheap_repository(settings_for(tmp_path, settle_s=0.0))
    for name in ("indexes", "metadata"):
        (tmp_path / "data/vector_db" / name).mkdir()
    return settings


def optimize(settings: JobSettings, *names: str, **options: bool) -> Ran:
    """The job, a moment after the files were written."""
    return run("optimize", settings, now=time.time() + 1, names=names, **options)


def rows(path: Path) -> list[tuple[object, ...]]:
    """All rows of a table of vectors."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select id, agent, body, length(vector) from embeddings order by id").fetchall()


READER = """
import sqlite3, sys
queries = 0
print("ready", flush=True)
while not sys.stdin.closed:
    database = sqlite3.connect(sys.argv[1], timeout=30)
    for _ in range(20):
        count, least = database.execute("select count(*), min(length(vector)) from embeddings").fetchone()
        found = database.execute("select body from embeddings where agent = 'agent 3'").fetchall()
        assert (count, least) == (60, 1024) and len(found) > 5, (count, least, found)
        queries += 1
    database.close()
    print(queries, flush=True)
"""


@contextmanager
def reading(code: str, path: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that reads a store again and again, and fails when an answer is wrong. It has begun."""
    command = [sys.executable, "-c", code, str(path), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            assert int(process.stdout.readline()) > 0
            yield process
            before = int(process.stdout.readline())
            while int(process.stdout.readline()) <= before:  # it reads on, after all that was done
                pass
            assert process.poll() is None
        finally:
            process.kill()
            if process.poll() not in (None, -9):
                raise AssertionError(process.stderr.read() if process.stderr else "")


def test_a_database_in_wal_mode_shrinks_while_it_is_read(settings: JobSettings, tmp_path: Path) -> None:
    """Every row and index is there afterwards; its readers never got a wrong answer, nor an error."""
    path = vector_table(tmp_path / DB)
    before, size = rows(path), path.stat().st_size
    with reading(READER, path):
        ran = optimize(settings)
        while ran.report.counts["skipped"]:  # the reader was just in its way; the daemon comes again as well
            assert [Severity.INFO] == [one.severity for one in ran.report.findings]
            ran = optimize(settings)
    assert (Outcome.DONE, 1) == (ran.report.outcome, ran.report.counts["optimized"])
    assert before == rows(path)
    assert path.stat().st_size < size / 3
    assert ran.report.counts["freed"] > size / 2
    with closing(sqlite3.connect(path)) as database:
        assert [("ok",), ("wal",)] == [
            database.execute(f"pragma {name}").fetchone() for name in ("integrity_check", "journal_mode")
        ]
    assert 0 == optimize(settings).report.counts["optimized"]


def test_a_snapshot_comes_before_it(settings: JobSettings, tmp_path: Path) -> None:
    """Of the collection and what was known of it, with its own tag; the ledger tells of both."""
    path = vector_table(tmp_path / DB)
    size = path.stat().st_size
    ran = optimize(settings)
    assert ["snapshot_created", "collection_optimized"] == ran.told
    (one,) = snapshots(settings, "optimize")
    assert size == held_by(settings, one)["vector_db/collections/notes/db"].size
    with ledger_of(settings) as ledger:
        (row,) = ledger.actions(kinds=("collection_optimized",))
    assert ("vector_db/collections/notes", "vector_db.optimize_when") == (row.path, row.rule)
    assert row.bytes > size / 2
    run("vectors", settings, now=time.time() + 2)
    assert b'"last_optimised": "20' in (tmp_path / "data/vector_db/metadata/notes.json").read_bytes()


def test_snapshots_before_it_go_by_their_age(settings: JobSettings, tmp_path: Path) -> None:
    """They hold what a collection no longer needs, so they stay for a few days only."""
    vector_table(tmp_path / DB)
    optimize(settings)
    soon = replace(settings, snapshots=replace(settings.snapshots, optimizations_s=0.01))
    time.sleep(0.05)
    run("prune", soon, now=time.time())
    assert [] == snapshots(settings, "optimize")


def test_without_a_snapshot_nothing_is_done(settings: JobSettings, tmp_path: Path) -> None:
    """Where none can be made it is left, with the reason; unless the user says that none is wanted."""
    path = vector_table(tmp_path / DB)
    (tmp_path / "backups").rename(tmp_path / "away")
    (tmp_path / "backups").write_bytes(b"no directory")
    size = path.stat().st_size
    ran = optimize(settings)
    assert (Outcome.LEFT, size) == (ran.report.outcome, path.stat().st_size)
    assert ran.report.findings[0].detail.startswith("no snapshot of it could be made before")
    assert Outcome.DONE == optimize(settings, no_snapshot=True).report.outcome
    assert path.stat().st_size < size


def test_a_dry_run_is_the_plan(settings: JobSettings, tmp_path: Path) -> None:
    """What would be done, and how much it would free; nothing is touched, and no snapshot made."""
    vector_table(tmp_path / DB)
    before = read_tree(tmp_path / "data")
    ran = optimize(settings, dry_run=True)
    ((action),) = ran.report.actions
    assert ("collection_optimized", "vector_db/collections/notes/db") == (action.kind, action.path)
    assert action.bytes > 300_000
    assert before == read_tree(tmp_path / "data")
    assert [] == snapshots(settings)


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"pragma journal_mode = {sys.argv[2]}")
database.execute("begin immediate")
database.execute("insert into embeddings(body, vector) values ('mine', 'x')")
print("writing", flush=True)
sys.stdin.read()
database.execute("commit")
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_who_writes_is_not_disturbed(settings: JobSettings, tmp_path: Path, mode: str) -> None:
    """A transaction that is under way: it is left for the next run, which does it."""
    path = vector_table(tmp_path / DB)
    size = path.stat().st_size
    # Another process: one that closes a file loses all of its locks on it.
    command = [sys.executable, "-c", WRITER, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert b"writing\n" == writer.stdout.readline()
        ran = optimize(settings, "notes", no_snapshot=True)
        writer.communicate()
    assert 0 == writer.returncode
    assert [("not_optimized", Severity.INFO)] == [(one.kind, one.severity) for one in ran.report.findings]
    assert ["collection_skipped"] == ran.told
    assert Outcome.DONE == optimize(settings, "notes", no_snapshot=True).report.outcome
    assert 61 == len(rows(path))
    assert path.stat().st_size < size / 3


def test_free_pages_are_given_back_step_by_step(settings: JobSettings, tmp_path: Path) -> None:
    """A database that keeps track of them needs no copy."""
    path = vector_table(tmp_path / DB, 600, 60, "pragma auto_vacuum = incremental")
    before, size = rows(path), path.stat().st_size
    ran = optimize(settings)
    assert "its free pages were given back" in ran.report.actions[-1].reason
    assert (before, True) == (rows(path), path.stat().st_size < size / 3)


def test_a_table_without_a_key_is_for_the_user_to_say(settings: JobSettings, tmp_path: Path) -> None:
    """VACUUM could give its rows other numbers, on which a program may rely: only who names it has it done."""
    path = tmp_path / DB
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table points(id text primary key, point blob)")
        database.executemany("insert into points values (?, zeroblob(1000))", [(f"{n}",) for n in range(500)])
        database.execute("delete from points where rowid > 50")
        database.commit()
    size = path.stat().st_size
    ran = optimize(settings)
    assert "'points' other numbers" in ran.report.findings[0].detail
    assert size == path.stat().st_size
    assert 1 == optimize(settings, "notes").report.counts["optimized"]
    assert path.stat().st_size < size / 2


def test_what_others_can_write_to_is_refused(settings: JobSettings, tmp_path: Path) -> None:
    """As are names that nobody has, servers' collections, and what holds nothing to optimise."""
    vector_table(tmp_path / DB).chmod(0o666)
    qdrant_collection(tmp_path / "data/vector_db/collections/served")
    write(tmp_path / "data/vector_db/collections/files/a.txt")
    ran = optimize(settings, "notes", "served", "files")
    assert {"notes": "others can", "served": "its server", "files": "there is nothing"} == {
        one.path.rpartition("/")[2]: " ".join(one.detail.split()[: 2 + ("nothing" in one.detail)])
        for one in ran.report.findings
    }
    assert [] == snapshots(settings)
    failed = optimize(settings, "nobody")
    assert (Outcome.FAILED, "there is no collection nobody") == (failed.report.outcome, failed.report.message)


def test_it_is_done_as_the_owner(open_path: Path, as_nobody: AsNobody) -> None:
    """Root becomes the collection's owner for it, so that a link which that one plants leads nowhere."""
    del as_nobody
    settings = settings_for(open_path, settle_s=0.0)
    (open_path / "data/vector_db/metadata").mkdir()
    path = vector_table(open_path / DB)
    for one in (path.parent, path):
        os.chown(one, NOBODY, NOBODY)
    size = path.stat().st_size
    assert 1 == optimize(settings).report.counts["optimized"]
    assert (NOBODY, True) == (path.stat().st_uid, path.stat().st_size < size / 3)
    assert {path} == set(path.parent.iterdir())


def test_a_root_beside_the_tree_only_when_it_is_named(settings: JobSettings, tmp_path: Path) -> None:
    """The timetable leaves it alone."""
    path = vector_table(tmp_path / "vectors/notes/db")
    beside = replace(settings, vectors=VectorSettings(extra_roots=(str(tmp_path / "vectors"),)))
    size = path.stat().st_size
    assert 0 == optimize(beside).report.counts["optimized"]
    assert 1 == optimize(beside, f"{tmp_path}/vectors/notes").report.counts["optimized"]
    assert path.stat().st_size < size / 3
    (one,) = snapshots(settings, "optimize")
    assert [f"{tmp_path}/data/vector_db/metadata", f"{tmp_path}/vectors/notes"] == sorted(one[1].paths)


def test_only_one_at_a_time(settings: JobSettings) -> None:
    """A command and the daemon don't do it beside each other."""
    with hold(settings.lock_path("optimize"), "the daemon"), pytest.raises(Locked):
        optimize(settings)


# What is left, and why


def reason_of(ran: Ran) -> str:
    """Why the one collection that there is was left."""
    (finding,) = [one for one in ran.report.findings if one.kind == "not_optimized"]
    assert ("vector_db/collections/notes/db", 0) == (finding.path, ran.report.counts["optimized"])
    return finding.detail


def test_a_database_that_is_damaged_is_left(settings: JobSettings, tmp_path: Path) -> None:
    """It is no fault that a rewriting would mend: it is said, with or without a snapshot before."""
    path = tmp_path / DB
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table points(id integer primary key, point blob)")
        database.executemany("insert into points(point) values (?)", [(None,), *([(bytes(1000),)] * 500)])
        database.execute("delete from points where id > 50")
        database.execute("pragma writable_schema = on")
        database.execute("update sqlite_schema set sql = replace(sql, 'blob', 'blob not null')")
        database.commit()
    ran = optimize(settings)
    told = " ".join(one.detail for one in ran.report.findings)
    assert told.startswith("no snapshot of it could be made before: it is incomplete: ")
    assert told.endswith("it is damaged: NULL value in points.point")
    assert ["incomplete", "optimize"] == sorted(snapshots(settings)[0][1].tags)
    assert "it is damaged: NULL value in points.point" in reason_of(optimize(settings, no_snapshot=True))


def test_a_database_that_needs_its_own_program_is_left(settings: JobSettings, tmp_path: Path) -> None:
    """An index by a function that SQLite itself does not have: the reason names it, and nothing is lost."""
    path = vector_table(tmp_path / DB)
    with closing(sqlite3.connect(path)) as database:
        database.create_function("stem", 1, lambda text: text, deterministic=True)
        database.execute("create index by_stem on embeddings(stem(body))")
        database.commit()
    before = rows(path)
    assert "stem" in reason_of(optimize(settings, "notes", no_snapshot=True))
    assert before == rows(path)


@pytest.mark.slow
def test_without_room_for_a_copy_it_is_left(settings: JobSettings, tmp_path: Path) -> None:
    """SQLite rewrites a database beside itself: so much has to be free."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    place = tmp_path / "data/vector_db"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=True)
    try:
        beside = replace(settings, vectors=VectorSettings(extra_roots=(str(place),)))
        path = vector_table(place / "notes/db")
        (place / "ballast").mkdir()
        found = os.statvfs(place)
        (place / "ballast/one").write_bytes(bytes(found.f_bavail * found.f_frsize - path.stat().st_size))
        before = path.read_bytes()
        ran = optimize(beside, f"{place}/notes", no_snapshot=True)
        assert [f"{place}/notes/db", "there is no room for a copy of it"] == [
            text for one in ran.report.findings if one.kind == "not_optimized" for text in (one.path, one.detail)
        ]
        assert before == path.read_bytes()
        (place / "ballast/one").unlink()
        assert 1 == optimize(beside, f"{place}/notes", no_snapshot=True).report.counts["optimized"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_what_root_has_in_a_directory_of_somebody_else_is_left(settings: JobSettings, tmp_path: Path) -> None:
    """That one could put a link in its place while root works in it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    path = vector_table(tmp_path / DB)
    os.chown(path.parent.parent, NOBODY, NOBODY)
    assert "it belongs to root, in a directory of somebody else: chown it" == reason_of(
        optimize(settings, "notes", no_snapshot=True)
    )
    os.chown(path.parent.parent, 0, 0)
    assert 1 == optimize(settings, "notes", no_snapshot=True).report.counts["optimized"]


def test_a_library_that_cant_be_loaded_is_named(
    settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and yet of no use: the tables are left, and the finding says why."""
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries/lance.py").write_text("raise ImportError('wrong architecture')\n")
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    lance_dataset(tmp_path / "data/vector_db/collections/memories/t.lance")
    ran = optimize(settings, no_snapshot=True)
    (finding,) = ran.report.findings
    assert "the library can't be loaded: wrong architecture" == finding.detail


def work(path: Path, **order: object) -> "subprocess.CompletedProcess[str]":
    """The process that optimises the database at the path, with the order that it gets; its answer is not looked at."""
    whole = {"engine": "sqlite", "name": path.name, "forced": True, "shared": False, "owner": None, **order}
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        return subprocess.run(
            [sys.executable, "-m", "symbiont_datad.jobs.optimizer", str(fd)],
            input=json.dumps(whole), pass_fds=(fd,), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(fd)


@pytest.mark.slow
def test_a_file_that_got_another_name_meanwhile_is_left(tmp_path: Path) -> None:
    """As does what is no file any more: nobody knows what would be written to."""
    path = vector_table(tmp_path / "db")
    os.link(path, tmp_path / "other")
    before = path.read_bytes()
    for name in ("db", "."):
        answer = json.loads(work(path, name=name).stdout)
        assert "it is no file of its own any more" == answer["why"]
    assert before == path.read_bytes()


SLOW_READER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("begin")
database.execute("select count(*) from embeddings").fetchone()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def an_old_state_in_use(path: Path) -> Iterator[None]:
    """Another process goes on reading what the database holds now."""
    command = [sys.executable, "-c", SLOW_READER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"\n" == process.stdout.readline()
        yield
        process.communicate()


def test_readers_of_an_older_state_are_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is rewritten all the same, and shrinks when the last of them is gone."""
    monkeypatch.setattr(optimizer, "_CHECKPOINTS", 2)
    monkeypatch.setattr(optimizer, "_PAUSE_S", 0.01)
    path = vector_table(tmp_path / "db")
    before, size = rows(path), path.stat().st_size
    monkeypatch.chdir(tmp_path)
    with an_old_state_in_use(path):
        assert optimizer.Done("rewritten without its free pages", later=True) == optimizer.optimize_sqlite(
            "db", forced=False, shared=True
        )
        assert size == path.stat().st_size
    assert not optimizer.optimize_sqlite("db", forced=False, shared=False).later
    assert (before, True) == (rows(path), path.stat().st_size < size / 3)


# Asked to stop


@pytest.mark.slow
def test_asked_to_stop_before_or_after_the_snapshot(settings: JobSettings, tmp_path: Path) -> None:
    """The collection is as it was, and a snapshot is whole or none."""
    path = vector_table(tmp_path / DB)
    before = path.read_bytes()
    for looks in range(4):
        ran = run("optimize", settings, now=time.time() + 1, stopping=stop_after(looks))
        assert (Outcome.INTERRUPTED, []) == (ran.report.outcome, snapshots(settings))
        assert before == path.read_bytes()
    saved = tmp_path / "backups/snapshots"
    ran = run("optimize", settings, now=time.time() + 1, stopping=lambda: any(saved.iterdir()))
    assert (Outcome.INTERRUPTED, 1, before) == (ran.report.outcome, len(snapshots(settings)), path.read_bytes())
    assert Outcome.DONE == optimize(settings).report.outcome


@pytest.mark.slow
def test_asked_to_stop_the_process_is_ended(settings: JobSettings, tmp_path: Path) -> None:
    """It waits for a reader just then: the database is whole, and the next run does what is left."""
    path = vector_table(tmp_path / DB)
    before, log = rows(path), path.with_name("db-wal")
    asked = threading.Event()

    def stopping() -> bool:
        if log.exists() and log.stat().st_size:
            asked.set()
        return asked.is_set()

    with an_old_state_in_use(path):
        ran = run("optimize", settings, now=time.time() + 1, no_snapshot=True, stopping=stopping)
        assert (Outcome.INTERRUPTED, 0) == (ran.report.outcome, ran.report.counts["optimized"])
    assert before == rows(path)
    assert 1 == optimize(settings, "notes").report.counts["optimized"]


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """At any moment of a VACUUM, in both modes: every row is there, and the next one frees the space."""
    chance = random.Random(7)
    for turn in range(30):
        path = vector_table(tmp_path / f"{turn}/db", 3000, 300)
        before, size = rows(path), path.stat().st_size
        if turn % 2:
            with closing(sqlite3.connect(path)) as database:
                database.execute("pragma journal_mode = delete")
        order = json.dumps({"engine": "sqlite", "name": "db", "forced": True, "shared": False, "owner": None}).encode()
        fd = os.open(path.parent, os.O_RDONLY)
        command = [sys.executable, "-m", "symbiont_datad.jobs.optimizer", str(fd)]
        try:
            for kill in (True, False):
                with subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(fd,)
                ) as process:
                    assert process.stdin is not None
                    process.stdin.write(order)
                    process.stdin.close()
                    if kill:
                        watched = ("db-wal", "db-journal")
                        while process.poll() is None and not any((path.parent / name).exists() for name in watched):
                            pass
                        time.sleep(chance.random() * 0.02)
                        process.kill()
                    process.wait()
                assert before == rows(path)
        finally:
            os.close(fd)
        with closing(sqlite3.connect(path)) as database:
            assert ("ok",) == database.execute("pragma integrity_check").fetchone()
        assert path.stat().st_size < size / 3


# Lance

LANCE_WRITER = """
import lance, pyarrow, sys
def rows(first, count):
    vectors = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array([float(n % 97) for n in range(first * 16, (first + count) * 16)], pyarrow.float32()), 16)
    numbers = list(range(first, first + count))
    return pyarrow.table({"n": numbers, "text": [str(n) * 20 for n in numbers], "vector": vectors})
path = sys.argv[1]
lance.write_dataset(rows(0, 500), path)
for turn in range(150):
    lance.write_dataset(rows(500 + 20 * turn, 20), path, mode="append")
    if turn % 10 == 9:
        lance.dataset(path).delete(f"n % 10 = {turn // 10 % 9}")
"""
LANCE_READER = """
import lance, sys
path, expected = sys.argv[1], int(sys.argv[2])
queries = 0
print("ready", flush=True)
while True:
    dataset = lance.dataset(path)
    table = dataset.to_table()
    assert table.num_rows == dataset.count_rows() == expected, table.num_rows
    assert dataset.to_table(filter="n = 1999")["text"].to_pylist() == ["1999" * 20]
    near = dataset.to_table(nearest={"column": "vector", "q": [0.0] * 16, "k": 5})
    assert near.num_rows == 5
    queries += 1
    print(queries, flush=True)
"""


def lance_rows(path: Path) -> str:
    """A digest of all rows, by another process: the library starts threads."""
    code = """
import hashlib, lance, sys
table = lance.dataset(sys.argv[1]).to_table().sort_by("n")
print(table.num_rows, hashlib.sha256(repr(table.to_pydict()).encode()).hexdigest())
"""
    return subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, check=True, text=True, timeout=120
    ).stdout


def size_of(path: Path) -> int:
    """The bytes below a directory."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def files_of(path: Path) -> int:
    """The files below a directory."""
    return sum(one.is_file() for one in path.rglob("*"))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_lance_table_shrinks_while_it_is_read(settings: JobSettings, tmp_path: Path) -> None:
    """150 small appends and deletes become a file or so; all rows and answers stay; readers never fail.

    Those who read the old version go on for as long as the settings say; then it goes, too.
    """
    if importlib.util.find_spec("lance") is None:
        pytest.skip("pylance is not installed")
    path = tmp_path / "data/vector_db/collections/memories/symbiont_context.lance"
    subprocess.run([sys.executable, "-c", LANCE_WRITER, str(path)], check=True, timeout=120)
    before, size, files = lance_rows(path), size_of(path), files_of(path)
    first = replace(settings, vectors=VectorSettings(keep_versions_s=600.0))
    then = replace(settings, vectors=VectorSettings(keep_versions_s=0.5))
    assert 0 < planned(optimize(first, dry_run=True).report)
    with reading(LANCE_READER, path, before.split()[0]):
        ran = optimize(first)
        assert (Outcome.DONE, 1, 1) == (
            ran.report.outcome, ran.report.counts["optimized"], ran.report.counts["later"]
        )  # fmt: skip
    assert before == lance_rows(path)
    assert 0 < planned(optimize(then, dry_run=True).report)
    time.sleep(1.0)
    ran = optimize(then)
    assert (1, 0) == (ran.report.counts["optimized"], ran.report.counts["later"])
    assert before == lance_rows(path)
    assert (True, True) == (size_of(path) < size / 3, files_of(path) < files / 20)
    assert 0 == planned(optimize(then, dry_run=True).report)
    assert 2 == len(snapshots(settings, "optimize"))


def planned(report: JobReport) -> int:
    """How many bytes a plan would free."""
    return sum(action.bytes for action in report.actions)


@pytest.mark.slow
def test_a_lance_table_of_somebody_else(open_path: Path, as_nobody: AsNobody) -> None:
    """Root becomes its owner for the library's time: the new files are that owner's."""
    del as_nobody
    if importlib.util.find_spec("lance") is None:
        pytest.skip("pylance is not installed")
    settings = settings_for(open_path, settle_s=0.0, vectors=VectorSettings(keep_versions_s=0.5))
    (open_path / "data/vector_db/metadata").mkdir()
    path = open_path / "data/vector_db/collections/memories/t.lance"
    subprocess.run([sys.executable, "-c", LANCE_WRITER, str(path)], check=True, timeout=120)
    for one in [path.parent, path, *path.rglob("*")]:
        os.chown(one, NOBODY, NOBODY)
    before = lance_rows(path)
    assert 1 == optimize(settings).report.counts["optimized"]
    assert {NOBODY} == {one.stat().st_uid for one in path.rglob("*")}
    assert before == lance_rows(path)


def test_without_its_library_a_table_is_left(
    settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to install is said, and no snapshot is made for nothing."""
    lance_dataset(tmp_path / "data/vector_db/collections/memories/t.lance")
    monkeypatch.setattr("symbiont_datad.jobs.optimize.find_spec", lambda _: None)
    ran = optimize(settings)
    assert "symbiont-datad[lancedb]" in ran.report.findings[0].detail
    assert [] == snapshots(settings)
