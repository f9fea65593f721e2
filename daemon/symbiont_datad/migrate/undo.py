"""Taking a migration back, by its journal: what it made goes, what it overwrote comes back, the old place is as before.

What was written since is kept: a file of the tree that has changed stays, and where something else was there before, it
gets another name. May be killed at any time and called again.
"""

import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from symbiont_datad.errors import UnsafePath
from symbiont_datad.formats.state_name import Role, name_of
from symbiont_datad.fsops.copy import copy, pieces
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import Tree, readable, sync_directory
from symbiont_datad.fsops.write import ITEM
from symbiont_datad.migrate.compat import take_link_away
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.places import Cell, Folders, originals
from symbiont_datad.migrate.records import Config, Identity, Made, Original, SourceRow
from symbiont_datad.migrate.recovery import recover
from symbiont_datad.migrate.target import Target
from symbiont_datad.report import Action, Finding, Severity

_BATCH = 1000
_RULE = "migrate --undo"
_GZIP = b"\x1f\x8b"

OnActions = Callable[[Sequence[Action]], None]


@dataclass(slots=True)
class Undone:
    """What came of it. `kept`: files that were written since, by their path: of the tree, or absolute."""

    removed: int = 0
    restored: int = 0
    kept: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    journal: Path | None = None


def undo(target: Target, journal: Journal, on_actions: OnActions) -> Undone:
    """Take all of a migration back, to be called under the lock. The journal is laid down at the end.

    `on_actions` is told of what is about to be done. Raises OSError, UnsafePath or JournalError; then it can be called
    again.
    """
    journal.put("undoing", "yes")
    recover(target, journal)
    undone = Undone()
    for row in journal.sources():
        why = take_link_away(row, target, journal, put_back=True)
        if why:
            remedy = "put it back yourself: the link is not there any more"
            undone.findings.append(Finding("legacy_not_put_back", row.source.path, Severity.WARNING, why, remedy))
        _take_back_returned(row, journal, undone, on_actions)
    cell = Cell(target, journal)
    with suppress(FileNotFoundError, NotADirectoryError), Folders(target.tree) as folders:
        folders.at("")
        _Tree(journal, cell, folders, undone, on_actions).take_back()
    for config in journal.configs():
        _restore_config(config, undone, on_actions)
        journal.forget_config(config.path)
    cell.remove()
    if journal.get("root"):
        with suppress(OSError, UnsafePath), target.tree.parent() as fd:
            os.rmdir(target.tree.name, dir_fd=fd)
    undone.journal = journal.lay_down("undone", time.time())
    shutil.rmtree(originals(target), ignore_errors=True)
    return undone


class _Tree:
    """What the migration made in the tree, and in its cell of the quarantine."""

    def __init__(self, journal: Journal, cell: Cell, folders: Folders, undone: Undone, on_actions: OnActions) -> None:
        self._journal, self._cell, self._folders = journal, cell, folders
        self._undone, self._on_actions = undone, on_actions

    def take_back(self) -> None:
        # What was there before first: as long as it is not back, nothing else that may hold it goes.
        made = sorted(self._journal.made(), key=lambda one: (one.original is None, one.place))
        for start in range(0, len(made), _BATCH):
            some = made[start : start + _BATCH]
            self._on_actions([self._action(one) for one in some if not one.place.aside])
            touched = {self._one(one) for one in some}
            for folder in sorted(filter(None, touched)):
                with suppress(FileNotFoundError, NotADirectoryError):
                    sync_directory(self._folders.at(folder))
            self._journal.unmake(one.place for one in some)
        self._move_back()
        self._remove_directories()

    def _action(self, one: Made) -> Action:
        reason = "what was there before comes back" if one.original is not None else "the migration had made it"
        return Action("migration_undone", one.place.path, _RULE, reason, one.identity.size)

    def _one(self, one: Made) -> str:
        """Take one file back; hand back the directory that was changed, relative to the root."""
        path = self._cell.in_tree(one.place)
        folder, _, name = path.rpartition("/")
        found = self._folders.lstat(path)
        original = self._journal.original(one.original) if one.original is not None else None
        try:
            if found is not None and Identity.of(found) != one.identity:
                if original is not None and self._is_back(folder, name, found, original):
                    return folder  # an undo that was cut off had put it back
                self._undone.kept.append(path)
                if original is None:
                    return folder
                self._rename_since(path, found)
            if original is not None:
                self._put_back(folder, name, original)
                self._undone.restored += 1
            elif found is not None:
                os.unlink(name, dir_fd=self._folders.at(folder))
                self._undone.removed += 1
        except (FileNotFoundError, NotADirectoryError) as error:
            if original is not None:
                detail, remedy = error.strerror or str(error), "a snapshot may have it: `symbiont-datad versions`"
                self._undone.findings.append(Finding("not_restored", path, Severity.ERROR, detail, remedy))
            return ""
        return folder

    def _rename_since(self, path: str, found: os.stat_result) -> None:
        """Give what was written since another name: that of a backup if it is a context."""
        folder, _, name = path.rpartition("/")
        fd = self._folders.at(folder)
        known = name_of(name)
        at = found.st_mtime_ns // 10**9
        for seconds in range(at, at + 10_000):
            other = f"{name}.since-{seconds}"
            if known is not None and known.role is Role.CONTEXT and stat.S_ISREG(found.st_mode):
                with opened_regular(name, fd) as file:
                    gzip = os.pread(file, 2, 0) == _GZIP
                other = f"{known.agent}{'.json' if gzip else ''}.backup.{seconds}.json"
            with suppress(FileExistsError):
                rename_new(fd, name, fd, other)
                self._undone.kept[-1] = f"{folder}/{other}"
                return

    def _is_back(self, folder: str, name: str, found: os.stat_result, original: Original) -> bool:
        return _is(self._folders.at(folder), name, found, self._journal.original_path(original.id), original)

    def _put_back(self, folder: str, name: str, original: Original) -> None:
        put_back(self._folders.at(folder), name, self._journal.original_path(original.id), original)

    def _move_back(self) -> None:
        for before, now in self._journal.moves():
            folder, _, name = before.rpartition("/")
            other, _, new_name = now.rpartition("/")
            self._remove_directories()  # the one that had its name
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    rename_new(self._folders.at(other), new_name, self._folders.at(folder), name)
                    self._undone.restored += 1
                except FileExistsError:
                    detail, remedy = f"something is there now; it stays {now}", "give it its name back yourself"
                    self._undone.findings.append(Finding("not_restored", before, Severity.WARNING, detail, remedy))

    def _remove_directories(self) -> None:
        """Directories that the migration made, those that are empty; and those of what was set aside."""
        inside: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            inside = _directories_below(self._folders, f"{self._cell.path}/{ITEM}") if self._cell.name else []
        for path in sorted({*self._journal.directories(), *inside}, key=lambda path: (-path.count("/"), path)):
            folder, _, name = path.rpartition("/")
            with suppress(OSError, UnsafePath):
                os.rmdir(name, dir_fd=self._folders.at(folder))


def _directories_below(folders: Folders, path: str) -> list[str]:
    found = [path]
    with readable(".", folders.at(path)) as fd, os.scandir(fd) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        found += _directories_below(folders, f"{path}/{name}")
    return found


def _is(dir_fd: int, name: str, found: os.stat_result, kept: Path, original: Original) -> bool:
    """Whether a file of a pinned directory is what was kept to be put back, with its mode, time and content."""
    if (found.st_mtime_ns, found.st_mode) != (original.mtime_ns, original.mode) or not stat.S_ISREG(found.st_mode):
        return False
    with opened_regular(name, dir_fd) as fd, open(kept, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return found.st_size == size and all(
            one == other for one, other in zip(pieces(fd, size), pieces(file.fileno(), size), strict=True)
        )


def put_back(dir_fd: int, name: str, kept: Path, original: Original) -> None:
    """Put something that was kept back under its name, in a pinned directory, over what is there. Raises OSError."""
    temporary = f".datad-{original.id}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=dir_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(kept, "rb") as file:
        fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
        try:
            copy(file.fileno(), fd, os.fstat(file.fileno()).st_size, cloning=True)
            if os.geteuid() == 0:
                os.fchown(fd, original.uid, original.gid)
            os.fchmod(fd, stat.S_IMODE(original.mode))
            os.utime(fd, ns=(original.atime_ns, original.mtime_ns))
            os.fsync(fd)
        finally:
            os.close(fd)
    os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    sync_directory(dir_fd)


# What a mirror wrote to the legacy place


def _take_back_returned(row: SourceRow, journal: Journal, undone: Undone, on_actions: OnActions) -> None:
    tree = Tree(row.source.path)
    for path, one in journal.returned(row.id).items():
        full = f"{row.source.path}/{path}"
        original = journal.original(one.original) if one.original is not None else None
        with suppress(FileNotFoundError, NotADirectoryError), tree.holding(path) as (fd, name):
            found = os.lstat(name, dir_fd=fd)
            kept = journal.original_path(original.id) if original is not None else None
            if Identity.of(found) != one.identity:
                if original is None or kept is None or not _is(fd, name, found, kept, original):
                    undone.kept.append(full)
            elif original is not None:
                on_actions([Action("migration_undone", full, _RULE, "what was there before comes back")])
                put_back(fd, name, journal.original_path(original.id), original)
                undone.restored += 1
            else:
                on_actions([Action("migration_undone", full, _RULE, "the mirror had made it", one.identity.size)])
                os.unlink(name, dir_fd=fd)
                sync_directory(fd)
                undone.removed += 1
        journal.forget_returned(row.id, path)


# Settings files


def _restore_config(config: Config, undone: Undone, on_actions: OnActions) -> None:
    """Give a settings file its content back, unless somebody has edited it since."""
    path, before, backup = config.path, config.before, config.backup
    file = Path(path)
    try:
        now: bytes | None = file.read_bytes()
    except FileNotFoundError:
        now = None
    if now == before:
        pass
    elif now != config.after:
        undone.kept.append(path)
        detail, remedy = "it was edited since, and stays", f"what it was before is {backup}" if backup else ""
        undone.findings.append(Finding("settings_kept", path, Severity.WARNING, detail, remedy))
        return
    else:
        on_actions([Action("settings_restored", path, _RULE, "as it was before `config migrate`")])
        if before is None:
            file.unlink()
        else:
            from symbiont_datad.migrate.config import replace_file

            replace_file(file, before)
            os.utime(file, ns=(config.mtime_ns, config.mtime_ns))
        undone.restored += 1
    if backup is not None and before is not None:
        kept = Path(backup)
        with suppress(FileNotFoundError):
            if kept.read_bytes() == before:
                kept.unlink()
