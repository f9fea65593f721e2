"""Who changed a prompt template what when: its versions in the snapshots, as a log."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from symbiont_datad.formats.diff import LARGEST, difference, readable
from symbiont_datad.fsops.root import Tree
from symbiont_datad.jobs.archiving import INCOMPLETE
from symbiont_datad.jobs.history import Lost, content_of
from symbiont_datad.jobs.repository import identity
from symbiont_datad.jobs.snapshots import Named, of_this_host, place_in, readable_snapshots, root_in
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.find import Finder
from symbiont_datad.restic.records import parse_time
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import Node

_LONGEST = 1000  # characters of a line


class What(StrEnum):
    """What happened to a template."""

    CREATED = "created"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `at` (seconds since the epoch): when the file was written, or, where its own time can't be true, the
    time of the first snapshot that has the change; that one is `snapshot`, made at `saved_at`.

    `user` and `uid` are the owner of the file. `lines` is None for what is no text. `first` is the first line in which
    it differs from the version before, with its mark: `+` added, `-` removed, `~` changed.
    """

    what: What
    at: float
    snapshot: str
    saved_at: float
    user: str = ""
    uid: int = -1
    bytes: int = 0
    lines: int | None = None
    added: int = 0
    removed: int = 0
    first: str = ""


def template_log(repository: Repository, tree: Tree, path: str, lost: Lost) -> list[Change]:
    """The changes of the file at `path` (relative to the data directory), the newest first. Raises RepositoryError.

    Looked at are the snapshots of this host that hold the directory it is in, of whatever kind.
    """
    listed, unread = readable_snapshots(repository)
    for name, reason in unread:
        lost(name, reason)
    found = of_this_host(listed, identity().hostname)
    root = place_in([snapshot for _, snapshot in found], tree.path)
    if root is None:
        return []
    wanted = f"{root}/{path}"
    holding = [
        one
        for one in found
        if root_in(one[1], tree.path) == root and any(wanted.startswith(f"{held}/") for held in one[1].paths)
    ]
    return list(_changes(repository, os.fsencode(wanted), path, holding, lost))[::-1]


def in_force(changes: Sequence[Change], at: float) -> Change | None:
    """Of the changes of one template, the newest first, that by which it was what it was at a time; None before all."""
    return next((change for change in changes if change.at <= at), None)


def _changes(
    repository: Repository, wanted: bytes, path: str, snapshots: Sequence[Named], lost: Lost
) -> Iterator[Change]:
    """The oldest first."""
    finder = Finder(repository)
    before: Node | None = None
    last = 0.0
    for name, snapshot in snapshots:
        try:
            node = finder.find(snapshot, wanted)
        except RepositoryError as error:
            lost(name, str(error))
            continue
        if node is not None and node.type != "file":
            node = None
        saved_at = snapshot.at.timestamp()
        if node is None:
            # What could not be read is not in an incomplete one, and is no less there for that.
            if before is not None and INCOMPLETE not in snapshot.tags:
                yield Change(What.REMOVED, saved_at, name, saved_at)
                before = None
        elif before is None or node.content != before.content:
            yield _change(repository, path, node, before, name, saved_at, last)
            before = node
        last = saved_at


def _change(
    repository: Repository, path: str, node: Node, before: Node | None, name: str, saved_at: float, last: float
) -> Change:
    modified = parse_time(node.mtime).timestamp()
    at = modified if last <= modified <= saved_at else saved_at
    old = content_of(repository, before, path, LARGEST).data if before is not None else b""
    new = content_of(repository, node, path, LARGEST).data
    added = removed = 0
    first, lines = "", None
    if new is not None:
        text = readable(new).text
        lines = None if text is None else len(text.splitlines())
    if old is not None and new is not None:
        # Of a first version nothing is removed, and its first line is all that its difference begins with.
        differs = [line for line in difference(old, new, "a", "b") if line[:1] in ("+", "-", "~")][2:]
        added = sum(line[0] in "+~" for line in differs)
        removed = sum(line[0] in "-~" for line in differs)
        first = differs[0][:_LONGEST] if differs else ""
    what = What.CREATED if before is None else What.CHANGED
    return Change(what, at, name, saved_at, node.user, node.uid, node.size, lines, added, removed, first)
