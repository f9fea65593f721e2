"""Where sequences differ: always right, the fewest changes where that is cheap, and never a matter of minutes."""

import random
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.matching import Matching, Range, common, equal_ends, rising

ITEMS = st.lists(st.sampled_from("abcd"), max_size=12)


def applied(a: Sequence[object], b: Sequence[object], ranges: list[Range]) -> list[object]:
    """What `a` becomes when the ranges are replaced by those of `b`."""
    result, place = [], 0
    for i1, i2, j1, j2 in ranges:
        result += [*a[place:i1], *b[j1:j2]]
        place = i2
    return [*result, *a[place:]]


def size(ranges: list[Range]) -> int:
    """How many items are removed and inserted."""
    return sum(i2 - i1 + j2 - j1 for i1, i2, j1, j2 in ranges)


@given(a=ITEMS, b=ITEMS)
def test_the_ranges_make_one_of_the_other(a: list[str], b: list[str]) -> None:
    """In order, without equal neighbours, and with no more changes than difflib finds."""
    ranges = Matching().ranges(a, b)
    assert b == applied(a, b, ranges)
    assert all(one[1] < two[0] for one, two in pairwise(ranges))
    theirs = [(i1, i2, j1, j2) for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b).get_opcodes() if tag != "equal"]
    assert size(ranges) <= size(theirs)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kinds", [3, 1000, 10**9], ids=["all alike", "some alike", "all different"])
def test_too_many_changes_are_found_roughly(kinds: int) -> None:
    """Where the fewest are out of reach the result is still right, and what is unique on both sides is a hold."""
    dice = random.Random(1)
    a = [dice.randrange(kinds) for _ in range(20_000)]
    b = a[:5000] + [dice.randrange(kinds) for _ in range(10_000)] + a[5000:]
    dice.shuffle(b[6000:12_000])
    b[::3] = [dice.randrange(kinds) for _ in b[::3]]
    assert b == applied(a, b, ranges := Matching().ranges(a, b))
    assert kinds < 10**9 or size(ranges) < 33_000


@pytest.mark.timeout(30)
def test_few_changes_among_many_equal_items_are_found_exactly() -> None:
    """Two changes and an insertion in half a million lines of three kinds."""
    dice = random.Random(1)
    a = [dice.choice("abc") for _ in range(500_000)]
    b = [*a]
    b[5], b[250_000] = "x", "y"
    b.insert(1000, "z")
    assert [(5, 6, 5, 6), (1000, 1000, 1000, 1001), (250_000, 250_001, 250_001, 250_002)] == Matching().ranges(a, b)


def test_a_change_among_equal_items_is_one_range() -> None:
    """Not an insertion before and a removal after them, though that would be as few changes."""
    a, b = [*"xaaaaauy"], [*"naabaaum"]
    assert [(0, 1, 0, 1), (3, 4, 3, 4), (7, 8, 7, 8)] == Matching().ranges(a, b)


@given(numbers=st.permutations(range(7)))
def test_rising_is_the_longest(numbers: list[int]) -> None:
    """No rising subsequence is longer, and what comes back is one."""
    places = rising(numbers)
    found = [numbers[place] for place in places]
    assert sorted(found) == found
    assert sorted(places) == places
    longer = combinations(numbers, len(places) + 1)
    assert not any(sorted(one) == [*one] for one in longer)


@given(a=st.text("ab", max_size=8), b=st.text("ab", max_size=8))
def test_equal_ends_do_not_overlap(a: str, b: str) -> None:
    """As many as there are at the beginning, then at the end of what is left."""
    start, end = equal_ends(a, b)
    assert common(a, b) == start
    assert a[:start] == b[:start]
    assert a[len(a) - end :] == b[len(b) - end :]
    assert start + end <= min(len(a), len(b))
    assert start == min(len(a), len(b)) or a[start] != b[start]
