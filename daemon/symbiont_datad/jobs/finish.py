"""The end of a migration: what is left in the old places goes, once it is safe.

A snapshot is made of the old places themselves, with the tag `legacy`, which no policy forgets. A file is removed only
when the journal says that it came over, nothing has changed it since, and that snapshot holds it, whole. Or, if the
user asks for it, everything moves to quarantine instead. Keys, links, and what has not come over stay where they are.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import cast

from symbiont_datad import __version__
from symbiont_datad.errors import DatadError, Interrupted, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.remove import Failure, remove, remove_directories
from symbiont_datad.fsops.root import QUARANTINE, Tree, readable
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.fsops.write import ITEM, quarantine_cell, write_record
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.holding import holds
from symbiont_datad.jobs.live import LiveFiles
from symbiont_datad.jobs.migrate import bring
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.snapshots import LEGACY
from symbiont_datad.migrate.compat import take_link_away
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import is_secret_name
from symbiont_datad.migrate.migration import Refused, alone, open_journal
from symbiont_datad.migrate.places import Cell, Folders, make_directory, missing_directories, originals
from symbiont_datad.migrate.records import Identity, SourceRow, State
from symbiont_datad.report import Action, printable
from symbiont_datad.restic.archived import Options, Progress, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.find import Finder
from symbiont_datad.restic.find import walk as walk_snapshot
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.writer import Writer

_BATCH = 1000
_RULE = "migrate --finish"
_SCRATCH = "copies/legacy"


@dataclass(slots=True)
class Finished:
    """What came of it. `snapshot`: its id, empty when there was none. `left`: files that stay, with the reason."""

    removed: int = 0
    bytes: int = 0
    snapshot: str = ""
    quarantined: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)


@dataclass(slots=True)
class _Old:
    """An old place: where it lies, and its files that have come over; `left` have not, with the reason."""

    row: SourceRow
    entries: list[Entry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)


def finish(context: JobContext, *, to_quarantine: bool) -> Finished:
    """End the migration. A dry run says what would go. To be called under the lock of the job.

    Raises Refused when there is nothing to finish, or something has not come over yet; another DatadError when no
    snapshot can be made; OSError. Nothing was removed then, or what is told of in the ledger.
    """
    target = context.settings.migration
    if not target.journal_path.exists():
        raise Refused("there is no migration to finish; `symbiont-datad migrate` begins one")
    if not context.dry_run:
        with alone(target), open_journal(target) as journal:
            sources = [row.source for row in journal.sources() if os.path.isdir(row.at)]
        for result in bring(context, sources, None, both_ways=False):  # what was written until now
            if result.interrupted:
                raise Interrupted("interrupted; nothing was removed")
    with alone(target), Journal(target.journal_path, make=False) as journal:
        rows = journal.sources()
        for row in rows:
            if row.state is not State.COMPLETE:
                path = printable(row.source.path)
                raise Refused(f"{path}: has not come over as a whole; `symbiont-datad migrate` goes on with it")
        old = [_look(row, journal) for row in rows]
        if context.dry_run:
            return _planned(old, to_quarantine)
        finished = _quarantine(context, old) if to_quarantine else _remove_held(context, old)
        for row in rows:
            take_link_away(row, target, journal, put_back=False)
        _close(context, journal)
    emit("legacy_removed", job="migrate", files=finished.removed, snapshot=finished.snapshot[:8])
    return finished


def _look(row: SourceRow, journal: Journal) -> _Old:
    """What there is in an old place, and which of it has come over, as it is now."""
    old, known = _Old(row), journal.known(row.id)
    if not os.path.isdir(row.at):
        return old

    def unread(path: str, error: OSError) -> None:
        old.left.append((os.path.join(row.at, path), error.strerror or str(error)))

    whole = not row.source.names
    for entry in walk(Tree(row.at), on_error=unread, on_directory=lambda path, _: old.folders.append(path)):
        one = known.get(entry.path)
        if one is not None and one.identity == Identity.of(entry):
            old.entries.append(entry)
        elif whole or one is not None:
            old.left.append((os.path.join(row.at, entry.path), _why(entry)))
    return old


def _why(entry: Entry) -> str:
    if is_secret_name(entry.path):
        return "a key or credential: it never moves"
    return "it has not come over" if entry.is_file else "no regular file"


def _planned(old: Sequence[_Old], to_quarantine: bool) -> Finished:
    kind = "legacy_quarantined" if to_quarantine else "legacy_removed"
    finished = Finished()
    for place in old:
        size = sum(entry.size for entry in place.entries)
        finished.actions.append(Action(kind, place.row.at, _RULE, f"{len(place.entries):,} files have come over", size))
        finished.removed += len(place.entries)
        finished.bytes += size
        finished.left += place.left
    return finished


def _close(context: JobContext, journal: Journal) -> None:
    target = context.settings.migration
    Cell(target, journal).close()
    journal.lay_down("finished", time.time())
    shutil.rmtree(originals(target), ignore_errors=True)


# Removing what a snapshot holds


def _remove_held(context: JobContext, old: Sequence[_Old]) -> Finished:
    finished = Finished()
    held: dict[int, list[Entry]] = {}
    if any(place.entries for place in old):
        repository = ours.opened_or_made(context.settings, context.ledger)
        with ours.told(), ours.locked(repository, patience_s=context.patience_s, stopping=context.stopping) as lock:
            finished.snapshot, snapshot = _snapshot(context, repository, old, lock.check)
            for place in old:
                held[place.row.id] = list(_held(repository, snapshot, place, finished))
    book = Book(context)
    for place in old:
        entries = sorted(held.get(place.row.id, ()), key=lambda entry: entry.path)
        _remove(context, place, entries, book, finished)
        finished.left += place.left
    return finished


def _snapshot(
    context: JobContext, repository: Repository, old: Sequence[_Old], check: Callable[[], None]
) -> tuple[str, Snapshot]:
    """A snapshot of the old places, without keys. Raises the errors of `restic`, OSError or UnsafePath."""
    identity = ours.identity()
    omitted = [path for place in old for path in _no_part_of(place)]

    def stopping() -> bool:
        ours.sure(check)
        return context.stopping()

    options = Options(
        identity,
        program=f"symbiont-datad {__version__}",
        tags=(LEGACY,),
        omit=frozenset(map(os.fsencode, omitted)),
        live=LiveFiles(context.settings.daemon_dir / _SCRATCH, context.stopping),
        stopping=stopping,
    )
    total = sum(len(place.entries) for place in old), sum(entry.size for place in old for entry in place.entries)
    context.progress.begin("snapshot", *total)
    # The archiver counts into the job's own progress, which has the same attributes as its own.
    progress = cast(Progress, context.progress)
    places = sorted({os.fsencode(place.row.at) for place in old if place.entries})
    writer = Writer(repository)
    with writer, ExitStack() as stack:
        there = [
            (path, stack.enter_context(readable(".", stack.enter_context(Tree(os.fsdecode(path)).root()))))
            for path in places
        ]
        archived = Archiver(repository, writer, options, None, progress).archive(there)
    check()
    snapshot = snapshot_of(archived, writer.added, options, places, time.time_ns())
    name = repository.save_snapshot(snapshot)
    action = Action("snapshot_created", name[:8], LEGACY, "the old places, as they were", writer.added.packed)
    Book(context).confirm(None, [action], ())
    emit("snapshot_created", job="migrate", id=name[:8], tags=snapshot.tags, files=archived.counts.files)
    return name, snapshot


def _no_part_of(place: _Old) -> Iterator[str]:
    """What does not belong into a snapshot of an old place: keys; where only some files are meant, the others."""
    if not place.row.source.names:
        yield from (path for path, _ in place.left if is_secret_name(path))
        return
    ours = {entry.path for entry in place.entries}
    yield from (os.path.join(place.row.at, name) for name in os.listdir(place.row.at) if name not in ours)


def _held(repository: Repository, snapshot: Snapshot, place: _Old, finished: Finished) -> Iterator[Entry]:
    """Which files of an old place the snapshot holds as they are; the others are told of as left."""
    node = Finder(repository).find(snapshot, os.fsencode(place.row.at))
    nodes = {}
    if node is not None and node.type == "dir":
        nodes = {os.fsdecode(path): one for path, one in walk_snapshot(repository, bytes.fromhex(node.subtree))}
    for entry in place.entries:
        one = nodes.get(entry.path)
        if one is not None and holds(repository, one, entry):
            yield entry
        else:
            full = os.path.join(place.row.at, entry.path)
            finished.left.append((full, "the snapshot does not hold it"))


def _remove(context: JobContext, place: _Old, entries: Sequence[Entry], book: Book, finished: Finished) -> None:
    tree = Tree(place.row.at)
    reason = f"it came over, and snapshot {finished.snapshot[:8]} holds it"
    context.progress.begin("remove", len(entries))
    for start in range(0, len(entries), _BATCH):
        if context.stopping():
            raise Interrupted(f"interrupted; {finished.removed:,} files are removed, the others stay; run it again")
        batch = entries[start : start + _BATCH]
        actions = [
            Action("legacy_removed", os.path.join(place.row.at, entry.path), _RULE, reason, entry.size)
            for entry in batch
        ]
        rows = book.plan(actions)
        failures = remove(tree, batch)
        kept = {failure.path for failure in failures}
        done = [action for action, entry in zip(actions, batch, strict=True) if entry.path not in kept]
        failures = [failure._replace(path=os.path.join(place.row.at, failure.path)) for failure in failures]
        book.confirm(rows, done, failures)
        finished.actions += done
        finished.removed += len(done)
        finished.bytes += sum(action.bytes for action in done)
        finished.left += [(failure.path, failure.reason) for failure in failures]
        context.progress.files += len(batch)
    _remove_folders(tree, place)


def _remove_folders(tree: Tree, place: _Old) -> None:
    """The directories that are empty by now, and the old place itself; not one that others' files were only part of."""
    if place.row.source.names:
        return
    remove_directories(tree, [path for path in place.folders if path])
    with suppress(OSError, UnsafePath), tree.parent() as fd:
        os.rmdir(tree.name, dir_fd=fd)


# Moving to quarantine


def _quarantine(context: JobContext, old: Sequence[_Old]) -> Finished:
    finished, root = Finished(), context.settings.migration.tree
    with root.root() as root_fd:
        device = os.fstat(root_fd).st_dev
        for place in old:
            if place.entries and os.stat(place.row.at).st_dev != device:
                raise DatadError(
                    f"{printable(place.row.at)}: lies on another file system than the data directory, so it can't move "
                    "to quarantine; without --quarantine a snapshot takes it"
                )
        for place in old:
            finished.left += place.left
            if not place.entries:
                continue
            with quarantine_cell(root_fd, time.time()) as (cell, cell_fd), Tree(place.row.at).parent() as parent_fd:
                name = os.path.basename(place.row.at)
                found = os.lstat(name, dir_fd=parent_fd)
                why = "the migration was finished; its files are in the tree"
                write_record(cell_fd, parent_fd, place.row.at, found, kind="legacy", reason=why, now=time.time())
                where = f"{QUARANTINE}/{cell}/{ITEM}"
                _move(context, place, where, finished)
                finished.quarantined.append(where)
            _remove_folders(Tree(place.row.at), place)
    return finished


def _move(context: JobContext, place: _Old, where: str, finished: Finished) -> None:
    root, book = context.settings.migration.tree, Book(context)
    context.progress.begin("quarantine", len(place.entries))
    with Folders(root) as there, Folders(Tree(place.row.at)) as here:
        for start in range(0, len(place.entries), _BATCH):
            batch = place.entries[start : start + _BATCH]
            wanted = dict.fromkeys(f"{where}/{entry.path}".rpartition("/")[0] for entry in batch)
            for path in missing_directories(there, wanted):
                folder, _, name = path.rpartition("/")
                make_directory(there.at(folder), name, 0o700)
            actions = [
                Action(
                    "legacy_quarantined", os.path.join(place.row.at, entry.path), _RULE, f"now in {where}", entry.size
                )
                for entry in batch
            ]
            rows = book.plan(actions)
            failed: list[Failure] = []
            for entry, action in zip(batch, actions, strict=True):
                folder, _, name = entry.path.rpartition("/")
                to_folder, _, to_name = f"{where}/{entry.path}".rpartition("/")
                try:
                    if entry.differs(os.lstat(name, dir_fd=here.at(folder))):
                        raise OSError(errno.EBUSY, "it changed meanwhile")
                    os.rename(name, to_name, src_dir_fd=here.at(folder), dst_dir_fd=there.at(to_folder))
                except OSError as error:
                    failed.append(Failure(action.path, error.strerror or str(error), True))
            kept = {failure.path for failure in failed}
            done = [action for action in actions if action.path not in kept]
            book.confirm(rows, done, failed)
            finished.left += [(failure.path, failure.reason) for failure in failed]
            finished.actions += done
            finished.removed += len(done)
            finished.bytes += sum(action.bytes for action in done)
            context.progress.files += len(batch)
