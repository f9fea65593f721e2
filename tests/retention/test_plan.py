"""Retention of a directory: what goes, why, and never more than it takes."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.retention.plan import Removal, newest, plan
from symbiont_datad.retention.rules import AgeBy, Rule
from symbiont_datad.retention.units import Unit, units_of
from tests.retention.making import DAY, ENTRIES, NOW, RULES, entry, paths, unit


def test_age_removes_what_is_older_and_says_how_old() -> None:
    """A file over the age goes, one just under it stays, and the reason tells both numbers."""
    rule = Rule("cache", "c", max_age_s=30 * DAY)
    files = [unit("old", 41 * DAY), unit("edge", 30 * DAY - 1), unit("new")]
    assert [Removal(unit("old", 41 * DAY), "not changed for 41d, over 30d")] == plan(rule, files, NOW)


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (AgeBy.WRITTEN, "not changed for 60d, over 30d"),
        (AgeBy.READ, "not read for 50d, over 30d"),
        (AgeBy.USED, "not used for 50d, over 30d"),
        (AgeBy.NAME, "its day ended 42d 11h ago, over 30d"),
    ],
)
def test_the_age_counts_from_the_chosen_time(by: AgeBy, reason: str) -> None:
    """Written, read, either, or the day in the name: the rule says which, and so does the reason."""
    rule = Rule("history", "h", max_age_s=30 * DAY, age_by=by)
    units = units_of(rule, [entry("h/2026-10-06/a", 60 * DAY, read_s=50 * DAY)])
    assert [reason] == [removal.reason for removal in plan(rule, units, NOW)]


def test_only_the_name_right_below_tells_the_day() -> None:
    """A day further down is that of something else."""
    rule = Rule("history", "h", age_by=AgeBy.NAME)
    (one,) = units_of(rule, [entry("h/sub/2026-10-06/a", 60 * DAY)])
    assert int((NOW - 60 * DAY) * 1e9) == one.at_ns


@pytest.mark.parametrize(("written_s", "read_s", "used_s"), [(60, 50, 50), (50, 60, 50), (50, 50, 50)])
def test_used_is_written_or_read(written_s: float, read_s: float, used_s: float) -> None:
    """Whichever was later."""
    (one,) = units_of(Rule("c", "c", age_by=AgeBy.USED), [entry("c/a", written_s, read_s=read_s)])
    assert int((NOW - used_s) * 1e9) == one.at_ns


def test_caps_take_the_oldest_and_no_more() -> None:
    """Two of four files must go to meet the cap: the two oldest, with the cap in the reason."""
    files = [unit("d", 1, 400 << 20), unit("a", 4, 400 << 20), unit("c", 2, 400 << 20), unit("b", 3, 400 << 20)]
    by_bytes = plan(Rule("cache", "c", max_bytes=1 << 30), files, NOW)
    assert [("a", "cache over 1 GiB, least recently changed"), ("b", "cache over 1 GiB, least recently changed")] == [
        (removal.unit.path, removal.reason) for removal in by_bytes
    ]
    by_files = plan(Rule("cache", "c", max_files=3, age_by=AgeBy.USED), files, NOW)
    assert [("a", "cache over 3 files, least recently used")] == [(one.unit.path, one.reason) for one in by_files]


def test_ages_are_told_to_the_hour() -> None:
    """Of less than an hour to the second, each its own."""
    ages = (90 * 60, 3600, 3599, 20, 10)
    found = plan(Rule("c", "c", max_age_s=5.0), [unit(str(age), age) for age in ages], NOW)
    assert ["1h", "1h", "59m 59s", "20 s", "10 s"] == [
        one.reason.split(",")[0].removeprefix("not changed for ") for one in found
    ]


@pytest.mark.parametrize(
    ("limits", "sizes", "expected"),
    [
        ({"max_bytes": 300}, (100, 100, 100), []),
        ({"max_bytes": 299}, (100, 100, 100), [("0", "c over 299 B, least recently changed")]),
        ({"max_bytes": 200}, (100, 100, 100), [("0", "c over 200 B, least recently changed")]),
        ({"max_bytes": 199}, (1, 100, 100), [(n, "c over 199 B, least recently changed") for n in "01"]),
        ({"max_bytes": 0}, (1, 1), [("0", "c over 0 B, least recently changed")]),
        ({"max_files": 2}, (0, 0), []),
        ({"max_files": 1}, (0, 0), [("0", "c over 1 files, least recently changed")]),
        ({"max_files": 2, "whole": True}, (1, 1, 1), [("0", "c over 2 directories, least recently changed")]),
        ({"max_files": 2, "max_bytes": 150, "age_by": AgeBy.NAME}, (0, 100, 100, 100),
         [("0", "c over 2 files, of the earliest days"), ("1", "c over 2 files, of the earliest days"),
          ("2", "c over 150 B, of the earliest days")]),
        ({"max_age_s": 0.0}, (1,), [("0", "not changed for 1 s, over 0s")]),
        ({"max_age_s": 1.0}, (1,), []),
    ],
)  # fmt: skip
def test_what_just_meets_a_bound_stays(
    limits: dict[str, Any], sizes: tuple[int, ...], expected: list[tuple[str, str]]
) -> None:
    """By size, by number and by age: files that are called 0, 1, … and the last of which is a second old."""
    files = [unit(str(number), len(sizes) - number, size) for number, size in enumerate(sizes)]
    found = plan(replace(Rule("c", "c"), **limits), files, NOW)
    assert expected == [(one.unit.path, one.reason) for one in found]


def test_ties_go_by_path() -> None:
    """Of files of one time the last by name is the newest."""
    files = [unit("b"), unit("c"), unit("a")]
    assert newest(files) == unit("c")
    assert newest([]) is None
    assert ["a", "b"] == paths(plan(Rule("c", "c", max_files=1), files, NOW))


def test_age_comes_first_and_counts_for_the_caps() -> None:
    """What age removes is no longer there when the caps are looked at."""
    rule = Rule("cache", "c", max_age_s=DAY, max_files=2)
    assert ["old"] == paths(plan(rule, [unit("old", 2 * DAY), unit("a", 9), unit("b", 8)], NOW))


def test_an_empty_file_frees_no_bytes() -> None:
    """To meet a cap on bytes no empty file is removed, however old."""
    files = [unit("empty", 9, 0), unit("full", 2), unit("new", 1, 10)]
    assert ["full"] == paths(plan(Rule("c", "c", max_bytes=50), files, NOW))


def test_protected_files_stay_and_count() -> None:
    """A file that is open can't go, so another goes in its place; nor does age take it."""
    files = [unit("open", 9 * DAY), unit("a", 2), unit("b", 1)]
    assert ["a"] == paths(plan(Rule("c", "c", max_files=2), files, NOW, protected={"open"}))
    assert [] == plan(Rule("c", "c", max_age_s=DAY), files, NOW, protected={"open"})


def test_a_rule_without_bounds_removes_nothing() -> None:
    """Unset is without a bound."""
    assert [] == plan(Rule("c", "c"), [unit("a", 1e9)], NOW)


def test_no_cap_takes_the_newest() -> None:
    """However small the caps are, the newest file stays; its age may still take it, unless the rule says no."""
    files = [unit("a", 3), unit("b", 2)]
    assert ["a"] == paths(plan(Rule("c", "c", max_files=0, max_bytes=0), files, NOW))
    assert ["a", "b"] == paths(plan(Rule("c", "c", max_age_s=1), files, NOW))
    assert ["a"] == paths(plan(Rule("c", "c", max_age_s=1, keep_newest=True), files, NOW))
    newer = [*files, unit("open", 9 * DAY)]
    assert ["a"] == paths(plan(Rule("c", "c", max_age_s=1, keep_newest=True), newer, NOW, protected={"open"}))


def test_a_directory_goes_whole_and_counts_as_one() -> None:
    """As old as its newest file: a day with one new file stays whole, and three days are three."""
    rule = Rule("history", "h", max_age_s=30 * DAY, whole=True)
    entries = [entry("h/old/a", 40 * DAY), entry("h/old/b/c", 31 * DAY), entry("h/mixed/a", 40 * DAY),
               entry("h/mixed/new", DAY), entry("h/loose", 50 * DAY)]  # fmt: skip
    removals = plan(rule, units_of(rule, entries), NOW)
    assert [("h/loose", 1), ("h/old", 2)] == [(one.unit.path, len(one.unit.members)) for one in removals]
    assert [False, True] == [one.unit.whole for one in removals]
    assert not any(one.whole for one in units_of(Rule("history", "h"), entries))
    counted = Rule("history", "h", max_files=2, whole=True)
    assert ["h/loose"] == paths(plan(counted, units_of(counted, entries), NOW))


PROTECTED = st.sets(st.text("abcxyz", min_size=1, max_size=2), max_size=4)


@settings(deadline=None)
@given(rule=RULES, files=ENTRIES, protected=PROTECTED, data=st.data())
def test_a_plan_holds_what_it_promises(
    rule: Rule, files: list[Entry], protected: set[str], data: st.DataObject
) -> None:
    """Afterwards every bound is met as far as what stays anyhow allows, a second plan is empty, and any order of the
    same files gives the same plan.
    """
    units = units_of(rule, files)
    removals = plan(rule, units, NOW, protected=protected)
    gone = set(paths(removals))
    assert len(gone) == len(removals)
    left = [one for one in units if one.path not in gone]
    last = newest(units)
    may_go = [one for one in left if one.path not in protected and one is not last]
    assert not may_go or rule.max_files is None or len(left) <= rule.max_files
    assert rule.max_bytes is None or sum(one.size for one in left) <= rule.max_bytes or not any(o.size for o in may_go)
    assert rule.max_age_s is None or all(one.at_ns >= int((NOW - rule.max_age_s) * 1e9) for one in may_go)
    assert [] == plan(rule, left, NOW, protected={*protected, *(one.path for one in left if one is last)})
    shuffled = units_of(rule, data.draw(st.permutations(files)))
    same = plan(rule, shuffled, NOW, protected=protected)
    assert [(one.unit.path, one.reason) for one in removals] == [(one.unit.path, one.reason) for one in same]


@settings(deadline=None)
@given(rule=RULES, files=ENTRIES, protected=PROTECTED)
def test_what_must_stay_stays(rule: Rule, files: list[Entry], protected: set[str]) -> None:
    """Protected units never go, the newest goes by no cap, and every file is in exactly one unit that goes or stays."""
    units = units_of(rule, files)
    assert sorted(files) == sorted(member for one in units for member in one.members)
    removals = plan(rule, units, NOW, protected=protected)
    assert not protected & set(paths(removals))
    last = newest(units)
    by_age = [removal for removal in removals if removal.unit is last]
    assert not by_age or (rule.max_age_s is not None and not rule.keep_newest and "over" in by_age[0].reason)
    assert all(removal.unit in units for removal in removals)


@settings(deadline=None)
@given(
    files=ENTRIES,
    by=st.sampled_from(AgeBy),
    whole=st.booleans(),
    max_bytes=st.none() | st.integers(0, 600),
    max_files=st.none() | st.integers(0, 20),
)
def test_caps_never_take_more_than_needed(
    files: list[Entry], by: AgeBy, whole: bool, max_bytes: int | None, max_files: int | None
) -> None:
    """Without the last removal a cap would still be exceeded, and what stays is newer than what goes."""
    rule = Rule("rule", "", max_bytes=max_bytes, max_files=max_files, age_by=by, whole=whole)
    units = units_of(rule, files)
    removals = plan(rule, units, NOW)
    if not removals:
        return
    gone = set(paths(removals))
    left = [one for one in units if one.path not in gone]
    assert left
    last = removals[-1].unit
    too_many = max_files is not None and len(left) + 1 > max_files
    too_large = max_bytes is not None and sum(one.size for one in left) + last.size > max_bytes
    assert too_many or too_large
    newest_gone = max((one.unit.at_ns, one.unit.path) for one in removals)
    assert all((one.at_ns, one.path) > newest_gone for one in left if one.size)


@pytest.mark.parametrize("rule", [Rule("c", "c", max_age_s=30 * DAY, max_bytes=1 << 20), Rule("c", "c", max_files=10)])
def test_a_plan_of_many_files_takes_no_square_of_their_time(rule: Rule) -> None:
    """A plan of 100,000 files takes a few times as long as to sort them; their square would take thousands."""
    files = [entry(f"c/{number * 7919 % 100_003:064x}", number * 7919 % 5_184_000) for number in range(100_000)]
    clock = time.process_time()
    assert sorted(files, key=lambda one: (one.path, one.size))
    sorted_s = time.process_time() - clock
    clock = time.process_time()
    units: list[Unit] = units_of(rule, files)
    assert plan(rule, units, NOW)
    assert 40 * sorted_s > time.process_time() - clock
