"""Comparing a directory with a tree: content is read back and hashed, links are read, and nothing may be missing."""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256

from symbiont_datad.restic.errors import Damaged, Interrupted
from symbiont_datad.restic.fetch import TreeLoader
from symbiont_datad.restic.find import blob_id, nodes_of
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.restorer import Select
from symbiont_datad.restic.target import Reach, Target
from symbiont_datad.restic.tree import TYPES, Node, is_safe_name

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BATCH = 64
_HOLE = 1 << 20
"""Smaller holes (bytes) are read."""

Differences = tuple[tuple[bytes, str], ...]


class Comparer:
    """Compares entries of one repository with what lies on the disk."""

    def __init__(
        self,
        repository: Repository,
        *,
        select: Select | None = None,
        threads: int = 2,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`select` as it was for the restore."""
        repository.need_index()
        self._repository = repository
        self._loader = TreeLoader(repository)
        self._select = select
        self._threads = threads
        self._stopping = stopping

    def compare(self, tree: bytes, target_fd: int) -> Differences:
        """What is other than in the tree, or missing, in a directory: paths relative to it, with the reason.

        What is there beside the tree's entries, and mode, owner and times, make no difference. Sockets are passed over.
        Raises RepositoryError when a tree can't be read, Interrupted.
        """
        return self._compare(nodes_of(self._loader.load(tree)), target_fd)

    def compare_node(self, node: Node, target_fd: int) -> Differences:
        """The same for one entry, by its own name in the directory."""
        return self._compare([node], target_fd)

    def _compare(self, nodes: Iterable[Node], target_fd: int) -> Differences:
        found: list[tuple[bytes, str]] = []
        target = Target(target_fd)
        pending: list[tuple[int, bytes]] = []
        number = 0
        with ThreadPoolExecutor(self._threads, "compare") as pool, Reach(target) as reach:
            while True:
                files: list[tuple[bytes, Node]] = []
                for node in nodes:
                    name = node.raw_name
                    path = target.path(number, name)
                    if not is_safe_name(name):
                        found.append((path, "that is no name of a file"))
                    elif self._select is not None and not self._select(path, node):
                        continue
                    elif node.type == "dir":
                        try:
                            pending.append((target.take(number, reach.fd(number), name), blob_id(node.subtree)))
                        except OSError as error:
                            found.append((path, error.strerror or str(error)))
                    elif node.type != "socket":
                        files.append((name, node))
                batches = [files[at : at + _BATCH] for at in range(0, len(files), _BATCH)]
                for differences in pool.map(partial(self._entries, reach.fd(number)), batches):
                    found += [(target.path(number, name), reason) for name, reason in differences]
                if not pending:
                    return tuple(sorted(found))
                number, tree = pending.pop()
                nodes = nodes_of(self._loader.load(tree))

    def _entries(self, dir_fd: int, batch: list[tuple[bytes, Node]]) -> list[tuple[bytes, str]]:
        """The differences of some entries of one directory."""
        if self._stopping():
            raise Interrupted("asked to stop")
        found = []
        for name, node in batch:
            try:
                reason = self._file(dir_fd, name, node) if node.type == "file" else _special(dir_fd, name, node)
            except OSError as error:
                reason = error.strerror or str(error)
            except Damaged as error:
                reason = str(error)
            if reason:
                found.append((name, reason))
        return found

    def _file(self, dir_fd: int, name: bytes, node: Node) -> str:
        fd = os.open(name, _FILE, dir_fd=dir_fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return f"it is {TYPES.get(stat.S_IFMT(found.st_mode), 'something else')} instead of file"
            position, hole = 0, b""
            for text in node.content or ():
                blob = blob_id(text)
                place = self._repository.find(blob)
                if place is None:
                    return f"blob {text} is in no pack that the index knows"
                is_hole = _is_hole(fd, position, min(position + place.size, found.st_size))
                if not (is_hole and blob == hole):  # a large hole is one blob many times
                    if sha256(os.pread(fd, place.size, position)).digest() != blob:
                        return f"its content differs at byte {position} or later"
                    hole = blob if is_hole else b""
                position += place.size
            return "" if found.st_size == position else f"it has {found.st_size} bytes instead of {position}"
        finally:
            os.close(fd)


def _is_hole(fd: int, start: int, end: int) -> bool:
    """Whether a file surely has nothing but zeros there."""
    if end - start < _HOLE:
        return False
    try:
        return os.lseek(fd, start, os.SEEK_DATA) >= end
    except OSError as error:
        return error.errno == errno.ENXIO  # no data from there on


def _special(dir_fd: int, name: bytes, node: Node) -> str:
    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    kind = TYPES.get(stat.S_IFMT(found.st_mode), "something else")
    if kind != node.type:
        return f"it is {kind} instead of {node.type}"
    if kind == "symlink":
        wanted = node.linktarget_raw or node.linktarget.encode("utf-8", "surrogateescape")
        if os.readlink(name, dir_fd=dir_fd) != wanted:
            return "it links to something else"
    if kind in ("dev", "chardev") and found.st_rdev != node.device:
        return "it is another device"
    return ""
