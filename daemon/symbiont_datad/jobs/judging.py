"""Verdicts on state files: from the marks of an earlier sweep where nothing changed, else from their content.

What was judged is left in the ledger as marks, one a file: inode, size, time and verdict.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from types import TracebackType
from typing import Self

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.context import LARGEST, Damage, Document, Form, Verdict, judge, judge_sealed
from symbiont_datad.formats.state_name import StateName
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.opened import FileId, identity, open_files
from symbiont_datad.fsops.read import opened_regular, read_unchanged
from symbiont_datad.fsops.walk import Entry, look
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.state_files import StateFile, StateFiles
from symbiont_datad.ledger import LedgerError
from symbiont_datad.retention.backups import Backup

_path = attrgetter("path")

CUT_S = 0.25
"""How long a file that looks damaged has to stay as it is where the kernel does not tell who writes. Some file systems
(ext4) show a file that is being cut with its new size and its old time until it is cut, and `/proc` does not show the
descriptor before open(2) returns; a few milliseconds, more on a busy disk.
"""

Named = StateName | StateFile
Opener = Callable[[bytes], bytes | None]


class Judges:
    """The verdicts of one sweep. `checked` counts the files that were read, `unsettled` those left for the next one.

    To be used in a `with`: the directory whose files are read stays open, for to reach it anew takes longer than to
    read a file.
    """

    def __init__(self, context: JobContext, files: StateFiles) -> None:
        self._context = context
        self._files = files
        self._new: dict[Entry, Verdict] = {}
        self._same: dict[Entry, Verdict] = {}
        """Verdicts of earlier sweeps on files that are as they were then."""
        self._damaged: set[str] = set()
        """Paths of files in which the last sweep found damage."""
        self._gone: list[str] = []
        try:
            self._recall()
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))
        self._held = ExitStack()
        self._folder: tuple[str, int] | None = None
        self._open: Collection[FileId] | None = None
        self._open_inodes: set[int] = set()
        self._waited = False
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
        """Whether a file that looks damaged may be half written: somebody is writing it, or was until just now.

        To be asked when all that is to be judged has been read. The kernel is asked who has it open for writing, for it
        knows also of one whose open(2) has not returned. Where it does not tell, it counts as written while any process
        has it open, and has to stay as it is for `CUT_S`, which is waited for once in a sweep.
        """
        try:
            with self.opened(entry) as fd:
                answer = held(fd)
            if answer is Held.UNKNOWN:
                self._wait()
                answer = Held.YES if self.is_open(entry) else Held.NO
            found = look(self._context.layout.tree, entry.path)
        except (OSError, UnsafePath):
            return True
        return answer is Held.YES or found is None or not entry.is_same(found)

    @contextmanager
    def opened(self, entry: Entry) -> Iterator[int]:
        """A descriptor of a file, open for reading. Raises OSError or UnsafePath."""
        fd, name = self._reach(entry.path)
        with opened_regular(name, fd) as file:
            yield file

    def known(self, entry: Entry) -> Verdict | None:
        """The verdict on the file as it is, if this sweep or an earlier one has made it."""
        verdict = self._new.get(entry) or self._same.get(entry)
        if verdict is not None and verdict.unopened and self.opener() is not None:
            return None
        return verdict

    def was_known(self, entry: Entry) -> bool:
        """Whether an earlier sweep has judged the file as it is now."""
        return entry in self._same

    def was_damaged(self, entry: Entry) -> bool:
        """Whether the last sweep found damage in the file that had this path."""
        return entry.path in self._damaged

    def verdict(self, entry: Entry, name: Named, document: Document, *, gzip: bool | None) -> Verdict | None:
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
        promised = None if file.document is Document.ARCHIVE else file.gzip
        return self.verdict(file.entry, file, file.document, gzip=promised)

    def of_backup(self, backup: Backup) -> Verdict | None:
        """The verdict on a backup. Its name promises no mode, but whether it is sealed."""
        return self.verdict(backup.entry, backup.name, Document.CONTEXT, gzip=None)

    def parses(self, backup: Backup) -> bool:
        """Whether a backup could take its context's place."""
        verdict = self.of_backup(backup)
        return verdict is not None and verdict.good

    def judge(self, content: bytes, name: Named, document: Document, *, gzip: bool | None) -> Verdict:
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
        self._new[entry] = verdict

    def forget(self, entry: Entry) -> None:
        """Take a verdict of this sweep back: somebody is writing the file after all."""
        self._new.pop(entry, None)

    def leave_marks(self) -> None:
        """Write down what was judged, and forget what is gone. What lies where nothing could be listed is not gone."""
        if self._context.dry_run:
            return
        new = sorted(self._new, key=_path)
        unread = tuple(f"{path}/" for path in self._files.unread)
        gone = {path for path in self._gone if not f"{path}/".startswith(unread)}
        if gone:
            gone.difference_update(map(_path, new))
        if not new and not gone:
            return
        try:
            self._context.ledger.update_marks(((entry.path, _mark(entry, self._new[entry])) for entry in new), gone)
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))

    def _recall(self) -> None:
        """Read what earlier sweeps have left. Of a mark that says nothing any more its text is not kept."""
        files = self._files
        there: dict[str, Entry] = {}
        verdicts: dict[str, Verdict | None] = {}  # nearly all say the same
        for path, mark in self._context.ledger.each_mark():
            if path.startswith("/"):
                continue  # another's mark
            if not there:
                there = {file.entry.path: file.entry for file in files.judged}
                there.update((one.entry.path, one.entry) for backups in files.backups.values() for one in backups)
            entry = there.get(path)
            if entry is None:
                self._gone.append(path)
                continue
            identity, _, found = mark.partition(" ")
            if found not in verdicts:
                verdicts[found] = _verdict_in(found)
            verdict = verdicts[found]
            if verdict is not None:
                if verdict.kind is not None:
                    self._damaged.add(path)
                if identity == _identity(entry):
                    self._same[entry] = verdict

    def _wait(self) -> None:
        if not self._waited:
            self._waited = True
            time.sleep(CUT_S)

    def _reach(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        if self._folder is None or self._folder[0] != folder:
            self._held.close()
            self._folder = None
            self._folder = folder, self._held.enter_context(self._context.layout.tree.directory(folder))
        return self._folder[1], name


def _identity(entry: Entry) -> str:
    return f"{entry.inode}:{entry.size}:{entry.mtime_ns}"


def _mark(entry: Entry, verdict: Verdict) -> str:
    kind = verdict.kind.value if verdict.kind else "-"
    return f"{_identity(entry)} {kind} {verdict.form.value} {verdict.detail}"


def _verdict_in(found: str) -> Verdict | None:
    """The verdict in a mark, without the identity before it; None if another version of ours has left it."""
    try:
        kind, form, detail = found.split(" ", 2)
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
