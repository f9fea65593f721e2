"""The modes and owners of files, where the settings declare any (`file_permissions`, `owner`, `group`).

The guard keeps directories; files are many, so they are looked at while usage is measured.
"""

import os
import stat

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.fsops.root import pinned_file, set_mode, set_owner
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, Severity, octal, printable

_BATCH = 1000
_TOLD = 20


class FileKeeper:
    """Compares files with what is declared, and puts right those that differ (in a dry run: says so).

    As root, a file with more than one name is left alone: one of the names may be somebody else's.
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._mode = context.layout.file_mode
        self._uid, self._gid = context.layout.uid, context.layout.gid
        self._unrecorded: list[Action] = []
        self._failed = 0
        self._refused = 0
        self.keeps = self._mode is not None or (self._uid, self._gid) != (-1, -1)
        self.actions: list[Action] = []
        self.findings: list[Finding] = []
        self.checked = 0

    def look_at(self, entry: Entry) -> None:
        """Compare one file; links, FIFOs and the like are passed over."""
        if not entry.is_file:
            return
        self.checked += 1
        wrong_mode = self._mode is not None and stat.S_IMODE(entry.mode) != self._mode
        if not wrong_mode and not self._wrong_owner(entry.uid, entry.gid):
            return
        if entry.nlink > 1 and os.geteuid() == 0:
            self._refuse(entry.path, f"it has {entry.nlink} hard links; as root it is not changed")
            return
        try:
            self._repair(entry)
        except FileNotFoundError:
            return
        except (OSError, UnsafePath) as error:
            self._fail(entry.path, getattr(error, "strerror", None) or str(error))

    def finish(self) -> None:
        """Write down and tell what was done."""
        self._record()
        if self._failed > _TOLD:
            detail = f"and {self._failed - _TOLD} more files could not be changed"
            self.findings.append(Finding("repair_failed", "", Severity.WARNING, detail))
        if self._refused > _TOLD:
            detail = f"and {self._refused - _TOLD} more files have several names"
            self.findings.append(Finding("repair_refused", "", Severity.WARNING, detail))
        if self._refused and not self._context.dry_run:
            self._tell_of_refused()
        for kind in ("permissions_restored", "owner_restored"):
            count = sum(action.kind == kind for action in self.actions)
            if count and not self._context.dry_run:
                emit(kind, job="usage", files=count, reason="files differed from the settings")

    def _tell_of_refused(self) -> None:
        """One event for all that are new: what an earlier run has refused was told of then."""
        try:
            known = {finding.path for finding, _ in self._context.ledger.findings() if finding.kind == "repair_refused"}
        except LedgerError:
            known = set()
        new = [one for one in self.findings if one.kind == "repair_refused" and printable(one.path) not in known]
        if new:
            emit("repair_refused", job="usage", path=new[0].path, reason=new[0].detail, files=self._refused)

    def _wrong_owner(self, uid: int, gid: int) -> bool:
        return self._uid not in (-1, uid) or self._gid not in (-1, gid)

    def _repair(self, entry: Entry) -> None:
        with (
            self._context.layout.tree.holding(entry.path) as (folder_fd, name),
            pinned_file(name, folder_fd) as fd,
        ):
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_nlink > 1 and os.geteuid() == 0:
                self._refuse(entry.path, f"it has {found.st_nlink} hard links; as root it is not changed")
                return
            if self._wrong_owner(found.st_uid, found.st_gid):
                if not self._context.dry_run:
                    set_owner(fd, self._uid, self._gid)
                self._did("owner_restored", entry.path, "owner", f"owner was {found.st_uid}:{found.st_gid}")
            if self._mode is not None and stat.S_IMODE(found.st_mode) != self._mode:
                if not self._context.dry_run:
                    set_mode(fd, self._mode)
                reason = f"mode was {octal(found.st_mode)}, declared {octal(self._mode)}"
                self._did("permissions_restored", entry.path, "file_permissions", reason)

    def _did(self, kind: str, path: str, rule: str, reason: str) -> None:
        action = Action(kind, path, rule, reason)
        self.actions.append(action)
        self._unrecorded.append(action)
        if len(self._unrecorded) >= _BATCH:
            self._record()

    def _record(self) -> None:
        actions, self._unrecorded = self._unrecorded, []
        if self._context.dry_run or not actions:
            return
        try:
            self._context.ledger.record(actions, self._context.now, self._context.run)
        except LedgerError as error:
            emit("ledger_failed", reason=str(error))

    def _refuse(self, path: str, reason: str) -> None:
        self._refused += 1
        if self._refused <= _TOLD:
            self.findings.append(Finding("repair_refused", path, Severity.WARNING, reason, "remove the other name"))

    def _fail(self, path: str, reason: str) -> None:
        self._failed += 1
        if self._failed <= _TOLD:
            self.findings.append(Finding("repair_failed", path, Severity.WARNING, reason))
