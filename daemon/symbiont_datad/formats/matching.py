"""Where two sequences differ: the fewest changes where that is quick to find, and never in more time than a bound.

Pure, and for items of any kind that can be hashed and compared: lines of a text, items of a list.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

Range = tuple[int, int, int, int]
"""`(i1, i2, j1, j2)`: `a[i1:i2]` became `b[j1:j2]`."""

_STEPS = 3_000_000  # of the search for the fewest changes: about two seconds
_ROUNDS = 10  # how often a range is split at items that are unique in it


class Matching:
    """Finds where sequences differ. The work is bounded for all the sequences of a comparison together."""

    def __init__(self) -> None:
        self._steps = _STEPS

    def ranges(self, a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Range]:
        """Where two sequences differ, in order: `a[i1:i2]` became `b[j1:j2]`.

        What is equal at both ends is left off, and of the rest the fewest changes are looked for. Where there are too
        many, it is split at items that are unique on both sides; without such it counts as changed as a whole.
        """
        found: list[Range] = []
        left = [(0, len(a), 0, len(b), _ROUNDS)]
        while left:
            i1, i2, j1, j2, rounds = left.pop()
            start, end = equal_ends(a[i1:i2], b[j1:j2])
            i1, i2, j1, j2 = i1 + start, i2 - end, j1 + start, j2 - end
            one, two = a[i1:i2], b[j1:j2]
            if not one or not two or rounds == 0 or not {*one} & {*two}:
                found += [(i1, i2, j1, j2)] if one or two else []
                continue
            fewest = self._fewest(one, two)
            if fewest is not None:
                found += [(i1 + i3, i1 + i4, j1 + j3, j1 + j4) for i3, i4, j3, j4 in fewest]
                continue
            cuts = [(i1 + i, j1 + j) for i, j in _anchors(one, two)]
            starts, ends = [(i1, j1), *((i + 1, j + 1) for i, j in cuts)], [*cuts, (i2, j2)]
            gaps = [(i3, i4, j3, j4, rounds - 1) for (i3, j3), (i4, j4) in zip(starts, ends, strict=True)]
            left += reversed(gaps if cuts else [(i1, i2, j1, j2, 0)])
        return found

    def _fewest(self, a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Range] | None:
        """The fewest insertions and removals that make `b` of `a`; None when that takes too many steps.

        Source: E. W. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), the greedy one. A diagonal `k`
        is where `x - y = k`, x counting in `a` and y in `b`; `reach` is how far each got with the edits so far.
        """
        half = steps = self._steps // 2  # so that what comes later has a chance as well
        reach = {1: 0}
        history: list[array[int]] = []
        while steps >= 0:
            edits = len(history)
            history.append(array("q", [reach[k] for k in range(1 - edits, edits, 2)]))
            for k in range(-edits, edits + 1, 2):
                down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
                start = x = reach[k + 1] if down else reach[k - 1] + 1
                y = x - k
                while x < len(a) and y < len(b) and a[x] == b[y]:
                    x, y = x + 1, y + 1
                reach[k] = x
                steps -= 2 + x - start
                if x >= len(a) and y >= len(b):
                    self._steps -= half - steps
                    return _joined(_traced(history, x, y), a, b)
        self._steps -= half
        return None


def _traced(history: "list[array[int]]", x: int, y: int) -> list[Range]:
    """The ranges that the edits make, found from their end (x, y) backwards.

    `history`: before each edit, how far the diagonals had got that the edit may have started from.
    """
    found: list[Range] = []
    for edits in range(len(history) - 1, 0, -1):
        reach, k = history[edits], x - y
        above = (k + edits) // 2  # where diagonal k + 1 is; k - 1 comes before it
        down = k == -edits or (k != edits and reach[above - 1] < reach[above])
        x0 = reach[above] if down else reach[above - 1]
        y0 = x0 - (k + 1 if down else k - 1)
        x1, y1 = (x0, y0 + 1) if down else (x0 + 1, y0)
        if found and (x1, y1) == (found[-1][0], found[-1][2]):
            found[-1] = (x0, found[-1][1], y0, found[-1][3])
        else:
            found.append((x0, x1, y0, y1))
        x, y = x0, y0
    return found[::-1]


def _joined(ranges: list[Range], a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Range]:
    """The same changes in fewer ranges: a removal or insertion among equal items is moved to its neighbour.

    So the change of one item among equal ones is not shown as an insertion here and a removal there.
    """
    joined: list[Range] = []
    for found in ranges:
        while joined:
            before, after = joined[-1], found
            gap = after[0] - before[1]
            if _moves(after, a, b, -gap):
                after = (after[0] - gap, after[1] - gap, after[2] - gap, after[3] - gap)
            elif _moves(before, a, b, gap):
                before = (before[0] + gap, before[1] + gap, before[2] + gap, before[3] + gap)
            else:
                break
            joined.pop()
            found = (before[0], after[1], before[2], after[3])
        joined.append(found)
    return joined


def _moves(found: Range, a: Sequence[Hashable], b: Sequence[Hashable], by: int) -> bool:
    """Whether a removal or insertion says the same so many items further on (negative: further back)."""
    i1, i2, j1, j2 = found
    if i1 < i2 and j1 < j2:
        return False
    items, start, end = (a, i1, i2) if i1 < i2 else (b, j1, j2)
    if by < 0:
        return all(items[start - number] == items[end - number] for number in range(1, -by + 1))
    return all(items[start + number] == items[end + number] for number in range(by))


def equal_ends(a: Sequence[Any], b: Sequence[Any]) -> tuple[int, int]:
    """How many items two sequences have in common at their beginning, and then at their end."""
    start = common(a, b)
    return start, common(a[start:][::-1], b[start:][::-1])


def common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two sequences have in common at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # comparing halves is quicker than going through the items
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _anchors(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Positions of items that occur once in each of two sequences, as many as are in the same order in both."""
    once_a = {item for item, count in Counter(a).items() if count == 1}
    once_b = {item for item, count in Counter(b).items() if count == 1}
    places = {item: j for j, item in enumerate(b) if item in once_a and item in once_b}
    pairs = [(i, places[item]) for i, item in enumerate(a) if item in places]
    return [pairs[number] for number in rising([j for _, j in pairs])]


def rising(numbers: Sequence[int]) -> list[int]:
    """The positions of a longest rising subsequence of numbers that are all different."""
    tops: list[int] = []  # the smallest number in which a rising sequence of each length ends
    places: list[int] = []
    previous: list[int] = []
    for place, number in enumerate(numbers):
        length = bisect_left(tops, number)
        previous.append(places[length - 1] if length else -1)
        tops[length : length + 1] = [number]
        places[length : length + 1] = [place]
    chain = []
    place = places[-1] if places else -1
    while place >= 0:
        chain.append(place)
        place = previous[place]
    return chain[::-1]
