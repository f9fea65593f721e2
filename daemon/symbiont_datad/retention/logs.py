"""Rotation of logs: which are due, which way each is rotated, and which archives go. Pure.

The ways, best first. *Collapse* takes the archived lines out of the file under a writer in append mode, and loses
nothing. *Rename* gives a log that nobody holds open another name. *Truncate* copies and cuts, and loses what is written
in between: only where the user allows it. What is not known for sure counts as the worse.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from symbiont_datad.formats.rotated import Rotated
from symbiont_datad.fsops.lease import Held
from symbiont_datad.fsops.opened import Writer
from symbiont_datad.quantities import format_duration, format_size, spell_duration
from symbiont_datad.retention.patterns import matcher


@dataclass(frozen=True, slots=True)
class LogRule:
    """What is done with the logs whose path (relative to the logs directory) matches one of the patterns.

    None is no bound. A log is rotated from `rotate_at` bytes on, and from `rotate_every_s` on if it has `rotate_min`
    bytes. Of its archives the newest `keep` stay, and those younger than `max_age_s`; `max_total` is in bytes, for the
    archives of all logs of the rule together. `name` is the part of the settings that it comes from.
    """

    name: str
    patterns: tuple[str, ...]
    rotate_at: int | None = None
    rotate_every_s: float | None = None
    rotate_min: int = 1
    keep: int | None = None
    max_age_s: float | None = None
    max_total: int | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How logs are rotated. `directory` and `audit` are relative to the root; of the rules the first that fits counts.

    `max_total`: bytes of all archives together. `reopened` and `appended` are patterns of logs of which the user knows
    how they are written.
    """

    directory: str = "logs"
    audit: str = "logs/audit"
    rules: tuple[LogRule, ...] = ()
    max_total: int | None = None
    compress: str = "zstd"
    delay_compress: bool = False
    allow_copytruncate: bool = False
    reopened: tuple[str, ...] = ()
    appended: tuple[str, ...] = ()

    def relative(self, path: str) -> str:
        """A path as patterns have it: relative to the logs directory."""
        return path.removeprefix(f"{self.directory}/")

    def rule_of(self, path: str) -> LogRule | None:
        """The rule that is about the log at a path (relative to the root); None when it is rotated by nobody."""
        inner = self.relative(path)
        return next((rule for rule in self.rules if matcher(rule.patterns)(inner)), None)

    def is_audit(self, path: str) -> bool:
        """Whether a log is one of security events, whose archives are in the chained manifest."""
        return path.startswith(f"{self.audit}/")

    def trims(self, rule: LogRule, path: str) -> bool:
        """Whether archives of a log may be removed: of an audit log only when a rule names those, as `audit/…`."""
        if not self.is_audit(path):
            return True
        inner, audit = self.relative(path), f"{self.relative(self.audit)}/"
        naming = tuple(pattern for pattern in rule.patterns if pattern.startswith(audit))
        return bool(matcher(naming)(inner))

    def declared(self, path: str) -> "Declared":
        """What the user says about the writers of a log."""
        inner = self.relative(path)
        if matcher(self.reopened)(inner):
            return Declared.REOPENED
        return Declared.APPENDED if matcher(self.appended)(inner) else Declared.NOTHING


NO_ROTATION = LogSettings()
"""Nothing is rotated."""


def due(rule: LogRule, size: int, age_s: float | None) -> str:
    """Why a log is rotated now; empty when it is not. `size` in bytes, `age_s` since its last rotation or None."""
    if size <= 0:
        return ""
    if rule.rotate_at is not None and size >= rule.rotate_at:
        return f"it has {format_size(size)}, rotated from {format_size(rule.rotate_at)}"
    every = rule.rotate_every_s
    if every is not None and age_s is not None and age_s >= every and size >= rule.rotate_min:
        return f"it is {format_duration(age_s)} old, rotated every {spell_duration(every)}"
    return ""


# Ways


class Way(Enum):
    """How a log is rotated."""

    COLLAPSE = "collapse"
    RENAME = "rename"
    TRUNCATE = "copy and truncate"
    NONE = "none"


class Declared(Enum):
    """What the user says about the writers of a log: they open it for each append, or in append mode, or nothing."""

    REOPENED = "reopened"
    APPENDED = "appended"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a log that is due, just now.

    `held`: whether anybody has it open for writing; `writers`: those that were seen. `complete`: every process was
    looked at. `others`: users whose processes can't be seen could have it open. `collapses`: the file system can.
    `problem` and `remedy`: why it must be left alone whoever writes to it.
    """

    held: Held
    writers: tuple[Writer, ...] = ()
    complete: bool = False
    others: bool = True
    collapses: bool = False
    declared: Declared = Declared.NOTHING
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A way, and why. Of a log that is left alone (`Way.NONE`) `remedy` says what to do."""

    way: Way
    why: str
    remedy: str = ""


_DECLARE = "logs.appended or logs.reopened can say how it is written"


def choose(seen: Observed, allow_copytruncate: bool) -> Choice:
    """The best way that the file system and the writers allow."""
    if seen.problem:
        return Choice(Way.NONE, seen.problem, seen.remedy)
    if seen.declared is Declared.REOPENED:
        return Choice(Way.RENAME, "it is declared in logs.reopened")
    misplaced = [writer for writer in seen.writers if not writer.appends]
    if misplaced:
        return Choice(
            Way.NONE,
            f"{_named(misplaced)} does not write in append mode, and would leave a gap where the file was cut",
            "open it for appending (in a shell: >> instead of >), or let it open the file for each line",
        )
    if seen.held is Held.NO or (seen.held is Held.UNKNOWN and seen.complete and not seen.writers):
        return Choice(Way.RENAME, "nobody has it open")
    if seen.declared is not Declared.APPENDED:
        if not seen.writers:
            detail = "somebody who can't be seen has it open" if seen.held is Held.YES else "nobody knows who writes it"
            return Choice(Way.NONE, detail, f"let the daemon see the processes of its writers, or {_DECLARE}")
        if seen.others and not seen.complete:
            return Choice(
                Way.NONE,
                f"{_named(seen.writers)} appends to it, and so could users whose processes can't be seen",
                f"take their right to write to it, run the daemon as root, or {_DECLARE}",
            )
    why = f"{_named(seen.writers)} appends to it" if seen.writers else "it is declared in logs.appended"
    if seen.collapses:
        return Choice(Way.COLLAPSE, why)
    if allow_copytruncate:
        return Choice(Way.TRUNCATE, f"{why}; what is written during the cut is lost")
    return Choice(
        Way.NONE,
        f"{why}, and this file system can't take the head out of a file",
        "keep logs on ext4 or xfs, let it open the file for each line, or accept lost lines with "
        "logs.allow_copytruncate",
    )


def _named(writers: Iterable[Writer]) -> str:
    """`process 4711 (agent)`, or the first of several and how many more there are."""
    first, *more = sorted(writers, key=lambda writer: writer.pid)
    others = f" and {len(more)} more" if more else ""
    return f"process {first.pid} ({first.command}){others}"


# Archives


class Archive(NamedTuple):
    """One archive of a log. `log` is the path of the live file, `size` in bytes, on the disk."""

    path: str
    log: str
    place: Rotated
    size: int


class Trimmed(NamedTuple):
    """An archive that goes, the rule, and why."""

    archive: Archive
    rule: str
    reason: str


def trim(
    settings: LogSettings, archives: Iterable[Archive], now: float, protected: Collection[str] = frozenset()
) -> list[Trimmed]:
    """Which archives go, in the order in which that is decided; `now` in seconds since the epoch.

    First those over the age, by the time of their rotation. Then of each log the oldest over its count, of each rule
    the oldest over its total, and of all together; never more than that takes, and never the newest. The paths in
    `protected` stay, and count towards the caps; archives of audit logs stay and count for nothing, unless a rule names
    those logs.
    """
    ruled: dict[LogRule, list[Archive]] = defaultdict(list)
    for archive in archives:
        rule = settings.rule_of(archive.log)
        if rule is not None and settings.trims(rule, archive.log):
            ruled[rule].append(archive)
    found: list[Trimmed] = []
    left: list[Archive] = []
    for rule, ones in ruled.items():
        kept = _within_age(rule, ones, now, protected, found)
        kept = _within_count(rule, kept, protected, found)
        left += _within_total(rule.name, rule.max_total, kept, protected, found)
    _within_total("logs", settings.max_total, left, protected, found)
    return found


def _within_age(
    rule: LogRule, ones: list[Archive], now: float, protected: Collection[str], found: list[Trimmed]
) -> list[Archive]:
    if rule.max_age_s is None:
        return ones
    kept = []
    for archive in ones:
        age = now - archive.place.at
        if age > rule.max_age_s and archive.path not in protected:
            reason = f"rotated {format_duration(age)} ago, over {spell_duration(rule.max_age_s)}"
            found.append(Trimmed(archive, rule.name, reason))
        else:
            kept.append(archive)
    return kept


def _within_count(
    rule: LogRule, ones: list[Archive], protected: Collection[str], found: list[Trimmed]
) -> list[Archive]:
    if rule.keep is None:
        return ones
    by_log: Mapping[str, list[Archive]] = defaultdict(list)
    for archive in ones:
        by_log[archive.log].append(archive)
    gone: set[str] = set()
    for some in by_log.values():
        over = max(len(some) - rule.keep, 0)
        oldest_first = sorted(some, key=lambda archive: archive.place)
        going = [archive for archive in oldest_first[:-1] if archive.path not in protected][:over]
        reason = f"one of {len(some)} archives of its log, {rule.keep} are kept"
        found += [Trimmed(archive, rule.name, reason) for archive in going]
        gone.update(archive.path for archive in going)
    return [archive for archive in ones if archive.path not in gone]


def _within_total(
    name: str, cap: int | None, ones: list[Archive], protected: Collection[str], found: list[Trimmed]
) -> list[Archive]:
    if cap is None:
        return ones
    over = sum(archive.size for archive in ones) - cap
    oldest_first = sorted(ones, key=lambda archive: (archive.place.at, archive.log, archive.place.number))
    reason = f"archives of {name} together over {format_size(cap)}, the oldest first"
    gone: set[str] = set()
    for archive in oldest_first[:-1]:
        if over <= 0:
            break
        if archive.size and archive.path not in protected:
            over -= archive.size
            gone.add(archive.path)
            found.append(Trimmed(archive, name, reason))
    return [archive for archive in ones if archive.path not in gone]
