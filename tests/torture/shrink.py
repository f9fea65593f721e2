"""Of a list that fails, a short one that still fails (delta debugging, Zeller and Hildebrandt 2002). Pure."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrunk(items: Sequence[T], fails: Callable[[Sequence[T]], bool], tries: int) -> list[T]:
    """Take out halves, quarters, and so on down to single items, as long as what is left fails; at most `tries` times.

    With enough tries nothing more can go alone. `items` are known to fail, and are not tried themselves.
    """
    left, parts = list(items), 2
    while len(left) > 1 and tries > 0:
        size = -(-len(left) // parts)
        for begin in range(0, len(left), size):
            if tries == 0:
                return left
            tries -= 1
            without = left[:begin] + left[begin + size :]
            if without and fails(without):
                left, parts = without, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(left))
    return left
