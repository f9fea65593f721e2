"""What there is: the files of a legacy place, and those of the tree that they might meet."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats.state_name import Role, name_of
from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.migrate.content import Content, look
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.plan import CONTESTED, Questions
from symbiont_datad.migrate.planning import Plan, There, named
from symbiont_datad.migrate.records import Deed, File, Identity
from symbiont_datad.migrate.target import Target
from symbiont_datad.migrate.workers import CHANGED, NO_ROOM, Made, OnFiles, Seen, Trouble, Workers, looking
from symbiont_datad.report import Finding, Severity
from symbiont_datad.retention.backups import Backup

OWN = ".datad-"
"""How temporary files in a legacy place begin."""


@dataclass(slots=True)
class Listed:
    """The files of a legacy place, and what could not be listed."""

    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def list_source(source: Source, at: str) -> Listed:
    """The files of a source, whose data lies in the directory `at` now. Raises OSError or UnsafePath."""
    listed = Listed()

    def unread(path: str, error: OSError) -> None:
        full = os.path.join(at, path) if path else at
        detail, remedy = error.strerror or str(error), "let this user read it; run it again"
        listed.findings.append(Finding("legacy_unread", full, Severity.WARNING, detail, remedy))

    for entry in walk(Tree(at), on_error=unread):
        if (not source.names or _is_named(source.names, entry.path)) and not is_own(entry.path):
            listed.entries.append(entry)
    if not source.names:
        for mount in sorted(mounts_below(at)):
            detail, remedy = "another file system is mounted there", "give it with --from if it is to come too"
            listed.findings.append(Finding("legacy_mount", os.path.join(at, mount), Severity.WARNING, detail, remedy))
    return listed


def is_own(path: str) -> bool:
    """Whether a file of a legacy place is one that a mirror was about to write there."""
    name = path.rpartition("/")[2]
    return name.startswith(OWN) and name.endswith(".tmp")


def _is_named(names: Iterable[str], path: str) -> bool:
    return "/" not in path and any(fnmatchcase(path, name) for name in names)


def entry_of(path: str, found: os.stat_result) -> Entry:
    """A file as a walk would have seen it."""
    return Entry(
        path,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_atime_ns,
        found.st_ino,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
    )


class Landscape:
    """What the tree has where a source would come to. `there` is what a plan asks.

    What a plan brings can be added (`expect`), so that the plan for another source sees it.
    """

    def __init__(self, target: Target, made: Callable[[str], Identity | None]) -> None:
        self._target = target
        self._entries: dict[str, Entry] = {}
        self._contents: dict[str, Content | None] = {}
        self._backups: dict[str, list[Backup]] = defaultdict(list)
        self._units: dict[str, list[Entry]] = defaultdict(list)
        self.there = There(self._entries.get, self.content, made, self._backups_of, self._below)

    def survey(self, kinds: Iterable[Kind]) -> None:
        """List the parts of the tree to which sources of these kinds come. What can't be listed counts as empty."""
        target = self._target
        folders = {target.agents, target.backups} if {Kind.CONTEXTS, Kind.BACKUPS} & set(kinds) else set()
        folders |= {target.collections} if Kind.VECTORS in kinds else set()
        folders |= {target.logs} if Kind.LOGS in kinds else set()
        for folder in sorted(folders):
            try:
                for entry in walk(target.tree, folder, on_error=lambda _path, _error: None):
                    self._add(entry)
            except (OSError, UnsafePath):  # there is no root yet, or what is in its place will be told of by who writes
                continue

    def _add(self, entry: Entry) -> None:
        self._entries[entry.path] = entry
        collections = f"{self._target.collections}/"
        if entry.path.startswith(collections):
            self._units[collections + entry.path[len(collections) :].partition("/")[0]].append(entry)
        prefix = f"{self._target.agents}/"
        if ".backup." in entry.path and entry.path.startswith(prefix) and entry.is_file:
            name = name_of(entry.path[len(prefix) :])
            if name is not None and name.role is Role.BACKUP:
                self._backups[name.agent].append(Backup(name.agent, name.seconds, entry))

    def _backups_of(self, agent: str) -> Sequence[Backup]:
        return self._backups.get(agent, ())

    def _below(self, path: str) -> Sequence[Entry]:
        return self._units.get(path, ())

    def look(self, workers: Workers, asked: Questions, on_files: OnFiles) -> None:
        """Look into the files of the tree that a plan will ask about."""
        wanted = [entry for path in sorted(asked.tree) if (entry := self._entries.get(path)) and entry.is_file]
        orders = [looking(entry, asked.tree[entry.path]) for entry in wanted]
        for entry, found in zip(wanted, workers.look(self._target.root, orders, on_files), strict=True):
            self._contents[entry.path] = found.content if isinstance(found, Seen) else None

    def content(self, path: str) -> Content | None:
        """What is in a file of the tree; None if it can't be told."""
        if path not in self._contents:
            entry = self._entries.get(path)
            self._contents[path] = _content(self._target.tree, entry) if entry is not None else None
        return self._contents[path]

    def expect(self, plan: Plan, files: Mapping[str, File]) -> None:
        """Take what a plan brings as being there."""
        for step in plan.copies:
            if step.deed is Deed.BRING:
                content = files[step.file.path].content
                if content is not None and step.encoding is not Encoding.AS_IS:
                    content = content._replace(gzip=step.encoding is Encoding.GZIP, digest=b"")
                self._add(step.file._replace(path=step.to.path))
                self._contents[step.to.path] = content


def _content(tree: Tree, entry: Entry) -> Content | None:
    if not entry.is_file:
        return None
    try:
        with tree.holding(entry.path) as (dir_fd, name), opened_regular(name, dir_fd) as fd:
            return look(fd, entry.size, CONTESTED)
    except (OSError, UnsafePath):
        return None


@dataclass(slots=True)
class Examined:
    """Files of a source with what was asked about them. `prepared`: copies that were made at once, by path.

    `changed`: files that changed before they were read.
    """

    files: list[File] = field(default_factory=list)
    prepared: dict[str, Made] = field(default_factory=dict)
    changed: list[Entry] = field(default_factory=list)
    room: bool = True


def examine(
    source: Source,
    at: str,
    entries: Sequence[Entry],
    asked: Questions,
    target: Target,
    workers: Workers,
    on_files: OnFiles,
    stage: str = "",
) -> Examined:
    """Look into files of a source, whose data lies in the directory `at`.

    With a `stage` a copy is made there at once of what nothing stands in the way of: most files come as they are, or
    change the mode, so that they need not be read again.
    """
    wanted = [entry for entry in entries if entry.path in asked.source]
    orders = []
    for entry in wanted:
        question = asked.source[entry.path]
        gzip = target.gzip if _is_context(source, entry.path) else None
        orders.append(looking(entry, question, copying=bool(stage) and not question.compared, gzip=gzip))
    found = dict(zip((entry.path for entry in wanted), workers.look(at, orders, on_files, stage), strict=True))
    examined = Examined()
    for entry in entries:
        answer = found.get(entry.path)
        if isinstance(answer, Trouble):
            if answer.kind == CHANGED:
                examined.changed.append(entry)
            elif answer.kind == NO_ROOM:
                examined.room = False
            else:
                examined.files.append(File(entry, trouble=answer.reason))
        elif answer is not None:
            examined.files.append(File(entry, answer.content))
            if answer.made is not None:
                examined.prepared[entry.path] = answer.made
        elif entry.path not in asked.source:
            examined.files.append(File(entry))
    return examined


def _is_context(source: Source, path: str) -> bool:
    name = named(path) if source.kind is Kind.CONTEXTS else None
    return name is not None and name.role is Role.CONTEXT


def chunks(source: Source, entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Files in portions of about this many, none of which divides what has to be planned together.

    That are all files of an agent, or of a collection of vectors.
    """
    belongs = _collection if source.kind is Kind.VECTORS else _stem
    chunk: list[Entry] = []
    for _, group in groupby(sorted(entries, key=belongs), belongs):
        if len(chunk) >= size:
            yield chunk
            chunk = []
        chunk += group
    if chunk:
        yield chunk


def _collection(entry: Entry) -> str:
    return entry.path.partition("/")[0]


def _stem(entry: Entry) -> str:
    """The same for all files of an agent, and for some others whose names begin alike."""
    return entry.path.partition(".")[0]
