"""Whose the tree, the daemon's own directory and the repository are, and who else could write to them."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from symbiont_datad.doctor.seen import Seen
from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops.root import Tree
from symbiont_datad.report import Finding, Severity, octal, printable

OWN = "the daemon's own directory"

_LOOKED_AT = 50_000
"""Files of one directory that are looked at: who ran one command as somebody else has left traces everywhere."""


@dataclass(frozen=True, slots=True)
class Place:
    """One directory that the daemon works in. `problem`: why it can't be reached safely; else empty.

    `mine`: whether this process may list, enter and write it. `strangers`: how many files in it, and one and two
    levels below, belong to others than the directory itself; `stranger` is one of them, `stranger_uid` whose.
    """

    what: str
    path: str
    there: bool
    uid: int = -1
    gid: int = -1
    mode: int = 0
    mine: bool = True
    problem: str = ""
    strangers: int = 0
    stranger: str = ""
    stranger_uid: int = -1


def look(root: str, own: str, repository: str | None) -> tuple[Place, ...]:
    """Look at the tree's root, the daemon's own directory, and the repository, where that is a directory."""
    return (
        _place("the tree", root, deep=False),
        _place(OWN, own, deep=True),
        *([_place("the repository", repository, deep=True)] if repository is not None else []),
    )


def _place(what: str, path: str, *, deep: bool) -> Place:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Place(what, path, there=False)
    except OSError as error:
        return Place(what, path, there=True, mine=False, problem=error.strerror or str(error))
    problem = ""
    try:
        with Tree(os.path.realpath(path)).root():
            pass
    except (OSError, UnsafePath) as error:
        problem = getattr(error, "strerror", None) or str(error)
    strangers, stranger, whose = _strangers(path, found.st_uid) if deep else (0, "", -1)
    return Place(
        what,
        path,
        True,
        found.st_uid,
        found.st_gid,
        stat.S_IMODE(found.st_mode),
        os.access(path, os.R_OK | os.W_OK | os.X_OK),
        problem,
        strangers,
        stranger,
        whose,
    )


def _strangers(path: str, owner: int) -> tuple[int, str, int]:
    number, first, whose = 0, "", -1
    for name, uid in islice(_entries(path, 2), _LOOKED_AT):
        if uid != owner:
            number += 1
            if not first:
                first, whose = name, uid
    return number, first, whose


def _entries(path: str, levels: int) -> Iterator[tuple[str, int]]:
    with suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with suppress(OSError):
                yield entry.path, entry.stat(follow_symlinks=False).st_uid
                if levels and entry.is_dir(follow_symlinks=False):
                    yield from _entries(entry.path, levels - 1)


def judge(places: tuple[Place, ...], me: int, wanted: int | None) -> Seen:
    """What is wrong with them. `me` is the user who asks, `wanted` the owner that the settings want (None: any)."""
    findings = [finding for place in places if place.there for finding in _findings(place, me)]
    root = places[0]
    if wanted is not None and root.there and root.uid != wanted:
        detail = f"it belongs to uid {root.uid}, and `owner` in the settings is uid {wanted}"
        remedy = "as root: `symbiont-datad check --fix`; a daemon without root's rights can't give files away"
        findings.append(Finding("owner_differs", root.path, Severity.WARNING, detail, remedy))
    there = [f"{place.what} is uid {place.uid}'s ({octal(place.mode)})" for place in places if place.there]
    missing = [f"{place.what} is not there yet" for place in places if not place.there]
    return Seen(
        "owners",
        f"{'; '.join([*there, *missing])}; asked by uid {me}",
        {"uid": me, **{place.what.removeprefix("the "): _fact(place) for place in places}},
        tuple(findings),
    )


def _fact(place: Place) -> str | None:
    return f"{place.uid}:{place.gid} {octal(place.mode)}" if place.there else None


def _findings(place: Place, me: int) -> Iterator[Finding]:
    shown = printable(place.path)
    if place.problem:
        yield Finding("unsafe_place", place.path, Severity.ERROR, place.problem, "move it, or close what is above it")
    if me not in (0, place.uid):
        detail = f"{place.what} belongs to uid {place.uid}, and you are uid {me}"
        remedy = f"run this as that user, or as root: `chown -R {me} {shown}`"
        yield Finding("not_yours", place.path, Severity.WARNING, detail, remedy)
    elif not place.mine:
        detail = f"{place.what} can't be listed and written by uid {me} (mode {octal(place.mode)})"
        yield Finding("not_writable", place.path, Severity.ERROR, detail, f"`chmod u+rwx {shown}`")
    if place.mode & stat.S_IWOTH and place.what != "the tree":  # the tree's mode is declared, and told of as drift
        detail = f"everybody can write to {place.what} (mode {octal(place.mode)})"
        yield Finding("open_to_all", place.path, Severity.ERROR, detail, f"`chmod o-w {shown}`")
    elif place.mode & (stat.S_IRWXG | stat.S_IRWXO) and place.what == OWN:
        detail = f"others can look into {place.what} (mode {octal(place.mode)}), and see what agents are called"
        yield Finding("own_open", place.path, Severity.INFO, detail, f"`chmod go= {shown}`")
    if place.strangers:
        detail = (
            f"{place.strangers:,} files in {place.what} belong to others than uid {place.uid}, such as "
            f"{printable(place.stranger)} to uid {place.stranger_uid}"
        )
        remedy = f"a command was run as another user; as root: `chown -Rh {place.uid}:{place.gid} {shown}`"
        yield Finding("strangers_files", place.path, Severity.WARNING, detail, remedy)
