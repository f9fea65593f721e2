"""Which units a rule removes, and why. Pure, and fast for many files."""

from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import NamedTuple

from symbiont_datad.quantities import format_duration, format_size, spell_duration
from symbiont_datad.retention.rules import AgeBy, Rule
from symbiont_datad.retention.units import Unit

_SECOND_NS = 10**9
_FAR = 1 << 80  # nanoseconds, before and after all times of files
_path = attrgetter("path")
_at = attrgetter("at_ns")
_removal = tuple.__new__  # a named tuple's own is written in Python

_OLD = {
    AgeBy.WRITTEN: "not changed for {}, over {}",
    AgeBy.READ: "not read for {}, over {}",
    AgeBy.USED: "not used for {}, over {}",
    AgeBy.NAME: "its day ended {} ago, over {}",
}
_FIRST = {
    AgeBy.WRITTEN: "least recently changed",
    AgeBy.READ: "least recently read",
    AgeBy.USED: "least recently used",
    AgeBy.NAME: "of the earliest days",
}


class Removal(NamedTuple):
    """One unit that goes, and why."""

    unit: Unit
    reason: str


def plan(rule: Rule, units: Iterable[Unit], now: float, *, protected: Collection[str] = frozenset()) -> list[Removal]:
    """What the rule removes of all the units that it is about; `now` in seconds since the epoch.

    First what is older than the rule's age; then, if what is left is over a cap, the oldest of it, and no more than it
    takes. The paths in `protected` (a set) stay, and count towards the caps. The newest unit goes by no cap, and with
    `rule.keep_newest` not by its age either. Ties go by path, and the result is in the order in which it was decided:
    the same for the same units, in whatever order they come.
    """
    oldest_ns = -_FAR if rule.max_age_s is None else int((now - rule.max_age_s) * 1e9)
    expired: list[Unit] = []
    kept: list[Unit] = []
    size = 0
    for unit in units:
        if unit.at_ns < oldest_ns and unit.path not in protected:
            expired.append(unit)
        else:
            kept.append(unit)
            size += unit.size
    ordered = in_order(expired)
    if ordered and rule.keep_newest and ordered[-1] is newest([*kept, ordered[-1]]):
        ordered.pop()  # all that is kept then is protected
    removals = _expired(ordered, rule, now)
    files_over = 0 if rule.max_files is None else len(kept) - rule.max_files
    bytes_over = 0 if rule.max_bytes is None else size - rule.max_bytes
    if files_over > 0 or bytes_over > 0:
        _trim(in_order(kept)[:-1], files_over, bytes_over, rule, protected, removals)
    return removals


def in_order(units: list[Unit]) -> list[Unit]:
    """The same list, the oldest first, ties by path. Two sorts: tuples as keys would keep the collector busy."""
    units.sort(key=_path)
    units.sort(key=_at)
    return units


def newest(units: Iterable[Unit]) -> Unit | None:
    """The newest unit, of several the last by path; None of none."""
    return max(units, key=attrgetter("at_ns", "path"), default=None)


def _expired(expired: list[Unit], rule: Rule, now: float) -> list[Removal]:
    """Reasons are told to the hour (or, of less than one, to the second), so thousands of files share one text."""
    now_ns, reasons, removals = int(now * 1e9), dict[int, str](), list[Removal]()
    for unit in expired:
        age_s = (now_ns - unit.at_ns) // _SECOND_NS
        told_s = age_s - age_s % 3600 or age_s
        reason = reasons.get(told_s)
        if reason is None:
            age = format_duration(told_s)
            reason = reasons[told_s] = _OLD[rule.age_by].format(age, spell_duration(rule.max_age_s or 0))
        removals.append(_removal(Removal, (unit, reason)))
    return removals


def _trim(
    kept: list[Unit],
    files_over: int,
    bytes_over: int,
    rule: Rule,
    protected: Collection[str],
    removals: list[Removal],
) -> None:
    order = _FIRST[rule.age_by]
    by_files = f"{rule.name} over {rule.max_files} {'directories' if rule.whole else 'files'}, {order}"
    by_bytes = f"{rule.name} over {format_size(rule.max_bytes or 0)}, {order}"
    for unit in kept:
        if files_over <= 0 and bytes_over <= 0:
            return
        # An empty file frees no bytes: it goes only when there are too many files.
        if unit.path in protected or (files_over <= 0 and unit.size == 0):
            continue
        removals.append(Removal(unit, by_files if files_over > 0 else by_bytes))
        files_over -= 1
        bytes_over -= unit.size
