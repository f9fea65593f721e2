"""Observe, decide, repair: one pass over the layout, or over the part of it that hints name.

A pass goes from the root down. Each directory is looked at through the descriptor of its parent, so a parent that was
just repaired is the one its children are made in.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.mount import mounts_below
from symbiont_datad.fsops.root import pinned, readable
from symbiont_datad.fsops.write import describe
from symbiont_datad.guard.drift import NOTHING, Observed, drifts
from symbiont_datad.guard.repair import repair
from symbiont_datad.layout import Directory, Layout
from symbiont_datad.report import Action, Drift, DriftKind, Finding, Severity

Scope = Mapping[str, bool]
"""Paths to look at, with what is below them; a true value says that the children in open directories are meant too."""

EVERYTHING: Scope = {"": True}


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What one pass saw and did. `drifts` are those found; `actions` what was done about them; `failures` what could
    not be done. `appeared` are directories that were made in this pass."""

    drifts: tuple[Drift, ...] = ()
    actions: tuple[Action, ...] = ()
    failures: tuple[Finding, ...] = ()
    appeared: tuple[str, ...] = ()


@dataclass
class _Pass:
    layout: Layout
    repairing: bool
    now: float
    fresh: bool
    allow: Callable[[str], bool]
    mounts: frozenset[str]
    drifts: list[Drift] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    failures: list[Finding] = field(default_factory=list)
    appeared: list[str] = field(default_factory=list)

    def visit(self, row: Directory, path: str, name: str, parent_fd: int) -> bool:
        """Look at one directory and put it right; True when it is there (now) and belongs to the tree."""
        observed = _observe(name, parent_fd)
        if observed.is_directory and path and self._is_foreign(path, observed, parent_fd):
            self.failures.append(
                Finding("mount_point", path, Severity.INFO, "another file system is mounted there; it is not kept")
            )
            return False
        present = observed.is_directory
        for drift in drifts(row, path, observed, self.layout):
            self.drifts.append(drift)
            if not self.repairing or not self._may(drift):
                continue
            try:
                self.actions += repair(drift, row, self.layout, parent_fd, self.now, self.fresh)
            except UnsafePath as error:
                self.failures.append(Finding("repair_refused", path, Severity.ERROR, str(error)))
            except OSError as error:
                self.failures.append(
                    Finding("repair_failed", path, Severity.ERROR, f"{drift.kind} not repaired: {error.strerror}")
                )
            else:
                if drift.kind in (DriftKind.MISSING, DriftKind.OBSTRUCTED):
                    self.appeared.append(path)
                    present = True
        return present

    def visit_children(self, row: Directory, fd: int) -> None:
        """Look at the directories that users have made in an open directory."""
        try:
            with readable(".", fd) as open_fd, os.scandir(open_fd) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            self.failures.append(
                Finding("unreadable", row.path, Severity.WARNING, f"its directories can't be listed: {error.strerror}")
            )
            return
        for name in names:
            self.visit_child(row, f"{row.path}/{name}", fd)

    def visit_child(self, row: Directory, path: str, fd: int) -> None:
        """Look at one of them, unless it has a row of its own."""
        if path not in self.layout.by_path:
            self.visit(row, path, path.rpartition("/")[2], fd)

    def _may(self, drift: Drift) -> bool:
        makes = drift.kind in (DriftKind.MISSING, DriftKind.OBSTRUCTED)
        if makes and not self.layout.create:
            detail = f"{drift.found} there, and auto_create_dirs is off"
            self.failures.append(Finding("not_created", drift.path, Severity.WARNING, detail))
            return False
        return self.allow(drift.path)

    def _is_foreign(self, path: str, observed: Observed, parent_fd: int) -> bool:
        return path in self.mounts or observed.device != os.fstat(parent_fd).st_dev

    def result(self) -> Reconciliation:
        return Reconciliation(tuple(self.drifts), tuple(self.actions), tuple(self.failures), tuple(self.appeared))


def reconcile(
    layout: Layout,
    scope: Scope = EVERYTHING,
    *,
    now: float,
    repairing: bool = True,
    fresh: bool = False,
    allow: Callable[[str], bool] = lambda _path: True,
) -> Reconciliation:
    """Compare the part of the tree in `scope` with the layout, and put right what `allow(path)` lets be repaired.

    With `repairing` off nothing is touched (`check`). `fresh` says that the tree is being made at start. `now` is in
    seconds since the epoch. What can't be repaired is among the failures. Raises OSError or UnsafePath when the root
    itself can't be reached.
    """
    one = _Pass(layout, repairing, now, fresh, allow, mounts_below(layout.root) if scope == EVERYTHING else frozenset())
    with ExitStack() as stack:
        root_fd = _root(one, stack)
        fds: dict[str, int] = {} if root_fd is None else {"": root_fd}
        for row in layout.directories[1:]:
            children = _children_in_scope(row, scope)
            if children is None:
                continue
            parent_fd = _parent(layout, row.parent, fds, stack)
            name = row.path.rpartition("/")[2]
            if parent_fd is None:
                if row.required and row.parent not in _foreign(one):
                    one.drifts.append(Drift(DriftKind.MISSING, row.path, "a directory", "nothing"))
                continue
            if not one.visit(row, row.path, name, parent_fd) or not children:
                continue
            with _opened(name, parent_fd) as fd:
                if fd is None:
                    continue
                if children is _ALL:
                    one.visit_children(row, fd)
                else:
                    for path in children:
                        one.visit_child(row, path, fd)
    return one.result()


_ALL: list[str] = ["*"]


def _children_in_scope(row: Directory, scope: Scope) -> list[str] | None:
    """None when the row is out of scope; else which of its open children are in it (`_ALL`, some, or none)."""
    covered = False
    for path, deep in scope.items():
        if path == row.path or not path or row.path.startswith(path + "/"):
            covered = True
            if deep and row.open:
                return _ALL
    some = [path for path in scope if row.open and path.rpartition("/")[0] == row.path]
    if some:
        return some
    return [] if covered else None


def _root(one: _Pass, stack: ExitStack) -> int | None:
    """The root, put right and pinned; None when it isn't there and may not be made."""
    tree = one.layout.tree
    try:
        parent_fd = stack.enter_context(tree.parent())
    except FileNotFoundError:
        if not one.repairing:
            one.drifts += [Drift(DriftKind.MISSING, "", "a directory", "nothing")]
            return None
        tree.make_parents()
        parent_fd = stack.enter_context(tree.parent())
    row = one.layout.directories[0]
    if not one.visit(row, "", tree.name, parent_fd):
        return None
    return stack.enter_context(tree.root())


def _parent(layout: Layout, path: str, fds: dict[str, int], stack: ExitStack) -> int | None:
    """The pinned directory at `path`, which is kept open for the rest of the pass; None when it can't be had."""
    if path in fds or not path:
        return fds.get(path)
    above = _parent(layout, path.rpartition("/")[0], fds, stack)
    if above is None:
        return None
    try:
        fd = stack.enter_context(pinned(path.rpartition("/")[2], above))
    except OSError:
        return None
    if os.fstat(fd).st_dev != os.fstat(above).st_dev:
        return None
    fds[path] = fd
    return fd


def _foreign(one: _Pass) -> set[str]:
    return {finding.path for finding in one.failures if finding.kind == "mount_point"}


@contextmanager
def _opened(name: str, parent_fd: int) -> Iterator[int | None]:
    try:
        with pinned(name, parent_fd) as fd:
            yield fd
    except (FileNotFoundError, NotADirectoryError):
        yield None


def _observe(name: str, parent_fd: int) -> Observed:
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return NOTHING
    what = "a directory" if stat.S_ISDIR(found.st_mode) else describe(found)
    return Observed(what, found.st_mode, found.st_uid, found.st_gid, found.st_dev)
