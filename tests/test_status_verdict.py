"""What a status means: the worst first, each with a command that helps, and nothing where all is good."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from symbiont_datad.ledger_schema import Row, Run
from symbiont_datad.live import LiveState
from symbiont_datad.report import Finding, Severity
from symbiont_datad.retention.forecast import Forecast
from symbiont_datad.status import Status
from symbiont_datad.status_verdict import remarks

NOW = 100_000.0
LIVE = LiveState(7, NOW - 5000, NOW - 10, True, True, every_s=40.0, version="1")
GOOD = Status("/srv/data", 7, LIVE, (), None, {}, {}, (), version="1")


def told(found: Status) -> list[tuple[str, str, str]]:
    """Severity, text and command of each remark."""
    return [(one.severity.value, one.text, one.command) for one in remarks(found, NOW)]


def warned(*warnings: str) -> Status:
    """A daemon that says this of itself."""
    return replace(GOOD, live=replace(LIVE, warnings=warnings))


def ran(job: str, outcome: str | None, message: str = "", at: float = NOW - 60) -> Mapping[str, Run]:
    """The last run of one job."""
    return {job: Run(job, at, at + 1, outcome, 0, 0, message, {})}


def found(kind: str, path: str, severity: Severity = Severity.ERROR, remedy: str = "") -> tuple[Finding, float]:
    """A finding that was first seen a minute ago."""
    return Finding(kind, path, severity, "detail", remedy), NOW - 60


def test_all_good() -> None:
    """A daemon that keeps its tree, and jobs that end well: nothing is said. What is only to be known is no remark."""
    runs = {**ran("sweep", "left"), **ran("backup", "done"), **ran("clean", None)}
    assert [] == told(replace(GOOD, runs=runs, findings=(found("leftover", "x", Severity.INFO),)))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (replace(GOOD, daemon_pid=None), "no daemon keeps /srv/data: it died 10 s ago"),
        (
            replace(GOOD, daemon_pid=None, live=replace(LIVE, running=False)),
            "no daemon keeps /srv/data: it was stopped 10 s ago",
        ),
        (replace(GOOD, daemon_pid=None, live=None), "no daemon keeps /srv/data"),
        (
            replace(GOOD, live=replace(LIVE, written_at=NOW - 120)),
            "the daemon (process 7) has not moved for 2m",
        ),
        (replace(GOOD, ledger_problem="no"), "the ledger can't be read: no"),
        (replace(GOOD, runs=ran("backup", "failed", "no space")), "backup failed: no space; it never succeeded"),
        (
            replace(
                GOOD, runs=ran("backup", "failed", "no space"), good_runs=ran("backup", "done", at=NOW - 2 * 86_400)
            ),
            "backup failed: no space; last good 2d ago",
        ),
        (warned("the guard doesn't move"), "the guard doesn't move"),
        (replace(GOOD, full=Forecast(3600.0 * 5, 1.0, 7200.0, "logs", 0.8)), "full in 5 hours"),
    ],
)
def test_what_is_an_error(status: Status, expected: str) -> None:
    """Each comes first and alone, and names a command of ours."""
    ((severity, text, command),) = told(status)
    assert ("error", True, True) == (severity, text.startswith(expected), command.startswith("symbiont-datad "))


@pytest.mark.parametrize("live", [None, replace(LIVE, running=False)])
def test_a_daemon_that_is_starting_has_not_hung(live: LiveState | None) -> None:
    """It holds its lock, and has left nothing yet, or only what the one before it did."""
    assert [] == told(replace(GOOD, live=live))


def test_a_disk_that_is_full_in_weeks_is_no_matter_yet() -> None:
    """It is told of; nothing has to be done today."""
    assert [] == told(replace(GOOD, full=Forecast(86_400.0 * 60, 1.0, 86_400.0 * 30, "logs", 0.8)))


def test_the_worst_comes_first() -> None:
    """Errors before warnings, in whatever order they were found; the daemon itself before what jobs found."""
    status = replace(
        warned("logs is repaired less often: something keeps undoing it"),
        findings=(found("not_removed", "a", Severity.WARNING), found("context_empty", "b")),
        runs=ran("verify", "failed", "away"),
        full=Forecast(3 * 86_400.0, 1.0, 7200.0, "logs", 0.8),
    )
    assert [
        ("error", "verify failed: away; it never succeeded", "symbiont-datad verify"),
        ("error", "context empty: b", "symbiont-datad check"),
    ] == told(status)[:2]
    assert ["warning"] * 3 == [severity for severity, _, _ in told(status)[2:]]
    assert "events --job guard" in told(status)[2][2]


def test_what_is_told_twice_is_said_once() -> None:
    """The ledger and the running daemon both know of a failed job."""
    status = replace(warned("backup failed: no space"), runs=ran("backup", "failed", "no space"))
    assert 1 == len(told(status))
    assert [("error", "backup failed: no space", "symbiont-datad backup")] == told(warned("backup failed: no space"))


def test_many_of_a_kind_are_one_remark() -> None:
    """Up to three are named, more are counted."""
    some = tuple(found("context_empty", f"state/agents/{number}") for number in range(2000))
    assert ["2,000 × context empty, the first: state/agents/0"] == [
        text for _, text, _ in told(replace(GOOD, findings=some))
    ]
    assert 3 == len(told(replace(GOOD, findings=some[:3])))


def test_the_remedy_names_the_command() -> None:
    """Where a finding knows what helps, that is the command; a path is shown without control characters."""
    one = found("drill_failed", "a\x1b[31m", remedy="look with `symbiont-datad verify --read-data`, and back up again")
    assert [("error", "drill failed: a\\x1b[31m", "symbiont-datad verify --read-data")] == told(
        replace(GOOD, findings=(one,))
    )


def test_what_was_healed_is_no_remark() -> None:
    """It is told of as healed."""
    row = Row(NOW, "sweep", "context_restored", "a", "state.heal", "it was cut", 1, "done")
    status = replace(GOOD, healed=(row,), findings=(found("context_restored", "a", Severity.WARNING),))
    assert [] == told(status)


def test_another_version_runs() -> None:
    """After an upgrade without a restart."""
    ((severity, text, _),) = told(replace(GOOD, version="2"))
    assert ("warning", "the daemon that runs is version 1, installed is 2: restart it") == (severity, text)
