"""Making one snapshot of parts of the tree: what backup and sweep share."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from symbiont_datad import __version__
from symbiont_datad.errors import Unusable
from symbiont_datad.events import emit
from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.root import QUARANTINE, Tree, readable
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.live import LiveFiles
from symbiont_datad.jobs.snapshots import Named
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import format_size
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.restic.archived import Archived, Options, Progress, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import HeldLock
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.writer import Added, Writer

BACKUP, AUTOSAVE, TEMPLATES, OPTIMIZE, INCOMPLETE = "backup", "autosave", "templates", "optimize", "incomplete"
"""Tags: the kinds of our snapshots, and those in which something is missing or torn."""

KINDS = (BACKUP, AUTOSAVE, TEMPLATES, OPTIMIZE)
"""All kinds, each with a keep rule of its own: of everything; of state and templates; of templates; of one collection
before it is optimised."""

JOB_OF = {BACKUP: "backup", AUTOSAVE: "sweep", TEMPLATES: "templates", OPTIMIZE: "optimize"}
"""The job that makes the snapshots of a kind."""

_PARENTS = {TEMPLATES: (TEMPLATES,), OPTIMIZE: (BACKUP, OPTIMIZE)}
"""Kinds that are not compared with the newest backup and autosave. A template's version that only an autosave has goes
with it, so it is none for the others."""

_FINDINGS = 20
"""Files of each kind that are told of by name."""
_SCRATCH = "copies"


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was made. `id` is empty when it was not saved: nothing had changed, or it was a rehearsal."""

    id: str
    snapshot: Snapshot
    archived: Archived
    added: Added

    @property
    def complete(self) -> bool:
        """Whether everything is in it, as it was at one time."""
        return not self.archived.unread and not self.archived.torn


def take(
    context: JobContext,
    repository: Repository,
    tag: str,
    paths: Sequence[str],
    snapshots: Sequence[Named],
    lock: HeldLock | None,
    *,
    unless_unchanged: bool = False,
    same: Callable[[Archived, Snapshot], bool] = lambda archived, _: archived.unchanged,
) -> Taken:
    """Make a snapshot of the directories at `paths`; those that are not there are left out.

    They are relative to the root, or absolute for a directory beside it. `snapshots` are all there are. `lock` is the
    one on the repository, which may be an eager one; None in a rehearsal, which saves and remembers nothing. With
    `unless_unchanged` nothing is saved when nothing differs from the newest snapshot, or what differs makes no
    difference by `same`. Raises the errors of `restic`, OSError or UnsafePath.
    """
    layout = context.layout

    def stopping() -> bool:
        if lock is not None:
            ours.sure(lock.check)
        return context.stopping()

    # Beside a rehearsal, which holds no lock of the job's, the job itself may be at work.
    scratch = context.settings.daemon_dir / _SCRATCH / (tag if lock is not None else f"rehearsal-{os.getpid()}")
    identity = ours.identity()
    targets = tuple(os.fsencode(os.path.join(layout.root, path) if path else layout.root) for path in paths)
    options = Options(
        identity,
        program=f"symbiont-datad {__version__}",
        tags=(tag,),
        omit=frozenset([os.fsencode(f"{layout.root}/{QUARANTINE}")]),
        hollow=_hollow(context, paths),
        parents=_parents(snapshots, identity.hostname, targets, _PARENTS.get(tag, (BACKUP, AUTOSAVE))),
        live=LiveFiles(scratch, context.stopping),
        stopping=stopping,
    )
    _begin(context, tag, options.parents)
    memory = ours.remembered(context.settings, repository, tag)
    writer = Writer(repository)
    # The archiver counts into the job's own progress, which has the same attributes as its own.
    progress = cast(Progress, context.progress)
    with writer, ExitStack() as held:
        held.callback(shutil.rmtree, scratch, ignore_errors=True)
        there = list(_held(context, paths, targets, held))
        archived = Archiver(repository, writer, options, memory, progress).archive(there)
        if lock is not None:
            ours.sure(lock.confirm)
    complete = not archived.unread and not archived.torn
    options = options if complete else replace(options, tags=(*options.tags, INCOMPLETE))
    snapshot = snapshot_of(archived, writer.added, options, [path for path, _ in there], time.time_ns())
    name = ""
    if lock is not None:
        lock.check()
        if not (unless_unchanged and options.parents and same(archived, options.parents[0][1])):
            name = repository.save_snapshot(snapshot)
        ours.remember(context.settings, repository, tag, memory)
    return Taken(name, snapshot, archived, writer.added)


def _begin(context: JobContext, tag: str, parents: Sequence[Named]) -> None:
    """What is ahead is about what there was the last time; of the first backup, what was counted for the usage."""
    last = next((snapshot.summary for _, snapshot in parents if tag in snapshot.tags), None)
    files, size = (last.total_files_processed, last.total_bytes_processed) if last else (0, 0)
    if last is None and tag == BACKUP:
        with suppress(LedgerError):
            usage, _ = context.ledger.usage()
            files, size = sum(point.files for point in usage), sum(point.bytes for point in usage)
    context.progress.begin(tag, files, size)


def _held(
    context: JobContext, paths: Sequence[str], targets: Sequence[bytes], held: ExitStack
) -> Iterator[tuple[bytes, int]]:
    """The targets that are there, each with a readable descriptor that stays open until `held` is closed."""
    for path, target in zip(paths, targets, strict=True):
        try:
            beside = path.startswith("/")
            opened = Tree(path).root() if beside else context.layout.tree.directory(path)
            yield target, held.enter_context(readable(".", held.enter_context(opened)))
        except (FileNotFoundError, NotADirectoryError):
            if not path:
                raise


def _hollow(context: JobContext, paths: Sequence[str]) -> frozenset[bytes]:
    """Directories that are kept without what is in them: caches, unless asked for, and other file systems."""
    layout = context.layout
    roots = [layout.root, *(path for path in paths if path.startswith("/"))]
    hollow = {f"{root}/{path}" for root in roots for path in mounts_below(root)}
    if not context.settings.snapshots.include_caches:
        hollow.add(f"{layout.root}/{layout.path_of(Category.PROMPTS, 'cache')}")
    return frozenset(map(os.fsencode, hollow))


def _parents(
    snapshots: Sequence[Named], hostname: str, targets: Sequence[bytes], kinds: Sequence[str]
) -> tuple[Named, ...]:
    """The newest snapshot of each kind that this host made of what is snapshotted now, of more or of parts of it."""
    wanted = [os.fsdecode(target) for target in targets]
    newest: dict[str, Named] = {}
    for name, snapshot in snapshots:
        if snapshot.hostname != hostname or not _meet(snapshot.paths, wanted):
            continue
        for tag in kinds:
            if tag in snapshot.tags and (tag not in newest or newest[tag][1].at < snapshot.at):
                newest[tag] = name, snapshot
    return tuple(sorted(newest.values(), key=lambda one: one[1].at, reverse=True))


def _meet(some: Sequence[str], others: Sequence[str]) -> bool:
    return any(f"{a}/".startswith(f"{b}/") or f"{b}/".startswith(f"{a}/") for a in some for b in others)


def findings_of(context: JobContext, archived: Archived) -> list[Finding]:
    """What is not in a snapshot, or may be of two times."""
    return [
        *_named(context, "not_in_snapshot", archived.unread, "let the daemon's user read it"),
        *_named(context, "torn_in_snapshot", archived.torn, "the next snapshot tries again; look who writes to it"),
    ]


def _named(context: JobContext, kind: str, files: Sequence[tuple[bytes, str]], remedy: str) -> Iterator[Finding]:
    root = os.fsencode(context.layout.root) + b"/"
    for number, (path, why) in enumerate(files[:_FINDINGS]):
        more = len(files) - _FINDINGS if number == _FINDINGS - 1 else 0
        detail = f"{why} (and {more} more files)" if more > 0 else why
        yield Finding(kind, os.fsdecode(path.removeprefix(root)), Severity.WARNING, detail, remedy)


def counts_of(taken: Taken) -> dict[str, int]:
    """The figures of a snapshot. `bytes` of all files, `bytes_added` before and `bytes_stored` after compression."""
    counts, added = taken.archived.counts, taken.added
    return {
        "files": counts.files,
        "files_new": counts.files_new,
        "files_changed": counts.files_changed,
        "files_unmodified": counts.files_unmodified,
        "bytes": counts.bytes,
        "bytes_added": added.plain,
        "bytes_stored": added.packed,
        "unread": len(taken.archived.unread),
        "torn": len(taken.archived.torn),
    }


def recorded(context: JobContext, tag: str, taken: Taken) -> Action:
    """The action of a snapshot that was made, told and written down; of one that was not saved, only the action."""
    counts, added = taken.archived.counts, taken.added
    what = f"{counts.files:,} files, {format_size(counts.bytes)}"
    action = Action("snapshot_created", taken.id[:8], tag, what, added.packed)
    if not taken.id:
        return action
    emit(
        "snapshot_created",
        job=JOB_OF[tag],
        id=taken.id[:8],
        tags=taken.snapshot.tags,
        files=counts.files,
        bytes=counts.bytes,
        added=added.plain,
        stored=added.packed,
    )
    try:
        context.ledger.record([action], context.now, context.run)
    except LedgerError as error:
        emit("ledger_failed", reason=str(error))
    return action


def refuse_full(context: JobContext) -> None:
    """Raise Unusable when less than `backup.min_free` is free where the repository is. An object store has no end."""
    backend = ours.place(context.settings.repository)
    if not isinstance(backend, LocalBackend):
        return
    at = Path(backend.location)
    while not at.is_dir() and at != at.parent:
        at = at.parent
    found = os.statvfs(at)
    wanted = context.settings.snapshots.min_free
    free, least = found.f_bavail * found.f_frsize, wanted.of(found.f_blocks * found.f_frsize)
    if free < least:
        raise Unusable(
            f"{backend.location}: only {format_size(free)} are free there, and backup.min_free = {wanted} asks for "
            f"{format_size(least)}; nothing was backed up. `symbiont-datad prune` may free some"
        )
