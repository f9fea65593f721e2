"""Live SQLite databases: copies that are whole, whoever writes, and a tree that shows no trace of it."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from symbiont_datad.formats.sqlite import NotCopied, companions, consistent_copy, is_database
from tests.support import NOBODY, run_as

WRITER = """
import os, sqlite3, sys, time
path, mode, uid = sys.argv[1:]
os.setuid(int(uid))
db = sqlite3.connect(path, isolation_level=None, timeout=5)
db.execute(f"PRAGMA journal_mode={mode}")
db.execute("PRAGMA wal_autocheckpoint=20")
db.execute("PRAGMA synchronous=OFF")
db.executescript("CREATE TABLE a (n INTEGER, filler BLOB); CREATE TABLE b (n INTEGER, filler BLOB)")
db.execute("CREATE INDEX i ON b (n)")
print("ready", flush=True)
done = 0
until = time.monotonic() + 50
while time.monotonic() < until:
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO a VALUES (?, randomblob(2000))", (done,))
    db.execute("INSERT INTO b VALUES (?, randomblob(3000))", (done,))
    if done % 50 == 49:
        db.execute("DELETE FROM a WHERE n < ?", (done - 40,))
        db.execute("DELETE FROM b WHERE n < ?", (done - 40,))
    if done % 7 == 3:
        db.execute("ROLLBACK")
    else:
        db.execute("COMMIT")
    done += 1
    print(done, flush=True)
"""
"""Both tables always agree. Prints the number of transactions behind it; ends when it hears "database is locked"."""

HOLDER = """
import os, sqlite3, sys
path, uid, *statements = sys.argv[1:]
os.setuid(int(uid))
db = sqlite3.connect(path, isolation_level=None)
for statement in statements:
    db.execute(statement).fetchall()
print("ready", flush=True)
sys.stdin.read()
"""
"""Runs statements and keeps the database open until it is killed or its input ends."""

LEFT_WAL = ("PRAGMA journal_mode=WAL", "CREATE TABLE t (n)", "INSERT INTO t VALUES (1), (2)")
LEFT_JOURNAL = (
    "CREATE TABLE t (n, filler)",
    f"INSERT INTO t VALUES {', '.join(f'({n}, randomblob(3000))' for n in range(1, 51))}",
    "PRAGMA cache_size=2",
    "BEGIN",
    "UPDATE t SET n = 0, filler = randomblob(2999)",
)
"""The cache is so small that half of the transaction is in the database before it is committed."""


@contextmanager
def holding(path: Path, *statements: str, uid: int = os.getuid()) -> Iterator[subprocess.Popen[str]]:
    """A process that ran these statements and keeps the database open; it is killed at the end."""
    command = [sys.executable, "-c", HOLDER, str(path), str(uid), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def copied(directory: Path, name: bytes, scratch: Path, timeout_s: float = 10.0) -> bytes:
    """The bytes of a consistent copy."""
    dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with consistent_copy(dir_fd, name, scratch, timeout_s=timeout_s) as fd, open(fd, "rb", closefd=False) as file:
            assert [] == os.listdir(scratch)
            return file.read()
    finally:
        os.close(dir_fd)


def refused(directory: Path, name: bytes, scratch: Path) -> str:
    """Why there is no copy."""
    with pytest.raises(NotCopied) as caught:
        copied(directory, name, scratch, timeout_s=0.2)
    assert [] == os.listdir(scratch)
    return caught.value.reason


def query(content: bytes, sql: str) -> list[tuple[object, ...]]:
    """What a statement finds in a database that is given as bytes."""
    with closing(sqlite3.connect(":memory:")) as database:
        # In memory there is no -wal, so the two bytes that ask for one are set to the other mode.
        database.deserialize(content[:18] + b"\1\1" + content[20:])
        return database.execute(sql).fetchall()


def listing(directory: Path) -> list[tuple[object, ...]]:
    """All that a copy could change: names, modes, owners, times of content and of status, sizes, links."""
    found: list[tuple[object, ...]] = []
    for path in sorted([directory, *directory.iterdir()]):
        status = path.lstat()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found.append((path.name, status.st_mode, status.st_uid, status.st_gid, times, status.st_size, status.st_nlink))
    return found


def make(path: Path, *statements: str) -> Path:
    """A database that is closed again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement).fetchall()
    return path


@pytest.fixture
def tree(open_path: Path) -> Path:
    """Where the databases are."""
    (open_path / "tree").mkdir()
    return open_path / "tree"


@pytest.fixture
def scratch(open_path: Path) -> Path:
    """Where copies are made."""
    (open_path / "scratch").mkdir()
    return open_path / "scratch"


def test_a_database_is_known_by_its_header() -> None:
    """The first 16 bytes say it, the name doesn't."""
    assert is_database(b"SQLite format 3\0\x10\0")
    assert not is_database(b"SQLite format 3")
    assert not is_database(b"")
    assert (b"\xff.db-wal", b"\xff.db-shm", b"\xff.db-journal") == companions(b"\xff.db")


@pytest.mark.parametrize("uid", [pytest.param(os.getuid(), id="own"), pytest.param(NOBODY, id="other")])
@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE"])
def test_copies_of_a_database_under_a_hammer_are_whole(tree: Path, scratch: Path, mode: str, uid: int) -> None:
    """20 copies while a writer commits, rolls back and checkpoints: each is whole, and the writer is not held up."""
    if uid != os.getuid() and os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    os.chown(tree, uid, uid)
    command = [sys.executable, "-c", WRITER, str(tree / "live.db"), mode, str(uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert "ready\n" == writer.stdout.readline()
            counts = []
            for _ in range(20):
                content = copied(tree, b"live.db", scratch)
                assert [("ok",)] == query(content, "PRAGMA integrity_check")
                sums = query(
                    content, "SELECT (SELECT total(n) FROM a), (SELECT total(n) FROM b), (SELECT max(n) FROM a)"
                )
                assert sums[0][0] == sums[0][1]
                counts.append(sums[0][2] or 0)
            assert writer.poll() is None
        finally:
            writer.kill()
        progress, complaints = writer.communicate()
    assert "" == complaints
    assert counts == sorted(counts)  # type: ignore[type-var]
    assert int(progress.split()[-1]) > 40
    assert {uid} == {path.stat().st_uid for path in tree.iterdir()}


@pytest.mark.parametrize("reader", [pytest.param(os.getuid(), id="own"), pytest.param(NOBODY, id="other")])
@pytest.mark.parametrize("state", ["rollback", "wal", "wal-open", "wal-left", "wal-left-alone", "journal-left"])
def test_nothing_in_the_tree_changes(tree: Path, scratch: Path, state: str, reader: int) -> None:
    """Whatever state a database is in and whoever copies it, the directory is afterwards as it was, with its times."""
    if reader != os.getuid() and os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    path = tree / "x.db"
    if state.startswith("wal-"):
        with holding(path, *LEFT_WAL) as process:
            if state == "wal-open":
                _copy_leaves_no_trace(tree, scratch, reader, [(1,), (2,)])
                return
            process.kill()
        if state == "wal-left-alone":
            (tree / "x.db-shm").unlink()
        _copy_leaves_no_trace(tree, scratch, reader, [(1,), (2,)])
    elif state == "journal-left":
        with holding(path, *LEFT_JOURNAL):
            pass
        assert (tree / "x.db-journal").stat().st_size > 0
        _copy_leaves_no_trace(tree, scratch, reader, [(n,) for n in range(1, 51)])
    else:
        make(path, *(LEFT_WAL if state == "wal" else LEFT_WAL[1:]))
        assert path.read_bytes() == _copy_leaves_no_trace(tree, scratch, reader, [(1,), (2,)])


def _copy_leaves_no_trace(tree: Path, scratch: Path, reader: int, rows: list[tuple[int]]) -> bytes:
    """Copy twice as `reader`; the copies are the same and hold `rows`, and the tree is as before."""

    def copy_twice() -> list[bytes]:
        dir_fd = os.open(tree, os.O_RDONLY)
        copies = []
        for _ in range(2):
            with consistent_copy(dir_fd, b"x.db", scratch, timeout_s=5) as fd:
                copies.append(os.read(fd, 1 << 24))
        os.close(dir_fd)
        return copies

    before = listing(tree)
    os.chown(scratch, reader, reader)
    first, second = copy_twice() if reader == os.getuid() else run_as(reader, copy_twice)
    assert first == second
    assert rows == query(first, "SELECT n FROM t ORDER BY n")
    assert before == listing(tree)
    assert [] == list(scratch.iterdir())
    return first


@pytest.mark.parametrize("name", ["a b?mode=rw#x%41&c=d.db", "sp ace", "x\udcff\udcfe.db", "-wal", "d" * 240])
def test_any_name_will_do(tree: Path, scratch: Path, name: str) -> None:
    """Nothing in a name is taken for something else, also when it is no UTF-8."""
    path = tree / name
    with holding(path, *LEFT_WAL):
        assert [(2,)] == query(copied(tree, os.fsencode(name), scratch), "SELECT count(*) FROM t")


def test_a_deep_directory_will_do(tree: Path, scratch: Path) -> None:
    """SQLite itself opens no path of more than 512 bytes."""
    deep = tree.joinpath(*["d" * 200] * 4)
    deep.mkdir(parents=True)
    here = os.getcwd()
    os.chdir(deep)
    try:
        content = make(tree / "x.db", *LEFT_WAL[1:]).read_bytes()
        (tree / "x.db").rename("x.db")
        assert content == copied(Path(), b"x.db", scratch)
    finally:
        os.chdir(here)


def test_an_uncommitted_transaction_is_left_out(tree: Path, scratch: Path) -> None:
    """A writer that prepares a transaction neither waits for a copy nor shows in it."""
    for name, *mode in (("rollback.db",), ("wal.db", "PRAGMA journal_mode=WAL")):
        with holding(tree / name, *mode, "CREATE TABLE t (n)", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"):
            assert [(0,)] == query(copied(tree, name.encode(), scratch), "SELECT count(*) FROM t")


def test_who_locks_it_for_long_is_told_of(tree: Path, scratch: Path) -> None:
    """After the time there is for waiting the copy is given up."""
    with holding(tree / "x.db", "CREATE TABLE t (n)", "BEGIN EXCLUSIVE"):
        start = time.monotonic()
        assert "it is locked by another process" == refused(tree, b"x.db", scratch)
        dir_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
        with (
            pytest.raises(NotCopied),  # who is to stop does not wait
            consistent_copy(dir_fd, b"x.db", scratch, timeout_s=1e9, stopping=lambda: True),
        ):
            pass
        os.close(dir_fd)
        assert 0.2 <= time.monotonic() - start < 5
    assert [(0,)] == query(copied(tree, b"x.db", scratch), "SELECT count(*) FROM t")


def test_damage_is_told_of(tree: Path, scratch: Path) -> None:
    """What only looks like a database, or is one no longer, is not passed off as a copy."""
    (tree / "header.db").write_bytes(b"SQLite format 3\0")
    (tree / "noise.db").write_bytes(b"SQLite format 3\0" + os.urandom(20_000))
    whole = make(tree / "x.db", *LEFT_JOURNAL[:2], "CREATE INDEX i ON t (n)").read_bytes()
    (tree / "cut.db").write_bytes(whole[: len(whole) // 2])
    (tree / "overwritten.db").write_bytes(whole[:8192] + bytes(8192) + whole[16384:])
    for name in (b"header.db", b"noise.db"):
        assert "SQLite can't copy it: file is not a database" == refused(tree, name, scratch)
    assert refused(tree, b"cut.db", scratch).endswith("malformed")
    assert refused(tree, b"overwritten.db", scratch).startswith("it is damaged: *** in database main ***")
    assert "it is gone" == refused(tree, b"gone.db", scratch)


def test_no_link_is_followed_and_no_pipe_waited_for(tree: Path, scratch: Path) -> None:
    """A link, a pipe or a directory in the place of a database or of what belongs to it ends the attempt."""
    make(tree / "other.db", *LEFT_WAL[1:])
    (tree / "link.db").symlink_to("other.db")
    os.mkfifo(tree / "pipe.db")
    assert refused(tree, b"link.db", scratch).startswith("it can't be copied: Too many levels")
    assert "pipe.db is no regular file" == refused(tree, b"pipe.db", scratch)
    for suffix in ("-wal", "-shm", "-journal"):
        (tree / f"other.db{suffix}").symlink_to("/etc/passwd")
        assert refused(tree, b"other.db", scratch).startswith("it can't be copied: Too many levels")
        (tree / f"other.db{suffix}").unlink()
        os.mkfifo(tree / f"other.db{suffix}")
        assert f"other.db{suffix} is no regular file" == refused(tree, b"other.db", scratch)
        (tree / f"other.db{suffix}").unlink()


def test_a_journal_that_names_a_file_does_not_get_it_deleted(tree: Path, scratch: Path) -> None:
    """SQLite deletes the journal of several databases that a journal ends with; nobody may choose that path for us."""
    with holding(tree / "x.db", *LEFT_JOURNAL):
        pass
    victim = tree / "victim"
    victim.write_text("precious")
    path = os.fsencode(victim)
    with (tree / "x.db-journal").open("ab") as journal:
        journal.write((0x40000000 // 4096 + 1).to_bytes(4, "big") + path)
        journal.write(len(path).to_bytes(4, "big") + sum(path).to_bytes(4, "big"))
        journal.write(bytes.fromhex("d9d505f920a163d7"))
    assert "it was left in a transaction over several databases" == refused(tree, b"x.db", scratch)
    assert "precious" == victim.read_text()
    with closing(sqlite3.connect(tree / "x.db")) as database:
        database.execute("SELECT * FROM t").fetchall()
    assert not victim.exists()  # so it is what the test means


def test_a_journal_that_is_kept_counts_for_nothing(tree: Path, scratch: Path) -> None:
    """With `journal_mode=PERSIST` a journal stays that undoes nothing: the copy has the file's own bytes."""
    path = make(tree / "x.db", "PRAGMA journal_mode=PERSIST", *LEFT_WAL[1:])
    assert (tree / "x.db-journal").stat().st_size > 0
    assert path.read_bytes() == copied(tree, b"x.db", scratch)


def test_what_only_its_program_understands_is_copied(tree: Path, scratch: Path) -> None:
    """Collations, functions and modules that are not here, and values against a rule, are no damage."""
    path = tree / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.create_collation("own", lambda one, other: (one > other) - (one < other))
        database.create_function("own", 1, lambda value: value, deterministic=True)
        database.execute("PRAGMA ignore_check_constraints=ON")
        database.execute("CREATE TABLE a (n TEXT COLLATE own PRIMARY KEY)")
        database.execute("CREATE TABLE b (n CHECK (n > 0))")
        database.execute("CREATE INDEX i ON b (own(n))")
        database.execute("INSERT INTO a VALUES ('x')")
        database.execute("INSERT INTO b VALUES (-1)")
        database.execute('CREATE TABLE "q\'""" (n)')
    whole = path.read_bytes()
    assert whole == copied(tree, b"x.db", scratch)
    # The page after the schema is the table whose collation is missing; the last one, of the others, is looked at.
    path.write_bytes(whole[:-4096] + bytes([9]) * 4096)
    assert "SQLite can't copy it: database disk image is malformed" == refused(tree, b"x.db", scratch)


def test_a_full_scratch_directory_is_told_of(tree: Path, scratch: Path) -> None:
    """Without room for the copy there is none, and nothing stays behind."""
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", scratch]).returncode:
        pytest.skip("not on this platform: no file system can be mounted")
    try:
        make(tree / "x.db", *LEFT_JOURNAL[:2])
        assert "it can't be copied: No space left on device" == refused(tree, b"x.db", scratch)
    finally:
        subprocess.run(["umount", scratch], check=True)


def test_a_read_only_file_system_will_do(tree: Path, scratch: Path) -> None:
    """A copy needs no right to write where the database is."""
    with holding(tree / "x.db", *LEFT_WAL):
        pass
    if os.getuid() != 0 or subprocess.run(["mount", "--bind", "-o", "ro", tree, tree]).returncode:
        pytest.skip("not on this platform: no file system can be mounted")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (tree / "y").touch()
        assert [(2,)] == query(copied(tree, b"x.db", scratch), "SELECT count(*) FROM t")
    finally:
        subprocess.run(["umount", tree], check=True)


def test_a_large_database_that_holds_still_is_copied_in_steps(
    tree: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pauses in which a writer could have its turn: it has its own bytes all the same."""
    monkeypatch.setattr("symbiont_datad.formats.sqlite._STEP", 1 << 16)
    path = make(tree / "x.db", "CREATE TABLE t AS SELECT randomblob(300000) AS bytes")
    assert path.read_bytes() == copied(tree, b"x.db", scratch)


@pytest.mark.slow
def test_a_large_database_is_copied_between_two_transactions(tree: Path, scratch: Path) -> None:
    """A writer in rollback mode gets its turn within a large copy, which is then begun again, but not for ever."""
    make(tree / "live.db", "PRAGMA page_size=65536", "CREATE TABLE large AS SELECT randomblob(300000000) AS bytes")
    command = [sys.executable, "-c", WRITER, str(tree / "live.db"), "DELETE", str(os.getuid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert "ready\n" == writer.stdout.readline()
            content = copied(tree, b"live.db", scratch)
            assert writer.poll() is None
        finally:
            writer.kill()
        progress, complaints = writer.communicate()
    assert "" == complaints
    assert int(progress.split()[-1]) > 5
    assert [(True,)] == query(content, "SELECT (SELECT total(n) FROM a) = (SELECT total(n) FROM b)")


def test_a_database_whose_schema_is_no_text_is_not_copied(tmp_path: Path) -> None:
    """An agent's file of a few kilobytes must not end a backup: it is damaged, and that is told."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table aaaa (n)")
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"\xe3" * 4).replace(b"(n)", b"(n,"))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(NotCopied, match="damaged"), consistent_copy(fd, b"a.db", tmp_path):
            raise AssertionError("it was copied")
    finally:
        os.close(fd)
