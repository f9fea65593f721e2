"""Descriptor-relative calls: how the tree is reached.

A directory is *pinned* with `O_PATH` where the system has it (Linux): a descriptor that names the directory, needs no
permission on it, and can't be replaced under us. Elsewhere (macOS) the directory is opened for reading.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.mount import mount_of
from symbiont_datad.report import octal

_O_PATH = getattr(os, "O_PATH", 0)
_PIN = (_O_PATH or os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIN_FILE = (_O_PATH or os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC

QUARANTINE = ".quarantine"
"""The directory below the root that is no part of the layout, of walks or of snapshots."""


@contextmanager
def pinned(name: str, dir_fd: int | None = None) -> Iterator[int]:
    """The descriptor of the directory `name`, for as long as the block runs. It can't be read from; see `readable`.

    Raises FileNotFoundError, or NotADirectoryError when something else (a link, say) has that name.
    """
    fd = os.open(name, _PIN, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def readable(name: str, dir_fd: int | None = None) -> Iterator[int]:
    """Like `pinned`, with a descriptor that can be listed and synced; it needs the permission to read."""
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def pinned_file(name: str, dir_fd: int) -> Iterator[int]:
    """The descriptor of the file `name`, never opened for use: a FIFO doesn't block and a device doesn't wake."""
    fd = os.open(name, _PIN_FILE, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def set_mode(fd: int, mode: int) -> None:
    """Change the mode of what a pinned descriptor names (`fchmod` refuses `O_PATH`; the link in /proc does not)."""
    if not _O_PATH:
        os.fchmod(fd, mode)
        return
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    except FileNotFoundError:  # no /proc here
        with readable(".", fd) as open_fd:
            os.fchmod(open_fd, mode)


def set_owner(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what a pinned descriptor names; -1 leaves one of the two as it is."""
    if not _O_PATH:
        os.fchown(fd, uid, gid)
        return
    try:
        os.chown(f"/proc/self/fd/{fd}", uid, gid)
    except FileNotFoundError:
        with readable(".", fd) as open_fd:
            os.fchown(open_fd, uid, gid)


def give_away(fd: int, uid: int, gid: int) -> None:
    """Change the owner of a directory that we have just made; -1 leaves one of the two as it is.

    Whoever can write to the directory above could have put another one in its place since. So only an empty directory
    of ours is given away: never one of root's with something in it.

    Raises UnsafePath.
    """
    found = os.fstat(fd)
    if uid in (-1, found.st_uid) and gid in (-1, found.st_gid):
        return
    with readable(".", fd) as open_fd:
        if found.st_uid != os.geteuid() or os.listdir(open_fd):
            raise UnsafePath("something else took the place of a directory that was just made")
    set_owner(fd, uid, gid)


def sync_directory(fd: int) -> None:
    """fsync a directory, so that a rename in it is on the disk."""
    with readable(".", fd) as open_fd:
        os.fsync(open_fd)


def refuse_untrusted(directory: os.stat_result, owner: int | None, name: str) -> None:
    """As root, refuse to go from `directory` to a child of that `owner` when another user could have put it there.

    A directory that everybody can write to is trusted only if it is sticky (like /tmp) and the child belongs to root or
    to the directory's own owner; `owner` is None when the child is yet to be made. For every other user the kernel's
    own permission checks are the guard, and nothing is refused.

    Raises UnsafePath.
    """
    if os.geteuid() != 0 or not directory.st_mode & stat.S_IWOTH:
        return
    if directory.st_mode & stat.S_ISVTX and owner in (None, 0, directory.st_uid):
        return
    raise UnsafePath(
        f"{name}: lies in a directory that everybody can write to ({octal(directory.st_mode)}), "
        "so another user could replace it; make that directory 0o755 or move the tree"
    )


def refuse_other_mount(above: int, below: int, name: str) -> None:
    """Refuse to go from one pinned directory to another one below it, `name`, across a mount point, a bind mount's too.

    Raises UnsafePath.
    """
    if os.fstat(above).st_dev != os.fstat(below).st_dev or mount_of(above) != mount_of(below):
        raise UnsafePath(f"{name}: another file system is mounted there")


@dataclass(frozen=True, slots=True)
class Tree:
    """The data directory by its absolute path, without links in it (see `resolve`)."""

    path: str

    @property
    def name(self) -> str:
        """The last part of the path: what the parent directory calls the root."""
        return os.path.basename(self.path)

    @contextmanager
    def parent(self) -> Iterator[int]:
        """The directory that holds the root, pinned part by part from `/` down.

        Raises FileNotFoundError, NotADirectoryError (a part became a link) or UnsafePath.
        """
        with _descend(os.path.dirname(self.path)) as fd:
            yield fd

    def make_parents(self) -> None:
        """Make the directories above the root that are missing, mode 0755 less the umask, owned like what they are in.

        Raises as `parent` does.
        """
        with _descend(os.path.dirname(self.path), make=True):
            pass

    @contextmanager
    def root(self) -> Iterator[int]:
        """The root directory, pinned part by part from `/` down. Raises as `parent` does."""
        with _descend(self.path) as fd:
            yield fd

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """The directory at `path`, relative to the root, pinned; `""` is the root itself."""
        with self.root() as root_fd:
            if not path:
                yield root_fd
                return
            with beneath(root_fd, path) as fd:
                yield fd

    @contextmanager
    def holding(self, path: str) -> Iterator[tuple[int, str]]:
        """The pinned directory that holds `path`, and the name of `path` in it."""
        folder, _, name = path.rpartition("/")
        with self.directory(folder) as fd:
            yield fd, name


@contextmanager
def beneath(fd: int, path: str) -> Iterator[int]:
    """The directory at `path` relative to the pinned directory `fd`, no part of it a link or another mount.

    Raises FileNotFoundError, NotADirectoryError or UnsafePath.
    """
    current = fd
    try:
        for part in path.split("/"):
            following = os.open(part, _PIN, dir_fd=current)
            if current != fd:
                os.close(current)
            current = following
        refuse_other_mount(fd, current, path)  # the way down never leads back to the mount that it has left
        yield current
    finally:
        if current != fd:
            os.close(current)


@contextmanager
def _descend(path: str, *, make: bool = False) -> Iterator[int]:
    current = os.open("/", _PIN)
    try:
        held = os.fstat(current)
        for part in path.split("/"):
            if not part:
                continue
            try:
                following = os.open(part, _PIN, dir_fd=current)
            except FileNotFoundError:
                if not make:
                    raise
                refuse_untrusted(held, None, path)
                _make(part, current, held)
                following = os.open(part, _PIN, dir_fd=current)
            os.close(current)
            current = following
            child = os.fstat(current)
            refuse_untrusted(held, child.st_uid, path)
            held = child
        yield current
    finally:
        os.close(current)


def _make(name: str, dir_fd: int, above: os.stat_result) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=dir_fd)
    except FileExistsError:  # somebody else was quicker, and it is theirs
        return
    if os.geteuid() == 0:
        with pinned(name, dir_fd) as fd:
            give_away(fd, above.st_uid, above.st_gid)


def resolve(path: str) -> str:
    """The absolute path of a directory with the links in it followed once, now, because the user wrote them.

    What becomes a link later is not followed. The directory itself need not exist.
    """
    return os.path.realpath(path)
