"""Making a snapshot: walk, compare with what is known, read what changed, store trees from the leaves up.

One thread walks and puts trees together; a few others read files. Directories are reached by descriptor and no link is
followed. What can't be read, or doesn't hold still, is handed back by name: a snapshot is made all the same.
"""

import errno
import gc
import os
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import chain

from symbiont_datad.restic.archived import Archived, Counts, Options, Progress
from symbiont_datad.restic.batches import Ordered, Results, Taker, Unordered
from symbiont_datad.restic.directory import Directory, Read, Stream
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.facts import ctime_of, fact_of, name_of
from symbiont_datad.restic.known import SLACK_NS, Known, Memory, Seen, Trees
from symbiont_datad.restic.listing import Listing, list_directory
from symbiont_datad.restic.nodes import directory_node, file_node, special_node
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.reading import TRIES, Reader, attributes_of
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.sealing import seal_files, sealing_crew
from symbiont_datad.restic.spool import Spool
from symbiont_datad.restic.text import LongText
from symbiont_datad.restic.tree import encode_tree, quote
from symbiont_datad.restic.writer import Writer

_OPEN_DIRECTORIES = 100
"""Directories that wait for their files to be read; each holds a descriptor."""
_LONG_TREE = 1 << 20
_DEEPEST = 128
_CLEAN_UP_S = 0.2
"""How long a dataset's clean-up is given to come to its end before the dataset is read again; longer each time."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        self._submitted = self._batches = 0
        self._crew = sealing_crew(repository.key, repository.level)
        self._behind: Future[object] | None = None

    def archive(self, targets: Sequence[tuple[bytes, int]]) -> Archived:
        """Store the directories given as absolute path (without links in it) and readable descriptor.

        Raises Interrupted, OSError when a target or a directory above it can't be read, or what the repository raises.
        """
        collecting = gc.isenabled()
        gc.disable()  # hundreds of thousands of records without a cycle
        try:
            with (
                self._crew,
                ThreadPoolExecutor(1, "tree") as self._storer,
                ThreadPoolExecutor(self._options.threads, "read") as self._readers,
            ):
                try:
                    tree, unchanged = self._above(targets)
                    self._catch_up()
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

    def _start(self, fd: int, path: bytes, trees: Trees, depth: int, own: os.stat_result | None = None) -> Directory:
        """List a directory, have its changed files read, start its subdirectories. Takes over the descriptor.

        `own`: what lstat says of the directory itself where no directory above it is compared. Raises OSError when it
        can't be listed; then nothing has begun.
        """
        self._open.add(fd)
        self._pause()
        self._progress.current = os.fsdecode(path)
        here = self._listed(fd, path, trees, own)
        if self._options.live is not None and self._options.live.is_dataset(here.listing.directories):
            return self._dataset(here, trees, depth, own)
        if not here.quiet:
            self._files(here)
        directories = here.listing.directories
        if here.last is not None:
            here.listing.forget_files()  # all that is needed of them is known by now
        for name in directories:
            self._subdirectory(here, name, depth)
            if len(self._open) > _OPEN_DIRECTORIES:
                self._finish_children(here)
        return here

    def _listed(self, fd: int, path: bytes, trees: Trees, own: os.stat_result | None) -> Directory:
        listing = self._list(fd, path)
        found = listing.digest(own)
        seen = self._memory.directories.get(path)
        if seen is not None:
            remembered = seen.tree, seen.before_ns
            trees = Trees(self._repository, lambda: [remembered])
        quiet = seen is not None and seen.entries == found
        if quiet:
            listing.forget_files()
        return Directory(fd, path, listing, found, seen, quiet, trees, attributes_of(fd))

    def _list(self, fd: int, path: bytes) -> Listing:
        prefix = path + b"/"
        omit = {name.removeprefix(prefix) for name in self._options.omit if name.startswith(prefix)}

        def miss(name: bytes, error: OSError) -> None:
            self._miss(prefix + name, error)

        if path in self._options.hollow:
            return Listing()
        return list_directory(fd, omit, miss)

    def _files(self, here: Directory) -> None:
        """Nodes for all that is no directory, as far as they are known; other threads read the rest."""
        apart, living = self._reader.databases(here.fd, here.listing.records)
        known_or_read = {*apart, *here.nodes, *chain.from_iterable(names for _, names in here.reads)}
        records = self._changed(here, apart | living)
        take: Taker = Unordered(here, partial(self._submit, here.fd))
        look: Callable[[bytes], Known | None] = lambda name: here.trees.get(quote(name))  # noqa: E731
        batches = self._batches
        if here.last is not None:
            look = lambda _name: None  # noqa: E731
        elif len(records) >= self._options.spool_from:
            records = sorted(records, key=name_of)
            here.spool = Spool()
            take = Ordered(here.spool, partial(self._submit, here.fd), partial(self._settle, here))
            look = here.trees.in_order().get
        for record in records:
            name, found = name_of(record), fact_of(record)
            if stat.S_ISDIR(found.mode) or name in known_or_read:
                continue
            if not stat.S_ISREG(found.mode):
                self._special(here, name)
                continue
            known = look(name)
            if known is not None and known.is_unchanged(found) and name not in living and self._is_stored(here, known):
                take.known(record, name, known.raw)
                self._pass_by(1, found.size)
            else:
                take.read(record, name, found, was_there=known is not None)
        take.finish()
        if here.spool is not None:
            self._batches = batches  # all were read

    def _changed(self, here: Directory, without: set[bytes]) -> Sequence[bytes]:
        """The records of the entries; of a large directory that is remembered, of those that are not as they were.

        Whatever is told of the entries in `without`, they are looked at.
        """
        here.recall(without)
        if here.last is not None and len(here.last.records) >= self._options.spool_from:
            here.last = None  # to keep so many nodes beside the old tree takes more memory than to go through that
        if here.last is None:
            return here.listing.records
        sizes = [found.size for record in here.last.records if stat.S_ISREG((found := fact_of(record)).mode)]
        self._pass_by(here.listing.files - len(sizes), here.listing.size - sum(sizes))
        return here.last.records

    def _is_stored(self, here: Directory, known: Known) -> bool:
        """Whether all of an unchanged file is in the repository. What is remembered is; a snapshot may be damaged."""
        if here.seen is not None:
            return True
        return all(self._repository.find(bytes.fromhex(blob)) is not None for blob in known.node.content or ())

    def _submit(self, fd: int, batch: list[bytes], owners: list[int]) -> Results:
        self._pause()
        self._repository.need_index()
        self._submitted += len(batch)
        self._batches += len(batch) > 1
        return self._readers.submit(self._read, fd, batch, owners)

    def _read(self, fd: int, names: list[bytes], owners: list[int]) -> list[Read | OSError]:
        """What one of the reading threads does."""
        many = len(names) > 1 and self._submitted > self._options.crew_from
        sealed = seal_files(self._crew, fd, names, owners) if many else None
        results: list[Read | OSError] = []
        for i, (name, owner) in enumerate(zip(names, owners, strict=True)):
            self._pause()
            found = sealed[i] if sealed is not None else None
            if found is None or (self._options.live is not None and self._options.live.is_database(found.head)):
                try:
                    content = self._reader.read(fd, name, owner)
                except OSError as error:
                    results.append(error)
                    continue
                result = Read(file_node(name, content), content.size, content.error)
            else:
                for blob, text, plain_length in found.blobs:
                    self._writer.store_sealed(blob, BlobType.DATA, text, plain_length, again=False)
                result = Read(found.node, found.size, found.error)
            results.append(result)
            self._progress.files += 1
            self._progress.bytes += result.size
        return results

    def _subdirectory(self, here: Directory, name: bytes, depth: int) -> None:
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
                here.children.append((name, os.fstat(fd), self._start(fd, path, trees, depth + 1)))
            except OSError as error:
                self._miss(path, error)
                here.unsure.add(name)
                self._open.discard(fd)
                os.close(fd)

    def _dataset(self, here: Directory, trees: Trees, depth: int, own: os.stat_result | None) -> Directory:
        """Read a directory whose parts name each other, in order, and again when parts went away meanwhile.

        What lacks the same parts twice is not in the middle of a change: it is like that.
        """
        live = self._options.live
        assert live is not None
        lacking: frozenset[bytes] = frozenset()
        for turn in range(TRIES):
            before = replace(self._counts), len(self._unread), len(self._torn)
            versions = live.versions(here.fd)
            for name in live.reading_order(here.listing.directories):
                self._subdirectory(here, name, depth)
                self._finish_children(here)
            if here.is_as_before():
                return here
            if not here.quiet:
                self._files(here)
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

    def _finish_children(self, here: Directory) -> None:
        for name, found, child in here.children:
            here.subtrees[name] = (found, self._finish(child), child.attributes)
        here.children.clear()

    def _finish(self, here: Directory) -> bytes:
        """Wait for the files, put the tree together, store it; hand back its id."""
        self._finish_children(here)
        below = here.below()
        if here.quiet and here.seen is not None and here.seen.children == below:
            tree, before_ns = here.seen.tree, here.seen.before_ns
            self._pass_by(here.listing.files, here.listing.size)
            self._counts.dirs_unmodified += 1
        else:
            tree, before_ns = self._assemble(here), self._started_ns - SLACK_NS
        self._remember(here, below, tree, before_ns)
        self._open.discard(here.fd)
        os.close(here.fd)
        return tree

    def _remember(self, here: Directory, below: bytes, tree: bytes, before_ns: int) -> None:
        listing = here.listing
        safe_ns = self._started_ns - SLACK_NS
        sure = not here.unsure and listing.latest_ns < safe_ns
        facts = here.seen.facts if here.quiet and here.seen is not None else b""
        if here.large is not None:
            unsure = here.unsure
            is_doubtful = lambda record: ctime_of(record) >= safe_ns or name_of(record) in unsure  # noqa: E731
            facts = here.large.pack(None if sure else is_doubtful)
            here.large = None
        if sure or facts:
            self._after[here.path] = Seen(here.digest if sure else b"", below, tree, before_ns, facts)

    def _assemble(self, here: Directory) -> bytes:
        if here.quiet:
            self._take_over(here)
        before = self._last_tree(here)
        for read, names in here.reads:
            for name, result in zip(names, read.result(), strict=True):
                node = self._settle(here, name, result, None)
                if node is not None:
                    here.nodes[name] = node
        self._batches -= sum(len(names) > 1 for _, names in here.reads)
        here.reads.clear()
        if not self._batches and self._submitted > self._options.crew_from:
            self._crew.end()  # what a large tree takes comes now, and maybe there are no more small files
            self._submitted = 0
        for name, (found, subtree, attributes) in here.subtrees.items():
            here.nodes[name] = directory_node(name, found, subtree, attributes)
        known = here.trees.ids()
        here.trees.forget()
        text = here.tree(before)
        if isinstance(text, bytes):
            tree = sha256(text).digest()
            store: Callable[[], object] = partial(self._writer.store_as, tree, BlobType.TREE, text)
        else:
            self._catch_up()
            tree, sealed, plain_length = self._writer.seal_tree(text.pieces(), text.size)
            store = partial(self._writer.store_sealed, tree, BlobType.TREE, sealed, plain_length, again=False)
        if tree in known:
            self._counts.dirs_unmodified += 1
        else:
            self._counts.dirs_changed += bool(known)
            self._counts.dirs_new += not known
            self._repository.need_index()
            self._store_behind(store, text.size if isinstance(text, Stream) else len(text))
        return tree

    def _settle(self, here: Directory, name: bytes, result: Read | OSError, was_there: bool | None) -> bytes | None:
        """Count what became of a file that was read; hand back its node, if it has one. `was_there` None: not known."""
        if isinstance(result, OSError):
            here.unsure.add(name)
            if not isinstance(result, FileNotFoundError):
                self._miss(here.path + b"/" + name, result)
            return None
        self._counts.bytes += result.size
        if here.was_there(name, quote(name)) if was_there is None else was_there:
            self._counts.files_changed += 1
        else:
            self._counts.files_new += 1
        if result.error:
            here.unsure.add(name)
            self._torn.append((here.path + b"/" + name, result.error))
        return result.node

    def _last_tree(self, here: Directory) -> bytes | LongText:
        """The tree that a large directory had; empty for another one. When it can't be read, all files are."""
        if here.last is None:
            return b""
        text = here.trees.text()
        if text is not None and here.last.large.fits(text):
            return text
        passed = [found for record in here.last.stay if stat.S_ISREG((found := fact_of(record)).mode)]
        self._pass_by(-len(passed), -sum(found.size for found in passed))
        self._read_anew(here)
        return b""

    def _store_behind(self, store: Callable[[], object], size: int) -> None:
        """Store a tree of that size; if it takes long, in another thread. One such tree at a time is in memory."""
        self._catch_up()
        if size < _LONG_TREE:
            store()
        else:
            self._behind = self._storer.submit(store)

    def _catch_up(self) -> None:
        """Wait for the tree that is being stored, and raise what that raised."""
        if self._behind is not None:
            self._behind.result()
            self._behind = None

    def _take_over(self, here: Directory) -> None:
        """The nodes of files that are all as they were, from the last tree; if that is damaged, files are read anew."""
        here.recall()
        if here.last is None:
            nodes = here.trees.files()
            if nodes is None:
                self._read_anew(here)
                return
            here.nodes.update(nodes)
        self._pass_by(here.listing.files, here.listing.size)

    def _read_anew(self, here: Directory) -> None:
        """Read the files that are not being read yet, as if they had never been seen."""
        here.listing, here.quiet = self._list(here.fd, here.path), False
        here.seen = here.last = None
        self._files(here)

    def _special(self, here: Directory, name: bytes) -> None:
        """A node for a link, FIFO, socket or device; none for one that went, or a link that can't be read."""
        try:
            found = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "something else is there by now")
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
