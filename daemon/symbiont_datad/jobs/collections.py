"""Collections: what each directory below `collections/`, `indexes/` and the extra roots holds, in one record."""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats import lance
from symbiont_datad.formats.vectors import Engine
from symbiont_datad.fsops.root import Tree, readable
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.isolation import Isolated, isolation
from symbiont_datad.jobs.stores import Listing, Store, fingerprint, stores_in
from symbiont_datad.layout import Category
from symbiont_datad.report import Finding, Severity

COLLECTIONS, INDEXES = "collections", "indexes"

_MAIN = (Engine.LANCE, Engine.QDRANT, Engine.SQLITE, Engine.FAISS, Engine.HNSWLIB)
"""Whose figures are those of a collection with stores of several engines: what keeps the rows, before their indexes."""


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection or index. `place` is `collections`, `indexes`, or the absolute path of the extra root it is in.

    `path` is relative to `root`, an absolute path. Sizes in bytes, `changed_at` in seconds since the epoch (0.0: there
    is no file). Figures that the engine doesn't tell are None.
    """

    name: str
    place: str
    root: str
    path: str
    engine: Engine
    rows: int | None
    dimension: int | None
    versions: int | None
    files: int
    bytes: int
    reclaimable: int
    changed_at: float
    fingerprint: str
    stores: tuple[Store, ...] = ()
    exposed: bool = False
    """Somebody other than its owner can write to it, or it has files of others: nothing may be run on it."""

    @property
    def beside(self) -> bool:
        """Whether it lies outside the data directory."""
        return self.place not in (COLLECTIONS, INDEXES)

    @property
    def tree(self) -> Tree:
        """The way to it."""
        return Tree(self.root)

    @property
    def shown(self) -> str:
        """Its path as findings and actions have it: relative to the data directory, or absolute."""
        return f"{self.root}/{self.path}".rstrip("/") if self.beside else self.path


@dataclass(slots=True)
class Survey:
    """All collections, and what is not as it should be with them."""

    collections: list[Collection] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory with collections, or, with `alone`, one that is one itself."""

    name: str
    tree: Tree
    path: str
    alone: bool = False


def survey(context: JobContext, known: Mapping[str, Store] | None = None) -> Survey:
    """Look at every collection. `known`: the stores of the last time, by the paths that findings have."""
    found = Survey()
    isolated: list[Isolated] = []
    for place in _places(context, found):
        for name, listing, entry in _each(place, found):
            if context.stopping():
                return found
            if entry is not None and not entry.is_file:
                isolated.append(Isolated(place.name, entry.path, listing))
                continue
            collection = _described(context, place, name, listing, known or {}, found)
            part = Isolated(place.name, collection.path, listing, collection.shown)
            isolated.append(part)
            found.collections.append(collection)
    exposed = isolation(context, isolated)
    found.findings += exposed.findings
    found.collections = [
        replace(collection, exposed=True) if collection.shown in exposed.exposed else collection
        for collection in found.collections
    ]
    return found


def _places(context: JobContext, found: Survey) -> Iterator[_Place]:
    layout = context.layout
    for name in (COLLECTIONS, INDEXES):
        yield _Place(name, layout.tree, layout.path_of(Category.VECTOR_DB, name))
    for root in context.settings.vectors.extra_roots:
        tree = Tree(root)
        try:
            with tree.root() as fd, readable(".", fd) as listed, os.scandir(listed) as entries:
                kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except (OSError, UnsafePath) as error:
            why = getattr(error, "strerror", None) or str(error)
            remedy = "let the daemon's user read it, or take it out of vector_db.extra_roots"
            found.findings.append(Finding("extra_root_unread", root, Severity.WARNING, why, remedy))
            continue
        files = [name for name, is_directory in kinds.items() if not is_directory and not name.startswith(".")]
        yield _Place(root, tree, "", bool(files) or lance.is_dataset(frozenset(map(os.fsencode, kinds))))


def _each(place: _Place, found: Survey) -> Iterator[tuple[str, Listing, Entry | None]]:
    """Each collection of a place: its name and what is in it. With an entry, it is a single file, or no directory."""
    if place.alone:
        yield os.path.basename(place.tree.path), _listed(place.tree, "", found), None
        return
    try:
        with place.tree.directory(place.path) as fd, readable(".", fd) as listed:
            names = sorted(os.listdir(listed))
            kinds = {name: os.stat(name, dir_fd=listed, follow_symlinks=False) for name in names}
    except FileNotFoundError:
        return
    except (OSError, UnsafePath) as error:
        why = getattr(error, "strerror", None) or str(error)
        found.findings.append(Finding("unread", place.path, Severity.WARNING, why, "let the daemon's user read it"))
        return
    for name, status in kinds.items():
        path = f"{place.path}/{name}" if place.path else name
        if stat.S_ISDIR(status.st_mode):
            yield name, _listed(place.tree, path, found), None
            continue
        entry = Entry(
            path, status.st_mode, status.st_size, status.st_mtime_ns, status.st_atime_ns, status.st_ino,
            status.st_nlink, status.st_uid, status.st_gid,
        )  # fmt: skip
        yield name, Listing(place.tree, {path: entry}), entry


def _listed(tree: Tree, path: str, found: Survey) -> Listing:
    listing = Listing(tree)

    def unread(at: str, error: OSError) -> None:
        listing.unread[at] = error.strerror or str(error)

    def directory(at: str, fd: int) -> None:
        listing.directories[at] = os.fstat(fd)

    try:
        for entry in walk(tree, path, on_error=unread, on_directory=directory):
            listing.files[entry.path] = entry
    except (OSError, UnsafePath) as error:
        listing.unread[path] = getattr(error, "strerror", None) or str(error)
    for at, why in listing.unread.items():
        found.findings.append(Finding("unread", at, Severity.WARNING, why, "let the daemon's user read it"))
    return listing


def _described(
    context: JobContext, place: _Place, name: str, listing: Listing, known: Mapping[str, Store], found: Survey
) -> Collection:
    top = f"{place.path}/{name}" if place.path else ("" if place.alone else name)
    beside = place.name not in (COLLECTIONS, INDEXES)
    prefix = f"{place.tree.path}/" if beside else ""
    before = {path[len(prefix) :]: store for path, store in known.items() if path.startswith(prefix)}
    there = stores_in(listing, before, context.settings.daemon_dir / "copies" / f"vectors-{os.getpid()}")
    engine = next((one for one in _MAIN if any(store.engine is one for store in there.stores)), Engine.UNKNOWN)
    main = [store for store in there.stores if store.engine is engine]
    files = [entry for entry in listing.files.values() if entry.is_file]
    summed = blake2b(digest_size=16)
    for text in [*(store.fingerprint for store in there.stores), fingerprint(_loose(files, there.stores))]:
        summed.update(text.encode())
    collection = Collection(
        name=f"{place.tree.path}/{top}".rstrip("/") if beside else name,
        place=place.name,
        root=place.tree.path,
        path=top,
        engine=engine,
        rows=_sum([store.rows for store in main]),
        dimension=_same([store.dimension for store in main]),
        versions=_sum([store.versions for store in main]) if engine is Engine.LANCE else None,
        files=len(files),
        bytes=sum(entry.size for entry in files),
        reclaimable=sum(store.reclaimable for store in there.stores),
        changed_at=max((entry.mtime_ns for entry in files), default=0) / 1e9,
        fingerprint=summed.hexdigest(),
        stores=tuple(there.stores),
    )
    for path, why in there.damaged.items():
        remedy = f"`versions` and `restore` get an earlier state back; {_CARE.get(engine, 'look what writes to it')}"
        found.findings.append(Finding("collection_damaged", f"{prefix}{path}", Severity.ERROR, why, remedy))
    if engine is Engine.UNKNOWN and files:
        detail = f"{len(files)} files of no engine that is known; they are backed up as they are"
        found.findings.append(Finding("collection_unknown", collection.shown, Severity.INFO, detail))
    return collection


_CARE = {
    Engine.LANCE: "Lance's own `checkout` and `restore` may reach an older version",
    Engine.SQLITE: "sqlite3's `.recover` may save what is readable",
}


def _loose(files: list[Entry], stores: list[Store]) -> list[Entry]:
    inside = tuple(f"{store.path}/" for store in stores)
    paths = {store.path for store in stores}
    return [entry for entry in files if entry.path not in paths and not (inside and entry.path.startswith(inside))]


def _sum(figures: list[int | None]) -> int | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known and len(known) == len(figures) else None


def _same(figures: list[int | None]) -> int | None:
    return figures[0] if figures and len(set(figures)) == 1 else None
