"""Days of the prompt history, each packed into one compressed file that takes its directory's place.

The steps, each of which may be the last one that a kill lets happen: the file is written in a cell of the quarantine,
made durable, read back and compared with what was read → it is renamed into its place beside the day → the day's
directory moves into the cell, and is compared once more there. So the day is always in the tree, as a directory, as a
file or as both; the next run finds a file that is there already, compares it, and goes on.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import count
from typing import NamedTuple

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.packed import ENDING, SEALED, Member, Packer, members, packing
from symbiont_datad.fsops.aside import Aside, aside, record_of
from symbiont_datad.fsops.cells import PACKED, remove_cell
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import Tree, pinned, sync_directory
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.listing import Keeping
from symbiont_datad.jobs.removal import Book
from symbiont_datad.jobs.secrets import age_identity
from symbiont_datad.jobs.tally import Tally
from symbiont_datad.quantities import format_duration, spell_duration
from symbiont_datad.report import Action, Finding, Severity
from symbiont_datad.retention.days import end_of_day
from symbiont_datad.retention.rules import Rule
from symbiont_datad.retention.units import Unit

DAY_PACKED = "day_packed"
_STAGE = "packed"
"""The directory in a cell in which packed files are written."""


class _Changed(Exception):
    """The day is no longer what was planned."""


class _Keys(NamedTuple):
    """Who can open what is packed, and the key itself; both empty when it isn't sealed."""

    recipient: str = ""
    identity: str = ""


def pack_days(
    context: JobContext, rule: Rule, units: Iterable[Unit], keeping: Keeping, book: Book, tally: Tally
) -> None:
    """Pack those of the units that are directories of days which ended, and were last written to, long enough ago."""
    planned = due(rule, units, context.now)
    if planned and context.settings.keep_if_open:
        opened = keeping.open_ones(planned)
        planned = [unit for unit in planned if unit.path not in opened]
    if not planned:
        return
    ending = _ending(context.settings.repository.secrets.encrypted)
    actions = [_action(rule, unit, ending, context.now) for unit in planned]
    if context.dry_run:
        tally.actions += actions
        tally.packed += len(actions)
        return
    try:
        keys = _keys(context)
        with _cell(context, rule, planned) as cell:
            os.mkdir(_STAGE, 0o700, dir_fd=cell.cell_fd)
            try:
                _pack_all(context, planned, actions, cell, keys, book, tally)
            finally:
                with suppress(OSError):
                    os.rmdir(_STAGE, dir_fd=cell.cell_fd)
    except (DatadError, OSError) as error:
        detail = f"days can't be packed: {getattr(error, 'strerror', None) or error}"
        tally.findings.append(Finding("not_packed", rule.directory, Severity.WARNING, detail))
        return
    if context.settings.undo_window_s <= 0:
        remove_cell(context.layout.tree, cell.name, context.stopping)


def due(rule: Rule, units: Iterable[Unit], now: float) -> list[Unit]:
    """The units that are to be packed, in the order of their paths; `now` in seconds since the epoch."""
    limit_ns = int((now - (rule.pack_after_s or 0.0)) * 1e9)
    found = []
    for unit in units:
        over = end_of_day(unit.path[len(rule.prefix) :]) if unit.whole else None
        if over is not None and over < limit_ns and _written_ns(unit) < limit_ns:
            found.append(unit)
    return sorted(found)


def _written_ns(unit: Unit) -> int:
    return max(entry.mtime_ns for entry in unit.members)


def _ending(sealed: bool) -> str:
    return ENDING + (SEALED if sealed else "")


def _action(rule: Rule, unit: Unit, ending: str, now: float) -> Action:
    age = format_duration((int(now * 1e9) - _written_ns(unit)) // (3600 * 10**9) * 3600)
    count = f"{len(unit.members):,} file{'s' if len(unit.members) > 1 else ''}"
    day = unit.path.rpartition("/")[2]
    text = f"not changed for {age}, over {spell_duration(rule.pack_after_s or 0)}: {count}, now in {day}{ending}"
    return Action(DAY_PACKED, unit.path, rule.name, text, unit.size)


def _keys(context: JobContext) -> _Keys:
    secrets = context.settings.repository.secrets
    if not secrets.encrypted:
        return _Keys()
    from symbiont_datad.formats.age import recipient_of

    identity = age_identity(secrets)
    return _Keys(recipient_of(identity), identity)


def _cell(context: JobContext, rule: Rule, units: Sequence[Unit]) -> AbstractContextManager[Aside]:
    return aside(
        context.layout.tree,
        record_of(
            PACKED,
            path=rule.directory,
            rule=rule.name,
            reason="packed into one file a day",
            now=context.now,
            until=context.now + context.settings.undo_window_s,
            files=sum(len(unit.members) for unit in units),
            size=sum(unit.size for unit in units),
        ),
        context.now,
    )


def _pack_all(
    context: JobContext,
    units: Sequence[Unit],
    actions: Sequence[Action],
    cell: Aside,
    keys: _Keys,
    book: Book,
    tally: Tally,
) -> None:
    done: list[Action] = []
    for unit, action in zip(units, actions, strict=True):
        if context.stopping():
            tally.interrupted = True
            break
        rows = book.plan([action])
        failure = _pack(context.layout.tree, unit, cell, keys)
        book.confirm(rows, [] if failure else [action], [failure] if failure else [])
        if failure:
            tally.add_failures([failure])
        else:
            done.append(action)
    tally.actions += done
    tally.packed += len(done)
    tally.undoable |= context.settings.undo_window_s > 0 and bool(done)
    if done:
        emit("history_packed", job=tally.job, days=len(done), bytes=sum(action.bytes for action in done))


def _pack(tree: Tree, unit: Unit, cell: Aside, keys: _Keys) -> Failure | None:
    """Pack one day; why not, if it can't be."""
    folder = unit.path.rpartition("/")[0]
    ending = _ending(bool(keys.recipient))
    try:
        with tree.directory(folder) as folder_fd, pinned(_STAGE, cell.cell_fd) as stage_fd:
            name, made = _packed_already(tree, unit, ending, folder_fd, keys)
            if made is None:
                made = _write(tree, unit, name, stage_fd, keys)
                rename_new(stage_fd, name, folder_fd, name)
                sync_directory(folder_fd)
            failure = cell.move_directory(unit.path, unit.members)
            if failure is not None:
                _take_back(name, folder_fd, made)
            return failure
    except _Changed:
        return Failure(unit.path, "changed since it was planned", True)
    except (OSError, UnsafePath, ValueError) as error:
        return Failure(unit.path, getattr(error, "strerror", None) or str(error), False)


def _packed_already(
    tree: Tree, unit: Unit, ending: str, folder_fd: int, keys: _Keys
) -> tuple[str, os.stat_result | None]:
    """The name for the packed day, and the file, if one that holds the day as it is has such a name already.

    Where another file has it (somebody wrote to the day after it was packed), a number makes the name a new one.
    """
    day = unit.path.rpartition("/")[2]
    for number in count(1):
        name = f"{day}{f'-{number}' if number > 1 else ''}{ending}"
        try:
            there = os.lstat(name, dir_fd=folder_fd)
        except FileNotFoundError:
            return name, None
        if stat.S_ISREG(there.st_mode) and _same(tree, unit, name, folder_fd, keys):
            return name, there
    raise AssertionError


def _take_back(name: str, folder_fd: int, made: os.stat_result) -> None:
    """Remove a packed file whose day has changed: it is there, and newer."""
    with suppress(OSError):
        if os.path.samestat(made, os.lstat(name, dir_fd=folder_fd)):
            os.unlink(name, dir_fd=folder_fd)


def _write(tree: Tree, unit: Unit, name: str, stage_fd: int, keys: _Keys) -> os.stat_result:
    """Write a day into the new file `name`, durably, and read it back. Raises OSError or _Changed."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=stage_fd)
    try:
        with open(fd, "rb+", closefd=False) as out:
            with packing(out, keys.recipient) as packer:
                packed = list(_read_day(tree, unit, packer))
            out.flush()
            out.seek(0)
            if list(members(out, keys.identity)) != packed:
                raise OSError("what was packed reads back differently")
        with tree.holding(unit.path) as (above_fd, day):
            like = os.lstat(day, dir_fd=above_fd)
        if os.geteuid() == 0:
            os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, (like.st_mode & 0o666) | 0o600)
        # As old as the day is, so that the same rules find it when they would have found the day.
        os.utime(fd, ns=(_written_ns(unit), _written_ns(unit)))
        os.fsync(fd)
        return os.fstat(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=stage_fd)
        raise
    finally:
        os.close(fd)


def _same(tree: Tree, unit: Unit, name: str, folder_fd: int, keys: _Keys) -> bool:
    """Whether the packed file `name` holds the day as it is. Raises _Changed when that is no longer as planned."""
    try:
        with opened_regular(name, folder_fd) as fd, open(fd, "rb", closefd=False) as file:
            packed = list(members(file, keys.identity))
    except (OSError, ValueError):
        return False
    return packed == list(_read_day(tree, unit, None))


class _Reader:
    """Takes the place of a packer where a day is only read."""

    def add(self, member: Member) -> None:
        """Nothing is to be done about it."""

    def add_file(self, member: Member, fd: int) -> Member:
        """Read the content, and hand the member back with its digest."""
        from hashlib import sha256

        digest, left = sha256(), member.size
        while left > 0 and (data := os.read(fd, min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        return member._replace(digest=digest.digest())


def _read_day(tree: Tree, unit: Unit, packer: Packer | None) -> Iterable[Member]:
    """Read a day, the directories first, and hand its members to the packer. Raises OSError or _Changed."""
    sink = packer or _Reader()
    cut = len(unit.path) - len(unit.path.rpartition("/")[2])
    directories: list[Member] = []
    planned = {entry.path: entry for entry in unit.members}

    def entered(path: str, fd: int) -> None:
        found = os.fstat(fd)
        mode = stat.S_IMODE(found.st_mode)
        directories.append(Member(path[cut:], "directory", mode, found.st_uid, found.st_gid, found.st_mtime_ns))

    def unread(path: str, error: OSError) -> None:
        raise OSError(error.errno or 0, error.strerror or str(error), path)

    entries = sorted(walk(tree, unit.path, on_error=unread, on_directory=entered))
    if [entry.path for entry in entries] != sorted(planned) or any(
        (entry.inode, entry.size, entry.mtime_ns) != (old.inode, old.size, old.mtime_ns)
        for entry, old in ((entry, planned[entry.path]) for entry in entries)
    ):
        raise _Changed
    for member in sorted(directories):
        sink.add(member)
        yield member
    for entry in entries:
        yield _read_entry(tree, entry, cut, sink)


def _read_entry(tree: Tree, entry: Entry, cut: int, sink: "Packer | _Reader") -> Member:
    member = Member(
        entry.path[cut:], "file", stat.S_IMODE(entry.mode), entry.uid, entry.gid, entry.mtime_ns, entry.size
    )
    with tree.holding(entry.path) as (above_fd, name):
        if stat.S_ISLNK(entry.mode):
            target = os.readlink(name, dir_fd=above_fd)
            link = member._replace(kind="link", size=0, target=target)
            sink.add(link)
            return link
        with opened_regular(name, above_fd) as fd:
            if entry.differs(os.fstat(fd)):
                raise _Changed
            read = sink.add_file(member, fd)
            if entry.differs(os.fstat(fd)):
                raise _Changed
            return read
