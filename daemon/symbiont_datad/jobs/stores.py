"""Stores: the tables, databases and index files that a collection consists of, told by what lies in them.

Everything is read by descriptor, and nothing is changed or left beside it. The rows of a SQLite database need a frozen
copy of it, so they are counted only when it has changed.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats import lance, sqlite_facts, vectors
from symbiont_datad.formats import sqlite as sqlite_files
from symbiont_datad.formats.vectors import Engine
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry

_HEADS = 500
"""Files of a collection whose beginning is looked at, the largest first."""
_COPIED = 256 << 20
"""Bytes up to which a database is copied for the sake of its figures."""
_MANIFEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Store:
    """One table, database or index file, at `path` relative to its root. Figures that nobody can tell are None.

    `versions` are those of a Lance table, `fragments` the files that its newest one has its rows in. `reclaimable`
    bytes are not needed for what the store holds now. `fingerprint` is another one when its content is another one.
    """

    path: str
    engine: Engine
    bytes: int
    rows: int | None = None
    dimension: int | None = None
    versions: int | None = None
    fragments: int | None = None
    reclaimable: int = 0
    fingerprint: str = ""


@dataclass(slots=True)
class Listing:
    """What lies in a collection: files by their path, and directories with what fstat says of them."""

    tree: Tree
    files: dict[str, Entry] = field(default_factory=dict)
    directories: dict[str, os.stat_result] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """The stores of a collection, and what is wrong with some, by their path."""

    stores: list[Store] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def stores_in(listing: Listing, known: Mapping[str, Store], scratch: Path) -> Found:
    """The stores in a collection. `known` are those of the last time by their path: of one that has not changed, the
    figures are taken over. `scratch`: a directory of our own for copies.
    """
    found = Found()
    taken = tuple(f"{path}/" for path in _datasets(listing))
    for prefix in taken:
        found.stores.append(_dataset(listing, prefix[:-1], found))
    for path, dimension in _qdrant(listing, taken):
        inside = [entry for name, entry in listing.files.items() if name.startswith(f"{path}/" if path else "")]
        taken += (f"{path}/" if path else "",)
        size = sum(entry.size for entry in inside)
        found.stores.append(
            Store(path, Engine.QDRANT, size, dimension=dimension or None, fingerprint=fingerprint(inside))
        )
    others = [entry for name, entry in listing.files.items() if entry.is_file and not name.startswith(taken or ("/",))]
    for entry in sorted(others, key=lambda one: -one.size)[:_HEADS]:
        store = _file(listing, entry, known, scratch, found)
        if store is not None:
            found.stores.append(store)
    found.stores.sort(key=lambda store: store.path)
    return found


def fingerprint(entries: list[Entry]) -> str:
    """What lstat says of some files, in short."""
    summed = blake2b(digest_size=16)
    for entry in sorted(entries, key=lambda one: one.path):
        summed.update(b"%b\0%d %d\0" % (os.fsencode(entry.path), entry.size, entry.mtime_ns))
    return summed.hexdigest()


# Lance


def _datasets(listing: Listing) -> list[str]:
    """The directories that are Lance datasets; branches of one, which lie in it, are part of it."""
    children: dict[str, set[bytes]] = {}
    for path in listing.directories:
        folder, _, name = path.rpartition("/")
        children.setdefault(folder, set()).add(os.fsencode(name))
    found = sorted(path for path, names in children.items() if path in listing.directories and lance.is_dataset(names))
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def _dataset(listing: Listing, path: str, found: Found) -> Store:
    inside = {
        os.fsencode(name[len(path) + 1 :]): entry
        for name, entry in listing.files.items()
        if name.startswith(f"{path}/")
    }
    size = sum(entry.size for entry in inside.values())
    versions = {}
    for name in inside:
        folder, _, manifest = name.rpartition(b"/")
        number = lance.version_of(manifest) if folder == lance.VERSIONS and lance.is_manifest(manifest) else None
        if number is not None:
            versions[number] = name
    if not versions:
        return Store(path, Engine.LANCE, size, versions=0, fingerprint=fingerprint(list(inside.values())))
    newest = max(versions)
    content = _read(listing.tree, f"{path}/{os.fsdecode(versions[newest])}", _MANIFEST)
    try:
        if content is None:
            raise ValueError("it can't be read")
        told, needed = lance.summary(content), lance.needed(content)
    except ValueError as error:
        found.damaged[path] = f"the manifest of version {newest}: {error}"
        return Store(path, Engine.LANCE, size, versions=len(versions))
    missing = sorted(name for name in needed if not _is_there(name, inside, listing, path))
    if missing:
        more = f" and {len(missing) - 1} more files" if len(missing) > 1 else ""
        found.damaged[path] = f"version {newest} needs {os.fsdecode(missing[0])}{more}, not there"
    kept = set(needed) | {versions[newest]}
    for number in _tagged(listing.tree, path, inside):
        if number in versions:
            kept.add(versions[number])
            with suppress(ValueError):
                kept |= lance.needed(_read(listing.tree, f"{path}/{os.fsdecode(versions[number])}", _MANIFEST) or b"")
    branched = told.borrows or any(name.startswith(b"tree/") for name in inside)
    return Store(
        path,
        Engine.LANCE,
        size,
        told.rows,
        told.dimension,
        len(versions),
        told.fragments,
        0 if branched or missing else _reclaimable(inside, kept, needed, told),
        blake2b(content, digest_size=16).hexdigest(),
    )


def _reclaimable(inside: Mapping[bytes, Entry], kept: set[bytes], needed: frozenset[bytes], told: lance.Summary) -> int:
    """What only old versions need, and the part of the newest one's data that is deleted rows."""
    folders = tuple(name + b"/" for name in kept)
    old = live = 0
    for name, entry in inside.items():
        if name in needed and name.startswith(b"data/"):
            live += entry.size
        elif name not in kept and not name.startswith(folders) and name.partition(b"/")[0] in _DATA:
            old += entry.size
    everything = told.rows + told.deleted
    return old + (live * told.deleted // everything if everything else 0)


_DATA = frozenset((b"data", b"_deletions", b"_indices", b"_versions", b"_transactions"))


def _is_there(name: bytes, inside: Mapping[bytes, Entry], listing: Listing, path: str) -> bool:
    """Whether a version has a file (or a directory) that it needs. What was listed before it was made is looked for."""
    if name in inside or f"{path}/{os.fsdecode(name)}" in listing.directories:
        return True
    try:
        with listing.tree.holding(f"{path}/{os.fsdecode(name)}") as (fd, last):
            os.stat(last, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except (OSError, UnsafePath):
        pass  # not for us to say
    return True


def _tagged(tree: Tree, path: str, inside: Mapping[bytes, Entry]) -> Iterator[int]:
    for name in inside:
        if name.startswith(b"_refs/tags/"):
            version = lance.tagged(_read(tree, f"{path}/{os.fsdecode(name)}", vectors.LARGEST_CONFIG) or b"")
            if version is not None:
                yield version


# Qdrant


def _qdrant(listing: Listing, taken: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The directories of collections of a Qdrant server, each with its dimension (0: several)."""
    for name, entry in sorted(listing.files.items()):
        if name.rpartition("/")[2] == "config.json" and not name.startswith(taken or ("/",)):
            dimension = vectors.qdrant_dimension(_read(listing.tree, entry.path, vectors.LARGEST_CONFIG) or b"")
            if dimension is not None:
                yield name.rpartition("/")[0], dimension


# Files


def _file(listing: Listing, entry: Entry, known: Mapping[str, Store], scratch: Path, found: Found) -> Store | None:
    told = vectors.recognise(_read(listing.tree, entry.path, vectors.HEAD) or b"", entry.size)
    if told is None:
        return None
    if told.engine is not Engine.SQLITE:
        return Store(entry.path, told.engine, entry.size, told.rows, told.dimension, fingerprint=fingerprint([entry]))
    beside = [
        listing.files[os.fsdecode(name)]
        for name in sqlite_files.companions(os.fsencode(entry.path))
        if os.fsdecode(name) in listing.files and not name.endswith(b"-shm")
    ]
    print_ = fingerprint([entry, *beside])
    before = known.get(entry.path)
    if before is not None and before.fingerprint == print_ and before.engine is Engine.SQLITE:
        content = sqlite_facts.Content(before.rows, before.dimension)
    else:
        content = _content(listing.tree, entry, scratch, found)
    head = sqlite_facts.header(_read(listing.tree, entry.path, sqlite_facts.HEADER) or b"")
    size = entry.size + sum(one.size for one in beside)
    free = head.reclaimable if head is not None else 0
    return Store(entry.path, Engine.SQLITE, size, content.rows, content.dimension, reclaimable=free, fingerprint=print_)


def _content(tree: Tree, entry: Entry, scratch: Path, found: Found) -> sqlite_facts.Content:
    if entry.size > _COPIED:
        return sqlite_facts.Content()
    try:
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            tree.holding(entry.path) as (fd, name),
            sqlite_files.whole_copy(fd, os.fsencode(name), scratch, timeout_s=2.0) as copy,
        ):
            return sqlite_facts.content(copy)
    except sqlite_files.NotCopied as error:
        if "damaged" in error.reason or "SQLite can't" in error.reason:
            found.damaged[entry.path] = error.reason
    except (OSError, UnsafePath, sqlite3.Error, UnicodeDecodeError):
        pass
    return sqlite_facts.Content()


def _read(tree: Tree, path: str, most: int) -> bytes | None:
    """The beginning of a file; None when it can't be read."""
    try:
        with tree.holding(path) as (fd, name), opened_regular(name, fd) as file:
            data = bytearray()
            while len(data) < most and (block := os.read(file, most - len(data))):
                data += block
            return bytes(data)
    except (OSError, UnsafePath):
        return None
