"""Restoring in place: staged, verified by reading back, swapped; what was live is then in quarantine, whole.

What is swapped is a unit: each path that the user named, or, without any, each directory of the layout. What is above
the units is never swapped, so the tree always has its shape. Nothing is swapped before all is staged and verified.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from symbiont_datad.errors import DatadError
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.swap import Stage, put_in_place, staging
from symbiont_datad.jobs.context import Progress
from symbiont_datad.jobs.restore import Wanted
from symbiont_datad.layout import Layout
from symbiont_datad.report import printable
from symbiont_datad.restic import restorer
from symbiont_datad.restic.compare import Comparer
from symbiont_datad.restic.find import Finder, walk
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.restorer import Counts, Restorer, Select
from symbiont_datad.restic.tree import Node, encode_tree

_EMPTY = sha256(encode_tree(())).hexdigest()
_KIND = "restored"


@dataclass(frozen=True, slots=True)
class Unit:
    """One entry that is swapped as a whole: its path relative to the data directory, and its node."""

    path: str
    node: Node


@dataclass(frozen=True, slots=True)
class Swapped:
    """A unit that is in its place. `quarantined`: where in the root what was there lies now; None: nothing was."""

    path: str
    quarantined: str | None


def units(repository: Repository, wanted: Wanted, layout: Layout) -> list[Unit]:
    """What is to be swapped. Raises RepositoryError.

    Without paths: what the snapshot has in the root and in the directories that the layout divides (the categories).
    What it has only as an empty directory is left out: a backup has caches like that, and there is nothing to get back.
    Where a directory above a path is missing in the tree, the unit is the uppermost that is, with the path alone in it.
    """
    if not wanted.paths:
        divided = {os.fsencode(row.parent) for row in layout.directories if row.required and row.parent}
        found = walk(repository, wanted.tree, enter=lambda path, _: path in divided)
        names = [os.fsdecode(path) for path, node in found if path not in divided and node.subtree != _EMPTY]
    else:
        names = [path for path in wanted.paths if not any(path.startswith(f"{other}/") for other in wanted.paths)]
    paths = {_uppermost_missing(layout.tree, path) for path in names}
    finder = Finder(repository)
    nodes = ((path, finder.find(wanted.snapshot, os.fsencode(f"{wanted.root}/{path}"))) for path in sorted(paths))
    return [Unit(path, node) for path, node in nodes if node is not None]


def _uppermost_missing(tree: Tree, path: str) -> str:
    parts = path.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        try:
            with tree.directory(above):
                pass
        except FileNotFoundError:
            return above
    return path


def restore_in_place(
    repository: Repository,
    wanted: Wanted,
    layout: Layout,
    progress: Progress,
    now: float,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Counts, list[Swapped]]:
    """Stage, verify, swap. `now` in seconds since the epoch.

    Raises DatadError, OSError, UnsafePath or RepositoryError. Before the first swap nothing has changed then; after it,
    the message says what is in place.
    """
    select = wanted.select()
    counts = Counts()
    progress.begin("restore")
    with ExitStack() as stages:
        staged: list[tuple[Unit, Stage]] = []
        for unit in units(repository, wanted, layout):
            stage = stages.enter_context(staging(layout.tree, unit.path, now))
            staged.append((unit, stage))
            _stage(repository, unit, stage, select, counts, progress, stopping)
        progress.begin("read back", len(staged))
        for unit, stage in staged:
            progress.current = unit.path
            _verify(repository, unit, stage, select, stopping)
            progress.files += 1
        progress.begin("swap", len(staged))
        return counts, _swap(staged, wanted, progress, now)


def _stage(
    repository: Repository,
    unit: Unit,
    stage: Stage,
    select: Select | None,
    counts: Counts,
    progress: Progress,
    stopping: Callable[[], bool],
) -> None:
    # The restorer counts into the job's own progress, which has the same attributes as its own.
    shown = cast(restorer.Progress, progress)
    one = Restorer(repository, stage.fd, restorer.Options(stopping=stopping), shown)
    restored = one.restore_node(unit.node, select=_within(unit, select))
    if restored.failed:
        folder = os.path.dirname(unit.path)
        lines = [
            f"{printable(os.path.join(folder, os.fsdecode(path)))}: can't be restored: {printable(reason)}"
            for path, reason in restored.failed
        ]
        raise DatadError("\n".join([*lines, "nothing was changed; --target restores what is whole"]))
    for name in Counts.__slots__:
        setattr(counts, name, getattr(counts, name) + getattr(restored.counts, name))


def _within(unit: Unit, select: Select | None) -> Select | None:
    """The selection, for paths relative to the directory that the unit is in."""
    folder = os.fsencode(os.path.dirname(unit.path))
    if select is None or not folder:
        return select
    return lambda path, node: select(folder + b"/" + path, node)


def _verify(
    repository: Repository, unit: Unit, stage: Stage, select: Select | None, stopping: Callable[[], bool]
) -> None:
    """Read back what was staged and compare it with the snapshot. Raises DatadError when it differs."""
    comparer = Comparer(repository, select=_within(unit, select), stopping=stopping)
    found = comparer.compare_node(unit.node, stage.fd)
    if found:
        folder = os.path.dirname(unit.path)
        lines = [f"{printable(os.path.join(folder, os.fsdecode(path)))}: {reason}" for path, reason in found]
        raise DatadError("\n".join([*lines, "what was restored is not what the snapshot says; nothing was changed"]))


# Swapping


def _swap(staged: list[tuple[Unit, Stage]], wanted: Wanted, progress: Progress, now: float) -> list[Swapped]:
    done: list[Swapped] = []
    for unit, stage in staged:
        progress.current = unit.path
        reason = f"{printable(unit.path)} was restored from snapshot {wanted.id[:8]}"
        try:
            done.append(Swapped(unit.path, put_in_place(stage, kind=_KIND, reason=reason, now=now)))
        except OSError as error:
            raise DatadError(_half_way(unit, stage, done, error)) from None
        progress.files += 1
    return done


def _half_way(unit: Unit, stage: Stage, done: list[Swapped], error: OSError) -> str:
    """What a swap that failed leaves."""
    why = error.strerror or str(error)
    path = printable(unit.path)
    lines = [f"{printable(one.path)}: is restored; what was there is {one.quarantined or 'nothing'}" for one in done]
    if stage.swapped:
        lines.append(f"{path}: is restored; what was there is {printable(stage.place)} ({why})")
    else:
        lines.append(f"{path}: can't be put in place: {why}; it is as it was, and so are those after it")
    return "\n".join(lines)
