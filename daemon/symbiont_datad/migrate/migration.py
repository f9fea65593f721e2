"""A migration as a whole: refuse what can't be; look, plan, apply, and look again until nothing has changed."""

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from symbiont_datad.errors import DatadError, Locked, UnsafePath
from symbiont_datad.fsops.copy import clone
from symbiont_datad.fsops.lock import hold
from symbiont_datad.fsops.memory import collector_at_rest
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree, readable
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.apply import Carrier, Failed, NoRoom
from symbiont_datad.migrate.compat import recover_links
from symbiont_datad.migrate.content import Question
from symbiont_datad.migrate.detect import overlap
from symbiont_datad.migrate.inventory import Examined, Landscape, chunks, examine, list_source
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.plan import plan, questions
from symbiont_datad.migrate.planning import SETTLE_S, Move, Plan
from symbiont_datad.migrate.records import Deed, Identity, Known, SourceRow, Step
from symbiont_datad.migrate.recovery import recover
from symbiont_datad.migrate.target import Target
from symbiont_datad.migrate.workers import OnFiles, Seen, Workers, looking
from symbiont_datad.quantities import MIB, format_size
from symbiont_datad.report import Finding, Severity, printable

_ROUNDS = 5
"""So many times a source is looked at again because something had changed; what still does then is left."""
_CHUNK = 5_000
"""So many files are planned and put in their place at a time."""
_AHEAD = 3
"""So many portions are under way at once: one is looked into, one is flushed, one is put in its place."""
_FEW = 16
"""Copies that are not flushed with the whole file system, but one by one."""
_PATIENCE_S = 20.0
_SPARE = 16 * MIB
"""So much space a migration leaves."""

Stopping = Callable[[], bool]
OnSteps = Callable[[SourceRow, Sequence[Step]], None]


class Progress(Protocol):
    """How far it is; another thread may look at it."""

    files: int
    bytes: int
    current: str

    def begin(self, phase: str, total_files: int = 0, total_bytes: int = 0) -> None:
        """Begin another part of the work."""


@dataclass(slots=True)
class Result:
    """What came of one source. `steps` were carried out; of those that only tell, `same` are counted.

    `unchanged`: files that an earlier run has dealt with.
    """

    source: Source
    steps: list[Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    same: int = 0
    unchanged: int = 0
    files: int = 0
    bytes: int = 0
    left_behind: int = 0
    """Files that stay where they are: keys, links, what can't be read, or doesn't hold still."""
    interrupted: bool = False

    def add(self, other: "Result") -> None:
        """Add what another round for the same source has done."""
        self.steps += other.steps
        self.findings += other.findings
        self.moves += other.moves
        self.same += other.same
        self.files += other.files
        self.bytes += other.bytes
        self.left_behind += other.left_behind
        self.interrupted = self.interrupted or other.interrupted


class Refused(DatadError):
    """The migration can't be what was asked for; nothing was touched."""


# What can't be


def source_path(path: str, target: Target) -> str:
    """The absolute path of a legacy place, its links followed once, because the user wrote them.

    A link that a migration has put there is the old place all the same.

    Raises Refused when it is no directory that can be entered.
    """
    shown = printable(path)
    above = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    if os.path.islink(above) and target.journal_path.exists():
        with Journal(target.journal_path, make=False) as journal:
            if any(row.source.path == above and row.aside is not None for row in journal.sources()):
                return above
    try:
        found = os.stat(path)
        if not os.path.isdir(path):
            raise Refused(f"{shown}: is no directory")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(f"{shown}: is a loop of symbolic links") from None
        raise Refused(f"{shown}: can't be read: {error.strerror}") from None
    real = os.path.realpath(path)
    if not os.path.samestat(found, os.stat(real)):
        raise Refused(f"{shown}: changes while it is looked at")
    return real


def refuse_overlap(path: str, target: Target) -> None:
    """Refuse a source (a path without links) that is the tree, or the daemon's own, or lies in one, or holds it."""
    problem = overlap(path, target)
    if problem:
        raise Refused(f"{printable(path)}: {problem}")


# One at a time


@contextmanager
def alone(target: Target, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Hold the lock of migrations; a mirror at work is waited for. Raises Locked."""
    until = time.monotonic() + patience_s
    while True:
        held = hold(target.lock_path, "another migration is under way")
        try:
            held.__enter__()
            break
        except Locked:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def open_journal(target: Target) -> Journal:
    """The journal, brought in line with the tree; to be opened under the lock. Raises Refused after a cut-off undo."""
    journal = Journal(target.journal_path)
    try:
        if journal.get("undoing"):
            raise Refused("an undo was cut off in the middle; `symbiont-datad migrate --undo` ends it")
        recover(target, journal)
        recover_links(target, journal)
    except BaseException:
        journal.close()
        raise
    return journal


# Planning only


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be done about a source."""

    source: Source
    plan: Plan
    unchanged: int


def rehearse(
    sources: Iterable[Source], target: Target, journal: Journal | None, progress: Progress, stopping: Stopping
) -> list[Planned]:
    """The plans for several sources, one after the other; nothing is touched. Raises OSError or UnsafePath."""
    planned = []
    landscape = Landscape(target, _made_by(journal))
    with Workers(stopping) as workers:
        for source in sources:
            row = journal.source(source) if journal is not None else None
            at = row.at if row is not None else source.path
            known = journal.known(row.id) if journal is not None and row is not None else {}
            listed = list_source(source, at)
            fresh = [entry for entry in listed.entries if not _is_known(entry, known)]
            landscape.survey([source.kind])
            counted = _counter(progress, "look", len(fresh))
            asked = questions(source, fresh, target, landscape.there)
            landscape.look(workers, asked, counted)
            examined = examine(source, at, fresh, asked, target, workers, counted)
            found = plan(source, examined.files, target, landscape.there, known, time.time())
            found.findings += listed.findings
            landscape.expect(found, {file.entry.path: file for file in examined.files})
            planned.append(Planned(source, found, len(listed.entries) - len(fresh)))
    return planned


def _made_by(journal: Journal | None) -> Callable[[str], Identity | None]:
    if journal is None:
        return lambda _: None
    made = {one.place.path: one.identity for one in journal.made() if not one.place.aside}
    return made.get


def _is_known(entry: Entry, known: Mapping[str, Known]) -> bool:
    one = known.get(entry.path)
    return one is not None and one.identity == Identity.of(entry)


def _counter(progress: Progress, phase: str, files: int, size: int = 0) -> OnFiles:
    progress.begin(phase, files, size)

    def on_files(count: int, size: int, path: str) -> None:
        progress.files += count
        progress.bytes += size
        progress.current = path

    return on_files


# Doing it


def migrate_source(
    source: Source,
    target: Target,
    journal: Journal,
    progress: Progress,
    *,
    on_steps: OnSteps = lambda _row, _steps: None,
    stopping: Stopping = lambda: False,
) -> Result:
    """Bring one source over, to be called under the lock. A second run finds nothing to do.

    `on_steps` is told of steps as they are carried out. Raises NoRoom, Refused, UnsafePath, OSError or JournalError;
    then what had come over stays, and the next run goes on from there.
    """
    refuse_overlap(source.path, target)
    row = journal.begin_source(source, time.time())
    return _Migrating(row, target, journal, progress, on_steps, stopping).run()


class _Migrating:
    def __init__(
        self,
        row: SourceRow,
        target: Target,
        journal: Journal,
        progress: Progress,
        on_steps: OnSteps,
        stopping: Stopping,
    ) -> None:
        self._row, self._target, self._journal = row, target, journal
        self._progress, self._on_steps, self._stopping = progress, on_steps, stopping
        self._result = Result(row.source)
        self._left: dict[str, tuple[Identity, list[Finding]]] = {}
        """What was told of, by path: it is told of once, and looked at again when it has changed."""
        self._again: dict[str, str] = {}
        """What has to be looked at again, and why."""
        self._known: Mapping[str, Known] = {}
        self._dealt_with: dict[str, Entry] = {}

    def run(self) -> Result:
        with Workers(self._stopping) as workers, collector_at_rest():
            for number in range(_ROUNDS):
                if not self._round(workers, first=number == 0):
                    break
            else:
                self._give_up()
        result = self._result
        result.findings += [finding for _, findings in self._left.values() for finding in findings]
        result.left_behind += len(self._left)
        if not result.interrupted:
            self._journal.complete_source(self._row.id, time.time(), result.files, result.bytes)
        return result

    def _round(self, workers: Workers, *, first: bool) -> bool:
        """Look, plan, carry out; whether to look again."""
        row, result = self._row, self._result
        listed = list_source(row.source, row.at)
        known = self._journal.known(row.id) if first else self._known
        fresh = [
            entry
            for entry in listed.entries
            if not self._is_dealt_with(entry) and not _is_known(entry, known) and not self._is_left(entry)
        ]
        if fresh and not first:
            known = self._journal.known(row.id)
        self._known = known
        if first:
            result.findings += listed.findings
            result.left_behind += len(listed.findings)
            result.unchanged = len(listed.entries) - len(fresh)
        if not fresh:
            return False
        self._again.clear()
        workers.expect(len(fresh))
        landscape = Landscape(self._target, _made_by(self._journal))
        landscape.survey([row.source.kind])
        started = time.time()
        self._carry(fresh, known, landscape, workers)
        if self._stopping():
            result.interrupted = True
            return False
        self._look_at_fresh_ones(fresh, started, workers)
        if self._again:
            _sleep(SETTLE_S, self._stopping)
        return True

    def _carry(
        self, fresh: Sequence[Entry], known: Mapping[str, Known], landscape: Landscape, workers: Workers
    ) -> None:
        """Chunk by chunk; while one is put in its place, the next is looked into."""
        row, result = self._row, self._result
        on_files = _counter(self._progress, "bring", len(fresh), sum(entry.size for entry in fresh))
        carrier = Carrier(
            row, self._target, self._journal, workers, on_steps=self._done, on_files=lambda *_: None
        )  # fmt: skip
        with carrier, ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as flusher:
            carrier.cloning = self._can_clone(fresh, carrier.stage)
            self._refuse_full(fresh, carrier.cloning)

            def prepare(portion: Sequence[Entry]) -> Examined:
                asked = questions(row.source, portion, self._target, landscape.there)
                landscape.look(workers, asked, lambda *_: None)
                return examine(
                    row.source, row.at, portion, asked, self._target, workers, on_files, carrier.stage
                )  # fmt: skip

            def flush(coming: Future[Examined]) -> tuple[Examined, bool]:
                examined = coming.result()
                many = len(examined.prepared) > _FEW
                if many:
                    carrier.flush()
                return examined, many

            under_way: deque[Future[tuple[Examined, bool]]] = deque()
            portions = chunks(row.source, fresh, _CHUNK)
            while True:
                for portion in islice(portions, _AHEAD - len(under_way)):
                    under_way.append(flusher.submit(flush, ahead.submit(prepare, portion)))
                if not under_way or self._stopping():
                    break
                examined, flushed = under_way.popleft().result()
                self._again |= {entry.path: "it changed while it was read" for entry in examined.changed}
                found = plan(row.source, examined.files, self._target, landscape.there, known, time.time())
                self._sort_out(found)
                carrier.carry(found, examined.prepared, flushed=flushed)
                result.moves += found.moves
                if not examined.room:
                    raise carrier.no_room()
        result.files += carrier.applied.files
        result.bytes += carrier.applied.bytes
        for failed in carrier.applied.failed:
            self._failed(failed)

    def _is_dealt_with(self, entry: Entry) -> bool:
        """Whether this run has brought the file over, as it is now. (`_is_known` would have the journal read again.)"""
        file = self._dealt_with.get(entry.path)
        return file is not None and Identity.of(file) == Identity.of(entry)

    def _done(self, steps: Sequence[Step]) -> None:
        self._dealt_with.update((step.file.path, step.file) for step in steps)
        self._result.steps += steps
        self._on_steps(self._row, steps)

    def _is_left(self, entry: Entry) -> bool:
        left = self._left.get(entry.path)
        return left is not None and left[0] == Identity.of(entry)

    def _sort_out(self, found: Plan) -> None:
        """What is left is told of at the end; what may be half written is looked at again."""
        by_path: dict[str, list[Finding]] = {}
        for finding in found.findings:
            by_path.setdefault(finding.path, []).append(finding)
        for step in found.steps:
            if step.deed is Deed.LEAVE:
                full = os.path.join(self._row.source.path, step.file.path)
                self._left[step.file.path] = Identity.of(step.file), by_path.pop(full, [])
            elif step.deed is Deed.WAIT:
                self._again[step.file.path] = step.reason
            elif step.deed is Deed.SAME:
                self._dealt_with[step.file.path] = step.file
                self._result.same += 1
        self._result.findings += [finding for findings in by_path.values() for finding in findings]

    def _failed(self, failed: Failed) -> None:
        path = failed.step.file.path
        if failed.again:
            self._again[path] = failed.reason
            return
        full = os.path.join(self._row.source.path, path)
        finding = Finding("legacy_unread", full, Severity.WARNING, failed.reason, "put that right; run it again")
        self._left[path] = Identity.of(failed.step.file), [finding]

    def _give_up(self) -> None:
        """Name what still changes."""
        listed = list_source(self._row.source, self._row.at)
        for entry in listed.entries:
            if not (self._is_dealt_with(entry) or _is_known(entry, self._known) or self._is_left(entry)):
                self._again.setdefault(entry.path, "it changes all the time")
        self._result.left_behind += len(self._again)
        for path, why in sorted(self._again.items()):
            full = os.path.join(self._row.source.path, path)
            remedy = "run it again when its writer is at rest, or with --compat mirror"
            self._result.findings.append(Finding("legacy_busy", full, Severity.WARNING, why, remedy))

    def _look_at_fresh_ones(self, entries: Sequence[Entry], started: float, workers: Workers) -> None:
        """What was written just before it was read may have been written again in the same tick of the clock."""
        since_ns = int((started - SETTLE_S) * 1e9)
        fresh = [entry for entry in entries if entry.mtime_ns >= since_ns and entry.is_file]
        fresh = [entry for entry in fresh if self._is_dealt_with(entry)]
        if not fresh:
            return
        known = self._journal.known(self._row.id)
        _sleep(SETTLE_S, self._stopping)
        orders = [looking(entry, Question(judged=False, compared=True)) for entry in fresh]
        for entry, seen in zip(fresh, workers.look(self._row.at, orders, lambda *_: None), strict=True):
            if not isinstance(seen, Seen) or seen.content.digest != known[entry.path].digest:
                self._journal.doubt_file(self._row.id, entry.path)
                del self._dealt_with[entry.path]
                self._again[entry.path] = "it changed while it was read"

    # Room

    def _can_clone(self, fresh: Sequence[Entry], stage: str) -> bool:
        """Whether the tree's file system can share blocks with the source's; tried with one file."""
        sample = next((entry for entry in fresh if entry.is_file and entry.size), None)
        if sample is None:
            return False
        try:
            with (
                Tree(self._row.at).holding(sample.path) as (dir_fd, name),
                opened_regular(name, dir_fd) as fd,
                Tree(stage).root() as stage_fd,
            ):
                probe = os.open("probe", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=stage_fd)
                try:
                    return clone(fd, probe)
                finally:
                    os.close(probe)
                    os.unlink("probe", dir_fd=stage_fd)
        except (OSError, UnsafePath):
            return False

    def _refuse_full(self, fresh: Sequence[Entry], cloning: bool) -> None:
        """Raise NoRoom when less is free than will be needed, as far as that can be told from names and sizes."""
        with self._target.tree.root() as root_fd, readable(".", root_fd) as fd:
            space = os.fstatvfs(fd)
        block = space.f_frsize or 4096
        shares = cloning and self._row.source.kind in (Kind.VECTORS, Kind.LOGS)
        needed = 0 if shares else sum(-(-entry.size // block) * block for entry in fresh if entry.is_file)
        free = space.f_bavail * block
        if needed + min(_SPARE, needed) > free:
            raise NoRoom(
                f"{printable(self._target.root)}: {format_size(needed)} are needed there, and {format_size(free)} are "
                "free; nothing was copied"
            )
        if space.f_files and len(fresh) > space.f_favail:
            raise NoRoom(
                f"{printable(self._target.root)}: {len(fresh):,} files would come there, and there are only "
                f"{space.f_favail:,} free inodes; nothing was copied"
            )


def _sleep(seconds: float, stopping: Stopping) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stopping():
        time.sleep(min(left, 0.1))
