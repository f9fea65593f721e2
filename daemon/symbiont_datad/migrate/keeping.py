"""What the daemon does about old places until a migration is finished: one turn after another (see `transition`)."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.notice import Noticed, Notices
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import Tree, readable, sync_directory
from symbiont_datad.migrate.compat import Standing, free_aside, put_link, recover_links, standing
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.migration import alone, migrate_source
from symbiont_datad.migrate.mirror import Mirror, Mirrored
from symbiont_datad.migrate.records import SourceRow, State, Step
from symbiont_datad.migrate.recovery import recover
from symbiont_datad.migrate.target import Compat, Target
from symbiont_datad.report import Action, Legacy, Severity

NOTHING_LEFT = -1.0
"""What `turn` hands back when there is nothing to be kept."""

_SCAN_S, _SHARE = 60.0, 1000
"""Time between two scans; a scan that took a second of processor time is made again after so many seconds."""
_LINKS_S = 5.0
_GATHER_S = 0.3  # hints are gathered for so long after the first: a save is several
_AGAIN_S = 2.0
_PATIENCE_S = 1.0
_WATCHED = 1000  # directories of a source
_RULE = "migration.compat"


@dataclass(slots=True)
class _Kept:
    """A mirrored source: what was noticed, on both sides, and when everything is looked at again (monotonic)."""

    mirror: Mirror
    hints: set[str] = field(default_factory=set)
    tree_hints: set[str] = field(default_factory=set)
    scan_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Folder:
    """A watched directory: of which source, and its path, relative to the old place or to the root of the tree."""

    source: int
    path: str
    in_tree: bool


class _NoProgress:
    files = bytes = 0
    current = ""

    def begin(self, phase: str, total_files: int = 0, total_bytes: int = 0) -> None:
        """Nobody looks."""


class Keeping:
    """Keeps links and mirrors. `record` is told of each change, as actions for the ledger."""

    def __init__(self, target: Target, record: Callable[[Sequence[Action]], None]) -> None:
        self.notices = Notices()
        self._target, self._record = target, record
        self._kept: dict[int, _Kept] = {}
        self._folders: list[_Folder] = []
        self._numbers: dict[_Folder, int] = {}
        self._doubtful = True
        self._states: tuple[Legacy, ...] = ()
        self._told: set[str] = set()

    def close(self) -> None:
        """Give the watches up."""
        self.notices.close()

    def doubt(self) -> None:
        """Have everything looked at again in the next turn: something went wrong, or somebody else was at work."""
        self._doubtful = True

    def states(self) -> tuple[Legacy, ...]:
        """How the old places go on working, as of the last turn."""
        return self._states

    def turn(self, noticed: Noticed) -> float:
        """Put right what is to be; hand back after how many seconds to look again at the latest.

        Raises Locked, another DatadError, or OSError.
        """
        if noticed.files:
            time.sleep(_GATHER_S)
            _merge(noticed, self.notices.wait(0.0))
        self._take(noticed)
        try:
            with alone(self._target, _PATIENCE_S), Journal(self._target.journal_path, make=False) as journal:
                return self._turn(journal)
        except FileNotFoundError:
            if self._target.journal_path.exists():
                raise
            self._states = ()
            return NOTHING_LEFT

    def _take(self, noticed: Noticed) -> None:
        for number, name in noticed.files:
            folder = self._folders[number]
            kept = self._kept.get(folder.source)
            if kept is not None:
                path = f"{folder.path}/{name}" if folder.path else name
                (kept.tree_hints if folder.in_tree else kept.hints).add(path)
        for number in noticed.changed:
            kept = self._kept.get(self._folders[number].source)
            if kept is not None:
                kept.scan_at = 0.0
        self._doubtful = self._doubtful or noticed.lost

    def _turn(self, journal: Journal) -> float:
        if journal.get("undoing"):
            self._states = ()
            return NOTHING_LEFT
        if self._doubtful:
            recover(self._target, journal)
            recover_links(self._target, journal)
        rows = [row for row in journal.sources() if row.compat is not Compat.NONE and row.state is State.COMPLETE]
        now, waits = time.monotonic(), [_SCAN_S] * bool(rows)
        for row in rows:
            if row.compat is Compat.SYMLINK:
                waits.append(_LINKS_S)
                self._keep_link(row, journal)
            else:
                waits.append(self._keep_mirror(row, journal, now))
        self._doubtful = False
        self._states = tuple(map(legacy_of, journal.sources()))
        return min(waits) if waits else NOTHING_LEFT

    # Links

    def _keep_link(self, row: SourceRow, journal: Journal) -> None:
        here = standing(row, self._target)
        if here is Standing.DIRECTORY:  # something made the old directory anew, and may have written to it
            self._bring_new_directory(row, journal)
        elif here is Standing.OTHER:
            if row.source.path not in self._told:
                self._told.add(row.source.path)
                emit("legacy_link_obstructed", path=row.source.path)
        elif here is Standing.NOTHING:
            put_link(row, self._target, journal)
            emit("legacy_link_restored", path=row.source.path)
            self._record([Action("legacy_link_restored", row.source.path, _RULE, "the link had gone")])

    def _bring_new_directory(self, row: SourceRow, journal: Journal) -> None:
        folder, name = os.path.split(row.source.path)
        with Tree(row.source.path).parent() as fd:
            path = os.path.join(folder, free_aside(fd, name))
            source = Source(path, row.source.kind)
            journal.begin_source(source, time.time())
            rename_new(fd, name, fd, os.path.basename(path))
            sync_directory(fd)
        put_link(row, self._target, journal)
        result = migrate_source(source, self._target, journal, _NoProgress(), on_steps=self._steps)
        emit("legacy_link_restored", path=row.source.path, brought=result.files, aside=path)
        self._record([Action("legacy_link_restored", row.source.path, _RULE, f"a directory was there, now {path}")])

    # Mirrors

    def _keep_mirror(self, row: SourceRow, journal: Journal, now: float) -> float:
        kept = self._kept.get(row.id)
        if kept is None or kept.mirror.row.both_ways is not row.both_ways:
            kept = self._kept[row.id] = _Kept(Mirror(row, self._target))
        scanning = self._doubtful or now >= kept.scan_at
        hints, tree_hints = kept.hints, kept.tree_hints
        if not scanning and not hints and not tree_hints:
            return kept.scan_at - now
        kept.hints, kept.tree_hints = set(), set()
        if scanning:
            started = time.thread_time()
            self._follow(row)  # before the scan: what happens in between is noticed
            mirrored = kept.mirror.turn(journal)
            kept.scan_at = now + max(_SCAN_S, _SHARE * (time.thread_time() - started))
        else:
            mirrored = kept.mirror.turn(journal, hints, tree_hints)
        self._tell(row, mirrored)
        kept.hints |= mirrored.again
        return _AGAIN_S if kept.hints else max(kept.scan_at - now, 0.0)

    def _tell(self, row: SourceRow, mirrored: Mirrored) -> None:
        self._steps(row, mirrored.brought)
        full = [os.path.join(row.source.path, path) for path in mirrored.returned]
        self._record([Action("legacy_returned", path, _RULE, "it is new or changed in the tree") for path in full])
        if mirrored.brought or mirrored.returned:
            emit("mirror_brought", path=row.source.path, files=len(mirrored.brought), returned=len(mirrored.returned))
        for finding in mirrored.findings:
            if finding.kind == "legacy_conflict":
                emit("mirror_conflict", path=finding.path, reason=finding.detail)
            elif finding.severity is not Severity.INFO and finding.path not in self._told:
                self._told.add(finding.path)
                emit("mirror_left", path=finding.path, reason=finding.detail)

    def _steps(self, row: SourceRow, steps: Iterable[Step]) -> None:
        self._record([action_of(row, step) for step in steps])

    def _follow(self, row: SourceRow) -> None:
        """Watch the directories of a source, and those of the tree that go back to it; what can't be is scanned."""
        with suppress(OSError, UnsafePath):
            self._follow_below(row, Tree(row.at), "", in_tree=False)
        if row.both_ways and row.source.kind is Kind.CONTEXTS:
            with suppress(OSError, UnsafePath):
                self._follow_below(row, self._target.tree, self._target.agents, in_tree=True)

    def _follow_below(self, row: SourceRow, tree: Tree, path: str, *, in_tree: bool) -> None:
        folders, number = [path], 0
        while folders and number < _WATCHED:
            folder = folders.pop()
            with suppress(FileNotFoundError, NotADirectoryError), tree.directory(folder) as pin:
                with readable(".", pin) as fd:
                    key = self._number(_Folder(row.id, folder, in_tree))
                    self.notices.follow(fd, key)
                    if row.source.names:
                        continue
                    with os.scandir(fd) as entries:
                        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
                folders += [f"{folder}/{name}" if folder else name for name in names]
            number += 1

    def _number(self, folder: _Folder) -> int:
        number = self._numbers.setdefault(folder, len(self._folders))
        if number == len(self._folders):
            self._folders.append(folder)
        return number


def _merge(noticed: Noticed, more: Noticed) -> None:
    noticed.files |= more.files
    noticed.changed |= more.changed
    noticed.lost = noticed.lost or more.lost


def action_of(row: SourceRow, step: Step) -> Action:
    """A step that was carried out, for the ledger. What came to quarantine is told of by where it was."""
    path = step.to.path if not step.to.aside else os.path.join(row.source.path, step.file.path)
    return Action(step.kind, path, "migrate", step.reason, step.size)


def legacy_of(row: SourceRow) -> Legacy:
    """A source, for those who ask how it stands."""
    return Legacy(
        row.source.path,
        row.source.kind,
        row.compat if row.state is State.COMPLETE else "under way",
        row.both_ways,
        row.completed_at,
        row.brought_at,
        row.files,
        row.conflicts,
    )
