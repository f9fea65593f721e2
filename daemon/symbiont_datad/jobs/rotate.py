"""Rotation of the logs: archives what is due, compresses it, and removes archives that the settings don't keep."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from symbiont_datad.errors import Interrupted, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.storing import Storage
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.jobs.audit_chain import AuditChain
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_files import LogFiles, list_logs
from symbiont_datad.jobs.log_trimming import Removals, removals, remove
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.rotation import Left, Made, Rotator
from symbiont_datad.jobs.rotation_journal import JOURNAL, Journal
from symbiont_datad.jobs.rotation_plan import RotationPlan, Task, make_plan
from symbiont_datad.jobs.rotation_recovery import Recovered, Stuck, recover, tidy
from symbiont_datad.jobs.rotation_report import Tally
from symbiont_datad.jobs.secrets import age_identity
from symbiont_datad.report import Action, JobReport, Severity, printable
from symbiont_datad.retention.logs import Choice, Way


def rotate(context: JobContext) -> JobReport:
    """Rotate every log that is due. Counts: logs `rotated`, and how many of them by each way (`rotated_collapse`,
    `rotated_rename`, `rotated_truncate`); archives `stored` (compressed or sealed later than made), `removed`, and
    `waiting` to be removed until a backup has them; logs `left_alone`, and what `failed`.

    What an earlier run was killed at comes first. Raises SettingsError without the key that archives are sealed with,
    and Stuck when what a kill has left can't be put right.
    """
    tally = Tally(context, Book(context))
    run = _Run(context, _storage(context), tally)
    try:
        run.rotate()
    except Interrupted:
        tally.interrupted = True
    except UnsafePath as error:
        tally.note("not_rotated", str(error), "keep the logs on the file system of the tree")
    finally:
        if not context.dry_run:
            tally.tell()
    return tally.report()


def _storage(context: JobContext) -> Storage:
    """How archives are stored. Raises SettingsError."""
    logs, secrets = context.settings.logs, context.settings.repository.secrets
    if not secrets.encrypted:
        return Storage(logs.compress)
    from symbiont_datad.formats.age import recipient_of  # age's library is 3 MiB of memory

    return Storage(logs.compress, recipient_of(age_identity(secrets)))


class _Run:
    """One run, step by step."""

    def __init__(self, context: JobContext, storage: Storage, tally: Tally) -> None:
        self._context = context
        self._storage = storage
        self._tally = tally
        self._chain = AuditChain(context.settings)
        self._rotator = Rotator(context, storage, self._chain)

    def rotate(self) -> None:
        """All of it. In a dry run: up to the plan, which is then what was done."""
        files = self._files()
        plan = make_plan(self._context, files, self._storage)
        for log, choice in plan.left:
            self._tally.leave(log, choice)
        if self._context.dry_run:
            self._show(plan, removals(files, plan.tasks, self._tally))
            return
        done: list[Task] = []
        try:
            self._carry_out(plan, done)
        finally:
            self._settle(done)
        going = removals(files, done, self._tally)
        self._store(plan, files, done, going)
        remove(files, going, self._tally, self._chain)

    def _files(self) -> LogFiles:
        """What there is, when what an earlier run was killed at is out of the way. Raises Stuck."""
        if self._context.dry_run:
            if (self._context.settings.daemon_dir / JOURNAL).exists():
                detail = "a rotation was cut short; the next run takes it back or finishes it"
                self._tally.note("rotation_pending", detail, "", Severity.INFO)
        else:
            found = recover(self._context, Journal(self._context.settings.daemon_dir), self._chain)
            self._recovered([found] if found is not None else [])
        files = list_logs(self._context)
        if not self._context.dry_run and (files.taken or files.unfinished):
            self._recovered(tidy(self._context, files))
            files = list_logs(self._context)
        self._tally.findings += files.findings
        return files

    def _recovered(self, found: Iterable[Recovered]) -> None:
        for one in found:
            emit("rotation_recovered", job="rotate", path=one.path, reason=one.what)
            self._tally.did(Action("rotation_recovered", one.path, "logs", one.what))

    def _show(self, plan: RotationPlan, going: Removals) -> None:
        """The plan as actions."""
        tally = self._tally
        stored = [
            Action("log_stored", archive.path, "logs", self._how(), archive.size)
            for archive in plan.store
            if archive.path not in going.of
        ]
        tally.actions += [*map(_rotation, plan.tasks), *stored, *going.actions]
        tally.bytes = sum(task.bytes for task in plan.tasks)
        counts = {**Counter(map(_way, plan.tasks)), "rotated": len(plan.tasks), "stored": len(stored)}
        tally.counts |= {**counts, "removed": len(going.of), "waiting": going.waiting}

    # Rotating

    def _carry_out(self, plan: RotationPlan, done: list[Task]) -> None:
        """Rotate what was planned; what is rotated is added to `done`."""
        progress = self._context.progress
        progress.begin("rotate", len(plan.tasks), sum(task.bytes for task in plan.tasks))
        for task in plan.tasks:
            if self._context.stopping():
                raise Interrupted("asked to stop")
            if task.choice.way is Way.TRUNCATE:
                emit("log_cut_unsafely", job="rotate", path=task.path, reason=task.choice.why)
            before = progress.bytes
            if self._rotated(task):
                done.append(task)
            progress.files += 1
            progress.bytes = before + task.bytes  # what was renamed, or left, was not copied

    def _rotated(self, task: Task) -> bool:
        action, tally = _rotation(task), self._tally
        rows = tally.book.plan([action])
        made: list[Made] = []
        failures = [Failure(task.path, "", False)]
        try:
            for one in self._rotator.rotate(task):
                made.append(one)
        except Left:
            pass  # the next run looks at it again
        except (Stuck, Interrupted):
            tally.book.confirm(rows, [], failures)
            raise
        except (OSError, UnsafePath) as error:
            tally.failed("not_rotated", task.path, error)
        if made:
            action = replace(action, bytes=sum(one.bytes for one in made))
            tally.actions.append(action)
            tally.bytes += action.bytes
            tally.counts["rotated"] += 1
            tally.counts[_way(task)] += 1
            emit("log_rotated", job="rotate", path=task.path, reason=action.reason, bytes=action.bytes)
            failures = []
        tally.book.confirm(rows, [action] if made else [], failures)
        return bool(made)

    def _settle(self, done: list[Task]) -> None:
        """See whether somebody kept a log open that was renamed. Then its place is given back to it."""
        renamed = [task for task in done if task.choice.way is Way.RENAME]
        kept = self._rotator.kept_open(renamed, settle=any(self._is_stored(task) for task in renamed))
        undone = [task for task in kept if self._put_back(task)]
        self._rotator.kept_open(undone, settle=True)
        for task in undone:
            done.remove(task)
            try:
                self._rotator.drop(task)
            except (OSError, UnsafePath) as error:
                self._tally.failed("not_removed", task.archive_path, error)

    def _put_back(self, task: Task) -> bool:
        who = ", ".join(f"process {one.pid} ({one.command})" for one in self._rotator.writers_of(task.archive_path))
        detail = f"{who or 'somebody who cannot be seen'} kept it open while it was renamed"
        try:
            back = self._rotator.put_back(task)
        except (OSError, UnsafePath):
            back = False
        if not back:
            detail += f", and still writes to {printable(task.archive_path)}"
            self._tally.leave(task.log, Choice(Way.NONE, detail, "let it open the log anew"))
            return False
        self._tally.did(Action("rotation_undone", task.path, task.log.rule.name, detail))
        self._tally.counts["rotated"] -= 1
        self._tally.counts[_way(task)] -= 1
        self._tally.bytes -= task.bytes
        self._tally.leave(task.log, Choice(Way.NONE, detail, "the next run looks how it is written now"))
        return True

    # Storing

    def _is_stored(self, task: Task) -> bool:
        """Whether the archive of a log is compressed, sealed or listed in the same run."""
        if self._context.settings.logs.is_audit(task.path):
            return True
        return not (self._storage.plain or self._context.settings.logs.delay_compress)

    def _store(self, plan: RotationPlan, files: LogFiles, done: list[Task], going: Removals) -> None:
        """Compress and seal plain archives: those that waited, and those that were logs until just now."""
        fresh = [
            (task.archive_path, task.path)
            for task in done
            if task.choice.way in (Way.RENAME, Way.TRUNCATE) and self._is_stored(task)
        ]
        if not self._storage.plain:
            waiting = [archive for archive in plan.store if archive.path not in going.of]
            size = sum(archive.size for archive in waiting) + sum(
                task.bytes for task in done if (task.archive_path, task.path) in fresh
            )
            self._context.progress.begin("compress", len(waiting) + len(fresh), size)
            for path, log in [*((archive.path, archive.log) for archive in waiting), *fresh]:
                self._store_one(path, log)
                self._context.progress.files += 1
        if expected := self._rotator.expected():
            there = [(archive.path, archive.log) for some in files.archives.values() for archive in some]
            for path, log in [*there, *fresh]:
                if self._rotator.plain_path(path) in expected:
                    self._list(path, log)

    def _store_one(self, path: str, log: str) -> None:
        if self._context.stopping():
            raise Interrupted("asked to stop")
        action, book = Action("log_stored", path, "logs", self._how()), self._tally.book
        rows = book.plan([action])
        try:
            made = self._rotator.store(path, log)
        except (Left, FileNotFoundError):
            book.confirm(rows, [], [Failure(path, "", True)])
        except (Stuck, Interrupted):
            book.confirm(rows, [], [Failure(path, "", False)])
            raise
        except (OSError, UnsafePath) as error:
            book.confirm(rows, [], [Failure(path, "", False)])
            self._tally.failed("not_stored", path, error)
        else:
            book.confirm(rows, [action], [])
            self._tally.actions.append(replace(action, bytes=made.bytes))
            self._tally.counts["stored"] += 1

    def _list(self, path: str, log: str) -> None:
        """Take an archive into the manifest that stays as it is, or that a kill has kept from it."""
        try:
            self._rotator.list_expected(path, log)
        except (Left, FileNotFoundError):
            pass  # it waits, or it was stored under another name, and listed
        except (OSError, UnsafePath) as error:
            self._tally.failed("not_listed", path, error)

    def _how(self) -> str:
        ways = [f"compressed with {self._storage.compress}"] if self._storage.compress != "none" else []
        ways += ["sealed with the key"] if self._storage.recipient else []
        return " and ".join(ways)


def _way(task: Task) -> str:
    """The name of the count of logs that were rotated the way of this one."""
    return f"rotated_{task.choice.way.name.lower()}"


def _rotation(task: Task) -> Action:
    way = task.choice
    reason = f"{task.reason}; by {way.way.value}, because {way.why}; archive {printable(task.archive.name)}"
    return Action("log_rotated", task.path, task.log.rule.name, reason, task.bytes)
