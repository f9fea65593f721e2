"""What goes from the quarantine: by its time, by its age, by the size of all of it, and never the newest."""

from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.retention.quarantine import Expiry, Held, QuarantineLimits, expiries
from tests.retention.making import DAY, NOW


def cell(name: str, age_s: float, left_s: float | None = None, size: int = 100) -> Held:
    """A cell that is `age_s` old; one that can be undone has `left_s` to go."""
    return Held(name, NOW - age_s, None if left_s is None else NOW + left_s, size)


def names(found: list[Expiry]) -> list[str]:
    """What goes."""
    return [one.name for one in found]


def test_what_can_be_undone_goes_when_its_time_is_over() -> None:
    """Whatever the limits say, and be it the newest; the reason says how old it was."""
    found = expiries([cell("over", DAY, 0.0), cell("not", DAY, 1.0)], QuarantineLimits(max_age_s=1.0), NOW)
    assert [Expiry("over", "undo_window", "1d old: its time is over")] == found


def test_doubtful_things_go_by_age_but_for_the_newest() -> None:
    """Of two old ones the newer stays; without a bound both do."""
    held = [cell("b", 40 * DAY), cell("a", 41 * DAY)]
    found = expiries(held, QuarantineLimits(max_age_s=30 * DAY), NOW)
    assert [Expiry("a", "quarantine", "41d old, over 30d")] == found
    assert [] == expiries(held, QuarantineLimits(), NOW)


def test_over_its_size_the_oldest_goes_what_can_be_undone_first() -> None:
    """Until the size is met, and no more; empty ones free nothing."""
    held = [cell("d1", 3 * DAY), cell("d2", 2 * DAY), cell("d3", DAY / 2), cell("u1", 3, 9), cell("u0", 4, 9, 0),
            cell("u2", 2, 9), cell("u3", 1, 9), cell("d4", 0)]  # fmt: skip
    assert ["u1"] == names(expiries(held, QuarantineLimits(max_bytes=600), NOW))
    assert ["u1", "u2", "d1", "d2"] == names(expiries(held, QuarantineLimits(max_bytes=0), NOW))
    reason = "the quarantine is over 699 B, and this is the oldest in it"
    assert [Expiry("u1", "quarantine", reason)] == expiries(held, QuarantineLimits(max_bytes=699), NOW)
    assert [] == expiries(held, QuarantineLimits(max_bytes=700), NOW)


def test_what_is_just_within_the_limits_stays() -> None:
    """A cell that is as old as it may be; and of those that came within the last day none goes by size."""
    held = [cell("a", 30 * DAY), cell("b", 30 * DAY - 1), cell("c", DAY), cell("d", DAY + 1), cell("e", 1)]
    assert [] == expiries(held, QuarantineLimits(max_age_s=30 * DAY), NOW)
    assert ["a", "b", "d"] == names(expiries(held, QuarantineLimits(max_bytes=0), NOW))
    assert ["x"] == names(expiries([cell("x", DAY + 1), cell("y", DAY + 1)], QuarantineLimits(max_bytes=0), NOW))


HELD = st.lists(
    st.builds(
        cell,
        name=st.text("abc", min_size=1, max_size=3),
        age_s=st.integers(0, 100).map(float),
        left_s=st.none() | st.integers(-50, 50).map(float),
        size=st.integers(0, 50),
    ),
    max_size=12,
    unique_by=lambda one: one.name,
)
LIMITS = st.builds(
    QuarantineLimits, st.none() | st.integers(1, 100).map(float), st.none() | st.integers(1, 300)
)  # fmt: skip


@given(HELD, LIMITS)
def test_the_newest_always_stays_and_no_more_goes_than_needed(held: list[Held], limits: QuarantineLimits) -> None:
    """Of each kind the newest stays unless its time is over; without the last one that size took, it would be over."""
    found = expiries(held, limits, NOW)
    gone = set(names(found))
    assert len(gone) == len(found)
    for kind in ([one for one in held if one.until is None], [one for one in held if one.until is not None]):
        if kind:
            last = max(kind, key=lambda one: (one.at, one.name))
            assert last.name not in gone or (last.until is not None and last.until <= NOW)
    assert {one.name for one in held if one.until is not None and one.until <= NOW} <= gone
    by_size = [one for one in found if "is over" in one.reason and one.rule == "quarantine"]
    if by_size:
        assert limits.max_bytes is not None
        left = sum(one.bytes for one in held if one.name not in gone)
        last_gone = next(one for one in held if one.name == by_size[-1].name)
        assert left + last_gone.bytes > limits.max_bytes
    assert [] == expiries([one for one in held if one.name not in gone], limits, NOW)
