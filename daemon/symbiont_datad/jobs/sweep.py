"""The autosave sweep: checks the state files that changed since the last one, and rotates the runtime's own backups.

What a sweep has seen it leaves in the ledger as marks, one a file: inode, size, time and verdict. So a sweep in which
nothing changed is one walk.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.context import REQUIRED, Damage, Role, StateName, Verdict, judge, name_of
from symbiont_datad.fsops.read import chunks, opened_regular
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.autosave import Fingerprint, Saved, autosave
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.removal import Book, Planned, remove_recorded
from symbiont_datad.layout import Category
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity, printable
from symbiont_datad.retention.backups import Backup, rotate

FINDINGS = 20
"""Backups that could not be removed, each told of."""

_UNREAD_REMEDY = "let the daemon's user read it"


@dataclass(frozen=True, slots=True)
class StateFile:
    """A context (of an agent) or a session."""

    entry: Entry
    name: StateName | None
    """None for a session."""

    @property
    def what(self) -> str:
        """`context` or `session`: the begin of its findings' kinds."""
        return "context" if self.name else "session"


@dataclass(frozen=True, slots=True)
class Broken:
    """A state file that is damaged. `good_backup` is the newest backup that parses, if there is one."""

    file: StateFile
    verdict: Verdict
    good_backup: Backup | None


@dataclass(slots=True)
class _State:
    """What lies below `state/`, sorted by what it is, and what lstat says of all of it."""

    seen: Fingerprint
    files: list[StateFile] = field(default_factory=list)
    backups: dict[str, list[Backup]] = field(default_factory=lambda: defaultdict(list))
    leftovers: list[Entry] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)


def sweep(context: JobContext) -> JobReport:
    """Check new and changed contexts and sessions, tell of damage and of recovery, rotate the runtime's backups.

    A file that changed within the last `settle_s` seconds is left for the next sweep. Counts: `contexts` and `sessions`
    there are, `checked` files read, `damaged` ones, `unsettled` ones, `backups_kept`, `backups_removed`,
    `saved` snapshots.
    """
    state = _list(context)
    judges = _Judges(context, state)
    damaged = _check(context, state.files, judges)
    broken = [Broken(file, verdict, _good_backup(state, file, judges)) for file, verdict in damaged]
    rotated = _rotate(context, state, judges)
    judges.leave_marks()
    saved = after_check(context, broken, state.seen)
    actions = [*rotated.actions, *saved.actions]
    interrupted = rotated.interrupted or saved.interrupted
    findings = [
        *(_finding(one, len(_backups_of(state, one.file))) for one in broken),
        *_other_modes(state.files),
        *_leftovers(state, judges),
        *(Finding("unread", path, Severity.WARNING, why, _UNREAD_REMEDY) for path, why in state.unread.items()),
        *rotated.findings,
        *saved.findings,
    ]
    left = any(finding.severity is not Severity.INFO for finding in findings)
    contexts = sum(file.name is not None for file in state.files)
    backups = sum(map(len, state.backups.values()))
    return JobReport(
        "sweep",
        Outcome.INTERRUPTED if interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(actions),
        tuple(findings),
        {
            "contexts": contexts,
            "sessions": len(state.files) - contexts,
            "checked": judges.checked,
            "damaged": len(broken),
            "unsettled": judges.unsettled,
            "backups_kept": backups - len(rotated.actions),
            "backups_removed": len(rotated.actions),
            "saved": sum(action.kind == "snapshot_created" for action in saved.actions),
        },
        message=f"{len(broken)} state files are damaged" if broken else "",
        actions_total=len(actions),
        bytes_total=sum(action.bytes for action in actions),
    )


def after_check(context: JobContext, broken: list[Broken], seen: Fingerprint) -> Saved:
    """Where healing will begin, and the autosave does: all that changed is judged and marked, `broken` is what the
    runtime would not load, each with its newest good backup, and of good states only surplus ones were removed.
    Heal first, so that the snapshot holds what the runtime will load.
    """
    return autosave(context, seen)


def _list(context: JobContext) -> _State:
    """One walk. The quarantine is not below `state/`, and no walk enters it."""
    layout, state = context.layout, _State(Fingerprint(context.now))
    agents = f"{layout.agents}/"
    sessions = f"{layout.path_of(Category.STATE, 'sessions')}/"

    def unread(path: str, error: OSError) -> None:
        state.unread[path] = error.strerror or str(error)

    for entry in walk(layout.tree, layout.path_of(Category.STATE), on_error=unread):
        state.seen.add(entry)
        if not entry.is_file:
            continue
        path = entry.path
        if path.startswith(agents):
            name = name_of(path[len(agents) :])
            if name is None:
                continue
            if name.role is Role.CONTEXT:
                state.files.append(StateFile(entry, name))
            elif name.role is Role.BACKUP:
                state.backups[name.agent].append(Backup(name.agent, name.seconds, entry))
            elif name.role is Role.LEFTOVER:
                state.leftovers.append(entry)
        elif path.endswith(".tmp"):
            state.leftovers.append(entry)
        elif path.startswith(sessions) and path.endswith((".json", ".json.gz")):
            state.files.append(StateFile(entry, None))
    return state


class _Judges:
    """Verdicts on files: from the marks of the last sweep where nothing changed, else from their content."""

    def __init__(self, context: JobContext, state: _State) -> None:
        self._context = context
        self._state = state
        self._new: dict[str, str] = {}
        self._marks: dict[str, str] = {}
        try:
            marks = context.ledger.marks()
            self._marks = {path: mark for path, mark in marks.items() if not path.startswith("/")}  # others' marks
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))
        self.checked = 0
        self.unsettled = 0

    def settled(self, entry: Entry) -> bool:
        """Whether nobody is likely to be writing the file now. One from the future is not being written either."""
        return abs(self._context.now - entry.mtime_ns / 1e9) >= self._context.settings.settle_s

    def known(self, entry: Entry) -> Verdict | None:
        """The verdict on the file as it is, if this sweep or an earlier one has made it."""
        mark = self._new.get(entry.path) or self._marks.get(entry.path, "")
        identity, _, verdict = mark.partition(" ")
        if identity != _identity(entry):
            return None
        kind, _, detail = verdict.partition(" ")
        return Verdict(Damage(kind) if kind else None, detail)

    def was_damaged(self, entry: Entry) -> bool:
        """Whether the last sweep found damage in the file that had this path."""
        verdict = self._marks.get(entry.path, "").partition(" ")[2]
        return bool(verdict.partition(" ")[0])

    def verdict(self, entry: Entry, *, gzip: bool | None, required: tuple[str, ...] = REQUIRED) -> Verdict | None:
        """The verdict on a file; None if it may be half written, or can't be read."""
        known = self.known(entry)
        if known is None and self.settled(entry):
            known = self._read(entry, gzip, required)
            if known is not None:
                self.checked += 1
                self._new[entry.path] = f"{_identity(entry)} {known.kind or ''} {known.detail}"
        return known

    def _read(self, entry: Entry, gzip: bool | None, required: tuple[str, ...]) -> Verdict | None:
        try:
            with self._context.layout.tree.holding(entry.path) as (fd, name), opened_regular(name, fd) as file:
                if entry.differs(os.fstat(file)):
                    return None
                verdict = judge(chunks(file), gzip=gzip, required=required)
                return None if entry.differs(os.fstat(file)) else verdict
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnsafePath) as error:
            self._state.unread[entry.path] = getattr(error, "strerror", None) or str(error)
            return None

    def parses(self, backup: Backup) -> bool:
        """Whether a backup could take its context's place. Its name promises no mode."""
        verdict = self.verdict(backup.entry, gzip=None)
        return verdict is not None and verdict.kind is None

    def leave_marks(self) -> None:
        """Write down what was judged, and forget what is gone. What lies where nothing could be listed is not gone."""
        if self._context.dry_run:
            return
        there = {file.entry.path for file in self._state.files}
        there.update(backup.entry.path for backups in self._state.backups.values() for backup in backups)
        unread = tuple(f"{path}/" for path in self._state.unread)
        gone = [path for path in self._marks if path not in there and not f"{path}/".startswith(unread)]
        if not self._new and not gone:
            return
        try:
            self._context.ledger.update_marks(self._new, gone)
        except LedgerError as error:
            emit("ledger_failed", job="sweep", reason=str(error))


def _identity(entry: Entry) -> str:
    return f"{entry.inode}:{entry.size}:{entry.mtime_ns}"


def _check(context: JobContext, files: list[StateFile], judges: _Judges) -> list[tuple[StateFile, Verdict]]:
    """The state files that are damaged. Tells of those that the last sweep found whole, and the other way round."""
    damaged = []
    for file in files:
        entry, name = file.entry, file.name
        known = judges.known(entry)
        if known is None and not context.stopping():
            gzip = name.gzip if name else entry.path.endswith(".gz")
            known = judges.verdict(entry, gzip=gzip, required=REQUIRED if name else ())
            if known is None:
                judges.unsettled += 1
        if known is None:
            continue
        if known.kind is not None:
            damaged.append((file, known))
        if context.dry_run or (known.kind is not None) == judges.was_damaged(entry):
            continue
        if known.kind is None:
            emit("context_recovered", job="sweep", path=entry.path)
        elif known.kind is not Damage.TOO_LARGE:
            emit("context_damaged", job="sweep", path=entry.path, damage=known.kind.value, reason=known.detail)
    return damaged


def _backups_of(state: _State, file: StateFile) -> list[Backup]:
    return state.backups.get(file.name.agent, []) if file.name else []


def _good_backup(state: _State, file: StateFile, judges: _Judges) -> Backup | None:
    """The newest backup of an agent that parses."""
    newest_first = sorted(
        _backups_of(state, file), key=lambda backup: (backup.seconds, backup.entry.path), reverse=True
    )
    return next(filter(judges.parses, newest_first), None)


def _finding(broken: Broken, backups: int) -> Finding:
    kind, backup = broken.verdict.kind, broken.good_backup
    assert kind is not None
    if broken.file.name is None:
        remedy = "restore it, or move it away"
    elif kind is Damage.TOO_LARGE:
        remedy = "look whether the runtime still loads it"
    elif kind is Damage.OTHER_EXTENSION:
        remedy = "the runtime won't start with it; give it the name that its content has"
    elif backup is not None:
        at = datetime.fromtimestamp(backup.entry.mtime_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")
        remedy = f"the runtime won't start with it; a good backup of {at} is {printable(backup.entry.path)}"
    else:
        have = f"none of its {backups} backups is whole" if backups else "it has no backup"
        remedy = f"the runtime won't start with it, and {have}; move it away to start without this agent's context"
    severity = Severity.WARNING if kind is Damage.TOO_LARGE else Severity.ERROR
    return Finding(f"{broken.file.what}_{kind.value}", broken.file.entry.path, severity, broken.verdict.detail, remedy)


def _other_modes(files: list[StateFile]) -> Iterator[Finding]:
    """Contexts in the mode that the runtime doesn't use: it lists them and never loads them. Its mode is what most
    contexts have; where there is no majority nothing can be said.
    """
    contexts = [(file.entry, file.name) for file in files if file.name]
    zipped = sum(name.gzip for _, name in contexts)
    if zipped * 2 == len(contexts):
        return
    usual = zipped * 2 > len(contexts)
    extension, mode = (".json.gz", "on") if usual else (".json", "off")
    for entry, name in contexts:
        if name.gzip is not usual:
            yield Finding(
                "context_other_mode",
                entry.path,
                Severity.WARNING,
                f"most contexts are named {extension}; with compression {mode} the runtime does not load this one",
                "write it anew in the mode that the runtime uses, or remove it if the agent has another",
            )


def _leftovers(state: _State, judges: _Judges) -> Iterator[Finding]:
    for entry in state.leftovers:
        if judges.settled(entry):
            detail = f"a temporary file of {entry.size} bytes, left when a write was cut off"
            yield Finding("leftover", entry.path, Severity.INFO, detail, "it can be removed")


@dataclass(slots=True)
class _Rotated:
    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    interrupted: bool = False


def _rotate(context: JobContext, state: _State, judges: _Judges) -> _Rotated:
    """Remove the runtime's surplus backups, after the contexts were judged."""
    keep = context.settings.backup_count
    whole = {file.name.agent for file in state.files if file.name and _is_whole(judges.known(file.entry))}
    planned: list[Planned] = []
    for agent, backups in state.backups.items():
        if len(backups) > keep and not context.stopping():
            for backup, reason in rotate(backups, keep, context_parses=agent in whole, parses=judges.parses):
                action = Action("backup_rotated", backup.entry.path, "backup_count", reason, backup.entry.size)
                planned.append(Planned(backup.entry, action))
    planned.sort(key=lambda one: one.entry.path)
    if context.dry_run or not planned:
        return _Rotated([one.action for one in planned], [], context.stopping())
    removed = remove_recorded(context, Book(context), planned)
    if context.settings.log_level == "debug":
        for action in removed.actions:
            emit("backup_rotated", job="sweep", path=action.path, reason=action.reason)
    remedy = "let the daemon's user write to its directory"
    findings = [
        Finding("not_removed", failure.path, Severity.WARNING, failure.reason, remedy)
        for failure in removed.failures
        if not failure.changed
    ]
    return _Rotated(removed.actions, findings[:FINDINGS], removed.interrupted or context.stopping())


def _is_whole(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.kind is None
