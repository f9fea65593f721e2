"""A repair that something keeps undoing is made less and less often, and the guard doesn't spin meanwhile."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.guard.backoff import Backoff


def test_the_limit_of_repairs_is_allowed_at_once() -> None:
    """Up to the limit, repairs of one path within a minute are not held back."""
    backoff = Backoff(3)
    assert [True, True, True, False] == [backoff.allow("logs", 100.0 + turn) for turn in range(4)]


def test_paths_are_counted_apart() -> None:
    """What is undone in one place does not slow down another."""
    backoff = Backoff(1)
    assert [True, True, False, False] == [backoff.allow(path, 0.0) for path in ("a", "b", "a", "b")]


def test_old_repairs_do_not_count() -> None:
    """A repair a minute for ever is no fight."""
    backoff = Backoff(1)
    assert all(backoff.allow("logs", 60.0 * turn) for turn in range(100))


def test_waits_double_up_to_a_minute() -> None:
    """The repairs that are made against something that always undoes them lie 1, 2, 4 … 60 seconds apart."""
    backoff, now, at = Backoff(1), 0.0, []
    for _ in range(10):
        if backoff.allow("logs", now):
            at.append(now)
        else:
            now = backoff.next_due()
            assert ["logs"] == backoff.due(now)
            assert backoff.allow("logs", now)
            at.append(now)
    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == [after - before for before, after in pairwise(at)]


def test_a_refused_path_is_due_once() -> None:
    """Once its wait is over it is named once: a path that is fine by then must not keep the guard turning."""
    backoff = Backoff(1)
    backoff.allow("logs", 0.0)
    assert not backoff.allow("logs", 0.0)
    assert (1.0, []) == (backoff.next_due(), backoff.due(0.9))
    assert ["logs"] == backoff.due(1.0)
    assert (math.inf, []) == (backoff.next_due(), backoff.due(1.0))


def test_what_is_quiet_is_forgotten_and_said_once() -> None:
    """A path that was held back is handed back when it was well for a minute after its wait, and starts anew."""
    backoff = Backoff(1)
    backoff.allow("logs", 0.0)
    backoff.allow("logs", 0.0)
    backoff.due(1.0)
    assert [] == backoff.calmed(60.9)
    assert ["logs"] == backoff.calmed(61.0)
    assert [] == backoff.calmed(61.0)
    assert backoff.allow("logs", 61.0)


def test_a_path_that_waits_is_not_forgotten() -> None:
    """As long as a refused repair was not looked at again, the path stays in mind, however late that is."""
    backoff = Backoff(1)
    backoff.allow("logs", 0.0)
    backoff.allow("logs", 0.0)
    assert [] == backoff.calmed(1e6)
    assert ["logs"] == backoff.due(1e6)


def test_what_never_was_held_back_is_forgotten_silently() -> None:
    """Nobody is told of a path that was repaired now and then."""
    backoff = Backoff(5)
    backoff.allow("logs", 0.0)
    assert [] == backoff.calmed(60.0)


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.sampled_from(("allow", "due", "calm"))), max_size=200
)


@given(steps, st.integers(1, 5))
def test_no_order_of_calls_breaks_it(steps: list[tuple[str, float, str]], limit: int) -> None:
    """Whatever happens: few repairs in any minute, and nothing is due that was not refused."""
    backoff, now = Backoff(limit), 0.0
    refused: set[str] = set()
    repairs: dict[str, list[float]] = {"a": [], "b": []}
    for path, pause, call in steps:
        now += pause
        if call == "allow":
            if backoff.allow(path, now):
                refused.discard(path)
                repairs[path] = [at for at in repairs[path] if at > now - 60] + [now]
                # The limit, and those that the waits of 1, 2, 4, 8 and 16 s (together 31 s) and 32 s let through.
                assert len(repairs[path]) <= limit + 6
            else:
                refused.add(path)
        elif call == "due":
            due = backoff.due(now)
            assert set(due) <= refused
            refused -= set(due)
        else:
            assert not refused & set(backoff.calmed(now))
        assert (backoff.next_due() < math.inf) == bool(refused)
