"""The end of a migration: an old place goes when a snapshot holds it, and what hinders that leaves it as it is."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.errors import DatadError, Interrupted
from symbiont_datad.formats.sqlite import MAGIC
from symbiont_datad.jobs.context import JobContext, JobSettings
from symbiont_datad.jobs.finish import Finished, finish
from symbiont_datad.migrate.legacy import Kind
from symbiont_datad.migrate.migration import Refused
from tests.jobs.making import ledger_of, settings_for, stop_after
from tests.jobs.snapshotting import cheap_repository, snapshots
from tests.migrate.making import NOW, Home, agent, context, everything, write


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user's home with an old place, in which there are directories too."""
    home = Home(tmp_path / "user")
    for number in range(3):
        write(home.old / f"{agent(number)}.json", context(f"{number}"))
        write(home.old / f"archives/{agent(number)}/archive_5.json", b"{}")
    return home


@pytest.fixture
def settings(home: Home) -> JobSettings:
    """Settings for the tree in that home, with a repository."""
    return cheap_repository(settings_for(home.root.parent, migration=home.target))


def finished(
    settings: JobSettings,
    *,
    to_quarantine: bool = False,
    dry_run: bool = False,
    stopping: Callable[[], bool] | None = None,
) -> Finished:
    """The end of the migration, as the command has it."""
    with ledger_of(settings) as ledger:
        one = JobContext(settings, ledger, 0, NOW, dry_run, stopping or (lambda: False))
        return finish(one, to_quarantine=to_quarantine)


def test_without_a_migration_there_is_nothing_to_finish(settings: JobSettings, home: Home) -> None:
    """That is said, and the old place stays."""
    before = everything(home.old)
    with pytest.raises(Refused, match="there is no migration to finish"):
        finished(settings)
    assert before == everything(home.old)


def test_a_snapshot_takes_the_old_place(settings: JobSettings, home: Home) -> None:
    """Each file has a row in the ledger, and nothing is left of the place."""
    home.migrate()
    planned = finished(settings, dry_run=True)
    done = finished(settings)
    assert (6, 6, []) == (planned.removed, done.removed, done.left)
    ((name, snapshot),) = snapshots(settings)
    assert (name, ["legacy"], False) == (done.snapshot, snapshot.tags, home.old.exists())
    with ledger_of(settings) as ledger:
        assert 6 == len([row for row in ledger.actions(kinds=["legacy_removed"]) if row.state == "done"])


def test_what_the_snapshot_does_not_hold_stays(settings: JobSettings, home: Home) -> None:
    """A damaged database in it can't be copied whole: the rest goes, and that file is named."""
    broken = write(home.base / "project/vectors/t.lance/data.db", MAGIC + b"nonsense" * 1000)
    write(broken.parent / "_versions/1.manifest", b"m")
    home.migrate(home.source(Kind.VECTORS, home.base / "project/vectors"))
    done = finished(settings)
    assert [(str(broken), "the snapshot does not hold it")] == done.left
    assert [broken] == [path for path in (home.base / "project/vectors").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_asked_to_stop_each_file_is_somewhere(settings: JobSettings, home: Home) -> None:
    """Before the snapshot nothing goes; after it what has gone is in it, and the next run does the rest."""
    home.migrate()
    before = everything(home.old)
    stopped = 0
    while not snapshots(settings):
        try:
            finished(settings, stopping=stop_after(stopped))
        except Interrupted:
            stopped += 1
            assert before == everything(home.old)
    assert stopped > 2
    if home.old.exists():
        finished(settings)
    assert not home.old.exists()


def test_a_place_that_has_not_come_over_as_a_whole_is_left(settings: JobSettings, home: Home) -> None:
    """What is there came over in part only: `migrate` goes on with it first."""
    from symbiont_datad.migrate.migration import alone, migrate_source, open_journal
    from tests.migrate.making import Progress

    with alone(home.target), open_journal(home.target) as journal:
        result = migrate_source(
            home.source(), home.target, journal, Progress(), on_steps=lambda *_: None, stopping=lambda: True
        )
    assert result.interrupted
    before = everything(home.old)
    with pytest.raises(Refused, match="has not come over as a whole"):
        finished(settings, dry_run=True)
    assert before == everything(home.old)


def test_a_place_that_is_gone_is_no_hindrance(settings: JobSettings, home: Home) -> None:
    """Somebody has removed it by hand: no snapshot is made, and the migration is over."""
    home.migrate()
    home.old.rename(home.base / "aside")
    done = finished(settings)
    assert (0, "", []) == (done.removed, done.snapshot, snapshots(settings))
    with pytest.raises(Refused):
        finished(settings, dry_run=False)


def test_into_quarantine_with_its_directories(settings: JobSettings, home: Home) -> None:
    """As it was, path by path; what came to it since comes over before."""
    home.migrate()
    write(home.old / f"{agent(9)}.json", context("since"))
    before = {path.relative_to(home.old): path.read_bytes() for path in home.old.rglob("*") if path.is_file()}
    done = finished(settings, to_quarantine=True)
    (where,) = (home.root / one for one in done.quarantined)
    assert before == {path.relative_to(where): path.read_bytes() for path in where.rglob("*") if path.is_file()}
    assert (7, [], False) == (done.removed, done.left, home.old.exists())


def test_from_another_file_system_nothing_moves_to_quarantine(settings: JobSettings, home: Home) -> None:
    """It would be a copy: the message says what to do instead, and nothing was moved."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    place = home.base / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        write(place / f"contexts/{agent(1)}.json", context("there"))
        home.migrate(home.source(at=place / "contexts"))
        before = everything(place)
        with pytest.raises(DatadError, match="without --quarantine a snapshot takes it"):
            finished(settings, to_quarantine=True)
        assert before == everything(place)
        assert 1 == finished(settings).removed
    finally:
        subprocess.run(["umount", str(place)], check=True)
