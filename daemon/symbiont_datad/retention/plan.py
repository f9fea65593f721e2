"""Retention of one directory: which files a rule removes, and why. Pure, and fast for many files."""

from collections.abc import Callable, Collection, Iterable
from enum import Enum
from operator import attrgetter
from typing import NamedTuple

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.quantities import format_duration, format_size, spell_duration
from symbiont_datad.retention.rules import Rule

_HOUR_NS = 3600 * 10**9
_FAR = 1 << 80  # nanoseconds, before and after all times of files
_path = attrgetter("path")
_removal = tuple.__new__  # a named tuple's own is written in Python


class LastUse(Enum):
    """What counts as the last use of a file; the value is how a reason tells of it."""

    READ = "used"
    """Written or read, whichever was later. (Mounts with `noatime` tell of writing only.)"""
    WRITTEN = "changed"


class Removal(NamedTuple):
    """One file that goes, and why."""

    entry: Entry
    reason: str


def plan(
    rule: Rule,
    entries: Iterable[Entry],
    now: float,
    *,
    last_use: LastUse = LastUse.WRITTEN,
    protected: Collection[str] = frozenset(),
) -> list[Removal]:
    """What the rule removes of all the files that it is about; `now` in seconds since the epoch.

    First what is older than the rule's age; then, if what is left is over a cap, the least recently used of it, and no
    more than it takes. The paths in `protected` (a set) stay, and count towards the caps. Ties go by path, and the
    result is in the order in which it was decided: the same for the same files, in whatever order they come.
    """
    used = _read_or_written if last_use is LastUse.READ else _written
    oldest_ns = -_FAR if rule.max_age_s is None else int((now - rule.max_age_s) * 1e9)
    expired: list[Entry] = []
    kept: list[Entry] = []
    size = 0
    for entry in entries:
        if used(entry) < oldest_ns and entry.path not in protected:
            expired.append(entry)
        else:
            kept.append(entry)
            size += entry.size
    removals = _expired(_ordered(expired, used), rule, now, last_use, used)
    files_over = 0 if rule.max_files is None else len(kept) - rule.max_files
    bytes_over = 0 if rule.max_bytes is None else size - rule.max_bytes
    if files_over > 0 or bytes_over > 0:
        _trim(_ordered(kept, used), files_over, bytes_over, rule, last_use, protected, removals)
    return removals


def _written(entry: Entry) -> int:
    return entry.mtime_ns


def _read_or_written(entry: Entry) -> int:
    return entry.mtime_ns if entry.mtime_ns > entry.atime_ns else entry.atime_ns


def _ordered(entries: list[Entry], used: Callable[[Entry], int]) -> list[Entry]:
    """The least recently used first, ties by path. Two sorts, because tuples as keys would keep the collector busy."""
    entries.sort(key=_path)
    entries.sort(key=used)
    return entries


def _expired(
    expired: list[Entry], rule: Rule, now: float, last_use: LastUse, used: Callable[[Entry], int]
) -> list[Removal]:
    """Reasons are told to the hour, so thousands of files share one text."""
    now_ns, reasons, removals = int(now * 1e9), dict[int, str](), list[Removal]()
    for entry in expired:
        age_ns = now_ns - used(entry)
        hours = age_ns // _HOUR_NS
        reason = reasons.get(hours)
        if reason is None:
            age = format_duration(hours * 3600 if hours else age_ns / 1e9)
            reason = f"not {last_use.value} for {age}, over {spell_duration(rule.max_age_s or 0)}"
            reasons[hours] = reason
        removals.append(_removal(Removal, (entry, reason)))
    return removals


def _trim(
    kept: list[Entry],
    files_over: int,
    bytes_over: int,
    rule: Rule,
    last_use: LastUse,
    protected: Collection[str],
    removals: list[Removal],
) -> None:
    order = f"least recently {last_use.value}"
    by_files = f"{rule.name} over {rule.max_files} files, {order}"
    by_bytes = f"{rule.name} over {format_size(rule.max_bytes or 0)}, {order}"
    for entry in kept:
        if files_over <= 0 and bytes_over <= 0:
            return
        # An empty file frees no bytes: it goes only when there are too many files.
        if entry.path in protected or (files_over <= 0 and entry.size == 0):
            continue
        removals.append(Removal(entry, by_files if files_over > 0 else by_bytes))
        files_over -= 1
        bytes_over -= entry.size
