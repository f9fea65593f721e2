"""What the parts of a plan share: what is known of the tree, what was decided so far, which names are free. Pure."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from symbiont_datad.formats.context import Damage
from symbiont_datad.formats.state_name import name_of
from symbiont_datad.fsops.copy import Encoding
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.migrate.content import Content
from symbiont_datad.migrate.legacy import Source, is_secret_name
from symbiont_datad.migrate.records import Deed, File, Identity, Known, Place, Step
from symbiont_datad.migrate.target import Target
from symbiont_datad.quantities import format_duration
from symbiont_datad.report import Finding, Severity
from symbiont_datad.retention.backups import Backup

SETTLE_S = 2.0
"""Time for which a damaged file must be unchanged before it counts as damaged, and not as half written."""

SOUND = frozenset(("", Damage.TOO_LARGE.value))
"""What is written for the damage of a file that loads, or that may."""

NS = 10**9

named = lru_cache(maxsize=1 << 13)(name_of)
"""What the name of a state file says; asked several times about the files of a portion."""

_LONGEST = 255  # bytes of a name (NAME_MAX)


@dataclass(frozen=True, slots=True)
class There:
    """What the tree has, by paths relative to its root.

    `entry`: the file at a path. `content`: what is in it, None if it can't be read. `made`: what the migration left
    there, if it did. `backups`: those of an agent. `below`: all files at and below the path of a collection.
    """

    entry: Callable[[str], Entry | None]
    content: Callable[[str], Content | None]
    made: Callable[[str], Identity | None]
    backups: Callable[[str], Sequence[Backup]]
    below: Callable[[str], Sequence[Entry]]


class Move(NamedTuple):
    """A directory (or file) of the tree that gets another name before anything is brought."""

    path: str
    to: str
    reason: str


@dataclass(slots=True)
class Plan:
    """What is to be done, in this order: `moves`, then `steps`. `findings` tell what a person should know."""

    moves: list[Move] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def copies(self) -> list[Step]:
        """The steps that make a copy."""
        return [step for step in self.steps if step.deed in (Deed.BRING, Deed.SET_ASIDE)]

    @property
    def bytes(self) -> int:
        """What the copies take, as far as it can be told."""
        return sum(step.size for step in self.copies)


@dataclass(slots=True)
class Planning:
    """A plan in the making. `known`: what was done with files of the source before, by their path."""

    source: Source
    target: Target
    there: There
    known: Mapping[str, Known]
    now_ns: int
    trimming: bool = True
    plan: Plan = field(default_factory=Plan)
    _claimed: set[str] = field(default_factory=set)

    # What stays where it is

    def leaves(self, file: File) -> bool:
        """Whether the file is left; then it is told of."""
        entry = file.entry
        if not entry.is_file:
            link = entry.mode & 0o170000 == 0o120000
            self._leave(file, "legacy_link" if link else "legacy_special", *_NO_FILE[link])
        elif is_secret_name(entry.path) or (file.content is not None and file.content.key):
            detail = "a key or credential: it never moves"
            self._leave(file, "legacy_key", Severity.INFO, detail, "move it yourself if it must")
        elif file.trouble:
            self._leave(file, "legacy_unread", Severity.WARNING, file.trouble, "let this user read it; run it again")
        else:
            return False
        return True

    def _leave(self, file: File, kind: str, severity: Severity, detail: str, remedy: str) -> None:
        self.plan.steps.append(Step(file.entry, Deed.LEAVE, Place(False, ""), kind, detail))
        self.plan.findings.append(Finding(kind, self._full(file), severity, detail, remedy))

    # What is decided

    def step(
        self,
        file: File,
        to: Place,
        kind: str,
        reason: str,
        *,
        moved: Place | None = None,
        encoding: Encoding = Encoding.AS_IS,
    ) -> Step:
        """A step that copies a file; to quarantine also where its name would be too long."""
        content = file.content
        if not to.aside and len(os.fsencode(os.path.basename(to.path))) > _LONGEST:
            to, moved, reason = self.aside(file), None, f"{reason}; its name would be too long"
        deed = Deed.SET_ASIDE if to.aside else Deed.BRING
        size = content.text_size if content is not None and encoding is Encoding.PLAIN else file.entry.size
        digest = content.digest if content is not None else b""
        standing = self.there.entry(to.path) if not to.aside else None
        return Step(file.entry, deed, to, kind, reason, encoding, moved, standing, digest, size)

    def copy(
        self,
        file: File,
        to: Place,
        kind: str,
        reason: str,
        *,
        moved: Place | None = None,
        encoding: Encoding = Encoding.AS_IS,
    ) -> None:
        """Decide that a file is copied; its place is then taken."""
        step = self.step(file, to, kind, reason, moved=moved, encoding=encoding)
        for place in (step.to, step.moved):
            if place is not None and not place.aside:
                self._claimed.add(place.path)
        self.plan.steps.append(step)

    def same(self, file: File, at: str, reason: str = "") -> None:
        """Decide that the tree has a file's content already, at a path; an empty one: something else has it."""
        digest = file.content.digest if file.content is not None else b""
        standing = self.there.entry(at) if at else None
        reason = reason or f"{at} has the same content"
        self.plan.steps.append(
            Step(file.entry, Deed.SAME, Place(False, at), "same", reason, standing=standing, digest=digest)
        )

    def damaged(self, file: File, content: Content) -> None:
        """Decide about a file that would not load: quarantine, unless it may be half written."""
        mtime_ns = file.entry.mtime_ns
        if 0 <= self.now_ns - mtime_ns < SETTLE_S * NS:
            reason = f"it is {words(content.damage)}, and may be half written"
            self.plan.steps.append(Step(file.entry, Deed.WAIT, Place(False, ""), "legacy_unsettled", reason))
            return
        detail = f"{words(content.damage)}: {content.detail}" if content.detail else words(content.damage)
        self.set_aside(file, content.damage, detail, Severity.WARNING)

    def set_aside(self, file: File, what: str, detail: str, severity: Severity) -> None:
        """Decide that a file comes to quarantine."""
        self.copy(file, self.aside(file), "damaged_set_aside", detail)
        remedy = "a copy is in quarantine, whole; backups of it, if there are any, are in the tree"
        self.plan.findings.append(Finding(f"legacy_{what}", self._full(file), severity, detail, remedy))

    def doubtful(self, files: Sequence[File]) -> None:
        """Tell of contexts that are whole, and yet not what every version of the runtime loads."""
        first, content = files[0], files[0].content
        assert content is not None
        detail = content.detail
        if len(files) > 1:
            detail = f"{detail}; and {len(files) - 1:,} more like it"
        remedy = "it came over as it is; see whether the runtime that reads it is the one that wrote it"
        self.plan.findings.append(Finding("legacy_doubtful", self._full(first), Severity.WARNING, detail, remedy))

    def conflict(self, file: File, detail: str) -> None:
        """Tell that source and tree have the same thing with different content."""
        self.plan.findings.append(Finding("legacy_conflict", self._full(file), Severity.INFO, detail, "both are kept"))

    # Names

    def aside(self, file: File) -> Place:
        """Where in the cell of the quarantine a file of the source goes."""
        return Place(True, f"{self.source.kind}/{file.entry.path}")

    def tree_aside(self, path: str) -> Place:
        """Where in the cell a file of the tree goes."""
        return Place(True, f"tree/{path}")

    def claim(self, path: str) -> None:
        """Take a place."""
        self._claimed.add(path)

    def free(self, path: str) -> bool:
        """Whether nothing stands at a path, and nothing goes there."""
        return path not in self._claimed and self.there.entry(path) is None

    def free_for(self, path: str, file: File) -> bool:
        """Whether a file can go there: it is free, or only an earlier copy of the same file stands there."""
        if self.free(path):
            return True
        standing, known = self.there.entry(path), self.known.get(file.entry.path)
        return (
            path not in self._claimed
            and standing is not None
            and known is not None
            and known.is_in_step(path, standing)
        )

    def as_left(self, entry: Entry) -> bool:
        """Whether a file of the tree is one that the migration has made, and unchanged since."""
        return self.there.made(entry.path) == Identity.of(entry)

    def first_free(self, name: Callable[[int], str], seconds: int) -> str:
        """The first free one of the names that a thing would have at a time, a second later, and so on."""
        return next(path for at in count(max(seconds, 0)) if self.free(path := name(at)))

    def has(self, path: str, content: Content | None) -> bool:
        """Whether the tree has the same bytes at a path."""
        if content is None or path in self._claimed:
            return False
        standing = self.there.content(path)
        return standing is not None and standing.digest == content.digest

    def _full(self, file: File) -> str:
        return os.path.join(self.source.path, file.entry.path)


def ago(one_ns: int, other_ns: int) -> str:
    """How far two times are apart, for people."""
    return format_duration(abs(one_ns - other_ns) / NS)


def words(damage: str) -> str:
    """A damage, for people."""
    return damage.replace("_", " ")


_NO_FILE = {
    True: (Severity.INFO, "a symbolic link: it is not followed", "what it leads to may be given with --from"),
    False: (Severity.INFO, "no regular file", "nothing can be copied of it"),
}
