"""Verdicts on state files: from the marks of an earlier sweep where nothing changed, else from their content.

What was judged is left in the ledger as marks, one a file: inode, size, time and verdict.
"""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.context import LARGEST, Damage, Document, Form, Verdict, judge, judge_sealed
from symbiont_datad.formats.state_name import StateName
from symbiont_datad.fsops.opened import FileId, identity, open_files
from symbiont_datad.fsops.read import read_unchanged
from symbiont_datad.fsops.walk import Entry, look
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.state_files import StateFile, StateFiles
from symbiont_datad.ledger import LedgerError
from symbiont_datad.retention.backups import Backup

Opener = Callable[[bytes], bytes | None]


class Judges:
    """The verdicts of one sweep. `checked` counts the files that were read, `unsettled` those left for the next one.

    To be used in a `with`: the directory whose files are read stays open, for to reach it anew takes longer than to
    read a file.
    """

    def __init__(self, context: JobContext, files: StateFiles) -> None:
        self._context = context
        self._files = files
        self._new: dict[str, str] = {}
        self._marks: dict[str, str] = {}
        try:
            marks = context.ledger.marks()
            self._marks = {path: mark for path, mark in marks.items() if not path.startswith("/")}  # others' marks
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))
        self._held = ExitStack()
        self._folder: tuple[str, int] | None = None
        self._open: Collection[FileId] | None = None
        self._open_inodes: set[int] = set()
        self._opener: Opener | None = None
        self._asked_for_key = False
        self.checked = 0
        self.unsettled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def settled(self, entry: Entry) -> bool:
        """Whether nobody is likely to be writing the file now. One from the future is not being written either."""
        return abs(self._context.now - entry.mtime_ns / 1e9) >= self._context.settings.settle_s

    def is_open(self, entry: Entry) -> bool:
        """Whether some process has the file open. All processes are asked at once, the first time."""
        if self._open is None:
            self._open = open_files(self._context.layout.root).files
            self._open_inodes = {inode for _, inode in self._open}
        return entry.inode in self._open_inodes and identity(self._context.layout.tree, entry.path) in self._open

    def in_flux(self, entry: Entry) -> bool:
        """Whether a file that looks damaged may be half written: some process has it open, or had until just now."""
        if self.is_open(entry):
            return True
        try:
            found = look(self._context.layout.tree, entry.path)
        except (OSError, UnsafePath):
            return True
        return found is None or not entry.is_same(found)

    def known(self, entry: Entry) -> Verdict | None:
        """The verdict on the file as it is, if this sweep or an earlier one has made it."""
        mark = self._new.get(entry.path) or self._marks.get(entry.path)
        if mark is None or not mark.startswith(_identity(entry)):
            return None
        verdict = _verdict_in(mark)
        if verdict is not None and verdict.unopened and self.opener() is not None:
            return None
        return verdict

    def was_known(self, entry: Entry) -> bool:
        """Whether an earlier sweep has judged the file as it is now."""
        mark = self._marks.get(entry.path)
        return mark is not None and mark.startswith(_identity(entry))

    def was_damaged(self, entry: Entry) -> bool:
        """Whether the last sweep found damage in the file that had this path."""
        verdict = _verdict_in(self._marks.get(entry.path, ""))
        return verdict is not None and verdict.kind is not None

    def verdict(self, entry: Entry, name: StateName, document: Document, *, gzip: bool | None) -> Verdict | None:
        """The verdict on a file; None if it may be half written, or can't be read. `gzip`: what its name promises."""
        known = self.known(entry)
        if known is None and self.settled(entry):
            content = self.content(entry)
            if content is not None:
                known = self.judge(content, name, document, gzip=gzip)
                self.checked += 1
                self.note(entry, known)
        return known

    def of(self, file: StateFile) -> Verdict | None:
        """The verdict on a context, an archive or a session."""
        promised = None if file.document is Document.ARCHIVE else file.name.gzip
        return self.verdict(file.entry, file.name, file.document, gzip=promised)

    def of_backup(self, backup: Backup) -> Verdict | None:
        """The verdict on a backup. Its name promises no mode, but whether it is sealed."""
        return self.verdict(backup.entry, backup.name, Document.CONTEXT, gzip=None)

    def parses(self, backup: Backup) -> bool:
        """Whether a backup could take its context's place."""
        verdict = self.of_backup(backup)
        return verdict is not None and verdict.good

    def judge(self, content: bytes, name: StateName, document: Document, *, gzip: bool | None) -> Verdict:
        """Judge content that was read."""
        if name.sealed:
            return judge_sealed(content, self.opener(), gzip=gzip, document=document)
        return judge(content, gzip=gzip, document=document)

    def content(self, entry: Entry) -> bytes | None:
        """The content of a file; None when it is no longer the one that was listed, or can't be read.

        Of a very large one so much that it is judged to be too large.
        """
        try:
            fd, name = self._reach(entry.path)
            return read_unchanged(name, fd, entry, LARGEST + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnsafePath) as error:
            self._files.unread[entry.path] = getattr(error, "strerror", None) or str(error)
            return None

    def opener(self) -> Opener | None:
        """What opens sealed content; None without a key."""
        if not self._asked_for_key:
            self._asked_for_key = True
            self._opener = _opener(self._context)
        return self._opener

    def note(self, entry: Entry, verdict: Verdict) -> None:
        """Keep a verdict for the next sweep."""
        kind = verdict.kind.value if verdict.kind else "-"
        self._new[entry.path] = f"{_identity(entry)}{kind} {verdict.form.value} {verdict.detail}"

    def forget(self, entry: Entry) -> None:
        """Take a verdict of this sweep back: somebody is writing the file after all."""
        self._new.pop(entry.path, None)

    def leave_marks(self) -> None:
        """Write down what was judged, and forget what is gone. What lies where nothing could be listed is not gone."""
        if self._context.dry_run:
            return
        there = {file.path for file in self._files.judged}
        there.update(backup.entry.path for backups in self._files.backups.values() for backup in backups)
        unread = tuple(f"{path}/" for path in self._files.unread)
        gone = [
            path
            for path in self._marks
            if path not in there and path not in self._new and not f"{path}/".startswith(unread)
        ]
        if not self._new and not gone:
            return
        try:
            self._context.ledger.update_marks(self._new, gone)
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))

    def _reach(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        if self._folder is None or self._folder[0] != folder:
            self._held.close()
            self._folder = None
            self._folder = folder, self._held.enter_context(self._context.layout.tree.directory(folder))
        return self._folder[1], name


def _identity(entry: Entry) -> str:
    return f"{entry.inode}:{entry.size}:{entry.mtime_ns} "


def _verdict_in(mark: str) -> Verdict | None:
    """The verdict in a mark; None where there is none, or another version of ours has left it."""
    try:
        _, kind, form, detail = mark.split(" ", 3)
        return Verdict(None if kind == "-" else Damage(kind), detail, Form(form))
    except ValueError:
        return None


def _opener(context: JobContext) -> Opener | None:
    from symbiont_datad.jobs.secrets import age_identity

    try:
        identity = age_identity(context.settings.repository.secrets)
    except DatadError:
        return None
    from symbiont_datad.formats.age import unseal

    return lambda content: unseal(content, identity)
