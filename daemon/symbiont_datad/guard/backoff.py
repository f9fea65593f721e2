"""Not fighting: when something keeps undoing a repair, it is made less and less often."""

from collections import deque
from dataclasses import dataclass, field

_WINDOW_S = 60.0
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0


@dataclass
class _Trouble:
    repairs: deque[float] = field(default_factory=deque)
    delay_s: float = 0.0
    until: float = 0.0


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
        if trouble.delay_s:
            if now < trouble.until:
                return False
            trouble.delay_s = min(2 * trouble.delay_s, _LONGEST_DELAY_S)
            trouble.until = now + trouble.delay_s
            return True
        if len(trouble.repairs) < self.limit:
            trouble.repairs.append(now)
            return True
        trouble.delay_s = _FIRST_DELAY_S
        trouble.until = now + trouble.delay_s
        return False

    def waiting(self) -> dict[str, float]:
        """The paths that are held back, each with the time until when."""
        return {path: trouble.until for path, trouble in self._troubles.items() if trouble.delay_s}

    def calmed(self, now: float) -> list[str]:
        """Forget the paths that have been quiet for long enough; hand back those that were held back."""
        quiet = [
            path
            for path, trouble in self._troubles.items()
            if (now >= trouble.until + _WINDOW_S if trouble.delay_s else trouble.repairs[-1] <= now - _WINDOW_S)
        ]
        return [path for path in quiet if self._troubles.pop(path).delay_s]
