"""Healing: an agent's last good state is put where the runtime loads it, and what was there goes to quarantine, whole.

Which agents, and with what, `healing` decides, and `past` looks for the versions. Here the plan is made, and carried
out: staged, put in place only if nothing has changed since it was judged, and taken back if something changed in that
very moment.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from symbiont_datad.errors import DatadError, Interrupted, Locked, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.context import BY_SCHEMA, Damage, Document, Verdict, resembles_context
from symbiont_datad.fsops.agent_lock import hold_agent
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.fsops.swap import put_in_place, stage_file, staging
from symbiont_datad.fsops.walk import Entry, look
from symbiont_datad.fsops.write import ITEM, Changed, quarantine
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.healing import (
    Case,
    Judged,
    Source,
    Version,
    cases,
    choose,
    mode_in_force,
    ways_of_another_version,
)  # fmt: skip
from symbiont_datad.jobs.judging import Judges
from symbiont_datad.jobs.past import Past
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.state_files import StateFile, StateFiles, is_stranger
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.quantities import DAY, format_duration
from symbiont_datad.report import HEALING, Action, Finding, Severity, printable
from symbiont_datad.retention.backups import newest_first

RULE = "state.heal"
RESTORED, CONVERTED, QUARANTINED = HEALING

_MEMORY = "the runtime serves contexts from memory until its next start"
_LATELY_S = 30 * DAY
_KEPT = "move it back if you need it"
_RESTART = "restart the runtime so that it loads this"


@dataclass(slots=True)
class Healed:
    """What came of it.

    `settled`: the paths of files of which nothing more is to be told, for they were healed or moved. `advice`, by path:
    why a damaged file was left as it is, and what to do. `interrupted`: it was asked to stop.
    """

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    advice: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done for one agent: `version` is put at the case's target; without one a file is moved aside, no more."""

    case: Case
    version: Version | None
    actions: tuple[Action, ...]


def heal(context: JobContext, judges: Judges, files: StateFiles, verdicts: Mapping[str, Verdict]) -> Healed:
    """Heal what can be healed of the contexts; `verdicts`, by path, are those on files that hold still.

    A dry run hands the plan up, as actions. Raises nothing of its own.
    """
    return _Healing(context, judges, files).run(verdicts)


class _Healing:
    def __init__(self, context: JobContext, judges: Judges, files: StateFiles) -> None:
        self._context = context
        self._judges = judges
        self._files = files
        self._past = Past(context, judges, files)
        self._book = Book(context)
        self._healed = Healed()

    def run(self, verdicts: Mapping[str, Verdict]) -> Healed:
        contexts, backups = self._files.contexts, self._files.backups
        if _all_well(contexts, verdicts, self._context.settings.state.compression):
            return self._healed
        mode = mode_in_force(self._context.settings.state.compression, contexts, backups)
        sure = {
            file.path: verdict
            for file in contexts
            if (verdict := verdicts.get(file.path)) is not None and not is_stranger(file, verdict)
        }
        found = cases(contexts, sure, self._context.layout.agents, mode)
        found = [case for case in found if self._may_be_healed(case)]
        found = self._without_ways_of_another_version(found)
        try:
            past = self._past.search(found)
            plan = [one for case in found if (one := self._treatment(case, past.get(case.target, ())))]
            for one in plan:
                if self._context.stopping():
                    self._healed.interrupted = True
                    break
                self._treat(one)
        except Interrupted:
            self._healed.interrupted = True
        return self._healed

    # Which

    def _may_be_healed(self, case: Case) -> bool:
        """Whether it is sure enough, and possible."""
        subject = case.subject.file
        if any(self._judges.in_flux(one.file.entry) for one in (case.there, case.other) if one is not None):
            return False  # it is being written; the next sweep looks again
        if subject.entry.mtime_ns / 1e9 > self._context.now and not self._judges.was_known(subject.entry):
            return False  # by a clock ahead of ours it may be being written elsewhere: it has to hold still for a sweep
        if os.geteuid() not in (0, subject.entry.uid):
            self._advise(case, f"it belongs to uid {subject.entry.uid}: let the daemon run as that user or as root")
            return False
        if case.sealed and self._judges.opener() is None:
            self._advise(case, "only with its key can a good version be told: set encryption.key_file")
            return False
        return True

    def _without_ways_of_another_version(self, found: list[Case]) -> list[Case]:
        suspects = [case for case in found if case.subject.verdict.kind in BY_SCHEMA]
        if not suspects:
            return found
        resembling, before = set(), {}
        for case in suspects:
            content = self._judges.content(case.subject.file.entry)
            if content is not None and resembles_context(content):
                resembling.add(case.subject.file.path)
            for backup in newest_first(self._files.backups.get(case.agent, ()))[:1]:
                if (verdict := self._judges.of_backup(backup)) is not None:
                    before[case.agent] = verdict
        others = ways_of_another_version([case.subject for case in suspects], resembling, before)
        others |= {case.subject.file.path for case in suspects if self._was_healed_of_the_same(case)}
        for case in suspects:
            if case.subject.file.path in others:
                self._advise(
                    case,
                    "it is left alone, because another one, its backup, or an earlier one that was healed has the very "
                    "same: another version of the runtime may write them so; if the runtime does not start, `versions` "
                    "and `restore --in-place` put an older one back",
                )
        return [case for case in found if case.subject.file.path not in others]

    def _was_healed_of_the_same(self, case: Case) -> bool:
        """Whether the very same was put right before: whoever makes it again means it."""
        since = self._context.now - _LATELY_S
        try:
            rows = self._context.ledger.actions(since=since, path=case.target, kinds=(RESTORED,))
        except LedgerError:
            return False
        return any(printable(_damage(case.subject)) in row.reason for row in rows)

    def _advise(self, case: Case, text: str) -> None:
        self._healed.advice[case.subject.file.path] = text

    # What

    def _treatment(self, case: Case, past: Sequence[Version]) -> Treatment | None:
        """What is done about a case; None: nothing can be."""
        if case.kept:
            assert case.other is not None
            return Treatment(case, None, (self._aside(case, case.other),))
        version = choose(case, past)
        if version is None:
            return self._lost(case)
        there = case.there
        broken = case.subject if not case.subject.whole else None
        aside = (self._aside(case, case.other),) if case.other is not None else ()
        if broken is None:
            wanted = "gzip" if case.gzip else "plain JSON"
            why = f"the runtime loads {wanted} from here; written anew from {_words(version)}"
            kind = CONVERTED
        else:
            age = format_duration(max(self._context.now - version.at, 0.0))
            why = f"{_damage(broken)}; put back as it was at {_moment(version.at)} ({age} ago), from {_words(version)}"
            kind = RESTORED
        if self._past.away and version.source is not Source.SNAPSHOT and case.searches:
            why += f"; the snapshots could not be looked at ({self._past.away})"
        size = case.own.file.entry.size if case.own is not None else there.file.entry.size if there is not None else 0
        return Treatment(case, version, (Action(kind, case.target, RULE, f"{why}; {_MEMORY}", size), *aside))

    def _aside(self, case: Case, one: Judged) -> Action:
        if one.whole:
            why = f"the agent's state is in {_name(case.target)}, which the runtime loads; this one it does not load"
        else:
            why = f"{_damage(one)}; the agent's state is in {_name(case.target)}"
        return Action(QUARANTINED, one.file.path, RULE, why, one.file.entry.size)

    def _lost(self, case: Case) -> Treatment | None:
        """No good version was found."""
        backups = len(self._files.backups.get(case.agent, ()))
        have = f"none of its {backups} backups is whole" if backups else "it has no backup"
        snapshots = f"the snapshots could not be looked at ({self._past.away})" if self._past.away else ""
        why = f"{have}, and {snapshots or 'no snapshot has a whole version'}"
        loaded = case.there is not None
        if loaded and self._context.settings.state.quarantine_lost and not self._past.away:
            one = case.subject
            action = Action(QUARANTINED, one.file.path, RULE, f"{_damage(one)}; {why}; {_MEMORY}", one.file.entry.size)
            return Treatment(case, None, (action,))
        start = "the runtime won't start with it; " if loaded else ""
        self._advise(case, f"{start}{why}; move it away to start without this agent's context" if loaded else why)
        return None

    # Doing it

    def _treat(self, one: Treatment) -> None:
        case = one.case
        if self._context.dry_run:
            self._healed.actions += one.actions
            self._advise(case, "the next sweep heals it")
            return
        try:
            with (
                self._context.layout.tree.directory(self._context.layout.path_of(Category.STATE)) as state_fd,
                hold_agent(state_fd, case.agent, patience_s=0),
            ):
                self._carry_out(one)
        except (Locked, Changed):
            return  # somebody is saving it this very moment, so it is whole soon; if not, the next sweep sees
        except (OSError, UnsafePath, DatadError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._advise(case, f"it could not be healed: {reason}")

    def _carry_out(self, one: Treatment) -> None:
        actions = list(one.actions)
        if one.version is not None:
            self._put(one.case, one.version, actions.pop(0))
        for action in actions:
            entry = next(
                judged.file.entry
                for judged in (one.case.other, one.case.there)
                if judged is not None and judged.file.path == action.path
            )
            place = self._move_aside(entry, action)
            if one.version is None:  # else what was put there tells of it
                severity = Severity.INFO if one.case.kept else Severity.WARNING
                detail = f"{action.reason}; it is {place}"
                self._healed.findings.append(Finding(action.kind, action.path, severity, detail, _KEPT))

    def _put(self, case: Case, version: Version, action: Action) -> None:
        context, there = self._context, case.there
        content = self._past.content(case, version)
        if content is None or (there is not None and not self._as_judged(there)):
            raise Changed(case.target)
        pattern = case.subject.file.entry if there is None else there.file.entry
        with (
            self._left_alone(None if there is None else there.file.entry) as unchanged,
            staging(context.layout.tree, case.target, context.now) as stage,
        ):
            mtime_ns = case.own.file.entry.mtime_ns if version.source in _OWN and case.own else int(version.at * 1e9)
            stage_file(stage, content, mode=pattern.mode, uid=pattern.uid, gid=pattern.gid, mtime_ns=mtime_ns)
            if there is not None:
                action = _told_where(action, f"{QUARANTINE}/{stage.cell}/{ITEM}")
            action = Action(action.kind, action.path, action.rule, action.reason, len(content))
            rows = self._book.plan([action])
            try:
                moved = put_in_place(
                    stage, kind=action.kind, reason=action.reason, now=context.now, unchanged=unchanged
                )
            except BaseException:
                self._book.confirm(rows, [], [Failure(action.path, "it was not done", True)])
                raise
            self._book.confirm(rows, [action], [])
        self._note_new(case, content)
        self._told(
            action,
            version=_moment(version.at),
            age_s=round(max(context.now - version.at, 0.0)),
            source=version.snapshot[:8] or version.path,
            quarantined=moved,
        )
        self._healed.findings.append(Finding(action.kind, action.path, Severity.INFO, action.reason, _RESTART))

    @contextmanager
    def _left_alone(self, entry: Entry | None) -> Iterator[Callable[[os.stat_result | None], bool]]:
        """What tells, by what lstat finds, whether a file is as it was listed, and nobody has it open for writing.

        It asks the file itself, wherever that is by then: who opened it by its name before it was moved is seen, also
        one whose open(2) has not returned, or by what he has done if he is gone. None: there is no file, and there must
        be none. Raises OSError or UnsafePath.
        """
        if entry is None:
            yield lambda found: found is None
            return
        with self._judges.opened(entry) as fd:

            def is_left_alone(found: os.stat_result | None) -> bool:
                if found is None or entry.differs(found) or held(fd) is Held.YES:
                    return False
                return not entry.differs(os.fstat(fd))  # the last writer may have ended just before

            yield is_left_alone

    def _as_judged(self, there: Judged) -> bool:
        """Whether what is there is what it was judged to be: read once more, because much time may have passed."""
        content = self._judges.content(there.file.entry)
        if content is None:
            return False
        verdict = self._judges.judge(content, there.file, Document.CONTEXT, gzip=there.file.gzip)
        return verdict.kind == there.verdict.kind

    def _note_new(self, case: Case, content: bytes) -> None:
        """What was put there is known to be whole."""
        entry = look(self._context.layout.tree, case.target)
        if entry is not None and entry.size == len(content):
            name = case.subject.file.name
            self._judges.note(entry, self._judges.judge(content, name, Document.CONTEXT, gzip=None))

    def _move_aside(self, entry: Entry, action: Action) -> str:
        """Move a file to quarantine; hand back where it is there."""
        tree, now = self._context.layout.tree, self._context.now
        rows = self._book.plan([action])
        try:
            with self._left_alone(entry) as unchanged:
                moved = quarantine(
                    tree, entry.path, kind=action.kind, reason=action.reason, now=now, unchanged=unchanged
                )
        except BaseException:
            self._book.confirm(rows, [], [Failure(action.path, "it was not done", True)])
            raise
        self._book.confirm(rows, [action], [])
        self._told(action, quarantined=moved)
        return moved

    def _told(self, action: Action, **fields: object) -> None:
        self._healed.actions.append(action)
        self._healed.settled.add(action.path)
        emit(action.kind, job="sweep", path=action.path, reason=action.reason, **fields)


def _all_well(contexts: Sequence[StateFile], verdicts: Mapping[str, Verdict], compression: str) -> bool:
    """Whether nothing is damaged, and nothing in another mode than the rest: so it is nearly always."""
    modes = {file.gzip for file in contexts if not file.sealed}
    if len(modes) > 1 or (compression != "detect" and (compression == "on") not in modes):
        return False
    return all(verdict.kind is None for verdict in verdicts.values())


_OWN = (Source.ITSELF, Source.OTHER_MODE)


def _told_where(action: Action, place: str) -> Action:
    return Action(action.kind, action.path, action.rule, f"{action.reason}; what was there is {place}", action.bytes)


def _damage(one: Judged) -> str:
    kind = one.verdict.kind or Damage.OTHER_EXTENSION
    return f"it was {kind.value.replace('_', ' ')}: {one.verdict.detail}"


def _words(version: Version) -> str:
    """Where a version comes from."""
    if version.source is Source.SNAPSHOT:
        return f"snapshot {version.snapshot[:8]} of {_moment(version.seen_at)}"
    if version.source is Source.BACKUP:
        return f"the backup {_name(version.path)}"
    return "what it held itself" if version.source is Source.ITSELF else _name(version.path)


def _name(path: str) -> str:
    """A file among the contexts, for people."""
    return printable(path.rpartition("/")[2])


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
