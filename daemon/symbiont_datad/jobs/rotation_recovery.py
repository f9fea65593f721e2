"""What a rotation that was cut short has left: taken back, or finished where the log is cut already."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.formats.rotated import TAKEN, UNFINISHED, following, hidden, hidden_part, rotated
from symbiont_datad.fsops.collapse import Stage, close_gap, put_back, stage_of
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import sync_directory
from symbiont_datad.jobs.audit_chain import AuditChain
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.log_files import LogFiles
from symbiont_datad.jobs.rotation_journal import Journal, Pending, Step, Unreadable
from symbiont_datad.report import printable


class Stuck(DatadError):
    """A step can be neither finished nor taken back now. Nothing else may be rotated before it is."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A step that was cut short: the log's path, and what was done about it, for people."""

    path: str
    what: str


def recover(context: JobContext, journal: Journal, chain: AuditChain) -> Recovered | None:
    """Take back or finish the step that was under way; None when there was none. Raises Stuck."""
    try:
        pending = journal.read()
        if pending is None:
            return None
        what = _settled(context, chain, pending)
        journal.clear()
    except (OSError, UnsafePath, Unreadable) as error:
        raise Stuck(f"a rotation was cut short, and can't be put right now: {error}") from error
    return Recovered(pending.log, what)


def _settled(context: JobContext, chain: AuditChain, pending: Pending) -> str:
    log, archive, audit = pending.log, pending.archive, context.settings.logs.is_audit(pending.log)
    try:
        with context.layout.tree.holding(log) as (dir_fd, name):
            if not _is_done(dir_fd, name, pending):
                with suppress(FileNotFoundError):
                    os.unlink(hidden(archive, UNFINISHED), dir_fd=dir_fd)
                sync_directory(dir_fd)
                if audit and pending.step is not Step.STORE:
                    chain.forget(_plain(log, archive))
                return "a rotation was cut short and taken back: the log is as it was"
            if _exists(dir_fd, hidden(archive, UNFINISHED)):
                rename_new(dir_fd, hidden(archive, UNFINISHED), dir_fd, archive)
                sync_directory(dir_fd)
            if not _exists(dir_fd, archive):
                return "a rotation was cut short, and its archive is gone"
    except (FileNotFoundError, NotADirectoryError):
        return "a rotation was cut short, and its directory is gone"
    if audit and pending.step is not Step.TRUNCATE:  # that one is listed when it is stored
        chain.add(_beside(log, archive), pending.bytes, pending.sha256, context.now)
    return f"a rotation was cut short and finished: {printable(archive)} is whole"


def _is_done(dir_fd: int, name: str, pending: Pending) -> bool:
    """Whether the step is past the point from which it can be taken back. Else it is taken back when this returns, but
    for the archive, which has its hidden name again.

    It loses its name first: so as long as it has it, a log whose head was to be marked was marked.
    """
    archive, unfinished = pending.archive, hidden(pending.archive, UNFINISHED)
    published = _exists(dir_fd, archive) and not _exists(dir_fd, unfinished)
    cut = pending.cut
    if cut is None:
        if not _same(dir_fd, pending.plain, pending.inode):
            return True
        if published:
            os.rename(archive, unfinished, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return False
    with _log(dir_fd, name, pending.inode) as fd:
        stage = stage_of(fd, cut) if fd is not None else Stage.FOREIGN
        if stage is Stage.UNTOUCHED and published and pending.step is Step.TRUNCATE:
            return True  # it was cut, and the same lines were written again since
        if stage is Stage.GAP and fd is not None:
            close_gap(fd, cut)
            os.fsync(fd)
            return True
        if stage is Stage.DONE:
            return True
        if fd is None or stage is Stage.FOREIGN:  # who knows what became of the lines: an archive that is there stays
            return published
        if published:
            os.rename(archive, unfinished, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        put_back(fd, cut)
        os.fsync(fd)
    return False


@contextmanager
def _log(dir_fd: int, name: str, inode: int) -> Iterator[int | None]:
    """The log, to be written to; None when another file, or none, has its name."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        yield None
        return
    try:
        found = os.fstat(fd)
        yield fd if found.st_ino == inode and found.st_nlink == 1 else None
    finally:
        os.close(fd)


def tidy(context: JobContext, files: LogFiles) -> list[Recovered]:
    """Give logs that were taken from their place the name of an archive, and remove archives that were never finished.

    Raises nothing of its own: what can't be done now is done by the next run.
    """
    found: list[Recovered] = []
    for entry in files.unfinished:
        with suppress(OSError, UnsafePath), context.layout.tree.holding(entry.path) as (dir_fd, name):
            os.unlink(name, dir_fd=dir_fd)
    for entry in files.taken:
        with suppress(OSError, UnsafePath), context.layout.tree.holding(entry.path) as (dir_fd, name):
            place = hidden_part(name, TAKEN)
            assert place is not None
            log = _beside(entry.path, place.live)
            if os.lstat(name, dir_fd=dir_fd).st_size == 0:
                os.unlink(name, dir_fd=dir_fd)
                continue
            newest = files.newest(log)
            if newest is not None and not newest < place:
                place = following(place.live, newest, place.at)
            rename_new(dir_fd, name, dir_fd, place.name)
            sync_directory(dir_fd)
            found.append(Recovered(log, f"a rotation was cut short and finished: {printable(place.name)} is whole"))
    return found


def _same(dir_fd: int, name: str, inode: int) -> bool:
    try:
        return os.lstat(name, dir_fd=dir_fd).st_ino == inode
    except FileNotFoundError:
        return False


def _exists(dir_fd: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def _plain(log: str, archive: str) -> str:
    place = rotated(archive)
    return _beside(log, place.plain.name if place is not None else archive)


def _beside(path: str, name: str) -> str:
    """The path of something of that name in the directory of `path`."""
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"
