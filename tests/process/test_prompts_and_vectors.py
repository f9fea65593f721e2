"""A daemon that runs: templates become versions, collections are described and optimised on the timetable."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.jobs.collecting import vector_table
from tests.process.running import running, until
from tests.process.test_backup import restic

SETTINGS = 'auto_save_interval = "1h"\n[backup]\nschedule = "1d"\n[prompts]\ndebounce = "300ms"\n'


@pytest.mark.slow
def test_a_saved_template_is_a_version_seconds_later(tmp_path: Path) -> None:
    """Without a sweep, told of by an event; in a directory that is new as well. Saves in a row are one version."""
    with running(tmp_path, SETTINGS) as daemon:
        for job in ("sweep", "backup"):
            daemon.wait_for_event("job_finished", 30.0, job=job)
        templates = daemon.root / "prompts/templates"
        (templates / "triage.md").write_text("one")
        daemon.wait_for_event("snapshot_created", 20.0, job="templates")
        (templates / "agents").mkdir()
        for number in range(300):
            (templates / "agents/a.md").write_text(f"version {number}")
            time.sleep(0.001)
        until(lambda: _holds(daemon.events("snapshot_created"), 2), 20.0)
        (templates / "agents/a.md").write_text("the last one")
        until(lambda: len(daemon.recorded("snapshot_created")) >= 4, 20.0)
        ended = [one for one in daemon.events("job_finished") if one["job"] == "templates"]
        assert len(ended) < 20
        assert [] == daemon.events("job_failed")
        assert 0 == daemon.stop()


def _holds(created: list[dict[str, object]], files: int) -> bool:
    return any(one["job"] == "templates" and one["files"] == files for one in created)


@pytest.mark.slow
def test_collections_are_kept_on_the_timetable(tmp_path: Path) -> None:
    """Described, optimised after a snapshot, described again; exposure goes to the audit log; restic reads all."""
    path = vector_table(tmp_path / "data/vector_db/collections/notes/db")
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    size = path.stat().st_size
    often = '[vector_db]\nmetadata_interval = "1s"\noptimize_schedule = "2s"\n'
    with running(tmp_path, SETTINGS + often) as daemon:
        daemon.wait_for_event("collection_optimized", 60.0)
        assert path.stat().st_size < size / 3
        description = daemon.root / "vector_db/metadata/notes.json"

        def described() -> bool:
            return description.exists() and json.loads(description.read_bytes())["last_optimised"] is not None

        until(described, 30.0)
        (daemon.root / "vector_db/collections/notes/link").symlink_to("/etc/passwd")
        daemon.wait_for_event("collection_exposed", 30.0)
        audit = daemon.root / "logs/audit/security.log"
        until(lambda: audit.exists() and b"collection_exposed" in audit.read_bytes(), 30.0)
        (daemon.root / "prompts/templates/t.md").write_text("one")
        daemon.wait_for_event("snapshot_created", 30.0, job="templates")
        assert [] == daemon.events("job_failed")
        assert 0 == daemon.stop()
    assert "no errors were found" in restic(tmp_path, "check", "--read-data")
    for tag in ("templates", "optimize"):
        assert tag in restic(tmp_path, "snapshots", "--tag", tag)
    assert "prompts/templates/t.md" in restic(tmp_path, "ls", "latest", "--tag", "templates")
