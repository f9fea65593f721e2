"""The plan for what is no state of an agent: logs, vectors, and whatever else lies in a legacy place. Pure."""

import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import count

from symbiont_datad.formats.lance import VERSIONS
from symbiont_datad.formats.rotated import Rotated
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.planning import NS, Move, Planning, ago
from symbiont_datad.migrate.records import File, Place, Step

_VERSION_DIRECTORY = f"/{os.fsdecode(VERSIONS)}/"


def plan_other(planning: Planning, file: File) -> None:
    """Plan for a file that keeps its name."""
    target = planning.target
    folder = target.backups if planning.source.kind is Kind.BACKUPS else target.agents
    place = f"{folder}/{file.entry.path}"
    _keep_both(planning, file, place, "file_migrated", lambda at: f"{place}.backup.{at}")


def plan_log(planning: Planning, file: File) -> None:
    """Plan for a log. The older of two is called like a rotated one."""
    place = f"{planning.target.logs}/{file.entry.path}"
    folder, _, name = place.rpartition("/")

    def older(at: int) -> str:
        names = (f"{folder}/{Rotated(name, at, number).name}" for number in count(1))
        return next(path for path in names if planning.free(path))

    _keep_both(planning, file, place, "log_migrated", older)


def _keep_both(planning: Planning, file: File, place: str, kind: str, older: Callable[[int], str]) -> None:
    """The newer one has the name, the older one what `older` makes of its time (seconds since the epoch)."""
    entry, standing = file.entry, planning.there.entry(place)
    if planning.has(place, file.content):
        planning.same(file, place)
    elif planning.free_for(place, file):
        planning.copy(file, Place(False, place), kind, f"from {planning.source.path}")
    elif standing is not None and entry.mtime_ns > standing.mtime_ns:
        path = planning.first_free(older, standing.mtime_ns // NS)
        reason = f"newer by {ago(entry.mtime_ns, standing.mtime_ns)}; what was there is {path}"
        planning.copy(file, Place(False, place), kind, reason, moved=Place(False, path))
        planning.conflict(file, f"the tree has another file of this name, kept as {path}")
    else:
        path = planning.first_free(older, entry.mtime_ns // NS)
        reason = f"the tree's {place} is no older" if standing is not None else f"another file becomes {place}"
        planning.copy(file, Place(False, path), "conflict_kept", reason)
        planning.conflict(file, f"the tree has another file of this name; this one is {path}")


def plan_vectors(planning: Planning, files: Sequence[File]) -> None:
    """Plan for a directory of vectors. Each entry right below it goes as a whole: datasets are never mixed."""
    by_path = {file.entry.path: file for file in files}
    found = units(file.entry for file in files)
    for unit, entries in found.items():
        _plan_unit(planning, unit, [by_path[entry.path] for entry in entries], found)


def _plan_unit(planning: Planning, unit: str, files: list[File], taken: Container[str]) -> None:
    home = f"{planning.target.collections}/{unit}"
    place, gives_way = home, False
    standing = planning.there.below(home)
    if standing and not all(planning.as_left(entry) for entry in standing):
        if _has_all(planning, files):
            for file in files:
                planning.same(file, f"{planning.target.collections}/{file.entry.path}")
            return
        place = _two_units(planning, unit, files, standing, taken)
        gives_way = place == home
    steps: list[Step] = []
    for file in files:
        path = place + file.entry.path[len(unit) :]
        if not gives_way and planning.has(path, file.content):
            planning.same(file, path)
        else:
            step = planning.step(file, Place(False, path), "vectors_migrated", f"from {planning.source.path}")
            # What stands there has another name by then.
            steps.append(step._replace(standing=None) if gives_way else step)
    # A version's manifest names data, which has to be there by then.
    planning.plan.steps += sorted(steps, key=lambda step: (_VERSION_DIRECTORY in step.file.path, step.file.path))


def _has_all(planning: Planning, files: Iterable[File]) -> bool:
    return all(planning.has(f"{planning.target.collections}/{file.entry.path}", file.content) for file in files)


def _two_units(
    planning: Planning, unit: str, files: Sequence[File], standing: Sequence[Entry], taken: Container[str]
) -> str:
    """The source's and the tree's differ: the newer one gets the name, the older one another, which no unit of the
    source or the tree has. Where to bring it to.
    """
    mine, theirs = max(file.entry.mtime_ns for file in files), max(entry.mtime_ns for entry in standing)
    home = f"{planning.target.collections}/{unit}"
    stem, extension = os.path.splitext(home)
    names = (f"{stem}-{at}{extension}" for at in count(min(mine, theirs) // NS))
    name = next(name for name in names if os.path.basename(name) not in taken and not planning.there.below(name))
    if mine > theirs:
        planning.plan.moves.append(
            Move(home, name, f"the one from {planning.source.path} is newer by {ago(mine, theirs)}")
        )
        planning.conflict(files[0], f"the tree has other vectors named {unit}, kept as {os.path.basename(name)}")
        return home
    told = f"the tree has vectors named {unit} that are no older; these are {os.path.basename(name)}"
    planning.conflict(files[0], told)
    return name


def units(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """What lies in a directory of vectors, by the entry right below it."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.path.partition("/")[0]].append(entry)
    return found
