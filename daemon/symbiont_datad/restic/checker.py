"""Whether a repository is whole: every file of it, every tree of every snapshot, and as much of the data as is asked.

The files are read by `contents`, packs by `scrub`; here is the walk over the trees, and the verdict: which snapshots a
damage hurts, and where.
"""

from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import msgspec

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.blame import Blame
from symbiont_datad.restic.contents import REPAIR_INDEX, Contents, Problem, Progress, is_id, read_contents, reason_of
from symbiont_datad.restic.errors import Damaged, Interrupted, RepositoryError
from symbiont_datad.restic.index import Index, Place
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.records import UNREADABLE
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.scrub import Reading, examine_suspects
from symbiont_datad.restic.subset import Choice
from symbiont_datad.restic.text import LongText, parts_of
from symbiont_datad.restic.tree import TYPES, Node, is_safe_name, split_tree

__all__ = ["Checked", "Problem", "Progress", "check"]

_BATCH = 512
_BATCH_SIZE = 8 << 20
_GAP = 64 << 10
"""Bytes between two trees of a pack that are read with them, to ask the storage once instead of twice."""
_EXAMPLES = 10
"""So many paths are named of what a problem hurts; and so many entries of a tree that has more wrong with it."""

_NODE = msgspec.json.Decoder(Node)
_TYPES = frozenset(TYPES.values())


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found. `packs`: all that are there, with their bytes; `verified`: those read, and whole."""

    problems: tuple[Problem, ...]
    packs: dict[str, int]
    verified: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every snapshot can be restored, as far as was looked."""
        return all(problem.harmless for problem in self.problems)


def check(
    repository: Repository,
    *,
    choose: Choice | None = None,
    progress: Progress | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Checked:
    """Check the structure, and read the packs that `choose` picks of those that are there (see `subset`).

    The caller holds a lock. Other programs may add to the repository meanwhile, but remove nothing. One damage hides no
    other. Raises Interrupted, and Unavailable when the repository can't be reached.
    """

    def ask() -> None:
        if stopping():
            raise Interrupted("the check was stopped")

    progress = progress or Progress()
    verified: list[str] = []
    if choose is None:
        contents = read_contents(repository, progress, ask)
        _Walk(repository, contents, progress, ask).run()
    else:  # at the same time; what is told of the progress is how much data was read
        with Reading(repository, choose, ask) as reading:
            contents = read_contents(repository, progress, ask)
            reading.begin(choose(contents.sizes), contents, progress)
            _Walk(repository, contents, Progress(), ask).run()
            verified = reading.finish()
    verified += examine_suspects(repository, contents, ask)
    progress.phase = ""
    return Checked(_judged(repository, contents, ask), contents.sizes, tuple(verified))


class _Walk:
    """Reads each tree that a snapshot needs once, however many need it."""

    def __init__(self, repository: Repository, contents: Contents, progress: Progress, ask: Callable[[], None]) -> None:
        self._repository = repository
        self._contents = contents
        self._progress = progress
        self._ask = ask
        self._seen: set[bytes] = set()
        self._waiting: list[tuple[bytes, Place]] = []

    def run(self) -> None:
        progress = self._progress
        progress.phase, progress.files, progress.total_files = "trees", 0, 0
        for name, tree in self._contents.snapshots:
            if not self._expect(unhexlify(tree)):
                problem = Problem(f"snapshots/{name}", f"its tree {tree} is in no pack of the index", REPAIR_INDEX)
                self._contents.add(problem, [unhexlify(tree)])
        while self._waiting:
            for blob, text in _load(self._repository, self._batch()):
                self._ask()
                reason = text if isinstance(text, str) else "; ".join(self._faults(text))
                if reason:
                    self._contents.add(Problem(f"tree {blob.hex()}", reason), [blob])
                progress.files += 1

    def _expect(self, tree: bytes) -> bool:
        """Read this tree some time, if that was not done; false when the index does not know it."""
        if tree in self._seen:
            return True
        place = _place(self._repository.index, tree, BlobType.TREE)
        if place is None:
            return False
        self._seen.add(tree)
        self._waiting.append((tree, place))
        return True

    def _batch(self) -> list[tuple[bytes, Place]]:
        batch: list[tuple[bytes, Place]] = []
        size = 0
        while self._waiting and len(batch) < _BATCH and size < _BATCH_SIZE:
            batch.append(self._waiting.pop())
            size += batch[-1][1].size
        return batch

    def _faults(self, text: bytes | LongText) -> Sequence[str]:
        """What is wrong with a tree, in words."""
        faults: list[str] = []
        try:
            self._look_at(chain.from_iterable(map(split_tree, parts_of(text))), faults)
        except Damaged as error:
            return [str(error)]
        if len(faults) > _EXAMPLES:
            faults[_EXAMPLES:] = [f"and {len(faults) - _EXAMPLES} more of its entries"]
        return faults

    def _look_at(self, nodes: Iterable[msgspec.Raw], faults: list[str]) -> None:
        before = b""
        for raw in nodes:
            try:
                node = _NODE.decode(raw)
                name = node.raw_name
                if not is_safe_name(name):
                    raise Damaged("that is no name of an entry")
                if name <= before:
                    raise Damaged("it is out of order")
                before = name
                self._check_node(node)
            except (Damaged, *UNREADABLE) as error:
                faults.append(f"{_name_of(raw)}: {error}")

    def _check_node(self, node: Node) -> None:
        """Raises Damaged."""
        kind = node.type
        if kind == "file":
            if node.content is None:
                raise Damaged("a file without a list of chunks")
            find, size = self._repository.index.find, 0
            for chunk in node.content:
                try:
                    blob = unhexlify(chunk)
                except ValueError:
                    blob = b""
                if len(blob) != 32:
                    raise Damaged(f"{chunk!r} is no id of a chunk")
                place = find(blob)
                if place is None or place.type is not BlobType.DATA:
                    place = _place(self._repository.index, blob, BlobType.DATA)
                    if place is None:
                        raise Damaged(f"its chunk {chunk} is in no pack of the index")
                size += place.size
            if size != node.size:
                raise Damaged(f"its chunks have {size} bytes, and it should have {node.size}")
        elif kind == "dir":
            if not is_id(node.subtree):
                raise Damaged("a directory without a tree")
            if not self._expect(unhexlify(node.subtree)):
                raise Damaged(f"its tree {node.subtree} is in no pack of the index")
        elif kind not in _TYPES:
            raise Damaged(f"{kind!r} is no type of an entry")


def _name_of(raw: msgspec.Raw) -> str:
    """The name of an entry, quoted as it is in its tree."""
    try:
        return repr(msgspec.json.decode(raw, type=dict)["name"])
    except (*UNREADABLE, KeyError):
        return "an entry"


def _place(index: Index, blob: bytes, kind: BlobType) -> Place | None:
    """Where a blob of this kind lies. The same bytes may be stored as data and as a tree."""
    place = index.find(blob)
    if place is None or place.type is kind:
        return place
    return next((place for place in index.places(blob) if place.type is kind), None)


_Text = bytes | LongText | str
"""A tree, or why it can't be had."""


def _load(repository: Repository, wanted: list[tuple[bytes, Place]]) -> Iterator[tuple[bytes, _Text]]:
    """The plaintexts of trees, or why one can't be had. Neighbours in a pack are read together."""
    wanted.sort(key=lambda item: (item[1].pack, item[1].offset))
    group: list[tuple[bytes, Place]] = []
    for item in wanted:
        if group and (item[1].pack != group[-1][1].pack or item[1].offset > _end(group[-1][1]) + _GAP):
            yield from _load_group(repository, group)
            group = []
        group.append(item)
    if group:
        yield from _load_group(repository, group)


def _load_group(repository: Repository, group: list[tuple[bytes, Place]]) -> Iterator[tuple[bytes, _Text]]:
    first, last = group[0][1], group[-1][1]
    try:
        data = repository.backend.load(FileKind.DATA, first.pack.hex(), first.offset, _end(last) - first.offset)
    except RepositoryError as error:
        reason_of(error)
        data = b""  # each is tried on its own below, and says then what is wrong
    view = memoryview(data)
    for tree, place in group:
        at = place.offset - first.offset
        try:
            yield tree, repository.open_text(tree, view[at : at + place.length], place.plain_length)
        except Damaged:
            try:
                yield tree, repository.load_text(tree)
            except RepositoryError as error:
                yield tree, reason_of(error)


def _end(place: Place) -> int:
    return place.offset + place.length


def _judged(repository: Repository, contents: Contents, ask: Callable[[], None]) -> tuple[Problem, ...]:
    """The problems, each with the snapshots and paths that it hurts; what hurts comes first."""
    problems = list(contents.problems)
    if contents.lost:
        blame = Blame(repository, contents.lost, ask)
        blame.look(contents.snapshots)
        for number, hurt in blame.hurt.items():
            problems[number] = replace(
                problems[number], snapshots=tuple(sorted(hurt.snapshots)), paths=tuple(hurt.paths)
            )
    return tuple(sorted(problems, key=lambda problem: problem.harmless))
