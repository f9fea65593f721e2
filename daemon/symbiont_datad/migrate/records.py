"""The records of a migration: what was found, what is decided about it, and what the journal remembers of it."""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Self

from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.legacy import Source
from symbiont_datad.migrate.target import Compat

if TYPE_CHECKING:
    from symbiont_datad.migrate.content import Content


class State(StrEnum):
    """How far a source is."""

    BEGUN = "begun"
    COMPLETE = "complete"
    """All that was in it is in the tree, in quarantine, or named as left."""


class Place(NamedTuple):
    """A path below the root of the tree, or, set aside, in the cell of the quarantine."""

    aside: bool
    path: str


class Identity(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, found: "os.stat_result | Entry") -> Self:
        """That of a file as lstat, or a walk, saw it."""
        if isinstance(found, Entry):
            return cls(found.inode, found.size, found.mtime_ns)
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


class Deed(StrEnum):
    """What is done about a file of a legacy place."""

    BRING = "bring"
    """It is copied to a place in the tree."""
    SET_ASIDE = "set aside"
    """It is copied to quarantine."""
    SAME = "same"
    """Its content is in the tree already."""
    LEAVE = "leave"
    """It stays where it is, and is not copied."""
    WAIT = "wait"
    """It may be half written: it is looked at again."""


class Step(NamedTuple):
    """What is decided about one file. A named tuple, because there are many.

    `moved`: where what stands at `to` goes; None: nothing stands there, or it is an earlier copy of the same file.
    `kind` and `reason` are those of the action.
    """

    file: Entry
    deed: Deed
    to: Place
    kind: str
    reason: str
    encoding: Encoding = Encoding.AS_IS
    moved: Place | None = None
    standing: Entry | None = None
    """What stands at `to` now."""
    digest: bytes = b""
    size: int = 0
    """Bytes that are written, as far as they can be told before."""


class File(NamedTuple):
    """A file that was found. `content` is None where it was not looked into; `trouble`: why it can't be read."""

    entry: Entry
    content: "Content | None" = None
    trouble: str = ""


class Known(NamedTuple):
    """What was done with a file of a source, as it was then.

    `dest`: where in the tree the same thing is (an empty path: nowhere), and `dest_identity` what was there then.
    """

    path: str
    identity: Identity
    deed: str
    dest: Place
    digest: bytes
    dest_identity: Identity

    def is_in_step(self, place: str, standing: Entry) -> bool:
        """Whether what stands at a place of the tree is what this file was, and nobody has changed it since."""
        return self.dest == Place(False, place) and self.dest_identity == Identity.of(standing)


class Pending(NamedTuple):
    """A copy in the staging place that is about to go to its own.

    What it is, is the `dest_identity` of what will be known. `moved`: where what stands in its place goes, and what
    that is; None: nothing stands there, or it is an earlier copy. `original`: the number under which that is kept.
    """

    known: Known
    staged: str
    moved: Place | None = None
    moved_identity: Identity | None = None
    original: int | None = None


class Made(NamedTuple):
    """A file of the tree that a migration has made. `original`: the number of what was there before."""

    place: Place
    identity: Identity
    original: int | None


class Original(NamedTuple):
    """Something that was overwritten, kept as a file that is called by the number."""

    id: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int


class Returned(NamedTuple):
    """A file that a mirror has written to the legacy place. `original`: what was there before, if something was."""

    path: str
    identity: Identity
    original: int | None


@dataclass(frozen=True, slots=True)
class Config:
    """A settings file that was rewritten. `before` is None where there was none. `backup` is the `.bak` beside it.

    `mtime_ns`: when it was last changed before.
    """

    path: str
    before: bytes | None
    mtime_ns: int
    after: bytes
    backup: str | None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source as the journal knows it. `aside`: where the old directory is while a link has its place."""

    id: int
    source: Source
    state: State
    compat: Compat
    both_ways: bool
    aside: str | None
    completed_at: float | None
    brought_at: float | None
    conflicts: int
    files: int
    bytes: int

    @property
    def at(self) -> str:
        """Where the data of the source lies now."""
        return self.aside or self.source.path
