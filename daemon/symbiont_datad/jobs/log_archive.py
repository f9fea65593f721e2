"""Writing an archive: whole and on the disk under a hidden name, before it has its own."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from symbiont_datad.errors import Interrupted
from symbiont_datad.formats.rotated import UNFINISHED, hidden
from symbiont_datad.formats.storing import CHUNK, Storage
from symbiont_datad.fsops.blank import blank_length
from symbiont_datad.fsops.root import sync_directory
from symbiont_datad.jobs.context import JobContext

_ACCESS_LIST = "system.posix_acl_access"
_HEAD = 1 << 20  # longer than any blank line: those are a block and a little more


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that is on the disk, by its hidden name: its size in bytes, and the SHA-256 of its content."""

    bytes: int
    sha256: str


class Part:
    """A part of a file, to be read once. Raises Interrupted when the job is asked to stop, and OSError when the file is
    shorter by then.
    """

    def __init__(self, fd: int, start: int, end: int, context: JobContext) -> None:
        self.fd = fd
        self._at = start
        self._end = end
        self._stopping: Callable[[], bool] = context.stopping
        self._progress = context.progress

    def read(self, size: int = -1, /) -> bytes:
        """At most so many of the bytes that are left."""
        if self._stopping():
            raise Interrupted("asked to stop")
        left = self._end - self._at
        data = os.pread(self.fd, left if size < 0 else min(size, left), self._at)
        if not data and left and size:
            raise OSError(errno.ESTALE, "somebody else has cut the file")
        self._at += len(data)
        self._progress.bytes += len(data)
        return data


class _Sink:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.hash = sha256()
        self.bytes = 0

    def write(self, data: bytes, /) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.hash.update(data)
        self.bytes += len(data)
        return len(data)


def write_archive(dir_fd: int, archive: str, source: Part, storage: Storage) -> Written:
    """Write an archive under the hidden name that belongs to its own, in a pinned directory.

    It has the mode, the owner and the times of the file that it is read from, as far as we may give them; never more
    rights. Content and name are on the disk when this returns. Raises OSError or Interrupted; then nothing is left.
    """
    like = os.fstat(source.fd)
    name = hidden(archive, UNFINISHED)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=dir_fd)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        sink = _Sink(fd)
        storage.store(source, sink)
        make_like(fd, like, source.fd)
        os.utime(fd, ns=(like.st_atime_ns, like.st_mtime_ns))
        os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)
    sync_directory(dir_fd)
    return Written(sink.bytes, sink.hash.hexdigest())


def digest_of(source: Part) -> str:
    """The SHA-256 of what is left of the source."""
    digest = sha256()
    while data := source.read(CHUNK):
        digest.update(data)
    return digest.hexdigest()


def make_like(fd: int, like: os.stat_result, like_fd: int) -> bool:
    """Give a new file of ours the owner, mode and access list of another one; whether all of that was possible.

    Where it was not, the file has fewer rights than the other one, never more.
    """
    mode, whole = stat.S_IMODE(like.st_mode) & 0o777, True
    found = os.fstat(fd)
    if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid):
        try:
            os.fchown(fd, like.st_uid, like.st_gid)
        except PermissionError:
            whole = False
            try:
                os.fchown(fd, -1, like.st_gid)
            except PermissionError:
                mode &= ~stat.S_IRWXG  # they were for another group
    os.fchmod(fd, mode)
    return _copy_access_list(like_fd, fd) and whole


def _copy_access_list(from_fd: int, to_fd: int) -> bool:
    """Whether the file has the access list of the other one now, or that one has none (acl(5))."""
    if not hasattr(os, "getxattr"):
        return True
    try:
        found = os.getxattr(from_fd, _ACCESS_LIST)
    except OSError:  # none, or none on this file system
        return True
    try:
        os.setxattr(to_fd, _ACCESS_LIST, found)
    except OSError:
        return False
    return True


def blank_head(fd: int) -> int:
    """How many bytes at the head of a log are the blank line that an earlier rotation has left."""
    head = os.pread(fd, 8192, 0)
    if head.find(b"\n") < 0:
        head = os.pread(fd, _HEAD, 0)
    return blank_length(head)
