"""Restoring: one pass over the trees makes directories and notes what is wanted of which pack; then pack after pack.

A file of one blob is made, written and finished in one go; a larger one is made first, and finished by its last blob.
What can't be restored is handed back by name, and the rest is restored all the same.

Nothing is written outside of the target, and no link in it is followed (see `target`). A tree is read only when its
hash is its id, so none can contain itself.
"""

import errno
import gc
import os
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from symbiont_datad.restic.crew import Crew
from symbiont_datad.restic.errors import Damaged, Interrupted, Missing, RepositoryError
from symbiont_datad.restic.fetch import Fetch, TreeLoader
from symbiont_datad.restic.filling import CREATE, make_small, put
from symbiont_datad.restic.find import blob_id, nodes_of
from symbiont_datad.restic.index import Place
from symbiont_datad.restic.metadata import Metadata, apply, apply_by_name, metadata_of
from symbiont_datad.restic.notes import Small, by_directory, directory_of, piece_note, piece_of, small_note, small_of
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.target import Reach, Target, place, refuse_other, temporary_name
from symbiont_datad.restic.tree import Node, is_safe_name
from symbiont_datad.restic.unsealing import make_files, unsealing_crew

Select = Callable[[bytes, Node], bool]
"""Whether an entry is wanted, by its path relative to the tree. A directory that isn't is left out with all in it."""

_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_HELPERS = min(max((os.cpu_count() or 1) - 1, 1), 3)
_FEW = 64
"""So many files of one directory are written here rather than sent to another process."""

_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What every other file would meet as well."""

_FORMATS = {"symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}


@dataclass(slots=True)
class Progress:
    """How far a restore is; another thread may look at it while it runs. The totals grow while trees are read."""

    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0
    current: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How is restored.

    `overwrite`: a file takes the place of one that is there (when it is whole), instead of being listed as failed.
    Directories are merged either way. `stopping` is asked between two pieces of a pack or so. `crew_from`: from so many
    small files on, in directories that the restore makes, processes of their own write them (see `unsealing`); those
    take 0.1 s to start.
    """

    overwrite: bool = False
    threads: int = 3
    crew_from: int = 4_000
    stopping: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class Counts:
    """What was restored. `files` with all their names, `others` are FIFOs and devices; `sockets` are left out."""

    files: int = 0
    directories: int = 0
    links: int = 0
    others: int = 0
    sockets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it. `failed` names entries by their path relative to the tree, with the reason."""

    counts: Counts
    failed: tuple[tuple[bytes, str], ...]


@dataclass(slots=True)
class _Large:
    """A file that is made before its content comes: one of several blobs, or of none.

    `name` is the one that it is to have, `now` the one that it has. `left` counts the blobs that are still to come.
    """

    directory: int
    name: bytes
    now: bytes
    metadata: Metadata
    identity: tuple[int, int]
    born: tuple[int, int]
    left: int
    size: int
    done: bool = False


class Restorer:
    """Restores into one target, once."""

    def __init__(
        self,
        repository: Repository,
        target_fd: int,
        options: Options | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`target_fd`: the directory, as a descriptor (`O_PATH` will do). `progress` is kept up to date."""
        self._repository = repository
        self._loader = TreeLoader(repository)
        self._fetch = Fetch(repository)
        self._target = Target(target_fd)
        self._options = options or Options()
        self._progress = progress or Progress()
        self._counts = Counts()
        self._failed: dict[bytes, str] = {}
        self._large: list[_Large] = []
        self._names: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._more_names: list[tuple[tuple[int, bytes], tuple[int, bytes]]] = []
        self._directories: list[Metadata | None] = [None]
        self._lock = threading.Lock()
        self._smalls = 0
        self._crew: Crew | None = None

    def restore(self, tree: bytes, *, select: Select | None = None, own: Node | None = None) -> Restored:
        """Restore what is in a tree. `own`: the node of its directory, whose mode, owner … the target itself gets.

        Raises Damaged or Missing when the tree itself can't be read, OSError when the target is full or read-only,
        Interrupted, Unavailable. Then no half file is left behind.
        """
        self._repository.need_index()
        return self._run(nodes_of(self._loader.load(tree)), select, own)

    def restore_node(self, node: Node, *, select: Select | None = None) -> Restored:
        """Restore one entry under its own name, with all that is in it. Raises as `restore` does."""
        self._repository.need_index()
        return self._run([node], select, None)

    def _run(self, nodes: Iterable[Node], select: Select | None, own: Node | None) -> Restored:
        collecting = gc.isenabled()
        gc.disable()  # hundreds of thousands of records without a cycle
        try:
            with Reach(self._target) as reach:
                try:
                    self._plan(reach, nodes, select)
                    self._fetch.run(
                        self._deliver,
                        self._lost,
                        state=lambda: Reach(self._target),
                        threads=self._options.threads if self._crew is None else 1 + _HELPERS,
                        stopping=self._options.stopping,
                        helps=None if self._crew is None else self._helps,
                    )
                finally:
                    if self._crew is not None:
                        self._crew.end()
                    self._remove_halves(reach)
                self._link(reach)
                if own is not None:
                    self._directories[0] = metadata_of(own)
                self._finish_directories(reach)
        finally:
            if collecting:
                gc.enable()
        return Restored(self._counts, tuple(sorted(self._failed.items())))

    # The plan: directories and what is no file are made, files are noted for when their blobs come

    def _plan(self, reach: Reach, nodes: Iterable[Node], select: Select | None) -> None:
        pending: list[tuple[int, bytes]] = []
        number = 0
        while True:
            try:
                for node in nodes:
                    name = self._checked_name(number, node)
                    if not name or (select is not None and not select(self._target.path(number, name), node)):
                        continue
                    try:
                        self._entry(reach, number, name, node, pending)
                    except (OSError, RepositoryError) as error:
                        self._fail(self._target.path(number, name), error)
            except (Damaged, Missing) as error:
                self._fail(self._target.path(number), error)
            nodes = ()
            if not pending:
                return
            number, tree = pending.pop()
            if self._options.stopping():
                raise Interrupted("asked to stop")
            self._progress.current = os.fsdecode(self._target.path(number))
            try:
                nodes = nodes_of(self._loader.load(tree))
            except (Damaged, Missing) as error:
                self._fail(self._target.path(number), error)

    def _checked_name(self, number: int, node: Node) -> bytes:
        """The entry's name; empty for one that can't be, which is told as failed."""
        try:
            name = node.raw_name
            if is_safe_name(name):
                return name
            raise Damaged("that is no name of a file, so it is not restored")
        except Damaged as error:
            self._fail(self._target.path(number, node.name.encode("utf-8", "surrogateescape")), error)
            return b""

    def _entry(self, reach: Reach, number: int, name: bytes, node: Node, pending: list[tuple[int, bytes]]) -> None:
        kind = node.type
        if kind == "file":
            self._file(reach, number, name, node)
        elif kind == "dir":
            tree, metadata = blob_id(node.subtree), metadata_of(node)
            pending.append((self._target.make(number, reach.fd(number), name), tree))
            self._directories.append(metadata)
            self._counts.directories += 1
        elif kind == "socket":
            self._counts.sockets += 1  # it is of use only to the process that made it
        elif kind in _FORMATS:
            self._special(reach.fd(number), name, node, _FORMATS[kind])
        else:
            raise Damaged(f"what {kind!r} is, is not known here")

    def _special(self, dir_fd: int, name: bytes, node: Node, kind: int) -> None:
        metadata = metadata_of(node)
        linktarget = node.linktarget_raw or node.linktarget.encode("utf-8", "surrogateescape")

        def make(name: bytes) -> None:
            try:
                if kind == stat.S_IFLNK:
                    os.symlink(linktarget, name, dir_fd=dir_fd)
                elif kind == stat.S_IFIFO:
                    os.mkfifo(name, 0o600, dir_fd=dir_fd)
                else:
                    os.mknod(name, kind | 0o600, node.device, dir_fd=dir_fd)
            except (ValueError, OverflowError) as error:
                raise Damaged(f"there can be no such entry ({error})") from None
            apply_by_name(name, dir_fd, kind, metadata)

        place(dir_fd, name, make, overwrite=self._options.overwrite)
        self._counts.links += kind == stat.S_IFLNK
        self._counts.others += kind != stat.S_IFLNK

    def _file(self, reach: Reach, number: int, name: bytes, node: Node) -> None:
        self._progress.total_files += 1
        if node.links > 1 and node.inode:
            first = self._names.setdefault((node.inode, node.device_id), (number, name))
            if first != (number, name):
                self._more_names.append((first, (number, name)))
                return
        places: list[tuple[bytes, Place]] = []
        size = 0
        for text in node.content or ():
            blob = blob_id(text)
            found = self._repository.find(blob)
            if found is None:
                raise Missing(f"blob {text} is in no pack that the index knows")
            places.append((blob, found))
            size += found.size
        metadata = metadata_of(node)
        self._progress.total_bytes += size
        if len(places) == 1:
            self._fetch.want(*places[0], small_note(number, name, metadata))
            if self._target.ours[number]:
                self._smalls += 1
                if self._smalls == self._options.crew_from:
                    self._crew = unsealing_crew(self._repository.backend, self._repository.key)
                    if self._crew is not None:
                        self._crew.start(_HELPERS)
            return
        large = self._begin(reach.fd(number), number, name, metadata, size, len(places))
        self._large.append(large)
        position = 0
        for blob, found in places:
            self._fetch.want(blob, found, piece_note(len(self._large) - 1, position))
            position += found.size
        if not places:
            self._finish(reach, large)

    def _begin(self, dir_fd: int, number: int, name: bytes, metadata: Metadata, size: int, pieces: int) -> _Large:
        """Make a file of that size, all hole."""
        now = name
        try:
            fd = os.open(now, CREATE, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            if not self._options.overwrite:
                raise
            now = temporary_name(name)
            fd = os.open(now, CREATE, 0o600, dir_fd=dir_fd)
        try:
            os.ftruncate(fd, size)
            found = os.fstat(fd)
        except OSError:
            os.unlink(now, dir_fd=dir_fd)
            raise
        finally:
            os.close(fd)
        identity, born = (found.st_dev, found.st_ino), (found.st_uid, found.st_gid)
        return _Large(number, name, now, metadata, identity, born, pieces, size)

    # Content: called by the threads that read packs

    def _deliver(self, reach: Reach, note: bytes, plain: bytes) -> None:
        try:
            directory = directory_of(note)
            if directory is None:
                piece = piece_of(note)
                self._write_piece(reach, self._large[piece.file], piece.position, plain)
            else:
                self._write_small(reach, directory, small_of(note), plain)
        except OSError as error:
            self._fail(self._path(note), error)

    def _write_small(self, reach: Reach, directory: int, wanted: Small, plain: bytes) -> None:
        born, failure = make_small(
            reach.fd(directory), wanted, plain, self._target.born[directory], overwrite=self._options.overwrite
        )
        self._target.born[directory] = born
        if failure is not None:
            self._fail(self._target.path(directory, wanted.name), failure)
        self._count(len(plain), len(plain))

    def _helps(self, reach: Reach, pack: str, group: list[bytes]) -> list[bytes]:
        """Have another process write small files of a piece of a pack; hand back what is left of the piece."""
        crew = self._crew
        assert crew is not None
        left: list[bytes] = []
        for directory, wanted in by_directory(group).items():
            if directory is None or not self._target.ours[directory] or len(wanted) < _FEW or crew.failed:
                left += wanted
                continue
            try:
                dir_fd = reach.fd(directory)
            except OSError:  # each file is told as failed with it
                left += wanted
                continue
            done = make_files(crew, dir_fd, pack, wanted)
            left += done.left
            for name, code, reason in done.failed:
                self._fail(self._target.path(directory, name), OSError(code, reason))
            self._count(done.size, done.size, files=done.files)
        left.sort()
        return left

    def _write_piece(self, reach: Reach, large: _Large, position: int, plain: bytes) -> None:
        fd = os.open(large.now, _WRITE, dir_fd=reach.fd(large.directory))
        try:
            refuse_other(os.fstat(fd), large.identity)
            put(fd, plain, position)
        finally:
            os.close(fd)
        with self._lock:
            large.left -= 1
            last = large.left == 0
        self._progress.bytes += len(plain)
        if last:
            self._finish(reach, large)

    def _lost(self, note: bytes, reason: str) -> None:
        self._fail(self._path(note), Damaged(reason))

    def _finish(self, reach: Reach, large: _Large) -> None:
        """All content is there: give the file its metadata and its name."""
        dir_fd = reach.fd(large.directory)
        fd = os.open(large.now, _WRITE, dir_fd=dir_fd)
        try:
            refuse_other(os.fstat(fd), large.identity)
            self._apply(fd, large.metadata, large.born, large.directory, large.name)
        finally:
            os.close(fd)
        if large.now != large.name:
            os.rename(large.now, large.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        large.done = True
        self._count(large.size)

    def _apply(self, fd: int, metadata: Metadata, born: tuple[int, int], directory: int, name: bytes) -> None:
        """Content without its owner or an attribute is better than none: it stays, and is told."""
        try:
            apply(fd, metadata, born)
        except OSError as error:
            self._fail(self._target.path(directory, name), error)

    # When all content is there

    def _remove_halves(self, reach: Reach) -> None:
        """Remove files that did not get all of their content: half a file looks like a whole one."""
        for large in self._large:
            if not large.done:
                with suppress(OSError):
                    dir_fd = reach.fd(large.directory)
                    refuse_other(os.stat(large.now, dir_fd=dir_fd, follow_symlinks=False), large.identity)
                    os.unlink(large.now, dir_fd=dir_fd)

    def _link(self, reach: Reach) -> None:
        """Give files that are restored by now their other names."""
        for first, (directory, name) in self._more_names:
            path = self._target.path(directory, name)
            first_path = self._target.path(*first)
            if first_path in self._failed:
                self._failed[path] = f"it is the same file as {os.fsdecode(first_path)}, which failed"
                continue
            try:
                from_fd = os.dup(reach.fd(first[0]))
                try:
                    self._link_one(from_fd, first[1], reach.fd(directory), name)
                finally:
                    os.close(from_fd)
            except OSError as error:
                self._fail(path, error)

    def _link_one(self, from_fd: int, first: bytes, to_fd: int, name: bytes) -> None:
        def make(name: bytes) -> None:
            os.link(first, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)

        place(to_fd, name, make, overwrite=self._options.overwrite)
        self._count(0)

    def _finish_directories(self, reach: Reach) -> None:
        """The deepest first: whatever is made in a directory changes its time, and its mode may lock us out."""
        for number in reversed(range(len(self._directories))):
            metadata = self._directories[number]
            if metadata is None:
                continue
            try:
                fd = os.open(".", _READ_DIRECTORY, dir_fd=reach.fd(number))
                try:
                    found = os.fstat(fd)
                    apply(fd, metadata, (found.st_uid, found.st_gid))
                finally:
                    os.close(fd)
            except OSError as error:
                self._fail(self._target.path(number), error)

    # Small things

    def _count(self, size: int, received: int = 0, files: int = 1) -> None:
        """Count files of that size as restored; `received` bytes were not counted in the progress yet."""
        with self._lock:
            self._counts.files += files
            self._counts.bytes += size
            self._progress.files += files
            self._progress.bytes += received

    def _path(self, note: bytes) -> bytes:
        """What a note is of."""
        directory = directory_of(note)
        if directory is None:
            large = self._large[piece_of(note).file]
            return self._target.path(large.directory, large.name)
        return self._target.path(directory, small_of(note).name)

    def _fail(self, path: bytes, error: OSError | RepositoryError) -> None:
        """Note what could not be restored. Raises OSError when nothing else could be either."""
        if isinstance(error, OSError):
            if error.errno in _HOPELESS:
                raise error
            reason = error.strerror or str(error)
        else:
            reason = str(error)
        with self._lock:
            self._failed.setdefault(path, reason)


def below(paths: Iterable[bytes]) -> Select:
    """A `Select` for these paths (relative to the tree), all that is in them, and the directories on the way there."""
    wanted = {path.strip(b"/") for path in paths}
    inside = tuple(path + b"/" for path in wanted)

    def select(path: bytes, node: Node) -> bool:
        if b"" in wanted or path in wanted or path.startswith(inside):
            return True
        return node.type == "dir" and any(place.startswith(path + b"/") for place in wanted)

    return select
