"""Removing what was planned, and nothing that took its place since."""

import errno
import os
import stat
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry


class Failure(NamedTuple):
    """One thing that is still there, and why. `changed`: it is not (or no longer) what was planned, so all is well."""

    path: str
    reason: str
    changed: bool


def remove(tree: Tree, planned: Iterable[Entry]) -> list[Failure]:
    """Unlink files and links. Best given in the order of their paths: each run of one directory is pinned once.

    Each is looked at just before: what has another inode, size, type or modification time than planned, is kept.
    Nothing is opened but directories, so a FIFO or a device can't make this wait.
    """
    failures: list[Failure] = []
    for folder, entries in groupby(planned, _folder):
        group = list(entries)
        try:
            with tree.directory(folder) as fd:
                _remove_from(fd, len(folder) + 1 if folder else 0, group, failures)
        except FileNotFoundError:
            failures += [Failure(entry.path, "its directory is gone", True) for entry in group]
        except NotADirectoryError:
            failures += [Failure(entry.path, "its directory is no directory any more", True) for entry in group]
        except (OSError, UnsafePath) as error:
            failures += [Failure(entry.path, _reason(error), False) for entry in group]
    return failures


def _remove_from(fd: int, cut: int, group: list[Entry], failures: list[Failure]) -> None:
    lstat, unlink = os.lstat, os.unlink
    for entry in group:
        name = entry.path[cut:]
        try:
            if entry.differs(lstat(name, dir_fd=fd)):
                failures.append(Failure(entry.path, "changed since it was planned", True))
            elif not (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode)):
                failures.append(Failure(entry.path, "neither a file nor a link", False))
            else:
                unlink(name, dir_fd=fd)
        except FileNotFoundError:
            failures.append(Failure(entry.path, "gone already", True))
        except OSError as error:
            failures.append(Failure(entry.path, _reason(error), False))


def remove_directories(tree: Tree, paths: Iterable[str]) -> list[Failure]:
    """Remove directories that should be empty by now, the deepest first. One that isn't is kept: that is a `changed`.

    The caller sees to it that no declared directory is among them.
    """
    failures: list[Failure] = []
    for path in sorted(paths, key=lambda path: (-path.count("/"), path)):
        try:
            with tree.holding(path) as (fd, name):
                os.rmdir(name, dir_fd=fd)
        except OSError as error:
            changed = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR)
            failures.append(Failure(path, _reason(error), changed))
        except UnsafePath as error:
            failures.append(Failure(path, _reason(error), False))
    return failures


def _folder(entry: Entry) -> str:
    return entry.path.rpartition("/")[0]


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
