"""The ledger stays bounded: by age, by number, and without what nobody asks for; what explains something stays."""

from pathlib import Path

import pytest

from symbiont_datad import ledger_trim
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_trim import Limits
from symbiont_datad.quantities import DAY
from symbiont_datad.report import Action, JobReport, Outcome

NOW = 1000 * DAY


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty one."""
    return Ledger(tmp_path / "ledger.db")


def removed(path: str) -> Action:
    """An action on a path."""
    return Action("file_removed", path, "cache", "old")


def run(ledger: Ledger, job: str, age_s: float, outcome: Outcome = Outcome.DONE, *, actions: int = 0) -> int:
    """A run that ended so long ago."""
    number = ledger.begin_run(job, NOW - age_s)
    ledger.finish_run(number, JobReport(job, outcome, NOW - age_s, 1.0, actions_total=actions))
    return number


def paths(ledger: Ledger) -> list[str]:
    """What the actions that are left were about."""
    return [row.path for row in ledger.actions()]


def test_old_actions_go(ledger: Ledger) -> None:
    """By age; a younger one stays, and so does every one without limits."""
    for age in (40, 31, 29, 1):
        ledger.record([removed(f"of {age}")], NOW - age * DAY)
    ledger.trim(Limits(), NOW)
    assert 4 == len(paths(ledger))
    ledger.trim(Limits(30 * DAY), NOW)
    assert ["of 29", "of 1"] == paths(ledger)


def test_the_oldest_go_when_there_are_too_many(ledger: Ledger) -> None:
    """By number, whatever their age; the newest stay."""
    ledger.record([removed(str(number)) for number in range(100)], NOW)
    ledger.trim(Limits(None, 10), NOW)
    assert [str(number) for number in range(90, 100)] == paths(ledger)


def test_many_go_over_several_calls(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call does a part, so that no transaction is long; the next ones do the rest."""
    monkeypatch.setattr(ledger_trim, "_STEP", 10)
    monkeypatch.setattr(ledger_trim, "MOST_STEPS", 2)
    ledger.record([removed(str(number)) for number in range(51)], NOW - 50 * DAY)
    left = []
    for _ in range(4):
        ledger.trim(Limits(30 * DAY), NOW)
        left.append(len(paths(ledger)))
    assert [31, 11, 1, 1] == left


def test_what_explains_the_audit_chain_stays(ledger: Ledger) -> None:
    """With the run that it was of, so that it is still said who did it."""
    number = run(ledger, "rotate", 500 * DAY, actions=3)
    some = [removed("logs/audit/a.1"), removed("logs/audits"), removed("logs/agents/b.1")]
    ledger.record(some, NOW - 500 * DAY, number)
    run(ledger, "rotate", 0)
    ledger.record([removed("x")], NOW)
    ledger.trim(Limits(30 * DAY, 1, ("logs/audit",)), NOW)
    assert [("rotate", "logs/audit/a.1"), ("guard", "x")] == [(row.job, row.path) for row in ledger.actions()]


def test_runs_that_did_nothing_go_after_a_week(ledger: Ledger) -> None:
    """Those that did something, or failed, stay; so does the newest of each job, and its newest success."""
    run(ledger, "usage", 9 * DAY)
    run(ledger, "usage", 8 * DAY, actions=1)
    run(ledger, "usage", 7.5 * DAY, Outcome.FAILED)
    run(ledger, "usage", 6 * DAY)
    run(ledger, "verify", 60 * DAY)
    run(ledger, "verify", 50 * DAY)
    run(ledger, "verify", 49 * DAY, Outcome.FAILED)
    ledger.trim(Limits(), NOW)
    ages = [(one.job, (NOW - one.started_at) / DAY) for one in ledger.runs(0.0)]
    assert [("verify", 50), ("verify", 49), ("usage", 8), ("usage", 7.5), ("usage", 6)] == ages
    assert NOW - 50 * DAY == ledger.last_successes()["verify"]


def test_the_last_of_a_job_stays_whatever_its_age(ledger: Ledger) -> None:
    """So that a daemon that was off for years knows when a job last did well, and that it failed."""
    for age, outcome in ((900, Outcome.DONE), (899, Outcome.DONE), (898, Outcome.FAILED), (897, Outcome.FAILED)):
        run(ledger, "backup", age * DAY, outcome, actions=1)
    ledger.trim(Limits(30 * DAY, 10), NOW)
    assert [899, 897] == [(NOW - one.started_at) / DAY for one in ledger.runs(0.0)]


def test_the_newest_run_stays_although_it_never_ended(ledger: Ledger) -> None:
    """Older ones go, and what they had planned."""
    killed = ledger.begin_run("clean", NOW - 60 * DAY)
    ledger.plan([removed("logs/audit/a.1")], NOW - 60 * DAY, killed)
    ledger.begin_run("clean", NOW - 59 * DAY)
    ledger.begin_run("clean", NOW - 58 * DAY)
    ledger.record([removed("x")], NOW)
    ledger.trim(Limits(30 * DAY), NOW)
    assert [58] == [(NOW - one.started_at) / DAY for one in ledger.runs(0.0)]
    assert ["x"] == paths(ledger)


def test_what_is_planned_keeps_its_run(ledger: Ledger) -> None:
    """Where the actions stay without a limit, a quiet run stays that some of them belong to."""
    number = run(ledger, "clean", 30 * DAY)
    ledger.plan([removed("a")], NOW - 30 * DAY, number)
    run(ledger, "clean", 29 * DAY)
    ledger.trim(Limits(), NOW)
    assert ["clean"] == [row.job for row in ledger.actions()]
