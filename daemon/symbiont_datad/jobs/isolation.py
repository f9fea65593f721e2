"""Isolation: a collection belongs to one owner and shares nothing. Pure but for reading where links lead."""

import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from symbiont_datad.errors import UnsafePath
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.jobs.stores import Listing
from symbiont_datad.report import Finding, Severity, octal, printable

_OTHERS_WRITE = 0o002
_MANY = 0o022


@dataclass(frozen=True, slots=True)
class Isolated:
    """A collection as isolation looks at it: in which place, at which path, what is in it, and what findings call it.

    One without a name for findings is no directory: a link, say, that stands where a collection belongs.
    """

    place: str
    path: str
    listing: Listing
    shown: str = ""


@dataclass(slots=True)
class Exposed:
    """Findings, and the collections (as findings call them) that others can write to, or have files in."""

    findings: list[Finding] = field(default_factory=list)
    exposed: set[str] = field(default_factory=set)


def isolation(context: JobContext, parts: Sequence[Isolated]) -> Exposed:
    """What is shared between collections, belongs to somebody else, or has a wider mode than declared."""
    found = Exposed()
    names = _names(parts)
    for part in parts:
        if not part.shown:
            entry = next(iter(part.listing.files.values()))
            what = "a symbolic link" if stat.S_ISLNK(entry.mode) else "neither a directory nor a file"
            found.findings.append(
                Finding(
                    "collection_shared", _shown(part, entry.path), Severity.WARNING,
                    f"{what}; what it leads to is neither backed up nor looked at",
                    "move the collection here, or declare its directory in vector_db.extra_roots",
                )
            )  # fmt: skip
            continue
        settled_ns = int((context.now - context.settings.settle_s) * 1e9)
        for kind, shared in (
            ("collection_shared", list(_shared(part, names, settled_ns))),
            ("collection_owner", list(_foreign(part, context.layout.uid))),
        ):
            if shared:
                found.exposed.add(part.shown)
                found.findings.append(_finding(part, kind, shared))
        wide = list(_wide(context, part))
        if wide:
            open_to_all = [one for one in wide if one[2] & _OTHERS_WRITE]
            # A group is often a private one; what it may do is worth a note, and no more.
            if open_to_all:
                found.exposed.add(part.shown)
            severity = Severity.WARNING if open_to_all else Severity.INFO
            told = open_to_all or wide
            found.findings.append(_finding(part, "collection_mode", [(path, why) for path, why, _ in told], severity))
    return found


def _finding(
    part: Isolated, kind: str, told: Sequence[tuple[str, str]], severity: Severity = Severity.WARNING
) -> Finding:
    path, why = told[0]
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    inside = path[len(part.path) :].lstrip("/") or "it"
    return Finding(kind, part.shown, severity, f"{printable(inside)} {why}{more}", _REMEDIES[kind])


_REMEDIES = {
    "collection_shared": "give each collection files of its own: copy them instead of linking",
    "collection_owner": "chown it to the collection's owner, or remove it",
    "collection_mode": "chmod it, and see to the umask of who writes there",
}


def _shown(part: Isolated, path: str) -> str:
    return path if part.place in ("collections", "indexes") else f"{part.listing.tree.path}/{path}"


_Inodes = dict[tuple[str, int], list[str]]


def _names(parts: Sequence[Isolated]) -> _Inodes:
    """The paths in all collections of each file that has several names, by root and inode."""
    found: _Inodes = defaultdict(list)
    for part in parts:
        for entry in part.listing.files.values():
            if entry.is_file and entry.nlink > 1:
                found[part.listing.tree.path, entry.inode].append(entry.path)
    return found


def _shared(part: Isolated, names: _Inodes, settled_ns: int) -> Iterator[tuple[str, str]]:
    """Links that lead out, and files with names elsewhere."""
    top = f"{part.path}/" if part.path else ""
    for entry in part.listing.files.values():
        if stat.S_ISLNK(entry.mode):
            target = _target(part.listing, entry.path)
            inside = f"{target}/".startswith(top) if top else target is not None and not target.startswith("/")
            if target is not None and not inside:
                yield entry.path, f"is a link to {printable(target)}, outside of it"
        elif entry.is_file and entry.nlink > 1 and entry.mtime_ns < settled_ns:
            known = names[part.listing.tree.path, entry.inode]
            others = [path for path in known if not path.startswith(top)]
            beyond = entry.nlink - len(known)
            if others:
                yield entry.path, f"is the same file as {printable(others[0])}"
            elif beyond > 0:
                yield entry.path, f"has {beyond} more names outside of it"


def _target(listing: Listing, path: str) -> str | None:
    """Where a link leads, relative to the root if that is inside; None when it is gone."""
    try:
        with listing.tree.holding(path) as (fd, name):
            target = os.readlink(name, dir_fd=fd)
    except (OSError, UnsafePath):
        return None
    root = listing.tree.path
    absolute = posixpath.normpath(posixpath.join(root, posixpath.dirname(path), target))
    return posixpath.relpath(absolute, root) if f"{absolute}/".startswith(f"{root}/") else absolute


def _foreign(part: Isolated, declared: int) -> Iterator[tuple[str, str]]:
    """What belongs to somebody else than the collection itself does, or than is declared."""
    own = part.listing.directories.get(part.path)
    if own is None:
        return
    expected = declared if declared != -1 else own.st_uid
    for path, status in part.listing.directories.items():
        if status.st_uid != expected:
            yield path, f"belongs to user {status.st_uid}, not {expected}"
    for entry in part.listing.files.values():
        if entry.uid != expected and not stat.S_ISLNK(entry.mode):
            yield entry.path, f"belongs to user {entry.uid}, not {expected}"


def _wide(context: JobContext, part: Isolated) -> Iterator[tuple[str, str, int]]:
    """What more people can write to than is declared (outside the tree: than its owner), and by which bits."""
    layout = context.layout
    row = layout.by_path.get(part.path.rpartition("/")[0]) if part.place in ("collections", "indexes") else None
    allowed = row.mode if row is not None else 0o755
    files = layout.file_mode if layout.file_mode is not None and row is not None else allowed & 0o666
    for path, status in part.listing.directories.items():
        if wider := stat.S_IMODE(status.st_mode) & ~allowed & _MANY:
            yield path, f"has mode {octal(status.st_mode)}, declared {octal(allowed)}", wider
    for entry in part.listing.files.values():
        if entry.is_file and (wider := stat.S_IMODE(entry.mode) & ~files & _MANY):
            yield entry.path, f"has mode {octal(entry.mode)}, declared {octal(files)}", wider
