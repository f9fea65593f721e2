"""Repairing one drift, through the descriptor of the directory that it is in."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from symbiont_datad.fsops.root import Tree, give_away, pinned, refuse_other_mount, set_mode, set_owner
from symbiont_datad.fsops.write import quarantine
from symbiont_datad.guard.drift import wanted_mode
from symbiont_datad.layout import Directory, Layout
from symbiont_datad.report import Action, Drift, DriftKind

_TRIES = 3


def make_directory(parent_fd: int, name: str, row: Directory, layout: Layout) -> bool:
    """Make the directory with the mode and owner of its row; False when there is something by that name already.

    As root, with no owner declared, it belongs to the owner of the directory that it is in: an agent's own directory
    does not come back as root's.

    Raises OSError or UnsafePath; the directory may be there by then, and the next pass puts it right.
    """
    as_root = os.geteuid() == 0
    try:
        os.mkdir(name, 0o700 if as_root else row.mode & 0o777, dir_fd=parent_fd)  # nobody enters until it has its owner
    except FileExistsError:
        return False
    with pinned(name, parent_fd) as fd:
        uid, gid = layout.uid, layout.gid
        if as_root:
            above = os.fstat(parent_fd)
            uid = above.st_uid if uid == -1 else uid
            gid = above.st_gid if gid == -1 else gid
        give_away(fd, uid, gid)
        made = os.fstat(fd)
        wanted = wanted_mode(row, made.st_mode)
        if stat.S_IMODE(made.st_mode) != wanted:
            set_mode(fd, wanted)
    return True


def repair(drift: Drift, row: Directory, layout: Layout, parent_fd: int, now: float, fresh: bool) -> Iterator[Action]:
    """Put one drift right, yielding each thing as it is done; `fresh` says that the tree is being made at start.

    Raises OSError or UnsafePath; what was not done can be tried again, and what was yielded has been done all the same.
    """
    name = drift.path.rpartition("/")[2] or layout.tree.name
    rule = f"layout {row.path or 'root'}"
    if drift.kind is DriftKind.MISSING or drift.kind is DriftKind.OBSTRUCTED:
        yield from _stand_up(drift, name, row, rule, layout, parent_fd, now, fresh)
        return
    with pinned(name, parent_fd) as fd:
        if drift.path:  # the root itself may well be a mount point
            refuse_other_mount(parent_fd, fd, drift.path)
        if drift.kind is DriftKind.OWNER:
            set_owner(fd, layout.uid, layout.gid)
            yield Action("owner_restored", drift.path, rule, f"owner was {drift.found}, declared {drift.expected}")
            return
        set_mode(fd, wanted_mode(row, os.fstat(fd).st_mode))
        yield Action("permissions_restored", drift.path, rule, f"mode was {drift.found}, declared {drift.expected}")


def _stand_up(
    drift: Drift, name: str, row: Directory, rule: str, layout: Layout, parent_fd: int, now: float, fresh: bool
) -> Iterator[Action]:
    for _ in range(_TRIES):
        if make_directory(parent_fd, name, row, layout):
            kind = "directory_created" if fresh else "directory_recreated"
            yield Action(kind, drift.path, rule, f"{drift.found} was there ({row.purpose})")
            return
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):  # somebody else was quicker
                return
            reason = f"{drift.found} stood in the place of a directory ({row.purpose})"
            if drift.path:
                where = quarantine(layout.tree, drift.path, kind="obstruction", reason=reason, now=now)
            else:
                where = _set_root_obstruction_aside(layout.tree, parent_fd, now)
            yield Action("obstruction_quarantined", drift.path, rule, f"{reason}; it is now {where}")
    raise OSError(errno.EBUSY, "something keeps taking the place of the directory", drift.path)


def _set_root_obstruction_aside(tree: Tree, parent_fd: int, now: float) -> str:
    """Rename what stands in the root's own place; there is no quarantine, as that lies in the root."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        aside = f"{tree.name}.obstruction-{stamp}{f'-{number}' if number else ''}"
        try:
            os.stat(aside, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            break
        number += 1
    os.rename(tree.name, aside, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    return os.path.join(os.path.dirname(tree.path), aside)
