"""Plans of a migration made from facts alone: files of an old place, files of a tree, and what is said of both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from symbiont_datad.formats.state_name import Role, name_of
from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.content import Content, of_data
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.plan import CONTESTED, plan, questions
from symbiont_datad.migrate.planning import Plan, There
from symbiont_datad.migrate.records import File, Identity, Known, Place
from symbiont_datad.migrate.target import Target
from symbiont_datad.retention.backups import Backup
from tests.migrate.making import HOUR, NOW, agent

A, B = agent(1), agent(2)
OLD = "/project/data/contexts"
TARGET = Target("/tree", Path("/datad"))
PLAIN = Target("/tree", Path("/datad"), gzip=False)
AGENTS = "state/agents"

Files = Mapping[str, tuple[bytes, float]]
"""Files by their path: content and time of the last change, in seconds since the epoch."""


def entry(path: str, content: bytes, at: float, number: int = 1, mode: int = 0o100644) -> Entry:
    """A file as a walk sees it."""
    return Entry(path, mode, len(content), int(at * 1e9), int(at * 1e9), number, 1, 0, 0)


class Tree:
    """A tree of files as a plan asks about it. `made`: those that the migration has left there, and are unchanged.

    `unread`: those that can't be read.
    """

    def __init__(self, files: Files, made: Sequence[str] = (), unread: Sequence[str] = ()) -> None:
        self.entries = {p: entry(p, *one, number) for number, (p, one) in enumerate(files.items(), 1000)}
        self._contents = {path: of_data(content, CONTESTED)[0] for path, (content, _) in files.items()}
        for path in unread:
            del self._contents[path]
        self._made = made

    @property
    def there(self) -> There:
        return There(self.entries.get, self.content, self.made, self.backups, self.below)

    def content(self, path: str) -> Content | None:
        return self._contents.get(path)

    def made(self, path: str) -> Identity | None:
        return Identity.of(self.entries[path]) if path in self._made else None

    def backups(self, agent_id: str) -> list[Backup]:
        found = []
        for path, one in self.entries.items():
            name = name_of(path.removeprefix(f"{AGENTS}/")) if path.startswith(AGENTS) else None
            if name is not None and name.role is Role.BACKUP and name.agent == agent_id:
                found.append(Backup(agent_id, name.seconds, one))
        return found

    def below(self, path: str) -> list[Entry]:
        return [one for one in self.entries.values() if one.path == path or one.path.startswith(f"{path}/")]


def planned(
    source: Files,
    tree: Files = MappingProxyType({}),
    *,
    kind: Kind = Kind.CONTEXTS,
    target: Target = TARGET,
    made: Sequence[str] = (),
    unread: Sequence[str] = (),
    known: Mapping[str, Known] = MappingProxyType({}),
    now: float = NOW,
    trimming: bool = True,
) -> Plan:
    """The plan for files of an old place and of the tree, looked into as far as `questions` asks for."""
    there = Tree(tree, made, unread)
    entries = {path: entry(path, *one, number) for number, (path, one) in enumerate(source.items(), 1)}
    place = Source(OLD, kind)
    asked = questions(place, entries.values(), target, there.there)
    files = [
        File(entries[path], of_data(content, asked.source[path])[0] if path in asked.source else None)
        for path, (content, _) in source.items()
    ]
    return plan(place, files, target, there.there, known, now, trimming=trimming)


def steps(found: Plan) -> dict[str, tuple[str, str, str]]:
    """What is done with each file: the deed, where to, and where what stands there goes."""

    def shown(place: Place | None) -> str:
        return "" if place is None else f"aside:{place.path}" if place.aside else place.path

    return {step.file.path: (step.deed.value, shown(step.to), shown(step.moved)) for step in found.steps}


def at(hours_ago: float) -> float:
    """A time, so many hours before now."""
    return NOW - hours_ago * HOUR


def told(found: Plan) -> list[str]:
    """All that a plan says, a line for each move, step and finding; agents are A and B, and times are hours ago."""
    lines = [f"{move.path} becomes {move.to}: {move.reason}" for move in found.moves]
    for step in found.steps:
        way = "" if step.encoding is Encoding.AS_IS else f" as {step.encoding.name}"
        to, moved = _spelled(step.to), "" if step.moved is None else f", {_spelled(step.moved)} what was there"
        lines.append(f"{step.deed} {step.file.path} -> {to}{way}{moved} [{step.kind}] {step.reason}")
    for one in found.findings:
        lines.append(f"{one.severity} {one.kind} {one.path}: {one.detail} ({one.remedy})")
    return [_short(line) for line in lines]


def _spelled(place: Place) -> str:
    return {True: "aside:", False: ""}[place.aside] + place.path


def _short(line: str) -> str:
    short = {A: "A", B: "B", f"{AGENTS}/": "@/", "vector_db/collections/": "@/", "logs/system/": "@/"}
    for long, name in {**short, **{str(int(at(hours))): f"{hours}h" for hours in range(100)}}.items():
        line = line.replace(long, name)
    return line
