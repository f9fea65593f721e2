"""What becomes known of the daemon's work, also where it can't be written down."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.guard.guard import Report
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_schema import SpacePoint
from symbiont_datad.observation import Observation, recorder
from symbiont_datad.report import Action
from tests.process.running import until


def repaired(path: str) -> Report:
    """A repair of the guard's."""
    return Report(
        "directory_recreated", {"path": path}, Action("directory_recreated", path, "layout", "it was missing")
    )


def rename(path: Path, table: str, to: str) -> None:
    """Give a table of a ledger another name."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"alter table {table} rename to {to}")


def test_what_the_ledger_does_not_take_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each repair is logged and counted all the same; when the ledger works again, it has what comes then."""
    counted: list[str] = []
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        rename(path, "actions", "hidden")
        with recorder(lambda: ledger, counted.append) as tell:
            for place in ("state", "logs"):
                tell(repaired(place))
            tell(Report("watch_overflowed", {"reason": "it only tells"}))
            until(lambda: counted[2:], 30.0)
        rename(path, "hidden", "actions")
        with recorder(lambda: ledger, counted.append) as tell:
            tell(repaired("state/agents"))
            until(lambda: ["state/agents"] == [row.path for row in ledger.actions()], 30.0)
    assert ["directory_recreated"] * 2 == counted[:2]
    said = capsys.readouterr().out
    assert (3, 1) == (said.count("directory_recreated "), said.count("ledger_failed"))


def test_figures_of_a_ledger_that_can_not_be_read_are_the_last_ones(tmp_path: Path) -> None:
    """They are marked as such, and are new when it can be read again; without any ledger there are none."""
    observation, path = Observation(), tmp_path / "ledger.db"
    assert (False, ()) == (observation._read(None, 1.0).usable, observation._read(None, 1.0).usage)
    with Ledger(path) as ledger:
        ledger.record_usage([], SpacePoint(1.0, 1, 2, 3, 4))
        assert observation._read(ledger, 2.0).usable
        rename(path, "findings", "hidden")
        assert not observation._read(ledger, 3.0).usable
        rename(path, "hidden", "findings")
        assert observation._read(ledger, 4.0).usable
