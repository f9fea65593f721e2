"""Observe, decide, repair: one pass over the layout, or over the part of it that hints name.

A pass goes from the root down. Each directory is looked at through the descriptor of its parent, so a parent that was
just repaired is the one its children are made in.
"""

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import pinned, readable, refuse_other_mount, refuse_untrusted
from symbiont_datad.fsops.write import describe
from symbiont_datad.guard.drift import NOTHING, Observed, drifts
from symbiont_datad.guard.repair import repair
from symbiont_datad.guard.scope import ALL, EVERYTHING, Scope, children_in_scope
from symbiont_datad.layout import Directory, Layout
from symbiont_datad.report import Action, Drift, DriftKind, Finding, Severity
from symbiont_datad.retention.days import days_ahead

_MAKES = (DriftKind.MISSING, DriftKind.OBSTRUCTED)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What one pass saw and did. `drifts` are those found; `actions` what was done about them; `failures` what could
    not be done. `appeared` are directories that were made in this pass. `rooted` says whether the root is there now."""

    drifts: tuple[Drift, ...] = ()
    actions: tuple[Action, ...] = ()
    failures: tuple[Finding, ...] = ()
    appeared: tuple[str, ...] = ()
    rooted: bool = True


def reconcile(
    layout: Layout,
    scope: Scope = EVERYTHING,
    *,
    now: float,
    repairing: bool = True,
    fresh: bool = False,
    days: bool = False,
    allow: Callable[[str], bool] = lambda _path: True,
) -> Reconciliation:
    """Compare the part of the tree in `scope` with the layout, and put right what `allow(path)` lets be repaired.

    With `repairing` off nothing is touched (`check`). `fresh` says that the tree is being made at start. With `days`,
    where the children of `layout.days` are in scope, those of today and tomorrow are made. `now` is in seconds since
    the epoch. What can't be repaired is among the failures. Raises OSError or UnsafePath when the root
    itself can't be reached.
    """
    with ExitStack() as stack:
        one = _Pass(layout, stack, repairing, now, fresh, allow)
        rooted = one.visit_root()
        for row in layout.directories[1:]:
            children = children_in_scope(row, scope)
            if children is None or one.is_beyond(row.path):
                continue
            parent_fd = one.pin(row.parent)
            if parent_fd is None:
                if row.required and not one.is_beyond(row.path):
                    one.drifts.append(Drift(DriftKind.MISSING, row.path, "a directory", "nothing"))
            elif one.visit(row, row.path, parent_fd) and children:
                one.visit_children(row, children)
                if row.path == layout.days and days:
                    one.make_days(row)
        return Reconciliation(tuple(one.drifts), tuple(one.actions), tuple(one.failures), tuple(one.appeared), rooted)


@dataclass
class _Pass:
    layout: Layout
    stack: ExitStack
    repairing: bool
    now: float
    fresh: bool
    allow: Callable[[str], bool]
    drifts: list[Drift] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    failures: list[Finding] = field(default_factory=list)
    appeared: list[str] = field(default_factory=list)
    fds: dict[str, int] = field(default_factory=dict)
    beyond: set[str] = field(default_factory=set)
    """Directories that belong to another mount or can't be looked into. Nothing is known of what is below them."""

    def visit_root(self) -> bool:
        """Put the root right and pin it; False when it isn't there and may not be made."""
        tree, row = self.layout.tree, self.layout.directories[0]
        try:
            parent_fd = self.stack.enter_context(tree.parent())
        except FileNotFoundError:
            missing = Drift(DriftKind.MISSING, "", "a directory", "nothing")
            if not self.repairing or not self._may_make(missing):
                self.drifts.append(missing)
                return False
            tree.make_parents()
            parent_fd = self.stack.enter_context(tree.parent())
        above = os.fstat(parent_fd)
        observed = _observe(tree.name, parent_fd)
        refuse_untrusted(above, observed.uid if observed.is_directory else None, tree.path)
        if not self._put_right(row, "", observed, parent_fd):
            return False
        root_fd = self.fds[""] = self.stack.enter_context(pinned(tree.name, parent_fd))
        refuse_untrusted(above, os.fstat(root_fd).st_uid, tree.path)
        return True

    def visit(self, row: Directory, path: str, parent_fd: int) -> bool:
        """Look at one directory and put it right; True when it is there (now) and belongs to the tree."""
        try:
            observed = _observe(path.rpartition("/")[2], parent_fd)
        except OSError as error:
            self._leave(Finding("unreadable", path, Severity.WARNING, f"can't be looked at: {error.strerror}"))
            return False
        if observed.is_directory and observed.device != os.fstat(parent_fd).st_dev:
            self._leave_mount(path)
            return False
        return self._put_right(row, path, observed, parent_fd)

    def visit_children(self, row: Directory, children: list[str]) -> None:
        """Look at the directories that users have made in an open directory: `ALL` of them or some."""
        fd = self.pin(row.path)
        if fd is None:
            return
        if children is ALL:
            try:
                with readable(".", fd) as open_fd, os.scandir(open_fd) as entries:
                    names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                detail = f"its directories can't be listed: {error.strerror}"
                self.failures.append(Finding("unreadable", row.path, Severity.WARNING, detail))
                return
            children = [f"{row.path}/{name}" for name in names]
        for path in children:
            if path not in self.layout.by_path:
                self.visit(row, path, fd)

    def make_days(self, row: Directory) -> None:
        """Make the directories of today and tomorrow. That they are missing is no drift: another day has begun."""
        fd = self.pin(row.path) if self.repairing and self.layout.create else None
        if fd is None:
            return
        seen, self.fresh = len(self.drifts), True  # made, and not made again
        for day in days_ahead(self.now, datetime.fromtimestamp(self.now).astimezone().tzinfo):
            path = f"{row.path}/{day}"
            try:
                os.stat(day, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                self.visit(replace(row, path=path, purpose=f"{row.purpose}, of {day}", open=False), path, fd)
            except OSError:  # it will be told of by whoever writes there
                continue
        self.fresh = False
        del self.drifts[seen:]

    def pin(self, path: str) -> int | None:
        """The directory at `path`, which is kept open for the rest of the pass; None when it can't be had."""
        if path in self.fds or not path or self.is_beyond(path):
            return self.fds.get(path)
        folder, _, name = path.rpartition("/")
        above = self.pin(folder)
        if above is None:
            return None
        try:
            fd = self.stack.enter_context(pinned(name, above))
            refuse_other_mount(above, fd, path)
        except UnsafePath:
            self._leave_mount(path)
            return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._leave(Finding("unreadable", path, Severity.WARNING, f"can't be entered: {error.strerror}"))
            return None
        self.fds[path] = fd
        return fd

    def is_beyond(self, path: str) -> bool:
        """Whether the path is in a directory that a pass can't or mustn't look into."""
        return any(path == one or path.startswith(one + "/") for one in self.beyond)

    def _put_right(self, row: Directory, path: str, observed: Observed, parent_fd: int) -> bool:
        """Repair what differs; True when the directory is there."""
        present = observed.is_directory
        found = drifts(row, path, observed, self.layout)
        if found and present and path and self._is_mount(path, parent_fd):
            return False
        self.drifts += found
        repairs = [drift for drift in found if self.repairing and self._may_make(drift)]
        if not repairs or not self.allow(path):
            return present
        for drift in repairs:
            try:
                for action in repair(drift, row, self.layout, parent_fd, self.now, self.fresh):
                    self.actions.append(action)  # one by one: what was done before a failure is told as well
            except UnsafePath as error:
                self.failures.append(Finding("repair_refused", path, Severity.ERROR, str(error)))
            except OSError as error:
                detail = f"{drift.kind} not repaired: {error.strerror}"
                self.failures.append(Finding("repair_failed", path, Severity.ERROR, detail))
            else:
                if drift.kind in _MAKES:
                    self.appeared.append(path)
                    present = True
        return present

    def _may_make(self, drift: Drift) -> bool:
        if drift.kind not in _MAKES or self.layout.create:
            return True
        detail = f"{drift.found} there, and auto_create_dirs is off"
        self.failures.append(Finding("not_created", drift.path, Severity.WARNING, detail))
        return False

    def _is_mount(self, path: str, parent_fd: int) -> bool:
        """Whether a bind mount of the tree's own file system is there. Asked only when something would be repaired."""
        try:
            with pinned(path.rpartition("/")[2], parent_fd) as fd:
                refuse_other_mount(parent_fd, fd, path)
        except UnsafePath:
            self._leave_mount(path)
            return True
        except OSError:  # it went, or can't be entered: the repair will say so
            pass
        return False

    def _leave_mount(self, path: str) -> None:
        self._leave(Finding("mount_point", path, Severity.INFO, "another file system is mounted there; it is not kept"))

    def _leave(self, finding: Finding) -> None:
        self.failures.append(finding)
        self.beyond.add(finding.path)


def _observe(name: str, parent_fd: int) -> Observed:
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return NOTHING
    what = "a directory" if stat.S_ISDIR(found.st_mode) else describe(found)
    return Observed(what, found.st_mode, found.st_uid, found.st_gid, found.st_dev)
