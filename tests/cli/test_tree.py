"""`init`, `check`, `events` and `status`, as a user types them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import symbiont_datad
from tests.support import Link, Tree, build_tree, own_environ, read_tree

Command = Callable[..., "subprocess.CompletedProcess[str]"]

CATEGORIES = {
    "state": ("agents", "sessions"),
    "logs": ("system", "agents", "audit"),
    "prompts": ("templates", "history", "cache"),
    "vector_db": ("collections", "indexes", "metadata"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the tree is (to be)."""
    return tmp_path / "home" / "data"


@pytest.fixture
def datad(tmp_path: Path, root: Path) -> Command:
    """Runs `symbiont-datad --root ROOT …` with a home of its own."""
    environ = own_environ()
    environ |= {"HOME": str(tmp_path / "user"), "COLUMNS": "200"}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "symbiont_datad", "--root", str(root), *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)

    return run


def said(done: "subprocess.CompletedProcess[str]") -> Any:
    """The one JSON document on stdout."""
    document = json.loads(done.stdout)
    assert 1 == document["schema"]
    return document


def directories(root: Path) -> set[str]:
    """Every directory below the root, relative to it."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir() and not path.is_symlink()}


def test_init_makes_the_tree_and_a_settings_file(datad: Command, root: Path, tmp_path: Path) -> None:
    """All sixteen directories with mode 0755, and a datad.toml that is good as it stands."""
    done = datad("init")
    assert (0, "") == (done.returncode, done.stderr)
    expected = set(CATEGORIES) | {f"{top}/{name}" for top, names in CATEGORIES.items() for name in names}
    assert expected == directories(root)
    assert {0o755} == {(root / path).stat().st_mode & 0o7777 for path in {*expected, "."}}
    file = tmp_path / "user" / ".symbiont" / "datad.toml"
    assert str(file) in done.stdout
    assert 0 == datad("config", "check").returncode


def test_init_twice_changes_nothing(datad: Command, root: Path, tmp_path: Path) -> None:
    """A second run keeps the user's settings file and makes nothing."""
    datad("init")
    file = tmp_path / "user" / ".symbiont" / "datad.toml"
    file.write_text("backup_count = 9\n")
    done = datad("init", "--json")
    assert ([], False) == (said(done)["actions"], said(done)["config_written"])
    assert "backup_count = 9\n" == file.read_text()


def test_init_dry_run_touches_nothing(datad: Command, root: Path, tmp_path: Path) -> None:
    """It names what it would make."""
    done = datad("init", "--dry-run")
    assert 0 == done.returncode
    assert "vector_db/metadata" in done.stdout
    assert [] == list(tmp_path.iterdir())


@pytest.mark.usefixtures("ample")
def test_check_finds_drift_and_repairs_it_only_when_told(datad: Command, root: Path) -> None:
    """Exit code 3 and no change without --fix; with it everything is right, and the ledger says what was done."""
    datad("init")
    (root / "logs" / "audit").rmdir()
    (root / "state").chmod(0o777)
    (root / "prompts" / "cache").rmdir()
    (root / "prompts" / "cache").write_bytes(b"in the way")
    found = datad("check", "--json")
    assert 3 == found.returncode
    assert {("missing", "logs/audit"), ("mode", "state"), ("obstructed", "prompts/cache")} == {
        (drift["kind"], drift["path"]) for drift in said(found)["drifts"]
    }
    assert not (root / "logs" / "audit").exists()
    planned = datad("check", "--fix", "--dry-run")
    assert 3 == planned.returncode
    assert (root / "prompts" / "cache").is_file()

    fixed = datad("check", "--fix")
    assert 0 == fixed.returncode, fixed.stdout
    assert 0o755 == (root / "state").stat().st_mode & 0o7777
    (item,) = root.glob(".quarantine/*/item")
    assert b"in the way" == item.read_bytes()
    assert "prompts/cache" == json.loads((item.parent / "record.json").read_text())["path"]
    events = said(datad("events", "--json"))["events"]
    assert {"directory_recreated", "permissions_restored", "obstruction_quarantined"} == {one["kind"] for one in events}
    only = said(datad("events", "--json", "--path", str(root / "state")))["events"]
    assert ["state"] == [one["path"] for one in only]


def test_check_of_a_missing_root_says_so(datad: Command, root: Path) -> None:
    """Nothing is made by looking."""
    done = datad("check", "--json")
    assert 3 == done.returncode
    assert "" in {drift["path"] for drift in said(done)["drifts"]}
    assert not root.exists()


@pytest.mark.usefixtures("ample")
def test_check_leaves_links_in_the_tree_alone(datad: Command, root: Path, tmp_path: Path) -> None:
    """A link in a directory's place is moved, not followed: what it leads to is as it was."""
    outside: Tree = {"agents": {"a.json": b"{}"}, "keep": b"1"}
    target = build_tree(tmp_path / "outside", outside)
    datad("init")
    (root / "state" / "agents").rmdir()
    (root / "state" / "sessions").rmdir()
    (root / "state").rmdir()
    (root / "state").symlink_to(target)
    assert 0 == datad("check", "--fix").returncode
    assert outside == read_tree(target)
    assert (root / "state").is_dir()
    assert not (root / "state").is_symlink()
    (item,) = root.glob(".quarantine/*/item")
    assert Link(str(target)) == Link(os.readlink(item))


@pytest.mark.parametrize("words", [["events", "--since", "yesterday"], ["check", "--nope"], ["frobnicate"]])
def test_wrong_words_are_refused(datad: Command, root: Path, words: list[str]) -> None:
    """Exit code 2, a message on stderr, nothing on stdout, nothing made."""
    done = datad(*words)
    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr
    assert not root.exists()


def test_status_and_events_of_nothing(datad: Command, root: Path) -> None:
    """Both work before the first start and leave no trace."""
    assert "no daemon" in datad("status").stdout
    assert said(datad("status", "--json"))["daemon"]["running"] is False
    assert [] == said(datad("events", "--json"))["events"]
    assert not root.parent.exists()


def test_an_error_of_the_system_is_one_line(datad: Command, root: Path) -> None:
    """A parent that is a file: exit code 1, one line, no traceback."""
    root.parent.parent.mkdir(exist_ok=True)
    root.parent.write_bytes(b"")
    done = datad("init")
    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "Traceback" not in done.stderr


def test_help_names_every_command(datad: Command) -> None:
    """`--help` is complete and exits with 0."""
    done = datad("--help")
    assert 0 == done.returncode
    for command in ("run", "init", "check", "status", "events", "sweep", "clean", "config"):
        assert command in done.stdout


def test_the_version_is_told(datad: Command, root: Path) -> None:
    """On one line, and nothing is looked at."""
    done = datad("--version")
    assert (0, f"symbiont-datad {symbiont_datad.__version__}\n") == (done.returncode, done.stdout)
