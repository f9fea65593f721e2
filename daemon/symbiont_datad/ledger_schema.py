"""The tables of the ledger, version by version, and what their rows are.

What makes a version never changes: ledgers of every version are about.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MIGRATIONS = (
    """
create table runs (
    id integer primary key, job text not null, started_at real not null, ended_at real, outcome text,
    actions integer not null default 0, bytes integer not null default 0, message text not null default '',
    counts text not null default '{}');
create index runs_by_job on runs (job, started_at);
create table actions (
    id integer primary key, run integer, at real not null, kind text not null, path text not null,
    rule text not null, reason text not null, bytes integer not null, state text not null);
create index actions_by_time on actions (at);
create index actions_by_path on actions (path);
create index actions_planned on actions (run) where state = 'planned';
create table findings (
    kind text not null, path text not null, job text not null, severity text not null, detail text not null,
    remedy text not null, first_seen real not null, last_seen real not null, primary key (path, kind)) without rowid;
create table usage (
    at real not null, category text not null, files integer not null, bytes integer not null,
    primary key (at, category)) without rowid;
create table space (
    at real primary key, free_bytes integer not null, total_bytes integer not null, free_inodes integer not null,
    total_inodes integer not null) without rowid;
create table seen (
    path blob primary key, mark text not null) without rowid;
""",
    """
create table usage_below (
    at real not null, path text not null, files integer not null, bytes integer not null,
    primary key (path, at)) without rowid;
create index usage_below_by_time on usage_below (at);
""",
    """
create index actions_by_kind on actions (kind, at);
create index runs_by_number on runs (job);
create index actions_failed on actions (at) where state = 'failed';
create index runs_failed on runs (started_at) where outcome = 'failed';
create table snapshots (
    id text primary key, at real not null, tag text not null, host text not null, files integer not null,
    bytes integer not null, added integer not null) without rowid;
""",
)
"""What makes each version of the schema from the one before; the first makes it from nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One action as the ledger tells it. `at` in seconds since the epoch; `state` is `done`, `planned` or `failed`."""

    at: float
    job: str
    kind: str
    path: str
    rule: str
    reason: str
    bytes: int
    state: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job. `ended_at` is None while it is under way (or if it was killed)."""

    job: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    actions: int
    bytes: int
    message: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """What one category held at one time."""

    at: float
    category: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SpacePoint:
    """What the file system of the tree had free at one time, in bytes and inodes."""

    at: float
    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One snapshot as a job saw it last. `tag` is its kind; `added` the bytes that it put into the repository."""

    id: str
    at: float
    tag: str
    host: str
    files: int
    bytes: int
    added: int
