"""The autosave: a snapshot of `state/` and the prompt templates, when something in them has changed.

Most sweeps find nothing changed. That is seen from what lstat says, without the repository: opening it costs a scrypt,
and its libraries more time and memory than all the rest of a sweep.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter

from msgspec.msgpack import encode

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.places import backend_at

_MARK = "//autosave"
_NOT_SAVED = "not_saved"
_SLACK_S = 2.0
"""What was written this lately may be written again without a trace in its times: some clocks tick slowly."""


_facts = attrgetter("mode", "size", "mtime_ns", "inode", "uid", "gid")
_mtime_ns = attrgetter("mtime_ns")


class Fingerprint:
    """What lstat says of many files, in short. `hot`: one was written so lately that it may change again unseen."""

    def __init__(self, now: float) -> None:
        self.hot = False
        self._since_ns = (now - _SLACK_S) * 1e9
        self._hash = blake2b(digest_size=16)

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take more files in; the order counts."""
        self._hash.update(os.fsencode("\0".join([entry.path for entry in entries])))
        self._hash.update(encode(list(map(_facts, entries))))  # at once: there may be a hundred thousand
        self.hot |= max(map(_mtime_ns, entries), default=0) >= self._since_ns

    def digest(self) -> str:
        """The fingerprint of what was taken in so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of it. `interrupted`: it was asked to stop."""

    actions: Sequence[Action] = ()
    findings: Sequence[Finding] = ()
    interrupted: bool = False


def autosave(context: JobContext, seen: Fingerprint) -> Saved:
    """Make the snapshot if it is needed, and forget those that `[autosave]` does not keep. Raises nothing of its own.

    `seen` has everything below `state/`; the templates are added here.
    """
    if context.dry_run:
        return Saved()
    templates = context.layout.path_of(Category.PROMPTS, "templates")
    seen.extend(list(walk(context.layout.tree, templates, on_error=lambda _path, _error: None)))
    mark = f"{_MARK}/{context.settings.repository.location}"
    try:
        if _is_saved(context, mark, seen):
            return Saved()
        return _save(context, mark, seen, templates)
    except errors.Interrupted:
        return Saved(interrupted=True)
    except (errors.DatadError, LedgerError, OSError) as error:
        if not _is_known(context):
            emit("snapshot_skipped", job="sweep", reason=str(error))
        # Whoever holds a lock now is done with it soon, and the next sweep comes soon too.
        severity = Severity.INFO if isinstance(error, errors.Locked) else Severity.WARNING
        remedy = "nothing is lost: the next sweep tries again"
        return Saved(findings=[Finding(_NOT_SAVED, "", severity, str(error), remedy)])


def _is_known(context: JobContext) -> bool:
    """Whether the last sweep could not save either: what is still wrong is told once, and stays a finding."""
    try:
        return any(finding.kind == _NOT_SAVED for finding, _ in context.ledger.findings())
    except LedgerError:
        return False


def _is_saved(context: JobContext, mark: str, seen: Fingerprint) -> bool:
    """Whether all is as it was when it was last saved, and that snapshot is still there.

    An object store is not asked: the next backup finds out.
    """
    digest, _, snapshot = context.ledger.mark(mark).partition(" ")
    if digest != seen.digest():
        return False
    try:
        backend = backend_at(context.settings.repository.location, os.environ)
        if not isinstance(backend, LocalBackend):
            return True
        return any(name == snapshot for name, _ in backend.list(FileKind.SNAPSHOT))
    except RepositoryError:
        return False


def _save(context: JobContext, mark: str, seen: Fingerprint, templates: str) -> Saved:
    # Here, and not above, for most sweeps don't come here.
    from symbiont_datad.jobs import archiving
    from symbiont_datad.jobs import repository as ours
    from symbiont_datad.jobs.forgetting import forget
    from symbiont_datad.jobs.snapshots import readable_snapshots

    archiving.refuse_full(context)
    repository = ours.opened_or_made(context.settings, context.ledger)
    paths = [context.layout.path_of(Category.STATE), templates]
    actions: list[Action] = []
    with ours.told(), ours.locked(repository, eager=True, stopping=context.stopping) as lock:
        snapshots, _ = readable_snapshots(repository)
        taken = archiving.take(context, repository, archiving.AUTOSAVE, paths, snapshots, lock, unless_unchanged=True)
        if taken.id:
            actions.append(archiving.recorded(context, archiving.AUTOSAVE, taken))
            snapshots.append((taken.id, taken.snapshot))
            actions += forget(context, repository, snapshots, archiving.AUTOSAVE, lock.check)
    if taken.complete and not seen.hot:
        context.ledger.update_marks({mark: f"{seen.digest()} {taken.id or taken.snapshot.parent}"}, ())
    return Saved(actions, archiving.findings_of(context, taken.archived))
