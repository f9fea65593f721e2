"""The job that migrates: what it would do, what it does when it is asked to stop, and what it says of a place."""

from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.migrate.target import Compat
from symbiont_datad.report import Outcome
from tests.jobs.making import ledger_of, run, settings_for, stop_after
from tests.migrate.making import Home, agent, context, everything, lost, write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's home with an old place of contexts, in a project from which the job is run."""
    home = Home(tmp_path / "user")
    for number in range(3):
        write(home.old / f"{agent(number)}.json", context(f"{number}"))
    monkeypatch.chdir(home.base / "project")
    monkeypatch.setenv("HOME", str(home.base))
    return home


def settings_of(home: Home, compat: Compat = Compat.NONE) -> JobSettings:
    """Settings for the tree in that home."""
    return settings_for(home.root.parent, migration=replace(home.target, compat=compat))


def test_a_dry_run_is_what_is_done(home: Home) -> None:
    """The same actions, and nothing is touched before."""
    settings = settings_of(home)
    before = everything(home.base)
    planned = run("migrate", settings, dry_run=True).report
    assert before == {path: seen for path, seen in everything(home.base).items() if "/datad" not in path}
    done = run("migrate", settings).report
    assert (planned.actions_total, 3) == (done.actions_total, done.counts["files"])
    assert [] == lost(home.old, home.root)


def test_asked_to_stop_it_goes_on_later(home: Home) -> None:
    """What came over stays, and the old place is as it was."""
    settings = settings_of(home)
    before = everything(home.old)
    looks = 0
    while run("migrate", settings, stopping=stop_after(looks)).report.outcome is Outcome.INTERRUPTED:
        looks += 1
        assert before == everything(home.old)
    assert looks > 0
    assert [] == lost(home.old, home.root)
    with ledger_of(settings) as ledger:
        assert 3 == len({row.path for row in ledger.actions(kinds=["context_converted"])})


def test_a_place_that_can_not_become_a_link_is_told_of(home: Home) -> None:
    """Something in it stays behind: it goes on as a directory, and the finding says why."""
    write(home.old / "schemapin_keys.json", b"secret key")
    report = run("migrate", settings_of(home, Compat.SYMLINK)).report
    assert (3, True) == (report.counts["files"], home.old.is_dir() and not home.old.is_symlink())
    assert Outcome.LEFT is report.outcome
    assert any(str(home.old) in one.path and "link" in one.detail for one in report.findings)
