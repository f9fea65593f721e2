"""Which logs are rotated, which way, and which archives go."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.rotated import Rotated
from symbiont_datad.fsops.lease import Held
from symbiont_datad.fsops.opened import Writer
from symbiont_datad.quantities import DAY
from symbiont_datad.retention.logs import (
    Archive,
    Choice,
    Declared,
    LogRule,
    LogSettings,
    Observed,
    Way,
    choose,
    due,
    trim,
)

NOW = 1_795_000_000.0
LOGS = LogRule("logs", ("**/*.log", "**/*.jsonl"), rotate_at=1000)


# When


@pytest.mark.parametrize(
    ("rule", "size", "age_s", "reason"),
    [
        (LOGS, 999, None, ""),
        (LOGS, 1000, None, "it has 1000 B, rotated from 1000 B"),
        (LOGS, 999, 10**9, ""),
        (replace(LOGS, rotate_every_s=DAY), 1, DAY - 1, ""),
        (replace(LOGS, rotate_every_s=DAY), 1, DAY, "it is 1d old, rotated every 1d"),
        (replace(LOGS, rotate_every_s=DAY), 1, None, ""),
        (replace(LOGS, rotate_every_s=DAY, rotate_min=500), 499, 9 * DAY, ""),
        (replace(LOGS, rotate_every_s=DAY, rotate_min=500), 500, 9 * DAY, "it is 9d old, rotated every 1d"),
        (replace(LOGS, rotate_every_s=DAY), 0, 9 * DAY, ""),
        (replace(LOGS, rotate_at=0), 0, None, ""),
        (replace(LOGS, rotate_at=None), 10**12, None, ""),
    ],
)
def test_due(rule: LogRule, size: int, age_s: float | None, reason: str) -> None:
    """By size, by age, or by either; an empty log never."""
    assert reason == due(rule, size, age_s)


def test_the_first_rule_that_matches_counts() -> None:
    """Paths are matched below the logs directory; what no rule is about is not rotated."""
    agents = replace(LOGS, name="agents", patterns=("agents/*.log",))
    settings = LogSettings(directory="var/logs", audit="var/logs/audit", rules=(agents, LOGS))
    assert [agents, LOGS, None, None] == [
        settings.rule_of(path)
        for path in ("var/logs/agents/a.log", "var/logs/system/a.log", "var/logs/a.txt", "state/a.log.d")
    ]


# Ways

APPENDS, MISPLACED = Writer(7, "agent", True), Writer(8, "other", False)
SEEN = Observed(Held.YES, (APPENDS,), complete=True, others=True, collapses=True)


@pytest.mark.parametrize(
    ("seen", "way"),
    [
        pytest.param(SEEN, Way.COLLAPSE, id="append mode"),
        pytest.param(replace(SEEN, complete=False), Way.NONE, id="others may write unseen"),
        pytest.param(replace(SEEN, complete=False, others=False), Way.COLLAPSE, id="nobody else may write"),
        pytest.param(replace(SEEN, collapses=False), Way.NONE, id="no collapse here"),
        pytest.param(replace(SEEN, writers=(APPENDS, MISPLACED)), Way.NONE, id="not in append mode"),
        pytest.param(replace(SEEN, writers=(MISPLACED,), declared=Declared.APPENDED), Way.NONE, id="declared wrongly"),
        pytest.param(replace(SEEN, writers=()), Way.NONE, id="held by somebody unseen"),
        pytest.param(
            replace(SEEN, writers=(), declared=Declared.APPENDED), Way.COLLAPSE, id="unseen, declared appended"
        ),
        pytest.param(replace(SEEN, writers=(), declared=Declared.REOPENED), Way.RENAME, id="declared reopened"),
        pytest.param(replace(SEEN, held=Held.NO, writers=()), Way.RENAME, id="nobody"),
        pytest.param(
            replace(SEEN, held=Held.NO, writers=(), complete=False), Way.RENAME, id="nobody, by the kernel alone"
        ),
        pytest.param(replace(SEEN, held=Held.UNKNOWN, writers=()), Way.RENAME, id="nobody, by all processes"),
        pytest.param(
            replace(SEEN, held=Held.UNKNOWN, writers=(), complete=False), Way.NONE, id="unknown is not nobody"
        ),
        pytest.param(replace(SEEN, held=Held.NO, writers=(), problem="it is a database"), Way.NONE, id="a database"),
    ],
)
def test_the_way_by_what_was_seen(seen: Observed, way: Way) -> None:
    """The best way that is safe, and where none is, the log is left, with something to do about it."""
    choice = choose(seen, False)
    assert way is choice.way
    assert choice.why
    if way is Way.NONE and not seen.problem:
        assert choice.remedy


DECLARE = "logs.appended or logs.reopened can say how it is written"
TRUNCATE = "logs.allow_copytruncate"
TOLD = [
    (replace(SEEN, problem="a database", remedy="leave it"), False, Way.NONE, "a database", "leave it"),
    (replace(SEEN, declared=Declared.REOPENED), False, Way.RENAME, "it is declared in logs.reopened", ""),
    (
        replace(SEEN, writers=(MISPLACED, APPENDS, replace(MISPLACED, pid=9))),
        False,
        Way.NONE,
        "process 8 (other) and 1 more does not write in append mode, and would leave a gap where the file was cut",
        "open it for appending (in a shell: >> instead of >), or let it open the file for each line",
    ),
    (replace(SEEN, held=Held.NO, writers=()), False, Way.RENAME, "nobody has it open", ""),
    (
        replace(SEEN, writers=(), complete=False),
        False,
        Way.NONE,
        "somebody who can't be seen has it open",
        f"let the daemon see the processes of its writers, or {DECLARE}",
    ),
    (
        replace(SEEN, held=Held.UNKNOWN, writers=(), complete=False),
        False,
        Way.NONE,
        "nobody knows who writes it",
        f"let the daemon see the processes of its writers, or {DECLARE}",
    ),
    (
        replace(SEEN, complete=False),
        False,
        Way.NONE,
        "process 7 (agent) appends to it, and so could users whose processes can't be seen",
        f"take their right to write to it, run the daemon as root, or {DECLARE}",
    ),
    (SEEN, False, Way.COLLAPSE, "process 7 (agent) appends to it", ""),
    (
        replace(SEEN, writers=(replace(APPENDS, pid=9), APPENDS, replace(APPENDS, pid=8))),
        True,
        Way.COLLAPSE,
        "process 7 (agent) and 2 more appends to it",
        "",
    ),
    (
        replace(SEEN, writers=(), declared=Declared.APPENDED),
        False,
        Way.COLLAPSE,
        "it is declared in logs.appended",
        "",
    ),
    (
        replace(SEEN, collapses=False),
        True,
        Way.TRUNCATE,
        "process 7 (agent) appends to it; what is written during the cut is lost",
        "",
    ),
    (
        replace(SEEN, collapses=False),
        False,
        Way.NONE,
        "process 7 (agent) appends to it, and this file system can't take the head out of a file",
        f"keep logs on ext4 or xfs, let it open the file for each line, or accept lost lines with {TRUNCATE}",
    ),
]


@pytest.mark.parametrize(("seen", "allowed", "way", "why", "remedy"), TOLD)
def test_what_is_said_of_a_way(seen: Observed, allowed: bool, way: Way, why: str, remedy: str) -> None:
    """Why it is that way, and of a log that is left alone what to do about it."""
    assert Choice(way, why, remedy) == choose(seen, allowed)


def test_what_users_declare_about_writers() -> None:
    """Patterns are relative to the logs directory; of one that is declared both ways, reopening counts."""
    settings = LogSettings(directory="var/logs", reopened=("a/*.log",), appended=("**/*.log", "b"))
    names = ("var/logs/a/x.log", "var/logs/c/x.log", "var/logs/b/x", "var/logs/x.txt")
    assert [Declared.REOPENED, Declared.APPENDED, Declared.APPENDED, Declared.NOTHING] == [
        settings.declared(name) for name in names
    ]
    assert Declared.NOTHING is LogSettings().declared("logs/a.log")


def test_truncating_needs_leave_and_a_writer_that_appends() -> None:
    """Only where nothing better is possible, and never under a writer with a place of its own."""
    poor = replace(SEEN, collapses=False)
    assert [Way.NONE, Way.TRUNCATE] == [choose(poor, allowed).way for allowed in (False, True)]
    assert Way.COLLAPSE is choose(SEEN, True).way
    assert Way.NONE is choose(replace(poor, writers=(MISPLACED,)), True).way
    assert Way.NONE is choose(replace(poor, writers=()), True).way


_observed = st.builds(
    Observed,
    st.sampled_from(Held),
    st.lists(st.sampled_from([APPENDS, MISPLACED]), max_size=3).map(tuple),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(Declared),
)


@given(_observed, st.booleans())
def test_no_way_is_ever_unsafe(seen: Observed, allowed: bool) -> None:
    """Nothing is cut under a writer that would leave a gap, nor under one that is unknown and of whom nothing is
    declared; and without leave no line can be lost.
    """
    way = choose(seen, allowed).way
    cut = way in (Way.COLLAPSE, Way.TRUNCATE)
    if MISPLACED in seen.writers:
        assert not cut
    if cut and seen.declared is Declared.NOTHING:
        assert seen.writers
        assert seen.complete or not seen.others
    if way is Way.COLLAPSE:
        assert seen.collapses
    if way is Way.TRUNCATE:
        assert allowed
        assert not seen.collapses
    if way is Way.RENAME and seen.declared is not Declared.REOPENED:
        assert seen.held is Held.NO or (seen.complete and not seen.writers and seen.held is Held.UNKNOWN)


# Archives


def archive(log: str, at: float, number: int = 1, size: int = 10) -> Archive:
    """An archive of a log in `logs/`."""
    place = Rotated(log.rpartition("/")[2], int(at), number, ".zst")
    return Archive(f"{log.rpartition('/')[0]}/{place.name}", log, place, size)


_archives = st.lists(
    st.builds(
        archive,
        st.sampled_from(["logs/system/a.log", "logs/agents/b.log", "logs/agents/c.log", "logs/audit/d.log"]),
        st.integers(int(NOW - 100 * DAY), int(NOW)),
        st.integers(1, 3),
        st.integers(0, 50),
    ),
    max_size=40,
    unique_by=lambda one: one.path,
)
_limits = st.fixed_dictionaries(
    {
        "keep": st.none() | st.integers(1, 6),
        "max_age_s": st.none() | st.floats(1, 90 * DAY),
        "max_total": st.none() | st.integers(1, 500),
    }
)


@given(_archives, _limits, _limits, st.none() | st.integers(1, 900), st.data())
def test_no_more_goes_than_needed_and_the_newest_stay(
    archives: list[Archive],
    agents: dict[str, int | None],
    others: dict[str, int | None],
    total: int | None,
    data: st.DataObject,
) -> None:
    """Every cap is met unless what is protected is in the way; what went was needed; protected ones and audit logs' all
    stay, and of each log the newest that is not too old.
    """
    rules = (
        replace(LOGS, name="agents", patterns=("agents/*.log",), **agents),  # type: ignore[arg-type]
        replace(LOGS, **others),  # type: ignore[arg-type]
    )
    settings = LogSettings(rules=rules, max_total=total)
    protected = data.draw(st.sets(st.sampled_from(archives))) if archives else set()
    paths = {one.path for one in protected}
    trimmed = trim(settings, archives, NOW, paths)
    gone = [one.archive for one in trimmed]
    assert len(gone) == len({one.path for one in gone})
    assert not paths & {one.path for one in gone}
    assert not [one for one in gone if one.log.startswith("logs/audit/")]
    aged = [one for one in trimmed if " ago, over " in one.reason]
    for rule in rules:
        mine = [one for one in archives if settings.rule_of(one.log) is rule and settings.trims(rule, one.log)]
        old = [one for one in mine if rule.max_age_s is not None and NOW - one.place.at > rule.max_age_s]
        assert {one.path for one in old} - paths == {one.archive.path for one in aged if one.archive in mine}
        left = [one for one in mine if one not in gone]
        for log in {one.log for one in mine}:
            kept = sorted((one for one in left if one.log == log), key=lambda one: one.place)
            went = [one for one in trimmed if one.archive.log == log and "archives of its log" in one.reason]
            if rule.keep is not None and not paths:
                assert len(kept) <= rule.keep
            if went and rule.keep is not None and not paths:
                assert all(one.archive.place < later.place for one in went for later in kept)
        if rule.max_total is not None and not paths:
            assert sum(one.size for one in left) <= rule.max_total or 1 == len([one for one in left if one.size])
    cap, reason = rules[0].max_total, "archives of agents together"
    by_total = [one.archive for one in trimmed if one.reason.startswith(reason)]
    if by_total:
        before = [one.archive for one in trimmed if "together" not in one.reason]
        mine = [one for one in archives if settings.rule_of(one.log) is rules[0] and one not in before]
        size = sum(one.size for one in mine)
        assert cap is not None
        assert size - sum(one.size for one in by_total[:-1]) > cap, "the last to go was not needed"


@given(_archives, st.integers(1, 900))
def test_all_together_meet_their_total_with_the_fewest(archives: list[Archive], total: int) -> None:
    """The oldest of all go until the total is met, and then no more; the very newest stays, however large."""
    settings = LogSettings(rules=(LOGS,), max_total=total)
    mine = [one for one in archives if not one.log.startswith("logs/audit/")]
    gone = [one.archive for one in trim(settings, archives, NOW)]
    left = sum(one.size for one in mine if one not in gone)
    assert left <= total or len([one for one in mine if one not in gone and one.size]) <= 1
    if gone:
        assert left + gone[-1].size > total
        assert max(one.place.at for one in gone) <= max(one.place.at for one in mine if one not in gone)


def test_archives_of_audit_logs_go_only_by_a_rule_that_names_them() -> None:
    """A rule for everything keeps them all; one that begins with their directory does not."""
    archives = [archive("logs/audit/security.log", NOW - days * DAY) for days in range(1, 6)]
    everything = replace(LOGS, keep=1, max_age_s=DAY / 2, max_total=1)
    assert [] == trim(LogSettings(rules=(everything,), max_total=1), archives, NOW)
    named = replace(LOGS, name="audit", patterns=("audit/*.log",), keep=2)
    gone = [one.archive for one in trim(LogSettings(rules=(named, everything)), archives, NOW)]
    assert archives[2:] == sorted(gone, key=lambda one: -one.place.at)
    both = replace(LOGS, patterns=("**/*.log", "audit/other.log"), keep=1)
    assert [] == trim(LogSettings(rules=(both,)), archives, NOW)


@pytest.mark.parametrize(
    ("limits", "sizes", "gone"),
    [
        ({"keep": 2}, (10, 10), []),
        ({"keep": 2}, (10, 10, 10), [3]),
        ({"keep": 0}, (10, 10, 10), [3, 2]),
        ({"max_age_s": 2 * DAY}, (10, 10, 10), [3]),
        ({"max_total": 30}, (10, 10, 10), []),
        ({"max_total": 29}, (10, 10, 10), [3]),
        ({"max_total": 20}, (10, 10, 10), [3]),
        ({"max_total": 19}, (10, 10, 1, 0), [3, 2]),
        ({"max_total": 0}, (10, 10), [2]),
    ],
)
def test_what_just_meets_a_limit_stays(limits: dict[str, Any], sizes: tuple[int, ...], gone: list[int]) -> None:
    """By number, by age and by size: archives that are one, two, three and four days old."""
    archives = [archive("logs/a.log", NOW - days * DAY, size=size) for days, size in enumerate(sizes, 1)]
    found = trim(LogSettings(rules=(replace(LOGS, **limits),)), archives, NOW)
    assert [(archives[days - 1], "logs") for days in gone] == [(one.archive, one.rule) for one in found]
    if "max_total" in limits:
        together = trim(LogSettings(rules=(replace(LOGS, name="x"),), **limits), archives, NOW)
        assert [(archives[days - 1], "logs") for days in gone] == [(one.archive, one.rule) for one in together]


def test_archives_are_in_the_order_of_their_rotation_whatever_they_are_called() -> None:
    """The time and the number say which was first."""
    places = {"c": Rotated("a.log", 5, 1), "a": Rotated("a.log", 5, 2), "b": Rotated("a.log", 4, 9)}
    archives = [Archive(path, "logs/a.log", place, 10) for path, place in places.items()]
    settings = LogSettings(rules=(replace(LOGS, keep=1),))
    assert ["b", "c"] == [one.archive.path for one in trim(settings, archives, NOW)]


def test_the_total_of_all_is_over_all_rules() -> None:
    """Two logs of two rules, each within its own limits."""
    rules = (replace(LOGS, name="a", patterns=("a.log",)), replace(LOGS, name="b", patterns=("b.log",)))
    archives = [archive(f"logs/{name}.log", NOW - days * DAY, size=10) for name in "ab" for days in (1, 2)]
    (found,) = trim(LogSettings(rules=rules, max_total=30), archives, NOW)
    assert (archives[1], "logs") == (found.archive, found.rule)
    assert "archives of logs together over 30 B, the oldest first" == found.reason


def test_reasons_are_for_people() -> None:
    """Each says which limit it was."""
    settings = LogSettings(rules=(replace(LOGS, keep=2, max_age_s=30 * DAY, max_total=15),))
    archives = [archive("logs/a.log", NOW - days * DAY, size=10) for days in (1, 2, 3, 40)]
    assert [
        "rotated 40d ago, over 30d",
        "one of 3 archives of its log, 2 are kept",
        "archives of logs together over 15 B, the oldest first",
    ] == [one.reason for one in trim(settings, archives, NOW)]
