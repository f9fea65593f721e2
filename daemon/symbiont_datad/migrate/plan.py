"""The plan of a migration: where each file of a legacy place goes, and why. Pure.

What the plan has to know of the tree it asks for (`There`): what stands at a path, and what is in it where a file of
the source would come to the same place. `questions` says beforehand which files have to be looked into for that.

What would not load goes to quarantine. Nothing that is called like a key, or holds one, ever moves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from symbiont_datad.formats.state_name import Role, StateName
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.content import Question
from symbiont_datad.migrate.legacy import Kind, Source, is_secret_name
from symbiont_datad.migrate.plan_files import plan_log, plan_vectors, units
from symbiont_datad.migrate.plan_state import plan_state
from symbiont_datad.migrate.planning import NS, Plan, Planning, There, named
from symbiont_datad.migrate.records import File, Known, Step
from symbiont_datad.migrate.target import Target

_SMALL = 64 << 10  # what is larger holds no private key

CONTESTED = Question(judged=True, fields=True, compared=True)
"""All that can be asked about a file; what is asked about one in whose way another stands."""

JSON = Question(judged=True, compared=True)
"""The same about what need not be a context."""

_CONTEXT = Question(judged=True, fields=True)
_KEY = Question(judged=False)
_BYTES = Question(judged=False, compared=True)


@dataclass(frozen=True, slots=True)
class Questions:
    """Which files have to be looked into before a plan can be made: of the source, and of the tree."""

    source: Mapping[str, Question]
    tree: Mapping[str, Question]


def questions(source: Source, entries: Iterable[Entry], target: Target, there: There) -> Questions:
    """Which files have to be looked into, and for what."""
    if source.kind is Kind.VECTORS:
        return _about_vectors(entries, target, there)
    ours: dict[str, Question] = {}
    theirs: dict[str, Question] = {}
    first_of: dict[str, str] = {}
    for entry in entries:
        path = entry.path
        if not entry.is_file or is_secret_name(path):
            continue
        name = named(path) if source.kind is not Kind.LOGS else None
        place = _home(source, target, path, name)
        standing = there.entry(place) is not None
        if name is None or name.role is Role.LEFTOVER:
            if standing:
                ours[path] = _BYTES
            elif entry.size <= _SMALL:
                ours[path] = _KEY
        elif name.role is Role.CONTEXT:
            first = first_of.setdefault(name.agent, path)
            ours[path] = _CONTEXT
            if standing or first != path or source.kind is Kind.BACKUPS:
                ours[path] = ours[first] = CONTESTED
        else:
            ours[path] = Question(True, name.role is Role.BACKUP, standing)
        if standing:
            theirs[place] = CONTESTED
    return Questions(ours, theirs)


def _about_vectors(entries: Iterable[Entry], target: Target, there: There) -> Questions:
    """Only what the tree has under the same name is looked into: they may be large."""
    ours: dict[str, Question] = {}
    theirs: dict[str, Question] = {}
    for unit, group in units(entries).items():
        standing = there.below(f"{target.collections}/{unit}")
        if standing:
            ours |= {entry.path: _BYTES for entry in group if entry.is_file and not is_secret_name(entry.path)}
            theirs |= {entry.path: _BYTES for entry in standing if entry.is_file}
    return Questions(ours, theirs)


def _home(source: Source, target: Target, path: str, name: StateName | None) -> str:
    """Where in the tree a file belongs if nothing is in its way."""
    if name is not None and name.role is Role.CONTEXT:
        return f"{target.agents}/{name.agent}{target.extension}"
    if source.kind is Kind.LOGS:
        return f"{target.logs}/{path}"
    if source.kind is Kind.BACKUPS and name is None:
        return f"{target.backups}/{path}"
    return f"{target.agents}/{path}"


def plan(
    source: Source,
    files: Sequence[File],
    target: Target,
    there: There,
    known: Mapping[str, Known],
    now: float,
    *,
    trimming: bool = True,
) -> Plan:
    """What is to be done about these files, in whatever order they come; `now` in seconds since the epoch.

    `known`: what was done with them, or with others of the source, before. With `trimming`, of the backups that come
    no more go live than `backup_count` leaves room for; the others are set aside.
    """
    planning = Planning(source, target, there, known, int(now * NS), trimming)
    usable = [file for file in sorted(files, key=lambda file: file.entry.path) if not planning.leaves(file)]
    if source.kind is Kind.VECTORS:
        plan_vectors(planning, usable)
    elif source.kind is Kind.LOGS:
        for file in usable:
            plan_log(planning, file)
    else:
        plan_state(planning, usable)
    return planning.plan


def counted(steps: Iterable[Step]) -> Iterator[tuple[str, int, int]]:
    """How many steps there are of each kind of action, and how many bytes they write."""
    found: dict[str, tuple[int, int]] = {}
    for step in steps:
        files, size = found.get(step.kind, (0, 0))
        found[step.kind] = files + 1, size + step.size
    for kind, (files, size) in found.items():
        yield kind, files, size
