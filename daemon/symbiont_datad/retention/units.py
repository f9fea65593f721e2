"""What a rule counts as one: a file, or a directory with all that is in it. Pure, and fast for many files."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.retention.days import end_of_day
from symbiont_datad.retention.rules import AgeBy, Rule

_new = tuple.__new__  # a named tuple's own is written in Python, and this is called for each file


class Unit(NamedTuple):
    """One thing that goes or stays. `at_ns`: from when its age counts, in nanoseconds since the epoch.

    `size` in bytes, as the files say. `members`: the files and links that it is made of; of a `whole` directory all
    that are in it, else the one.
    """

    path: str
    at_ns: int
    size: int
    members: tuple[Entry, ...]
    whole: bool = False


def units_of(rule: Rule, entries: Iterable[Entry]) -> list[Unit]:
    """The entries, all of them the rule's business, as units. A directory without entries is none."""
    time_of = _CLOCKS[rule.age_by]
    if rule.age_by is AgeBy.NAME:
        time_of = _by_name(len(rule.prefix))
    if not rule.whole:
        return [_new(Unit, (entry.path, time_of(entry), entry.size, (entry,), False)) for entry in entries]
    cut = len(rule.prefix)
    found: list[Unit] = []
    directories: dict[str, list[Entry]] = {}
    for entry in entries:
        name, slash, _ = entry.path[cut:].partition("/")
        if slash:
            directories.setdefault(entry.path[: cut + len(name)], []).append(entry)
        else:
            found.append(_new(Unit, (entry.path, time_of(entry), entry.size, (entry,), False)))
    for path, members in directories.items():
        size = sum(entry.size for entry in members)
        found.append(Unit(path, max(map(time_of, members)), size, tuple(members), True))
    return found


def _written(entry: Entry) -> int:
    return entry.mtime_ns


def _read(entry: Entry) -> int:
    return entry.atime_ns


def _used(entry: Entry) -> int:
    return entry.mtime_ns if entry.mtime_ns > entry.atime_ns else entry.atime_ns


def _by_name(cut: int) -> Callable[[Entry], int]:
    """The end of the day that the name right below the rule's directory tells; names are few, and remembered."""
    days: dict[str, int | None] = {}

    def dated(entry: Entry) -> int:
        name = entry.path[cut:].partition("/")[0]
        if name not in days:
            days[name] = end_of_day(name)
        day = days[name]
        return entry.mtime_ns if day is None else day

    return dated


_CLOCKS: dict[AgeBy, Callable[[Entry], int]] = {
    AgeBy.WRITTEN: _written,
    AgeBy.READ: _read,
    AgeBy.USED: _used,
    AgeBy.NAME: _written,
}
