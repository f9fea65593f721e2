"""Repositories made by our own archiver, and what lies in their snapshots, as data."""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from symbiont_datad.restic.archived import Options, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.backend import Backend
from symbiont_datad.restic.crypto import Buffer, Scrypt
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import Identity
from symbiont_datad.restic.pack import TARGET_SIZE, BlobType
from symbiont_datad.restic.repository import Repository, create_repository, open_repository
from symbiont_datad.restic.tree import decode_tree
from symbiont_datad.restic.writer import Writer
from tests.support import Link, Tree

PASSWORD = "a password"
"""What opens every repository made here."""

IDENTITY = Identity("host", "anna", os.getpid(), 1000, 1000)


class Disturbed(Writer):
    """A writer during whose work something happens again and again: after every piece of a file that it was given.

    So it happens while a file is being read, however short a while that is, and whoever else wants the processor.
    """

    def __init__(self, repository: Repository, work: Callable[[], object]) -> None:
        super().__init__(repository)
        self._work = work

    def store(self, kind: BlobType, plain: Buffer) -> tuple[bytes, bool]:
        """As a writer does, and then the other thing."""
        stored = super().store(kind, plain)
        if kind is BlobType.DATA:
            self._work()
        return stored


def make_repository(path: Path, *, level: int | None = 3) -> Repository:
    """A new, empty repository in a directory. Its password costs little to try, for a test tries often."""
    backend = LocalBackend(str(path))
    return create_repository(backend, PASSWORD, IDENTITY, time.time(), level=level, scrypt=Scrypt(n=1 << 4), settle_s=0)


def reopen(path: Path | Backend) -> Repository:
    """The repository in a directory, or behind a backend, as another process would open it."""
    return open_repository(LocalBackend(str(path)) if isinstance(path, Path) else path, PASSWORD)


def snapshot(repository: Repository, tree: Path, *, pack_size: int = TARGET_SIZE, tags: tuple[str, ...] = ()) -> str:
    """A snapshot of a directory; hands back its id. A small `pack_size` (bytes) makes many packs of little data."""
    repository.load_index()
    options = Options(IDENTITY, tags=tags)
    target = os.fsencode(tree.resolve())
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Writer(repository, pack_size=pack_size) as writer:
            archived = Archiver(repository, writer, options).archive([(target, fd)])
    finally:
        os.close(fd)
    return repository.save_snapshot(snapshot_of(archived, writer.added, options, [target], time.time_ns()))


def read_snapshot(repository: Repository, name: str) -> Tree:
    """What a snapshot of one directory holds, as `build_tree` takes it: every blob that it needs is read."""
    repository.need_index()
    found = repository.snapshot(name)
    below = _read(repository, found.tree)
    for part in Path(found.paths[0]).parts[1:]:
        inner = below[part]
        assert not isinstance(inner, bytes | Link)
        below = inner
    return below


def _read(repository: Repository, tree: str) -> Tree:
    entries: dict[str, Tree | bytes | Link] = {}
    for node in decode_tree(repository.load_blob(bytes.fromhex(tree))):
        name = os.fsdecode(node.raw_name)
        match node.type:
            case "dir":
                entries[name] = _read(repository, node.subtree)
            case "symlink":
                entries[name] = Link(node.linktarget)
            case _:
                blobs = (repository.load_blob(bytes.fromhex(blob)) for blob in node.content or ())
                entries[name] = b"".join(blobs)
    return entries


def exit_code_in_child(function: Callable[[], object]) -> int:
    """Call the function in a forked child process, and say how that ended: 0, 1 for an exception, or what it says.

    The function may end the process itself, with `os._exit`, as a kill would.
    """
    with warnings.catch_warnings():
        # Python 3.12 and newer warn where threads exist (xdist has some). The child makes its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
