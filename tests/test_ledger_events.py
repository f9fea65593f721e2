"""The ledger as a feed: each filter by itself, failed runs among the actions, and reading beside a writer."""

import os
import sqlite3
from pathlib import Path

import pytest

from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.ledger_events import Filter
from symbiont_datad.ledger_schema import SnapshotRow
from symbiont_datad.report import Action, JobReport, Outcome


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Six events: three of the guard, two of a job, and a run that failed."""
    ledger = Ledger(tmp_path / "ledger.db")
    for at, kind, path in (
        (1.0, "directory_recreated", "logs"),
        (2.0, "permissions_restored", "logs/audit"),
        (6.0, "directory_recreated", "state"),
    ):
        ledger.record([Action(kind, path, "layout", "it had gone")], at)
    run = ledger.begin_run("clean", 3.0)
    ledger.record([Action("file_removed", "prompts/cache/a_1.json", "cache", "50 % over", 7)], 3.0, run)
    ledger.plan([Action("file_removed", "prompts/cache/ab1.json", "cache", "unused", 7)], 4.0, run)
    ledger.confirm(run, ["prompts/cache/ab1.json"])
    ledger.finish_run(run, JobReport("clean", Outcome.DONE, 3.0, 1.0, actions_total=2))
    failed = ledger.begin_run("backup", 4.5)
    ledger.finish_run(failed, JobReport("backup", Outcome.FAILED, 4.5, 0.5, message="no space left"))
    return ledger


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), [1, 2, 3, 4, 5, 6]),
        (Filter(since=3.0), [3, 4, 5, 6]),
        (Filter(since=2.0, until=4.0), [2, 3]),
        (Filter(limit=2), [5, 6]),
        (Filter(limit=0), []),
        (Filter(path="logs"), [1, 2]),
        (Filter(kinds=["directory_recreated"]), [1, 6]),
        (Filter(kinds=["job_failed", "permissions_restored"]), [2, 5]),
        (Filter(job="clean"), [3, 4]),
        (Filter(job="backup"), [5]),
        (Filter(job="guard", since=2.0), [2, 6]),
        (Filter(serious=["permissions_restored"]), [2, 4, 5]),
        (Filter(serious=[], kinds=["file_removed"]), [4]),
        (Filter(text="a_1"), [3]),
        (Filter(text="50 %"), [3]),
        (Filter(text="SPACE"), [5]),
        (Filter(text="directory recreated"), [1, 6]),
        (Filter(text="%"), [3]),
        (Filter(text="nowhere"), []),
    ],
)
def test_each_filter(ledger: Ledger, wanted: Filter, expected: list[int]) -> None:
    """What passes, in the order of time. Signs that mean something to SQL are looked for as they stand."""
    assert expected == [round(row.at) for row in ledger.events(wanted)]


def test_bytes_that_are_no_characters_are_looked_for(ledger: Ledger) -> None:
    """A path is kept with such bytes escaped, and found by what is typed in a shell."""
    ledger.record([Action("file_removed", "logs/\udced.log", "cache", "old \udced", 7)], 7.0)
    wanted = (Filter(text="\udced"), Filter(path="logs/\udced.log"), Filter(job="\udced"), Filter(kinds=["\udced"]))
    assert [1, 1, 0, 0] == [len(ledger.events(one)) for one in wanted]


def test_a_failed_run_is_an_event(ledger: Ledger) -> None:
    """With its reason, and no path."""
    (row,) = ledger.events(Filter(kinds=["job_failed"]))
    assert ("backup", "job_failed", "", "no space left", "failed") == (
        row.job,
        row.kind,
        row.path,
        row.reason,
        row.state,
    )


def test_a_follower_gets_each_action_once(ledger: Ledger) -> None:
    """By the number of the last one that it has seen."""
    last = ledger.last_action()
    assert [] == ledger.new_actions(Filter(after=last))
    ledger.plan([Action("file_removed", "x", "cache", "why")], 9.0, 1)
    ((number, row),) = ledger.new_actions(Filter(after=last))
    assert ("x", "planned") == (row.path, row.state)
    ledger.confirm(1)
    assert {number: "done"} == ledger.states([number])


def test_days_and_kinds_are_counted(ledger: Ledger) -> None:
    """By kind since a time, and by day."""
    ledger.record([Action("file_removed", "y", "cache", "why")], 86_400.0)
    assert {"directory_recreated": 1, "file_removed": 2} == ledger.count_actions(4.0)
    assert [("file_removed", 0, 2), ("file_removed", 1, 1)] == [
        one for one in sorted(ledger.actions_by_day(0.0)) if one[0] == "file_removed"
    ]


def test_snapshots_are_those_that_are_there(ledger: Ledger) -> None:
    """The oldest first; what somebody else has noted stays, what is gone goes."""
    old, new = (SnapshotRow(name, at, "backup", "here", 1, 2, 3) for name, at in (("b", 1.0), ("a", 2.0)))
    ledger.note_snapshots([new], ["a"])
    ledger.note_snapshots([old], ["a", "b"])
    assert [old, new] == ledger.snapshots()
    ledger.note_snapshots([], ["a"])
    assert [new] == ledger.snapshots()


def test_reading_waits_for_no_writer(ledger: Ledger) -> None:
    """Somebody is in the middle of a transaction: what was committed before is read at once, and nothing can be
    written."""
    writer = sqlite3.connect(ledger.path, isolation_level=None)
    writer.execute("begin immediate")
    with Ledger.for_reading(ledger.path) as reading:
        assert 5 == len(reading.actions())
        with pytest.raises(LedgerError, match=r"readonly|locked"):
            reading.begin_run("sweep", 1.0)
    writer.close()


def test_reading_takes_no_lock_away(ledger: Ledger) -> None:
    """A second connection in one process, opened and closed, leaves the first one's locks: others see them."""
    ledger.record([Action("a", "b", "c", "d")], 1.0)
    with Ledger.for_reading(ledger.path) as reading:
        assert reading.actions()
    table = Path("/proc/locks")
    if not table.exists():
        pytest.skip("not on this platform: locks can't be seen")
    held = [line.split() for line in table.read_text().splitlines()]
    mine = [fields[5] for fields in held if fields[1] == "POSIX" and fields[4] == str(os.getpid())]
    assert any(place.endswith(f":{ledger.path.stat().st_ino}") for place in mine)


def test_an_old_ledger_is_brought_up_by_a_reader(tmp_path: Path) -> None:
    """Whoever comes first after an upgrade makes the new tables; nothing is lost."""
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.record([Action("a", "b", "c", "d")], 1.0)
    with sqlite3.connect(path) as db:
        for index in ("actions_by_kind", "actions_failed", "runs_by_number", "runs_failed"):
            db.execute(f"drop index {index}")
        db.execute("drop table snapshots")
        db.execute("pragma user_version = 2")
    db.close()
    with Ledger.for_reading(path) as reading:
        assert (["b"], []) == ([row.path for row in reading.actions()], reading.snapshots())


def test_who_may_not_read_hears_so(tmp_path: Path) -> None:
    """A link in the ledger's place is not followed."""
    Ledger(tmp_path / "real.db").close()
    (tmp_path / "ledger.db").symlink_to("real.db")
    with pytest.raises(LedgerError, match="is a link"):
        Ledger.for_reading(tmp_path / "ledger.db")
