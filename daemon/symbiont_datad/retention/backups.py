"""Rotation of the backups that the runtime makes of its contexts before each save, and never prunes by default.

Two name patterns are in use for one agent (`{agent}.backup.{secs}.json`, `{agent}.json.backup.{secs}.json`), and both
count together. Pure: whether a backup parses is asked of the caller, and as seldom as possible.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from symbiont_datad.formats.state_name import StateName, name_of
from symbiont_datad.fsops.walk import Entry


class Backup(NamedTuple):
    """One of the runtime's backups: whose, from when (seconds since the epoch, by its name), and the file."""

    agent: str
    seconds: int
    entry: Entry

    @property
    def name(self) -> StateName:
        """What its name says."""
        found = name_of(self.entry.path.rpartition("/")[2])
        assert found is not None
        return found


_TICK_S = 1.0
"""By how much the times that a kernel gives to files, and whole seconds in names, lag behind."""


def in_time(at: float, broken_at: float | None) -> bool:
    """Whether a good version of a context can be from that time, if it was broken at the other (None: it isn't).

    Seconds since the epoch. One that claims to be younger than the damage was made while the clock was ahead: it was
    set back since, so what bears an earlier time may be newer.
    """
    return broken_at is None or at <= broken_at + _TICK_S


def newest_first(backups: Iterable[Backup], broken_at: float | None = None) -> list[Backup]:
    """One agent's backups in the order of the times in their names; ties go by the names.

    Those that can't be from then (`in_time`) come last.
    """
    return sorted(backups, key=lambda one: (in_time(one.seconds, broken_at), one.seconds, one.entry.path), reverse=True)


class Rotation(NamedTuple):
    """One backup that goes, and why."""

    backup: Backup
    reason: str


def rotate(
    backups: Iterable[Backup],
    keep: int,
    *,
    context_parses: bool,
    parses: Callable[[Backup], bool],
    broken_at: float | None = None,
) -> list[Rotation]:
    """Which of one agent's backups go: all but the newest `keep` by the time in the name (see `newest_first`).

    But one goes only if a newer one that parses remains, or the context itself parses: the last good state of an agent
    is never removed, however many broken backups were made after it. `broken_at`: when a context that does not parse
    was last changed, if that is known (seconds since the epoch).
    """
    ordered = newest_first(backups, broken_at)
    kept, over = ordered[:keep], ordered[keep:]
    if not over:
        return []
    if context_parses:
        return _reasons(over, len(ordered), keep, "the context itself is whole")
    if any(parses(backup) for backup in kept):
        return _reasons(over, len(ordered), keep, "a newer one is whole")
    for place, backup in enumerate(over):
        if parses(backup):  # the newest that does: it stays, and so does what is newer
            return _reasons(over[place + 1 :], len(ordered), keep, "a newer one is whole")
    return []


def _reasons(over: list[Backup], count: int, keep: int, why: str) -> list[Rotation]:
    reason = f"{count} backups of this agent, backup_count is {keep}; {why}"
    return [Rotation(backup, reason) for backup in over]
