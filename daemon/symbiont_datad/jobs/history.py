"""One file through time: its versions in the snapshots, and the one that is there now."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree
from symbiont_datad.jobs.context import Progress
from symbiont_datad.jobs.repository import identity
from symbiont_datad.jobs.snapshots import Named, of_this_host, place_in, readable_snapshots, root_in
from symbiont_datad.report import printable
from symbiont_datad.restic.compare import Comparer
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.find import LATEST, Finder, Version, resolve, versions
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import Node

Lost = Callable[[str, str], None]
"""Is told of a snapshot (its id) that can't be looked into, and why."""


_KINDS = {"dir": "directory", "symlink": "symbolic link", "fifo": "FIFO", "dev": "device", "chardev": "device"}


@dataclass(frozen=True, slots=True)
class Content:
    """A file's content: its bytes, or None when there are too many to be read; its size in bytes."""

    data: bytes | None
    size: int


def file_versions(
    repository: Repository, tree: Tree, path: str, lost: Lost, progress: Progress
) -> tuple[list[Version], int | None]:
    """The distinct versions of a file, newest first, and which of them is what is there now (None: none of them).

    `path` is relative to the data directory. Looked at are the snapshots that this host made (of all, when it made
    none). Raises RepositoryError.
    """
    listed, unread = readable_snapshots(repository, progress)
    for name, reason in unread:
        lost(name, reason)
    found = of_this_host(listed, identity().hostname)[::-1]
    if not found:
        return [], None
    root = place_in([snapshot for _, snapshot in found[::-1]], tree.path)
    wanted = os.fsencode(f"{root}/{path}")

    def failed(name: str, error: RepositoryError) -> None:
        lost(name, str(error))

    same_place = [one for one in found if root_in(one[1], tree.path) == root]
    progress.begin("look into snapshots", len(same_place))
    known = versions(repository, wanted, _counted(same_place, progress), on_error=failed)
    return known, _current(repository, tree, path, known)


def _counted(snapshots: Iterable[Named], progress: Progress) -> Iterator[Named]:
    for one in snapshots:
        yield one
        progress.files += 1


def _current(repository: Repository, tree: Tree, path: str, known: list[Version]) -> int | None:
    """Which version the file has now."""
    folder, _, name = path.rpartition("/")
    try:
        with tree.directory(folder) as above:
            size = os.stat(name, dir_fd=above, follow_symlinks=False).st_size
            for number, version in enumerate(known):
                node = version.node
                if node.size in (0, size) and not Comparer(repository).compare_node(node, above):
                    return number
    except (OSError, UnsafePath):
        pass  # it isn't there, or we may not look
    return None


def node_in(repository: Repository, tree: Tree, path: str, wanted: str) -> tuple[Named, Node]:
    """A file in the snapshot that is meant by an id, the beginning of one, or `latest`: the newest that has the file.

    Raises DatadError when it isn't there, or RepositoryError.
    """
    finder = Finder(repository)

    def find(snapshot: Snapshot) -> Node | None:
        return finder.find(snapshot, os.fsencode(f"{root_in(snapshot, tree.path)}/{path}"))

    if wanted == LATEST:
        listed, _ = readable_snapshots(repository)
        for one in reversed(of_this_host(listed, identity().hostname)):
            if (node := find(one[1])) is not None:
                return one, node
        raise DatadError(f"{printable(path)}: is in no snapshot")
    named = resolve(repository, wanted)
    node = find(named[1])
    if node is None:
        raise DatadError(f"{printable(path)}: is not in snapshot {named[0][:8]}")
    return named, node


def content_of(repository: Repository, node: Node, path: str, largest: int) -> Content:
    """The content of a file in a snapshot, if it has no more than `largest` bytes.

    Raises DatadError for what is no file, or RepositoryError.
    """
    if node.type != "file":
        raise DatadError(f"{printable(path)}: is no file there, but a {_KINDS.get(node.type, node.type)}")
    if node.size > largest:
        return Content(None, node.size)
    data = b"".join(repository.load_blob(bytes.fromhex(blob)) for blob in node.content or ())
    return Content(data, len(data))


def live_content(tree: Tree, path: str, largest: int) -> Content:
    """The content of the file that is there now, if it has no more than `largest` bytes. Raises DatadError."""
    folder, _, name = path.rpartition("/")
    try:
        with tree.directory(folder) as above, opened_regular(name, above) as fd:
            size = os.fstat(fd).st_size
            if size > largest:
                return Content(None, size)
            with open(fd, "rb", closefd=False) as file:
                data = file.read(largest)
            return Content(data, len(data))
    except OSError as error:
        raise DatadError(f"{printable(path)}: can't be read now: {error.strerror or error}") from None
