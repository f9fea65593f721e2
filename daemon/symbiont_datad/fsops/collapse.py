"""Taking the head out of a log while a process appends to it: no line lost, torn or doubled.

`FALLOC_FL_COLLAPSE_RANGE` removes a range of bytes "without leaving a hole": what follows moves to where the range
began, and the file is shorter by its length (fallocate(2), "Collapsing file space"; Linux 3.15). The kernel holds the
file's lock meanwhile (`i_rwsem`, in ext4_collapse_range and xfs_file_fallocate), as it does for each write; so a write
comes wholly before or wholly after. A descriptor in append mode has no place of its own: each write goes to the end of
the file as it is then (open(2), "O_APPEND"). So such a writer notices nothing, and none of its bytes is lost or
changes its place in the stream. A writer with a place of its own would go on there, behind the new end, and leave a
gap: this is nothing for a file that has one.

The range must be whole blocks, and a line seldom ends with one. With `at` the boundary, the archive holds all up to
`end`, the end of a line behind it, and what the live file has from the beginning of the line at `at` up to `end` is
overwritten with blanks and one newline (fsops/blank.py). What a reader of the live file sees:

    before      a b c d e f g | h h i i j …     `|` is `at`; the line h lies across it
    blanked     a b c d e f g | _ _ i i j …     h is in the archive; a to g are in both for an instant
    collapsed   _ _ i i j …                     archive and live file are the stream

Each step is one system call, and the file itself shows which were made: the blank line carries a mark that is used once
(`stage_of`). So after a kill the next run takes it back (`put_back`), or finds it done.

The collapse itself is one step for other processes, but not for a kill or a loss of power: the range is freed first,
then what follows is moved extent by extent, and xfs sets the new size last, which a pending SIGKILL keeps it from
(`fatal_signal_pending` in iomap's write_begin, below xfs_falloc_setsize). Then as many NUL bytes as should have gone
are left at the head, in between, or at the end, and writers append behind them. Nothing of the stream is lost by that:
the next run finds them and takes them out (`close_gap`).

One window is left, that of the blanking itself. While some KiB are copied into the page cache, a reader at that very
place may see the line half blank on file systems that don't lock reads (ext4; xfs does); and of a line that has more
than `_BLANKED` bytes before the boundary, it sees those until the collapse. The archive has the line whole before it
begins, and no crash leaves it like that for longer than until the next run.

macOS has no such call: there `can_collapse` says no.
"""

import ctypes
import errno
import fcntl
import os
from dataclasses import dataclass
from enum import Enum

from symbiont_datad.fsops.blank import SHORTEST, blank_line, mark_of, new_mark

_KEEP_NOTHING = 0x08  # FALLOC_FL_COLLAPSE_RANGE of linux/falloc.h
_STEP = 1 << 16
_LONGEST = 1 << 26
_BLANKED = 1 << 16  # how much of a line before the boundary is blanked: an instant's work

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a log is cut, in bytes from its beginning: up to `at` it goes; `start` to `end` is blanked before.

    `original` is what was there. With `at == start == 0` nothing goes: it only marks the head of a log.
    """

    start: int
    at: int
    end: int
    mark: bytes
    original: bytes

    @property
    def blank(self) -> bytes:
        """What takes the place of `original`."""
        return b" " * (self.at - self.start) + blank_line(self.mark, self.end - self.at)


class Stage(Enum):
    """How far a cut is."""

    UNTOUCHED = "untouched"
    BLANKED = "blanked"
    """The blank line is at the boundary, all of it or a part."""
    GAP = "gap"
    """The collapse was cut short: instead of what should have gone there are NUL bytes somewhere."""
    DONE = "done"
    """The blank line is the head of the file, or of a marked head it is gone."""
    FOREIGN = "foreign"
    """The file is not what it was: somebody else has changed or replaced it."""


def can_collapse(dir_fd: int) -> bool:
    """Whether the file system of a pinned directory can do it. It is tried on a file that has no name (`O_TMPFILE`).

    Not on a log: ext4 gives a file new times even when it refuses.
    """
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    except (OSError, AttributeError):  # macOS has no such files
        return False
    try:
        block = block_size(fd)
        os.ftruncate(fd, 2 * block)
        _collapse(fd, block)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def block_size(fd: int) -> int:
    """The size in bytes of which `at` must be a multiple."""
    return os.fstatvfs(fd).f_bsize


def find_cut(fd: int, size: int, block: int) -> Cut | None:
    """Where to cut a log, of which the first `size` bytes count; None when there are no two blocks of whole lines.

    As much goes as can; of the lines behind the boundary as few as the blank line needs room for. A line that has not
    ended after `_LONGEST` bytes is not looked through.
    """
    last = _line_end_before(fd, size, max(0, size - _LONGEST))
    at = (last - SHORTEST) // block * block
    if last == 0 or at < 2 * block:  # of less than two blocks of NUL bytes none might be a hole (`_gap`)
        return None
    end = _line_end_after(fd, at + SHORTEST - 1, last)
    start = _line_end_before(fd, at, max(0, at - _BLANKED)) or (0 if at <= _BLANKED else at)
    return Cut(start, at, end, new_mark(), os.pread(fd, end - start, start))


def find_head(fd: int, size: int) -> Cut | None:
    """A cut that only marks the head of a log: its first lines, as many as are needed; None when there are too few."""
    last = _line_end_before(fd, min(size, _STEP), 0)
    if last < SHORTEST:
        return None
    end = _line_end_after(fd, SHORTEST - 1, last)
    return Cut(0, 0, end, new_mark(), os.pread(fd, end, 0))


def blank(fd: int, cut: Cut) -> None:
    """Overwrite what is archived and stays behind. Raises OSError; a file that somebody has changed is not touched."""
    if os.pread(fd, cut.end - cut.start, cut.start) != cut.original:
        raise OSError(errno.ESTALE, "somebody else has cut or changed the file")
    _write_at(fd, cut.blank, cut.start)


def cut_off(fd: int, cut: Cut) -> None:
    """Blank, then collapse. Raises OSError; then the file is as it was, unless the one who raised has changed it."""
    blank(fd, cut)
    try:
        if stage_of(fd, cut) is not Stage.BLANKED:
            raise OSError(errno.ESTALE, "somebody else has changed the file")
        _collapse(fd, cut.at)
    except OSError:
        put_back(fd, cut)
        raise


def put_back(fd: int, cut: Cut) -> None:
    """Undo the blanking, where that is all that has happened."""
    if stage_of(fd, cut) is Stage.BLANKED:
        _write_at(fd, cut.original, cut.start)


def stage_of(fd: int, cut: Cut) -> Stage:
    """How far a cut is that may have been interrupted at any instant."""
    if cut.at and mark_of(os.pread(fd, SHORTEST, 0)) == cut.mark:
        return Stage.DONE if _gap(fd, cut) is None else Stage.GAP
    if cut.at and mark_of(os.pread(fd, SHORTEST, cut.at)) == cut.mark and _gap(fd, cut) is not None:
        return Stage.GAP
    found = os.pread(fd, cut.end - cut.start, cut.start)
    if found == cut.original:
        return Stage.UNTOUCHED
    # A kill can end the write between two pages: then each byte is either the old or the new one.
    if len(found) == len(cut.original) and all(
        byte in both for byte, both in zip(found, zip(cut.original, cut.blank, strict=True), strict=True)
    ):
        return Stage.BLANKED
    return Stage.FOREIGN if cut.at else Stage.DONE


def close_gap(fd: int, cut: Cut) -> None:
    """Take out the NUL bytes that a collapse has left that was cut short. Raises OSError; may be tried again then.

    They seldom begin at a block's boundary: what is before them in their first block is moved to their end first. Where
    nothing follows them, an empty line is appended, because a range that reaches the end can't be collapsed.
    """
    while (begin := _gap(fd, cut)) is not None:
        block = block_size(fd)
        first = begin // block * block
        _write_at(fd, os.pread(fd, begin - first, first), first + cut.at)
        if os.fstat(fd).st_size <= first + cut.at:
            _append(fd, b"\n")
        _collapse(fd, cut.at, first)


def _gap(fd: int, cut: Cut) -> int | None:
    """Where as many NUL bytes begin as the cut should have removed; None when there is nothing like that.

    What `close_gap` moved to their end before it was interrupted is taken for a part of them.
    """
    size, block = os.fstat(fd).st_size, block_size(fd)
    hole = os.lseek(fd, 0, os.SEEK_HOLE)
    if hole >= size:
        return None
    try:
        after = os.lseek(fd, hole, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing but the hole is left of the file
            raise
        after = size
    before = os.pread(fd, min(block, hole), max(0, hole - block))
    begin = hole - (len(before) - len(before.rstrip(b"\0")))
    behind = os.pread(fd, block, after)
    end = after + len(behind) - len(behind.lstrip(b"\0"))
    moved = begin % block
    if end - begin == cut.at:
        return begin
    if end - begin == cut.at - moved and os.pread(fd, moved, end) == os.pread(fd, moved, begin - moved):
        return begin
    return None


def _append(fd: int, data: bytes) -> None:
    """Write to the end of a file, wherever that is by now, through a descriptor that is not in append mode."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)
    try:
        os.write(fd, data)
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def _collapse(fd: int, length: int, offset: int = 0) -> None:
    """Remove `length` bytes of a file from `offset` on. Raises OSError."""
    # `fallocate64` where both are there: with 32 bits the other one has an offset of 32 bits.
    call = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(fd, _KEEP_NOTHING, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _line_end_before(fd: int, offset: int, lowest: int) -> int:
    """Where the last line ends that ends at or before `offset`; 0 when none does behind `lowest`."""
    while offset > lowest:
        begin = max(lowest, offset - _STEP)
        found = os.pread(fd, offset - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        offset = begin
    return 0


def _line_end_after(fd: int, offset: int, last: int) -> int:
    """Where the first line ends whose newline is at `offset` or behind it; there is one that ends at `last`, which is
    hardly a block away.
    """
    found = os.pread(fd, last - offset, offset).find(b"\n")
    return offset + found + 1 if found >= 0 else last  # somebody has cut the file meanwhile
