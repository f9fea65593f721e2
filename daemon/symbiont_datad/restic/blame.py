"""Which snapshots a damage hurts, and where in them."""

from binascii import unhexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from symbiont_datad.restic.errors import Interrupted, LockLost, RepositoryError, Unavailable
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import decode_tree

_EXAMPLES = 10

_Directories = Iterator[tuple[bytes, str]]


@dataclass(slots=True)
class Hurt:
    """What a loss hurts: ids of snapshots, and some of the paths in them (names quoted as in `tree`)."""

    snapshots: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


class Blame:
    """Walks the trees once more, in search of what is lost.

    `lost`: by a number of the caller's, the ids of trees and chunks that can't be had.
    """

    def __init__(self, repository: Repository, lost: Mapping[int, frozenset[bytes]], ask: Callable[[], None]) -> None:
        self._repository = repository
        self._ask = ask
        self._culprits: dict[bytes, set[int]] = {}
        for number, blobs in lost.items():
            for blob in blobs:
                self._culprits.setdefault(blob, set()).add(number)
        self._below: dict[bytes, frozenset[int]] = {}
        self.hurt = {number: Hurt() for number in lost}

    def look(self, snapshots: Sequence[tuple[str, str]]) -> None:
        """Fill `hurt` for these snapshots: id and tree's id of each."""
        for name, tree in snapshots:
            for number in sorted(self._losses(unhexlify(tree))):
                self.hurt[number].snapshots.append(name)

    def _losses(self, root: bytes) -> frozenset[int]:
        """The losses that a tree and all below it suffer. Each tree is read once; directories may nest very deep."""
        if root not in self._below:
            stack = [self._enter(root, "")]
            while stack:
                tree, losses, directories = stack[-1]
                for child, path in directories:
                    if child not in self._below:
                        stack.append(self._enter(child, path))
                        break
                    losses |= self._below[child]
                else:
                    stack.pop()
                    self._below[tree] = frozenset(losses)
                    if stack:
                        stack[-1][1].update(losses)
        return self._below[root]

    def _enter(self, tree: bytes, path: str) -> tuple[bytes, set[int], _Directories]:
        """A tree, the losses that it suffers itself, and the directories in it that are still to be looked into."""
        self._ask()
        losses: set[int] = set()
        self._note(losses, tree, path or "/")
        try:
            nodes = decode_tree(self._repository.load_blob(tree))
        except (Unavailable, Interrupted, LockLost):
            raise
        except RepositoryError:
            nodes = []  # it is lost itself
        directories = []
        for node in nodes:
            for chunk in node.content or ():
                self._note(losses, _id(chunk), f"{path}/{node.name}")
            if node.subtree:
                directories.append((_id(node.subtree), f"{path}/{node.name}"))
        return tree, losses, iter(directories)

    def _note(self, losses: set[int], blob: bytes, path: str) -> None:
        numbers = self._culprits.get(blob)
        if numbers:
            losses |= numbers
            for number in numbers:
                paths = self.hurt[number].paths
                if len(paths) < _EXAMPLES and path not in paths:
                    paths.append(path)


def _id(text: str) -> bytes:
    """The id in a tree; none at all when it can't be one, for the tree is told of as damaged already."""
    try:
        return unhexlify(text)
    except ValueError:
        return b""
