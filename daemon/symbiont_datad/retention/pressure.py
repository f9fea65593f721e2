"""What goes when a disk is nearly full: how much, in which order, and when to look again. Pure.

Two marks of free space, and two of free inodes: below the `high` water mark something is done, up to the `low` one.
What goes comes in stages, the dearest last; of each the oldest first, and no more than it takes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from symbiont_datad.quantities import Share, format_size

_FASTEST = 256 << 20
"""Bytes a second: a writer of which nothing was seen yet is not expected to be faster."""
_RAREST_S, _RESTING_S, _OFTENEST_S = 10.0, 1.0, 0.2
"""Between two looks: at most, at least while the space doesn't shrink, and at least while it does."""
_LOOKS = 4
"""So often is looked before the mark is reached at the rate of now."""


_NEVER = Share(percent=0)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks, each a part of the file system or an amount: of bytes, and of inodes."""

    high: Share = _NEVER
    low: Share = _NEVER
    inodes_high: Share = _NEVER
    inodes_low: Share = _NEVER


NO_MARKS = Marks()


class Space(NamedTuple):
    """What a file system has, and has free for those who are not root. No inodes in total: it does not count them."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int


class Lack(NamedTuple):
    """What is missing up to the low mark; 0 where nothing is."""

    bytes: int
    inodes: int

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.inodes > 0


class Stage(IntEnum):
    """What goes, in this order."""

    CACHES = 1
    EXPIRED = 2
    """What retention removed, its time in quarantine over."""
    UNDOABLE = 3
    """What retention removed, and could still be brought back."""
    ROTATED = 4
    """Rotated logs that a backup holds."""
    EARLY = 5
    """What a rule will take anyway, and a backup holds."""


class Candidate(NamedTuple):
    """One thing that could go. `at_ns`: when it was last used, in nanoseconds since the epoch; `bytes` and `inodes`
    are what the file system gets back for it.
    """

    path: str
    at_ns: int
    bytes: int
    inodes: int


def pressed(space: Space, marks: Marks) -> bool:
    """Whether less is free than the high marks say."""
    return space.free_bytes < _mark(marks.high, space.total_bytes) or space.free_inodes < _mark(
        marks.inodes_high, space.total_inodes
    )


def lack(space: Space, marks: Marks) -> Lack:
    """What is missing up to the low marks. (Whether anything is to be done about it, `pressed` says.)"""
    size = max(_mark(marks.low, space.total_bytes) - space.free_bytes, 0)
    inodes = max(_mark(marks.inodes_low, space.total_inodes) - space.free_inodes, 0)
    return Lack(size, inodes)


def _mark(share: Share, total: int) -> int:
    """A mark that is more than all there is can't be reached: then it is all there is, and 0 of what is not counted."""
    return min(share.of(total), total)


def relieve(stages: Iterable[tuple[Stage, Iterable[Candidate]]], wanted: Lack) -> Iterator[tuple[Stage, Candidate]]:
    """What goes of the candidates, oldest first within a stage, until nothing is missing any more.

    One that gives back nothing of what is still missing stays. A stage is not even looked at while the ones before it
    are enough. Ties go by path.
    """
    if not wanted:
        return
    for stage, candidates in stages:
        for one in sorted(candidates, key=lambda one: (one.at_ns, one.path)):
            if (wanted.bytes > 0 and one.bytes > 0) or (wanted.inodes > 0 and one.inodes > 0):
                yield stage, one
                wanted = Lack(wanted.bytes - one.bytes, wanted.inodes - one.inodes)
            if not wanted:
                return


def next_look_s(space: Space, marks: Marks, shrinking: float) -> float:
    """Seconds until the free space is looked at again. `shrinking`: bytes a second that it lost since the last look.

    Far from the mark, or at rest, seldom; while it shrinks, a few times before the mark is reached.
    """
    margin = max(space.free_bytes - _mark(marks.high, space.total_bytes), 0)
    at_rest = min(max(margin / _FASTEST, _RESTING_S), _RAREST_S)
    if shrinking <= 0:
        return at_rest
    return max(min(at_rest, margin / shrinking / _LOOKS), _OFTENEST_S)


def told(space: Space) -> str:
    """The free space for people."""
    share = 100 * space.free_bytes / (space.total_bytes or 1)
    text = f"{format_size(space.free_bytes)} of {format_size(space.total_bytes)} free ({share:.0f} %)"
    if space.total_inodes:
        text += f", {100 * space.free_inodes / space.total_inodes:.0f} % of the inodes"
    return text
