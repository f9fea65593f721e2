"""The good versions that agents' states had: in the runtime's backups beside the contexts, and in snapshots."""

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from symbiont_datad import errors
from symbiont_datad.events import emit
from symbiont_datad.formats.context import Document, Form, Verdict, encoded, text_of
from symbiont_datad.formats.state_name import StateName, context_name, name_of
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.healing import Case, Source, Version, made_at
from symbiont_datad.jobs.judging import Judges
from symbiont_datad.jobs.state_files import StateFiles
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import DAY
from symbiont_datad.retention.backups import Backup, newest_first

if TYPE_CHECKING:
    from symbiont_datad.jobs.saved_contexts import SavedContext, SavedContexts
    from symbiont_datad.restic.tree import Node

_IN_VAIN = "//healing/"
"""Begins the ledger's marks of what was looked for in vain: there is no use in doing that at each sweep."""


class Past:
    """Looks for versions, and reads them. `away`: why the snapshots could not be looked at; else empty."""

    def __init__(self, context: JobContext, judges: Judges, files: StateFiles) -> None:
        self._context = context
        self._judges = judges
        self._files = files
        self._saved: SavedContexts | None = None
        self._found: dict[str, SavedContext] = {}
        self._backups: dict[str, Backup] = {}
        self.away = ""

    def search(self, cases: Iterable[Case]) -> dict[str, list[Version]]:
        """The newest good version in the backups, and in the snapshots, for each case that asks for one, by target.

        The repository is opened only if it is needed. Raises Interrupted.
        """
        wanted = {case.target: case for case in cases if case.searches}
        vain = self._in_vain()
        states = {target: self._state_of(case) for target, case in wanted.items()}
        found = {target: self._in_backups(case) for target, case in wanted.items()}
        open_cases = [case for target, case in wanted.items() if found[target] or vain.get(target) != states[target]]
        if open_cases:
            self._look_into_snapshots(open_cases)
        for target, saved in self._found.items():
            version = Version(Source.SNAPSHOT, saved.path, saved.at, saved.verdict.written_at, saved.snapshot)
            found[target].append(version)
        if not self.away:
            self._remember({target: states[target] for target in wanted if not found[target]}, vain)
        return found

    def content(self, case: Case, version: Version) -> bytes | None:
        """The content of a version, in the form of the case's target; None when it is not what it was any more.

        Raises DatadError when a snapshot can't be read.
        """
        data, verdict = self._read(case, version)
        if data is None or verdict is None:
            return None
        if case.sealed or (verdict.form is Form.GZIP) == case.gzip:
            return data
        return encoded(text_of(data), gzip=case.gzip)

    def _read(self, case: Case, version: Version) -> tuple[bytes | None, Verdict | None]:
        if version.source is Source.SNAPSHOT:
            assert self._saved is not None
            saved = self._found[case.target]
            return self._saved.content(saved), saved.verdict
        if version.source is Source.BACKUP:
            return self._read_file(self._backups[case.target].entry, self._backups[case.target].name)
        assert case.own is not None
        return self._read_file(case.own.file.entry, case.own.file.name)

    def _read_file(self, entry: Entry, name: StateName) -> tuple[bytes | None, Verdict | None]:
        """A file's content with the verdict on it, if it is good, whatever its extension promises."""
        data = self._judges.content(entry)
        if data is None:
            return None, None
        verdict = self._judges.judge(data, name, Document.CONTEXT, gzip=None)
        return (data, verdict) if verdict.good and not verdict.unopened else (None, None)

    # Backups

    def _in_backups(self, case: Case) -> list[Version]:
        for backup in newest_first(self._files.backups.get(case.agent, ()), case.broken_at):
            if backup.name.sealed != case.sealed or not self._trusted(case, backup.entry.uid, backup.entry.nlink):
                continue
            if not self._judges.parses(backup):
                continue
            data, verdict = self._read_file(backup.entry, backup.name)
            if data is not None and verdict is not None:
                self._backups[case.target] = backup
                return [Version(Source.BACKUP, backup.entry.path, made_at(backup), verdict.written_at)]
        return []

    def _trusted(self, case: Case, uid: int, links: int) -> bool:
        """As root, nothing of another user takes the place of an agent's state: its name may lead to others' files."""
        return os.geteuid() != 0 or uid == case.subject.file.entry.uid or (uid == 0 and links == 1)

    # Snapshots

    def _look_into_snapshots(self, cases: Sequence[Case]) -> None:
        from symbiont_datad.jobs.saved_contexts import SavedContexts  # and with it all that opens a repository

        by_target = {case.target: case for case in cases}

        def judge(target: str, name: StateName, node: "Node", content: bytes) -> Verdict | None:
            if not self._trusted(by_target[target], node.uid, node.links):
                return None
            verdict = self._judges.judge(content, name, Document.CONTEXT, gzip=None)
            return None if verdict.unopened else verdict

        try:
            self._saved = SavedContexts(self._context)
            broken_at = {os.path.basename(case.target): at for case in cases if (at := case.broken_at) is not None}
            names = {target: _names(case) for target, case in by_target.items()}
            self._found = self._saved.newest(names, judge, broken_at)
        except errors.Interrupted:
            raise
        except errors.NoRepository:
            self.away = "there is no repository"
        except errors.DatadError as error:
            self.away = str(error)

    # What was looked for in vain

    def _state_of(self, case: Case) -> str:
        """What the search goes by; a day later it is made again, whatever happened to the repository meanwhile."""
        entries = [case.subject.file.entry, *(backup.entry for backup in self._files.backups.get(case.agent, ()))]
        facts = sorted(f"{entry.path} {entry.inode} {entry.size} {entry.mtime_ns}" for entry in entries)
        facts.append(str(int(self._context.now // DAY)))
        return blake2b(os.fsencode("\n".join(facts)), digest_size=16).hexdigest()

    def _in_vain(self) -> dict[str, str]:
        try:
            marks = self._context.ledger.marks(_IN_VAIN)
        except LedgerError:
            return {}
        return {path.removeprefix(_IN_VAIN): mark for path, mark in marks.items()}

    def _remember(self, vain: Mapping[str, str], before: Mapping[str, str]) -> None:
        if self._context.dry_run or vain == before:
            return
        new = {_IN_VAIN + target: state for target, state in vain.items()}
        try:
            self._context.ledger.update_marks(new, [_IN_VAIN + target for target in before.keys() - vain.keys()])
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))


def _names(case: Case) -> dict[str, StateName]:
    """Under which names snapshots have an agent's state."""
    modes = (case.gzip,) if case.sealed else (True, False)
    names = [context_name(case.agent, gzip=gzip, sealed=case.sealed) for gzip in modes]
    return {name: found for name in names if (found := name_of(name)) is not None}
