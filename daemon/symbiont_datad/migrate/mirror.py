"""The old place, mirrored: what is written to it is brought over, and, if asked, what is new in the tree goes back.

The journal remembers both sides of each file as they were when they were last in step. So a file that a mirror has
written itself is no change, and nothing goes back and forth. What has changed on one side goes to the other; what has
changed on both is a conflict: the newer one wins, and the other one is kept as a backup (see `plan`). Nothing is ever
removed: what is gone on one side stays on the other.
"""

import os
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.apply import Carrier
from symbiont_datad.migrate.content import Content
from symbiont_datad.migrate.inventory import Landscape, entry_of, examine, is_own, list_source
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.plan import plan, questions
from symbiont_datad.migrate.records import Deed, Identity, Known, Place, SourceRow, Step
from symbiont_datad.migrate.returning import Return
from symbiont_datad.migrate.target import Target
from symbiont_datad.migrate.workers import Workers
from symbiont_datad.report import Finding, Severity


@dataclass(slots=True)
class Mirrored:
    """What one turn has done. `brought` to the tree, `returned` to the old place; `again`: to be looked at once more.

    `conflicts` were changed on both sides.
    """

    brought: list[Step] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    again: set[str] = field(default_factory=set)
    conflicts: int = 0
    bytes: int = 0


class Mirror:
    """One mirrored source. To be used under the lock of migrations, with an open journal each time."""

    def __init__(self, row: SourceRow, target: Target) -> None:
        self.row, self._target = row, target
        self._left: dict[str, Identity] = {}
        self._back = Return(row, target) if row.both_ways and row.source.kind is Kind.CONTEXTS else None

    def turn(
        self, journal: Journal, hints: Iterable[str] | None = None, tree_hints: Iterable[str] | None = None
    ) -> Mirrored:
        """Bring both sides in step: the files of these paths, relative to the old place and to the root; None: all.

        Raises OSError, UnsafePath, NoRoom or JournalError.
        """
        mirrored = Mirrored()
        entries = self._listed(mirrored) if hints is None else self._looked_at(hints)
        known = journal.known(self.row.id) if hints is None else {}
        fresh = []
        for entry in entries:
            one = known.get(entry.path) if hints is None else journal.known_file(self.row.id, entry.path)
            if one is not None:
                known[entry.path] = one
            same = one is not None and one.identity == Identity.of(entry)
            if not same and self._left.get(entry.path) != Identity.of(entry):
                fresh.append(entry)
        if fresh:
            self._bring(journal, fresh, known, mirrored)
        if self._back is not None:
            mirrored.returned = self._back.turn(journal, tree_hints if not mirrored.conflicts else None)
        files = len(mirrored.brought) + len(mirrored.returned)
        if files:
            journal.brought(self.row.id, time.time(), files, mirrored.bytes, mirrored.conflicts)
        return mirrored

    def _listed(self, mirrored: Mirrored) -> list[Entry]:
        listed = list_source(self.row.source, self.row.at)
        mirrored.findings += listed.findings
        return listed.entries

    def _looked_at(self, hints: Iterable[str]) -> list[Entry]:
        found = []
        tree = Tree(self.row.at)
        for path in hints:
            if is_own(path):
                continue
            with suppress(FileNotFoundError, NotADirectoryError), tree.holding(path) as (fd, name):
                at = os.lstat(name, dir_fd=fd)
                if not stat.S_ISDIR(at.st_mode):
                    found.append(entry_of(path, at))
        return found

    def _bring(self, journal: Journal, fresh: Sequence[Entry], known: dict[str, Known], mirrored: Mirrored) -> None:
        row, target = self.row, self._target
        vectors = row.source.kind is Kind.VECTORS  # a collection is planned as a whole
        landscape = _surveyed(row, target, journal) if vectors else Nearby(target, journal)
        with Workers() as workers:
            asked = questions(row.source, fresh, target, landscape.there)
            landscape.look(workers, asked, lambda *_: None)
            examined = examine(row.source, row.at, fresh, asked, target, workers, lambda *_: None)
            found = plan(row.source, examined.files, target, landscape.there, known, time.time(), trimming=False)
            mirrored.again.update(entry.path for entry in examined.changed)
            for step in found.steps:
                if step.deed is Deed.LEAVE:
                    self._left[step.file.path] = Identity.of(step.file)
                elif step.deed is Deed.WAIT:
                    mirrored.again.add(step.file.path)
            mirrored.findings += found.findings
            mirrored.conflicts += sum(finding.kind == "legacy_conflict" for finding in found.findings)
            with Carrier(row, target, journal, workers, on_steps=mirrored.brought.extend) as carrier:
                carrier.carry(found, {})
        mirrored.bytes += carrier.applied.bytes
        for failed in carrier.applied.failed:
            if failed.again:
                mirrored.again.add(failed.step.file.path)
            else:
                full = os.path.join(row.source.path, failed.step.file.path)
                self._left[failed.step.file.path] = Identity.of(failed.step.file)
                mirrored.findings.append(
                    Finding("legacy_unread", full, Severity.WARNING, failed.reason, "put that right")
                )


def _surveyed(row: SourceRow, target: Target, journal: Journal) -> Landscape:
    made = {one.place.path: one.identity for one in journal.made() if not one.place.aside}
    landscape = Landscape(target, made.get)
    landscape.survey([row.source.kind])
    return landscape


class Nearby(Landscape):
    """A landscape that looks at each place when it is asked about it, instead of listing whole directories before."""

    def __init__(self, target: Target, journal: Journal) -> None:
        super().__init__(target, lambda path: _made_at(journal, path))
        self.there = replace(self.there, entry=self._entry, content=self._content)

    def _entry(self, path: str) -> Entry | None:
        if path not in self._entries:
            with suppress(OSError, UnsafePath), self._target.tree.holding(path) as (fd, name):
                found = os.lstat(name, dir_fd=fd)
                if not stat.S_ISDIR(found.st_mode):
                    self._entries[path] = entry_of(path, found)
        return self._entries.get(path)

    def _content(self, path: str) -> Content | None:
        self._entry(path)
        return self.content(path)


def _made_at(journal: Journal, path: str) -> Identity | None:
    made = journal.made_at(Place(False, path))
    return made.identity if made is not None else None
