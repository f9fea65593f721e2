"""When jobs run: by an interval or by cron, soon after they were asked for, and after a run that was missed. Pure.

What chance adds (jitter) is added in one place, `Trigger`.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

if TYPE_CHECKING:
    from symbiont_datad.settings import Settings

_PATIENCE = 10
"""How many times longer than asked for a run waits at most while it is put off again and again."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """When one job runs: every `every_s` seconds, or by a five-field `cron` expression in local time.

    Each run waits up to `jitter_s` seconds longer, at random, so that many daemons don't do the same at once. Of
    `heavy` jobs one runs at a time, and the others don't wait for it.
    """

    job: str
    every_s: float | None = None
    cron: str | None = None
    jitter_s: float = 0.0
    heavy: bool = False

    @property
    def executor(self) -> str:
        """Which of the schedule's threads run the job."""
        return "heavy" if self.heavy else "default"

    def next_run(self, now: datetime) -> datetime:
        """The first time after `now` that the table asks for, given that the job ran just now; jitter not counted."""
        now = now.astimezone(UTC)  # arithmetic on local times goes wrong where the clock is set back
        if self.cron is not None:
            found = (_next_match(trigger, now + _TICK, self.cron) for trigger in _cron_triggers(self.cron))
            return min((at for at in found if at is not None), default=now + _NEVER)
        return now + timedelta(seconds=self.every_s or 0.0)

    def longest_gap_s(self, now: datetime) -> float:
        """The longest time that passes between two of the next runs, in seconds; jitter not counted."""
        if self.every_s is not None:
            return self.every_s
        times = [self.next_run(now)]
        for _ in range(_GAPS):
            times.append(self.next_run(times[-1]))
        return max((after - before).total_seconds() for before, after in pairwise(times))

    def due(self, last_success: float | None, now: datetime) -> datetime:
        """When the job should run next, given when it last did well (seconds since the epoch).

        A run that was missed is due now, once; so is the first one of a job that never ran. A success in the future
        tells nothing but that the clock was wrong: to wait from now on, at each start, might mean to wait for ever.
        """
        if last_success is None or last_success > now.timestamp():
            return now
        return max(now, self.next_run(datetime.fromtimestamp(last_success, UTC)))


_GAPS = 10  # a week of working days has its longest gap among them
_TICK = timedelta(microseconds=1)
_NEVER = timedelta(days=36500)
_MONTHS = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@lru_cache(maxsize=16)
def _cron_triggers(expression: str) -> tuple[CronTrigger, ...]:
    """Triggers that together mean what crontab(5) says; APScheduler reads several things differently.

    It counts weekdays from Monday, knows no steps between names, refuses steps that are larger than the range, and
    wants the day of the month and the weekday to match where cron wants one of them.
    """
    minute, hour, day, month, weekday = expression.lower().split()
    times = {
        "minute": _listed(minute, 0, 59),
        "hour": _listed(hour, 0, 23),
        "month": _listed(month, 1, 12, _MONTHS),
    }
    days = "*" if day == "*" else _listed(day, 1, 31)
    numbers = [] if weekday == "*" else _listed(weekday, 0, 7, _WEEKDAYS).split(",")
    weekdays = ",".join(sorted({_WEEKDAYS[int(number) % 7] for number in numbers})) or "*"
    if day.startswith("*") or weekday.startswith("*"):
        return (CronTrigger(**times, day=days, day_of_week=weekdays),)
    return CronTrigger(**times, day=days), CronTrigger(**times, day_of_week=weekdays)


def _next_match(trigger: CronTrigger, now: datetime, expression: str) -> datetime | None:
    """The first match at or after `now`, in UTC; None when there is none.

    A time of day that summer time skips is made up for an hour later; one that comes twice counts the first time,
    unless the job runs every hour anyway (as cron(8) of Debian says under "NOTES").
    """
    found: datetime | None = trigger.get_next_fire_time(None, now)
    while found is not None and found.fold and not expression.split()[1].startswith("*"):
        found = trigger.get_next_fire_time(None, found.astimezone(UTC) + _TICK)
    return found.astimezone(UTC) if found is not None else None


def _listed(field: str, low: int, high: int, names: tuple[str, ...] = ()) -> str:
    """One field as the list of its numbers: `1,3,5` for `1-5/2` or `mon-fri/2`."""

    def number(text: str) -> int:
        return names.index(text) if text in names else int(text)

    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        lowest = low if first == "*" else number(first)
        end = number(last) if last else high if first == "*" or step else lowest
        found.update(range(lowest, end + 1, int(step or 1)))
    return ",".join(map(str, sorted(found)))


class Trigger(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """A timetable as APScheduler wants it: the next run counts from now, so that missed ones are never listed."""

    def __init__(self, table: Timetable) -> None:
        self.table = table

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next time strictly after now; counted from the `previous` one while that gives no catching up."""
        from_now = self.table.next_run(now)
        planned = self.table.next_run(previous) if previous is not None and self.table.cron is None else from_now
        chosen = planned if now < planned <= from_now else from_now
        return chosen + timedelta(seconds=random.uniform(0.0, self.table.jitter_s))  # noqa: S311  # a delay


@dataclass(frozen=True, slots=True)
class Soon:
    """A run that was asked for: when first, and when it is due, by the monotonic clock."""

    asked: float
    due: float


def put_off(known: Soon | None, now: float, after_s: float) -> Soon:
    """When a run is due that is asked for now, given what was asked before. Times by the monotonic clock.

    One that is due already, or hardly earlier than asked for now, stays as it is.
    """
    if known is None:
        return Soon(now, now + after_s)
    due = min(now + after_s, max(known.asked + _PATIENCE * after_s, known.due))
    return known if known.due <= now or due - known.due < max(after_s / 4, 0.1) else Soon(known.asked, due)


def timetables(settings: "Settings") -> tuple[Timetable, ...]:
    """When each job runs that has a timetable."""
    jitter = settings.schedule.jitter
    heavy: dict[str, float | str] = {
        "backup": settings.backup.schedule,
        "verify": settings.backup.verify_schedule,
        "optimize": settings.vector_db.optimize_schedule,
    }
    return (
        Timetable("sweep", settings.auto_save_interval, jitter_s=jitter),
        Timetable("rotate", settings.schedule.rotation_interval, jitter_s=jitter),
        Timetable("clean", settings.schedule.retention_interval, jitter_s=jitter),
        Timetable("usage", settings.schedule.usage_interval, jitter_s=jitter),
        Timetable("vectors", settings.vector_db.metadata_interval, jitter_s=jitter),
        *(
            Timetable(name, None, when, jitter, heavy=True)
            if isinstance(when, str)
            else Timetable(name, when, None, jitter, heavy=True)
            for name, when in heavy.items()
        ),
    )
