"""Which files some process has open, and how, by /proc (proc(5)). Without /proc (macOS) nobody can be asked cheaply."""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from symbiont_datad.fsops.process import this_process
from symbiont_datad.fsops.root import Tree

FileId = tuple[int, int]
"""What a file is to the kernel: the number of its device and its inode."""

_PROC = "/proc"
_O_PATH = getattr(os, "O_PATH", 0)
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "glusterfs", "lustre"})
"""File systems on which a stat can hang for as long as a server is away."""

_SHARED = _REMOTE | {"virtiofs", "gfs2", "ocfs2", "vboxsf", "vmhgfs"}
"""File systems of which processes elsewhere may have files open, unseen by this machine; so may those of FUSE."""


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
    return OpenFiles(frozenset(found.file for found in _descriptors(root, unseen)), unseen.words())


@dataclass(frozen=True, slots=True)
class Writer:
    """A process that has a file open for writing. `appends`: in append mode, with no place of its own in the file."""

    pid: int
    command: str
    appends: bool


@dataclass(frozen=True, slots=True)
class Writers:
    """Who writes to some files. `complete`: every process of this machine was looked at, so nobody else does.

    Without it, those that are not named here are unknown: processes of other users, or those outside this container.
    """

    of: Mapping[FileId, tuple[Writer, ...]]
    complete: bool


def writers(root: str, files: Collection[FileId]) -> Writers:
    """Which other processes have some files open for writing, by one look at all processes; `root` as in `open_files`.

    A file that is only mapped into memory, its descriptor closed, has no writer here.
    """
    unseen, wanted, mine = _Unseen(), frozenset(files), str(os.getpid())
    of: dict[FileId, dict[int, Writer]] = {}
    for found in _descriptors(root, unseen):
        if found.file in wanted and found.pid != mine:
            flags = _flags(found)
            if flags is not None and flags & os.O_ACCMODE != os.O_RDONLY and not flags & _O_PATH:
                pid, appends = int(found.pid), bool(flags & os.O_APPEND)
                ones = of.setdefault(found.file, {})
                if pid not in ones or not appends:  # of one that has it open both ways, the worse one counts
                    ones[pid] = Writer(pid, _command(found.pid), appends)
    whole = os.geteuid() == 0 and not unseen.words() and not this_process().own_pid_space and not is_shared(root)
    return Writers({file: tuple(ones.values()) for file, ones in of.items()}, whole)


def is_shared(root: str) -> bool:
    """Whether processes of other machines may have files below `root`, an absolute path, open."""
    kinds = [(mount, kind) for mount, kind in _mounts() if f"{root}/".startswith(mount)]
    _, kind = max(kinds, key=lambda one: len(one[0]), default=("", ""))
    return kind in _SHARED or kind.startswith("fuse")


def open_to_others(found: os.stat_result) -> bool:
    """Whether processes of other users than this one and root could have a file open for writing, by its mode bits.

    A group that has the user's own name is the user's own, as most systems make them.
    """
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _own_group(found.st_gid)


def _own_group(gid: int) -> bool:
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and not {*group.gr_mem} - {user.pw_name}


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


class _Descriptor(NamedTuple):
    """An open file of some process: the process, the number of the descriptor, and the file."""

    pid: str
    number: str
    file: FileId


def _descriptors(root: str, unseen: _Unseen) -> Iterator[_Descriptor]:
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
            yield from _descriptors_of(pid, folder, remote)
        finally:
            os.close(folder)


def _descriptors_of(pid: str, folder: int, remote: tuple[str, ...]) -> Iterator[_Descriptor]:
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
                yield _Descriptor(pid, name, (found.st_dev, found.st_ino))
        except OSError:  # closed meanwhile
            continue


def _flags(found: _Descriptor) -> int | None:
    """How a descriptor was opened, as open(2) has it; None when it is closed by now (proc(5), "fdinfo", `flags`)."""
    try:
        with open(f"{_PROC}/{found.pid}/fdinfo/{found.number}", "rb") as file:
            told = re.search(rb"^flags:\s*([0-7]+)", file.read(4096), re.MULTILINE)
    except OSError:
        return None
    return int(told[1], 8) if told else None


def _command(pid: str) -> str:
    try:
        with open(f"{_PROC}/{pid}/comm", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"


def _remote_mounts(root: str) -> tuple[str, ...]:
    """Paths below which a stat may hang, but for the one that the root is on: there the job would hang anyway."""
    return tuple(mount for mount, kind in _mounts() if kind in _REMOTE and not f"{root}/".startswith(mount))


def _mounts() -> list[tuple[str, str]]:
    """Where file systems are mounted, each path with a slash at its end, and of which kind they are."""
    try:
        with open(f"{_PROC}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ") for line in file]
        return [(f"{line[4].rstrip('/')}/", line[line.index("-") + 1]) for line in lines]
    except (OSError, ValueError, IndexError):
        return []
