"""Which files the newest backups hold, so that retention may remove them."""

import os
import stat
from collections.abc import Iterator, Sequence

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.archiving import BACKUP
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.snapshots import readable_snapshots
from symbiont_datad.restic.errors import Interrupted, RepositoryError
from symbiont_datad.restic.find import Finder, walk
from symbiont_datad.restic.records import Snapshot, format_time_ns
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import Node

_BACKUPS = 3
"""So many of the newest backups are looked into. An older one is about to be forgotten."""


def held(context: JobContext, directory: str, entries: Sequence[Entry]) -> set[str]:
    """The paths of those files below a directory (relative to the root) whose content a backup of this host holds.

    It does when it has a file (or link) of that path, size and modification time, that was whole, and all of its blobs
    are in the index. Raises DatadError when the repository can't be read.
    """
    repository = ours.opened(context.settings.repository)
    found: set[str] = set()
    with ours.told():
        snapshots, _ = readable_snapshots(repository)
        host = ours.identity().hostname
        backups = [one for _, one in snapshots if one.hostname == host and BACKUP in one.tags]
        missing = {entry.path: entry for entry in entries}
        for snapshot in reversed(backups[-_BACKUPS:]):
            for path, node in _files(repository, snapshot, context.layout.root, directory):
                if context.stopping():
                    raise Interrupted("asked to stop")
                entry = missing.get(path)
                if entry is not None and holds(repository, node, entry):
                    found.add(path)
                    del missing[path]
            if not missing:
                break
    return found


def _files(repository: Repository, snapshot: Snapshot, root: str, directory: str) -> Iterator[tuple[str, Node]]:
    """What a snapshot has below a directory, by its path relative to the root; what can't be read is left out."""
    finder = Finder(repository)
    try:
        node = finder.find(snapshot, os.fsencode(f"{root}/{directory}" if directory else root))
    except RepositoryError:
        return
    if node is None or node.type != "dir":
        return
    prefix = os.fsencode(f"{directory}/") if directory else b""
    for path, below in walk(
        repository, bytes.fromhex(node.subtree), prefix=prefix, on_error=lambda _path, _error: None
    ):
        yield os.fsdecode(path), below


def holds(repository: Repository, node: Node, entry: Entry) -> bool:
    """Whether a snapshot's node is a file as it is, whole, and all of its content is in the repository."""
    if node.error or node.mtime != format_time_ns(entry.mtime_ns):
        return False
    if stat.S_ISLNK(entry.mode):
        return node.type == "symlink"
    return (
        node.type == "file"
        and entry.is_file
        and node.size == entry.size
        and all(repository.find(bytes.fromhex(blob)) is not None for blob in node.content or ())
    )
