"""Making a snapshot: walk, compare with what is known, read what changed, store trees from the leaves up.

One thread walks and puts trees together; a few others read files. Directories are reached by descriptor and no link is
followed. What can't be read, or doesn't hold still, is handed back by name: a snapshot is made all the same.
"""

import errno
import gc
import grp
import math
import os
import pwd
import stat
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b, sha256
from operator import itemgetter

from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.known import SLACK_NS, Known, Memory, Seen, Trees
from symbiont_datad.restic.lock import Identity
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.reading import TRIES, Content, Live, Reader, attributes_of
from symbiont_datad.restic.records import Snapshot, Summary, format_time_ns
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.tree import TYPES, Attribute, Node, encode_node, encode_tree, go_mode, quote
from symbiont_datad.restic.writer import Added, Writer

_BATCH = 64
_BATCH_BYTES = 1 << 20
_OPEN_DIRECTORIES = 100
"""Directories that wait for their files to be read; each holds a descriptor."""
_DEEPEST = 128
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAT = struct.Struct("<qqqQIII")

Found = tuple[bytes, os.stat_result]
_by_name = itemgetter(0)


@dataclass(slots=True)
class Progress:
    """How far a backup is; another thread may look at it while it runs."""

    files: int = 0
    bytes: int = 0
    current: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a snapshot is made.

    `omit`: absolute paths that are left out; `hollow`: directories that are kept without what is in them. `parents` are
    earlier snapshots with their ids, the best first. `stopping` is asked between two files or so.
    """

    identity: Identity
    program: str = ""
    tags: tuple[str, ...] = ()
    omit: frozenset[bytes] = frozenset()
    hollow: frozenset[bytes] = frozenset()
    parents: tuple[tuple[str, Snapshot], ...] = ()
    live: Live | None = None
    threads: int = 2
    stopping: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class Counts:
    """What became of the files and directories. `bytes` of all files together."""

    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    bytes: int = 0

    @property
    def files(self) -> int:
        """All files."""
        return self.files_new + self.files_changed + self.files_unmodified


@dataclass(frozen=True, slots=True)
class Archived:
    """What `archive` stored. It is to be saved as a snapshot once the writer has finished (`snapshot_of`).

    `unchanged`: nothing below the targets differs from the first parent. `unread` and `torn` name files by their path,
    with the reason: those that are not in the snapshot, and those whose content may be of two times.
    """

    tree: bytes
    unchanged: bool
    counts: Counts
    unread: tuple[tuple[bytes, str], ...]
    torn: tuple[tuple[bytes, str], ...]
    started_ns: int


@dataclass(slots=True)
class _Directory:
    """A directory that is being put together: its descriptor, its entries in order, a node for each when it is known.

    `quiet`: lstat says the same of every entry as it did the last time. `whole`: nothing in it was unread or torn.
    """

    fd: int
    path: bytes
    entries: list[Found]
    digest: bytes
    seen: Seen | None
    quiet: bool
    trees: Trees
    attributes: list[tuple[str, bytes]]
    nodes: list[bytes | None]
    whole: bool = True
    reads: "list[tuple[Future[list[Content | OSError]], list[int]]]" = field(default_factory=list)
    children: "list[tuple[int, _Directory]]" = field(default_factory=list)
    subtrees: dict[int, tuple[bytes, list[tuple[str, bytes]]]] = field(default_factory=dict)


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
        self._trusted_ns = min(
            (int(parent.at.timestamp() * 1e9) - SLACK_NS for _, parent in options.parents), default=0
        )
        self._open = 0

    def archive(self, targets: Sequence[tuple[bytes, int]]) -> Archived:
        """Store the directories given as absolute path (without links in it) and readable descriptor.

        Raises Interrupted, OSError when a target or a directory above it can't be read, or what the repository raises.
        """
        collecting = gc.isenabled()
        gc.disable()  # hundreds of thousands of records without a cycle
        try:
            with ThreadPoolExecutor(self._options.threads, "read") as self._readers:
                try:
                    tree, unchanged = self._above(targets)
                except BaseException:
                    self._readers.shutdown(cancel_futures=True)
                    raise
        finally:
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
                    nodes.append(_directory_node(name, found, build(here, inner, below), []))
                    continue
                found = os.fstat(target)
                directory = self._start(os.open(".", _OPEN, dir_fd=target), here, below, 0, found)
                tree = self._finish(directory)
                nodes.append(_directory_node(name, found, tree, directory.attributes))
                if not (directory.quiet and directory.seen is not None and directory.seen.tree == tree):
                    known = trees.get(quote(name))
                    unchanged &= known is not None and known.raw == nodes[-1]
            return self._store_tree(path or b"/", nodes)

        group = [([part for part in path.split(b"/") if part], fd) for path, fd in targets]
        roots = [bytes.fromhex(parent.tree) for _, parent in self._options.parents]
        return build(b"", group, Trees(self._repository, lambda: roots)), unchanged

    def _store_tree(self, path: bytes, nodes: Sequence[bytes]) -> bytes:
        """Store the tree of a directory above the targets, unless it is the one of the last time."""
        text = encode_tree(nodes)
        tree = sha256(text).digest()
        seen = self._memory.directories.get(path)
        if seen is None or seen.tree != tree:
            self._repository.need_index()
            self._writer.store_as(tree, BlobType.TREE, text)
        self._after[path] = Seen(b"", b"", tree)
        return tree

    # A directory: start lists it and has files read, finish puts its tree together

    def _start(self, fd: int, path: bytes, trees: Trees, depth: int, own: os.stat_result | None = None) -> _Directory:
        """List a directory, have its changed files read, start its subdirectories. Takes over the descriptor.

        `own`: what lstat says of the directory itself where no directory above it is compared.
        """
        self._open += 1
        try:
            self._pause()
            self._progress.current = os.fsdecode(path)
            here = self._listed(fd, path, trees, own)
            if self._options.live is not None and self._options.live.is_dataset([name for name, _ in here.entries]):
                return self._dataset(here, trees, depth, own)
            if not here.quiet:
                self._files(here, range(len(here.entries)))
            for i in range(len(here.entries)):
                self._subdirectory(here, i, depth)
                if self._open > _OPEN_DIRECTORIES:
                    self._finish_children(here)
        except BaseException:
            os.close(fd)
            raise
        return here

    def _listed(self, fd: int, path: bytes, trees: Trees, own: os.stat_result | None) -> _Directory:
        hollow = path in self._options.hollow
        entries = [] if hollow else self._list(fd, path)
        digest = _digest(entries, own)
        seen = self._memory.directories.get(path)
        quiet = seen is not None and seen.entries == digest
        if seen is not None:
            remembered = seen.tree
            trees = Trees(self._repository, lambda: [remembered])
        return _Directory(fd, path, entries, digest, seen, quiet, trees, attributes_of(fd), [None] * len(entries))

    def _list(self, fd: int, path: bytes) -> list[Found]:
        found: list[Found] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    found.append((os.fsencode(entry.name), entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._miss(path + b"/" + os.fsencode(entry.name), error)
        prefix = path + b"/"
        if any(omitted.startswith(prefix) for omitted in self._options.omit):
            found = [entry for entry in found if prefix + entry[0] not in self._options.omit]
        found.sort(key=_by_name)
        return found

    def _files(self, here: _Directory, which: Iterable[int]) -> None:
        """Nodes for all that is no directory, as far as they are known; other threads read the rest."""
        batch: list[int] = []
        size = 0
        apart, living = self._databases(here)
        trusted = math.inf if here.quiet else self._trusted_ns
        for i in which:
            name, found = here.entries[i]
            if stat.S_ISDIR(found.st_mode) or name in apart:
                continue
            if not stat.S_ISREG(found.st_mode):
                here.nodes[i] = self._special(here, name, found)
                continue
            known = here.trees.get(quote(name))
            if (
                known is not None
                and name not in living
                and known.is_unchanged(found, trusted)
                and self._is_stored(here, known)
            ):
                here.nodes[i] = known.raw
                self._pass_by(found)
                continue
            batch.append(i)
            size += found.st_size
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                self._submit(here, batch)
                batch, size = [], 0
        if batch:
            self._submit(here, batch)

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
        found = dict(here.entries)
        for name in found:
            owner, _, _ = name.rpartition(b"-")
            if owner in found and name in live.companions(owner) and self._reader.is_database(here.fd, owner):
                apart.add(name)
                living.add(owner)
        return apart, living

    def _is_stored(self, here: _Directory, known: Known) -> bool:
        """Whether all of an unchanged file is in the repository. What is remembered is; a snapshot may be damaged."""
        if here.seen is not None:
            return True
        return all(self._repository.find(bytes.fromhex(blob)) is not None for blob in known.node.content or ())

    def _submit(self, here: _Directory, batch: list[int]) -> None:
        self._pause()
        self._repository.need_index()
        items = [here.entries[i] for i in batch]
        here.reads.append((self._readers.submit(self._read, here.fd, items), batch))

    def _read(self, fd: int, items: list[Found]) -> list[Content | OSError]:
        """What one of the reading threads does."""
        results: list[Content | OSError] = []
        for name, found in items:
            self._pause()
            try:
                content = self._reader.read(fd, name, found.st_uid)
            except OSError as error:
                results.append(error)
                continue
            results.append(content)
            self._progress.files += 1
            self._progress.bytes += content.size
        return results

    def _subdirectory(self, here: _Directory, i: int, depth: int) -> None:
        name, found = here.entries[i]
        if not stat.S_ISDIR(found.st_mode):
            return
        path = here.path + b"/" + name
        try:
            if depth == _DEEPEST:
                raise OSError(errno.ELOOP, f"deeper than {_DEEPEST} directories")
            fd = os.open(name, _OPEN, dir_fd=here.fd)
        except FileNotFoundError:
            here.whole = False
        except OSError as error:
            self._miss(path, error)
            here.whole = False
        else:
            here.children.append((i, self._start(fd, path, here.trees.below(quote(name)), depth + 1)))

    def _dataset(self, here: _Directory, trees: Trees, depth: int, own: os.stat_result | None) -> _Directory:
        """Read a directory whose parts name each other, in order, and again when parts went away meanwhile."""
        live = self._options.live
        assert live is not None
        for _ in range(TRIES):
            before = replace(self._counts), len(self._unread), len(self._torn)
            versions = live.versions(here.fd)
            number = {name: i for i, (name, _) in enumerate(here.entries)}
            for name in live.reading_order(list(number)):
                self._files(here, [number[name]])
                self._subdirectory(here, number[name], depth)
                self._finish_children(here)
                wait(read for read, _ in here.reads)
            if versions <= live.versions(here.fd):
                return here
            self._counts, unread, torn = before
            del self._unread[unread:], self._torn[torn:]
            here = self._listed(here.fd, here.path, trees, own)
        self._torn.append((here.path, "versions were cleaned up while it was read"))
        here.whole = False
        return here

    def _finish_children(self, here: _Directory) -> None:
        for i, child in here.children:
            here.subtrees[i] = (self._finish(child), child.attributes)
        here.children.clear()

    def _finish(self, here: _Directory) -> bytes:
        """Wait for the files, put the tree together, store it; hand back its id."""
        try:
            self._finish_children(here)
            below = sha256(b"".join(here.subtrees[i][0] for i in sorted(here.subtrees))).digest()
            if here.quiet and here.seen is not None and here.seen.children == below:
                tree = here.seen.tree
                for _, found in here.entries:
                    if stat.S_ISREG(found.st_mode):
                        self._pass_by(found)
                self._counts.dirs_unmodified += 1
            else:
                tree = self._assemble(here)
            if here.whole and not self._is_hot(here):
                self._after[here.path] = Seen(here.digest, below, tree)
            return tree
        finally:
            os.close(here.fd)
            self._open -= 1

    def _assemble(self, here: _Directory) -> bytes:
        if here.quiet:
            self._files(here, range(len(here.entries)))
        for read, batch in here.reads:
            for i, content in zip(batch, read.result(), strict=True):
                name, _ = here.entries[i]
                if isinstance(content, OSError):
                    here.whole = False
                    if not isinstance(content, FileNotFoundError):
                        self._miss(here.path + b"/" + name, content)
                    continue
                here.nodes[i] = self._file_node(here, name, content)
        for i, (subtree, attributes) in here.subtrees.items():
            here.nodes[i] = _directory_node(*here.entries[i], subtree, attributes)
        text = encode_tree(node for node in here.nodes if node is not None)
        tree = sha256(text).digest()
        known = here.trees.ids()
        counts = self._counts
        if tree in known:
            counts.dirs_unmodified += 1
        else:
            counts.dirs_changed += bool(known)
            counts.dirs_new += not known
            self._repository.need_index()
            self._writer.store_as(tree, BlobType.TREE, text)
        return tree

    # Nodes

    def _file_node(self, here: _Directory, name: bytes, content: Content) -> bytes:
        found = content.found
        quoted = quote(name)
        self._counts.bytes += content.size
        if here.trees.get(quoted) is None:
            self._counts.files_new += 1
        else:
            self._counts.files_changed += 1
        if content.error:
            here.whole = False
            self._torn.append((here.path + b"/" + name, content.error))
        return encode_node(
            Node(
                name=quoted,
                type="file",
                mode=go_mode(found.st_mode),
                mtime=(mtime := format_time_ns(found.st_mtime_ns)),
                atime=mtime,
                ctime=format_time_ns(found.st_ctime_ns),
                uid=found.st_uid,
                gid=found.st_gid,
                user=_user(found.st_uid),
                group=_group(found.st_gid),
                inode=found.st_ino,
                device_id=found.st_dev if found.st_nlink > 1 else 0,
                size=content.size,
                links=found.st_nlink,
                extended_attributes=[Attribute(*pair) for pair in content.attributes],
                content=content.chunks,
                error=content.error,
            )
        )

    def _special(self, here: _Directory, name: bytes, found: os.stat_result) -> bytes | None:
        """The node of a link, FIFO, socket or device; None for a link that went, or can't be read."""
        target = b""
        kind = TYPES.get(stat.S_IFMT(found.st_mode), "")
        if kind == "symlink":
            try:
                target = os.readlink(name, dir_fd=here.fd)
            except OSError as error:
                here.whole = False
                if not isinstance(error, FileNotFoundError):
                    self._miss(here.path + b"/" + name, error)
                return None
        node = _bare_node(name, found, kind)
        node.links = 0 if kind in ("fifo", "socket") else found.st_nlink
        if kind in ("dev", "chardev"):
            node.device = found.st_rdev
        node.linktarget = target.decode("utf-8", "replace")
        if node.linktarget.encode() != target:
            node.linktarget_raw = target
        return encode_node(node)

    # Small things

    def _pass_by(self, found: os.stat_result) -> None:
        self._counts.files_unmodified += 1
        self._counts.bytes += found.st_size
        self._progress.files += 1
        self._progress.bytes += found.st_size

    def _miss(self, path: bytes, error: OSError) -> None:
        self._unread.append((path, error.strerror or str(error)))

    def _pause(self) -> None:
        if self._options.stopping():
            raise Interrupted("asked to stop")

    def _is_hot(self, here: _Directory) -> bool:
        """Whether a file changed so lately that it may have changed again after it was read, within one tick."""
        hot = self._started_ns - SLACK_NS
        return any(found.st_ctime_ns >= hot and not stat.S_ISDIR(found.st_mode) for _, found in here.entries)


def summary(archived: Archived, added: Added, ended_ns: int) -> Summary:
    """The summary that a snapshot carries."""
    counts = archived.counts
    return Summary(
        backup_start=format_time_ns(archived.started_ns),
        backup_end=format_time_ns(ended_ns),
        files_new=counts.files_new,
        files_changed=counts.files_changed,
        files_unmodified=counts.files_unmodified,
        dirs_new=counts.dirs_new,
        dirs_changed=counts.dirs_changed,
        dirs_unmodified=counts.dirs_unmodified,
        data_blobs=added.data_blobs,
        tree_blobs=added.tree_blobs,
        data_added=added.plain,
        data_added_packed=added.packed,
        total_files_processed=counts.files,
        total_bytes_processed=counts.bytes,
    )


def snapshot_of(archived: Archived, added: Added, options: Options, paths: Sequence[bytes], ended_ns: int) -> Snapshot:
    """The snapshot to save for what was archived. Its time is the one at which reading began."""
    identity = options.identity
    return Snapshot(
        time=format_time_ns(archived.started_ns),
        tree=archived.tree.hex(),
        paths=[path.decode("utf-8", "backslashreplace") for path in paths],
        parent=options.parents[0][0] if options.parents else "",
        hostname=identity.hostname,
        username=identity.username,
        uid=identity.uid,
        gid=identity.gid,
        tags=list(options.tags),
        program_version=options.program,
        summary=summary(archived, added, ended_ns),
    )


def _bare_node(name: bytes, found: os.stat_result, kind: str) -> Node:
    mtime = format_time_ns(found.st_mtime_ns)
    return Node(
        name=quote(name),
        type=kind,
        mode=go_mode(found.st_mode),
        mtime=mtime,
        atime=mtime,
        ctime=format_time_ns(found.st_ctime_ns),
        uid=found.st_uid,
        gid=found.st_gid,
        user=_user(found.st_uid),
        group=_group(found.st_gid),
        inode=found.st_ino,
        content=None,
    )


def _directory_node(name: bytes, found: os.stat_result, tree: bytes, attributes: list[tuple[str, bytes]]) -> bytes:
    node = _bare_node(name, found, "dir")
    node.extended_attributes = [Attribute(*pair) for pair in attributes]
    node.subtree = tree.hex()
    return encode_node(node)


def _digest(entries: list[Found], own: os.stat_result | None) -> bytes:
    """What lstat says of a directory's entries, in short. Access times and the sizes of directories don't count."""
    pack = _STAT.pack
    parts = [
        b"%b\0%b"
        % (
            name,
            pack(s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino, s.st_mode, s.st_uid, s.st_gid),
        )
        for name, s in entries
    ]
    if own is not None:
        parts.append(pack(own.st_mtime_ns, own.st_ctime_ns, 0, own.st_ino, own.st_mode, own.st_uid, own.st_gid))
    return blake2b(b"".join(parts), digest_size=32).digest()


@lru_cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
