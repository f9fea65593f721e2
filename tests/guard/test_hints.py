"""Hints from many threads become one batch for one thread; what can't be told is told as everything."""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.guard.hints import Batch, Hints


def test_hints_are_merged() -> None:
    """One path is in a batch once, and deep when any hint of it was."""
    hints = Hints()
    for path, deep in (("a", True), ("a", False), ("b", False)):
        hints.add(path, deep)
    assert Batch({"a": True, "b": False}) == hints.take(0)
    assert Batch() == hints.take(0)


def test_too_many_paths_become_everything() -> None:
    """A thousand paths are told one by one; one more, and the batch says to look at everything."""
    hints = Hints()
    for number in range(1000):
        hints.add(str(number))
    hints.add("7")
    assert 1000 == len((batch := hints.take(0)).paths)
    assert not batch.everything
    for number in range(1001):
        hints.add(str(number))
    assert Batch({}, everything=True) == hints.take(0)


def test_overflow_is_kept_until_taken() -> None:
    """That the kernel lost events is in the batch, whatever came after it, and not in the next."""
    hints = Hints()
    hints.add("a")
    hints.add_everything(overflowed=True)
    hints.add_everything()
    hints.add("b")
    assert Batch({}, everything=True, overflowed=True) == hints.take(0)
    assert Batch() == hints.take(0)


def test_take_waits_and_wakes() -> None:
    """A take that waits ends with the first hint, with `wake`, or when its time is up."""
    hints = Hints()
    begun = time.monotonic()
    assert not hints.take(0.05)
    assert 0.04 < time.monotonic() - begun < 2
    for act in (lambda: hints.add("a"), hints.wake):
        timer = threading.Timer(0.05, act)
        timer.start()
        begun = time.monotonic()
        hints.take(30)
        assert time.monotonic() - begun < 5
        timer.join()


def test_nothing_is_lost_between_threads() -> None:
    """Of what four threads add while one takes, every path arrives."""
    hints = Hints()
    names = [[f"{thread}/{number}" for number in range(2000)] for thread in range(4)]

    def add(part: list[str]) -> None:
        for name in part:
            hints.add(name)

    threads = [threading.Thread(target=add, args=(part,)) for part in names]
    for thread in threads:
        thread.start()
    batches: list[Batch] = []
    while any(thread.is_alive() for thread in threads):
        batches.append(hints.take(0.001))
    batches.append(hints.take(0))
    seen = {path for batch in batches for path in batch.paths}
    everything = any(batch.everything for batch in batches)
    assert everything or seen == {name for part in names for name in part}


@given(st.lists(st.one_of(st.tuples(st.sampled_from("abc"), st.booleans()), st.just(None), st.booleans())))
def test_a_batch_says_all_that_was_added(calls: list[object]) -> None:
    """A batch covers each hint, as its own path or as everything."""
    hints = Hints()
    for call in calls:
        match call:
            case (str(path), bool(deep)):
                hints.add(path, deep)
            case bool(overflowed):
                hints.add_everything(overflowed=overflowed)
            case _:
                hints.wake()
    batch = hints.take(0)
    paths = [call for call in calls if isinstance(call, tuple)]
    assert batch.everything == any(isinstance(call, bool) for call in calls)
    assert batch.overflowed == any(call is True for call in calls)
    assert batch.everything or all(path in batch.paths and batch.paths[path] >= deep for path, deep in paths)
