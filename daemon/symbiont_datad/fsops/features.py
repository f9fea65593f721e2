"""What the file system of a directory can do, found out by trying it.

What needs no name is tried on files without one (`O_TMPFILE`), in the directory itself. What needs names is tried in a
scratch directory that the caller gives, on the same file system: nothing appears in the tree.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.collapse import can_collapse
from symbiont_datad.fsops.mount import mount_holding, mounts
from symbiont_datad.fsops.opened import is_shared
from symbiont_datad.fsops.rename import EXCHANGE, renameat2
from symbiont_datad.fsops.root import Tree, readable, resolve

_CLONE = 0x40049409  # FICLONE of linux/fs.h

_PROBE = b"\0" * 4096


@dataclass(frozen=True, slots=True)
class Features:
    """What the file system of a directory is, and can do. None: it could not be tried, or the system doesn't tell.

    `shared`: other machines may have it mounted too. `collapse`: the head of a file that is open can be taken out.
    `reflink`: files can share blocks. `exchange`: two names can change places in one step. Sizes in bytes; a file
    system without a fixed number of inodes has 0 of them.
    """

    kind: str
    mounted_at: str
    shared: bool
    read_only: bool
    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int
    collapse: bool | None = None
    reflink: bool | None = None
    case_sensitive: bool | None = None
    hard_links: bool | None = None
    exchange: bool | None = None
    modes: bool | None = None


def features(path: str, scratch: Path | None) -> Features:
    """The features at an absolute path without links in it. Raises OSError or UnsafePath.

    Named things are tried in a directory of our own in `scratch`, which is gone afterwards.
    """
    with Tree(path).root() as pinned, readable(".", pinned) as fd:
        space, device = os.fstatvfs(fd), os.fstat(fd).st_dev
        read_only = bool(space.f_flag & os.ST_RDONLY)
        writable = not read_only and os.access(f"/proc/self/fd/{fd}", os.W_OK)
        named = _Named()
        if scratch is not None and not read_only:
            with suppress(OSError, UnsafePath), _scratch(scratch, device) as scratch_fd:
                named = _named(scratch_fd)
        mount = mount_holding(path, mounts())
        return Features(
            kind=mount.kind if mount is not None else "",
            mounted_at=mount.point if mount is not None else "",
            shared=is_shared(path),
            read_only=read_only,
            free_bytes=space.f_bavail * space.f_frsize,
            total_bytes=space.f_blocks * space.f_frsize,
            free_inodes=space.f_favail,
            total_inodes=space.f_files,
            collapse=can_collapse(fd) if writable else None,
            reflink=_can_clone(fd) if writable else None,
            case_sensitive=_tells_case(fd),
            hard_links=named.links,
            exchange=named.exchange,
            modes=named.modes,
        )


def _can_clone(dir_fd: int) -> bool | None:
    """Whether a file can be made of another one's blocks (ioctl_ficlone(2)); None where there are no nameless files."""
    try:
        one = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    except (OSError, AttributeError):
        return None
    try:
        other = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
        try:
            os.write(one, _PROBE)
            fcntl.ioctl(other, _CLONE, one)
        finally:
            os.close(other)
    except OSError:
        return False
    finally:
        os.close(one)
    return True


def _tells_case(dir_fd: int) -> bool | None:
    """Whether `a` and `A` are two names here, by a name that is there; None when there is none with a letter.

    It is asked of this very directory: on ext4 and NTFS it may differ from one to the next.
    """
    for name in os.listdir(dir_fd):
        other = name.swapcase()
        if other == name or len(other) != len(name):
            continue
        try:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            same = os.stat(other, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return not os.path.samestat(found, same)
    return None


@dataclass(frozen=True, slots=True)
class _Named:
    links: bool | None = None
    exchange: bool | None = None
    modes: bool | None = None


@contextmanager
def _scratch(parent: Path, device: int) -> Iterator[int]:
    """A new directory in `parent`, for as long as the block runs. Raises OSError, also on another file system."""
    with Tree(resolve(str(parent))).root() as above:
        if os.fstat(above).st_dev != device:
            raise OSError("it is on another file system")
        name = f".features-{token_hex(6)}"
        os.mkdir(name, 0o700, dir_fd=above)
        try:
            with readable(name, above) as fd:
                try:
                    yield fd
                finally:
                    for made in os.listdir(fd):
                        os.unlink(made, dir_fd=fd)
        finally:
            os.rmdir(name, dir_fd=above)


def _named(dir_fd: int) -> _Named:
    for name in ("a", "b"):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd))

    def works(name: str) -> bool:
        try:
            if name == "link":
                os.link("a", "c", src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            else:
                renameat2(dir_fd, "a", dir_fd, "b", EXCHANGE)
        except OSError:
            return False
        return True

    with suppress(OSError):  # FAT refuses a mode that it can't keep, or keeps another one
        os.chmod("a", 0o640, dir_fd=dir_fd)
    kept = os.stat("a", dir_fd=dir_fd).st_mode & 0o777 == 0o640
    return _Named(works("link"), works("exchange"), kept)
