"""What is done after a kill: the journal is brought in line with the tree, and what is left over in the stage goes."""

import os
from collections.abc import Iterable
from contextlib import suppress

from symbiont_datad.fsops.root import pinned, readable
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.places import Cell, Folders, complete_directories
from symbiont_datad.migrate.records import Identity, Known, Pending
from symbiont_datad.migrate.target import Target


def recover(target: Target, journal: Journal) -> list[Known]:
    """Bring the journal in line with the tree after a kill; hand back the copies that had gone to their place."""
    pending = journal.pending()
    cell = Cell(target, journal)
    gone: list[Pending] = []
    if journal.directories(unfinished=True):
        with suppress(FileNotFoundError, NotADirectoryError), Folders(target.tree) as folders:
            complete_directories(target, journal, folders)
    if pending:
        names = _staged_names(cell)
        stayed: list[Pending] = []
        with Folders(target.tree) as folders:
            for one in pending:
                here = names.get(one.staged) == one.known.dest_identity.inode
                if here or folders.lstat(cell.in_tree(one.known.dest)) is None:
                    take_back_name(folders, cell, one)
                    stayed.append(one)
                else:
                    gone.append(one)
            note_copied_names(folders, cell, journal, gone)
        with journal.transaction():
            journal.drop_pending(one.staged for one in stayed)
            journal.settle()
    cell.clear()
    return [one.known for one in gone]


def _staged_names(cell: Cell) -> dict[str, int]:
    """What is in the staging place: inodes by path."""
    found: dict[str, int] = {}
    if not cell.name:
        return found
    with suppress(FileNotFoundError, NotADirectoryError), cell.staged() as fd:
        for folder in _names(fd):
            with pinned(folder, fd) as folder_fd, readable(".", folder_fd) as open_fd, os.scandir(open_fd) as entries:
                for entry in entries:
                    found[f"{folder}/{entry.name}"] = entry.stat(follow_symlinks=False).st_ino
    return found


def _names(fd: int) -> list[str]:
    with readable(".", fd) as open_fd:
        return os.listdir(open_fd)


def take_back_name(folders: Folders, cell: Cell, one: Pending) -> None:
    """Of a copy that was not renamed: what stands in its place may have got its second name already."""
    if one.moved is None:
        return
    path, standing = cell.in_tree(one.moved), folders.lstat(cell.in_tree(one.known.dest))
    found = folders.lstat(path)
    if found is not None and standing is not None and os.path.samestat(found, standing):
        folder, _, name = path.rpartition("/")
        os.unlink(name, dir_fd=folders.at(folder))


def note_copied_names(folders: Folders, cell: Cell, journal: Journal, renamed: Iterable[Pending]) -> None:
    """Where there are no hard links the second name is a copy's: the journal has to know that one, for an undo."""
    for one in renamed:
        if one.moved is None or one.moved_identity is None:
            continue
        found = folders.lstat(cell.in_tree(one.moved))
        if found is not None and found.st_ino != one.moved_identity.inode:
            identity = Identity.of(found)
            if identity[1:] == one.moved_identity[1:]:
                journal.moved_as(one.staged, identity)
