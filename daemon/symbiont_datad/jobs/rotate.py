"""Rotation of the logs: archives what is due, compresses it, and removes archives that the settings don't keep."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from symbiont_datad.errors import DatadError, Interrupted, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.storing import Storage
from symbiont_datad.fsops.opened import identity, open_files
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.jobs.audit_chain import AuditChain
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_files import Log, LogFiles, list_logs
from symbiont_datad.jobs.removal import Book, Planned, remove_recorded
from symbiont_datad.jobs.rotation import Left, Made, Rotator
from symbiont_datad.jobs.rotation_journal import JOURNAL, Journal
from symbiont_datad.jobs.rotation_plan import RotationPlan, Task, make_plan
from symbiont_datad.jobs.rotation_recovery import Recovered, Stuck, recover, tidy
from symbiont_datad.jobs.secrets import age_identity
from symbiont_datad.ledger import LedgerError
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity, printable
from symbiont_datad.retention.logs import Archive, Choice, Trimmed, Way, trim

FINDINGS = 20
"""Logs that were left alone, each told of; those above are counted."""

_LEFT_ALONE = "log_left_alone"


@dataclass(slots=True)
class _Tally:
    """What a run has done so far."""

    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("rotated", "stored", "removed", "waiting", "left_alone", "failed"), 0)
    )
    bytes: int = 0
    interrupted: bool = False


def rotate(context: JobContext) -> JobReport:
    """Rotate every log that is due. Counts: logs `rotated`; archives `stored` (compressed or sealed later than made),
    `removed`, and `waiting` to be removed until a backup has them; logs `left_alone`, and what `failed`.

    What an earlier run was killed at comes first. Raises SettingsError without the key that archives are sealed with.
    """
    storage = _storage(context)
    tally = _Tally()
    try:
        _rotate(context, storage, tally)
    except Interrupted:
        tally.interrupted = True
    except UnsafePath as error:
        remedy = "keep the logs on the file system of the tree"
        directory = context.settings.logs.directory
        tally.findings.append(Finding("not_rotated", directory, Severity.WARNING, str(error), remedy))
    left = any(finding.severity is not Severity.INFO for finding in tally.findings)
    return JobReport(
        "rotate",
        Outcome.INTERRUPTED if tally.interrupted else Outcome.LEFT if left else Outcome.DONE,
        context.now,
        0.0,
        tuple(tally.actions),
        tuple(tally.findings),
        tally.counts,
        actions_total=len(tally.actions),
        bytes_total=tally.bytes,
    )


def _storage(context: JobContext) -> Storage:
    """How archives are stored. Raises SettingsError."""
    logs, secrets = context.settings.logs, context.settings.repository.secrets
    if not secrets.encrypted:
        return Storage(logs.compress)
    from symbiont_datad.formats.age import recipient_of  # age's library is 3 MiB of memory

    return Storage(logs.compress, recipient_of(age_identity(secrets)))


def _rotate(context: JobContext, storage: Storage, tally: _Tally) -> None:
    run = _Run(context, storage, tally)
    if not context.dry_run:
        run.recover()
    elif (context.settings.daemon_dir / JOURNAL).exists():
        detail = "a rotation was cut short; the next run takes it back or finishes it"
        tally.findings.append(Finding("rotation_pending", context.settings.logs.directory, Severity.INFO, detail))
    files = list_logs(context)
    tally.findings += files.findings
    if not context.dry_run and (files.taken or files.unfinished):
        run.told(tidy(context, files))
        files = list_logs(context)
    plan = make_plan(context, files, storage)
    run.tell_of_left(plan.left)
    if context.dry_run:
        run.show(plan, files)
        return
    done = run.carry_out(plan)
    run.settle(done)
    run.store(plan, files, done)
    run.trim(files, done)
    run.finish(plan)


class _Run:
    """One run, step by step."""

    def __init__(self, context: JobContext, storage: Storage, tally: _Tally) -> None:
        self._context = context
        self._storage = storage
        self._tally = tally
        self._book = Book(context)
        self._rotator = Rotator(context, storage)
        self._left: list[Finding] = []

    # What a kill has left

    def recover(self) -> None:
        """Take back or finish what an earlier run was killed at. Raises Stuck."""
        journal, chain = Journal(self._context.settings.daemon_dir), AuditChain(self._context.settings)
        found = recover(self._context, journal, chain)
        self.told([found] if found is not None else [])

    def told(self, recovered: Iterable[Recovered]) -> None:
        """Tell of what was recovered."""
        for one in recovered:
            emit("rotation_recovered", job="rotate", path=one.path, reason=one.what)
            action = Action("rotation_recovered", one.path, "logs", one.what)
            self._tally.actions.append(action)
            self._book.confirm(None, [action], ())

    # The plan

    def show(self, plan: RotationPlan, files: LogFiles) -> None:
        """The plan as actions, for a dry run."""
        tally = self._tally
        tally.actions += [_rotation(task) for task in plan.tasks]
        tally.bytes = sum(task.bytes for task in plan.tasks)
        tally.counts["rotated"] = len(plan.tasks)
        removals, waiting = self._removals(files, plan.tasks)
        gone = {removal.archive.path for removal in removals}
        stored = [self._storing(archive) for archive in plan.store if archive.path not in gone]
        removals.sort(key=lambda removal: removal.archive.path)  # as they are carried out
        tally.actions += [*stored, *map(_removal, removals)]
        tally.counts |= {"stored": len(stored), "removed": len(removals), "waiting": waiting}

    # Rotating

    def carry_out(self, plan: RotationPlan) -> list[Task]:
        """Rotate what was planned; hand back what was rotated."""
        done = []
        for task in plan.tasks:
            if self._context.stopping():
                raise Interrupted("asked to stop")
            if task.choice.way is Way.TRUNCATE:
                emit("log_cut_unsafely", job="rotate", path=task.path, reason=task.choice.why)
            if self._rotated(task):
                done.append(task)
        return done

    def _rotated(self, task: Task) -> bool:
        action = _rotation(task)
        rows = self._book.plan([action])
        made: list[Made] = []
        failure: list[Failure] = []
        try:
            for one in self._rotator.rotate(task):
                made.append(one)
        except Left as error:
            failure.append(Failure(task.path, str(error), True))
        except Stuck:
            self._book.confirm(rows, [], [Failure(task.path, "", False)])
            raise
        except (OSError, UnsafePath) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            failure.append(Failure(task.path, reason, False))
            self._failed("not_rotated", task.path, reason)
        if made:
            size = sum(one.bytes for one in made)
            action = replace(action, bytes=size)
            self._tally.actions.append(action)
            self._tally.bytes += size
            self._tally.counts["rotated"] += 1
            emit("log_rotated", job="rotate", path=task.path, reason=action.reason, bytes=size)
        self._book.confirm(rows, [action] if made else [], [] if made else failure)
        return bool(made)

    def settle(self, done: list[Task]) -> None:
        """See whether somebody kept a log open that was renamed. Then its place is given back to it."""
        renamed = [task for task in done if task.choice.way is Way.RENAME]
        if not renamed:
            return
        audit = any(self._context.settings.logs.is_audit(task.path) for task in renamed)
        settling = audit or not (self._storage.plain or self._context.settings.logs.delay_compress)
        kept = self._rotator.kept_open(renamed, settling)
        undone = [task for task in kept if self._put_back(task)]
        if not undone:
            return
        self._rotator.kept_open(undone, settle=True)
        for task in undone:
            done.remove(task)
            try:
                self._rotator.drop(task)
            except (OSError, UnsafePath) as error:
                self._failed("not_removed", task.archive_path, str(error))

    def _put_back(self, task: Task) -> bool:
        who = ", ".join(f"process {one.pid} ({one.command})" for one in self._rotator.writers_of(task.archive_path))
        detail = f"{who or 'somebody who cannot be seen'} kept it open while it was renamed"
        try:
            back = self._rotator.put_back(task)
        except (OSError, UnsafePath):
            back = False
        if back:
            action = Action("rotation_undone", task.path, task.log.rule.name, detail)
            self._tally.actions.append(action)
            self._tally.counts["rotated"] -= 1
            self._tally.bytes -= task.bytes
            self._book.confirm(None, [action], ())
            self._leave(task.log, Choice(Way.NONE, detail, "the next run looks how it is written now"))
            return True
        detail += f", and still writes to {printable(task.archive_path)}"
        self._leave(task.log, Choice(Way.NONE, detail, "let it open the log anew"))
        return False

    # Storing

    def store(self, plan: RotationPlan, files: LogFiles, done: list[Task]) -> None:
        """Compress and seal plain archives: those that waited, and those that were logs until just now."""
        delayed = self._context.settings.logs.delay_compress
        fresh = [task for task in done if task.choice.way in (Way.RENAME, Way.TRUNCATE)]
        is_audit = self._context.settings.logs.is_audit
        going = {removal.archive.path for removal in self._removals(files, done)[0]}
        waiting = [(archive.path, archive.log) for archive in plan.store if archive.path not in going]
        if not self._storage.plain:
            waiting += [(task.archive_path, task.path) for task in fresh if not delayed or is_audit(task.path)]
        for path, log in waiting:
            self._store(path, log)
        for archive in [archive for some in files.archives.values() for archive in some if is_audit(archive.log)]:
            self._list(archive.path, archive.log)
        for task in fresh:
            if is_audit(task.path) and self._storage.plain:
                self._list(task.archive_path, task.path)

    def _store(self, path: str, log: str) -> None:
        if self._context.stopping():
            raise Interrupted("asked to stop")
        action = Action("log_stored", path, "logs", self._how())
        rows = self._book.plan([action])
        try:
            made = self._rotator.store(path, log)
        except Left as error:
            self._book.confirm(rows, [], [Failure(path, str(error), True)])
            return
        except FileNotFoundError:
            self._book.confirm(rows, [], [Failure(path, "gone already", True)])
            return
        except OSError as error:
            self._book.confirm(rows, [], [Failure(path, "", False)])
            self._failed("not_stored", path, error.strerror or str(error))
            return
        self._book.confirm(rows, [action], [])
        self._tally.actions.append(replace(action, bytes=made.bytes))
        self._tally.counts["stored"] += 1

    def _list(self, path: str, log: str) -> None:
        try:
            self._rotator.list_expected(path, log)
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed("not_listed", path, error.strerror or str(error))

    def _storing(self, archive: Archive) -> Action:
        return Action("log_stored", archive.path, "logs", self._how(), archive.size)

    def _how(self) -> str:
        ways = [f"compressed with {self._storage.compress}"] if self._storage.compress != "none" else []
        ways += ["sealed with the key"] if self._storage.recipient else []
        return " and ".join(ways)

    # Removing

    def trim(self, files: LogFiles, done: list[Task]) -> None:
        """Remove the archives that the settings don't keep."""
        removals, waiting = self._removals(files, done)
        self._tally.counts["waiting"] = waiting
        by_path = {removal.archive.path: removal for removal in removals}
        planned = [Planned(files.entries[path], _removal(by_path[path])) for path in sorted(by_path)]
        if not planned:
            return
        removed = remove_recorded(self._context, self._book, planned)
        for action in removed.actions:
            if self._context.settings.logs.is_audit(by_path[action.path].archive.log):
                self._say_removed(action)
        for failure in removed.failures:
            if not failure.changed:
                self._failed("not_removed", failure.path, failure.reason)
        self._tally.actions += removed.actions
        self._tally.counts["removed"] = len(removed.actions)
        if removed.actions:
            size = sum(action.bytes for action in removed.actions)
            emit("log_archives_trimmed", job="rotate", files=len(removed.actions), bytes=size)
        if removed.interrupted:
            raise Interrupted("asked to stop")

    def _say_removed(self, action: Action) -> None:
        try:
            self._rotator.list_removed(action.path, action.reason)
        except OSError as error:
            self._failed("not_listed", action.path, error.strerror or str(error))

    def _removals(self, files: LogFiles, tasks: list[Task]) -> tuple[list[Trimmed], int]:
        """What goes, given what is rotated now, and how many would, but no backup holds them.

        How large new archives will be is not known as yet, so they count for their number only; what they are too much
        goes with the next run.
        """
        settings = self._context.settings
        there = [archive for some in files.archives.values() for archive in some]
        new = [Archive(task.archive_path, task.path, task.archive, 0) for task in tasks]
        protected = {one.path for one in new}
        planned = trim(settings.logs, [*there, *new], self._context.now, protected)
        if planned and settings.keep_if_open:
            opened = _open_ones(self._context, planned)
            if opened:
                planned = trim(settings.logs, [*there, *new], self._context.now, protected | opened)
        if not planned or not settings.require_snapshot:
            return planned, 0
        held = self._held(files, planned)
        return [one for one in planned if one.archive.path in held], len(planned) - len(held)

    def _held(self, files: LogFiles, planned: list[Trimmed]) -> set[str]:
        """Which of the archives a backup holds. The repository is asked only about those that are older than one."""
        try:
            last = self._context.ledger.last_successes().get("backup", 0.0)
        except LedgerError:
            return set()
        asked = [files.entries[one.archive.path] for one in planned if one.archive.place.at < last]
        if not asked:
            return set()
        from symbiont_datad.jobs.holding import held  # brings the repository's libraries

        try:
            return held(self._context, self._context.settings.logs.directory, asked)
        except Interrupted:
            raise
        except DatadError as error:
            detail = f"{len(asked)} archives would go, but {error}"
            remedy = "`retention.require_snapshot = false` lets them go without a backup"
            directory = self._context.settings.logs.directory
            self._tally.findings.append(Finding("retention_waits", directory, Severity.WARNING, detail, remedy))
            return set()

    # Telling

    def tell_of_left(self, left: list[tuple[Log, Choice]]) -> None:
        """Findings of logs that are due and can't be rotated."""
        for log, choice in left:
            self._leave(log, choice)

    def _leave(self, log: Log, choice: Choice) -> None:
        self._tally.counts["left_alone"] += 1
        finding = Finding(_LEFT_ALONE, log.path, Severity.WARNING, choice.why, choice.remedy)
        if len(self._left) < FINDINGS:
            self._tally.findings.append(finding)
        self._left.append(finding)

    def _failed(self, kind: str, path: str, reason: str) -> None:
        self._tally.counts["failed"] += 1
        if self._tally.counts["failed"] <= FINDINGS:
            remedy = "see that there is room, and that the daemon's user may write to its directory"
            self._tally.findings.append(Finding(kind, path, Severity.WARNING, reason, remedy))

    def finish(self, plan: RotationPlan) -> None:
        """One event for all logs that were rotated, and one for those that are newly left alone."""
        counts = self._tally.counts
        if counts["rotated"]:
            emit("logs_rotated", job="rotate", logs=counts["rotated"], bytes=self._tally.bytes)
        try:
            known = {found.path for found, _ in self._context.ledger.findings() if found.kind == _LEFT_ALONE}
        except LedgerError:
            known = set()
        new = [finding for finding in self._left[:FINDINGS] if printable(finding.path) not in known]
        if new:
            emit("log_left_alone", job="rotate", path=new[0].path, reason=new[0].detail, logs=len(self._left))


def _rotation(task: Task) -> Action:
    way = task.choice
    reason = f"{task.reason}; by {way.way.value}, because {way.why}; archive {printable(task.archive.name)}"
    return Action("log_rotated", task.path, task.log.rule.name, reason, task.bytes)


def _removal(one: Trimmed) -> Action:
    return Action("log_archive_removed", one.archive.path, one.rule, one.reason, one.archive.size)


def _open_ones(context: JobContext, planned: list[Trimmed]) -> set[str]:
    """Those that some process has open, to read them."""
    opened = open_files(context.layout.root).files
    tree = context.layout.tree
    return {one.archive.path for one in planned if identity(tree, one.archive.path) in opened}
