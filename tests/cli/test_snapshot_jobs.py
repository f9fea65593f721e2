"""`backup`, `verify` and `prune`, as a user types them."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from symbiont_datad.restic.lock import Identity, hold
from tests.cli.conftest import Datad, Shelf
from tests.cli.test_restore import damage, packs, small_disk
from tests.support import Tree, build_tree, own_environ, read_tree

DATA: Tree = {"state": {"agents": {"a.json": b"{}"}}, "logs": {"a.log": b"line\n" * 100}}


@pytest.fixture
def data(root: Path) -> Path:
    """A small data directory."""
    return build_tree(root, DATA)


def test_a_backup_makes_the_repository_and_a_snapshot(datad: Datad, data: Path, shelf: Shelf, tmp_path: Path) -> None:
    """It is listed, and restores."""
    done = datad("backup")
    assert (0, "") == (done.returncode, done.stderr)
    assert "backup: 1 action, " in done.stdout
    (snapshot,) = datad("snapshots", "--json").document["snapshots"]
    assert (["backup"], [str(data)], 2) == (snapshot["tags"], snapshot["paths"], snapshot["files"])
    assert 0 == datad("restore", "latest", "--target", "out").returncode
    assert DATA == read_tree(tmp_path / "out")


def test_a_rehearsed_backup_writes_nothing(datad: Datad, data: Path, shelf: Shelf) -> None:
    """No repository is made; it says what a backup would hold."""
    document = datad("backup", "--dry-run", "--json").document
    assert (True, "summary", 2) == (document["dry_run"], document["message_type"], document["counts"]["files"])
    assert not shelf.path.exists()


def test_prune_tells_what_is_kept_and_why(datad: Datad, data: Path, tmp_path: Path) -> None:
    """The plan and the result have the same shape; what the settings don't keep goes."""
    for number in range(3):
        (data / "logs" / "a.log").write_bytes(os.urandom(50_000))
        assert 0 == datad("backup").returncode, number
    (tmp_path / "datad.toml").write_text("backup_count = 1\n")
    planned = datad("--config", tmp_path / "datad.toml", "prune", "--dry-run", "--json").document
    assert 3 == len(datad("snapshots", "--json").document["snapshots"])
    done = datad("--config", tmp_path / "datad.toml", "prune", "--json").document
    (left,) = datad("snapshots", "--json").document["snapshots"]
    assert [{"id": left["id"], "time": left["time"], "reasons": ["last snapshot"]}] == done["kept"] == planned["kept"]
    assert 2 == done["counts"]["forgotten"] == planned["counts"]["forgotten"]
    assert 100_000 < done["counts"]["freed"]
    assert planned.keys() == done.keys()
    told = datad("prune").stdout.splitlines()
    assert ["kept", "time", "tags", "because"] == told[0].split()
    assert told[1].endswith("last snapshot")


def test_verify_finds_the_damage(datad: Datad, data: Path, shelf: Shelf) -> None:
    """Exit code 0 on a whole repository; 1 with the pack's name, what it hurts and what to do."""
    (data / "logs" / "a.log").write_bytes(os.urandom(50_000))
    datad("backup")
    good = datad("verify", "--read-data")
    assert (0, "") == (good.returncode, good.stderr)
    assert "verify: all good in " in good.stdout
    pack = max(packs(shelf), key=lambda one: one.stat().st_size)
    damage(pack)
    done = datad("verify", "--read-data")
    assert (1, "") == (done.returncode, done.stderr)
    told = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert any(f"data/{pack.name}: " in line for line in told)
    snapshot = datad("snapshots", "--json").document["snapshots"][0]["short_id"]
    assert any(snapshot in line and "a.log" in line for line in told)


@pytest.mark.parametrize("words", [["--subset", "x"], ["--subset", "0%"], ["--read-data", "--subset", "5%"]])
def test_what_to_verify_is_checked_first(datad: Datad, shelf: Shelf, words: list[str]) -> None:
    """Exit code 2, one line, before the repository is asked for."""
    done = datad("verify", *words)
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))


@pytest.mark.parametrize("words", [["verify"], ["prune"], ["prune", "--dry-run"]])
def test_without_a_repository(datad: Datad, data: Path, shelf: Shelf, words: list[str]) -> None:
    """Exit code 10; none is made."""
    done = datad(*words)
    assert (10, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert not shelf.path.exists()


@pytest.mark.parametrize("words", [["backup"], ["verify"], ["prune"]])
def test_with_a_wrong_password(
    datad: Datad, data: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Exit code 12, also as JSON; the repository is as it was."""
    shelf.make()
    before = read_tree(shelf.path)
    monkeypatch.setenv("SYMBIONT_DATAD_BACKUP__PASSWORD", "wrong")
    done = datad(*words)
    assert (12, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    told = datad(*words, "--json")
    assert (12, "failed") == (told.returncode, told.document["outcome"])
    assert before == read_tree(shelf.path)


@pytest.mark.parametrize("words", [["backup"], ["verify"], ["prune"]])
def test_while_somebody_else_has_the_repository_to_himself(
    datad: Datad, data: Path, shelf: Shelf, words: list[str]
) -> None:
    """Exit code 11 and who it is; nothing is written."""
    shelf.make()
    with hold(shelf.open(), Identity("elsewhere", "ada", 4711, 1000, 1000), exclusive=True, settle_s=0.0):
        before = read_tree(shelf.path)
        done = datad(*words)
        assert (11, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert "locked exclusively by ada@elsewhere (process 4711)" in done.stderr
        assert before == read_tree(shelf.path)


def test_a_backup_onto_a_full_disk(datad: Datad, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and one line; the snapshots that were there restore."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        monkeypatch.setenv("SYMBIONT_DATAD_BACKUP__REPOSITORY", str(disk / "backups"))
        assert 0 == datad("backup").returncode
        (data / "logs" / "big.log").write_bytes(os.urandom(4 << 20))
        done = datad("backup")
        assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert "disk" in done.stderr
        assert 1 == len(datad("snapshots", "--json").document["snapshots"])
        assert 0 == datad("restore", "latest", "--target", "out").returncode
        assert DATA == read_tree(tmp_path / "out")


def test_an_unread_file_is_exit_code_3(datad: Datad, data: Path, shelf: Shelf, tmp_path: Path) -> None:
    """The snapshot is made, says that it is incomplete, and the file is named."""
    # Not even root can read through a name that leads deeper than the format goes.
    deep = data / "logs"
    for _ in range(140):
        deep = deep / "d"
    deep.mkdir(parents=True)
    done = datad("backup", "--json")
    assert (3, "left") == (done.returncode, done.document["outcome"])
    (finding,) = done.document["findings"]
    assert ("not_in_snapshot", True) == (finding["kind"], finding["path"].startswith("logs/d/d/"))
    assert ["backup", "incomplete"] == datad("snapshots", "--json").document["snapshots"][0]["tags"]


def test_progress_on_a_terminal(root: Path, data: Path, tmp_path: Path) -> None:
    """A bar on stderr when that is a terminal, with bytes, rate and files; stdout is what it is without one."""
    (data / "logs" / "big.bin").write_bytes(os.urandom(96 << 20))
    environ = own_environ()
    environ |= {"HOME": str(tmp_path / "user"), "COLUMNS": "80", "TERM": "xterm"}
    command = [sys.executable, "-m", "symbiont_datad", "backup"]
    controller, terminal = pty.openpty()
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        drawn = b""
        try:
            while chunk := os.read(controller, 65536):
                drawn += chunk
        except OSError:  # the other end is closed
            pass
        stdout = process.stdout.read() if process.stdout else b""
    os.close(controller)
    assert 0 == process.returncode
    assert stdout.startswith(b"backup: 1 action")
    assert b"\x1b" not in stdout
    assert re.search(rb"[0-9] (B|KiB|MiB) .*[0-9] files", drawn), drawn


@pytest.mark.usefixtures("ample")
def test_progress_as_lines_of_json(root: Path, data: Path, tmp_path: Path) -> None:
    """Every line is a document; those before the last tell how far it is."""
    (data / "logs" / "big.bin").write_bytes(os.urandom(64 << 20))
    environ = own_environ()
    environ |= {"HOME": str(tmp_path / "user")}
    command = [sys.executable, "-m", "symbiont_datad", "backup", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    *status, last = map(json.loads, done.stdout.splitlines())
    assert (0, "") == (done.returncode, done.stderr)
    assert ("summary", "done") == (last["message_type"], last["outcome"])
    assert {"status"} >= {line["message_type"] for line in status}
    assert all(line["bytes"] >= 0 and line["phase"] for line in status)
