"""`clean`, `clean --undo`, and what `events` and `status` say of it, as a user types them."""

import os
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Datad

SETTINGS = """
[retention]
require_snapshot = false
[retention.history]
max_age = "30d"
[retention.logs]
max_age = "30d"
[limits]
high_water = "0%"
low_water = "1%"
[limits.inodes]
high_water = "0%"
low_water = "1%"
"""
DAY = 86_400.0


@pytest.fixture
def typed(datad: Datad, old: Path) -> Datad:
    """Types `symbiont-datad …` with these settings."""
    return lambda *words: datad("--config", "datad.toml", "--root", old, *words)


@pytest.fixture
def old(root: Path, tmp_path: Path) -> Path:
    """A tree with things that are due, and settings that let them go: whatever the machine's own disk has free."""
    (tmp_path / "datad.toml").write_text(SETTINGS)
    for path, age in (("prompts/cache/a\n.json", 40), ("prompts/history/2026-01-01/x", 40), ("logs/system/old.log", 40),
                      ("logs/system/new.log", 1)):  # fmt: skip
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{}")
        os.utime(file, (time.time() - age * DAY, time.time() - age * DAY))
    return root


def test_a_dry_run_prints_file_rule_reason_and_bytes(typed: Datad, old: Path) -> None:
    """Line by line and as JSON; the run does just that."""
    lines = typed("clean", "--dry-run").stdout.splitlines()
    assert (
        "would do directory quarantined: prompts/history/2026-01-01 (2 B): not changed for 40d, over 30d (1 file) "
        "[rule history]" in lines
    )
    assert "would do file removed: prompts/cache/a\\n.json (2 B): not used for 40d, over 30d [rule cache]" in lines
    plan = typed("clean", "--dry-run", "--json").document
    done = typed("clean", "--json").document
    assert plan["actions"] == done["actions"]
    assert {
        "kind": "file_quarantined",
        "path": "logs/system/old.log",
        "rule": "logs",
        "reason": "not changed for 40d, over 30d",
        "bytes": 2,
    } in plan["actions"]


def test_events_tell_what_became_of_a_file_and_undo_brings_it_back(typed: Datad, old: Path) -> None:
    """A file in a day that went whole is found by its own path; after the undo it is no longer in the quarantine."""
    where = "prompts/history/2026-01-01/x"
    cleaned = typed("clean")
    assert "`symbiont-datad clean --undo` brings back" in cleaned.stdout
    told = typed("events", "--path", where).stdout.splitlines()
    assert "quarantined directory prompts/history/2026-01-01" in told[0]
    assert told[1].startswith(f"{where} is in quarantine until ")
    assert told[1].endswith("`symbiont-datad clean --undo` brings it back")
    (held,) = typed("events", "--json", "--path", where).document["quarantined"]
    assert ("history", True) == (held["rule"], held["place"].startswith(".quarantine/"))
    assert "undo: `clean --undo` brings back 2 files" in typed("status").stdout

    planned = typed("clean", "--undo", "--dry-run")
    assert "would do removal undone: prompts/history/2026-01-01" in planned.stdout
    assert not (old / where).exists()
    undone = typed("clean", "--undo", "--json").document
    assert ("undo", 2, 2) == (undone["job"], undone["counts"]["files"], undone["actions_total"])
    assert (old / where).exists()
    told = typed("events", "--path", where).stdout.splitlines()
    assert "brought back prompts/history/2026-01-01" in told[-1]
    again = typed("clean", "--undo")
    assert (1, True) == (again.returncode, "nothing that retention removed is in the quarantine" in again.stderr)


def test_what_is_in_the_way_is_named_and_kept(typed: Datad, old: Path) -> None:
    """Exit code 3, and nothing is replaced."""
    typed("clean")
    (old / "logs/system/old.log").write_bytes(b"mine")
    undone = typed("clean", "--undo")
    assert 3 == undone.returncode
    assert "not undone: logs/system/old.log: something is there again" in undone.stdout
    assert b"mine" == (old / "logs/system/old.log").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["clean", "--run", "20261118T110640Z"], 2, "give it with --undo"),
        (["clean", "--undo", "--run", "20261118T110640Z"], 1, "nothing that retention removed is in the quarantine"),
    ],
)
def test_wrong_words_are_told(typed: Datad, old: Path, words: list[str], code: int, said: str) -> None:
    """With an exit code and a sentence."""
    done = typed(*words)
    assert code == done.returncode
    assert said in done.stderr
