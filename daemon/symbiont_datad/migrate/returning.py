"""The way back of a mirror: contexts and archives that are new or changed in the tree go to the old place as well.

Only what is sound goes, and only over a file that the journal knows: what has changed in the old place meanwhile is the
business of the way there. The runtime's backups stay on the side on which they were made.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from symbiont_datad.formats.context import LARGEST
from symbiont_datad.formats.state_name import Role, name_of
from symbiont_datad.fsops.copy import Encoding, copy, copy_small, pieces
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree, sync_directory
from symbiont_datad.fsops.walk import Entry, walk
from symbiont_datad.migrate.content import Content, look, of_data
from symbiont_datad.migrate.inventory import OWN, entry_of
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import is_secret_name
from symbiont_datad.migrate.places import make_directory, originals
from symbiont_datad.migrate.plan import CONTESTED, JSON
from symbiont_datad.migrate.planning import SOUND
from symbiont_datad.migrate.records import Deed, Identity, Known, Place, Returned, SourceRow
from symbiont_datad.migrate.target import Target


@dataclass(frozen=True, slots=True)
class _Sides:
    """What the journal knows of a source: by the path in the old place, and by that in the tree."""

    by_path: Callable[[str], Known | None]
    by_dest: Callable[[str], Known | None]


class _Came(Enum):
    """What came of one file."""

    WRITTEN = "written"
    IN_STEP = "the old place has the same already"
    WAITS = "the old place has changed as well"
    PASSED_OVER = "nothing that could go back"


@dataclass(slots=True)
class Return:
    """The way back of one mirrored source of contexts."""

    row: SourceRow
    target: Target
    _passed_over: dict[str, Identity] = field(default_factory=dict)
    _gzip: bool | None = None
    """The mode of the old place."""

    def turn(self, journal: Journal, hints: Iterable[str] | None) -> list[str]:
        """Bring to the old place what has changed in the tree: of these paths (relative to the root), or of all.

        Hands back the paths in the old place that were written. Raises OSError, UnsafePath or JournalError.
        """
        written = []
        sides = _sides(journal, self.row, whole=hints is None)
        if self._gzip is None:
            self._gzip = journal.is_gzip(self.row.id)
        for entry in self._entries(hints):
            one = sides.by_dest(entry.path)
            identity = Identity.of(entry)
            if (one is not None and one.dest_identity == identity) or self._passed_over.get(entry.path) == identity:
                continue
            path = one.path if one is not None else self._legacy_path(entry.path)
            came = self._bring(journal, entry, path, sides) if path is not None else _Came.PASSED_OVER
            if came is _Came.PASSED_OVER:
                self._passed_over[entry.path] = identity
            elif came is _Came.WRITTEN and path is not None:
                written.append(path)
        return written

    def _entries(self, hints: Iterable[str] | None) -> Iterator[Entry]:
        tree, prefix = self.target.tree, f"{self.target.agents}/"
        if hints is None:
            yield from walk(tree, self.target.agents, on_error=lambda _path, _error: None)
            return
        for path in hints:
            with suppress(FileNotFoundError, NotADirectoryError), tree.holding(path) as (fd, name):
                found = os.lstat(name, dir_fd=fd)
                if path.startswith(prefix) and stat.S_ISREG(found.st_mode):
                    yield entry_of(path, found)

    def _legacy_path(self, path: str) -> str | None:
        """What a file of the tree is called in the old place; None: it does not go there."""
        relative = path[len(self.target.agents) + 1 :]
        name = name_of(relative)
        if name is None or name.role in (Role.BACKUP, Role.LEFTOVER) or is_secret_name(relative):
            return None
        if name.role is Role.CONTEXT:
            return f"{name.agent}{'.json.gz' if self._gzip else '.json'}" if name.gzip is self.target.gzip else None
        return relative

    def _bring(self, journal: Journal, entry: Entry, path: str, sides: _Sides) -> _Came:
        """Write one file of the tree to the old place, unless that has to wait, or has the same content already."""
        old = Tree(self.row.at)
        standing = _lstat(old, path)
        known = sides.by_path(path)
        if standing is not None and (known is None or known.identity != Identity.of(standing)):
            return _Came.WAITS
        is_context = path.count("/") == 0
        with self.target.tree.holding(entry.path) as (from_fd, name), opened_regular(name, from_fd) as file:
            if entry.size > LARGEST or Identity.of(os.fstat(file)) != Identity.of(entry):
                return _Came.PASSED_OVER
            data = b"".join(pieces(file, entry.size))
            if Identity.of(os.fstat(file)) != Identity.of(entry):
                return _Came.PASSED_OVER
        # What was read is what is judged, and what is judged is what is written: nothing is read again.
        content, text = of_data(data, CONTESTED if is_context else JSON)
        if content.damage not in SOUND:
            return _Came.PASSED_OVER
        if standing is not None and self._has(old, path, standing, content):
            assert known is not None
            dest = Place(False, entry.path)
            journal.note(self.row.id, [known._replace(dest=dest, dest_identity=Identity.of(entry))])
            return _Came.IN_STEP
        encoding = _encoding(path, content, is_context)
        self._write(journal, entry, path, standing, lambda fd: copy_small(data, text, fd, encoding))
        return _Came.WRITTEN

    def _has(self, old: Tree, path: str, standing: os.stat_result, content: Content) -> bool:
        """Whether the old place has the same text already."""
        with old.holding(path) as (fd, name), opened_regular(name, fd) as file:
            return look(file, standing.st_size, CONTESTED).text == content.text

    def _write(
        self,
        journal: Journal,
        entry: Entry,
        path: str,
        standing: os.stat_result | None,
        put: Callable[[int], object],
    ) -> None:
        """Write a file of the old place by what `put` writes to a descriptor, whole or not at all."""
        old = Tree(self.row.at)
        _make_directories(old, os.path.dirname(path), self.target.mode)
        with old.holding(path) as (fd, name):
            number = None
            if standing is not None and path not in journal.returned(self.row.id):
                number = self._keep(journal, fd, name, standing)
            temporary = f"{OWN}{os.fsdecode(os.fsencode(name)[:200])}.tmp"
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=fd)
            made = _written(fd, temporary, put, entry, standing)
            dest = Place(False, entry.path)
            journal.give_back(self.row.id, Returned(path, made, number))
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
            sync_directory(fd)
            # Not before: a kill in between must not leave the old content as something new.
            journal.note(self.row.id, [Known(path, made, Deed.BRING, dest, b"", Identity.of(entry))])

    def _keep(self, journal: Journal, fd: int, name: str, standing: os.stat_result) -> int:
        original = journal.keep_original(standing)
        directory = originals(self.target)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened_regular(name, fd) as from_fd:
            to_fd = os.open(journal.original_path(original.id), flags, 0o600)
            try:
                copy(from_fd, to_fd, standing.st_size, cloning=True)
                os.fsync(to_fd)
            finally:
                os.close(to_fd)
        return original.id


def _sides(journal: Journal, row: SourceRow, *, whole: bool) -> _Sides:
    if not whole:
        return _Sides(partial(journal.known_file, row.id), partial(journal.known_at, row.id))
    by_path = journal.known(row.id)
    by_dest = {one.dest.path: one for one in by_path.values() if one.dest.path and not one.dest.aside}
    return _Sides(by_path.get, by_dest.get)


def _encoding(path: str, content: Content, is_context: bool) -> Encoding:
    gzip = path.endswith(".json.gz")
    if not is_context or content.gzip is gzip:
        return Encoding.AS_IS
    return Encoding.GZIP if gzip else Encoding.PLAIN


def _lstat(tree: Tree, path: str) -> os.stat_result | None:
    with suppress(FileNotFoundError, NotADirectoryError), tree.holding(path) as (fd, name):
        return os.lstat(name, dir_fd=fd)
    return None


def _make_directories(tree: Tree, path: str, mode: int) -> None:
    if not path or _lstat(tree, path) is not None:
        return
    _make_directories(tree, os.path.dirname(path), mode)
    with tree.holding(path) as (fd, name):
        make_directory(fd, name, mode)
        sync_directory(fd)


def _written(
    dir_fd: int, name: str, put: Callable[[int], object], entry: Entry, standing: os.stat_result | None
) -> Identity:
    """A durable file beside the old one, with that one's mode and owner, or those of the tree's file."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        put(fd)
        if os.geteuid() == 0:
            uid, gid = (standing.st_uid, standing.st_gid) if standing is not None else (entry.uid, entry.gid)
            os.fchown(fd, uid, gid)
        os.fchmod(fd, stat.S_IMODE(standing.st_mode if standing is not None else entry.mode))
        os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))
        os.fsync(fd)
        return Identity.of(os.fstat(fd))
    except OSError:
        with suppress(OSError):
            os.unlink(name, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)
