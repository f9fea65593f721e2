"""Files that hold a secret: read only when nobody else could have read or put them there, and never overwritten."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from symbiont_datad.errors import DatadError
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree, give_away, pinned, refuse_untrusted, resolve, sync_directory
from symbiont_datad.fsops.write import describe
from symbiont_datad.report import octal, printable

OWNER_ALONE = stat.S_IRWXG | stat.S_IRWXO
"""Bits that the mode of a file lacks which only its owner may reach."""
GROUP_MAY_READ = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
"""Bits that the mode of a file lacks which its group may read, and nobody else."""


class Exposed(DatadError):
    """A file is not fit to hold a secret. The message says why, to follow the file's name, and what to do."""


def read_secret(path: Path, forbidden: int, largest: int) -> bytes:
    """The content of a file that others can't reach: its mode has none of the `forbidden` bits.

    It belongs to this user or to root; for root also to the owner of its directory, who could replace it anyway. Links
    on the way to the file are followed, because the user wrote the path; the file itself is none.

    Raises Exposed, also for a file of more than `largest` bytes; UnsafePath; OSError when it can't be read.
    """
    with Tree(os.path.join(resolve(str(path.parent)), path.name)).parent() as directory_fd:
        _refuse_odd(path, os.stat(path.name, dir_fd=directory_fd, follow_symlinks=False))
        with opened_regular(path.name, directory_fd) as fd, open(fd, "rb", closefd=False) as file:
            found, directory = os.fstat(fd), os.fstat(directory_fd)
            refuse_untrusted(directory, found.st_uid, str(path))
            _refuse_exposed(path, found, directory.st_uid, forbidden)
            content = file.read(largest + 1)
    if len(content) > largest:
        raise Exposed(f"must have at most {largest} bytes")
    return content


def _refuse_odd(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        target = printable(os.path.join(path.parent, os.readlink(path)))
        raise Exposed(f'must not be a symbolic link; name the file itself, "{target}"')
    if not stat.S_ISREG(found.st_mode):
        raise Exposed(f"must be a file, and is {describe(found)}")


def _refuse_exposed(path: Path, found: os.stat_result, directory_owner: int, forbidden: int) -> None:
    me = os.geteuid()
    if found.st_uid not in (0, me, directory_owner if me == 0 else me):
        raise Exposed(
            f"must belong to this user (uid {me}) or to root, and belongs to uid {found.st_uid}, who can change it"
        )
    if found.st_mode & forbidden:
        closed = stat.S_IMODE(found.st_mode) & ~forbidden
        raise Exposed(
            f"must be closed to other users, and has mode {octal(found.st_mode)}; chmod {closed:o} {_quoted(path)}"
        )


def _quoted(path: Path) -> str:
    import shlex  # for the rare message only

    return printable(shlex.quote(str(path)))


def write_new_secret(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600, whole or not at all. The directory that it is in is made when missing, mode 0700.

    As root, it belongs to the owner of its directory, like everything that is made beside a user's tree.

    Raises FileExistsError when anything has the name, and then nothing was changed; UnsafePath; OSError.
    """
    directory = resolve(str(path.parent))
    _make_directory(Tree(directory))
    with Tree(directory).root() as fd:
        above = os.fstat(fd)
        refuse_untrusted(above, None, str(path))
        _write_new(fd, path.name, content, above)


def _make_directory(tree: Tree) -> None:
    if not tree.name:
        return
    tree.make_parents()
    with tree.parent() as above_fd:
        above = os.fstat(above_fd)
        refuse_untrusted(above, None, tree.path)
        try:
            os.mkdir(tree.name, 0o700, dir_fd=above_fd)
        except FileExistsError:
            return
        if os.geteuid() == 0:
            with pinned(tree.name, above_fd) as fd:
                give_away(fd, above.st_uid, above.st_gid)
        sync_directory(above_fd)


def _write_new(dir_fd: int, name: str, content: bytes, above: os.stat_result) -> None:
    temporary = f".{os.fsdecode(os.fsencode(name)[:200])}.{os.getpid()}.tmp"  # NAME_MAX is 255 bytes
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            if os.geteuid() == 0:
                os.fchown(fd, above.st_uid, above.st_gid)
            file.write(content)
            file.flush()
            os.fsync(fd)
        # Unlike a rename, a link never replaces what has the name. A link planted in our file's place is not followed.
        os.link(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    finally:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
    sync_directory(dir_fd)
