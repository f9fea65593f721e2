"""Rotation of the runtime's backups: the newest stay, and the last good state of an agent always does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.retention.backups import Backup, rotate


def backup(seconds: int, pattern: str = "a.json.backup.{}.json") -> Backup:
    """A backup of agent `a`."""
    return Backup("a", seconds, Entry(pattern.format(seconds), 0o100644, 10, 0, 0, seconds, 1, 0, 0))


class Asked:
    """Answers whether a backup parses, and remembers what it was asked."""

    def __init__(self, *whole: int) -> None:
        self.whole = whole
        self.asked: list[int] = []

    def __call__(self, one: Backup) -> bool:
        self.asked.append(one.seconds)
        return one.seconds in self.whole


def gone(
    backups: list[Backup], keep: int, parses: Asked, context_parses: bool = False, broken_at: float | None = None
) -> list[int]:
    """The times of the backups that a rotation removes."""
    rotated = rotate(backups, keep, context_parses=context_parses, parses=parses, broken_at=broken_at)
    return [one.backup.seconds for one in rotated]


def test_nothing_goes_and_nothing_is_read_without_a_surplus() -> None:
    """With no more backups than are kept, none is even looked at."""
    parses = Asked()
    assert [] == gone([backup(n) for n in range(3)], 3, parses)
    assert [] == parses.asked


def test_the_newest_stay_when_the_context_is_whole() -> None:
    """A whole context makes every surplus backup one, without reading any."""
    parses = Asked()
    assert [2, 1] == gone([backup(n) for n in (3, 1, 5, 2, 4)], 3, parses, context_parses=True)
    assert [] == parses.asked


def test_both_patterns_count_together() -> None:
    """An agent that was saved in both modes still has no more than `keep` backups."""
    mixed = [backup(1), backup(2, "a.backup.{}.json"), backup(3), backup(4, "a.backup.{}.json")]
    assert [2, 1] == gone(mixed, 2, Asked(4))


@pytest.mark.parametrize("pattern", ["a.json.backup.{}.json", "state/agents/a.backup.{}.json"])
def test_a_backup_knows_what_its_name_says(pattern: str) -> None:
    """Wherever the file lies."""
    assert ("a", 7) == (backup(7, pattern).name.agent, backup(7, pattern).name.seconds)


def test_ties_go_by_name() -> None:
    """Of two backups of one second the last by its path counts as the newer one."""
    one, two = backup(1), backup(1, "a.backup.{}.json")
    for both in ([one, two], [two, one]):
        assert [two] == [gone.backup for gone in rotate(both, 1, context_parses=True, parses=Asked())]


def test_reasons_tell_the_numbers() -> None:
    """The reason says how many there are, how many are kept, and why none is missed."""
    (one,) = rotate([backup(1), backup(2)], 1, context_parses=True, parses=Asked())
    assert "2 backups of this agent, backup_count is 1; the context itself is whole" == one.reason
    for whole in (2, 3):
        (one, *_) = rotate([backup(n) for n in range(4)], 1, context_parses=False, parses=Asked(whole))
        assert "4 backups of this agent, backup_count is 1; a newer one is whole" == one.reason


@pytest.mark.parametrize(
    ("whole", "removed", "asked"),
    [
        pytest.param((9, 8, 1), [6, 5, 4], [9], id="the newest is whole"),
        pytest.param((7, 5), [6, 5, 4], [9, 8, 7], id="one that is kept is whole"),
        pytest.param((5, 4), [4], [9, 8, 7, 6, 5], id="only a surplus one is whole"),
        pytest.param((4,), [], [9, 8, 7, 6, 5, 4], id="only the oldest is whole"),
        pytest.param((), [], [9, 8, 7, 6, 5, 4], id="none is whole"),
    ],
)
def test_the_last_good_state_stays(whole: tuple[int, ...], removed: list[int], asked: list[int]) -> None:
    """Beside a damaged context a backup goes only if a newer one that parses remains."""
    parses = Asked(*whole)
    assert removed == gone([backup(n) for n in range(4, 10)], 3, parses)
    assert asked == parses.asked


def test_keeping_none_still_keeps_a_good_state() -> None:
    """`backup_count = 0` empties the shelf only while the context itself is whole."""
    assert [2, 1] == gone([backup(1), backup(2)], 0, Asked(), context_parses=True)
    assert [1] == gone([backup(1), backup(2)], 0, Asked(2))


@given(
    whole=st.lists(st.booleans(), max_size=12),
    keep=st.integers(0, 5),
    context_parses=st.booleans(),
)
def test_no_rotation_loses_the_newest_good_state(whole: list[bool], keep: int, context_parses: bool) -> None:
    """The newest `keep` stay, the newest good one does unless the context is good, and a second run takes nothing."""
    parses = Asked(*(n for n, good in enumerate(whole) if good))
    backups = [backup(n) for n in range(len(whole))]
    removed = set(gone(backups, keep, parses, context_parses))
    left = [one for one in backups if one.seconds not in removed]
    assert {one.seconds for one in backups[max(0, len(backups) - keep) :]} <= {one.seconds for one in left}
    if any(whole) and not context_parses:
        assert max(parses.whole) not in removed
    assert [] == gone(left, keep, parses, context_parses)


def test_backups_from_a_time_when_the_clock_was_ahead_take_nobodys_place() -> None:
    """They are older than the one that was made just before the context broke, whatever their names say."""
    backups = [backup(n) for n in (100, 5000, 5001, 5002)]
    assert [5000] == gone(backups, 3, Asked(100, 5000, 5001, 5002), broken_at=100.2)
    assert [100] == gone(backups, 3, Asked(100, 5000, 5001, 5002))
