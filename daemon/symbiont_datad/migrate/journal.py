"""The journal of a migration: what is about to happen to the tree, what has happened, and what was there before.

SQLite in the daemon's own directory, durable at each commit. A batch of copies is written down as *pending* once they
lie in the staging place and before the first of them is renamed to where it belongs; so whoever comes after a kill can
tell from the staging place which of them have gone there (`recovery`). A batch is *settled* when its renames are
durable.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from symbiont_datad.errors import DatadError
from symbiont_datad.migrate.journal_rows import KNOWN, SCHEMA, VERSION, known_of, named, place_of, row_of
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.records import (
    Config,
    Identity,
    Known,
    Made,
    Original,
    Pending,
    Place,
    Returned,
    SourceRow,
    State,
    Step,
)
from symbiont_datad.migrate.target import Compat

if TYPE_CHECKING:
    from symbiont_datad.migrate.workers import Made as Copied

_BUSY_S = 5.0


class Staged(NamedTuple):
    """A copy in the staging place, and what is to be done with it."""

    step: Step
    made: "Copied"


class JournalError(DatadError):
    """The journal of a migration can't be read or written."""


class Journal:
    """One open journal. To be used by one thread at a time, and under the lock of migrations."""

    def __init__(self, path: Path, *, make: bool = True) -> None:
        """Open the journal, or begin one. Raises JournalError; FileNotFoundError when there is none to open."""
        self.path = path
        if make:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not path.exists():
            raise FileNotFoundError(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            self._db = self._open()
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:  # the last: a message that quotes what is no text
            raise JournalError(f"{path}: {getattr(error, 'strerror', None) or error}") from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            db.execute("begin immediate")
            (version,) = db.execute("pragma user_version").fetchone()
            if version > VERSION:
                raise JournalError(f"{self.path} was written by a newer version (schema {version})")
            if version == 0:
                for statement in SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"pragma user_version = {VERSION}")
            db.execute("commit")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One commit, durable when the block ends; nested ones are part of the outermost. Raises JournalError."""
        if self._db.in_transaction:
            yield self._db
            return
        try:
            self._db.execute("begin immediate")
            try:
                yield self._db
            except BaseException:
                self._roll_back()
                raise
            self._db.execute("commit")
        except sqlite3.Error as error:
            self._roll_back()
            raise JournalError(f"{self.path}: {error}") from error

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # a full disk has ended it already
            self._db.execute("rollback")

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: {error}") from error

    # What is true of the whole

    def get(self, name: str) -> str:
        """A fact about the migration: `cell`, `undoing`; empty: there is none."""
        found = self._rows("select value from meta where name = ?", (name,))
        return str(found[0][0]) if found else ""

    def put(self, name: str, value: str) -> None:
        """Write a fact down."""
        with self.transaction() as db:
            db.execute("insert or replace into meta values (?, ?)", (name, value))

    # Sources

    def sources(self) -> list[SourceRow]:
        """All sources, in the order in which they came."""
        query = (
            "select id, path, kind, names, state, compat, both_ways, aside, completed_at, brought_at, conflicts, "
            "files, bytes from sources order by id"
        )
        return [
            SourceRow(
                number,
                Source(os.fsdecode(path), Kind(kind), tuple(filter(None, names.split("\n")))),
                State(state),
                Compat(compat),
                bool(both),
                os.fsdecode(aside) if aside is not None else None,
                *rest,
            )
            for number, path, kind, names, state, compat, both, aside, *rest in self._rows(query)
        ]

    def source(self, source: Source) -> SourceRow | None:
        """The row of a source."""
        return next((row for row in self.sources() if row.source.path == source.path), None)

    def begin_source(self, source: Source, now: float) -> SourceRow:
        """Write down that a source is being migrated; one that is known already stays as it is."""
        with self.transaction() as db:
            db.execute(
                "insert into sources (path, kind, names, state, begun_at) values (?, ?, ?, ?, ?) "
                "on conflict (path) do update set kind = excluded.kind, names = excluded.names",
                (os.fsencode(source.path), source.kind, "\n".join(source.names), State.BEGUN, now),
            )
        row = self.source(source)
        assert row is not None
        return row

    def complete_source(self, number: int, now: float, files: int, size: int) -> None:
        """Write down that a source is complete: the marker that a later run goes by. Of how much is added up."""
        with self.transaction() as db:
            db.execute(
                "update sources set state = ?, completed_at = ?, files = files + ?, bytes = bytes + ? where id = ?",
                (State.COMPLETE, now, files, size, number),
            )

    def brought(self, number: int, now: float, files: int, size: int, conflicts: int) -> None:
        """Write down that a mirror has brought something over."""
        with self.transaction() as db:
            db.execute(
                "update sources set brought_at = ?, files = files + ?, bytes = bytes + ?, conflicts = conflicts + ? "
                "where id = ?",
                (now, files, size, conflicts, number),
            )

    def set_compat(self, number: int, compat: Compat, both_ways: bool) -> None:
        """Write down how the old place goes on working."""
        with self.transaction() as db:
            db.execute("update sources set compat = ?, both_ways = ? where id = ?", (compat, both_ways, number))

    def set_aside(self, number: int, aside: str | None) -> None:
        """Write down where the old directory is going to be, before a link takes its place; None: back in its own."""
        with self.transaction() as db:
            value = os.fsencode(aside) if aside is not None else None
            db.execute("update sources set aside = ? where id = ?", (value, number))

    # Files

    def known(self, number: int) -> dict[str, Known]:
        """What was done with each file of a source."""
        query = f"select {KNOWN} from files where source = ?"
        return {known.path: known for known in map(known_of, self._rows(query, (number,)))}

    def known_file(self, number: int, path: str) -> Known | None:
        """What was done with one file of a source."""
        query = f"select {KNOWN} from files where source = ? and path = ?"
        found = self._rows(query, (number, os.fsencode(path)))
        return known_of(found[0]) if found else None

    def known_at(self, number: int, dest: str) -> Known | None:
        """What was done with the file of a source that is the tree's file `dest`."""
        query = f"select {KNOWN} from files where dest = ? and source = ? and place = 'tree' limit 1"
        self._db.execute(
            "create index if not exists files_by_dest on files (dest)"
        )  # only mirrors that go back need it
        found = self._rows(query, (os.fsencode(dest), number))
        return known_of(found[0]) if found else None

    def is_gzip(self, number: int) -> bool:
        """Whether most contexts of a source are stored as gzip, by their names."""
        rows = self._rows(
            "select path from files where source = ? and instr(path, cast('.backup.' as blob)) = 0", (number,)
        )
        zipped = sum(path.endswith(b".json.gz") for (path,) in rows)
        plain = sum(path.endswith(b".json") and b"/" not in path for (path,) in rows)
        return bool(zipped > plain)

    def note(self, number: int, known: Iterable[Known]) -> None:
        """Write down what was decided about files for which nothing had to be copied."""
        with self.transaction() as db:
            db.executemany(
                f"insert or replace into files values ({', '.join('?' * 12)})", [row_of(number, one) for one in known]
            )

    def doubt_file(self, number: int, path: str) -> None:
        """Have a file looked at again, though it may seem to be as it was."""
        with self.transaction() as db:
            db.execute("update files set mtime_ns = -1 where source = ? and path = ?", (number, os.fsencode(path)))

    # Batches

    def pend(self, number: int, batch: Sequence[Pending]) -> None:
        """Write down a batch that lies in the staging place, before its renames."""
        with self.transaction() as db:
            db.executemany(
                f"insert into pending values ({', '.join('?' * 19)})",
                [
                    (
                        *row_of(number, one.known),
                        one.staged,
                        named(one.moved) if one.moved else None,
                        os.fsencode(one.moved.path) if one.moved else None,
                        *(one.moved_identity or (None, None, None)),
                        one.original,
                    )
                    for one in batch
                ],
            )

    def pend_copies(self, number: int, copies: Iterable[Staged]) -> None:
        """The same for copies that go to where nothing stands: there may be many of them."""
        encode, nothing = os.fsencode, (None,) * 6
        rows = [
            (
                number,
                encode(file.path),
                file.inode,
                file.size,
                file.mtime_ns,
                deed,
                "tree",
                encode(to.path),
                made.digest,
                made.inode,
                made.size,
                made.mtime_ns,
                made.name,
                *nothing,
            )
            for (file, deed, to, *_), made in copies
        ]
        with self.transaction() as db:
            db.executemany(f"insert into pending values ({', '.join('?' * 19)})", rows)

    def pending(self) -> list[Pending]:
        """The batches that are not settled."""
        return [
            Pending(
                known_of(row[1:12]),
                row[12],
                place_of(row[13], row[14]) if row[13] is not None else None,
                Identity(*row[15:18]) if row[15] is not None else None,
                row[18],
            )
            for row in self._rows("select * from pending")
        ]

    def drop_pending(self, staged: Iterable[str]) -> None:
        """Forget copies that never went to their place."""
        with self.transaction() as db:
            db.executemany("delete from pending where staged = ?", [(name,) for name in staged])

    def moved_as(self, staged: str, identity: Identity) -> None:
        """Write down what has the second name of what stood in a copy's place, when that is a copy itself."""
        with self.transaction() as db:
            db.execute(
                "update pending set moved_inode = ?, moved_size = ?, moved_mtime_ns = ? where staged = ?",
                (*identity, staged),
            )

    def settle(self) -> None:
        """What is pending has happened, and is durable."""
        with self.transaction() as db:
            db.execute(f"insert or replace into files select source, {KNOWN} from pending")
            db.execute(
                "insert into made select place, dest, dest_inode, dest_size, dest_mtime_ns, original from pending "
                "where 1 "
                "on conflict (place, path) do update set inode = excluded.inode, size = excluded.size, "
                "mtime_ns = excluded.mtime_ns"
            )
            db.execute(
                "insert or ignore into made select moved_place, moved, moved_inode, moved_size, moved_mtime_ns, null "
                "from pending where moved is not null"
            )
            db.execute("delete from pending")

    def made(self) -> list[Made]:
        """The files that the migration has made in the tree and in its cell of the quarantine."""
        rows = self._rows("select place, path, inode, size, mtime_ns, original from made")
        return [Made(place_of(place, path), Identity(*rest[:3]), rest[3]) for place, path, *rest in rows]

    def made_at(self, place: Place) -> Made | None:
        """What the migration has made at a place."""
        query = "select place, path, inode, size, mtime_ns, original from made where place = ? and path = ?"
        rows = self._rows(query, (named(place), os.fsencode(place.path)))
        return next((Made(place_of(one, path), Identity(*rest[:3]), rest[3]) for one, path, *rest in rows), None)

    def unmake(self, made: Iterable[Place]) -> None:
        """Forget files that were taken back."""
        with self.transaction() as db:
            db.executemany(
                "delete from made where place = ? and path = ?",
                [(named(place), os.fsencode(place.path)) for place in made],
            )

    # Directories

    def make_directories(self, paths: Iterable[str]) -> None:
        """Write down directories of the tree that are about to be made."""
        with self.transaction() as db:
            db.executemany(
                "insert or ignore into directories (path) values (?)", [(os.fsencode(path),) for path in paths]
            )

    def directories(self, *, unfinished: bool = False) -> list[str]:
        """Directories that the migration has made, or was about to; `unfinished`: of which it isn't known how far."""
        where = "where not made" if unfinished else ""
        return [os.fsdecode(path) for (path,) in self._rows(f"select path from directories {where}")]

    def finish_directories(self) -> None:
        """What was about to be made is made, with its mode and owner."""
        with self.transaction() as db:
            db.execute("update directories set made = 1 where not made")

    def move(self, from_path: str, to_path: str) -> None:
        """Write down that a directory of the tree is about to be renamed."""
        with self.transaction() as db:
            db.execute("insert or replace into moves values (?, ?)", (os.fsencode(from_path), os.fsencode(to_path)))

    def moves(self) -> list[tuple[str, str]]:
        """Directories that were renamed, and what to."""
        return [(os.fsdecode(one), os.fsdecode(two)) for one, two in self._rows("select source, dest from moves")]

    # What was there before

    def keep_original(self, found: os.stat_result) -> Original:
        """A number for something that is about to be overwritten, with what only its inode tells."""
        values = (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_atime_ns)
        with self.transaction() as db:
            cursor = db.execute(
                "insert into originals (mode, uid, gid, mtime_ns, atime_ns) values (?, ?, ?, ?, ?)", values
            )
            return Original(int(cursor.lastrowid or 0), *values)

    def original(self, number: int) -> Original | None:
        """What is known of something that was overwritten."""
        rows = self._rows("select * from originals where id = ?", (number,))
        return Original(*rows[0]) if rows else None

    def original_path(self, number: int) -> Path:
        """Where it is kept."""
        return self.path.parent / "originals" / str(number)

    # What a mirror wrote to the legacy place

    def give_back(self, number: int, returned: Returned) -> None:
        """Write down a file that is about to be written to the legacy place; its first original stays what counts."""
        with self.transaction() as db:
            db.execute(
                "insert into returned values (?, ?, ?, ?, ?, ?) on conflict (source, path) do update set "
                "inode = excluded.inode, size = excluded.size, mtime_ns = excluded.mtime_ns",
                (number, os.fsencode(returned.path), *returned.identity, returned.original),
            )

    def returned(self, number: int) -> dict[str, Returned]:
        """What was written to the legacy place."""
        query = "select path, inode, size, mtime_ns, original from returned where source = ?"
        found = [
            Returned(os.fsdecode(path), Identity(*rest[:3]), rest[3]) for path, *rest in self._rows(query, (number,))
        ]
        return {one.path: one for one in found}

    def forget_returned(self, number: int, path: str) -> None:
        """Forget a file of the legacy place that is as it was before."""
        with self.transaction() as db:
            db.execute("delete from returned where source = ? and path = ?", (number, os.fsencode(path)))

    # Settings files

    def rewrite(self, config: Config, now: float) -> None:
        """Write down that a settings file is about to be rewritten; what it was at first is what counts."""
        values = (
            os.fsencode(config.path),
            config.before,
            config.mtime_ns,
            config.after,
            os.fsencode(config.backup) if config.backup is not None else None,
            now,
        )
        with self.transaction() as db:
            db.execute(
                "insert into configs values (?, ?, ?, ?, ?, ?) on conflict (path) do update set after = excluded.after",
                values,
            )

    def configs(self) -> list[Config]:
        """The settings files that were rewritten."""
        return [
            Config(os.fsdecode(path), before, mtime_ns, after, os.fsdecode(backup) if backup is not None else None)
            for path, before, mtime_ns, after, backup in self._rows(
                "select path, before, mtime_ns, after, backup from configs"
            )
        ]

    def forget_config(self, path: str) -> None:
        """Forget a settings file that is as it was before."""
        with self.transaction() as db:
            db.execute("delete from configs where path = ?", (os.fsencode(path),))

    def lay_down(self, how: str, now: float) -> Path:
        """Close the journal for good: it stays beside, under a name that says how it ended; hand that back."""
        self.put("ended", how)
        with suppress(sqlite3.Error):
            self._db.execute("pragma wal_checkpoint(truncate)")
        self.close()
        number = 0
        while True:
            name = f"journal-{how}-{int(now)}{f'-{number}' if number else ''}.db"
            ended = self.path.with_name(name)
            if not ended.exists():
                break
            number += 1
        self.path.rename(ended)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").unlink()
        return ended
