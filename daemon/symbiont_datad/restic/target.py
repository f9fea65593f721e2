"""The place that is restored into: its directories by number, reached without following a link, never left.

A directory is opened part by part from the target's descriptor, and is the one that was made or found there at first:
one that was put in its place since is refused.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIN = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = 64
"""Directories that one thread keeps open."""


class Target:
    """The directories below a target. 0 is the target itself; a directory's number is above that of its parent."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.ours = [False]
        """Whether it was made here: there is nothing in it but what was restored."""
        self.born: list[tuple[int, int] | None] = [None]
        """The user and group that a new file gets there, once one was made."""
        self._parents = [-1]
        self._names = [b""]
        self._identities = [_identity(fd)]

    def path(self, number: int, name: bytes = b"") -> bytes:
        """The path of a directory, or of `name` in it, relative to the target; empty for the target itself."""
        parts = [name] if name else []
        while number:
            parts.append(self._names[number])
            number = self._parents[number]
        return b"/".join(reversed(parts))

    def make(self, parent: int, parent_fd: int, name: bytes) -> int:
        """Make a directory (mode 0700), or take the one that is there; hand back its number.

        Raises OSError; NotADirectoryError when something else (a link, say) has the name.
        """
        made = False
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent_fd)
            made = True
        number = self.take(parent, parent_fd, name)
        self.ours[number] = made
        return number

    def take(self, parent: int, parent_fd: int, name: bytes) -> int:
        """The number of a directory that is there. Raises as `make` does."""
        fd = os.open(name, _PIN, dir_fd=parent_fd)
        try:
            self._identities.append(_identity(fd))
        finally:
            os.close(fd)
        self._parents.append(parent)
        self._names.append(name)
        self.born.append(None)
        self.ours.append(False)
        return len(self._parents) - 1


class Reach:
    """One thread's descriptors of a target's directories: a few stay open. Used as a context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._open: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def fd(self, number: int) -> int:
        """A pinned descriptor of a directory, valid until the next call. Raises OSError."""
        found = self._open.get(number)
        if found is not None:
            return found
        if number == 0:
            return self._target.fd
        return self._descend(number)

    def _descend(self, number: int) -> int:
        target = self._target
        way = [number]
        while (above := target._parents[way[-1]]) and above not in self._open:
            way.append(above)
        fd = self._open.get(above, target.fd)
        for step in reversed(way):
            child = os.open(target._names[step], _PIN, dir_fd=fd)
            if _identity(child) != target._identities[step]:
                os.close(child)
                raise OSError(errno.EBUSY, "another directory took its place")
            if len(self._open) == _OPEN:
                oldest = next(iter(self._open))
                os.close(self._open.pop(oldest))
            self._open[step] = fd = child
        return fd


def place(dir_fd: int, name: bytes, make: Callable[[bytes], None], *, overwrite: bool) -> None:
    """Have `make` make an entry of that name; `make` raises FileExistsError when there is one.

    With `overwrite` the new one is made beside the old one, and takes its place when it is whole. Raises OSError.
    """
    try:
        make(name)
    except FileExistsError:
        if not overwrite:
            raise
    else:
        return
    temporary = temporary_name(name)
    try:
        make(temporary)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    finally:
        # It is still there when something failed, and when both names were already of one file: rename(2).
        with suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)


def temporary_name(name: bytes) -> bytes:
    """A name beside `name` that nobody has, for what will be renamed to it. NAME_MAX is 255 bytes."""
    return b".%b.%b.tmp" % (name[:200], secrets.token_hex(4).encode())


def refuse_other(found: os.stat_result, identity: tuple[int, int]) -> None:
    """Raise OSError unless this is still the regular file that was made."""
    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != identity:
        raise OSError(errno.EBUSY, "another file took its place")


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
