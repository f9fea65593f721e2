"""What a user types and sees when contexts are damaged: `check`, `sweep`, `events`, `status`."""

import json
import os
import time
from pathlib import Path

import pytest

from symbiont_datad.formats.state_name import backup_name, context_name
from tests import contexts
from tests.cli.conftest import Datad


@pytest.fixture
def broken(root: Path, datad: Datad) -> dict[str, Path]:
    """A tree with three contexts: a whole one, a cut one with a good backup, an empty one without."""
    assert 0 == datad("init").returncode
    agents, old = root / "state/agents", time.time() - 7200

    def place(name: str) -> Path:
        return agents / context_name(contexts.agent_id(name), gzip=True)

    before = contexts.zipped(contexts.context("cut", text="before"))
    files = {
        "whole": (place("whole"), contexts.zipped(contexts.context("whole"))),
        "cut": (place("cut"), contexts.zipped(contexts.context("cut"))[:80]),
        "lost": (place("lost"), b""),
        "backup": (agents / backup_name(contexts.agent_id("cut"), int(old) - 60, gzip=True), before),
    }
    for path, data in files.values():
        path.write_bytes(data)
        os.utime(path, (old, old))
    return {name: path for name, (path, _) in files.items()}


def test_check_says_what_a_sweep_would_do(root: Path, datad: Datad, broken: dict[str, Path]) -> None:
    """Each file with its damage, how bad that is, and what to do; nothing is touched."""
    done = datad("check", "--json")
    found = {finding["path"]: finding for finding in done.of_tree}
    cut, lost = (found[str(broken[name].relative_to(root))] for name in ("cut", "lost"))
    assert (3, 2) == (done.returncode, len(found))
    assert ("context_truncated", "error", "the next sweep heals it") == (cut["kind"], cut["severity"], cut["remedy"])
    assert ("context_empty", "error") == (lost["kind"], lost["severity"])
    assert "it has no backup" in lost["remedy"]
    assert (80, 0) == (broken["cut"].stat().st_size, broken["lost"].stat().st_size)


def test_a_plan_and_its_result_name_the_same(root: Path, datad: Datad, broken: dict[str, Path]) -> None:
    """`sweep --dry-run` prints what `sweep` then does; `events` and `status` explain it."""
    cut = str(broken["cut"].relative_to(root))
    planned = datad("sweep", "--dry-run", "--json").document
    assert [("context_restored", cut)] == [(one["kind"], one["path"]) for one in planned["actions"]]
    assert not (root / ".quarantine").exists()
    done = datad("sweep")
    assert 3 == done.returncode
    assert (
        f"context restored: {cut}: it was truncated: the gzip data ends in the middle; put back as it was"
        in done.stdout
    )
    assert broken["backup"].read_bytes() == broken["cut"].read_bytes()
    (event,) = datad("events", "--json", "--path", cut).document["events"]
    assert planned["actions"][0]["reason"].split("; ")[:2] == event["reason"].split("; ")[:2]
    assert ".quarantine/" in event["reason"]
    assert "serves contexts from memory until its next start" in event["reason"]
    status = datad("status", "--json").document
    assert [event] == status["healed"]
    text = " ".join(datad("status").stdout.split())
    assert f"context restored {cut}" in text
    assert "put back as it was at 2026-11-17T07:20:00Z" in text
    assert ".quarantine/" not in text


def test_healing_is_a_setting(root: Path, datad: Datad, broken: dict[str, Path], tmp_path: Path) -> None:
    """With `heal = "report"` the sweep tells of the damage, and of the backup that there is."""
    (tmp_path / "datad.toml").write_text('[state]\nheal = "report"\n')
    done = datad("--config", tmp_path / "datad.toml", "sweep")
    assert 3 == done.returncode
    assert broken["backup"].name in done.stdout
    assert 80 == broken["cut"].stat().st_size
    (tmp_path / "datad.toml").write_text('[state]\nheal_quarantine = true\ncompression = "on"\n')
    datad("--config", tmp_path / "datad.toml", "sweep")
    (cell,) = [cell for cell in (root / ".quarantine").iterdir() if (cell / "item").stat().st_size == 0]
    record = json.loads((cell / "record.json").read_text())
    assert ("context_quarantined", str(broken["lost"].relative_to(root))) == (record["kind"], record["path"])
    assert 0 == datad("sweep").returncode
