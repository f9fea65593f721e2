"""Days in names: `history/2026-11-23/`. Pure.

A day is UTC's, as all times of the daemon are. Agents that name the days by the clock of their own zone find theirs as
well: `days_ahead` has the days of both.
"""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo

_DAY = re.compile(r"(?<![0-9])([0-9]{4})-?([0-9]{2})-?([0-9]{2})(?![0-9])")
_DAY_NS = 86_400 * 10**9
_EPOCH = date(1970, 1, 1)


def end_of_day(name: str) -> int | None:
    """When the first day that a name tells is over, in nanoseconds since the epoch (UTC); None when it tells none."""
    for found in _DAY.finditer(name):
        try:
            day = date(*map(int, found.groups()))
        except ValueError:  # the thirteenth month
            continue
        return ((day - _EPOCH).days + 1) * _DAY_NS
    return None


def is_day(name: str) -> bool:
    """Whether a name is that of a day and nothing else, as `days_ahead` spells it."""
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def days_ahead(now: float, zone: tzinfo | None = None) -> tuple[str, ...]:
    """Today and tomorrow, by UTC and by another `zone`: two names, or three where the zone's date is another one.

    `now` in seconds since the epoch.
    """
    todays = {datetime.fromtimestamp(now, at).date() for at in (UTC, zone or UTC)}
    return tuple(sorted({(day + timedelta(days=ahead)).isoformat() for day in todays for ahead in (0, 1)}))
