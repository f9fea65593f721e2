"""Not fighting: when something keeps undoing a repair, it is made less and less often."""

import math
from collections import deque
from dataclasses import dataclass, field

_WINDOW_S = 60.0
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0


@dataclass
class _Trouble:
    """A path that is repaired. With a `delay_s` it is held back; then `refused` says that it still needs a repair."""

    repairs: deque[float] = field(default_factory=deque)
    delay_s: float = 0.0
    until: float = 0.0
    refused: bool = False


class Backoff:
    """Counts the repairs of each path. Times are of a monotonic clock, in seconds.

    After `limit` repairs of one path within a minute the next waits a second, the one after that two, and so on up to a
    minute. A path that needed no repair for a minute after its wait is forgotten.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._troubles: dict[str, _Trouble] = {}

    def allow(self, path: str, now: float) -> bool:
        """Whether the path may be repaired now; if so, that counts as a repair."""
        trouble = self._troubles.setdefault(path, _Trouble())
        while trouble.repairs and trouble.repairs[0] <= now - _WINDOW_S:
            trouble.repairs.popleft()
        if not trouble.delay_s and len(trouble.repairs) < self.limit:
            trouble.repairs.append(now)
            return True
        allowed = bool(trouble.delay_s) and now >= trouble.until
        if allowed or not trouble.delay_s:
            trouble.delay_s = min(2 * trouble.delay_s, _LONGEST_DELAY_S) or _FIRST_DELAY_S
            trouble.until = now + trouble.delay_s
        trouble.refused = not allowed
        return allowed

    def next_due(self) -> float:
        """When the first path that was refused may be repaired; infinity when none was."""
        return min((trouble.until for trouble in self._troubles.values() if trouble.refused), default=math.inf)

    def due(self, now: float) -> list[str]:
        """The paths that were refused and may be repaired now. Each is named once: who asks must look at it."""
        found = [path for path, trouble in self._troubles.items() if trouble.refused and trouble.until <= now]
        for path in found:
            self._troubles[path].refused = False
        return found

    def calmed(self, now: float) -> list[str]:
        """Forget the paths that have been quiet for long enough; hand back those that were held back."""
        quiet = [path for path, trouble in self._troubles.items() if now >= _WINDOW_S + _last(trouble)]
        return [path for path in quiet if self._troubles.pop(path).delay_s]


def _last(trouble: _Trouble) -> float:
    if trouble.delay_s:
        return math.inf if trouble.refused else trouble.until
    return trouble.repairs[-1]
