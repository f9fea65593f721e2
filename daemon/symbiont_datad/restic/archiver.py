"""Making a snapshot: walk, compare with what is known, read what changed, store trees from the leaves up.

One thread walks and puts trees together; a few others read files. Directories are reached by descriptor and no link is
followed. What can't be read, or doesn't hold still, is handed back by name: a snapshot is made all the same.
"""

import errno
import gc
import os
import stat
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import NamedTuple

from symbiont_datad.restic.archived import Archived, Counts, Options, Progress
from symbiont_datad.restic.chunk import WHOLE
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.known import SLACK_NS, Known, Memory, Seen, Trees
from symbiont_datad.restic.listing import Listing, digest, each, list_directory, pack, unpack
from symbiont_datad.restic.nodes import directory_node, file_node, special_node
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.reading import TRIES, Reader, attributes_of
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.sealing import seal_files, sealing_crew
from symbiont_datad.restic.tree import encode_tree, quote
from symbiont_datad.restic.writer import Writer

_BATCH = 64
_BATCH_BYTES = 1 << 20
_OPEN_DIRECTORIES = 100
"""Directories that wait for their files to be read; each holds a descriptor."""
_LARGE = 100
"""Entries from which on a directory is compared entry by entry with what is remembered, and not with its tree."""
_DEEPEST = 128
_CLEAN_UP_S = 0.2
"""How long a dataset's clean-up is given to come to its end before the dataset is read again; longer each time."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Read(NamedTuple):
    """What became of a file that was read: its node, its size in bytes, and why it may be torn (or "")."""

    node: bytes
    size: int
    error: str


@dataclass(slots=True)
class _Directory:
    """A directory that is being put together: its descriptor, and a node for each entry as soon as it is known.

    `quiet`: lstat says the same of every entry as it did the last time. `unsure`: entries that were not read, or are
    torn. `before`: of what was there the last time, the names that are known without a look at its tree.
    """

    fd: int
    path: bytes
    listing: Listing
    digest: bytes
    seen: Seen | None
    quiet: bool
    trees: Trees
    attributes: list[tuple[str, bytes]]
    nodes: dict[bytes, bytes] = field(default_factory=dict)
    unsure: set[bytes] = field(default_factory=set)
    before: set[bytes] | None = None
    reads: "list[tuple[Future[list[_Read | OSError]], list[bytes]]]" = field(default_factory=list)
    children: "list[tuple[bytes, os.stat_result, _Directory]]" = field(default_factory=list)
    subtrees: dict[bytes, tuple[os.stat_result, bytes, list[tuple[str, bytes]]]] = field(default_factory=dict)


class Archiver:
    """Makes one snapshot's trees."""

    def __init__(
        self,
        repository: Repository,
        writer: Writer,
        options: Options,
        memory: Memory | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`memory` is used, and holds what was seen this time when all is done. `progress` is kept up to date."""
        self._repository = repository
        self._writer = writer
        self._options = options
        self._memory = memory or Memory(repository.config.id)
        self._after: dict[bytes, Seen] = {}
        self._progress = progress or Progress()
        self._reader = Reader(writer, int(repository.config.chunker_polynomial, 16), options.live)
        self._counts = Counts()
        self._unread: list[tuple[bytes, str]] = []
        self._torn: list[tuple[bytes, str]] = []
        self._started_ns = time.time_ns()
        self._open: set[int] = set()
        self._submitted = 0
        self._crew = sealing_crew(repository.key, repository.level)

    def archive(self, targets: Sequence[tuple[bytes, int]]) -> Archived:
        """Store the directories given as absolute path (without links in it) and readable descriptor.

        Raises Interrupted, OSError when a target or a directory above it can't be read, or what the repository raises.
        """
        collecting = gc.isenabled()
        gc.disable()  # hundreds of thousands of records without a cycle
        try:
            with self._crew, ThreadPoolExecutor(self._options.threads, "read") as self._readers:
                try:
                    tree, unchanged = self._above(targets)
                except BaseException:
                    self._readers.shutdown(cancel_futures=True)
                    raise
        finally:
            for fd in self._open:  # after an error, and only now: the threads read in them
                os.close(fd)
            if collecting:
                gc.enable()
        inside = tuple(path + b"/" for path, _ in targets)
        kept = {
            path: seen
            for path, seen in self._memory.directories.items()
            if not path.startswith(inside) and path + b"/" not in inside
        }
        self._memory.directories = kept | self._after
        return Archived(tree, unchanged, self._counts, tuple(self._unread), tuple(self._torn), self._started_ns)

    def _above(self, targets: Sequence[tuple[bytes, int]]) -> tuple[bytes, bool]:
        """Trees for `/` and each directory on the way down to the targets, which hold nothing else."""
        unchanged = True

        def build(path: bytes, group: list[tuple[list[bytes], int]], trees: Trees) -> bytes:
            nonlocal unchanged
            nodes = []
            for name in sorted({parts[0] for parts, _ in group}):
                inner = [(parts[1:], fd) for parts, fd in group if parts[0] == name]
                here = path + b"/" + name
                below = trees.below(quote(name))
                target = next((fd for parts, fd in inner if not parts), None)
                if target is None:
                    found = os.stat(here, follow_symlinks=False)
                    nodes.append(directory_node(name, found, build(here, inner, below), []))
                    continue
                found = os.fstat(target)
                directory = self._start(os.open(".", _OPEN, dir_fd=target), here, below, 0, found)
                tree = self._finish(directory)
                nodes.append(directory_node(name, found, tree, directory.attributes))
                if not (directory.quiet and directory.seen is not None and directory.seen.tree == tree):
                    known = trees.get(quote(name))
                    unchanged &= known is not None and known.raw == nodes[-1]
            return self._store_tree(path or b"/", nodes)

        group = [([part for part in path.split(b"/") if part], fd) for path, fd in targets]
        roots = [
            (bytes.fromhex(parent.tree), int(parent.at.timestamp() * 1e9) - SLACK_NS)
            for _, parent in self._options.parents
        ]
        return build(b"", group, Trees(self._repository, lambda: roots)), unchanged

    def _store_tree(self, path: bytes, nodes: Sequence[bytes]) -> bytes:
        """Store the tree of a directory above the targets, unless it is the one of the last time."""
        text = encode_tree(nodes)
        tree = sha256(text).digest()
        seen = self._memory.directories.get(path)
        if seen is None or seen.tree != tree:
            # Without a look at the index: such a tree is small, and the index may not be needed for anything else.
            self._writer.store_as(tree, BlobType.TREE, text)
        self._after[path] = Seen(b"", b"", tree, 0)
        return tree

    # A directory: start lists it and has files read, finish puts its tree together

    def _start(self, fd: int, path: bytes, trees: Trees, depth: int, own: os.stat_result | None = None) -> _Directory:
        """List a directory, have its changed files read, start its subdirectories. Takes over the descriptor.

        `own`: what lstat says of the directory itself where no directory above it is compared. Raises OSError when it
        can't be listed; then nothing has begun.
        """
        self._open.add(fd)
        self._pause()
        self._progress.current = os.fsdecode(path)
        here = self._listed(fd, path, trees, own)
        if self._options.live is not None and self._options.live.is_dataset(here.listing.names):
            return self._dataset(here, trees, depth, own)
        if not here.quiet:
            self._files(here, here.listing.names)
        for name, found in zip(here.listing.names, here.listing.stats, strict=True):
            if found is not None and stat.S_ISDIR(found.st_mode):
                self._subdirectory(here, name, found, depth)
                if len(self._open) > _OPEN_DIRECTORIES:
                    self._finish_children(here)
        return here

    def _listed(self, fd: int, path: bytes, trees: Trees, own: os.stat_result | None) -> _Directory:
        listing = self._list(fd, path)
        found = digest(listing, own)
        seen = self._memory.directories.get(path)
        if seen is not None:
            remembered = seen.tree, seen.before_ns
            trees = Trees(self._repository, lambda: [remembered])
        quiet = seen is not None and seen.entries == found
        if quiet:
            listing.facts.clear()
            _keep_directories(listing)
        return _Directory(fd, path, listing, found, seen, quiet, trees, attributes_of(fd))

    def _list(self, fd: int, path: bytes) -> Listing:
        prefix = path + b"/"
        omit = {name.removeprefix(prefix) for name in self._options.omit if name.startswith(prefix)}

        def miss(name: bytes, error: OSError) -> None:
            self._miss(prefix + name, error)

        return list_directory(fd, omit, miss, hollow=path in self._options.hollow)

    def _files(self, here: _Directory, names: Iterable[bytes]) -> None:
        """Nodes for all that is no directory, as far as they are known; other threads read the rest."""
        batch: list[bytes] = []
        owners: list[int] = []
        size = 0
        apart, living = self._databases(here)
        self._as_before(here, apart | living)
        stats = dict(zip(here.listing.names, here.listing.stats, strict=True))
        get = here.trees.get
        for name in names:
            found = stats[name]
            if found is None or stat.S_ISDIR(found.st_mode) or name in apart or name in here.nodes:
                continue
            if not stat.S_ISREG(found.st_mode):
                self._special(here, name, found)
                continue
            known = get(quote(name)) if here.before is None else None
            if known is not None and known.is_unchanged(found) and name not in living and self._is_stored(here, known):
                here.nodes[name] = known.raw
                self._pass_by(1, found.st_size)
                continue
            if found.st_size > WHOLE:  # alone: it is for no process of the crew
                self._submit(here, [name], [found.st_uid])
                continue
            batch.append(name)
            owners.append(found.st_uid)
            size += found.st_size
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                self._submit(here, batch, owners)
                batch, owners, size = [], [], 0
        if batch:
            self._submit(here, batch, owners)
        _keep_directories(here.listing)

    def _as_before(self, here: _Directory, without: set[bytes]) -> None:
        """Of a large directory, the nodes of all entries of which lstat says what it said the last time."""
        if here.seen is None or not here.seen.facts or here.before is not None:
            return
        nodes = here.trees.files()
        facts = unpack(here.seen.facts)
        if nodes is None or not facts:
            return
        here.before = {fact[0] for fact in facts}
        files = size = 0
        for fact in each(here.listing.facts):
            name = fact[0]
            if fact in facts and name in nodes and name not in without:
                here.nodes[name] = nodes[name]
                if stat.S_ISREG(fact[5]):
                    files += 1
                    size += fact[3]
        self._pass_by(files, size)

    def _databases(self, here: _Directory) -> tuple[set[bytes], set[bytes]]:
        """What lies beside live databases and is no part of a copy, and the databases that may be ahead of their file.

        What was committed lies in the log beside a database until it is moved over, and lstat of the database itself
        tells nothing of it.
        """
        apart: set[bytes] = set()
        living: set[bytes] = set()
        live = self._options.live
        if live is None:
            return apart, living
        names = frozenset(here.listing.names)
        for name in names:
            owner, dash, _ = name.rpartition(b"-")
            if dash and owner in names and name in live.companions(owner) and self._reader.is_database(here.fd, owner):
                apart.add(name)
                living.add(owner)
        return apart, living

    def _is_stored(self, here: _Directory, known: Known) -> bool:
        """Whether all of an unchanged file is in the repository. What is remembered is; a snapshot may be damaged."""
        if here.seen is not None:
            return True
        return all(self._repository.find(bytes.fromhex(blob)) is not None for blob in known.node.content or ())

    def _submit(self, here: _Directory, batch: list[bytes], owners: list[int]) -> None:
        self._pause()
        self._repository.need_index()
        self._submitted += len(batch)
        here.reads.append((self._readers.submit(self._read, here.fd, batch, owners), batch))

    def _read(self, fd: int, names: list[bytes], owners: list[int]) -> list[_Read | OSError]:
        """What one of the reading threads does."""
        many = len(names) > 1 and self._submitted > self._options.crew_from
        sealed = seal_files(self._crew, fd, names, owners) if many else None
        results: list[_Read | OSError] = []
        for i, (name, owner) in enumerate(zip(names, owners, strict=True)):
            self._pause()
            found = sealed[i] if sealed is not None else None
            if found is None or (self._options.live is not None and self._options.live.is_database(found.head)):
                try:
                    content = self._reader.read(fd, name, owner)
                except OSError as error:
                    results.append(error)
                    continue
                result = _Read(file_node(name, content), content.size, content.error)
            else:
                for blob, text, plain_length in found.blobs:
                    self._writer.store_sealed(blob, BlobType.DATA, text, plain_length, again=False)
                result = _Read(found.node, found.size, found.error)
            results.append(result)
            self._progress.files += 1
            self._progress.bytes += result.size
        return results

    def _subdirectory(self, here: _Directory, name: bytes, found: os.stat_result, depth: int) -> None:
        path = here.path + b"/" + name
        try:
            if depth == _DEEPEST:
                raise OSError(errno.ELOOP, f"deeper than {_DEEPEST} directories")
            fd = os.open(name, _OPEN, dir_fd=here.fd)
        except FileNotFoundError:
            here.unsure.add(name)
        except OSError as error:
            self._miss(path, error)
            here.unsure.add(name)
        else:
            trees = here.trees.below(quote(name))
            try:
                here.children.append((name, found, self._start(fd, path, trees, depth + 1)))
            except OSError as error:
                self._miss(path, error)
                here.unsure.add(name)
                self._open.discard(fd)
                os.close(fd)

    def _dataset(self, here: _Directory, trees: Trees, depth: int, own: os.stat_result | None) -> _Directory:
        """Read a directory whose parts name each other, in order, and again when parts went away meanwhile.

        What lacks the same parts twice is not in the middle of a change: it is like that.
        """
        live = self._options.live
        assert live is not None
        lacking: frozenset[bytes] = frozenset()
        for turn in range(TRIES):
            before = replace(self._counts), len(self._unread), len(self._torn)
            versions = live.versions(here.fd)
            stats = dict(zip(here.listing.names, here.listing.stats, strict=True))
            for name in live.reading_order(here.listing.names):
                found = stats[name]
                if found is not None and stat.S_ISDIR(found.st_mode):
                    self._subdirectory(here, name, found, depth)
                    self._finish_children(here)
            if here.quiet and here.seen is not None and here.seen.children == _digest_of_subtrees(here):
                return here
            if not here.quiet:
                self._files(here, here.listing.names)
                wait(read for read, _ in here.reads)
            lacked, lacking = lacking, live.lacking(here.fd, versions)
            if not lacking or lacking == lacked:
                return here
            if turn < TRIES - 1:
                time.sleep(_CLEAN_UP_S * (turn + 1))
                self._counts, unread, torn = before
                del self._unread[unread:], self._torn[torn:]
                here = self._listed(here.fd, here.path, trees, own)
        self._torn.append((here.path, "versions were cleaned up while it was read"))
        here.unsure.update(here.listing.names)
        return here

    def _finish_children(self, here: _Directory) -> None:
        for name, found, child in here.children:
            here.subtrees[name] = (found, self._finish(child), child.attributes)
        here.children.clear()

    def _finish(self, here: _Directory) -> bytes:
        """Wait for the files, put the tree together, store it; hand back its id."""
        self._finish_children(here)
        below = _digest_of_subtrees(here)
        if here.quiet and here.seen is not None and here.seen.children == below:
            tree, before_ns = here.seen.tree, here.seen.before_ns
            self._pass_by(here.listing.files, here.listing.bytes)
            self._counts.dirs_unmodified += 1
        else:
            tree, before_ns = self._assemble(here), self._started_ns - SLACK_NS
        self._remember(here, below, tree, before_ns)
        self._open.discard(here.fd)
        os.close(here.fd)
        return tree

    def _remember(self, here: _Directory, below: bytes, tree: bytes, before_ns: int) -> None:
        listing = here.listing
        sure = not here.unsure and listing.latest_ns < self._started_ns - SLACK_NS
        facts = here.seen.facts if here.quiet and here.seen is not None else b""
        if listing.facts and len(listing.names) >= _LARGE:
            facts = pack(listing.facts, here.unsure, self._started_ns - SLACK_NS)
        if sure or facts:
            self._after[here.path] = Seen(here.digest if sure else b"", below, tree, before_ns, facts)

    def _assemble(self, here: _Directory) -> bytes:
        if here.quiet:
            self._take_over(here)
        for read, names in here.reads:
            for name, result in zip(names, read.result(), strict=True):
                if isinstance(result, OSError):
                    here.unsure.add(name)
                    if not isinstance(result, FileNotFoundError):
                        self._miss(here.path + b"/" + name, result)
                    continue
                here.nodes[name] = result.node
                self._counts.bytes += result.size
                if name in here.before if here.before is not None else here.trees.get(quote(name)) is not None:
                    self._counts.files_changed += 1
                else:
                    self._counts.files_new += 1
                if result.error:
                    here.unsure.add(name)
                    self._torn.append((here.path + b"/" + name, result.error))
        here.reads.clear()
        for name, (found, subtree, attributes) in here.subtrees.items():
            here.nodes[name] = directory_node(name, found, subtree, attributes)
        known = here.trees.ids()
        here.trees.forget()
        text = encode_tree([here.nodes[name] for name in sorted(here.nodes)])
        here.nodes.clear()
        tree = sha256(text).digest()
        if tree in known:
            self._counts.dirs_unmodified += 1
        else:
            self._counts.dirs_changed += bool(known)
            self._counts.dirs_new += not known
            self._repository.need_index()
            self._writer.store_as(tree, BlobType.TREE, text)
        return tree

    def _take_over(self, here: _Directory) -> None:
        """The nodes of files that are all as they were, from the last tree; if that is damaged, files are read anew."""
        nodes = here.trees.files()
        if nodes is None:
            here.listing = self._list(here.fd, here.path)
            here.quiet = False
            self._files(here, here.listing.names)
            return
        here.nodes.update(nodes)
        self._pass_by(here.listing.files, here.listing.bytes)

    def _special(self, here: _Directory, name: bytes, found: os.stat_result) -> None:
        """A node for a link, FIFO, socket or device; none for a link that went, or can't be read."""
        try:
            here.nodes[name] = special_node(here.fd, name, found)
        except OSError as error:
            here.unsure.add(name)
            if not isinstance(error, FileNotFoundError):
                self._miss(here.path + b"/" + name, error)

    # Small things

    def _pass_by(self, files: int, size: int) -> None:
        self._counts.files_unmodified += files
        self._counts.bytes += size
        self._progress.files += files
        self._progress.bytes += size

    def _miss(self, path: bytes, error: OSError) -> None:
        self._unread.append((path, error.strerror or str(error)))

    def _pause(self) -> None:
        if self._options.stopping():
            raise Interrupted("asked to stop")


def _keep_directories(listing: Listing) -> None:
    """Give up the memory of what lstat said of files: only directories are looked at again."""
    listing.stats[:] = [found if found and stat.S_ISDIR(found.st_mode) else None for found in listing.stats]


def _digest_of_subtrees(here: _Directory) -> bytes:
    return sha256(b"".join(here.subtrees[name][1] for name in sorted(here.subtrees))).digest()
