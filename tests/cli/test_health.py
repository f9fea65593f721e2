"""`health`, asked in ways that are not the usual one. (What a daemon answers is in tests/process/test_health.py.)"""

import os
from pathlib import Path

from tests.cli.conftest import Datad, Done
from tests.conftest import AsNobody


def test_nobody_is_there(datad: Datad) -> None:
    """Exit code 1 and one line, however the question is put."""
    for words in ([], ["--ready"], ["--ready", "--ready"], ["--startup", "--json", "--startup"]):
        done = datad("health", *words)
        assert 1 == done.returncode
        assert "no daemon is running" == (done.document["reason"] if "--json" in words else done.stderr[16:-1])


def test_two_questions_at_once_are_refused(datad: Datad) -> None:
    """One probe has one answer."""
    done = datad("health", "--live", "--ready")
    assert (2, True) == (done.returncode, "one of --live, --ready and --startup" in done.stderr)


def test_settings_are_understood_in_full_where_a_look_is_not_enough(datad: Datad, tmp_path: Path) -> None:
    """`~root` is somebody's home; a settings file that is wrong is named, in one line."""
    config = tmp_path / "datad.toml"
    config.write_text('root_data_dir = "~root/nowhere/data"\n')
    done = datad("--config", config, "health")
    assert (1, "symbiont-datad: no daemon is running\n") == (done.returncode, done.stderr)
    config.write_text('root_data_dir = "~root/nowhere/data"\nbackup_count = "many"\n')
    done = datad("--config", config, "health", "--json")
    assert (1, False) == (done.returncode, done.document["healthy"])
    assert "backup_count" in done.document["reason"]
    assert 1 == len(datad("--config", config, "health").stderr.splitlines())


def test_files_of_somebody_else_are_not_judged(datad: Datad, as_nobody: AsNobody, open_path: Path) -> None:
    """It is said that they can't be read, and nothing is said of the daemon."""
    (open_path / "data").mkdir()
    (open_path / "datad" / "locks").mkdir(parents=True)
    (open_path / "datad").chmod(0o700)

    def ask() -> Done:
        os.environ["HOME"] = str(open_path)  # of the child alone
        return datad("--root", open_path / "data", "health")

    done = as_nobody(ask)
    assert (1, "symbiont-datad: its own files can't be read: Permission denied\n") == (done.returncode, done.stderr)
