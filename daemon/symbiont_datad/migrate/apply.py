"""Carrying plans out: copies are staged and verified, made durable, written down, and only then renamed.

A kill at any instant leaves in the tree nothing half written, and in the journal what `recovery` needs: a pending copy
that is still in the staging place was not renamed, and one that is not was.

Copies are made durable together, because one flush of the file system is much faster than one of each file.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.fsops.copy import copy, sync_file_system
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import readable, sync_directory
from symbiont_datad.migrate.journal import Journal, JournalError, Staged
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.places import (
    Cell,
    Folders,
    make_directory,
    make_root,
    missing_directories,
    originals,
)
from symbiont_datad.migrate.planning import Plan
from symbiont_datad.migrate.records import Deed, Identity, Known, Pending, Place, SourceRow, Step
from symbiont_datad.migrate.recovery import note_copied_names, recover, take_back_name
from symbiont_datad.migrate.target import Target
from symbiont_datad.migrate.workers import CHANGED, FULL, NO_ROOM, Made, Making, OnFiles, Trouble, Workers
from symbiont_datad.report import printable

_BATCH, _BATCH_BYTES = 5_000, 256 << 20
_FEW = 16  # copies that are flushed one by one

OnSteps = Callable[[Sequence[Step]], None]
"""Told of steps that were carried out."""


class NoRoom(DatadError):
    """The disk was full in the middle. What had come over stays; the next run goes on from there."""


class Failed(NamedTuple):
    """A step that was not carried out. `again`: it may be the next time, because the file had only changed."""

    step: Step
    reason: str
    again: bool


@dataclass(slots=True)
class Applied:
    """What came of plans. `bytes` of the copies as they were written."""

    files: int = 0
    bytes: int = 0
    failed: list[Failed] = field(default_factory=list)


class _Placing(NamedTuple):
    """A copy that is about to get its place. `pending` is None where nothing stands there, and it is no place aside."""

    staged: Staged
    pending: Pending | None


class _Placed(NamedTuple):
    """What came of renames: which of them failed, by their number."""

    failed: dict[int, OSError | UnsafePath]


class Carrier:
    """Carries plans out for one source, to be used as a context: what is left over in the staging place then goes.

    `on_steps` is told of steps that were carried out, `on_files` of copies as they are made. `applied` adds up.
    """

    def __init__(
        self,
        row: SourceRow,
        target: Target,
        journal: Journal,
        workers: Workers,
        *,
        cloning: bool = False,
        on_files: OnFiles = lambda _count, _size, _path: None,
        on_steps: OnSteps = lambda _: None,
    ) -> None:
        self.applied = Applied()
        self.cloning = cloning
        self._row, self._target, self._journal, self._workers = row, target, journal, workers
        self._on_files, self._on_steps = on_files, on_steps
        self._cell = Cell(target, journal)
        self._folders = Folders(target.tree)
        self._fresh: set[str] = set()
        self._unsettled = False
        self._placer = ThreadPoolExecutor(1)
        self._placing: tuple[Future[_Placed], Sequence[_Placing]] | None = None

    def __enter__(self) -> Self:
        if self._journal.get("root") == "making" or not os.path.lexists(self._target.root):
            self._journal.put("root", "making")
            make_root(self._target)
            self._journal.put("root", "made")
        self._cell.open()
        self._folders.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
                self._cell.close()
                return
        except OSError as failed:
            error = failed
            if failed.errno not in FULL:
                raise
        finally:
            self._placer.shutdown()
            self._folders.__exit__(kind, error, trace)
        with suppress(OSError, UnsafePath, JournalError):  # else the next run does it
            recover(self._target, self._journal)
        if isinstance(error, OSError) and error.errno in FULL:
            raise self.no_room() from error

    @property
    def stage(self) -> str:
        """The absolute path of the staging place."""
        return self._cell.stage

    def no_room(self) -> NoRoom:
        """What is raised when the disk is full."""
        return NoRoom(
            f"{printable(self._target.root)}: no space is left; what is over stays. "
            "Make room, and run it again: it goes on from there"
        )

    def flush(self) -> None:
        """Make all copies that were prepared so far durable."""
        with self._cell.staged() as stage_fd, readable(".", stage_fd) as open_fd:
            sync_file_system(open_fd)

    def carry(self, plan: Plan, prepared: Mapping[str, Made], *, flushed: bool = False) -> None:
        """Carry a plan out. `prepared`: copies that were made already, by path.

        `flushed`: `flush` was called since those were made. The last renames may go on when this returns.

        Raises NoRoom, UnsafePath, OSError or JournalError; then what had come over stays, and the journal knows of it.
        """
        self._note(plan)
        for move in plan.moves:
            self._journal.move(move.path, move.to)
            folder, _, name = move.path.rpartition("/")
            other, _, new_name = move.to.rpartition("/")
            rename_new(self._folders.at(folder), name, self._folders.at(other), new_name)
            sync_directory(self._folders.at(other))
        left = dict(prepared)
        for batch in _batches(plan.copies):
            ready, rest = list[Staged](), list[Step]()
            for step in batch:
                made = left.get(step.file.path)
                if made is not None and made.encoding is step.encoding and step.deed is not Deed.LEAVE:
                    del left[step.file.path]
                    ready.append(Staged(step, made))
                else:
                    rest.append(step)
            room = True
            self._put(ready, flushed=flushed)
            if rest:
                made_now, room = self._stage(rest)
                self._put(made_now, flushed=False)
            if not room:
                raise self.no_room()
            if self._workers.stopping():
                break
        self._unstage([made.name for made in left.values()])

    def _note(self, plan: Plan) -> None:
        """Write down which files need no copy, so that the next run need not look into them again."""
        same = [step for step in plan.steps if step.deed is Deed.SAME]
        if same:
            nothing = Identity(0, 0, 0)
            known = (
                Known(
                    one.file.path,
                    Identity.of(one.file),
                    one.deed,
                    one.to,
                    one.digest,
                    Identity.of(one.standing) if one.standing is not None else nothing,
                )
                for one in same
            )
            self._journal.note(self._row.id, known)

    # Staging

    def _stage(self, steps: Sequence[Step]) -> tuple[list[Staged], bool]:
        """Make copies; the second value is false when the disk was full."""
        growing = self._row.source.kind is Kind.LOGS
        orders = [
            Making(
                os.fsencode(step.file.path),
                *Identity.of(step.file),
                step.file.mode & 0o777,
                step.encoding,
                growing,
            )
            for step in steps
        ]
        answers = self._workers.make(self._row.at, orders, self._on_files, self.stage, self.cloning)
        staged, room = [], True
        for step, answer in zip(steps, answers, strict=True):
            if isinstance(answer, Made) and step.digest and step.digest != answer.digest and not growing:
                self._unstage([answer.name])
                self.applied.failed.append(Failed(step, "it changed while it was read", True))
            elif isinstance(answer, Made):
                staged.append(Staged(step, answer))
            elif isinstance(answer, Trouble) and answer.kind == NO_ROOM:
                room = False
            elif isinstance(answer, Trouble):
                self.applied.failed.append(Failed(step, answer.reason, answer.kind == CHANGED))
        return staged, room

    def _unstage(self, names: Sequence[str]) -> None:
        if not names:
            return
        with self._cell.staging() as staging:
            for path in names:
                folder, _, name = path.rpartition("/")
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=staging.at(folder))

    # Putting in place

    def _put(self, staged: Sequence[Staged], *, flushed: bool) -> None:
        """Make copies durable, write them down, have them renamed."""
        if not staged:
            return
        one_by_one = len(staged) <= _FEW and not self._unsettled
        if one_by_one or not flushed:
            one_by_one = not self._flush(staged, one_by_one=one_by_one)
        self._fresh.clear()
        # Most copies go to where nothing stands; of those there may be many, and little has to be thought of.
        plain: list[Staged] = []
        others: list[_Placing] = []
        for one in self._with_directories(staged):
            if one.step.standing is None and not one.step.to.aside:
                plain.append(one)
            elif (pending := self._pending(one)) is not None:
                others.append(_Placing(one, pending))
        with self._journal.transaction():
            self._journal.pend_copies(self._row.id, plain)
            self._journal.pend(self._row.id, [one.pending for one in others if one.pending is not None])
        self._unsettled = True
        self._wait()
        placing = [*(_Placing(one, None) for one in plain), *others]
        self._placing = self._placer.submit(self._rename_all, placing), placing
        if one_by_one:
            done = self._wait()
            changed = {self._cell.in_tree(one.step.to).rpartition("/")[0] for one in done} | self._fresh
            for folder in changed:
                sync_directory(self._folders.at(folder))
            self._journal.settle()
            self._unsettled = False

    def _wait(self) -> list[Staged]:
        """Wait for the renames that are under way, and tell of them; hand back those that were made."""
        if self._placing is None:
            return []
        (future, placing), self._placing = self._placing, None
        failed = future.result().failed
        if failed:
            names = [placing[number].staged.made.name for number in failed]
            self._unstage(names)
            self._journal.drop_pending(names)
            for number, error in failed.items():
                self._fail(placing[number].staged, error)
        done = [one.staged for number, one in enumerate(placing) if number not in failed]
        renamed = (one.pending for number, one in enumerate(placing) if number not in failed)
        note_copied_names(self._folders, self._cell, self._journal, filter(None, renamed))
        self.applied.files += len(done)
        self.applied.bytes += sum(one.made.size for one in done)
        self._on_steps([one.step for one in done])
        return done

    def _rename_all(self, placing: Sequence[_Placing]) -> _Placed:
        """Rename copies to their place, in a thread of its own. Raises OSError when the disk is full."""
        placed = _Placed({})
        with self._cell.staging() as staging, Folders(self._target.tree) as folders:
            for number, one in enumerate(placing):
                try:
                    if one.pending is None:
                        folder, _, name = one.staged.step.to.path.rpartition("/")
                        from_folder, _, staged = one.staged.made.name.rpartition("/")
                        rename_new(staging.at(from_folder), staged, folders.at(folder), name)
                    else:
                        self._rename(one.pending, staging, folders, new=one.staged.step.standing is None)
                except (OSError, UnsafePath) as error:
                    if isinstance(error, OSError) and error.errno in FULL:
                        raise
                    if one.pending is not None:
                        take_back_name(folders, self._cell, one.pending)
                    placed.failed[number] = error
        return placed

    def _flush(self, staged: Sequence[Staged], *, one_by_one: bool) -> bool:
        """Make copies durable; whether all at once."""
        if not one_by_one:
            with self._cell.staged() as stage_fd, readable(".", stage_fd) as open_fd:
                if sync_file_system(open_fd):
                    return True
        with self._cell.staging() as staging:
            for one in staged:
                folder, _, name = one.made.name.rpartition("/")
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging.at(folder))
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        return False

    def _finish(self) -> None:
        """Make the last renames durable, and say so."""
        self._wait()
        if self._unsettled:
            with readable(".", self._folders.at("")) as fd:
                sync_file_system(fd)
            self._journal.settle()
            self._unsettled = False

    def _with_directories(self, staged: Sequence[Staged]) -> list[Staged]:
        """Make the directories that copies come to; hand back those copies that have one."""
        places = [place for one in staged for place in (one.step.to, one.step.moved) if place is not None]
        if any(place.aside for place in places):
            self._cell.record(self._row.at, "copies of what would not load, and of surplus backups")
        wanted = dict.fromkeys(self._cell.in_tree(place).rpartition("/")[0] for place in places)
        try:
            missing = missing_directories(self._folders, wanted)
            inside = f"{self._cell.path}/"
            if missing:
                self._journal.make_directories(path for path in missing if not path.startswith(inside))
            for path in missing:
                folder, _, name = path.rpartition("/")
                mode = 0o700 if path.startswith(inside) else self._target.mode_of(path)
                make_directory(self._folders.at(folder), name, mode)
                self._fresh.add(folder)
            if missing:
                self._journal.finish_directories()
        except (OSError, UnsafePath) as error:
            if len(staged) == 1 or (isinstance(error, OSError) and error.errno in FULL):
                raise
            return [one for one in staged if self._has_directory(one)]
        return list(staged)

    def _has_directory(self, one: Staged) -> bool:
        """Something is in the way of a directory: find out for which copies."""
        try:
            return bool(self._with_directories([one]))
        except (OSError, UnsafePath) as error:
            self._unstage([one.made.name])
            self._fail(one, error)
            return False

    def _pending(self, staged: Staged) -> Pending | None:
        """What is to be written down of a copy; None when the tree is no longer as the plan was made for."""
        step, made = staged
        to, moved, identity, number = step.to, None, None, None
        if to.aside:
            to = self._free_aside(to)
        elif step.standing is not None:
            standing = self._folders.lstat(to.path)
            if standing is None or Identity.of(standing) != Identity.of(step.standing):
                self._unstage([made.name])
                self.applied.failed.append(Failed(step, f"{to.path} changed meanwhile", True))
                return None
            if step.moved is not None:
                moved = self._free_aside(step.moved) if step.moved.aside else step.moved
                identity = Identity.of(standing)
            if moved is not None or self._journal.made_at(to) is None:
                number = self._keep(to.path, standing)
        copied = Identity(made.inode, made.size, made.mtime_ns)
        known = Known(step.file.path, Identity.of(step.file), step.deed, to, made.digest, copied)
        return Pending(known, made.name, moved, identity, number)

    def _free_aside(self, place: Place) -> Place:
        """A place in the cell that nothing has: its own, or one with a number behind it."""
        number, path = 0, place.path
        while self._folders.lstat(self._cell.in_tree(Place(True, path))) is not None:
            number += 1
            path = f"{place.path}-{number}"
        return Place(True, path)

    def _keep(self, path: str, found: os.stat_result) -> int:
        """Keep a copy of what is about to be overwritten, whatever becomes of it; hand back the number."""
        original = self._journal.keep_original(found)
        directory = originals(self._target)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder, _, name = path.rpartition("/")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened_regular(name, self._folders.at(folder)) as from_fd:
            to_fd = os.open(self._journal.original_path(original.id), flags, 0o600)
            try:
                copy(from_fd, to_fd, found.st_size, cloning=True)
                os.fsync(to_fd)
            finally:
                os.close(to_fd)
        return original.id

    def _rename(self, one: Pending, staging: Folders, folders: Folders, *, new: bool) -> None:
        path = self._cell.in_tree(one.known.dest)
        folder, _, name = path.rpartition("/")
        dir_fd = folders.at(folder)
        from_folder, _, staged = one.staged.rpartition("/")
        if one.moved is not None:
            other, _, new_name = self._cell.in_tree(one.moved).rpartition("/")
            _give_second_name(dir_fd, name, folders.at(other), new_name)
        elif new:
            rename_new(staging.at(from_folder), staged, dir_fd, name)
            return
        os.rename(staged, name, src_dir_fd=staging.at(from_folder), dst_dir_fd=dir_fd)

    def _fail(self, staged: Staged, error: Exception) -> None:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        standing = self._folders.lstat(staged.step.to.path) if isinstance(error, FileExistsError) else None
        came_since = standing is not None and stat.S_ISREG(standing.st_mode)
        self.applied.failed.append(Failed(staged.step, reason, came_since))


def _give_second_name(dir_fd: int, name: str, other_fd: int, new_name: str) -> None:
    """Give a file a second name before the first one goes to another; a copy where there are no hard links."""
    try:
        os.link(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=other_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        with opened_regular(name, dir_fd) as from_fd:
            found = os.fstat(from_fd)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            to_fd = os.open(new_name, flags, 0o600, dir_fd=other_fd)
            try:
                copy(from_fd, to_fd, found.st_size)
                os.fchmod(to_fd, found.st_mode & 0o777)
                os.utime(to_fd, ns=(found.st_atime_ns, found.st_mtime_ns))
                os.fsync(to_fd)
            finally:
                os.close(to_fd)


def _batches(steps: Sequence[Step]) -> Iterator[list[Step]]:
    batch: list[Step] = []
    size = 0
    for step in steps:
        if batch and (len(batch) == _BATCH or size + step.file.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(step)
        size += step.file.size
    if batch:
        yield batch
