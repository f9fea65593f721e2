"""How a cache is used: by when its files were used last, and what a limit would free. Pure."""

from collections.abc import Sequence

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.quantities import DAY, HOUR
from symbiont_datad.report import CacheUse
from symbiont_datad.retention.rules import Rule

AGES = (HOUR, DAY, 7 * DAY, 30 * DAY, float("inf"))
"""The groups, in seconds since the last use."""


class CacheTally:
    """Sums up the files of a cache, one after the other, whatever their number. `now` in seconds since the epoch.

    The last use is the last read or write, whichever was later. (Mounts with `noatime` tell of writing only, most
    others of a read a day.)
    """

    def __init__(self, rule: Rule | None, now: float) -> None:
        self._rule = rule
        self._now = now
        self._files = [0] * len(AGES)
        self._bytes = [0] * len(AGES)
        self._expired = [0] * len(AGES)

    def add(self, entry: Entry) -> None:
        """Take one file in."""
        age = max(self._now - max(entry.mtime_ns, entry.atime_ns) / 1e9, 0.0)
        group = next(number for number, within in enumerate(AGES) if age <= within)
        self._files[group] += 1
        self._bytes[group] += entry.size
        if self._rule is not None and self._rule.max_age_s is not None and age > self._rule.max_age_s:
            self._expired[group] += entry.size

    def use(self) -> tuple[CacheUse, ...]:
        """What was taken in so far, by the last use. What is due by its size is the least recently used."""
        due = list(self._expired)
        cap = self._rule.max_bytes if self._rule is not None else None
        over = 0 if cap is None else max(sum(self._bytes) - sum(due) - cap, 0)
        for group in reversed(range(len(AGES))):
            more = min(over, self._bytes[group] - due[group])
            due[group] += more
            over -= more
        return tuple(map(CacheUse, AGES, self._files, self._bytes, due))


def freed_by_age(use: Sequence[CacheUse], max_age_s: float) -> int:
    """The bytes that a limit of age would free, to the group: what was used longer ago than this."""
    smaller = 0.0
    freed = 0
    for group in sorted(use, key=lambda one: one.within_s):
        if smaller >= max_age_s:
            freed += group.bytes
        smaller = group.within_s
    return freed


def freed_by_size(use: Sequence[CacheUse], max_bytes: int) -> int:
    """The bytes that a limit of size would free."""
    return max(sum(group.bytes for group in use) - max_bytes, 0)
