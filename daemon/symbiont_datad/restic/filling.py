"""Files of one blob, which are made, written and finished in one go."""

import os

from symbiont_datad.restic.chunk import LARGEST
from symbiont_datad.restic.metadata import apply
from symbiont_datad.restic.notes import Small
from symbiont_datad.restic.target import place

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Owner = tuple[int, int]
"""A user and a group."""

_HOLE = bytes(64 << 10)
"""Zeros at the begin or end of a blob are not written from so many on."""

_ZEROS = bytes(LARGEST)


def make_small(
    dir_fd: int, wanted: Small, plain: bytes, born: Owner | None, *, overwrite: bool
) -> tuple[Owner, OSError | None]:
    """Make a file with this content; hand back whose a new file is in that directory, and what of its metadata could
    not be set: content without its owner or an attribute is better than none.

    `born`: whose a new file is there, if that is known. Raises OSError; then there is no half file.
    """
    failure: OSError | None = None
    owner = born

    def make(name: bytes) -> None:
        nonlocal failure, owner
        fd = os.open(name, CREATE, 0o600, dir_fd=dir_fd)
        try:
            try:
                if put(fd, plain, 0) < len(plain):
                    os.ftruncate(fd, len(plain))
            except OSError:
                os.unlink(name, dir_fd=dir_fd)
                raise
            if owner is None:
                found = os.fstat(fd)
                owner = (found.st_uid, found.st_gid)
            try:
                apply(fd, wanted.metadata, owner)
            except OSError as error:
                failure = error
        finally:
            os.close(fd)

    place(dir_fd, wanted.name, make, overwrite=overwrite)
    assert owner is not None
    return owner, failure


def put(fd: int, plain: bytes, position: int) -> int:
    """Write at a position, without long runs of zeros at either end: a hole reads the same. Hand back the end of it."""
    start, end = 0, len(plain)
    if end >= len(_HOLE):
        if _ZEROS.startswith(plain):
            return 0
        if plain.endswith(_HOLE):
            end = len(plain.rstrip(b"\0"))
        if end > len(_HOLE) and plain.startswith(_HOLE):
            start = len(plain) - len(plain.lstrip(b"\0"))
    view = memoryview(plain)
    while start < end:
        start += os.pwrite(fd, view[start:end], position + start)
    return end
