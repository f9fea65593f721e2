"""The ledger's tables about prompts: how often each template was executed, day by day, and how the cache is used.

They are made where they are missing, and an older version of the program passes over them.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from symbiont_datad.report import CacheUse

SCHEMA = """
create table if not exists executions (
    day text not null, template text not null, runs integer not null, bytes integer not null, timed integer not null,
    latency_ms real not null, slowest_ms real not null, last_at real not null, primary key (day, template))
    without rowid;
create table if not exists counted (
    place text primary key, until integer not null, name text not null) without rowid;
create table if not exists cache_use (
    within_s real primary key, at real not null, files integer not null, bytes integer not null,
    due_bytes integer not null) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Executions:
    """How often a template was executed on one day (`2026-11-23`), and the size of the records in bytes.

    `template` is empty for records that name none. `timed` of the runs have a latency: `latency_ms` is their sum.
    `last_at`: when the newest record was written, in seconds since the epoch.
    """

    day: str
    template: str
    runs: int
    bytes: int
    timed: int = 0
    latency_ms: float = 0.0
    slowest_ms: float = 0.0
    last_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Counted:
    """How far the records in one place are counted: up to this number (of nanoseconds, or bytes) and this name."""

    until: int = 0
    name: str = ""


def add_executions(db: sqlite3.Connection, found: Iterable[Executions], counted: Mapping[str, Counted]) -> None:
    """Add to the counts, and leave how far they go, in the caller's transaction: no record is counted twice."""
    db.executemany(
        "insert into executions values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (day, template) do update set "
        "runs = runs + excluded.runs, bytes = bytes + excluded.bytes, timed = timed + excluded.timed, "
        "latency_ms = latency_ms + excluded.latency_ms, slowest_ms = max(slowest_ms, excluded.slowest_ms), "
        "last_at = max(last_at, excluded.last_at)",
        [
            (one.day, one.template, one.runs, one.bytes, one.timed, one.latency_ms, one.slowest_ms, one.last_at)
            for one in found
        ],
    )
    db.executemany(
        "insert or replace into counted values (?, ?, ?)",
        [(place, one.until, one.name) for place, one in counted.items()],
    )


def replace_cache_use(db: sqlite3.Connection, use: Iterable[CacheUse], at: float) -> None:
    """What was seen now takes the place of what was seen before, in the caller's transaction."""
    db.execute("delete from cache_use")
    db.executemany(
        "insert into cache_use values (?, ?, ?, ?, ?)",
        [(one.within_s, at, one.files, one.bytes, one.due_bytes) for one in use],
    )
