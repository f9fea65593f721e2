"""`status` and `events`, as a user types them: filters, lines of JSON, and settings that are spoilt."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from symbiont_datad.ledger import Ledger
from symbiont_datad.report import Action
from tests.cli.conftest import Datad
from tests.process.running import until
from tests.service.looking import EVIL, month


@pytest.fixture
def kept(root: Path) -> Path:
    """A data directory after a month; hands back the daemon's own."""
    root.mkdir(parents=True)
    month(root.parent / "datad", time.time())
    return root.parent / "datad"


def test_status_begins_with_the_verdict(datad: Datad, kept: Path) -> None:
    """And its document says the same, whatever is wrong in the settings file."""
    (kept.parent / "datad.toml").write_text("backup_count = 'many'\n")
    first = datad("status").stdout.splitlines()[0]
    assert first.startswith("error: no daemon keeps ")
    shown = datad("status", "--json").document
    assert first == f"error: {shown['verdict']['text']} → {shown['verdict']['command']}"
    assert ["error", "error", "warning"] == [one["severity"] for one in shown["remarks"][1:4]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--kind", "directory_recreated", "--limit", "2"], ["directory_recreated"] * 2),
        (["--severity", "warning", "--since", "12h"], ["job_failed"]),
        (["--severity", "error", "--limit", "3"], ["job_failed"] * 3),
        (["--search", "HAD GONE", "--limit", "1"], ["directory_recreated"]),
        (["--job", "backup"], ["job_failed"]),
        (["--until", "2001-01-01"], []),
        (["--path", EVIL, "--limit", "1"], ["file_removed"]),
    ],
)
def test_filters(datad: Datad, kept: Path, words: list[str], expected: list[str]) -> None:
    """Each by itself; as a document and as lines it is the same."""
    found = datad("events", "--json", *words).document["events"]
    assert expected == [one["kind"] for one in found][: len(expected)]
    lines = datad("events", "--json-lines", *words).stdout.splitlines()
    assert [{"schema": 1, **one} for one in found] == [json.loads(line) for line in lines]


def test_events_are_sentences(datad: Datad, kept: Path) -> None:
    """What was done to what, and why."""
    said = datad("events", "--path", EVIL, "--limit", "1").stdout
    assert said.endswith(f"Z  guard     removed {EVIL} (4.2 KiB): not used for 42d, over 30d\n")


def started(root: Path, *words: str, **further: object) -> "subprocess.Popen[bytes]":
    """A command that goes on."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SYMBIONT_DATAD_")}
    command = [sys.executable, "-m", "symbiont_datad", "--root", str(root), *words]
    return subprocess.Popen(command, env=environ | {"HOME": str(root.parent), "TERM": "xterm"}, **further)  # type: ignore[call-overload,no-any-return]


def test_events_can_be_followed(root: Path, kept: Path, tmp_path: Path) -> None:
    """What happens comes as it happens, and Ctrl-C ends it with 130."""
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = started(root, "events", "--follow", "--json", "--limit", "1", stdout=file)
        try:
            until(lambda: out.read_bytes().count(b"\n") == 1, 30.0)
            with Ledger(kept / "ledger.db") as ledger:
                ledger.record([Action("directory_recreated", "logs/audit", "layout", "gone")], time.time())
            until(lambda: out.read_bytes().count(b"\n") == 2, 30.0)
            process.send_signal(signal.SIGINT)
            assert 130 == process.wait(30)
        finally:
            process.kill()
            process.wait()
    assert "logs/audit" == json.loads(out.read_text().splitlines()[1])["path"]


def test_status_is_watched_on_a_terminal(root: Path, kept: Path) -> None:
    """Drawn over what is there, in colours, within its lines; Ctrl-C ends it with 130 and leaves the terminal be."""
    own, other = pty.openpty()
    process = started(root, "status", "--watch", stdin=other, stdout=other, stderr=other)
    os.close(other)
    seen = b""
    try:
        while seen.count(b"\x1b[H") < 2:
            seen += os.read(own, 65536)
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(own)
    first = seen.split(b"\x1b[H")[1]
    assert b"\x1b[31merror\x1b[0m: no daemon keeps" in first
    assert first.rstrip().endswith(b"\x1b[J")
    assert b"Traceback" not in seen
