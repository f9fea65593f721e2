"""Carrying a rotation out: each way, so that a kill at any instant loses no line and doubles none.

Whatever is needed twice is on the disk before it is needed once: the archive before the journal, the journal before the
archive has its name, and that before the log is cut. Up to the cut everything can be taken back, and from there on
everything that is needed is there: so what a kill leaves, `recover` takes back or finishes.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from symbiont_datad.errors import DatadError
from symbiont_datad.formats.rotated import TAKEN, UNFINISHED, Rotated, hidden, rotated
from symbiont_datad.formats.storing import CHUNK, Storage
from symbiont_datad.fsops.collapse import blank, block_size, cut_off, find_cut, find_head
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.opened import Writer, is_shared, writers
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import sync_directory
from symbiont_datad.fsops.swap import exchange
from symbiont_datad.jobs.audit_chain import AuditChain
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_archive import Part, blank_head, digest_of, make_like, write_archive
from symbiont_datad.jobs.rotation_journal import Journal, Pending, Step
from symbiont_datad.jobs.rotation_plan import PATIENCE_S, Task, opened_for_cutting, part_size
from symbiont_datad.jobs.rotation_recovery import recover
from symbiont_datad.retention.logs import Declared, Way

SETTLE_S = 1.0
"""How long a log that was taken from its place is looked at: whoever opened it in that instant is seen by then."""

QUIET_S = 60.0
"""How long nobody must have written to an archive of which the kernel does not tell whether somebody has it open."""

_PAUSE_S = 0.02
_LOOKS = 100  # for something more, before a log is cut to nothing all the same


class Left(Exception):
    """A file is as it was, and the next run will look at it again. The message says why."""


@dataclass(frozen=True, slots=True)
class Made:
    """An archive that was made: its path, how many bytes of the log are in it, and how many it has on the disk."""

    path: str
    bytes: int
    stored: int


class Rotator:
    """Carries out what was planned, one log after another."""

    def __init__(self, context: JobContext, storage: Storage, chain: AuditChain) -> None:
        self._context = context
        self._settings = context.settings.logs
        self._storage = storage
        self._tree = context.layout.tree
        self._journal = Journal(context.settings.daemon_dir)
        self._chain = chain

    def rotate(self, task: Task) -> Iterator[Made]:
        """Rotate one log; a large one that is copied becomes several archives. Raises Left, OSError or DatadError."""
        if task.choice.way is Way.RENAME:
            yield self._rename(task)
        elif task.choice.way is Way.TRUNCATE:
            yield self._truncate(task)
        else:
            yield from self._collapse(task)

    # Collapse

    def _collapse(self, task: Task) -> Iterator[Made]:
        """Archive the whole lines at the head of a log, and take them out under its writers, part by part."""
        with self._opened(task) as (dir_fd, fd):
            archive, left = task.archive, os.fstat(fd).st_size
            while left > 0:
                made = self._collapse_part(task, archive, dir_fd, fd, left)
                if made is None:
                    return
                yield made
                archive, left = replace(archive, number=archive.number + 1), left - made.bytes

    def _collapse_part(self, task: Task, archive: Rotated, dir_fd: int, fd: int, left: int) -> Made | None:
        found, skip = os.fstat(fd), blank_head(fd)
        cut = find_cut(fd, part_size(fd, min(found.st_size, skip + left)), block_size(fd))
        if cut is None or cut.end <= skip:
            return None
        storage = Storage() if self._delayed(task.path) else self._storage
        name = storage.named(archive).name
        written = write_archive(dir_fd, name, Part(fd, skip, cut.end, self._context), storage)
        with self._publishing(dir_fd, task, name):
            os.fdatasync(fd)  # else the collapse does it, and writers wait for that
            self._refuse_misplaced(found)
            self._journal.begin(
                Pending(Step.COLLAPSE, task.path, name, found.st_ino, written.bytes, written.sha256, cut)
            )
            rename_new(dir_fd, hidden(name, UNFINISHED), dir_fd, name)
            cut_off(fd, cut)
            sync_directory(dir_fd)
            os.fsync(fd)
        self._list(task.path, name, written.bytes, written.sha256)
        self._journal.clear()
        return Made(_beside(task.path, name), cut.end - skip, written.bytes)

    # Copy and truncate

    def _truncate(self, task: Task) -> Made:
        """Copy a log and cut it to nothing. What is written between the last look and the cut is lost."""
        with self._opened(task) as (dir_fd, fd):
            found = os.fstat(fd)
            skip, head, name = blank_head(fd), find_head(fd, found.st_size), task.archive.name
            if head is None:
                raise Left("it is too small as yet")
            written = write_archive(dir_fd, name, Part(fd, skip, found.st_size, self._context), Storage())
            with self._publishing(dir_fd, task, name):
                self._refuse_misplaced(found)
                self._journal.begin(
                    Pending(Step.TRUNCATE, task.path, name, found.st_ino, written.bytes, written.sha256, head)
                )
                blank(fd, head)  # while its mark is there, nothing was cut: see `recover`
                rename_new(dir_fd, hidden(name, UNFINISHED), dir_fd, name)
                size = _follow(fd, dir_fd, name, found.st_size)
                sync_directory(dir_fd)
                os.fsync(fd)
            self._journal.clear()
            return Made(_beside(task.path, name), size - skip, size - skip)

    # Rename

    def _rename(self, task: Task) -> Made:
        """Take a log from its place, and leave an empty one there in the same step: the name is never missing."""
        with self._tree.holding(task.path) as (dir_fd, name), opened_regular(name, dir_fd) as fd:
            found = os.fstat(fd)
            _refuse_changed(task, found)
            if self._settings.declared(task.path) is not Declared.REOPENED:
                self._refuse_held(fd, found)
            if os.pread(fd, 1, found.st_size - 1) != b"\n" and time.time() - found.st_mtime < QUIET_S:
                raise Left("its last line is not finished")
            taken = hidden(task.archive.name, TAKEN)
            _make_empty(dir_fd, taken, found, fd)
            try:
                self._expect(task.path, task.archive)
                exchange(dir_fd, taken, dir_fd, name)
                if os.lstat(taken, dir_fd=dir_fd).st_ino != found.st_ino:
                    exchange(dir_fd, taken, dir_fd, name)
                    raise Left("another file has taken its place meanwhile")
            except (OSError, Left):
                _drop_empty(dir_fd, taken, found.st_ino)
                raise
            # From here on the next run would do the rest: a hidden file of that name becomes an archive.
            rename_new(dir_fd, taken, dir_fd, task.archive.name)
            sync_directory(dir_fd)
            size = found.st_size - blank_head(fd)
            return Made(task.archive_path, size, size)

    def _refuse_held(self, fd: int, found: os.stat_result) -> None:
        free = held(fd, PATIENCE_S)
        if free is Held.UNKNOWN or is_shared(self._tree.path):
            who = writers(self._tree.path, [(found.st_dev, found.st_ino)])
            free = Held.NO if who.complete and not who.of else Held.YES
        if free is not Held.NO:
            raise Left("somebody has opened it meanwhile")

    def kept_open(self, tasks: Sequence[Task], settle: bool) -> list[Task]:
        """Which logs that were renamed just now somebody has open for writing, and keeps so.

        A writer that opens its log for each append, and did so in that instant, is done soon: it is waited for, up to
        `SETTLE_S`. With `settle` that time passes in any case: a process may have found the file by its name and not
        have it open yet, so until then nobody may take it that all of its lines are in it.
        """
        deadline = time.monotonic() + SETTLE_S
        kept = [task for task in tasks if self._held(task.archive_path) is Held.YES]
        while (kept or (settle and tasks)) and time.monotonic() < deadline and not self._context.stopping():
            time.sleep(_PAUSE_S)
            kept = [task for task in kept if self._held(task.archive_path) is Held.YES]
        return [task for task in tasks if self._held(task.archive_path) is Held.YES]

    def _held(self, path: str) -> Held:
        try:
            with self._tree.holding(path) as (dir_fd, name), opened_regular(name, dir_fd) as fd:
                return held(fd)
        except OSError:
            return Held.UNKNOWN

    def writers_of(self, path: str) -> tuple[Writer, ...]:
        """The processes that have a file open for writing, as far as they can be seen."""
        with suppress(OSError), self._tree.holding(path) as (dir_fd, name):
            found = os.lstat(name, dir_fd=dir_fd)
            file = (found.st_dev, found.st_ino)
            return writers(self._tree.path, [file]).of.get(file, ())
        return ()

    def put_back(self, task: Task) -> bool:
        """Undo a renaming, because somebody keeps the log open; false when its place is in use already.

        The empty file that was in its place then has the name of the archive: see `drop`.
        """
        with self._tree.holding(task.path) as (dir_fd, name):
            if os.lstat(name, dir_fd=dir_fd).st_size:
                return False
            exchange(dir_fd, task.archive.name, dir_fd, name)
            sync_directory(dir_fd)
            return True

    def drop(self, task: Task) -> None:
        """Remove what `put_back` left. When somebody has written to it meanwhile, it is an archive, and stays."""
        with self._tree.holding(task.archive_path) as (dir_fd, name), opened_regular(name, dir_fd) as fd:
            if held(fd) is Held.YES or os.fstat(fd).st_size:
                return
            os.unlink(name, dir_fd=dir_fd)
        if self._settings.is_audit(task.path):
            self._chain.forget(task.archive_path)

    # Storing

    def store(self, path: str, log: str) -> Made:
        """Compress or seal a plain archive that nobody writes to any more. Raises Left, OSError or DatadError."""
        with self._tree.holding(path) as (dir_fd, plain), opened_regular(plain, dir_fd) as fd:
            place, found = rotated(plain), os.fstat(fd)
            assert place is not None
            if found.st_nlink != 1:
                raise Left("it has another name (a hard link)")
            if self._settings.is_audit(log) and self._chain.name_of(path) not in self._chain.pending():
                raise Left("no rotation of this daemon has made it")
            self._refuse_written(fd, found)
            name, skip = self._storage.named(place).name, blank_head(fd)
            written = write_archive(dir_fd, name, Part(fd, skip, found.st_size, self._context), self._storage)
            pending = Pending(Step.STORE, log, name, found.st_ino, written.bytes, written.sha256, plain=plain)
            try:
                self._refuse_written(fd, found)
                self._journal.begin(pending)
                rename_new(dir_fd, hidden(name, UNFINISHED), dir_fd, name)
                sync_directory(dir_fd)
                os.unlink(plain, dir_fd=dir_fd)
                sync_directory(dir_fd)
            except (OSError, Left):
                self._undone(dir_fd, name)
                raise
            self._list(log, name, written.bytes, written.sha256)
            self._journal.clear()
            return Made(_beside(path, name), found.st_size - skip, written.bytes)

    def _refuse_written(self, fd: int, before: os.stat_result) -> None:
        """Raises Left when somebody writes to an archive, or may still do so."""
        free, found = held(fd), os.fstat(fd)
        if free is Held.YES or (found.st_size, found.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise Left("somebody writes to it still")
        if free is Held.UNKNOWN or is_shared(self._tree.path):
            lately = time.time() - max(found.st_mtime, found.st_ctime) < QUIET_S
            if lately or writers(self._tree.path, [(found.st_dev, found.st_ino)]).of:
                raise Left("nobody knows whether somebody writes to it still")

    def expected(self) -> set[str]:
        """The plain paths of audit archives that were made and are not in the manifest yet."""
        return {f"{self._settings.audit}/{name}" for name in self._chain.pending()}

    def plain_path(self, path: str) -> str:
        """The path of an archive before it was compressed and sealed."""
        place = rotated(path.rpartition("/")[2])
        return _beside(path, place.plain.name) if place is not None else path

    def list_expected(self, path: str, log: str) -> None:
        """Take an audit archive into the manifest that stays as it is, or that a kill has kept from it, once nobody
        writes to it any more. Raises Left or OSError.
        """
        plain = self.plain_path(path) == path
        if plain and not self._storage.plain:
            return
        with self._tree.holding(path) as (dir_fd, name), opened_regular(name, dir_fd) as fd:
            found = os.fstat(fd)
            digest = digest_of(Part(fd, 0, found.st_size, self._context))
            if plain:
                self._refuse_written(fd, found)
        self._chain.add(path, found.st_size, digest, self._context.now)

    # What several ways need

    def _delayed(self, log: str) -> bool:
        """Whether a new archive stays plain at first; not of an audit log, because the manifest lists what stays."""
        return self._settings.delay_compress and not self._settings.is_audit(log)

    @contextmanager
    def _opened(self, task: Task) -> Iterator[tuple[int, int]]:
        """The log's directory, pinned, and the log, to be cut."""
        with self._tree.holding(task.path) as (dir_fd, name), opened_for_cutting(name, dir_fd) as fd:
            _refuse_changed(task, os.fstat(fd))
            yield dir_fd, fd

    @contextmanager
    def _publishing(self, dir_fd: int, task: Task, name: str) -> Iterator[None]:
        """The block gives an archive its name and cuts the log. When it can't, all is as it was before."""
        place = rotated(name)
        assert place is not None
        try:
            self._expect(task.path, place)
            yield
        except (OSError, Left, DatadError):
            if not self._undone(dir_fd, name) and self._settings.is_audit(task.path):
                self._chain.forget(_beside(task.path, place.plain.name))
            raise

    def _undone(self, dir_fd: int, name: str) -> bool:
        """Take back what has not come to its end; whether a step was begun. Raises Stuck when that is impossible."""
        begun = recover(self._context, self._journal, self._chain) is not None
        if not begun:
            with suppress(FileNotFoundError):
                os.unlink(hidden(name, UNFINISHED), dir_fd=dir_fd)
        return begun

    def _refuse_misplaced(self, found: os.stat_result) -> None:
        """Look once more at who writes, just before the cut. Raises Left."""
        file = (found.st_dev, found.st_ino)
        for writer in writers(self._tree.path, [file]).of.get(file, ()):
            if not writer.appends:
                raise Left(f"process {writer.pid} ({writer.command}) has opened it meanwhile, and not in append mode")

    def _expect(self, log: str, archive: Rotated) -> None:
        if self._settings.is_audit(log):
            self._chain.expect(_beside(log, archive.plain.name))

    def _list(self, log: str, archive: str, size: int, digest: str) -> None:
        if self._settings.is_audit(log):
            self._chain.add(_beside(log, archive), size, digest, self._context.now)


def _refuse_changed(task: Task, found: os.stat_result) -> None:
    if found.st_ino != task.log.entry.inode or found.st_nlink != 1:
        raise Left("another file has taken its place meanwhile")


def _make_empty(dir_fd: int, name: str, like: os.stat_result, like_fd: int) -> None:
    """An empty file that its writers can append to as to the one that it is like. Raises Left when we can't make it."""
    with suppress(FileNotFoundError):
        if os.lstat(name, dir_fd=dir_fd).st_size == 0:
            os.unlink(name, dir_fd=dir_fd)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        whole = make_like(fd, like, like_fd)
    finally:
        os.close(fd)
    if not whole:
        os.unlink(name, dir_fd=dir_fd)
        raise Left(f"the daemon may not make a file of its owner (uid {like.st_uid}, gid {like.st_gid})")


def _drop_empty(dir_fd: int, name: str, log_inode: int) -> None:
    """Remove the empty file that was to take a log's place; never the log."""
    with suppress(OSError):
        found = os.lstat(name, dir_fd=dir_fd)
        if found.st_ino != log_inode and found.st_size == 0:
            os.unlink(name, dir_fd=dir_fd)


def _follow(fd: int, dir_fd: int, archive: str, offset: int) -> int:
    """Append to a plain archive what the log has from `offset` on, and cut the log to nothing as soon as that is all.

    It waits a little for the end of a line. Hands back how many bytes the log had.
    """
    out = os.open(archive, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        last = os.pread(fd, 1, offset - 1)
        for _ in range(_LOOKS):
            data = os.pread(fd, CHUNK, offset)
            if not data and last == b"\n":
                break
            view = memoryview(data)
            while view:
                view = view[os.write(out, view) :]
            offset, last = offset + len(data), data[-1:] or last
        found = os.fstat(fd)
        os.ftruncate(fd, 0)
        os.utime(out, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(out)
    finally:
        os.close(out)
    return offset


def _beside(path: str, name: str) -> str:
    """The path of something of that name in the directory of `path`."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"
