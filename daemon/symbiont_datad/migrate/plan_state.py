"""The plan for contexts, their backups and archives. Pure.

Contexts come to the mode in force, because the runtime would not see them otherwise. Where source and tree have an
agent with different content both stay: the newer one live, the older one as a backup with its own time.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple

from symbiont_datad.formats.context import BY_SCHEMA
from symbiont_datad.formats.state_name import Role, StateName
from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.content import Content
from symbiont_datad.migrate.legacy import UUID, Kind
from symbiont_datad.migrate.plan_files import plan_other
from symbiont_datad.migrate.planning import NS, SOUND, Planning, ago, named, words
from symbiont_datad.migrate.records import Deed, File, Place, Step
from symbiont_datad.report import Severity
from symbiont_datad.retention.backups import Backup, rotate

_CONVERTED = {
    Encoding.GZIP: "stored as gzip now, because compression is on",
    Encoding.PLAIN: "stored as plain JSON now, because compression is off",
}


class _Version(NamedTuple):
    """A context of an agent, in the source. `time_ns`: of its last change."""

    file: File
    content: Content
    time_ns: int


def plan_state(planning: Planning, files: Iterable[File]) -> None:
    """Plan for a directory of contexts, or of backups; `files` in the order of their paths."""
    state = _State(planning)
    agents: dict[str, list[File]] = defaultdict(list)
    backups: list[tuple[File, StateName]] = []
    for file in files:
        name = named(file.entry.path)
        if name is None or _is_no_context(file, name):
            plan_other(planning, file)
        elif name.role is Role.LEFTOVER:
            detail = f"a temporary file of {file.entry.size} bytes, left when a write was cut off"
            planning.set_aside(file, "leftover", detail, Severity.INFO)
        elif name.role is Role.ARCHIVE:
            state.archive(file, name)
        elif name.role is Role.BACKUP:
            backups.append((file, name))
        else:
            agents[name.agent].append(file)
    for agent, found in agents.items():
        state.agent(agent, found)
    for file, name in backups:
        state.backup(file, name)
    state.trim()
    state.tell_of_doubtful()
    planning.plan.steps.sort(key=lambda step: step.file.path)


def _is_no_context(file: File, name: StateName) -> bool:
    """Whether JSON that is no agent's, by its name, is something else by its content."""
    content = file.content
    return (
        name.role is Role.CONTEXT
        and content is not None
        and content.damage in BY_SCHEMA
        and not UUID.fullmatch(name.agent)
    )


class _State:
    """What is decided about agents. `_coming`: backups that would come. `_whole`: agents whose context will load.

    `_doubtful`: contexts that come, though not every version of the runtime would load them.
    """

    def __init__(self, planning: Planning) -> None:
        self._planning = planning
        self._target, self._there = planning.target, planning.there
        self._coming: dict[str, list[tuple[Backup, Step]]] = defaultdict(list)
        self._whole: set[str] = set()
        self._doubtful: list[File] = []

    # Contexts

    def agent(self, agent: str, files: list[File]) -> None:
        """Plan for all contexts of an agent that the source has: one in each mode, at most."""
        place = self._place(agent)
        if len(files) == 1 and self._planning.source.kind is Kind.CONTEXTS and self._there.entry(place) is None:
            (file,) = files
            content = file.content
            if content is not None and content.damage in SOUND:  # which is most of them
                self._live(agent, _Version(file, content, 0), place, None, "")
                return
        versions = self._sound(files)
        if self._planning.source.kind is Kind.BACKUPS:
            for version in versions:
                self._older(agent, version, f"a copy in {self._planning.source.path}")
            return
        live = self._there.entry(place)
        inside = self._there.content(place) if live is not None else None
        if live is not None and self._is_earlier_copy(place, live, versions):
            if inside is None or inside.text != versions[0].content.text:
                self._bring(agent, versions, place)
            else:
                self._meet(agent, place, live, inside, versions)
                self._whole.add(agent)
        elif live is None:
            self._bring(agent, versions, place)
        elif inside is None:
            for version in versions:
                self._older(agent, version, f"{place} can't be read, so it stays")
        elif inside.damage in SOUND:
            self._meet(agent, place, live, inside, versions)
            self._whole.add(agent)
        else:
            moved, why = self._planning.tree_aside(place), f"{place} was damaged ({words(inside.damage)})"
            self._bring(agent, versions, place, moved, why)

    def _sound(self, files: list[File]) -> list[_Version]:
        """The versions of a context that would load, the newest first, each content once; others are set aside."""
        found = []
        for file in files:
            content = file.content
            assert content is not None
            if content.damage in SOUND:
                found.append(_Version(file, content, content.updated_ns or file.entry.mtime_ns))
            else:
                self._planning.damaged(file, content)
        found.sort(key=lambda one: (-one.time_ns, one.content.gzip is not self._target.gzip, one.file.entry.path))
        versions: dict[bytes, _Version] = {}
        for version in found:
            first = versions.setdefault(version.content.text, version)
            if first is not version:
                self._planning.same(version.file, "", f"the same as {first.file.entry.path}")
        return list(versions.values())

    def _is_earlier_copy(self, place: str, live: Entry, versions: Sequence[_Version]) -> bool:
        """Whether what is live came from one of these files, and nobody has changed it since."""
        known = (self._planning.known.get(version.file.entry.path) for version in versions)
        return any(one is not None and one.is_in_step(place, live) for one in known)

    def _bring(
        self, agent: str, versions: Sequence[_Version], place: str, moved: Place | None = None, why: str = ""
    ) -> None:
        """The newest version becomes live, the others backups."""
        for number, version in enumerate(versions):
            if number:
                self._older(agent, version, "older than the other one of this agent")
            else:
                self._live(agent, version, place, moved, why)

    def _meet(self, agent: str, place: str, live: Entry, inside: Content, versions: Sequence[_Version]) -> None:
        """The tree has the agent already, and whole."""
        live_ns = inside.updated_ns or live.mtime_ns
        if inside.gzip is not self._target.gzip:
            self._replace(agent, place, live_ns, inside, versions)
            return
        others = []
        for version in versions:
            if version.content.text == inside.text:
                self._planning.same(version.file, place)
                live_ns = max(live_ns, version.time_ns)  # the old place may have got it later
            else:
                others.append(version)
        brought = others[0] if others and others[0].time_ns > live_ns else None
        if brought is not None:
            path = self._free_backup(agent, live_ns // NS, inside.gzip)
            why = f"newer by {ago(brought.time_ns, live_ns)}; what was live is {path}"
            self._live(agent, brought, place, Place(False, path), why)
            self._planning.conflict(brought.file, f"the tree has another context of this agent, kept as {path}")
        for version in others:
            if version is brought:
                continue
            why = f"the tree's is newer by {ago(live_ns, version.time_ns)}"
            if brought is not None:
                why = "older than the other one of this agent"
            elif version.time_ns == live_ns:
                why = "as old as the tree's, which stays"
            step = self._older(agent, version, why)
            if step is not None:
                told = f"the tree has another context of this agent; this one is {step.to.path}"
                self._planning.conflict(version.file, told)

    def _replace(self, agent: str, place: str, live_ns: int, inside: Content, versions: Sequence[_Version]) -> None:
        """What is live in the tree is whole, but in the other mode, so that it would not load: it gives way."""
        twin = next((version for version in versions if version.content.text == inside.text), None)
        ordered = sorted(versions, key=lambda one: -max(one.time_ns, live_ns if one is twin else 0))
        if not ordered:
            return
        newest, *others = ordered
        why = f"{place} was in the other mode"
        if newest is twin:
            self._live(agent, newest, place, self._planning.tree_aside(place), why)
        else:
            path = self._free_backup(agent, live_ns // NS, inside.gzip)
            newer = f", and newer by {ago(live_ns, newest.time_ns)}" if live_ns > newest.time_ns else ""
            self._live(agent, newest, place, Place(False, path), f"{why}{newer}; it is {path} now")
            self._planning.conflict(newest.file, f"the tree has another context of this agent, kept as {path}")
        for version in others:
            if version is twin:
                self._planning.same(version.file, "", f"the same as what was {place}")
            else:
                self._older(agent, version, "older than what is live now")

    def _live(self, agent: str, version: _Version, place: str, moved: Place | None, why: str) -> None:
        planning, content = self._planning, version.content
        encoding = Encoding.AS_IS
        if content.gzip is not self._target.gzip:
            encoding = Encoding.GZIP if self._target.gzip else Encoding.PLAIN
            if not content.exact:
                reason = "something follows the gzip data, which is not in the converted context"
                planning.copy(version.file, planning.aside(version.file), "context_set_aside", reason)
        kind = "context_migrated" if encoding is Encoding.AS_IS else "context_converted"
        reasons = [_CONVERTED.get(encoding, ""), why]
        reason = "; ".join(filter(None, reasons)) or f"from {planning.source.path}"
        planning.copy(version.file, Place(False, place), kind, reason, moved=moved, encoding=encoding)
        self._whole.add(agent)
        if content.detail and content.damage in SOUND:
            self._doubtful.append(version.file)

    def tell_of_doubtful(self) -> None:
        """One finding for them all: there may be as many as there are contexts."""
        if self._doubtful:
            self._planning.doubtful(self._doubtful)

    def _place(self, agent: str) -> str:
        return f"{self._target.agents}/{agent}{self._target.extension}"

    # Backups

    def _older(self, agent: str, version: _Version, why: str) -> Step | None:
        """A context that becomes a backup with its own time; None when the tree has that backup already."""
        first = max(version.time_ns // NS, 0)
        for seconds in count(first):
            path = self._backup_path(agent, version.content.gzip, seconds)
            if self._planning.has(path, version.content):
                self._planning.same(version.file, path)
                return None
            if self._planning.free(path):
                return self._come(agent, seconds, version.file, path, "conflict_kept", why)
        raise AssertionError("count() has no end")

    def backup(self, file: File, name: StateName) -> None:
        """Plan for a backup. It keeps its name, unless the tree has another one of that."""
        planning, content = self._planning, file.content
        assert content is not None
        if content.damage not in SOUND:
            planning.damaged(file, content)
            return
        path = f"{self._target.agents}/{os.path.basename(file.entry.path)}"
        if planning.has(path, content):
            planning.same(file, path)
            return
        if not planning.free_for(path, file):
            path = self._free_backup(name.agent, name.seconds, content.gzip)
        self._come(name.agent, name.seconds, file, path, "backup_migrated", f"from {planning.source.path}")

    def _come(self, agent: str, seconds: int, file: File, path: str, kind: str, reason: str) -> Step:
        """A backup that comes, unless there are too many: `trim` decides."""
        step = self._planning.step(file, Place(False, path), kind, reason)
        self._planning.claim(path)
        self._coming[agent].append((Backup(agent, seconds, file.entry._replace(path=path)), step))
        return step

    def trim(self) -> None:
        """Decide which backups go live: with those that are there no more than `backup_count` for each agent."""
        for agent, coming in self._coming.items():
            steps = {backup.entry.path: step for backup, step in coming}
            surplus = self._surplus(agent, [backup for backup, _ in coming]) if self._planning.trimming else {}
            for path, step in steps.items():
                if path in surplus and step.deed is Deed.BRING:
                    to = self._planning.aside(File(step.file))
                    step = step._replace(deed=Deed.SET_ASIDE, to=to, kind="surplus_set_aside", reason=surplus[path])
                self._planning.plan.steps.append(step)

    def _surplus(self, agent: str, coming: Sequence[Backup]) -> dict[str, str]:
        mine = {backup.entry.path for backup in coming}
        standing = [backup for backup in self._there.backups(agent) if backup.entry.path not in mine]
        whole = agent in self._whole or self._loads(agent)
        sound = partial(self._is_sound, mine)
        rotations = rotate([*standing, *coming], self._target.backup_count, context_parses=whole, parses=sound)
        return {one.backup.entry.path: one.reason for one in rotations}

    def _is_sound(self, mine: set[str], backup: Backup) -> bool:
        """Whether a backup is one of those that come, now or in a run before; others are not looked into."""
        path = backup.entry.path
        came = self._planning.known.get(os.path.basename(path))
        return path in mine or (came is not None and came.is_in_step(path, backup.entry))

    def _loads(self, agent: str) -> bool:
        place = self._place(agent)
        content = self._there.content(place) if self._there.entry(place) is not None else None
        return content is not None and content.damage in SOUND

    def _free_backup(self, agent: str, seconds: int, gzip: bool) -> str:
        return self._planning.first_free(partial(self._backup_path, agent, gzip), seconds)

    def _backup_path(self, agent: str, gzip: bool, seconds: int) -> str:
        """What the runtime calls a backup of that time, in the mode in which the content is."""
        return f"{self._target.agents}/{agent}{'.json' if gzip else ''}.backup.{seconds}.json"

    # Archives

    def archive(self, file: File, name: StateName) -> None:
        """Plan for an archive. Where the tree has another one of that second, it gets the next."""
        planning, content = self._planning, file.content
        assert content is not None
        if content.damage not in SOUND:
            planning.damaged(file, content)
            return
        path, reason = f"{self._target.agents}/{file.entry.path}", f"from {planning.source.path}"
        if planning.has(path, content):
            planning.same(file, path)
            return
        if not planning.free_for(path, file):
            folder = path.rpartition("/")[0]
            path = planning.first_free(lambda at: f"{folder}/archive_{at}.json", name.seconds)
            reason = "the tree has another archive of that second"
        planning.copy(file, Place(False, path), "archive_migrated", reason)
