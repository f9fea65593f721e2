"""The restore drill: some files of a snapshot, picked at random, are restored and compared with what they were."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats import sqlite
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree, readable
from symbiont_datad.restic.find import decode_node, files_in
from symbiont_datad.restic.records import Snapshot, format_time_ns
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.restorer import Options, Restorer
from symbiont_datad.restic.tree import Node

FILES = 20
BYTES = 64 << 20
"""At most so many files and bytes are restored."""


@dataclass(slots=True)
class Drilled:
    """What came of it. `wrong` names files by their path relative to `/`, with the reason; `bytes` were compared.

    `doubtful` are files in the tree that differ from their copy although lstat says that nothing was changed.
    """

    files: int = 0
    bytes: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)


def drill(
    repository: Repository,
    snapshot: Snapshot,
    tree: Tree,
    scratch: Path,
    random: Random,
    stopping: Callable[[], bool],
) -> Drilled:
    """Restore some files below `scratch`, a directory that is made and removed here, and compare them.

    Their content must have the hashes that the snapshot has of it; and be that of the live file, where lstat says of it
    what it said when the snapshot was made. Raises the errors of `restic`, or OSError when there is no room.
    """
    drilled = Drilled()
    picked = _pick(repository, bytes.fromhex(snapshot.tree), random)
    with _empty(scratch) as fd:
        for number, (path, node) in enumerate(picked):
            shown = os.fsdecode(path)
            copy = scratch / str(number) / os.fsdecode(node.raw_name)
            # One by one, each in a directory of its own: the whole tree need not be gone through once more for them.
            os.mkdir(str(number), 0o700, dir_fd=fd)
            with readable(str(number), fd) as folder:
                failed = Restorer(repository, folder, Options(stopping=stopping)).restore_node(node).failed
            drilled.files += 1
            if not copy.is_file() or copy.is_symlink():
                drilled.wrong.append((shown, failed[0][1] if failed else "it was not restored"))
                continue
            with copy.open("rb") as file:
                if not _is(repository, node, file.fileno()):
                    drilled.wrong.append((shown, "what was restored is not what was stored"))
                    continue
            drilled.bytes += node.size
            if _live_differs(repository, node, tree, f"/{shown}"):
                drilled.doubtful.append(shown)
    return drilled


@contextmanager
def _empty(scratch: Path) -> Iterator[int]:
    """An empty directory that only we can enter; what a killed run has left in it goes."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
        shutil.rmtree(scratch, ignore_errors=True)


def _pick(repository: Repository, tree: bytes, random: Random) -> list[tuple[bytes, Node]]:
    """Whole files at random, each as likely as any other, as many as may be restored.

    One pass that keeps few: the files with the smallest of random numbers.
    """
    drawn: list[tuple[float, bytes, Node]] = []
    last = 1.0
    for folder, raw in files_in(repository, tree):
        lot = random.random()
        if lot < last or len(drawn) < FILES:
            node = decode_node(raw)
            if node.error or node.size > BYTES:
                continue
            drawn.append((lot, folder + node.raw_name, node))
            if len(drawn) > 4 * FILES:
                drawn = sorted(drawn, key=lambda one: one[0])[:FILES]
                last = drawn[-1][0]
    picked: list[tuple[bytes, Node]] = []
    room = BYTES
    for _, path, node in sorted(drawn, key=lambda one: one[0])[:FILES]:
        if node.size <= room:
            room -= node.size
            picked.append((path, node))
    return picked


def _is(repository: Repository, node: Node, fd: int) -> bool:
    """Whether an open file has the content that a node names, chunk by chunk, and nothing more."""
    position = 0
    for text in node.content or ():
        blob = bytes.fromhex(text)
        place = repository.find(blob)
        if place is None or sha256(os.pread(fd, place.size, position)).digest() != blob:
            return False
        position += place.size
    return os.fstat(fd).st_size == position


def _live_differs(repository: Repository, node: Node, tree: Tree, path: str) -> bool:
    """Whether the live file is another one although it seems to be the same. A database's copy may be ahead of it."""
    prefix = f"{tree.path}/"
    if not path.startswith(prefix):
        return False
    try:
        with tree.holding(path.removeprefix(prefix)) as (dir_fd, name), opened_regular(name, dir_fd) as fd:
            if not _unchanged(node, os.fstat(fd)) or sqlite.is_database(os.pread(fd, 16, 0)):
                return False
            return not _is(repository, node, fd) and _unchanged(node, os.fstat(fd))
    except (OSError, UnsafePath):
        return False


def _unchanged(node: Node, found: os.stat_result) -> bool:
    return (
        node.size == found.st_size
        and node.inode == found.st_ino
        and node.mtime == format_time_ns(found.st_mtime_ns)
        and node.ctime == format_time_ns(found.st_ctime_ns)
    )
