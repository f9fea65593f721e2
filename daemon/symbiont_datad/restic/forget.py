"""Which snapshots a policy keeps, and why. Pure: nothing is removed here, and `now` is an argument.

Source: restic's manual, "Removing snapshots according to a policy", and `snapshot_policy.go`. The same snapshots and
the same policy give what `restic forget --keep-…` of 0.16 or later gives (since 0.16 the oldest snapshot stays while a
rule has counts left). Three things are ours, and each of them keeps more:

- A snapshot whose time is in the future is kept and uses up no count. restic counts it like any other.
- A policy without a rule keeps everything. restic refuses to run then.
- So does a policy of tags alone, for a group in which no snapshot has one of them. There, too, restic (0.17) refuses.

Deciding once more about what was kept, at the same time, keeps all of it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from symbiont_datad.restic.records import Snapshot

UNLIMITED = -1
"""As a count: every bucket. restic's command line calls it `unlimited`."""

By = Literal["host", "paths", "tags"]
"""What snapshots can be grouped by."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is to be kept. A count that is None or 0 is no rule; UNLIMITED (-1) keeps one of each bucket for ever.

    `within_s` (seconds) keeps everything that is younger than the newest snapshot by less than that: time passes only
    when snapshots are made. `tags` keeps every snapshot that has one of them. Raises ValueError for other negatives.
    """

    last: int | None = None
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    within_s: float | None = None
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if min(self._counts) < UNLIMITED or (self.within_s is not None and self.within_s < 0):
            raise ValueError("a rule of a policy can't be negative")

    @property
    def _counts(self) -> tuple[int, ...]:
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return tuple(count or 0 for count in counts)

    @property
    def empty(self) -> bool:
        """Whether no rule is set."""
        return not (any(self._counts) or self.within_s or self.tags)


@dataclass(frozen=True, slots=True)
class Kept:
    """One snapshot that stays, and every reason for it."""

    id: str
    snapshot: Snapshot
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What stays and what goes, newest first."""

    keep: tuple[Kept, ...]
    remove: tuple[tuple[str, Snapshot], ...]


class Group(NamedTuple):
    """What the snapshots of a group have in common; what they are not grouped by is empty."""

    host: str = ""
    paths: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def selected(
    snapshots: Iterable[tuple[str, Snapshot]],
    *,
    host: str | None = None,
    tags: Collection[str] = (),
    paths: Collection[str] = (),
) -> list[tuple[str, Snapshot]]:
    """The snapshots of this host (None: of any) that have all of these tags and all of these paths."""
    return [
        (name, snapshot)
        for name, snapshot in snapshots
        if host in (None, snapshot.hostname) and {*tags} <= {*snapshot.tags} and {*paths} <= {*snapshot.paths}
    ]


def grouped(
    snapshots: Iterable[tuple[str, Snapshot]], by: Collection[By] = ("host", "paths")
) -> dict[Group, list[tuple[str, Snapshot]]]:
    """The snapshots by what they have in common, in the order in which the groups were met.

    A policy is meant for one group at a time, so that a host that is rarely backed up does not lose its snapshots to a
    busy one. An empty `by` makes one group of all. The order of paths and tags does not matter.
    """
    groups: dict[Group, list[tuple[str, Snapshot]]] = {}
    for name, snapshot in snapshots:
        group = Group(
            snapshot.hostname if "host" in by else "",
            tuple(sorted(snapshot.paths)) if "paths" in by else (),
            tuple(sorted(snapshot.tags)) if "tags" in by else (),
        )
        groups.setdefault(group, []).append((name, snapshot))
    return groups


def decide(snapshots: Iterable[tuple[str, Snapshot]], policy: Policy, now: float) -> Decision:
    """What the policy keeps of one group; `now` in seconds since the epoch.

    A calendar rule takes the newest snapshot of each hour, day, ISO week, month or year that has one, from the newest
    backwards, until its count is used up. The oldest snapshot of all stays, too, while a rule has counts left. Hours
    and days are those of the zone that the snapshot's own time is written in, as restic does it: one whose time is
    written in UTC belongs to a day of UTC. Ties go by id. Raises ValueError when a snapshot's time can't be read.
    """
    timed = ((snapshot.at, name, snapshot) for name, snapshot in snapshots)
    ordered = sorted(timed, key=lambda one: (-one[0].timestamp(), one[1]))
    past = [one for one in ordered if one[0].timestamp() <= now]
    rules = _rules(policy, past[0][0], len(past)) if past else []
    keep: list[Kept] = []
    remove: list[tuple[str, Snapshot]] = []
    for number, (at, name, snapshot) in enumerate(ordered, len(past) - len(ordered)):  # in the future: below 0
        if policy.empty:
            reasons = ["no rule is set"]
        elif number < 0:
            reasons = ["its time is in the future"]
        else:
            reasons = [f"has tag {tag}" for tag in snapshot.tags if tag in policy.tags]
            reasons += [reason for rule in rules if (reason := rule(at, number))]
        if reasons:
            keep.append(Kept(name, snapshot, tuple(reasons)))
        else:
            remove.append((name, snapshot))
    if remove and not keep:
        return Decision(tuple(Kept(name, one, ("no rule keeps any of its group",)) for name, one in remove), ())
    return Decision(tuple(keep), tuple(remove))


_Rule = Callable[[datetime, int], str]
"""Given a snapshot's time and its number, newest first: why the rule keeps it, or nothing."""


def _rules(policy: Policy, newest: datetime, total: int) -> list[_Rule]:
    """The rules that are set, in the order in which restic names reasons."""
    buckets: tuple[tuple[str, int | None, Callable[[datetime, int], object]], ...] = (
        ("last", policy.last, lambda _, number: number),
        ("hourly", policy.hourly, lambda at, _: (at.date(), at.hour)),
        ("daily", policy.daily, lambda at, _: at.date()),
        ("weekly", policy.weekly, lambda at, _: at.isocalendar()[:2]),
        ("monthly", policy.monthly, lambda at, _: (at.year, at.month)),
        ("yearly", policy.yearly, lambda at, _: at.year),
    )
    rules = [_within(newest, policy.within_s)] if policy.within_s else []
    return rules + [_bucket_rule(name, count, bucket, total) for name, count, bucket in buckets if count]


def _within(newest: datetime, within_s: float) -> _Rule:
    reason = f"within {_spell(within_s)} of the newest"
    return lambda at, _: reason if (newest - at).total_seconds() < within_s else ""


def _bucket_rule(name: str, count: int, bucket: Callable[[datetime, int], object], total: int) -> _Rule:
    """Keeps the first snapshot that it meets of each bucket, and the last of all, until the count is used up."""
    left, current = count, object()

    def rule(at: datetime, number: int) -> str:
        nonlocal left, current
        found = bucket(at, number)
        if left == 0 or (found == current and number < total - 1):
            return ""
        reason = f"oldest {name} snapshot" if found == current else f"{name} snapshot"
        left, current = max(left - 1, UNLIMITED), found
        return reason

    return rule


def _spell(seconds: float) -> str:
    """A duration in days and hours, or in seconds where it is not whole hours."""
    if seconds % 3600:
        return f"{seconds:g} s"
    days, hours = divmod(int(seconds) // 3600, 24)
    return (f"{days}d" if days else "") + (f"{hours}h" if hours else "")
