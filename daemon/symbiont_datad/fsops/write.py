"""Writing that survives a crash, and moving aside instead of deleting."""

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import QUARANTINE, Tree, beneath, give_away, pinned, readable, set_mode, sync_directory
from symbiont_datad.report import octal, printable

_TRIES = 20
_PAUSE_S = 0.001

ITEM = "item"
"""What a thing is called in its cell of the quarantine."""


def write_atomic(
    dir_fd: int,
    name: str,
    data: bytes,
    mode: int = 0o600,
    *,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> None:
    """Replace the file `name` in a pinned directory by `data`, whole or not at all. `owner`: its uid and gid.

    Temporary file in the same directory, write, fsync, rename, fsync of the directory. Raises OSError, and then the old
    file is untouched and the temporary one gone. Without `durable` nothing is synced: for what is written anew all the
    time, and worth nothing after a crash.

    The temporary file is always a new one: what has its name (left by a crash, or planted: a hard link to somebody
    else's file, a FIFO that would block) is unlinked, never opened.
    """
    temporary = f".{os.fsdecode(os.fsencode(name)[:200])}.{os.getpid()}.tmp"  # NAME_MAX is 255 bytes
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        try:
            if owner is not None and os.geteuid() == 0:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    if durable:
        sync_directory(dir_fd)


def append_line(dir_fd: int, name: str, line: bytes) -> None:
    """Append one line to a log file in a pinned directory, in one write; the file is made with mode 0600.

    A line that a crash cut off before it stays a line of its own.

    Raises OSError when the name belongs to a link, to something that is no regular file, or to a file with another name
    elsewhere (a hard link).
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = _opened(name, flags, dir_fd)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise OSError(errno.EPERM, f"not written to {describe(found)}", name)
        cut_off = found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != b"\n"
        os.write(fd, b"\n" + line if cut_off else line)
    finally:
        os.close(fd)


def _opened(name: str, flags: int, dir_fd: int) -> int:
    """Open without waiting for the other end of a FIFO, and yet wait out the instant of a lease (`fsops.lease`)."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            return os.open(name, flags, 0o600, dir_fd=dir_fd)
        time.sleep(_PAUSE_S)
    return os.open(name, flags, 0o600, dir_fd=dir_fd)


class Changed(OSError):
    """What is to be moved is not, or no longer, what it was when that was decided. It is in its place."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EBUSY, "it has changed meanwhile", path)


def quarantine(
    tree: Tree,
    path: str,
    *,
    kind: str,
    reason: str,
    now: float,
    unchanged: Callable[[os.stat_result], bool] = lambda _: True,
) -> str:
    """Move what lies at `path` (relative to the root) into quarantine, whole; hand back where it is now, relative too.

    A record of why (`record.json`) is on the disk before the move. A link is moved as a link. `unchanged` is asked of
    what lstat says of it as late as possible, and once more when it was moved: somebody may have been opening it to
    write. Then it gets its place back, if nothing else has that by now. Raises OSError (`Changed`, if it was that) or
    UnsafePath; then nothing was moved and no trace is left, unless it was the last fsync that failed.
    """
    folder, _, name = path.rpartition("/")
    with (
        tree.root() as root_fd,
        _beneath_or_self(root_fd, folder) as from_fd,
        quarantine_cell(root_fd, now) as (cell, cell_fd),
    ):
        found = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
        write_record(cell_fd, from_fd, path, found, kind=kind, reason=reason, now=now)
        current = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
        if not os.path.samestat(found, current):  # an fsync is long enough for somebody to put things right
            raise OSError(errno.EBUSY, "something else is there by now", path)
        if not unchanged(current):
            raise Changed(path)
        os.rename(name, ITEM, src_dir_fd=from_fd, dst_dir_fd=cell_fd)
        if not unchanged(os.stat(ITEM, dir_fd=cell_fd, follow_symlinks=False)):
            with suppress(FileExistsError):  # who wrote a new one there has no use for this one
                rename_new(cell_fd, ITEM, from_fd, name)
                sync_directory(from_fd)
                raise Changed(path)
        sync_directory(cell_fd)
        sync_directory(from_fd)
    return f"{QUARANTINE}/{cell}/{ITEM}"


@contextmanager
def quarantine_cell(
    root_fd: int, now: float, announce: Callable[[str], object] = lambda name: None
) -> Iterator[tuple[str, int]]:
    """A new directory in the quarantine for one thing: its name and its pinned descriptor.

    `announce` is told the name before there is anything. The cell is durable when the block ends. If that raises, the
    cell goes when there is nothing but a record in it.
    """
    with _quarantine_directory(root_fd) as quarantine_fd:
        cell = _new_cell(quarantine_fd, now, announce)
        with pinned(cell, quarantine_fd) as cell_fd:
            try:
                _hand_over(root_fd, cell_fd)
                yield cell, cell_fd
            except BaseException:
                drop_cell(quarantine_fd, cell, cell_fd)
                raise
        sync_directory(quarantine_fd)


def drop_cell(quarantine_fd: int, cell: str, cell_fd: int) -> None:
    """Remove a cell of the quarantine in which there is nothing but a record; leave it otherwise."""
    with readable(".", cell_fd) as fd:
        if not {"record.json"}.issuperset(os.listdir(fd)):
            return
    with suppress(OSError):
        os.unlink("record.json", dir_fd=cell_fd)
    with suppress(OSError):
        os.rmdir(cell, dir_fd=quarantine_fd)


def write_record(
    cell_fd: int, from_fd: int, path: str, found: os.stat_result, *, kind: str, reason: str, now: float
) -> None:
    """Write down why what lies at `path` (its name in the directory `from_fd`) comes into this cell. Durable."""
    record = _record(path, found, kind=kind, reason=reason, now=now)
    if stat.S_ISLNK(found.st_mode):
        record["target"] = printable(os.readlink(path.rpartition("/")[2], dir_fd=from_fd))
    write_atomic(cell_fd, "record.json", json.dumps(record, indent=2).encode() + b"\n")


def _record(path: str, found: os.stat_result, *, kind: str, reason: str, now: float) -> dict[str, Any]:
    return {
        "schema": 1,
        "path": printable(path),
        "name": printable(path.rpartition("/")[2]),
        "kind": kind,
        "reason": reason,
        "at": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
        "type": describe(found),
        "mode": octal(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "bytes": found.st_size,
    }


def describe(found: os.stat_result) -> str:
    """What a file is, in words: `a symbolic link`, `a FIFO`, `a file with 2 hard links`."""
    mode = found.st_mode
    if stat.S_ISREG(mode):
        return f"a file with {found.st_nlink} hard links" if found.st_nlink > 1 else "a file"
    names = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((name for test, name in names if test(mode)), "something unknown")


@contextmanager
def _beneath_or_self(fd: int, path: str) -> Iterator[int]:
    if not path:
        yield fd
        return
    with beneath(fd, path) as found:
        yield found


def _new_cell(quarantine_fd: int, now: float, announce: Callable[[str], object]) -> str:
    """Make an empty directory in the quarantine: `20261123T035000Z`, with `-1`, `-2` … when there is one already."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        cell = f"{stamp}-{number}" if number else stamp
        number += 1
        if _exists(cell, quarantine_fd):
            continue
        announce(cell)
        with suppress(FileExistsError):
            os.mkdir(cell, 0o700, dir_fd=quarantine_fd)
            return cell


@contextmanager
def _quarantine_directory(root_fd: int) -> Iterator[int]:
    """`.quarantine`, made if need be. What stands in its way is renamed beside it."""
    made = _made(root_fd)
    found = os.stat(QUARANTINE, dir_fd=root_fd, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or os.geteuid() not in (0, found.st_uid):
        number = 1
        while _exists(f"{QUARANTINE}.obstruction-{number}", root_fd):
            number += 1
        aside = f"{QUARANTINE}.obstruction-{number}"
        os.rename(QUARANTINE, aside, src_dir_fd=root_fd, dst_dir_fd=root_fd)
        made = _made(root_fd)
    with beneath(root_fd, QUARANTINE) as fd:
        if stat.S_IMODE(os.fstat(fd).st_mode) != 0o700:
            set_mode(fd, 0o700)
        if made:
            _hand_over(root_fd, fd)
        yield fd


def _made(root_fd: int) -> bool:
    try:
        os.mkdir(QUARANTINE, 0o700, dir_fd=root_fd)
    except FileExistsError:
        return False
    return True


def _hand_over(root_fd: int, fd: int) -> None:
    """As root, give a new directory to the tree's owner: what `sudo` puts into quarantine is the user's to remove."""
    if os.geteuid() == 0:
        above = os.fstat(root_fd)
        give_away(fd, above.st_uid, above.st_gid)


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
