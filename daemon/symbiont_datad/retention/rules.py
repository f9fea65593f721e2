"""Retention of a directory, or of some of the files in it, by age, number and size."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from symbiont_datad.retention.patterns import Matcher, matcher


class AgeBy(StrEnum):
    """The time from which the age of a file counts."""

    WRITTEN = "written"
    READ = "read"
    """(Mounts with `noatime` tell nothing of reading.)"""
    USED = "used"
    """Written or read, whichever was later."""
    NAME = "name"
    """The end of the day that the first name below the rule's directory tells: `2026-11-23`, `20261123.tar.zst`. Where
    it tells none, the time of writing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How much of what lies below `directory` (relative to the root) is kept. None means: without a bound.

    `max_age_s` is in seconds, `max_bytes` in bytes. `name` is the section of the settings that made the rule.
    `patterns`: the files that the rule is about (see `patterns`), relative to its directory; none means all.
    `protect`: those that stay, whatever their age.

    With `whole`, a directory right in the rule's one is a unit with all that is in it: as old as its newest file, gone
    whole or not at all, and one of `max_files`.

    Of a `cache` all can be made again: no snapshot has to hold it, and nothing is kept to be brought back. `broken`
    says that damaged files go. With `keep_newest`, the newest file stays however old it is. Directories of days that
    nobody has written to for `pack_after_s` seconds are packed.
    """

    name: str
    directory: str
    max_age_s: float | None = None
    max_bytes: int | None = None
    max_files: int | None = None
    age_by: AgeBy = AgeBy.WRITTEN
    whole: bool = False
    patterns: tuple[str, ...] = ()
    protect: tuple[str, ...] = ()
    cache: bool = False
    broken: bool = False
    keep_newest: bool = False
    pack_after_s: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is a bound to meet."""
        return (self.max_age_s, self.max_bytes, self.max_files) != (None, None, None)

    @property
    def active(self) -> bool:
        """Whether the rule can remove anything at all."""
        return self.bounded or self.broken or self.pack_after_s is not None

    @property
    def prefix(self) -> str:
        """How the paths of what is below the directory begin."""
        return f"{self.directory}/" if self.directory else ""


class Reach:
    """Which of the paths below its directory a rule is about, among other rules.

    A file is the business of one rule: of those whose directory it is in and whose patterns it matches, the one with
    the deepest directory; of those with the same, the first that has patterns. `spared`: directories that are
    nobody's business, but for rules about them or about what is in them.
    """

    def __init__(self, rule: Rule, rules: Iterable[Rule], spared: Iterable[str] = ()) -> None:
        prefix = rule.prefix
        every = tuple(rules)
        closer = [one for one in every if one.prefix != prefix and one.prefix.startswith(prefix)]
        rivals = [one for one in every if one.prefix == prefix and one.patterns]
        closer += rivals[: rivals.index(rule)] if rule in rivals else rivals
        fenced = [f"{path}/" for path in spared if not prefix.startswith(f"{path}/")]
        self._cut = len(prefix)
        self._own = matcher(rule.patterns) if rule.patterns else None
        self._others = [(one.prefix, matcher(one.patterns)) for one in closer if one.patterns]
        self.fences = (*(one.prefix for one in closer if not one.patterns), *fenced)
        """Prefixes of paths that are none of the rule's business, whatever follows."""
        self.plain = self._own is None and not self._others
        """Whether everything else below the rule's directory is."""

    def takes(self, path: str) -> bool:
        """Whether the file at `path`, which is below the rule's directory, is the rule's business."""
        if path.startswith(self.fences):
            return False
        if self._own is not None and not self._own(path[self._cut :]):
            return False
        return not any(path.startswith(prefix) and _matches(path, prefix, match) for prefix, match in self._others)


def _matches(path: str, prefix: str, match: Matcher) -> bool:
    return bool(match(path[len(prefix) :]))
