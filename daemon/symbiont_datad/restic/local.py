"""A repository in a directory, in the layout that restic uses for one.

A file is saved as: temporary file in the same directory → write → fsync → rename → fsync of the directory. So what has
its real name is whole and survives a loss of power, and a crash leaves at most a temporary file. That one is named as
restic names its own, `<name>-tmp-<random>`: no reader takes it for a file of the repository.

Source: restic `doc/design.rst`, "Repository Layout".
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Missing, NoSpace, RepositoryError, Unavailable

_PARTS_AT_ONCE = min(os.sysconf("SC_IOV_MAX"), 1024)
_NAME = re.compile(r"[0-9a-f]{64}")
_NAMING = frozenset((FileKind.INDEX, FileKind.SNAPSHOT, FileKind.KEY))
"""Kinds of files that name or open others."""
_TEMPORARY = re.compile(r"(?:config|[0-9a-f]{64})-tmp-.+")
_TEMPORARY_AGE_S = 86_400.0
_DIRECTORIES = tuple(str(kind) for kind in FileKind if kind is not FileKind.CONFIG)
_DATA_DIRECTORIES = tuple(f"{FileKind.DATA}/{number:02x}" for number in range(256))
_GONE_FOR_GOOD = (FileKind.SNAPSHOT, FileKind.INDEX, FileKind.KEY)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_AWAY = {
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.ESTALE,
    errno.ETIMEDOUT,
}  # fmt: skip
"""How a network file system says that its server is away."""
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP}
"""How file systems say that a directory can't be synced (CIFS, some of FUSE); nothing better can be had there."""


class LocalBackend:
    """A directory as a Backend: directories are made with mode 0700, files with 0600."""

    def __init__(self, location: str) -> None:
        self._root = os.path.abspath(location)

    @property
    def location(self) -> str:
        """The directory's absolute path."""
        return self._root

    def create(self) -> None:
        """Make the directory, its parents and all directories inside it. They may be there already."""
        with _told("make the repository's directories in", self._root):
            os.makedirs(os.path.dirname(self._root), exist_ok=True)
            for path in ("", *_DIRECTORIES, *_DATA_DIRECTORIES):
                with suppress(FileExistsError):
                    os.mkdir(os.path.join(self._root, path), 0o700)
            for path in (os.path.join(self._root, FileKind.DATA), self._root, os.path.dirname(self._root)):
                with _directory(path) as fd:
                    _sync_directory(fd)

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Store a file, whole or not at all; when this returns, it survives a loss of power.

        Memoryviews must be of bytes. Raises NoSpace, Unavailable or RepositoryError; then the temporary file is gone,
        and there is a file of this name only if there was one before.
        """
        path = self._path(kind, name)
        folder, name = os.path.split(path)
        with _told("save", path), self._remade(folder) as dir_fd:
            _save(dir_fd, name, parts)

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The file's bytes from `offset` on: `length` of them, or all. Raises Missing, Unavailable, RepositoryError."""
        path = self._path(kind, name)
        with _told("read", path):
            try:
                # What is no regular file must not block: a FIFO would.
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                raise Missing(f"{path} isn't there") from None
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise RepositoryError(f"can't read {path}: it is no regular file")
                wanted = max(found.st_size - offset, 0)
                return _read(fd, offset, wanted if length is None else min(length, wanted))
            finally:
                os.close(fd)

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Name and size (bytes) of every file of the kind. Temporary files and what else is no name are left out."""
        if kind is FileKind.CONFIG:
            path = self._path(kind, "")
            with _told("read", path), suppress(FileNotFoundError):
                yield kind, os.lstat(path).st_size
            return
        for folder in _DATA_DIRECTORIES if kind is FileKind.DATA else (kind,):
            for entry in _entries(f"{self._root}/{folder}"):
                if _NAME.fullmatch(entry.name) and (found := _regular(entry)):
                    yield entry.name, found.st_size

    def remove(self, kind: FileKind, name: str) -> None:
        """Remove a file; one that is not there is no error.

        What names others is gone for good before they are: a snapshot before its blobs, an index file before its packs.
        """
        path = self._path(kind, name)
        with _told("remove", path), suppress(FileNotFoundError):
            os.unlink(path)
            if kind in _NAMING:
                with _directory(os.path.dirname(path)) as fd:
                    _sync_directory(fd)

    def free(self) -> int | None:
        """Bytes that this process may still write there."""
        with _told("ask for the free space of", self._root):
            found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def sweep(self, now: float) -> tuple[str, ...]:
        """Remove temporary files that a crash left, ours and restic's: those last written a day before `now`.

        `now` in seconds since the epoch. Hands back the paths that are gone. A younger one may still be written to, by
        another process or host.
        """
        removed = []
        for folder in ("", *_DIRECTORIES, *_DATA_DIRECTORIES):
            for entry in _entries(os.path.join(self._root, folder)):
                found = _regular(entry) if _TEMPORARY.fullmatch(entry.name) else None
                if found and found.st_mtime < now - _TEMPORARY_AGE_S:
                    with _told("remove", entry.path), suppress(FileNotFoundError):
                        os.unlink(entry.path)
                    removed.append(entry.path)
        return tuple(removed)

    def _path(self, kind: FileKind, name: str) -> str:
        match kind:
            case FileKind.CONFIG:
                return f"{self._root}/{kind}"
            case FileKind.DATA:
                return f"{self._root}/{kind}/{name[:2]}/{name}"
            case _:
                return f"{self._root}/{kind}/{name}"

    @contextmanager
    def _remade(self, folder: str) -> Iterator[int]:
        """A descriptor of a directory, which is made where it is missing: a copy may have lost the empty ones.

        The one above it must be there, so that nothing is written to the place where a volume is not mounted.
        """
        try:
            fd = _opened(folder)
        except FileNotFoundError:
            if folder == self._root:
                raise
            above = os.path.dirname(folder)
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            with _directory(above) as above_fd:
                _sync_directory(above_fd)
            fd = _opened(folder)
        try:
            yield fd
        finally:
            os.close(fd)


def _save(dir_fd: int, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    temporary = f"{name}-tmp-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    ours = [temporary]  # what has to go if this fails
    try:
        try:
            _write(fd, parts)
            os.fsync(fd)
        finally:
            os.close(fd)
        existed = _exists(name, dir_fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        ours = [] if existed else [name]
        _sync_directory(dir_fd)
    except BaseException:
        for name in ours:
            with suppress(OSError):
                os.unlink(name, dir_fd=dir_fd)
        raise


def _write(fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    for start in range(0, len(parts), _PARTS_AT_ONCE):
        group = parts[start : start + _PARTS_AT_ONCE]
        while group:
            group = _rest(group, os.writev(fd, group))


def _rest(parts: Sequence[bytes | bytearray | memoryview], written: int) -> Sequence[bytes | bytearray | memoryview]:
    """What is left of `parts` after so many bytes."""
    for number, part in enumerate(parts):
        if written < len(part):
            return [memoryview(part)[written:], *parts[number + 1 :]]
        written -= len(part)
    return []


def _read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    chunks = [data]  # a signal or a network file system cut it short
    while (length := length - len(data)) and (data := os.pread(fd, length, offset := offset + len(data))):
        chunks.append(data)
    return b"".join(chunks)


def _entries(path: str) -> list[os.DirEntry[str]]:
    """What lies in a directory; nothing when there is none."""
    with _told("list", path), suppress(FileNotFoundError), os.scandir(path) as entries:
        return list(entries)
    return []


def _regular(entry: os.DirEntry[str]) -> os.stat_result | None:
    """The stat of a regular file; None for anything else, and for what is gone by now."""
    with _told("read", entry.path), suppress(FileNotFoundError):
        found = entry.stat(follow_symlinks=False)
        return found if stat.S_ISREG(found.st_mode) else None
    return None


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = _opened(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _sync_directory(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


@contextmanager
def _told(doing: str, path: str) -> Iterator[None]:
    """Tell an OSError as what it means for the repository, with the file's name in the sentence."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        if error.errno in _FULL:
            raise NoSpace(f"can't {doing} {path}: {why}") from error
        if error.errno in _AWAY:
            raise Unavailable(f"can't {doing} {path}: {why}") from error
        if error.errno == errno.ELOOP:
            why = "it is a symbolic link"
        raise RepositoryError(f"can't {doing} {path}: {why}") from error
