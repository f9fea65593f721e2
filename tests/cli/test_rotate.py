"""`rotate`, as a user types it; what `events` and `check` say afterwards."""

from pathlib import Path

import pytest

from symbiont_datad.jobs import rotation
from tests.cli.conftest import Datad
from tests.jobs.log_writing import archives_of, assert_stream, holding, lines
from tests.support import build_tree


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "SETTLE_S", 0.01)


@pytest.fixture
def log(root: Path, datad: Datad, tmp_path: Path) -> Path:
    """A log that is due, in a tree that is as declared."""
    (tmp_path / "datad.toml").write_text('[logs]\nrotate_at = "10KiB"\n')
    assert 0 == datad("init").returncode
    build_tree(root, {"logs": {"agents": {"a.log": lines(500)}, "audit": {"security.log": lines(500)}}})
    return root / "logs/agents/a.log"


def test_the_plan_is_what_is_done(datad: Datad, log: Path, tmp_path: Path) -> None:
    """A dry run prints each log, why, which way and how much, and touches nothing; then that is done."""
    words = ("--config", tmp_path / "datad.toml", "rotate")
    planned = datad(*words, "--dry-run")
    assert (0, "") == (planned.returncode, planned.stderr)
    first, second, *_ = planned.stdout.splitlines()
    assert "would do log rotated: logs/agents/a.log (" in first
    assert "rotated from 10 KiB; by rename, because nobody has it open; archive a.log.2" in first
    assert "logs/audit/security.log" in second
    assert "rotate (dry run): 2 actions, " in planned.stdout
    assert (lines(500), []) == (log.read_bytes(), archives_of(log))
    document = datad(*words, "--dry-run", "--json").document
    done = datad(*words, "--json").document
    assert document.keys() == done.keys()
    assert (True, False, "rotate", "done") == (document["dry_run"], done["dry_run"], done["job"], done["outcome"])
    rotations = [action for action in done["actions"] if action["kind"] == "log_rotated"]
    assert [(one["path"], one["rule"], one["bytes"]) for one in document["actions"]] == [
        (one["path"], one["rule"], one["bytes"]) for one in rotations
    ]
    assert (2, 2) == (done["counts"]["rotated"], done["counts"]["stored"])
    assert_stream(log, 500)
    assert "nothing to do" in datad(*words).stdout


def test_a_log_that_is_left_alone_is_named(datad: Datad, log: Path, tmp_path: Path) -> None:
    """Exit code 3, and the finding says which process it is and what to do."""
    with holding(log, "place") as pid:
        done = datad("--config", tmp_path / "datad.toml", "rotate")
    assert 3 == done.returncode
    assert f"warning: log left alone: logs/agents/a.log: process {pid} (" in done.stdout
    assert "open it for appending (in a shell: >> instead of >)" in done.stdout


def test_events_tell_what_became_of_a_log(datad: Datad, log: Path, tmp_path: Path) -> None:
    """By its own path: why, which way, and which archive."""
    datad("--config", tmp_path / "datad.toml", "rotate")
    told = datad("events", "--path", "logs/agents/a.log").stdout
    assert "rotated log logs/agents/a.log (" in told
    assert archives_of(log)[0].stem in told


@pytest.mark.usefixtures("ample")
def test_check_finds_an_audit_archive_that_was_changed(datad: Datad, log: Path, root: Path, tmp_path: Path) -> None:
    """All good after a rotation; a changed archive and a removed one are errors."""
    datad("--config", tmp_path / "datad.toml", "rotate")
    assert "all good" in datad("check").stdout
    (archive,) = archives_of(root / "logs/audit/security.log")
    archive.write_bytes(archive.read_bytes() + b"x")
    done = datad("check")
    assert 3 == done.returncode
    assert f"error: audit archive altered: logs/audit/{archive.name}: its SHA-256 is " in done.stdout
    archive.unlink()
    (finding,) = datad("check", "--json").of_tree
    assert ("audit_archive_missing", "error") == (finding["kind"], finding["severity"])
