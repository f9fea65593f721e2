"""Retention of a directory: what goes, why, and never more than it takes."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.retention.plan import LastUse, Removal, plan
from symbiont_datad.retention.rules import Rule

NOW = 1_795_000_000.0
DAY = 86_400.0


def entry(path: str, age_s: float = 0.0, size: int = 100, read_s: float | None = None) -> Entry:
    """A file that was written `age_s` seconds before NOW and read `read_s` seconds before it."""
    written = int((NOW - age_s) * 1e9)
    return Entry(path, 0o100644, size, written, int((NOW - (age_s if read_s is None else read_s)) * 1e9), 1, 1, 0, 0)


def paths(removals: list[Removal]) -> list[str]:
    """What goes, by name."""
    return [removal.entry.path for removal in removals]


def test_age_removes_what_is_older_and_says_how_old() -> None:
    """A file over the age goes, one just under it stays, and the reason tells both numbers."""
    rule = Rule("cache", "c", max_age_s=30 * DAY)
    files = [entry("old", 41 * DAY), entry("edge", 30 * DAY - 1), entry("new")]
    removals = plan(rule, files, NOW, last_use=LastUse.READ)
    assert [Removal(entry("old", 41 * DAY), "not used for 41d, over 30d")] == removals


def test_a_file_that_is_read_is_in_use() -> None:
    """By last use, reading counts; by time of writing it doesn't."""
    rule = Rule("cache", "c", max_age_s=30 * DAY)
    read = [entry("read", 60 * DAY, read_s=DAY)]
    assert [] == plan(rule, read, NOW, last_use=LastUse.READ)
    assert ["not changed for 60d, over 30d"] == [removal.reason for removal in plan(rule, read, NOW)]


def test_caps_take_the_least_recently_used_and_no_more() -> None:
    """Two of four files must go to meet the cap: the two oldest, with the cap in the reason."""
    files = [entry("d", 1), entry("a", 4), entry("c", 2), entry("b", 3)]
    by_bytes = plan(Rule("cache", "c", max_bytes=1 << 30), [one._replace(size=400 << 20) for one in files], NOW)
    assert [("a", "cache over 1 GiB, least recently changed"), ("b", "cache over 1 GiB, least recently changed")] == [
        (removal.entry.path, removal.reason) for removal in by_bytes
    ]
    by_files = plan(Rule("cache", "c", max_files=3), files, NOW, last_use=LastUse.READ)
    assert [("a", "cache over 3 files, least recently used")] == [(one.entry.path, one.reason) for one in by_files]


def test_age_comes_first_and_counts_for_the_caps() -> None:
    """What age removes is no longer there when the caps are looked at."""
    rule = Rule("cache", "c", max_age_s=DAY, max_files=2)
    assert ["old"] == paths(plan(rule, [entry("old", 2 * DAY), entry("a", 9), entry("b", 8)], NOW))


def test_an_empty_file_frees_no_bytes() -> None:
    """To meet a cap on bytes no empty file is removed, however old."""
    assert ["full"] == paths(plan(Rule("c", "c", max_bytes=50), [entry("empty", 9, 0), entry("full", 1)], NOW))


def test_protected_files_stay_and_count() -> None:
    """A file that is open can't go, so another goes in its place; nor does age take it."""
    files = [entry("open", 9 * DAY), entry("a", 2), entry("b", 1)]
    assert ["a"] == paths(plan(Rule("c", "c", max_files=2), files, NOW, protected={"open"}))
    assert [] == plan(Rule("c", "c", max_age_s=DAY), files, NOW, protected={"open"})


def test_a_rule_without_bounds_removes_nothing() -> None:
    """Unset is without a bound."""
    assert [] == plan(Rule("c", "c"), [entry("a", 1e9)], NOW)


def test_a_cap_of_nothing_removes_everything() -> None:
    """Zero is a bound like any other."""
    assert ["b", "a"] == paths(plan(Rule("c", "c", max_files=0), [entry("a", 1), entry("b", 2)], NOW))


ENTRIES = st.lists(
    st.builds(
        entry,
        path=st.text("abc", min_size=1, max_size=4),
        age_s=st.integers(-10, 100).map(float),
        size=st.integers(0, 50),
        read_s=st.none() | st.integers(-10, 100).map(float),
    ),
    max_size=30,
    unique_by=lambda one: one.path,
)
RULES = st.builds(
    Rule,
    st.just("rule"),
    st.just("d"),
    max_age_s=st.none() | st.integers(0, 100).map(float),
    max_bytes=st.none() | st.integers(0, 600),
    max_files=st.none() | st.integers(0, 20),
)
USES = st.sampled_from(LastUse)


def used(one: Entry, last_use: LastUse) -> int:
    """The last use of a file, in nanoseconds."""
    return max(one.mtime_ns, one.atime_ns) if last_use is LastUse.READ else one.mtime_ns


@settings(deadline=None)
@given(rule=RULES, files=ENTRIES, last_use=USES, data=st.data())
def test_a_plan_holds_what_it_promises(rule: Rule, files: list[Entry], last_use: LastUse, data: st.DataObject) -> None:
    """Afterwards every bound is met, a second plan is empty, and any order of the same files gives the same plan."""
    removals = plan(rule, files, NOW, last_use=last_use)
    gone = set(paths(removals))
    assert len(gone) == len(removals)
    left = [one for one in files if one.path not in gone]
    assert rule.max_files is None or len(left) <= rule.max_files
    assert rule.max_bytes is None or sum(one.size for one in left) <= rule.max_bytes
    assert rule.max_age_s is None or all(used(one, last_use) >= (NOW - rule.max_age_s) * 1e9 for one in left)
    assert [] == plan(rule, left, NOW, last_use=last_use)
    assert removals == plan(rule, data.draw(st.permutations(files)), NOW, last_use=last_use)


@settings(deadline=None)
@given(
    files=ENTRIES,
    last_use=USES,
    max_bytes=st.none() | st.integers(0, 600),
    max_files=st.none() | st.integers(0, 20),
)
def test_caps_never_take_more_than_needed(
    files: list[Entry], last_use: LastUse, max_bytes: int | None, max_files: int | None
) -> None:
    """Without the last removal a cap would still be exceeded, and what stays was used later than what goes."""
    rule = Rule("rule", "d", max_bytes=max_bytes, max_files=max_files)
    removals = plan(rule, files, NOW, last_use=last_use)
    if not removals:
        return
    gone = set(paths(removals))
    left = [one for one in files if one.path not in gone]
    last = removals[-1].entry
    too_many = max_files is not None and len(left) + 1 > max_files
    too_large = max_bytes is not None and sum(one.size for one in left) + last.size > max_bytes
    assert too_many or too_large
    newest_gone = max((used(one.entry, last_use), one.entry.path) for one in removals)
    assert all((used(one, last_use), one.path) > newest_gone for one in left if one.size)


@pytest.mark.parametrize("rule", [Rule("c", "c", max_age_s=30 * DAY, max_bytes=1 << 20), Rule("c", "c", max_files=10)])
def test_a_hundred_thousand_files_are_planned_at_once(rule: Rule) -> None:
    """A plan of 100,000 files takes well under a second, even on a busy machine."""
    files = [entry(f"{number * 7919 % 100_003:064x}", number * 7919 % 5_184_000) for number in range(100_000)]
    clock = time.process_time()
    assert plan(rule, files, NOW)
    assert 0.8 > time.process_time() - clock
