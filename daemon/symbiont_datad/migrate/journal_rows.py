"""The tables of a migration's journal, and how records are rows of them.

Paths are stored as bytes. A place is `tree` (relative to the root) or `aside` (relative to the cell of the quarantine).
"""

import os
from collections.abc import Sequence
from typing import Any

from symbiont_datad.migrate.records import Identity, Known, Place

VERSION = 1
SCHEMA = """
create table meta (name text primary key, value text not null) without rowid;
create table sources (
    id integer primary key, path blob not null unique, kind text not null, names text not null, state text not null,
    compat text not null default 'none', both_ways integer not null default 0, aside blob, begun_at real not null,
    completed_at real, brought_at real, conflicts integer not null default 0, files integer not null default 0,
    bytes integer not null default 0);
create table files (
    source integer not null, path blob not null, inode integer not null, size integer not null,
    mtime_ns integer not null, deed text not null, place text not null, dest blob not null, digest blob not null,
    dest_inode integer not null, dest_size integer not null, dest_mtime_ns integer not null,
    primary key (source, path)) without rowid;
create table made (
    place text not null, path blob not null, inode integer not null, size integer not null, mtime_ns integer not null,
    original integer, primary key (place, path)) without rowid;
create table pending (
    source integer not null, path blob not null, inode integer not null, size integer not null,
    mtime_ns integer not null, deed text not null, place text not null, dest blob not null, digest blob not null,
    dest_inode integer not null, dest_size integer not null, dest_mtime_ns integer not null, staged text not null,
    moved_place text, moved blob, moved_inode integer, moved_size integer, moved_mtime_ns integer, original integer);
create table directories (path blob primary key, made integer not null default 0) without rowid;
create table moves (source blob primary key, dest blob not null) without rowid;
create table originals (
    id integer primary key, mode integer not null, uid integer not null, gid integer not null,
    mtime_ns integer not null, atime_ns integer not null);
create table returned (
    source integer not null, path blob not null, inode integer not null, size integer not null,
    mtime_ns integer not null, original integer, primary key (source, path)) without rowid;
create table configs (
    path blob primary key, before blob, mtime_ns integer not null, after blob not null, backup blob,
    at real not null) without rowid;
"""

KNOWN = "path, inode, size, mtime_ns, deed, place, dest, digest, dest_inode, dest_size, dest_mtime_ns"
"""The columns that tell what was done with a file, in every table that has them."""


def known_of(row: Sequence[Any]) -> Known:
    """A file by the columns of `KNOWN`."""
    path, inode, size, mtime_ns, deed, place, dest, digest, *there = row
    return Known(
        os.fsdecode(path), Identity(inode, size, mtime_ns), deed, place_of(place, dest), digest, Identity(*there)
    )


def row_of(number: int, one: Known) -> tuple[Any, ...]:
    """The number of a source, and the columns of `KNOWN`."""
    return (
        number,
        os.fsencode(one.path),
        *one.identity,
        one.deed,
        named(one.dest),
        os.fsencode(one.dest.path),
        one.digest,
        *one.dest_identity,
    )


def named(place: Place) -> str:
    """What a place is called."""
    return "aside" if place.aside else "tree"


def place_of(name: str, path: bytes) -> Place:
    """The place that is called so, with a path in it."""
    return Place(name == "aside", os.fsdecode(path))
