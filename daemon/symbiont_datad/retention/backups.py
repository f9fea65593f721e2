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
) -> list[Rotation]:
    """Which of one agent's backups go: all but the newest `keep` by the time in the name (ties by name).

    But one goes only if a newer one that parses remains, or the context itself parses: the last good state of an agent
    is never removed, however many broken backups were made after it.
    """
    newest_first = sorted(backups, key=lambda backup: (backup.seconds, backup.entry.path), reverse=True)
    kept, over = newest_first[:keep], newest_first[keep:]
    if not over:
        return []
    if context_parses:
        return _reasons(over, len(newest_first), keep, "the context itself is whole")
    if any(parses(backup) for backup in kept):
        return _reasons(over, len(newest_first), keep, "a newer one is whole")
    for place, backup in enumerate(over):
        if parses(backup):  # the newest that does: it stays, and so does what is newer
            return _reasons(over[place + 1 :], len(newest_first), keep, "a newer one is whole")
    return []


def _reasons(over: list[Backup], count: int, keep: int, why: str) -> list[Rotation]:
    reason = f"{count} backups of this agent, backup_count is {keep}; {why}"
    return [Rotation(backup, reason) for backup in over]
