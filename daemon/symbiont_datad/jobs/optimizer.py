"""The process that optimises one store: `python -m symbiont_datad.jobs.optimizer FD`, with its order on standard input.

Libraries that open by path follow links, and what is in a collection is its owner's to say. So this process becomes
that owner's once its libraries are loaded, and works in the directory FD, which was pinned before. What it did is JSON,
the last line of its output.

Nothing is waited for that others hold: who writes to a store now is not to be disturbed, and another run comes.
"""

import json
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

from symbiont_datad.formats import lance as format_lance
from symbiont_datad.formats.sqlite_facts import renumbered

SHARED_LARGEST = 256 << 20
"""Bytes of a database up to which it is rewritten while others have it open: who wants to write waits so long."""

_PAGES = 1000  # given back in one step
_CHECKPOINTS = 40
_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: what was done, in words; or why nothing was (`why`). `busy`: somebody else is at work.

    `later`: old versions stay for a while, for those who read them.
    """

    did: str = ""
    why: str = ""
    busy: bool = False
    later: bool = False


def optimize_lance(path: str, keep_versions_s: float, now: float) -> Done:
    """Compact the dataset that is the working directory, and remove the versions that were replaced long enough ago.

    `path` names the same directory.
    """
    import lance

    removed = _clean_up(lance.dataset(path), keep_versions_s, now)
    dataset = lance.dataset(path)
    before = dataset.version, dataset.count_rows()
    try:
        metrics = dataset.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
        if metrics.fragments_removed and dataset.list_indices():
            dataset.optimize.optimize_indices()
    except OSError as error:
        if "conflict" not in str(error).lower():
            raise
        return Done(why="somebody changed it at the same time", busy=True)
    dataset = lance.dataset(path)
    if dataset.version == before[0] + 1 and dataset.count_rows() != before[1]:
        raise RuntimeError(f"{before[1]} rows became {dataset.count_rows()}: checkout version {before[0]} and look")
    removed += _clean_up(dataset, keep_versions_s, now)
    parts = []
    if metrics.fragments_removed:
        parts.append(f"{metrics.fragments_removed} fragments became {metrics.fragments_added}")
    if removed:
        parts.append(f"{removed} old versions removed")
    later = len(_written()) > 1
    if not parts:
        why = "its old versions stay a while for those who read them" if later else "there was nothing to do"
        return Done(why=why, busy=True, later=later)
    return Done(", ".join(parts), later=later)


def _written() -> dict[int, float]:
    """When each version was written."""
    found = {}
    for name in os.listdir(format_lance.VERSIONS):
        number = format_lance.version_of(name) if format_lance.is_manifest(name) else None
        if number is not None:
            with suppress(FileNotFoundError):
                found[number] = os.stat(format_lance.VERSIONS + b"/" + name).st_mtime
    return found


def _clean_up(dataset: Any, keep_versions_s: float, now: float) -> int:
    old = format_lance.superseded(_written(), now - keep_versions_s)
    if not old:
        return 0
    stats = dataset.cleanup_old_versions(versions=old, error_if_tagged_old_versions=False)
    return int(stats.old_versions)


def optimize_sqlite(name: str, *, forced: bool, shared: bool) -> Done:
    """Give back the free pages of the database `name` in the working directory.

    `shared`: other processes have it open. `forced`: also where VACUUM could give rows other numbers.
    """
    found = os.lstat(name)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        return Done(why="it is no file of its own any more")
    address = f"file:{quote(os.fsencode(name))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=0)) as database:
        database.text_factory = lambda text: text.decode(errors="replace")
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA cell_size_check=ON")
        try:
            return _vacuum(database, forced=forced, shared=shared)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return Done(why="another process uses it", busy=True)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                return Done(why="there is no room for a copy of it")
            raise


def _vacuum(database: sqlite3.Connection, *, forced: bool, shared: bool) -> Done:
    database.execute("BEGIN IMMEDIATE")  # whether anybody writes, is seen here
    database.execute("ROLLBACK")
    with suppress(sqlite3.OperationalError):  # a schema may need functions that only its program has
        database.execute("PRAGMA optimize").fetchall()
    free, pages, page_size, mode = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("freelist_count", "page_count", "page_size", "auto_vacuum")
    )
    size = pages * page_size
    if mode == 2:  # incremental
        while free:
            database.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
            left = int(database.execute("PRAGMA freelist_count").fetchone()[0])
            if left >= free:
                break
            free = left
        did = "its free pages were given back"
    else:
        table = None if forced else renumbered(database)
        if table is not None:
            return Done(why=f"VACUUM could give the rows of {table!r} other numbers; `vectors optimize NAME` does it")
        if shared and size > SHARED_LARGEST and not forced:
            return Done(why="it is large, and other processes have it open: they could not write meanwhile", busy=True)
        disk = os.statvfs(".")
        if disk.f_bavail * disk.f_frsize < 2 * size:
            return Done(why="there is no room for a copy of it")
        database.execute("VACUUM")
        did = "rewritten without its free pages"
    journal = str(database.execute("PRAGMA journal_mode").fetchone()[0])
    later = journal == "wal" and not _checkpoint(database)
    damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise RuntimeError(f"it is damaged: {damage}")
    return Done(did, later=later)


def _checkpoint(database: sqlite3.Connection) -> bool:
    """Move what is in the `-wal` into the file, which shrinks by it; false when readers of an older state are left."""
    for _ in range(_CHECKPOINTS):
        try:
            busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            busy = 1
        if not busy:
            return True
        time.sleep(_PAUSE_S)
    return False


def run(order: Mapping[str, Any], fd: int) -> Done:
    """Carry out an order, in the working directory, which is that of the descriptor."""
    pinned = f"/proc/self/fd/{fd}"  # what is above can't be replaced under us; closed to who has become somebody else
    try:
        if order["engine"] == "lance":
            path = pinned if os.path.isdir(pinned) else os.getcwd()
            return optimize_lance(path, order["keep_versions_s"], time.time())
        return optimize_sqlite(order["name"], forced=order["forced"], shared=order["shared"])
    except ImportError as error:
        return Done(why=f"the library can't be loaded: {error}")


def _become(uid: int, gid: int) -> None:
    """From now on, be this user, and no other. (The program's own files may be readable by root alone.)"""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main(fd: int) -> None:
    """Read the order, work in the directory `fd`, print what was done."""
    order = json.load(sys.stdin)
    os.fchdir(fd)
    if order["engine"] == "lance":
        with suppress(ImportError):  # `run` says so
            import_module("lance")
    if order["owner"] is not None:
        _become(*order["owner"])
    # A copy is as large as the database: it goes where there is room for it, not into a small /tmp.
    os.environ["SQLITE_TMPDIR"] = str(Path.cwd())
    sys.stdout.write(f"\n{json.dumps(asdict(run(order, fd)))}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
