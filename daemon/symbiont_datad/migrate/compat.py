"""The old place as a link to the new one: put there and taken away in one step, and kept right meanwhile.

The old directory lies beside, as `NAME.before-migration`, whole and untouched. Its new name is in the journal before it
has it, so that whoever comes after a kill can tell what is what.
"""

import os
import stat
from contextlib import suppress
from enum import Enum

from symbiont_datad.fsops.rename import rename_new
from symbiont_datad.fsops.root import Tree, sync_directory
from symbiont_datad.fsops.swap import exchange
from symbiont_datad.migrate.journal import Journal
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.records import SourceRow
from symbiont_datad.migrate.target import Compat, Target
from symbiont_datad.report import Finding, Severity

_ASIDE = ".before-migration"
_STEPPED = ".aside"  # what `exchange` leaves in the middle where the system can't exchange two names at once


class Standing(Enum):
    """What is in the old place."""

    LINK = "our link"
    DIRECTORY = "a directory"
    NOTHING = "nothing"
    OTHER = "something else"


def place_of(kind: Kind, target: Target) -> str:
    """The directory of the tree that has what a legacy place had; relative to the root."""
    places = {
        Kind.CONTEXTS: target.agents,
        Kind.BACKUPS: target.backups,
        Kind.VECTORS: target.collections,
        Kind.LOGS: target.logs,
    }
    return places[kind]


def can_be_linked(source: Source) -> bool:
    """Whether a link can take the place of a source: only of a directory that has come over as a whole."""
    return not source.names and source.kind is not Kind.BACKUPS


def link_target(row: SourceRow, target: Target) -> str:
    """Where the link leads."""
    return f"{target.root}/{place_of(row.source.kind, target)}"


def standing(row: SourceRow, target: Target) -> Standing:
    """What is in the old place now. Raises OSError or UnsafePath."""
    with Tree(row.source.path).parent() as fd:
        return _standing(fd, os.path.basename(row.source.path), link_target(row, target))


def _standing(dir_fd: int, name: str, leads_to: str) -> Standing:
    try:
        found = os.lstat(name, dir_fd=dir_fd)
        if stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=dir_fd) == leads_to:
            return Standing.LINK
    except FileNotFoundError:
        return Standing.NOTHING
    return Standing.DIRECTORY if stat.S_ISDIR(found.st_mode) else Standing.OTHER


def keep_working(
    row: SourceRow, target: Target, journal: Journal, compat: Compat, *, both_ways: bool, left: bool
) -> Finding | None:
    """Have an old place that was brought over go on working as was asked; hand back why it does not.

    `left`: not all that is in it has come over. Raises OSError or UnsafePath.
    """
    if compat is not Compat.SYMLINK and row.compat is Compat.SYMLINK:
        take_link_away(row, target, journal, put_back=True)
    if compat is not Compat.SYMLINK:
        journal.set_compat(row.id, compat, both_ways)
        return None
    if left or not can_be_linked(row.source):
        why = "files are left in it" if left else "its files are not in one directory now, or not all are legacy data"
        remedy = "--compat mirror brings over what is still written there"
        severity = Severity.WARNING if left else Severity.INFO
        return Finding("legacy_not_linked", row.source.path, severity, f"no link has its place: {why}", remedy)
    journal.set_compat(row.id, compat, False)
    put_link(row, target, journal)
    return None


def put_link(row: SourceRow, target: Target, journal: Journal) -> str:
    """Let a link take the place of the old directory, which gets another name; hand back its path.

    May be called again after a kill. Raises OSError or UnsafePath.
    """
    name, leads_to = os.path.basename(row.source.path), link_target(row, target)
    with Tree(row.source.path).parent() as fd:
        aside = os.path.basename(row.aside) if row.aside else free_aside(fd, name)
        path = os.path.join(os.path.dirname(row.source.path), aside)
        journal.set_aside(row.id, path)
        _finish_steps(fd, aside)
        here, there = _standing(fd, name, leads_to), _standing(fd, aside, leads_to)
        if here is Standing.DIRECTORY and there in (Standing.NOTHING, Standing.LINK):
            if there is Standing.NOTHING:
                _make_link(fd, aside, leads_to)
            exchange(fd, aside, fd, name)
        elif here is Standing.NOTHING and there is Standing.DIRECTORY:
            _make_link(fd, name, leads_to)
        sync_directory(fd)
    return path


def _make_link(dir_fd: int, name: str, leads_to: str) -> None:
    os.symlink(leads_to, name, dir_fd=dir_fd)
    if os.geteuid() == 0:  # like everything that is made beside a user's own
        above = os.fstat(dir_fd)
        os.chown(name, above.st_uid, above.st_gid, dir_fd=dir_fd, follow_symlinks=False)


def _finish_steps(dir_fd: int, aside: str) -> None:
    """Where an exchange in steps was cut off, the old directory has a third name."""
    with suppress(FileNotFoundError):
        os.lstat(f"{aside}{_STEPPED}", dir_fd=dir_fd)
        with suppress(FileNotFoundError):
            if stat.S_ISLNK(os.lstat(aside, dir_fd=dir_fd).st_mode):
                os.unlink(aside, dir_fd=dir_fd)
        rename_new(dir_fd, f"{aside}{_STEPPED}", dir_fd, aside)


def recover_links(target: Target, journal: Journal) -> None:
    """Bring the journal in line with what is there, when a link was about to be put and a kill came before."""
    for row in journal.sources():
        if row.aside is None:
            continue
        name, aside, leads_to = os.path.basename(row.source.path), os.path.basename(row.aside), link_target(row, target)
        with suppress(FileNotFoundError, NotADirectoryError), Tree(row.source.path).parent() as fd:
            _finish_steps(fd, aside)
            here, there = _standing(fd, name, leads_to), _standing(fd, aside, leads_to)
            if here is Standing.DIRECTORY and there in (Standing.NOTHING, Standing.LINK):
                if there is Standing.LINK:
                    os.unlink(aside, dir_fd=fd)
                journal.set_aside(row.id, None)


def take_link_away(row: SourceRow, target: Target, journal: Journal, *, put_back: bool) -> str:
    """Take the link away, and `put_back` the old directory; hand back what stands in the way of that, or nothing.

    May be called again after a kill. Raises OSError or UnsafePath.
    """
    if row.aside is None:
        return ""
    name, aside, leads_to = os.path.basename(row.source.path), os.path.basename(row.aside), link_target(row, target)
    with Tree(row.source.path).parent() as fd:
        _finish_steps(fd, aside)
        here, there = _standing(fd, name, leads_to), _standing(fd, aside, leads_to)
        if not put_back:
            if here is Standing.LINK:
                os.unlink(name, dir_fd=fd)
        elif here is Standing.LINK and there is Standing.DIRECTORY:
            exchange(fd, aside, fd, name)
            os.unlink(aside, dir_fd=fd)
        elif here is Standing.NOTHING and there is Standing.DIRECTORY:
            rename_new(fd, aside, fd, name)
        elif here is Standing.DIRECTORY and there is Standing.LINK:
            os.unlink(aside, dir_fd=fd)
        elif here is not Standing.DIRECTORY or there is not Standing.NOTHING:
            return f"{here.value} is there now, and the old one stays {row.aside}"
        sync_directory(fd)
    if put_back:
        journal.set_aside(row.id, None)
    return ""


def free_aside(dir_fd: int, name: str) -> str:
    """What the old directory `name` can be called while a link has its name: a name that nothing has."""
    name = f"{name}{_ASIDE}"
    number, free = 0, name
    while True:
        try:
            os.lstat(free, dir_fd=dir_fd)
        except FileNotFoundError:
            return free
        number += 1
        free = f"{name}-{number}"
