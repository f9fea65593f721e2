"""What a rotation will do: every log that is due is looked at, and a way is chosen for it. Changes nothing."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from symbiont_datad.errors import Interrupted, UnsafePath
from symbiont_datad.formats.rotated import Rotated, following
from symbiont_datad.formats.storing import Storage
from symbiont_datad.fsops.birth import born
from symbiont_datad.fsops.collapse import block_size, can_collapse, find_cut, find_head
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.opened import FileId, Writers, is_shared, open_to_others, writers
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_archive import blank_head
from symbiont_datad.jobs.log_files import Log, LogFiles
from symbiont_datad.report import printable
from symbiont_datad.retention.logs import Archive, Choice, Observed, Way, choose, due

PART = 1 << 30
"""So many bytes of a log go into one archive at most, where it is copied: so little room is needed beside it."""

PATIENCE_S = 0.05
"""How long it is waited for a writer that opens its log for each append to close it."""

_SMALLEST_PART = 1 << 20
_LOOKED_AT = 4096  # bytes at both ends, to see whether it is text


@dataclass(frozen=True, slots=True)
class Task:
    """A log that is rotated: why now, which way and why that, what its plain archive is called, and how much goes."""

    log: Log
    reason: str
    choice: Choice
    archive: Rotated
    bytes: int

    @property
    def path(self) -> str:
        """Where the log is, relative to the root."""
        return self.log.path

    @property
    def archive_path(self) -> str:
        """Where its plain archive will be."""
        return _beside(self.path, self.archive.name)


@dataclass(slots=True)
class RotationPlan:
    """What will be done: `tasks`, and `store`, plain archives that are compressed or sealed. `left`: what won't."""

    tasks: list[Task] = field(default_factory=list)
    left: list[tuple[Log, Choice]] = field(default_factory=list)
    store: list[Archive] = field(default_factory=list)


def make_plan(context: JobContext, files: LogFiles, storage: Storage) -> RotationPlan:
    """Decide for every log. Processes are looked at once for all of those that are due."""
    plan = RotationPlan()
    for log, reason, seen, found in _observed(context, files):
        choice = choose(seen, context.settings.logs.allow_copytruncate)
        if choice.way is Way.NONE:
            plan.left.append((log, choice))
            continue
        size = _goes(context, log, choice.way, found)
        if isinstance(size, Choice):
            plan.left += [(log, size)] if size.why else []
            continue
        live = log.path.rpartition("/")[2]
        archive = following(live, files.newest(log.path), context.now)
        plan.tasks.append(Task(log, reason, choice, archive, size))
    plan.store = to_store(context, files, storage, {task.path for task in plan.tasks})
    return plan


def to_store(context: JobContext, files: LogFiles, storage: Storage, rotating: set[str]) -> list[Archive]:
    """The plain archives that are to be compressed or sealed. Where that is delayed, the newest of each log waits.

    One that is there in both ways is left: somebody has unpacked it. `rotating`: logs that get a newer archive now.
    """
    if storage.plain:
        return []
    found = []
    for log, archives in files.archives.items():
        if context.settings.logs.rule_of(log) is None:
            continue
        stored = {archive.place.plain for archive in archives if archive.place != archive.place.plain}
        waiting = [archive for archive in archives if archive.place == archive.place.plain]
        delayed = context.settings.logs.delay_compress and not context.settings.logs.is_audit(log)
        if delayed and waiting and log not in rotating:
            waiting = [archive for archive in waiting if archive is not archives[-1]]
        found += [archive for archive in waiting if archive.place not in stored]
    return found


# Looking


@dataclass(frozen=True, slots=True)
class _Found:
    """A log that is due, as it was found. `size` in bytes, `blank` of them are the blank line at its head."""

    id: FileId
    size: int
    blank: int
    held: Held
    others: bool
    collapses: bool
    problem: str = ""
    remedy: str = ""


def _observed(context: JobContext, files: LogFiles) -> Iterator[tuple[Log, str, Observed, _Found]]:
    due_logs: list[tuple[Log, str, _Found]] = []
    shared = is_shared(context.layout.root)
    for log, age_s in _ages(context, files):
        if context.stopping():
            raise Interrupted("asked to stop")
        reason = due(log.rule, log.entry.size, age_s)
        found = _look(context, log) if reason else None
        if shared and found is not None and found.held is Held.NO:
            found = replace(found, held=Held.UNKNOWN)  # this kernel knows nothing of other machines
        if found is not None and found.size > found.blank:
            due_logs.append((log, reason, found))
    asked = {found.id for _, _, found in due_logs if found.held is not Held.NO and not found.problem}
    who = writers(context.layout.root, asked) if asked else Writers({}, complete=False)
    for log, reason, found in due_logs:
        seen = Observed(
            held=found.held,
            writers=who.of.get(found.id, ()),
            complete=who.complete,
            others=found.others,
            collapses=found.collapses,
            declared=context.settings.logs.declared(log.path),
            problem=found.problem,
            remedy=found.remedy,
        )
        yield log, reason, seen, found


def _ages(context: JobContext, files: LogFiles) -> Iterator[tuple[Log, float | None]]:
    """Each log, and the seconds since its last rotation, or since it was made; None when nobody asks, or nobody knows.

    When a file was made, `lstat` does not tell: those of one directory, which come together, are asked about together.
    """
    with ExitStack() as stack:
        folder, folder_fd = None, -1
        for log in files.logs:
            newest = files.newest(log.path)
            if log.rule.rotate_every_s is None or log.entry.size < log.rule.rotate_min:
                yield log, None
            elif newest is not None:
                yield log, context.now - newest.at
            else:
                above, _, name = log.path.rpartition("/")
                with suppress(OSError, UnsafePath):
                    if above != folder:
                        stack.close()
                        folder, folder_fd = None, stack.enter_context(context.layout.tree.directory(above))
                        folder = above
                made = None
                with suppress(OSError):
                    made = born(name, folder_fd) if folder == above else None
                yield log, None if made is None else context.now - made


def _look(context: JobContext, log: Log) -> _Found | None:
    """Look into a log; None when it is another file by now."""
    try:
        with context.layout.tree.holding(log.path) as (folder_fd, name), opened_regular(name, folder_fd) as fd:
            status = os.fstat(fd)
            if status.st_ino != log.entry.inode:
                return None
            problem, remedy = _problem(fd, status)
            free = held(fd, PATIENCE_S)  # before it is opened for writing: that would count
            found = _Found(
                (status.st_dev, status.st_ino),
                status.st_size,
                blank_head(fd),
                free,
                open_to_others(status),
                False,
                problem,
                remedy,
            )
            if free is not Held.NO and not problem:
                found = replace(found, collapses=can_collapse(folder_fd))
            return found
    except FileNotFoundError:
        return None
    except (OSError, UnsafePath) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return _Found((0, 0), log.entry.size, 0, Held.UNKNOWN, True, False, f"can't be opened: {reason}")


def _problem(fd: int, status: os.stat_result) -> tuple[str, str]:
    """Why a file must be left alone whoever writes to it, and what to do; empty texts when it need not be."""
    if status.st_nlink != 1:
        return f"it has {status.st_nlink} names (hard links), and might belong elsewhere", "remove the other name"
    head, tail = os.pread(fd, _LOOKED_AT, 0), os.pread(fd, _LOOKED_AT, max(0, status.st_size - _LOOKED_AT))
    if head.startswith(b"SQLite format 3\0"):
        return "it is a SQLite database", "keep it outside the logs, or take it out of logs.patterns"
    if b"\0" in head or b"\0" in tail:
        return "it is no text: there are NUL bytes in it", "move it away, or take it out of logs.patterns"
    return "", ""


@contextmanager
def opened_for_cutting(name: str, dir_fd: int) -> Iterator[int]:
    """The descriptor of a log, to be cut: open for writing, and not in append mode. Raises OSError."""
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


# How much


def part_size(fd: int, size: int) -> int:
    """How much of a log of that size is copied at once: what there is room for twice, at most `PART`."""
    space = os.fstatvfs(fd)
    return min(size, PART, max(_SMALLEST_PART, space.f_bavail * space.f_frsize // 2))


def _goes(context: JobContext, log: Log, way: Way, found: _Found) -> int | Choice:
    """How many bytes go; or that none can: a choice without a reason where the log is only too small as yet."""
    if way is Way.RENAME:
        return found.size - found.blank
    try:
        with context.layout.tree.holding(log.path) as (folder_fd, name), opened_regular(name, folder_fd) as fd:
            if way is Way.TRUNCATE:
                return found.size - found.blank if find_head(fd, found.size) is not None else Choice(Way.NONE, "")
            block = block_size(fd)
            cut = find_cut(fd, found.size, block)
    except (OSError, UnsafePath) as error:
        return Choice(Way.NONE, f"can't be read: {error}")
    if cut is not None and cut.end > found.blank:
        return cut.end - found.blank
    if found.size < 4 * block:
        return Choice(Way.NONE, "")
    return Choice(
        Way.NONE,
        "it has no whole block of finished lines: its last line goes on and on",
        f"look what writes {printable(log.path)}; a log has lines that end",
    )


def _beside(path: str, name: str) -> str:
    """The path of something of that name in the directory of `path`."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"
