"""Finding things: a snapshot by what somebody wrote, an entry by its path, all entries, the versions of one file."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import msgspec

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Damaged, RepositoryError
from symbiont_datad.restic.fetch import TreeLoader
from symbiont_datad.restic.records import UNREADABLE, Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import Node, name_nodes, split_tree

LATEST = "latest"

_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_NODE = msgspec.json.Decoder(Node)
_SHOWN = 8
"""Digits of an id in messages, as restic shows it."""


class NoSnapshot(RepositoryError):
    """There is no such snapshot, or more than one could be meant."""


def split(text: str) -> tuple[str, bytes]:
    """`SNAPSHOT:PATH` as its two parts; the path is `b"/"` where none is given."""
    snapshot, _, path = text.partition(":")
    return snapshot, path.encode("utf-8", "surrogateescape") or b"/"


def resolve(
    repository: Repository,
    text: str,
    *,
    host: str | None = None,
    tags: Iterable[str] = (),
    paths: Iterable[str] = (),
) -> tuple[str, Snapshot]:
    """The snapshot that is meant by a whole id, the beginning of one, or `latest`; its id with it.

    `latest` is the newest one of that host, with all these tags and paths. Raises NoSnapshot (the text says what there
    is), or Damaged when the snapshot can't be read.
    """
    if text == LATEST:
        found = matching(repository, host=host, tags=tags, paths=paths)
        if not found:
            raise NoSnapshot(f"{repository.backend.location}: there is no snapshot{_conditions(host, tags, paths)}")
        return found[0]
    if not _PREFIX.fullmatch(text):
        raise NoSnapshot(f"{text!r} is neither the beginning of a snapshot's id (0-9, a-f) nor `{LATEST}`")
    names = sorted(name for name, _ in repository.backend.list(FileKind.SNAPSHOT) if name.startswith(text))
    if not names:
        raise NoSnapshot(f"{repository.backend.location}: no snapshot's id begins with {text}")
    if len(names) > 1:
        shown = max(_SHOWN, len(text) + 1)
        raise NoSnapshot(f"{text} is not clear: it begins {', '.join(name[:shown] for name in names)}")
    return names[0], repository.snapshot(names[0])


def matching(
    repository: Repository,
    *,
    host: str | None = None,
    tags: Iterable[str] = (),
    paths: Iterable[str] = (),
) -> list[tuple[str, Snapshot]]:
    """The snapshots of a host (None: any) that have all these tags and paths, newest first. Raises Damaged."""
    tags, paths = set(tags), set(paths)
    return sorted(
        (
            (name, snapshot)
            for name, snapshot in repository.snapshots()
            if host in (None, snapshot.hostname) and tags <= set(snapshot.tags) and paths <= set(snapshot.paths)
        ),
        key=lambda pair: (pair[1].at, pair[0]),
        reverse=True,
    )


def _conditions(host: str | None, tags: Iterable[str], paths: Iterable[str]) -> str:
    words = [f"of host {host}"] if host is not None else []
    words += [f"with the tag {tag}" for tag in tags]
    words += [f"with the path {path}" for path in paths]
    return "".join(f" {word}" for word in words)


def blob_id(text: str) -> bytes:
    """A blob's id, as a tree has it, as bytes. Raises Damaged."""
    try:
        blob = bytes.fromhex(text)
    except ValueError:
        blob = b""
    if len(blob) != 32:
        raise Damaged(f"a tree has {text!r} where a blob's id belongs")
    return blob


def nodes_of(parts: Iterable[bytes]) -> Iterator[Node]:
    """The nodes of a tree, given in parts (see `TreeLoader`), decoded one by one: a directory may have millions.

    Raises Damaged; at once when the first part is.
    """
    texts = iter(parts)
    first = split_tree(next(texts))
    return map(decode_node, chain(first, chain.from_iterable(map(split_tree, texts))))


def decode_node(raw: bytes | msgspec.Raw) -> Node:
    """A node as it stands in a tree. Raises Damaged."""
    try:
        return _NODE.decode(raw)
    except UNREADABLE as error:
        raise Damaged(f"a tree can't be read ({error})") from None


def walk(
    repository: Repository,
    tree: bytes,
    *,
    prefix: bytes = b"",
    enter: Callable[[bytes, Node], bool] | None = None,
    on_error: Callable[[bytes, RepositoryError], None] | None = None,
) -> Iterator[tuple[bytes, Node]]:
    """Every entry below a tree with its path: a directory, then what is in it, in the order of the names' bytes.

    Paths are relative to the tree; `prefix` is put before them. `enter` says whether to go into a directory. A tree
    that can't be read is handed to `on_error` with its directory's path, and passed over; without `on_error` the error
    is raised.
    """
    repository.need_index()
    loader = TreeLoader(repository)

    def entries(path: bytes, tree: str | bytes) -> Iterator[tuple[bytes, Node]]:
        try:
            for node in nodes_of(loader.load(blob_id(tree) if isinstance(tree, str) else tree)):
                yield path + node.raw_name, node
        except RepositoryError as error:
            if on_error is None:
                raise
            on_error(path[:-1], error)

    open_trees = [entries(prefix, tree)]
    while open_trees:
        for path, node in open_trees[-1]:
            yield path, node
            if node.type == "dir" and (enter is None or enter(path, node)):
                open_trees.append(entries(path + b"/", node.subtree))
                break
        else:
            open_trees.pop()


def files_in(repository: Repository, tree: bytes) -> Iterator[tuple[bytes, msgspec.Raw]]:
    """Every file below a tree: the path of its directory, with a slash, and its node as it is encoded.

    Nothing of a file but its type is looked at, for those who want few of many. Raises RepositoryError.
    """
    repository.need_index()
    loader = TreeLoader(repository)
    pending = [(b"", tree)]
    while pending:
        folder, tree = pending.pop()
        for _, kind, raw in chain.from_iterable(map(name_nodes, loader.load(tree))):
            if kind == "file":
                yield folder, raw
            elif kind == "dir":
                node = decode_node(raw)
                pending.append((folder + node.raw_name + b"/", blob_id(node.subtree)))


class Finder:
    """Finds entries by path in many snapshots; each tree is read once."""

    def __init__(self, repository: Repository) -> None:
        repository.need_index()
        self._loader = TreeLoader(repository)
        self._known: dict[tuple[bytes, bytes], Node | None] = {}

    def find(self, snapshot: Snapshot, path: bytes) -> Node | None:
        """The entry at an absolute path; None when the snapshot has none.

        `/` is a directory of which the snapshot knows nothing but what is in it. Raises RepositoryError.
        """
        node: Node | None = Node(
            name="/", type="dir", mtime=snapshot.time, atime=snapshot.time, ctime=snapshot.time, uid=0, gid=0,
            content=None, subtree=snapshot.tree,
        )  # fmt: skip
        for name in path.split(b"/"):
            if not name:
                continue
            if node is None or node.type != "dir":
                return None
            node = self._child(blob_id(node.subtree), name)
        return node

    def _child(self, tree: bytes, name: bytes) -> Node | None:
        key = (tree, name)
        if key not in self._known:
            nodes = nodes_of(self._loader.load(tree))
            self._known[key] = next((node for node in nodes if node.raw_name == name), None)
        return self._known[key]


def node_at(repository: Repository, snapshot: Snapshot, path: bytes) -> Node | None:
    """The entry at an absolute path of one snapshot; see `Finder.find`."""
    return Finder(repository).find(snapshot, path)


@dataclass(frozen=True, slots=True)
class Version:
    """A content that a file had.

    `snapshots` are those that hold it (id and time), newest first; `node` is how it stands in the newest of them.
    """

    snapshots: tuple[tuple[str, datetime], ...]
    node: Node


def versions(
    repository: Repository,
    path: bytes,
    snapshots: Iterable[tuple[str, Snapshot]],
    *,
    on_error: Callable[[str, RepositoryError], None],
) -> list[Version]:
    """The distinct versions of one file at an absolute path, newest first; `snapshots` come newest first (`matching`).

    Equal contents in a row are one version, whatever the times of the file say; a snapshot without the file does not
    part them. A snapshot in which it can't be looked up is handed to `on_error`, with its id, and passed over.
    """
    finder = Finder(repository)
    found: list[Version] = []
    for name, snapshot in snapshots:
        try:
            node = finder.find(snapshot, path)
        except RepositoryError as error:
            on_error(name, error)
            continue
        if node is None or node.type == "dir":
            continue
        held = (name, snapshot.at)
        if found and _content(found[-1].node) == _content(node):
            found[-1] = Version((*found[-1].snapshots, held), found[-1].node)
        else:
            found.append(Version((held,), node))
    return found


def _content(node: Node) -> tuple[str, list[str] | None, str, bytes]:
    return node.type, node.content, node.linktarget, node.linktarget_raw
