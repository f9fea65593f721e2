"""Rows of the ledger as sentences, how much each matters, and following them."""

from pathlib import Path

import pytest

from symbiont_datad.cli.events import Follower
from symbiont_datad.events import EVENTS
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_events import Filter
from symbiont_datad.ledger_schema import Row
from symbiont_datad.report import Action, JobReport, Outcome, Severity
from symbiont_datad.status_events import kinds_of, sentence, severity_of


def row(kind: str, path: str = "a", reason: str = "why", size: int = 0, state: str = "done") -> Row:
    """One of a job."""
    return Row(1.0, "clean", kind, path, "rule", reason, size, state)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (row("file_removed", "cache/ab.json", "unused", 4300), "removed cache/ab.json (4.2 KiB): unused"),
        (row("directory_recreated", "logs"), "recreated directory logs: why"),
        (row("permissions_restored", ""), "restored permissions the root: why"),
        (row("repository_pruned", ""), "pruned repository: why"),
        (row("snapshot_created", "8e04dc4f"), "created snapshot 8e04dc4f: why"),
        (row("job_failed", "", "no space left", state="failed"), "clean failed: no space left"),
        (row("file_removed", state="planned"), "removed a [planned]: why"),
        (row("restored"), "restored a: why"),
    ],
)  # fmt: skip
def test_sentences(one: Row, expected: str) -> None:
    """What was done to what, how large it was, and why."""
    assert expected == sentence(one)


def test_severities() -> None:
    """By kind, and an error where it failed; each level names those above it as well."""
    assert Severity.INFO == severity_of(row("file_removed")) == severity_of(row("unheard_of"))
    assert Severity.WARNING == severity_of(row("directory_recreated"))
    assert Severity.ERROR == severity_of(row("file_removed", state="failed"))
    assert () == kinds_of(Severity.INFO)
    assert {"directory_recreated", "job_failed"} < set(kinds_of(Severity.WARNING))
    assert {"error"} == {EVENTS[kind].severity for kind in kinds_of(Severity.ERROR)}


def test_a_follower_tells_each_once(tmp_path: Path) -> None:
    """First what is there, up to the limit; then what comes; what is planned when it is done, or never will be."""
    with Ledger(tmp_path / "ledger.db") as ledger:
        for name in "abc":
            ledger.record([Action("file_removed", name, "cache", "old")], 1.0)
        follower = Follower(Filter(limit=2))

        def told(now: float) -> list[tuple[str, str]]:
            return [(one.path or one.reason, one.state) for one in follower.look(ledger, now)]

        assert [("b", "done"), ("c", "done")] == told(0.0)
        assert [] == told(1.0)
        run = ledger.begin_run("clean", 2.0)
        ledger.plan(
            [Action("file_removed", "d", "cache", "old"), Action("file_removed", "e", "cache", "old")], 2.0, run
        )
        ledger.record([Action("directory_recreated", "logs", "layout", "gone")], 2.0)
        assert [("logs", "done")] == told(2.0)
        ledger.confirm(run, ["e"])
        assert [("d", "done"), ("e", "failed")] == told(3.0)
        ledger.plan([Action("file_removed", "f", "cache", "old")], 2.0, run)
        ledger.finish_run(run, JobReport("clean", Outcome.FAILED, 2.0, 1.0, message="killed"))
        assert [("killed", "failed")] == told(4.0)
        assert [] == told(33.0)
        assert [("f", "planned")] == told(35.0)
        assert [] == told(36.0)


def test_a_follower_goes_over_to_a_new_ledger(tmp_path: Path) -> None:
    """One that was damaged is replaced: its successor counts from the beginning."""
    follower = Follower(Filter())
    with Ledger(tmp_path / "old.db") as old:
        old.record([Action("file_removed", name, "cache", "old") for name in "abc"], 1.0)
        assert 3 == len(follower.look(old, 0.0))
    with Ledger(tmp_path / "new.db") as new:
        assert [] == follower.look(new, 1.0)
        new.record([Action("file_removed", "d", "cache", "old")], 2.0)
        assert ["d"] == [one.path for one in follower.look(new, 2.0)]
