"""The versions of contexts that snapshots hold, for healing: the newest good one of each agent."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from symbiont_datad.formats.context import LARGEST, Verdict
from symbiont_datad.formats.state_name import StateName
from symbiont_datad.jobs import repository as ours
from symbiont_datad.jobs.archiving import AUTOSAVE, BACKUP
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.snapshots import Named, of_this_host, readable_snapshots, root_in
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing
from symbiont_datad.restic.fetch import TreeLoader
from symbiont_datad.restic.find import Finder, blob_id, nodes_of
from symbiont_datad.restic.tree import Node
from symbiont_datad.retention.backups import in_time

Judge = Callable[[str, StateName, Node, bytes], Verdict | None]
"""Judges a content by the key that it is for and the name that it had; None: it is out of the question."""


@dataclass(frozen=True, slots=True)
class SavedContext:
    """A good version: the path that it had (relative to the root), the snapshot, when that was made, and the file."""

    path: str
    snapshot: str
    at: float
    node: Node
    verdict: Verdict


class _Seek(NamedTuple):
    """What counts in one snapshot: of files that were damaged at some time (`broken_at`, by name) the versions that can
    be from then, or (`late`) those that can't. `once`: an older snapshot with the very same files holds nothing more.
    """

    broken_at: Mapping[str, float]
    late: bool
    once: bool


class SavedContexts:
    """The repository, open for looking. No lock is held, as by everything that only looks."""

    def __init__(self, context: JobContext) -> None:
        """Open it. Raises DatadError."""
        self._context = context
        self._repository = ours.opened(context.settings.repository)
        with ours.told():
            self._repository.need_index()
            listed, _ = readable_snapshots(self._repository)
        kinds = {BACKUP, AUTOSAVE}
        mine = [one for one in of_this_host(listed, ours.identity().hostname) if kinds & {*one[1].tags}]
        self._snapshots = mine[::-1]
        self._finder = Finder(self._repository)
        self._loader = TreeLoader(self._repository)
        self._seen: set[str] = set()

    def newest(
        self, wanted: Mapping[str, Mapping[str, StateName]], judge: Judge, broken_at: Mapping[str, float]
    ) -> dict[str, SavedContext]:
        """The newest good version for each key: `wanted` has, by key, the names of files among the contexts.

        `broken_at`, by such names: when a file was damaged; a version that can't be from then (`in_time`) counts only
        where there is no other. To be asked once. What can't be read is passed over. Raises DatadError when the
        repository goes away, or Interrupted.
        """
        found: dict[str, SavedContext] = {}
        keys = {os.fsencode(name): (key, name) for key, names in wanted.items() for name in names}
        tried: set[tuple[str, tuple[str, ...]]] = set()
        with ours.told():
            for one, seek in self._in_order(broken_at):
                for key, versions in self._versions(one, seek, keys, found).items():
                    for path, name, node in sorted(versions, key=lambda version: version[2].mtime, reverse=True):
                        known = name, tuple(node.content or ())
                        if known in tried:
                            continue
                        tried.add(known)
                        verdict = self._judged(key, wanted[key][name], node, judge)
                        if verdict is not None and verdict.good:
                            found[key] = SavedContext(path, one[0], _at(one), node, verdict)
                            break
                if len(found) == len(wanted):
                    break
        return found

    def _in_order(self, broken_at: Mapping[str, float]) -> Iterator[tuple[Named, "_Seek"]]:
        """The snapshots, the newest first, and what counts in each; then once more those in which something did not."""
        first = min(broken_at.values(), default=None)
        for late in (False, True):
            self._seen.clear()
            for one in self._snapshots:
                whole = in_time(_at(one), first)
                if not (late and whole):
                    yield one, _Seek(broken_at, late, whole or late)

    def content(self, saved: SavedContext) -> bytes:
        """The content of a version. Raises DatadError."""
        with ours.told():
            return self._load(saved.node)

    def _versions(
        self, one: Named, seek: "_Seek", keys: Mapping[bytes, tuple[str, str]], found: Mapping[str, SavedContext]
    ) -> dict[str, list[tuple[str, str, Node]]]:
        """The wanted files in one snapshot that are not found yet: path, name and node, by key."""
        agents = self._context.layout.agents
        versions: dict[str, list[tuple[str, str, Node]]] = {}
        for node in self._files(one, agents, seek.once):
            wanted = keys.get(node.raw_name)
            if wanted is not None and wanted[0] not in found and node.type == "file" and node.size <= LARGEST:
                key, name = wanted
                if in_time(_at(one), seek.broken_at.get(name)) is seek.late:
                    continue
                versions.setdefault(key, []).append((f"{agents}/{name}", name, node))
        return versions

    def _files(self, one: Named, agents: str, once: bool) -> Iterator[Node]:
        if self._context.stopping():
            raise Interrupted("asked to stop")
        root = root_in(one[1], self._context.layout.root)
        try:
            folder = self._finder.find(one[1], os.fsencode(f"{root}/{agents}"))
            if folder is not None and folder.type == "dir" and folder.subtree not in self._seen:
                if once:
                    self._seen.add(folder.subtree)  # another snapshot with the very same files holds nothing new
                yield from nodes_of(self._loader.load(blob_id(folder.subtree)))
        except (Damaged, Missing):
            return  # a tree that is damaged: an older snapshot may have one that is not

    def _judged(self, key: str, name: StateName, node: Node, judge: Judge) -> Verdict | None:
        try:
            return judge(key, name, node, self._load(node))
        except (Damaged, Missing):
            return None

    def _load(self, node: Node) -> bytes:
        return b"".join(self._repository.load_blob(bytes.fromhex(blob)) for blob in node.content or ())


def _at(one: Named) -> float:
    """When a snapshot was made."""
    return one[1].at.timestamp()
