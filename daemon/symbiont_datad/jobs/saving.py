"""A snapshot of a part of the tree, made only when something in it has changed: what autosave and templates share.

That nothing has changed is seen from what lstat says, without the repository: opening it costs a scrypt, and its
libraries more time and memory than the look itself.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec.msgpack import encode

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.places import backend_at

if TYPE_CHECKING:
    from symbiont_datad.restic.archived import Archived
    from symbiont_datad.restic.records import Snapshot
    from symbiont_datad.restic.repository import Repository

_NOT_SAVED = "not_saved"
_UNSURE = "-"
"""A mark's fingerprint that no files have: the next look saves again, or finds that nothing has changed."""
_SLACK_S = 2.0
"""What was written this lately may be written again without a trace in its times: some clocks tick slowly."""


_facts = attrgetter("mode", "size", "mtime_ns", "inode", "uid", "gid")
_mtime_ns = attrgetter("mtime_ns")


class Fingerprint:
    """What lstat says of many files, in short. `hot`: one was written so lately that it may change again unseen."""

    def __init__(self, now: float) -> None:
        self.files = 0
        self.hot = False
        self._since_ns = (now - _SLACK_S) * 1e9
        self._hash = blake2b(digest_size=16)

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take more files in; their order counts, and which come together."""
        self.files += len(entries)
        self._hash.update(os.fsencode("\0".join([entry.path for entry in entries])))
        self._hash.update(encode(list(map(_facts, entries))))  # at once: there may be a hundred thousand
        self.hot |= max(map(_mtime_ns, entries), default=0) >= self._since_ns

    def digest(self) -> str:
        """The fingerprint of what was taken in so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """What is saved: the tag of its snapshots, its directories relative to the root, and what findings call it.

    `by_content`: one that has only other times, modes or owners than the newest one is not made, nor a first one of
    nothing.
    """

    tag: str
    paths: tuple[str, ...]
    name: str = ""
    by_content: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of it. `interrupted`: it was asked to stop."""

    actions: Sequence[Action] = ()
    findings: Sequence[Finding] = ()
    interrupted: bool = False


def is_saved(context: JobContext, tag: str, seen: Fingerprint) -> bool:
    """Whether these files are as they were when they were last saved with the tag, as far as the ledger knows."""
    try:
        mark = context.ledger.mark(_mark(context, tag))
    except LedgerError:
        return False
    return mark.partition(" ")[0] == seen.digest()


def _mark(context: JobContext, tag: str) -> str:
    return f"//{tag}/{context.settings.repository.location}"


def save_when_changed(context: JobContext, part: Part, seen: Fingerprint, *, patience_s: float = 0.0) -> Saved:
    """Make the snapshot if it is needed, and forget those that the settings do not keep. Raises nothing of its own.

    `seen` has every file of the part. `patience_s`: how long to wait for who has locked the repository.
    """
    mark = _mark(context, part.tag)
    try:
        if _is_saved(context, part, mark, seen):
            return Saved()
        return _save(context, part, mark, seen, patience_s)
    except errors.Interrupted:
        return Saved(interrupted=True)
    except (errors.DatadError, LedgerError, OSError) as error:
        from symbiont_datad.jobs.archiving import JOB_OF

        if not _is_known(context, part, str(error)):
            emit("snapshot_skipped", job=JOB_OF[part.tag], reason=str(error))
        # Whoever holds a lock now is done with it soon, and the next sweep comes soon too.
        severity = Severity.INFO if isinstance(error, errors.Locked) else Severity.WARNING
        remedy = "nothing is lost: the next sweep tries again"
        return Saved(findings=[Finding(_NOT_SAVED, part.name, severity, str(error), remedy)])


def _is_known(context: JobContext, part: Part, reason: str) -> bool:
    """Whether the last one could not be saved either, or another part cannot for the same reason: what is still wrong
    is told once, and stays a finding."""
    try:
        known = [finding for finding, _ in context.ledger.findings() if finding.kind == _NOT_SAVED]
    except LedgerError:
        return False
    return any(finding.path == part.name or finding.detail == reason for finding in known)


def _is_saved(context: JobContext, part: Part, mark: str, seen: Fingerprint) -> bool:
    """Whether all is as it was when it was last saved, and that snapshot is still there.

    An object store is not asked: the next backup finds out.
    """
    digest, _, snapshot = context.ledger.mark(mark).partition(" ")
    if not digest and not seen.files and part.by_content:
        return True
    if digest != seen.digest():
        return False
    try:
        backend = backend_at(context.settings.repository.location, os.environ)
        if not isinstance(backend, LocalBackend):
            return True
        return any(name == snapshot for name, _ in backend.list(FileKind.SNAPSHOT))
    except RepositoryError:
        return False


def _save(context: JobContext, part: Part, mark: str, seen: Fingerprint, patience_s: float) -> Saved:
    # Here, and not above, for most looks don't come here.
    from symbiont_datad.jobs import archiving
    from symbiont_datad.jobs import repository as ours
    from symbiont_datad.jobs.forgetting import forget
    from symbiont_datad.jobs.snapshots import note, readable_snapshots

    archiving.refuse_full(context)
    repository = ours.opened_or_made(context.settings, context.ledger)

    def same(archived: "Archived", before: "Snapshot") -> bool:
        return archived.unchanged or (part.by_content and _same_content(repository, archived.tree, before))

    tag = part.tag
    actions: list[Action] = []
    with (
        ours.told(),
        ours.locked(repository, eager=True, patience_s=patience_s, stopping=context.stopping) as lock,
    ):
        snapshots, _ = readable_snapshots(repository)
        taken = archiving.take(context, repository, tag, part.paths, snapshots, lock, unless_unchanged=True, same=same)
        if taken.id:
            actions.append(archiving.recorded(context, tag, taken))
            snapshots.append((taken.id, taken.snapshot))
            actions += forget(context, repository, snapshots, tag, lock.check)
            note(context, repository, snapshots)
    digest = seen.digest() if taken.complete and not seen.hot else _UNSURE
    context.ledger.update_marks({mark: f"{digest} {taken.id or taken.snapshot.parent}"}, ())
    return Saved(actions, archiving.findings_of(context, taken.archived))


def _same_content(repository: "Repository", tree: bytes, before: "Snapshot") -> bool:
    """Whether two trees have the same files with the same content, whatever else is said of them."""
    return _contents(repository, tree) == _contents(repository, bytes.fromhex(before.tree))


def _contents(repository: "Repository", tree: bytes) -> list[tuple[object, ...]]:
    from symbiont_datad.restic.find import walk

    return [
        (path, node.type, node.content, node.linktarget, node.linktarget_raw) for path, node in walk(repository, tree)
    ]
