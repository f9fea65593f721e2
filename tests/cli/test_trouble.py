"""Commands where files are damaged, closed, or somebody else's: one line, and an exit code that says how bad it is."""

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.cli.jobs import stoppable
from symbiont_datad.ledger import Ledger
from tests.cli.conftest import Datad
from tests.cli.test_restore import small_disk
from tests.support import build_tree


def test_a_ledger_that_lacks_a_table(datad: Datad, root: Path) -> None:
    """Exit code 1."""
    ledger = root.parent / "datad" / "ledger.db"
    Ledger(ledger).close()
    with closing(sqlite3.connect(ledger)) as db:
        db.execute("drop table actions")
    done = datad("events")
    assert (1, f"symbiont-datad: {ledger}: no such table: actions\n") == (done.returncode, done.stderr)


def test_a_ledger_that_can_not_be_opened_keeps_no_job_from_its_work(datad: Datad, root: Path) -> None:
    """It is said that nobody will find this run in it."""
    datad("init")
    (root.parent / "datad" / "ledger.db").mkdir(parents=True)
    done = datad("rotate")
    assert (0, True) == (
        done.returncode,
        "ledger.db: can't be opened, so `events` won't tell of this run" in done.stderr,
    )


def test_events_of_nothing(datad: Datad, root: Path) -> None:
    """Said in words, with the time that was asked for; of a path nobody may look at nothing more is told."""
    datad("init")
    Ledger(root.parent / "datad" / "ledger.db").close()
    assert "nothing was done\n" == datad("events").stdout
    assert "nothing was done since 1d\n" == datad("events", "--since", "1d", "--path", "state/x").stdout
    build_tree(root, {".quarantine": {}})
    (root / ".quarantine").rmdir()
    (root / ".quarantine").write_bytes(b"no directory")
    assert "nothing was done\n" == datad("events", "--path", "state/x").stdout


def test_a_root_that_only_the_settings_can_tell(datad: Datad, tmp_path: Path) -> None:
    """`~root` is somebody's home, which takes the whole loader to know."""
    config = tmp_path / "datad.toml"
    config.write_text(f'root_data_dir = "~root/{tmp_path.name}/data"\ndaemon_dir = "{tmp_path}/own"\n')
    Ledger(tmp_path / "own" / "ledger.db").close()
    assert "nothing was done\n" == datad("--config", config, "events").stdout


def test_a_tree_that_can_not_be_made_is_an_error(datad: Datad, root: Path) -> None:
    """On a file system that nothing can be written to: exit code 1, and each directory that is missing."""
    root.parent.mkdir(parents=True)
    with small_disk(root, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", root], check=True, timeout=10)
        done = datad("init")
    assert (1, True) == (done.returncode, "Read-only file system" in done.stderr)


def test_the_second_signal_ends_a_job_at_once() -> None:
    """The first one has it end between two steps; afterwards signals are as they were before."""
    before = signal.getsignal(signal.SIGTERM)
    with stoppable() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert before == signal.getsignal(signal.SIGTERM)


def test_a_bundle_that_can_not_be_written(datad: Datad, root: Path, tmp_path: Path) -> None:
    """Exit code 1, with where it was to be."""
    datad("init")
    done = datad("check", "--bundle", tmp_path / "none" / "b.tar.gz")
    assert (1, True) == (done.returncode, f"--bundle {tmp_path}/none/b.tar.gz: can't be written: " in done.stderr)
