"""The policy: what stays, why, and the same as restic itself decides."""

import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.restic.forget import UNLIMITED, Decision, Group, Policy, decide, grouped, selected
from symbiont_datad.restic.records import Snapshot

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
LATER = NOW + 400 * DAY


def taken(*times: str, tags: Sequence[str] = (), host: str = "h", paths: Sequence[str] = ("/data",)) -> list[Any]:
    """Snapshots of these times; a time without a zone is in UTC. Their time is their id."""
    return [
        (time, Snapshot(time if time[-6] in "+-" else f"{time}Z", "0" * 64, [*paths], hostname=host, tags=[*tags]))
        for time in times
    ]


def kept(decision: Decision) -> dict[str, tuple[str, ...]]:
    """What stays, with the reasons."""
    return {one.id: one.reasons for one in decision.keep}


def removed(decision: Decision) -> list[str]:
    """What goes."""
    return [name for name, _ in decision.remove]


def test_a_calendar_rule_keeps_the_newest_of_each_bucket() -> None:
    """Of two snapshots of one day the later stays; a day without a snapshot does not count."""
    snapshots = taken("2026-11-23T08:00:00", "2026-11-23T09:00:00", "2026-11-20T10:00:00", "2026-11-19T10:00:00")
    decision = decide(snapshots, Policy(daily=2), NOW)
    assert {"2026-11-23T09:00:00": ("daily snapshot",), "2026-11-20T10:00:00": ("daily snapshot",)} == kept(decision)
    assert ["2026-11-23T08:00:00", "2026-11-19T10:00:00"] == removed(decision)


def test_a_snapshot_may_meet_several_rules() -> None:
    """Each rule that a snapshot meets is a reason, and uses up a count of that rule."""
    snapshots = taken("2026-11-23T09:00:00", "2026-11-22T09:00:00", "2026-10-22T09:00:00", "2026-10-01T09:00:00")
    assert {
        "2026-11-23T09:00:00": ("within 2d of the newest", "last snapshot", "daily snapshot", "monthly snapshot"),
        "2026-11-22T09:00:00": ("within 2d of the newest",),
        "2026-10-22T09:00:00": ("monthly snapshot",),
    } == kept(decide(snapshots, Policy(last=1, daily=1, monthly=2, within_s=2 * DAY), NOW))


@pytest.mark.parametrize(
    ("rule", "first", "same", "before"),
    [
        ("last", "2026-11-22T09:30:00", None, "2026-11-22T09:29:59"),
        ("hourly", "2026-11-22T09:30:00", "2026-11-22T09:00:00", "2026-11-22T08:59:59"),
        ("hourly", "2026-11-22T09:30:00", None, "2026-11-21T09:30:00"),
        ("daily", "2026-11-22T09:30:00", "2026-11-22T00:00:00", "2026-11-21T23:59:59"),
        ("weekly", "2026-11-22T09:30:00", "2026-11-16T00:00:00", "2026-11-15T23:59:59"),
        ("weekly", "2026-11-22T09:30:00", None, "2025-11-22T09:30:00"),
        ("monthly", "2026-11-22T09:30:00", "2026-11-01T00:00:00", "2026-10-31T23:59:59"),
        ("monthly", "2026-11-22T09:30:00", None, "2025-11-22T09:30:00"),
        ("yearly", "2026-11-22T09:30:00", "2026-01-01T00:00:00", "2025-12-31T23:59:59"),
    ],
)
def test_how_long_a_bucket_is(rule: str, first: str, same: str | None, before: str) -> None:
    """The newest of each hour, day, week, month or year stays, and each is another one the year before."""
    oldest = "2020-01-01T00:00:00"
    snapshots = taken(*filter(None, (first, same, before, oldest)))
    policy = replace(Policy(), **{rule: 2})  # type: ignore[arg-type]  # the name of a count
    reason = (f"{rule} snapshot",)
    assert {first: reason, before: reason} == kept(decide(snapshots, policy, NOW))


def test_ties_go_by_id() -> None:
    """Of two snapshots of one moment the first by its id counts as the newer one, whatever zones they are told in."""
    (one,), (two,) = taken("2026-11-22T09:00:00+00:00"), taken("2026-11-22T10:00:00+01:00")
    assert [one[0]] == [*kept(decide([two, one], Policy(last=1), NOW))]
    named = [("b", one[1]), ("a", two[1]), ("c", one[1])]
    assert ["a", "b", "c"] == [*kept(decide(named, Policy(), NOW))]


def test_a_snapshot_of_this_moment_is_not_of_the_future() -> None:
    """One that was made just now counts."""
    assert {"2026-11-23T12:00:00": ("last snapshot",)} == kept(decide(taken("2026-11-23T12:00:00"), Policy(1), NOW))


def test_weeks_are_iso_weeks() -> None:
    """The Sunday belongs to the week before; the days around New Year are of one week, though of two years."""
    snapshots = taken("2026-11-23T09:00:00", "2026-11-22T09:00:00", "2026-01-02T09:00:00", "2025-12-30T09:00:00")
    decision = decide(snapshots, Policy(weekly=3), NOW)
    assert ["2025-12-30T09:00:00"] == removed(decision)


def test_the_oldest_stays_while_a_rule_has_counts_left() -> None:
    """With too few years for the rule, the oldest snapshot stays as well, so that the history is long."""
    snapshots = taken("2026-11-23T09:00:00", "2026-05-01T09:00:00", "2026-01-01T09:00:00")
    decision = decide(snapshots, Policy(yearly=2), NOW)
    assert {
        "2026-11-23T09:00:00": ("yearly snapshot",),
        "2026-01-01T09:00:00": ("oldest yearly snapshot",),
    } == kept(decision)
    assert ["2026-05-01T09:00:00", "2026-01-01T09:00:00"] == removed(decide(snapshots, Policy(yearly=1), NOW))


def test_unlimited_keeps_every_bucket() -> None:
    """-1 is never used up."""
    snapshots = taken(*(f"2026-{month:02}-01T0{hour}:00:00" for month in range(1, 12) for hour in (1, 2)))
    stays = kept(decide(snapshots, Policy(monthly=UNLIMITED), NOW))
    assert 12 == len(stays)
    assert ("oldest monthly snapshot",) == stays["2026-01-01T01:00:00"]


def test_within_counts_from_the_newest_snapshot() -> None:
    """A host that was off for a year keeps the last days before that; exactly as old as the bound is too old."""
    snapshots = taken("2025-11-23T09:00:00", "2025-11-22T09:00:01", "2025-11-22T09:00:00")
    assert ["2025-11-22T09:00:00"] == removed(decide(snapshots, Policy(within_s=DAY), NOW))
    assert ("within 1d12h of the newest",) == kept(decide(snapshots, Policy(within_s=1.5 * DAY), NOW))[
        "2025-11-23T09:00:00"
    ]
    spans = {90: "90 s", 3600: "1h", 5 * 3600: "5h", DAY: "1d", 30 * 3600: "1d6h", 3601.5: "3601.5 s"}
    for seconds, text in spans.items():
        reason = decide(snapshots, Policy(within_s=seconds), NOW).keep[0].reasons
        assert (f"within {text} of the newest",) == reason


def test_days_are_of_the_zone_that_the_time_is_written_in() -> None:
    """Two moments of one day in Tokyo lie in two days of UTC, and count by what their snapshots say."""
    tokyo = taken("2026-11-21T23:00:00+09:00", "2026-11-21T08:00:00+09:00")
    assert ["2026-11-21T08:00:00+09:00"] == removed(decide(tokyo, Policy(daily=1), NOW))
    utc = taken("2026-11-21T14:00:00", "2026-11-20T23:00:00")
    assert [] == removed(decide(utc, Policy(daily=2), NOW))


def test_a_tag_protects() -> None:
    """A tagged snapshot stays and uses up no count of another rule."""
    snapshots = taken("2026-11-23T09:00:00") + taken("2026-11-22T09:00:00", "2026-11-20T09:00:00", tags=["keep", "x"])
    decision = decide(snapshots, Policy(last=2, tags=frozenset({"keep", "y"})), NOW)
    assert {
        "2026-11-23T09:00:00": ("last snapshot",),
        "2026-11-22T09:00:00": ("has tag keep", "last snapshot"),
        "2026-11-20T09:00:00": ("has tag keep",),
    } == kept(decision)


def test_a_snapshot_of_the_future_stays_and_uses_up_nothing() -> None:
    """A clock that was wrong once neither loses its snapshot nor pushes out the real ones."""
    snapshots = taken("2027-11-23T09:00:00", "2026-11-22T09:00:00", "2026-11-21T09:00:00")
    assert {
        "2027-11-23T09:00:00": ("its time is in the future",),
        "2026-11-22T09:00:00": ("within 1d of the newest", "last snapshot"),
    } == kept(decide(snapshots, Policy(last=1, within_s=DAY), NOW))


@pytest.mark.parametrize("policy", [Policy(), Policy(last=0, within_s=0)])
def test_a_policy_without_rules_keeps_everything(policy: Policy) -> None:
    """A nought is no rule: nothing is ever removed because nobody said what to keep."""
    assert policy.empty
    snapshots = taken("2026-11-22T09:00:00", "2026-11-21T09:00:00")
    assert {"2026-11-22T09:00:00": ("no rule is set",), "2026-11-21T09:00:00": ("no rule is set",)} == kept(
        decide(snapshots, policy, NOW)
    )


def test_a_group_is_never_lost_for_want_of_a_tag() -> None:
    """A policy of tags alone leaves a group as it is in which nothing has the tag."""
    decision = decide(taken("2026-11-22T09:00:00"), Policy(tags=frozenset({"keep"})), NOW)
    assert {"2026-11-22T09:00:00": ("no rule keeps any of its group",)} == kept(decision)


def test_negative_rules_are_refused() -> None:
    """Only -1 has a meaning."""
    with pytest.raises(ValueError, match=r"^a rule of a policy can't be negative$"):
        Policy(daily=-2)
    with pytest.raises(ValueError, match="can't be negative"):
        Policy(within_s=-1)


def test_snapshots_are_grouped_by_what_is_asked_for() -> None:
    """By host and paths unless told otherwise; the order of the paths makes no difference."""
    here = taken("2026-11-22T09:00:00", paths=["/a", "/b"]) + taken("2026-11-21T09:00:00", paths=["/b", "/a"])
    there = taken("2026-11-20T09:00:00", host="other", tags=["t"], paths=["/a"])
    assert {Group("h", ("/a", "/b")): here, Group("other", ("/a",)): there} == grouped(here + there)
    assert {Group(tags=()): here, Group(tags=("t",)): there} == grouped(here + there, by=["tags"])
    assert {Group(): here + there} == grouped(here + there, by=[])


def test_snapshots_are_selected_by_host_tags_and_paths() -> None:
    """All that is asked for must be so."""
    one = taken("2026-11-22T09:00:00", tags=["a", "b"], paths=["/x", "/y"])
    two = taken("2026-11-21T09:00:00", tags=["a"], host="other")
    assert one + two == selected(one + two, tags=["a"])
    assert one == selected(one + two, tags=["a", "b"])
    assert two == selected(one + two, host="other")
    assert one == selected(one + two, host="h", paths=["/y"])
    assert one == selected(one + two, host="h", paths=["/x", "/y"])
    assert [] == selected(one + two, host="other", paths=["/y"])


COUNTS = st.none() | st.integers(-1, 6)
POLICIES = st.builds(
    Policy,
    *[COUNTS] * 6,
    within_s=st.none() | st.sampled_from([0.0, DAY, 20 * DAY, 400 * DAY]),
    tags=st.frozensets(st.sampled_from("ab")),
)
SNAPSHOTS = st.lists(
    st.builds(
        lambda hours, zone, tags: (
            str(hours),
            Snapshot(
                (datetime(2026, 11, 23, tzinfo=UTC) - timedelta(hours=hours))
                .astimezone(datetime.strptime(zone, "%z").tzinfo)
                .isoformat(),
                "0" * 64,
                ["/"],
                tags=tags,
            ),
        ),
        st.integers(-50, 3000) | st.integers(-50, 60),
        st.sampled_from(["+0000", "-0800", "+0530"]),
        st.lists(st.sampled_from("abc"), max_size=1),
    ),
    max_size=40,
    unique_by=lambda one: one[0],
)


@settings(deadline=None)
@given(snapshots=SNAPSHOTS, policy=POLICIES, data=st.data())
def test_a_decision_holds_what_it_promises(snapshots: list[Any], policy: Policy, data: st.DataObject) -> None:
    """Each is kept or removed, never all removed; a second look changes nothing; nor does the order given."""
    decision = decide(snapshots, policy, NOW)
    assert sorted(name for name, _ in snapshots) == sorted([*kept(decision), *removed(decision)])
    assert all(kept(decision).values())
    assert bool(snapshots) == bool(decision.keep)
    again = decide([(one.id, one.snapshot) for one in decision.keep], policy, NOW)
    assert Decision(decision.keep, ()) == again
    assert decision == decide(data.draw(st.permutations(snapshots)), policy, NOW)


@settings(deadline=None)
@given(snapshots=SNAPSHOTS, policy=POLICIES, data=st.data())
def test_a_more_generous_policy_keeps_all_that_and_more(
    snapshots: list[Any], policy: Policy, data: st.DataObject
) -> None:
    """Any rule that is raised keeps a superset. (Not so for policies that keep all because they say nothing.)"""
    policy = replace(policy, last=policy.last or 1)
    rule = data.draw(st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly", "within_s", "tags"]))
    more: Any
    if rule == "tags":
        more = policy.tags | {"c"}
    elif rule == "within_s":
        more = (policy.within_s or 0) + 30 * DAY
    else:
        count = getattr(policy, rule) or 0
        more = data.draw(st.sampled_from([UNLIMITED] if count == UNLIMITED else [count + 1, count + 9, UNLIMITED]))
    generous = replace(policy, **{rule: more})
    assert {*kept(decide(snapshots, policy, NOW))} <= {*kept(decide(snapshots, generous, NOW))}


def plain(reason: str) -> str:
    """A reason without its details, which restic words otherwise."""
    return reason.split()[0] if reason.startswith(("within", "has")) else reason


RULES = ("last=3", "hourly=4", "daily=5", "weekly=6", "monthly=7", "yearly=unlimited", "within=2d")
POLICIES_OF_RESTIC = [
    (Policy(last=5), ["--keep-last=5"]),
    (Policy(hourly=7, daily=5), ["--keep-hourly=7", "--keep-daily=5"]),
    (Policy(weekly=6, monthly=4), ["--keep-weekly=6", "--keep-monthly=4"]),
    (Policy(yearly=10), ["--keep-yearly=10"]),
    (Policy(daily=UNLIMITED), ["--keep-daily=unlimited"]),
    (Policy(within_s=40 * DAY), ["--keep-within=40d"]),
    (Policy(within_s=30 * 3600, weekly=100), ["--keep-within=30h", "--keep-weekly=100"]),
    (Policy(last=1, tags=frozenset({"a", "b"})), ["--keep-last=1", "--keep-tag=a", "--keep-tag=b"]),
    (
        Policy(3, 4, 5, 6, 7, UNLIMITED, 2 * DAY),
        [f"--keep-{rule}" for rule in RULES],
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_restic_decides_the_same(tmp_path: Path) -> None:
    """60 snapshots at many times, of two hosts, in a zone with summer time: the same stay, for the same reasons."""
    restic = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if not restic:
        pytest.skip("restic is not installed")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "RESTIC_REPOSITORY": str(tmp_path / "repository"),
        "RESTIC_PASSWORD": "test",
        "TZ": "Europe/Berlin",
    }

    def run(*arguments: str) -> str:
        command = [restic, "--no-cache", "--json", *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, check=True, text=True, stdout=subprocess.PIPE, timeout=60
        ).stdout

    version = subprocess.run([restic, "version"], capture_output=True, text=True, timeout=60, check=True).stdout
    if tuple(int(part) for part in version.split()[1].split(".")[:2]) < (0, 16):
        pytest.skip("this restic does not keep the oldest snapshot yet")
    run("init")
    dice = random.Random(1)
    newest = datetime(2026, 11, 1, 3, 30)  # noqa: DTZ001 - restic takes times of the local zone
    ages_h = [0, 0.25, 24, 24.5, *(round(10 ** dice.uniform(0, 4.2), 2) for _ in range(56))]
    for number, age_h in enumerate(ages_h):
        time = (newest - timedelta(hours=age_h)).strftime("%Y-%m-%d %H:%M:%S")
        host, tag = ("one", "two")[number % 5 == 0], ("a", "b", "c", "d")[dice.randrange(4)]
        run("backup", "--quiet", f"--time={time}", f"--host={host}", f"--tag={tag}", "data")
    snapshots = [(one["id"], msgspec.convert(one, Snapshot)) for one in json.loads(run("snapshots"))]
    assert 60 == len(snapshots)
    for policy, options in POLICIES_OF_RESTIC:
        for group in json.loads(run("forget", "--dry-run", *options)):
            ours = decide(grouped(snapshots)[Group(group["host"], tuple(group["paths"]))], policy, LATER)
            assert [one["id"] for one in group["keep"]] == [*kept(ours)], options
            assert [one["id"] for one in group["remove"] or []] == removed(ours), options
            theirs = [[plain(reason) for reason in one["matches"]] for one in group["reasons"]]
            assert theirs == [[plain(reason) for reason in one.reasons] for one in ours.keep], options
