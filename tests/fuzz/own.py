"""Targets: what the daemon itself leaves, and others may spoil."""

import sqlite3
from contextlib import closing
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from symbiont_datad import live
from symbiont_datad.formats import chain
from symbiont_datad.fsops import cells
from symbiont_datad.fsops.blank import MARK_SIZE
from symbiont_datad.fsops.collapse import Cut
from symbiont_datad.fsops.root import Tree
from symbiont_datad.jobs.audit_chain import _STATE, AuditChain
from symbiont_datad.jobs.log_files import MANIFEST
from symbiont_datad.jobs.metadata import _is_ours, stores_of
from symbiont_datad.jobs.quiet import _MARK, Quiet
from symbiont_datad.jobs.rotation_journal import JOURNAL, Journal, Pending, Step, Unreadable
from symbiont_datad.jobs.saving import Fingerprint
from symbiont_datad.jobs.verify import _Times
from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.live import LiveState, read_state, write_state
from symbiont_datad.migrate.journal import Journal as MigrationJournal
from symbiont_datad.migrate.journal import JournalError
from tests.fuzz.engine import Target
from tests.fuzz.pieces import JSON, scratch


def _journal(data: bytes) -> None:
    with scratch() as folder:
        (folder / JOURNAL).write_bytes(data)
        found = Journal(folder).read()
        if found is not None:
            assert isinstance(found.log, str)
            assert isinstance(found.archive, str)
            assert isinstance(found.inode, int)
            assert found.cut is None or isinstance(found.cut.blank, bytes)


def _journal_seeds() -> list[bytes]:
    with scratch() as folder:
        seeds = []
        for cut in (None, Cut(4000, 4096, 4196, bytes(MARK_SIZE), b"x" * 196)):
            Journal(folder).begin(Pending(Step.COLLAPSE, "logs/a.log", "a.log.x", 7, 100, "0" * 64, cut))
            seeds.append((folder / JOURNAL).read_bytes())
        return seeds


def _ledger(data: bytes) -> None:
    with scratch() as folder:
        path = folder / "datad/ledger.db"
        path.parent.mkdir()
        path.write_bytes(data)
        with Ledger(path) as ledger:
            ledger.last_successes()
            ledger.last_runs()
            ledger.actions(limit=5)
            ledger.findings()
            ledger.begin_run("sweep", 1.0)


@lru_cache
def ledger_seeds() -> list[bytes]:
    """Databases of one kind and another, small enough to be changed all over."""
    with scratch() as folder:
        with Ledger(folder / "a/ledger.db") as ledger:
            ledger.begin_run("sweep", 1.0)
        with closing(sqlite3.connect(folder / "b.db")) as other:
            other.execute("create table runs (id integer primary key, job text)")
            other.execute("insert into runs values (1, 'x')")
            other.commit()
        return [(folder / "b.db").read_bytes(), (folder / "a/ledger.db").read_bytes()]


def _live(data: bytes) -> None:
    with scratch() as folder:
        (folder / "status.json").write_bytes(data)
        with mock.patch.object(live, "_LOOK_AGAIN_S", (0.0,)):
            read_state(folder)


def _live_seeds() -> list[bytes]:
    with scratch() as folder:
        write_state(folder, LiveState(1, 1.0, 2.0, True, True, ("w",), {"sweep": 3.0}, ("backup",)))
        return [(folder / "status.json").read_bytes()]


def _record(data: bytes) -> None:
    """The record of a cell of the quarantine."""
    with scratch() as folder:
        cell = folder / ".quarantine/20261126T192602Z-1"
        cell.mkdir(parents=True)
        (cell / "record.json").write_bytes(data)
        for one in cells.cells(Tree(str(folder))):
            assert isinstance(one.undoable, bool)


def _collections(data: bytes) -> None:
    """The documents that the daemon keeps of collections, in which users may write."""
    stores_of([data] if _is_ours(data) else [])


def _verified(data: bytes) -> None:
    """When packs were read last, which only says what to read first."""
    with scratch() as folder:
        (folder / "cache").mkdir()
        (folder / "cache/r.verified").write_bytes(data)
        context = SimpleNamespace(settings=SimpleNamespace(daemon_dir=folder), now=1.0)
        times = _Times(cast(Any, context), cast(Any, SimpleNamespace(config=SimpleNamespace(id="r"))))
        assert all(isinstance(at, float) for at in times.verified.values())


def _quiet(data: bytes) -> None:
    """What a sweep that left nothing to do has noted of itself."""
    with scratch() as folder, Ledger(folder / "ledger.db") as ledger:
        secrets = SimpleNamespace(key=None, key_file=str(folder / "key"))
        repository = SimpleNamespace(secrets=secrets)
        settings = SimpleNamespace(backup_count=3, settle_s=1.0, state=None, repository=repository)
        layout = SimpleNamespace(root="/")
        context = SimpleNamespace(
            settings=settings, layout=layout, ledger=ledger, now=1.0, stopping=lambda: False, dry_run=False
        )
        seen = Fingerprint(1.0)
        Quiet(cast(Any, context), seen).leave({"files": 1}, 2.0)
        state = ledger.mark(_MARK).partition(" ")[0]
        ledger.update_marks({_MARK: f"{state} {data.decode('utf-8', 'replace')}"}, ())
        counts = Quiet(cast(Any, context), seen).counts()
        assert counts is None or counts["checked"] == 0


def _chain_state(data: bytes) -> None:
    """What is kept of the manifest of audit archives, beside it; and the manifest."""
    state, _, manifest = data.partition(b"\1")
    with scratch() as folder:
        (folder / _STATE).write_bytes(state)
        (folder / "audit").mkdir()
        (folder / "audit" / MANIFEST).write_bytes(manifest)
        settings = SimpleNamespace(
            layout=SimpleNamespace(tree=Tree(str(folder))), logs=SimpleNamespace(audit="audit"), daemon_dir=folder
        )
        kept = AuditChain(cast(Any, settings))
        kept.pending()
        kept.add_removed("audit/a.log.20261126T192602Z-0001.zst", "old", 1.8e9)
        kept.add_removed("audit/a.log.20261126T192602Z-0002.zst", "old", 1.8e9)
        assert kept.state() is not None


def _migration(data: bytes) -> None:
    """The journal of a migration."""
    with scratch() as folder:
        path = folder / "datad/migration.db"
        path.parent.mkdir()
        path.write_bytes(data)
        MigrationJournal(path).close()


def _migration_seeds() -> list[bytes]:
    with scratch() as folder:
        MigrationJournal(folder / "a.db").close()
        return [*ledger_seeds()[:1], (folder / "a.db").read_bytes()]


def _chain_seeds() -> list[bytes]:
    line = chain.line_of(chain.Listed("a.log.20261126T192602Z-0001.zst", 5, "0" * 64), 1, chain.FIRST, "2026")
    state = b'{"schema":1,"lines":1,"last":"%s","pending":["a.log.x"],"next":"%s"}'
    found = chain.hash_of(line).encode()
    return [state % (found, found) + b"\1" + line, state % (b"0" * 64, found) + b"\1" + line, b"\1" + line, b"{}\1"]


_STORE = b'{"path":"a","engine":"lance","bytes":5,"rows":null,"dimension":4,"fingerprint":"x"}'

TARGETS = (
    Target("rotation-journal", _journal, _journal_seeds, (Unreadable,), (*JSON, b'"cut":', b'"schema": 1')),
    Target("verify-memory", _verified, lambda: [b'{"%s": 1795000000.5}' % (b"0" * 64)], (), JSON),
    Target("ledger", _ledger, ledger_seeds, (LedgerError,)),
    Target("migration-journal", _migration, _migration_seeds, (JournalError,)),
    Target("quiet-sweep", _quiet, lambda: [b'[2.0,{"files":1}]'], (), JSON),
    Target("audit-chain", _chain_state, _chain_seeds, (), (*JSON, b"\n", b"\1", b'"lines":', b'"pending":')),
    Target("live-state", _live, _live_seeds, (), JSON),
    Target(
        "quarantine-record", _record,
        lambda: [
            b'{"at":"2026-11-26T12:00:00+00:00","kind":"k","path":"p","rule":"r","until":"2027-01-01","files":3,"bytes":5}',
        ],
        (), JSON,
    ),
    Target(
        "collection-document", _collections,
        lambda: [b'{"kept_by":"symbiont-datad","stores":[%b],"index":{"stores":[]}}' % _STORE],
        (), (*JSON, b'"kept_by":"symbiont-datad"', b'"stores":'),
    ),
)  # fmt: skip
