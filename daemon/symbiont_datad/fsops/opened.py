"""Which files some process has open, by /proc (proc(5)). Without /proc (macOS) nobody can be asked cheaply."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from symbiont_datad.fsops.root import Tree

FileId = tuple[int, int]
"""What a file is to the kernel: the number of its device and its inode."""

_PROC = "/proc"
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "glusterfs", "lustre"})
"""File systems on which a stat can hang for as long as a server is away."""


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """Files that processes have open now. `unseen` says in words what could not be looked at; empty: nothing.

    A file that is only mapped into memory, its descriptor closed, is not among them.
    """

    files: frozenset[FileId]
    unseen: str = ""


def open_files(root: str) -> OpenFiles:
    """Every file that any process has open. On a network file system only if `root`, an absolute path, is on it too."""
    unseen = _Unseen()
    return OpenFiles(frozenset(_descriptors(root, unseen)), unseen.words())


def identity(tree: Tree, path: str) -> FileId | None:
    """What the file at `path` (relative to the root) is to the kernel, links not followed; None when it is gone."""
    try:
        with tree.holding(path) as (fd, name):
            found = os.lstat(name, dir_fd=fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(slots=True)
class _Unseen:
    processes: int = 0
    no_proc: bool = False

    def words(self) -> str:
        if self.no_proc:
            return "this system does not tell which files are open"
        return f"the open files of {self.processes} processes of other users" if self.processes else ""


def _descriptors(root: str, unseen: _Unseen) -> Iterator[FileId]:
    try:
        pids = [name for name in os.listdir(_PROC) if name.isdigit()]
    except OSError:
        pids = []
    if not pids:
        unseen.no_proc = True
        return
    remote = _remote_mounts(root)
    for pid in pids:
        try:
            folder = os.open(f"{_PROC}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            unseen.processes += 1
            continue
        except OSError:  # it has ended
            continue
        try:
            yield from _descriptors_of(folder, remote)
        finally:
            os.close(folder)


def _descriptors_of(folder: int, remote: tuple[str, ...]) -> Iterator[FileId]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(name, dir_fd=folder)
            # `socket:[4711]`, `pipe:[4711]` and `anon_inode:…` are no files.
            if target.startswith("/") and not target.startswith(remote):
                found = os.stat(name, dir_fd=folder)
                yield found.st_dev, found.st_ino
        except OSError:  # closed meanwhile
            continue


def _remote_mounts(root: str) -> tuple[str, ...]:
    """Paths below which a stat may hang, but for the one that the root is on: there the job would hang anyway."""
    try:
        with open(f"{_PROC}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ") for line in file]
        mounts = (f"{line[4].rstrip('/')}/" for line in lines if line[line.index("-") + 1] in _REMOTE)
        return tuple(mount for mount in mounts if not f"{root}/".startswith(mount))
    except (OSError, ValueError, IndexError):
        return ()
