"""Years of the daemon's timetable in seconds: summer time, leap days, clocks that are set, machines that sleep.

`DATAD_TIME_MACHINE` is the number of years of the slow tests, which go by the intervals that are the defaults when
`DATAD_TIME_MACHINE_SWEEP` is 300 (seconds between two sweeps).
"""

import os
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.archiving import AUTOSAVE, BACKUP
from symbiont_datad.jobs.context import JobSettings, Keep, job_settings
from symbiont_datad.jobs.forgetting import decided
from symbiont_datad.jobs.repository import identity
from symbiont_datad.jobs.snapshots import Named
from symbiont_datad.restic.records import Snapshot, format_time
from symbiont_datad.retention.plan import plan
from symbiont_datad.retention.units import units_of
from symbiont_datad.settings import load
from symbiont_datad.timetable import Timetable, timetables
from tests.time_machine import Machine, zone

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
YEARS = float(os.environ.get("DATAD_TIME_MACHINE", "10"))
SWEEP_S = float(os.environ.get("DATAD_TIME_MACHINE_SWEEP", "3600"))
BEGIN = datetime(2027, 1, 15, 12, tzinfo=UTC).timestamp()

SETTINGS = """
auto_save_interval = {sweep}
backup_count = 3
[schedule]
usage_interval = {sweep}
rotation_interval = {sweep}
retention_interval = "6h"
[backup]
schedule = "15 2 * * *"
verify_schedule = "0 12 29 2 *"
keep_hourly = 30
keep_daily = 14
keep_weekly = 9
keep_monthly = 25
keep_yearly = {yearly}
keep_within = "36h"
[vector_db]
metadata_interval = "12h"
optimize_schedule = "0 5 * * sun"
[retention.history]
max_age = "90d"
age_by = "name"
[retention.sessions]
max_files = 40
[retention.cache]
max_age = "30d"
max_bytes = "100KiB"
"""

CRON: dict[str, tuple[time_of_day, Callable[[date], bool]]] = {
    "backup": (time_of_day(2, 15), lambda _day: True),
    "verify": (time_of_day(12), lambda day: (day.month, day.day) == (2, 29)),
    "optimize": (time_of_day(5), lambda day: day.isoweekday() == 7),
}
"""What the settings ask for, told once more: at which time of which days."""

HEAVY_S = 3 * 90 * MINUTE
"""What a heavy job may have to wait for the others, at most."""
AGAIN_S = 2 * HEAVY_S
"""The same where its own last run began before the machine slept, and ends first."""


@dataclass(frozen=True, slots=True)
class Start:
    """One run: when it began by the wall clock and by the clock of being awake, and how often anything had happened to
    the clocks before."""

    wall: float
    awake: float
    events: int
    back: int


class World:
    """A machine with the real timetables; what its jobs make is forgotten and removed by the real rules, if at all
    (`makes`)."""

    def __init__(self, settings: JobSettings, tables: tuple[Timetable, ...], seed: int, makes: bool) -> None:
        self.settings = settings
        self.makes = makes
        self.tables = {table.job: table for table in tables}
        self.random = random.Random(seed)
        self.machine = Machine(BEGIN, self.run, self.lasts, beat_s=DAY)
        self.starts: defaultdict[str, list[Start]] = defaultdict(list)
        self.successes = dict.fromkeys(self.tables, BEGIN)
        self.events = self.back = self.kills = 0
        self.made: dict[str, list[float]] = {BACKUP: [], AUTOSAVE: []}
        self.kept: dict[str, list[Named]] = {BACKUP: [], AUTOSAVE: []}
        self.files: dict[str, Entry] = {}
        self.written: dict[str, Entry] = {}

    # What happens to the machine

    def boot(self) -> None:
        """The daemon starts, with what its ledger knows."""
        self.machine.boot(self.tables.values(), self.successes)

    def live(self, seconds: float) -> None:
        """A while without events."""
        self.machine.live(seconds)

    def sleep(self, seconds: float) -> None:
        """The machine is suspended."""
        self.events += 1
        self.machine.sleep(seconds)

    def set_clock(self, seconds: float) -> None:
        """The clock is set."""
        self.events += 1
        self.back += seconds < 0
        self.machine.set_clock(seconds)

    def restart(self, off_s: float, wrong_s: float = 0.0) -> None:
        """The daemon is killed and comes back later, with a clock that is wrong by so much."""
        self.events += 1
        self.kills += 1
        self.back += wrong_s < 0
        self.machine.kill()
        self.machine.set_clock(off_s + wrong_s)
        self.boot()

    # What jobs do

    def lasts(self, job: str) -> float:
        """Seconds."""
        return self.random.uniform(5 * MINUTE, 90 * MINUTE) if job in CRON else self.random.uniform(0.1, 20.0)

    def run(self, job: str) -> None:
        """A run of a job begins."""
        wall, number = self.machine.wall(), self.kills
        self.starts[job].append(Start(wall, self.machine.monotonic(), self.events, self.back))

        def ended() -> None:
            if number == self.kills:
                self.successes[job] = wall

        self.machine.after(0.0, ended)
        if not self.makes:
            return
        if job == "backup":
            self.snapshot(BACKUP)
        elif job == "sweep" and len(self.starts[job]) % 7 == 0:
            self.snapshot(AUTOSAVE)
        elif job == "clean":
            self.clean()

    def snapshot(self, tag: str) -> None:
        """Make one, and forget."""
        now = self.machine.wall()
        one = Snapshot(format_time(now), "0" * 64, ["/data"], hostname=identity().hostname, tags=[tag])
        self.made[tag].append(one.at.timestamp())
        decision = decided(self.settings.snapshots, [*self.kept[tag], (f"{len(self.made[tag]):064}", one)], tag, now)
        self.kept[tag] = [(kept.id, kept.snapshot) for kept in decision.keep]

    def write(self) -> None:
        """What agents leave in a day."""
        now = self.machine.wall()
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        for path, size in (
            (f"prompts/history/{day}/a.jsonl", 900),
            (f"state/sessions/{now}.json", 700),
            (f"prompts/cache/{now}.json", self.random.choice((0, 1000, 9000))),
        ):
            at = int(now * 1e9)
            self.files[path] = self.written[path] = Entry(path, 0o100644, size, at, at, at, 1, 0, 0)

    def clean(self) -> None:
        """Remove what the rules say."""
        for rule in self.settings.layout.rules:
            below = [one for one in self.files.values() if one.path.startswith(rule.prefix)]
            for removal in plan(rule, units_of(rule, below), self.machine.wall()) if below else ():
                for member in removal.unit.members:
                    del self.files[member.path]


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Makes a world of the settings above."""

    def make(sweep_s: float, yearly: int = 20, seed: int = 0, makes: bool = False) -> World:
        file = tmp_path / "datad.toml"
        file.write_text(SETTINGS.format(sweep=sweep_s, yearly=yearly))
        settings = load(file, {}, {"HOME": str(tmp_path)}).settings
        return World(job_settings(settings), timetables(settings), seed, makes)

    return make


def occurrences(job: str, where: str, begin: float, end: float) -> Iterator[float]:
    """When cron would run the job between two times: told by the calendar and the zone's table alone.

    A time that summer time skips counts as if the clock had not been set (PEP 495); of one that comes twice the
    first time counts.
    """
    at, matches = CRON[job]
    day = datetime.fromtimestamp(begin, UTC).date() - timedelta(days=2)
    while day <= datetime.fromtimestamp(end, UTC).date() + timedelta(days=2):
        moment = datetime.combine(day, at, ZoneInfo(where)).timestamp()
        if matches(day) and begin < moment <= end:
            yield moment
        day += timedelta(days=1)


# A calm life


CALM = [("Europe/Berlin", 1.0), ("America/New_York", 0.3), ("Australia/Lord_Howe", 0.3), ("Asia/Kathmandu", 0.1)]


@pytest.mark.parametrize(
    ("where", "years", "sweep_s"),
    [
        *((where, years, 4 * HOUR) for where, years in CALM),
        *(pytest.param(where, YEARS, SWEEP_S, marks=pytest.mark.slow) for where, _ in CALM[:1]),
    ],
)
def test_each_job_runs_when_it_should(
    make_world: Callable[..., World], where: str, years: float, sweep_s: float
) -> None:
    """Nothing happens to the clock but summer time: intervals are kept to the second, and cron by the calendar."""
    with zone(where):
        world = make_world(sweep_s)
        world.boot()
        world.live(round(years * 365.25) * DAY)
        end = world.machine.wall()
        for job, table in world.tables.items():
            starts = [start.wall for start in world.starts[job]]
            if table.every_s is not None:
                expected = [
                    BEGIN + number * table.every_s for number in range(1, int((end - BEGIN) / table.every_s) + 1)
                ]
                waits = 5 * MINUTE
            else:
                expected = list(occurrences(job, where, BEGIN, end - HEAVY_S))
                starts = [start for start in starts if start < end - HEAVY_S]
                waits = HEAVY_S
            assert len(expected) == pytest.approx(len(starts), abs=1 if table.every_s else 0), job
            assert all(-0.01 < begun - at < waits for at, begun in zip(expected, starts, strict=False)), job
        assert set() == {*world.machine.jumps}


# A hard life


def rough(world: World, until: float) -> Iterator[float]:
    """Weeks of sleep, clocks that are set by hours, restarts, in random order; yields for how long all was quiet."""
    chance = world.random
    while world.machine.wall() < until:
        quiet_s = chance.choice((chance.uniform(1.0, HOUR), chance.uniform(HOUR, 3 * DAY)))
        world.live(quiet_s)
        yield quiet_s
        match chance.randrange(8):
            case 0 | 1:
                world.sleep(chance.uniform(MINUTE, 16 * HOUR))
            case 2:
                world.sleep(chance.uniform(1, 5) * 7 * DAY)
            case 3:
                world.set_clock(chance.uniform(6.0, 9 * HOUR))
            case 4:
                world.set_clock(-chance.uniform(6.0, 9 * HOUR))
            case 5:
                world.restart(chance.uniform(1.0, 20 * HOUR))
            case 6:
                world.restart(chance.uniform(1, 4) * 7 * DAY)
            case _:
                world.restart(chance.uniform(10.0, HOUR), chance.uniform(-5 * HOUR, 5 * HOUR))


@pytest.mark.parametrize(
    ("years", "sweep_s"),
    [(1.5, 2 * HOUR), pytest.param(YEARS, SWEEP_S, marks=pytest.mark.slow)],
)
def test_nothing_is_missed_or_doubled_whatever_happens(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, years: float, sweep_s: float
) -> None:
    """Every job has run since it was last due, soon after the machine woke, and once however much it missed."""
    seed = int(os.environ.get("DATAD_SEED", random.randrange(10**9)))
    monkeypatch.setenv("DATAD_SEED", str(seed))  # shown by pytest with what failed
    where = "Europe/Berlin"
    with zone(where):
        world = make_world(sweep_s, seed=seed)
        world.boot()
        end = BEGIN + years * 365.25 * DAY
        due = {job: list(occurrences(job, where, BEGIN, end + 60 * DAY)) for job in CRON}
        for quiet_s in rough(world, end):
            now, awake = world.machine.wall(), world.machine.monotonic()
            for job, table in world.tables.items():
                starts = world.starts[job]
                if table.every_s is not None:
                    if quiet_s > table.every_s + MINUTE:  # however the clock stands
                        assert starts[-1].awake > awake - table.every_s - 2 * MINUTE, (seed, job, now)
                elif quiet_s > AGAIN_S + MINUTE:
                    at = bisect_right(due[job], now - AGAIN_S)
                    assert not at or max(start.wall for start in starts) >= due[job][at - 1], (seed, job, now)
        for job, table in world.tables.items():
            check_pace(world, table, seed)
            assert world.starts[job]


def check_pace(world: World, table: Timetable, seed: int) -> None:
    """A job does not run more often than its timetable says: one run catches up, whatever was missed."""
    starts = world.starts[table.job]
    if table.every_s is None:
        days = (world.machine.wall() - BEGIN) / DAY
        most = days if table.job == "backup" else days / 7 if table.job == "optimize" else days / (4 * 365)
        assert len(starts) <= most + 1 + world.back + world.kills, (seed, table.job)
        return
    by_event: defaultdict[int, list[Start]] = defaultdict(list)
    for start in starts:
        by_event[start.events].append(start)
    for group in by_event.values():  # what was missed is made up for by one run; then the old rhythm goes on
        gaps = [later.awake - sooner.awake for sooner, later in pairwise(group)]
        assert all(gap > table.every_s - MINUTE for gap in gaps[1:]), (seed, table.job)


def test_a_machine_that_is_on_for_some_hours_a_day_has_its_backup_each_day(make_world: Callable[..., World]) -> None:
    """Though its clock was a year ahead when the first was made, and it is never on when backups are due."""
    with zone("Europe/Berlin"):
        world = make_world(HOUR)
        world.boot()
        world.set_clock(365 * DAY)
        world.live(HOUR)
        assert 1 == len(world.starts["backup"])
        world.restart(16 * HOUR, -365 * DAY)
        for _ in range(10):
            world.live(8 * HOUR)
            world.restart(16 * HOUR)
        assert 11 == len(world.starts["backup"])


# What is kept


def should_stay(made: list[float], keep: Keep, now: float) -> set[float]:
    """Which of all snapshots that were ever made the rules keep: of each of the last N days the last one, and so on.

    The very first stays as well while a rule has fewer buckets than it may keep.
    """
    past = sorted(at for at in made if at <= now)
    found = {at for at in made if at > now}
    if keep.last:
        found |= {*past[-keep.last :]}
    if keep.within_s:
        found |= {at for at in past if past[-1] - at < keep.within_s}
    for count, form in (
        (keep.hourly, "%Y-%m-%d %H"),
        (keep.daily, "%Y-%m-%d"),
        (keep.weekly, "%G week %V"),
        (keep.monthly, "%Y-%m"),
        (keep.yearly, "%Y"),
    ):
        if not count:
            continue
        buckets: dict[str, float] = {}
        for at in past:
            buckets[datetime.fromtimestamp(at, UTC).strftime(form)] = at
        found |= {*sorted(buckets.values())[-count:]}
        if len(buckets) < count:
            found |= {*past[:1]}
    return found


def check_kept(world: World) -> None:
    """The snapshots and files that are left are exactly those that the rules keep of all there ever were."""
    now = world.machine.wall()
    for tag, keep in ((BACKUP, world.settings.snapshots.backups), (AUTOSAVE, world.settings.snapshots.autosaves)):
        expected = should_stay(world.made[tag], keep, world.made[tag][-1]) if world.made[tag] else set()
        assert expected == {one.at.timestamp() for _, one in world.kept[tag]}, (tag, now)
    cleaned = world.starts["clean"][-1].wall
    left: dict[str, list[Entry]] = {}
    for one in world.files.values():
        if one.mtime_ns < cleaned * 1e9:
            left.setdefault(one.path.split("/")[1], []).append(one)
    history, sessions, cache = (sorted(left[name], key=lambda one: one.mtime_ns) for name in NAMES)
    ever = [one for one in world.written.values() if one.mtime_ns < cleaned * 1e9]
    days = {one.path.split("/")[2] for one in ever if "history" in one.path}
    oldest = datetime.fromtimestamp(cleaned - 90 * DAY, UTC).date()  # its day ends within the 90 days
    assert {day for day in days if date.fromisoformat(day) >= oldest} == {one.path.split("/")[2] for one in history}
    newest = sorted((one for one in ever if "sessions" in one.path), key=lambda one: one.mtime_ns)[-40:]
    assert newest == sessions
    young = [one for one in ever if "cache" in one.path and one.mtime_ns >= int((cleaned - 30 * DAY) * 1e9)]
    young.sort(key=lambda one: one.mtime_ns)
    while sum(one.size for one in young) > 100 << 10:
        young.remove(next(one for one in young if one.size))
    assert young == cache


NAMES = ("history", "sessions", "cache")


@pytest.mark.parametrize(
    ("years", "sweep_s", "yearly"),
    [(1.1, 12 * HOUR, 1), pytest.param(YEARS, 4 * HOUR, 3, marks=pytest.mark.slow)],
)
def test_what_is_kept_is_what_the_rules_say(
    make_world: Callable[..., World], years: float, sweep_s: float, yearly: int
) -> None:
    """Day by day: what is left after thousands of runs is what one look at all there ever was would have kept."""
    with zone("America/New_York"):
        world = make_world(sweep_s, yearly, makes=True)
        world.boot()
        days = round(years * 365.25)
        for day in range(days):
            world.live(DAY / 2)
            world.write()
            world.live(DAY / 2)
            if day % 29 == 20 or day == days - 1:
                check_kept(world)
        assert days == pytest.approx(len(world.made[BACKUP]), abs=1)


def test_a_clock_that_was_wrong_costs_no_snapshot_that_a_rule_keeps(make_world: Callable[..., World]) -> None:
    """Snapshots of a clock that was years ahead stay, use up nothing, and change nothing for the others."""
    with zone("UTC"):
        world = make_world(DAY, makes=True)
        world.boot()
        world.live(100 * DAY)
        before = {one.at.timestamp() for _, one in world.kept[BACKUP]}
        world.set_clock(8 * 365 * DAY)
        world.live(HOUR)
        world.set_clock(-8 * 365 * DAY)
        world.live(3 * HOUR)
        (ahead,) = (at for at in world.made[BACKUP] if at > world.machine.wall())
        after = {one.at.timestamp() for _, one in world.kept[BACKUP]}
        assert ahead in after
        assert len(before - after) <= 5  # at most one of each rule's buckets
        world.live(200 * DAY)
        check_snapshots_without(world, ahead)


def check_snapshots_without(world: World, ahead: float) -> None:
    """What is kept now is what would be, had the one that is ahead never been made; and that one."""
    made = [at for at in world.made[BACKUP] if at != ahead]
    expected = should_stay(made, world.settings.snapshots.backups, made[-1]) | {ahead}
    kept = {one.at.timestamp() for _, one in world.kept[BACKUP]}
    assert expected == kept
