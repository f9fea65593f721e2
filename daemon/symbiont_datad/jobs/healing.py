"""Which contexts are healed, and with what: decided here, and done by `heal`. Pure.

The runtime loads an agent's state from one file, `{agent}.json.gz` with compression on and `{agent}.json` with it off.
The state may lie in both, after a change of the mode. So what is decided is decided for an agent, and not for a file.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from symbiont_datad.formats.context import BY_SCHEMA, Damage, Verdict
from symbiont_datad.formats.state_name import context_name
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.state_files import StateFile
from symbiont_datad.retention.backups import Backup, in_time


class Source(StrEnum):
    """Where a good version comes from."""

    ITSELF = "itself"
    """The file has the right content in the wrong form."""
    OTHER_MODE = "other_mode"
    BACKUP = "backup"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Version:
    """A whole version of an agent's state. Times in seconds since the epoch.

    `path`: where it lies, or lay when the `snapshot` (its id) was made. `seen_at`: when it was last in its place.
    `written_at`: when it was last changed, by its own content (0: it doesn't say).
    """

    source: Source
    path: str
    seen_at: float
    written_at: float = 0.0
    snapshot: str = ""

    @property
    def at(self) -> float:
        """The time of the state in it. What its content says can't be later than when it was seen."""
        return min(self.written_at or self.seen_at, self.seen_at)


@dataclass(frozen=True, slots=True)
class Judged:
    """A context, and what was found."""

    file: StateFile
    verdict: Verdict

    @property
    def whole(self) -> bool:
        """Whether its content is good, in whatever form."""
        return self.verdict.good or self.verdict.kind is Damage.OTHER_EXTENSION

    @property
    def written(self) -> tuple[float, int]:
        """What tells which of two whole ones is newer: what they say themselves, and if that is equal, the files."""
        return self.verdict.written_at, self.file.entry.mtime_ns


@dataclass(frozen=True, slots=True)
class Case:
    """One agent whose state is not as the runtime loads it.

    `target`: the path that the runtime loads, in the form that `gzip` and `sealed` say. `there`: what is there now, if
    anything is. `other`: the agent's file in the other mode, which goes to quarantine. `own`: which of the two holds
    the state, whole; without one, a version of the past is looked for.
    """

    agent: str
    target: str
    gzip: bool
    sealed: bool
    there: Judged | None
    other: Judged | None = None
    own: Judged | None = None

    @property
    def subject(self) -> Judged:
        """The file that the case is about: the damaged one, or the one in the other mode."""
        found = self.other if self.there is None or self.there.verdict.good else self.there
        assert found is not None
        return found

    @property
    def broken_at(self) -> float | None:
        """When what the runtime loads was last changed, if that is damaged, in seconds since the epoch."""
        return None if self.there is None or self.there.whole else changed_at(self.there.file.entry)

    @property
    def kept(self) -> bool:
        """Whether what is there is right, and only another file goes."""
        return self.own is not None and self.own is self.there and self.own.verdict.good

    @property
    def searches(self) -> bool:
        """Whether backups and snapshots are looked at. Not where what the runtime loads is whole or does not exist."""
        return self.own is None or (self.there is not None and not self.there.whole)

    def version_of_own(self) -> Version | None:
        """The state that the agent's own files hold, as a version."""
        if self.own is None:
            return None
        source = Source.ITSELF if self.own is self.there else Source.OTHER_MODE
        entry = self.own.file.entry
        return Version(source, entry.path, entry.mtime_ns / 1e9, self.own.verdict.written_at)


def mode_in_force(setting: str, contexts: Iterable[StateFile], backups: Mapping[str, Sequence[Backup]]) -> bool | None:
    """Whether the runtime loads gzip (True) or plain JSON (False); None when that can't be told.

    `setting` is `on`, `off` or `detect`. Detected, it is the mode of most contexts, if the newest context or backup
    is of that mode too: after a change of the mode the old one still has the majority for a while.
    """
    if setting != "detect":
        return setting == "on"
    count, newest = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    for file in contexts:
        if not file.sealed:
            count[file.gzip] += 1
            newest[file.gzip] = max(newest[file.gzip], file.entry.mtime_ns / 1e9)
    for backup in (one for some in backups.values() for one in some):
        name = backup.name
        if not name.sealed:
            newest[name.gzip] = max(newest[name.gzip], made_at(backup))
    most = count[True] > count[False]
    if count[True] == count[False] or newest[most] < newest[not most]:
        return None
    return most


def changed_at(entry: Entry) -> float:
    """When a file was last changed, in seconds since the epoch, as far as nobody can set it."""
    return max(entry.ctime_ns, entry.mtime_ns) / 1e9


def made_at(backup: Backup) -> float:
    """When a backup was made: what its name says, but never later than the file was written.

    Names have whole seconds. Where the file was written in that second, it tells which part of it: a snapshot of the
    same second may be older.
    """
    written = backup.entry.mtime_ns / 1e9
    return written if int(written) == backup.seconds else min(float(backup.seconds), written)


def cases(
    contexts: Collection[StateFile], verdicts: Mapping[str, Verdict], agents: str, gzip: bool | None
) -> list[Case]:
    """The agents whose state is not as the runtime loads it, in the order of their targets.

    `verdicts`, by path, has none for a file that may be half written or could not be judged: its agent waits.
    `agents`: the directory of contexts. `gzip`: the mode in force, None when it is not known.
    """
    by_agent: dict[str, list[StateFile]] = {file.name.agent: [] for file in contexts if _asks(file, verdicts, gzip)}
    for file in contexts if by_agent else ():
        if (its := by_agent.get(file.name.agent)) is not None:
            its.append(file)
    found: list[Case] = []
    for agent, files in by_agent.items():
        judged = [Judged(file, verdicts[file.path]) for file in files if file.path in verdicts]
        if len(judged) < len(files) or any(_unsure(one) for one in judged):
            continue
        open_ones = {one.file.gzip: one for one in judged if not one.file.sealed}
        if gzip is None:
            found += [case for one in open_ones.values() if (case := _alone(agent, one, open_ones))]
        elif open_ones and (one_case := _in_mode(agent, gzip, open_ones, agents)):
            found.append(one_case)
        found += [case for one in judged if one.file.sealed and (case := _alone(agent, one, {}))]
    return sorted(found, key=lambda case: case.target)


def _asks(file: StateFile, verdicts: Mapping[str, Verdict], gzip: bool | None) -> bool:
    """Whether there may be a case because of this file: few, of a million, are damaged or in another mode."""
    verdict = verdicts.get(file.path)
    return (verdict is not None and not verdict.good) or (gzip is not None and not file.sealed and file.gzip != gzip)


def _unsure(one: Judged) -> bool:
    return one.verdict.kind is Damage.TOO_LARGE


def _alone(agent: str, one: Judged, others: Mapping[bool, Judged]) -> Case | None:
    """A damaged file is healed in its own form. One with the wrong extension is not: what it should be is not known."""
    if one.whole:
        return None
    name = one.file.name
    sibling = others.get(not name.gzip)
    own = sibling if sibling is not None and sibling.whole else None
    return Case(agent, one.file.path, name.gzip, name.sealed, one, None, own)


def _in_mode(agent: str, gzip: bool, files: Mapping[bool, Judged], agents: str) -> Case | None:
    """The case of an agent when the mode is known."""
    here, other = files.get(gzip), files.get(not gzip)
    if here is not None and here.verdict.good and other is None:
        return None
    whole = [one for one in (here, other) if one is not None and one.whole]
    own = max(whole, key=lambda one: (*one.written, one is here)) if whole else None
    target = f"{agents}/{context_name(agent, gzip=gzip)}"
    return Case(agent, target, gzip, False, here, other, own)


def choose(case: Case, past: Iterable[Version]) -> Version | None:
    """The newest of the good versions; None when there is none.

    Among those of the past the one that was in its place last wins: a backup is what was there when the runtime saved,
    a snapshot has what was there when it was made. What a version says of itself does not count here: whoever has put
    an older state back by hand wants that one. Only the agent's file in the other mode, of which nobody knows how long
    it has been the agent's state, is compared by what it says. A version that claims to be younger than the damage
    (`in_time`) is taken only where there is no other.
    """
    newest = max(past, key=lambda one: (_in_time(one, case), one.seen_at, one.source, one.path), default=None)
    own = case.version_of_own()
    if own is None or newest is None:
        return own or newest
    return own if own.at >= newest.at else newest


def _in_time(version: Version, case: Case) -> bool:
    """In the other mode it may be younger than the damage."""
    same = version.source is not Source.SNAPSHOT or version.path == case.target
    return not same or in_time(version.seen_at, case.broken_at)


def ways_of_another_version(
    damaged: Iterable[Judged], resembling: Collection[str], newest_backups: Mapping[str, Verdict]
) -> set[str]:
    """The paths of files that are probably as another version of the runtime writes them: no damage, so not healed.

    They are JSON and have most of a context's fields (`resembling`: their paths), and the very same is amiss in
    another one, or in the agent's newest backup (`newest_backups`: verdicts on those, by agent).
    """
    like_contexts = [one for one in damaged if one.verdict.kind in BY_SCHEMA and one.file.path in resembling]
    complaints = Counter(one.verdict.detail for one in like_contexts)
    found = set()
    for one in like_contexts:
        backup = newest_backups.get(one.file.name.agent)
        same_before = backup is not None and backup.kind in BY_SCHEMA and backup.detail == one.verdict.detail
        if complaints[one.verdict.detail] > 1 or same_before:
            found.add(one.file.path)
    return found
