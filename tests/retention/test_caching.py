"""How a cache is used, and what a limit would free."""

import pytest

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.quantities import DAY, HOUR
from symbiont_datad.retention.caching import AGES, CacheTally, freed_by_age, freed_by_size
from symbiont_datad.retention.rules import Rule

NOW = 1_795_000_000.0


def entry(age_s: float, size: int, read_s: float | None = None) -> Entry:
    """A file that was written `age_s` seconds ago, and read `read_s` seconds ago."""
    mtime = int((NOW - age_s) * 1e9)
    return Entry("c", 0o100644, size, mtime, mtime if read_s is None else int((NOW - read_s) * 1e9), 1, 1, 0, 0)


def tally(*entries: Entry, rule: Rule | None = None) -> CacheTally:
    """A tally of some files."""
    found = CacheTally(rule, NOW)
    for one in entries:
        found.add(one)
    return found


def test_files_are_grouped_by_their_last_use() -> None:
    """The last read counts, where it is later; what is from the future was used just now."""
    use = tally(entry(60, 1), entry(40 * DAY, 10, 60), entry(2 * HOUR, 100), entry(8 * DAY, 1000), entry(-5, 2)).use()
    assert list(AGES) == [group.within_s for group in use]
    assert [(3, 13), (1, 100), (0, 0), (1, 1000), (0, 0)] == [(group.files, group.bytes) for group in use]


def test_a_group_holds_what_is_just_as_old() -> None:
    """Of a file that was used exactly an hour ago the last use was within an hour."""
    use = tally(*(entry(age, 1) for age in AGES[:-1]), *(entry(age + 1, 10) for age in AGES[:-1])).use()
    assert [1, 11, 11, 11, 10] == [group.bytes for group in use]


def test_what_a_limit_would_free() -> None:
    """By age: all that was used longer ago; by size: what is above."""
    use = tally(entry(60, 1), entry(2 * HOUR, 10), entry(2 * DAY, 100), entry(99 * DAY, 1000)).use()
    assert [1111 - 1, 1100, 1000, 1000] == [freed_by_age(use, age) for age in (HOUR, DAY, 7 * DAY, 30 * DAY)]
    assert [1111, 1110] == [freed_by_age(use, age) for age in (0.0, 0.5)]
    assert [611, 0] == [freed_by_size(use, size) for size in (500, 2000)]


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        (None, [0, 0, 0, 0, 0]),
        (Rule("cache", "c", max_age_s=3 * DAY), [0, 0, 0, 0, 1000]),
        (Rule("cache", "c", max_bytes=105), [0, 0, 6, 0, 1000]),
        (Rule("cache", "c", max_age_s=3 * DAY, max_bytes=5), [0, 6, 100, 0, 1000]),
    ],
)
def test_what_the_next_run_frees(rule: Rule | None, due: list[int]) -> None:
    """What is too old, and then the least recently used of what is above the size."""
    use = tally(entry(60, 1), entry(2 * HOUR, 10), entry(2 * DAY, 100), entry(99 * DAY, 1000), rule=rule).use()
    assert due == [group.due_bytes for group in use]


def test_what_is_just_within_the_limits_stays() -> None:
    """A file that is as old as it may be, and a cache that is as large."""
    ages = tally(entry(40 * DAY, 1), entry(40 * DAY + 1, 2), entry(50 * DAY, 4), rule=Rule("c", "c", 40 * DAY)).use()
    assert 6 == ages[-1].due_bytes
    assert 0 == sum(group.due_bytes for group in tally(entry(-5, 7), rule=Rule("c", "c", max_age_s=0.5)).use())
    assert 0 == sum(group.due_bytes for group in tally(entry(60, 7), rule=Rule("c", "c", max_bytes=7)).use())
    assert 1 == sum(group.due_bytes for group in tally(entry(60, 8), rule=Rule("c", "c", max_bytes=7)).use())
