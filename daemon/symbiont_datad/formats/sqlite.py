"""SQLite databases: a whole copy of one that others write to, without a change to the tree.

SQLite is never let near the live files. It opens by path and resolves every link on the way, would make `-wal` and
`-shm` files beside a database that lies at rest, and as root gives both to the owner of the database, whatever they
are hard links to. So the files are opened here, by descriptor, read-only, under the locks that SQLite's own readers
take (sqlite.org/lockingv3.html; sqlite.org/walformat.html, "WAL-Mode File Locking"), and frozen in a private
directory. There SQLite rolls back or recovers what a transaction or a crash left, and its backup API makes the copy.

The locks are POSIX locks, which a process loses on a file as soon as it closes any descriptor of it: while a copy is
made, nothing else in the process may open and close the same database.
"""

import fcntl
import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

MAGIC = b"SQLite format 3\0"
"""How every database begins (sqlite.org/fileformat2.html, "The Database Header")."""

_PENDING = 0x40000000
_SHARED, _SHARED_SIZE = _PENDING + 2, 510
_READERS, _READERS_SIZE = 123, 2
"""In `-shm`. The first byte keeps checkpoints from writing to the database, the second keeps the `-wal` from being
begun again; readers of the first kind and of the second hold them, so writers go on as beside any reader."""

_MODE = slice(18, 20)  # in the header of the database
_ROLLBACK = b"\1\1"
_CHANGE_COUNTER = slice(24, 28)  # likewise
_WAL_HEADER = 32
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"

_STEP = 64 << 20  # bytes that are copied before a writer in rollback mode gets its turn
_RESTARTS = 3  # copies in steps that such a writer may spoil before one is made without a pause
_BLOCK = 1 << 20
_PAGES = 4096  # of a backup, between two looks at signals
_POLL_S = 0.01


class NotCopied(Exception):
    """No consistent copy can be had; `reason` says why in one sentence, whose "it" is the database."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Again(Exception):
    """Somebody was in the way; `reason` is for people if that doesn't end."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_database(head: bytes) -> bool:
    """Whether a file that begins with these bytes (16 are enough) calls itself a SQLite database."""
    return head.startswith(MAGIC)


ENDINGS = (b"-wal", b"-shm", b"-journal")
"""What a database's name is followed by in the names of the files that SQLite needs beside it."""


def companions(name: bytes) -> tuple[bytes, ...]:
    """The files beside a database that have no place in a snapshot which holds a consistent copy of it."""
    return tuple(name + ending for ending in ENDINGS)


@contextmanager
def consistent_copy(
    dir_fd: int,
    name: bytes,
    scratch: str | Path,
    *,
    timeout_s: float = 30.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """A whole copy of the database `name` in the directory `dir_fd`, as of one moment between two transactions.

    Gives a descriptor, open for reading, at 0, of a file without a name. An unchanged database gives the same bytes
    each time, and its file's own bytes when no transaction waits beside it. Takes room for the database once in
    `scratch`, a directory where only we write; twice if it has a `-wal` or a `-journal`. A process that is killed
    leaves a directory `sqlite-*` there. `timeout_s`: how long to wait for those who lock it or change it;
    no longer once `stopping()` is true.

    Raises `NotCopied` when the database is damaged, locked, gone, or no regular file; `OSError` when `scratch` can't
    be used.
    """
    with whole_copy(dir_fd, name, scratch, timeout_s=timeout_s, stopping=stopping) as copy:
        try:
            fd = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotCopied(f"it can't be copied: {error.strerror or error}") from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def whole_copy(
    dir_fd: int,
    name: bytes,
    scratch: str | Path,
    *,
    timeout_s: float = 30.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """The same copy as a file that is there while the block runs, so that SQLite can open it by its path."""
    deadline = time.monotonic() + timeout_s

    def over() -> bool:
        return stopping() or time.monotonic() >= deadline

    with tempfile.TemporaryDirectory(prefix="sqlite-", dir=scratch) as private:
        try:
            copy = _freeze(dir_fd, name, Path(private), over)
            _check(copy)
        except OSError as error:
            raise NotCopied(f"it can't be copied: {error.strerror or error}") from error
        except sqlite3.Error as error:
            raise NotCopied(f"SQLite can't copy it: {error}") from error
        except UnicodeDecodeError as error:  # sqlite3 has no errors whose text is none: they quote the schema
            raise NotCopied("it is damaged: its schema is no text") from error
        yield copy


def _freeze(dir_fd: int, name: bytes, private: Path, over: Callable[[], bool]) -> Path:
    """Copy the database into `private`, as often as it takes; the path of one whole file."""
    restarts = 0
    while True:
        try:
            beside = _copy_files(dir_fd, name, private, in_steps=restarts < _RESTARTS, over=over)
        except _Again as again:
            if over():
                raise NotCopied(again.reason) from None
            restarts += isinstance(again, _Changed)
            time.sleep(_POLL_S)
        else:
            return _merge(private) if beside else private / "db"


class _Changed(_Again):
    """A transaction was committed between two steps."""


def _copy_files(dir_fd: int, name: bytes, private: Path, *, in_steps: bool, over: Callable[[], bool]) -> bool:
    """Copy the database and what SQLite needs beside it to `db`, `db-wal`, `db-journal`; whether it needs anything."""
    wal, shm, journal = companions(name)
    with ExitStack() as files:
        main = _open(dir_fd, name, files)
        if main is None:
            raise NotCopied("it is gone")
        _share(main)
        # Nobody can take -wal and -shm away now: the last one to close needs the whole lock for that.
        index = _open(dir_fd, shm, files)
        if index is not None:
            _lock(index, _READERS, _READERS_SIZE)
        # A reader holds up writers in rollback mode only, and only there does each of them leave a mark in the header.
        pausing = in_steps and _header(main)[_MODE] == _ROLLBACK and _identity(dir_fd, wal) is None
        _copy_database(main, private / "db", over if pausing else None)
        beside = _copy_wal(_open(dir_fd, wal, files), private / "db-wal")
        # A journal whose transaction is still being prepared undoes nothing: what it holds is what the database has.
        beside |= _copy_journal(_open(dir_fd, journal, files), private / "db-journal")
        # Who comes to a database in WAL mode makes its -shm, and could write the database without our lock in there.
        if _identity(dir_fd, shm) != _own_identity(index) or _identity(dir_fd, name) != _own_identity(main):
            raise _Again("it was opened or replaced again and again while it was copied")
        return beside


def _open(dir_fd: int, name: bytes, files: ExitStack) -> int | None:
    """A regular file, for reading, until `files` are closed; None when there is none of that name."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    files.callback(os.close, fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise NotCopied(f"{os.fsdecode(name)} is no regular file")
    return fd


def _identity(dir_fd: int, name: bytes) -> tuple[int, int] | None:
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _own_identity(fd: int | None) -> tuple[int, int] | None:
    if fd is None:
        return None
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _lock(fd: int, start: int, size: int) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, size, start)
    except (BlockingIOError, PermissionError):
        raise _Again("it is locked by another process") from None


def _share(fd: int) -> None:
    """SQLite's SHARED lock. A writer that waits holds PENDING, so that no new reader gets in before it."""
    _lock(fd, _PENDING, 1)
    try:
        _lock(fd, _SHARED, _SHARED_SIZE)
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, _PENDING)


def _copy_database(fd: int, target: Path, over: Callable[[], bool] | None) -> None:
    """Copy the database, which is locked; with pauses for writers when they may be waited for until it is `over`."""
    size, counter = os.fstat(fd).st_size, _header(fd)[_CHANGE_COUNTER]
    with _private_file(target) as out:
        for start in range(0, size, _STEP):
            if start and over is not None:
                fcntl.lockf(fd, fcntl.LOCK_UN, _SHARED_SIZE, _SHARED)
                _share_until(fd, over)
                if (size, counter) != (os.fstat(fd).st_size, _header(fd)[_CHANGE_COUNTER]):
                    raise _Changed("it was changed again and again while it was copied")
            _copy_bytes(fd, out, start, min(size, start + _STEP))


def _header(fd: int) -> bytes:
    return os.pread(fd, 100, 0)


def _share_until(fd: int, over: Callable[[], bool]) -> None:
    while True:
        time.sleep(_POLL_S)
        try:
            return _share(fd)
        except _Again:
            if over():
                raise


def _copy_wal(fd: int | None, target: Path) -> bool:
    """Copy the transactions that wait in the `-wal`. More may be added meanwhile: a reader stops at what is torn."""
    target.unlink(missing_ok=True)
    size = os.fstat(fd).st_size if fd is not None else 0
    if fd is None or size < _WAL_HEADER:
        return False
    header = os.pread(fd, _WAL_HEADER, 0)
    with _private_file(target) as out:
        _copy_bytes(fd, out, 0, size)
    if header != os.pread(fd, _WAL_HEADER, 0):
        # All of the old -wal was in the database, and a writer began a new one: some of each was read.
        raise _Again("its -wal began anew again and again while it was copied")
    return True


def _copy_journal(fd: int | None, target: Path) -> bool:
    """Copy what undoes a transaction that was left half done, or half prepared."""
    target.unlink(missing_ok=True)
    if fd is None or os.pread(fd, len(_JOURNAL_MAGIC), 0) != _JOURNAL_MAGIC:
        return False  # one without this undoes nothing: it is kept for the next transaction
    size = os.fstat(fd).st_size
    with _private_file(target) as out:
        _copy_bytes(fd, out, 0, size)
    with target.open("rb") as copied:
        copied.seek(max(0, size - len(_JOURNAL_MAGIC)))
        if copied.read() == _JOURNAL_MAGIC:
            # It ends with the path of another journal, which SQLite would delete: whoever wrote it chose the path.
            raise _Again("it was left in a transaction over several databases")
    return True


@contextmanager
def _private_file(path: Path) -> Iterator[int]:
    """An empty file for writing, readable by nobody else."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_bytes(fd: int, out: int, start: int, end: int) -> None:
    """Append the bytes from `start` to `end`, or to where the file ends before that."""
    while start < end and (block := os.pread(fd, min(_BLOCK, end - start), start)):
        start += len(block)
        while block:
            block = block[os.write(out, block) :]


def _merge(private: Path) -> Path:
    """One whole file of the frozen database and what lies beside it, by SQLite's backup API."""
    copy = private / "copy"
    with _private_file(copy):
        pass
    with (
        closing(_connect(private / "db", "mode=rw")) as source,
        closing(_connect(copy, "mode=rw")) as target,
    ):
        # What becomes of the copy in a crash doesn't matter, so it needs no journal and no fsync.
        target.execute("PRAGMA journal_mode=OFF")
        target.execute("PRAGMA synchronous=OFF")
        source.execute("PRAGMA synchronous=OFF")
        source.backup(target, pages=_PAGES)
    return copy


def _check(copy: Path) -> None:
    """Raise `NotCopied` unless SQLite finds the database whole.

    Its schema is a stranger's: nothing in it may call what is not harmless (sqlite.org/security.html).
    """
    with closing(_connect(copy, "mode=ro&immutable=1")) as database:
        # Whether values are as the program wants them is the program's business; a copy keeps them as they are.
        database.execute("PRAGMA ignore_check_constraints=ON")
        try:
            _refuse_damage(database.execute("PRAGMA integrity_check(1)"))
        except sqlite3.OperationalError as error:
            if not _lacks_function(error):
                raise
        else:
            return
        # A program may have collations and functions of its own. Tables that do without can be looked at.
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0"
        for (table,) in database.execute(tables).fetchall():
            quoted = table.replace('"', '""')
            try:
                _refuse_damage(database.execute(f'PRAGMA integrity_check("{quoted}")'))
            except sqlite3.OperationalError as error:
                if not _lacks_function(error):
                    raise


def _lacks_function(error: sqlite3.OperationalError) -> bool:
    """Whether a statement can't be prepared, which with our own statements is for want of a collation or function."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR


def _refuse_damage(findings: sqlite3.Cursor) -> None:
    finding = findings.fetchone()[0]
    if finding != "ok":
        raise NotCopied(f"it is damaged: {' '.join(finding.split())}")


def _connect(path: Path, query: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{quote(os.fsencode(path))}?{query}", uri=True, isolation_level=None, timeout=0)
    database.text_factory = lambda text: text.decode(errors="replace")
    database.execute("PRAGMA trusted_schema=OFF")
    database.execute("PRAGMA cell_size_check=ON")
    database.execute("PRAGMA mmap_size=0")
    return database
