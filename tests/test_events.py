"""Events: where they go, and what they look like there."""

import io
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from symbiont_datad import events

SOURCE = Path(events.__file__).parent


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No test leaves its configuration, or a socket, to the next."""
    yield
    events.configure("json", "info", io.StringIO())
    structlog.reset_defaults()


def parse_journal(data: bytes) -> dict[str, str]:
    """An entry of the journal's native protocol, read back as journald does."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            key, _, value = line.partition(b"=")
            data = rest
        else:
            key, (size,) = line, struct.unpack("<Q", rest[:8])
            value, data = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[key.decode()] = value.decode()
    return fields


def test_json_lines_hold_the_event_and_its_fields() -> None:
    """In a container each event is one JSON object on one line."""
    out = io.StringIO()
    events.configure("json", "info", out)
    events.emit("directory_recreated", path="logs/a\nb", reason="nothing was there")
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert ("directory_recreated", "warning", "logs/a\nb") == (entry["event"], entry["level"], entry["path"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", entry["timestamp"])


def test_a_path_that_is_no_text_does_not_stop_the_log() -> None:
    """A lone surrogate in a path is escaped in JSON and in the journal."""
    out = io.StringIO()
    events.configure("json", "info", out)
    events.emit("directory_recreated", path="logs/\udcff")
    assert "logs/\udcff" == json.loads(out.getvalue())["path"]
    assert (
        "logs/\\udcff" == parse_journal(events.encode_journal({"event": "x", "path": "logs/\udcff"}))["SYMBIONT_PATH"]
    )


def test_the_level_holds_back_what_matters_less() -> None:
    """At `warning` an info event says nothing."""
    out = io.StringIO()
    events.configure("json", "warning", out)
    events.emit("daemon_started")
    events.emit("tree_held", path="/x", reason="y")
    assert ["tree_held"] == [json.loads(line)["event"] for line in out.getvalue().splitlines()]


def test_the_terminal_gets_one_readable_line() -> None:
    """On a terminal the event's name and fields stand on one line, without JSON."""
    out = io.StringIO()
    events.configure("console", "info", out)
    events.emit("directory_recreated", path="logs/audit")
    text = out.getvalue()
    assert 1 == text.count("\n")
    assert "directory_recreated" in text
    assert "path=logs/audit" in text
    assert "\x1b" not in text


def test_the_journal_entry_reads_back() -> None:
    """Fields are upper case with a prefix, the priority is syslog's, newlines go in the length-prefixed form."""
    entry = {"event": "permissions_restored", "level": "warning", "path": "a\nb", "count-x": 3, "list": [1, 2]}
    fields = parse_journal(events.encode_journal(entry))
    assert "permissions_restored" == fields["SYMBIONT_EVENT"]
    assert ("4", "symbiont-datad") == (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"])
    assert ("a\nb", "3", "[1, 2]") == (fields["SYMBIONT_PATH"], fields["SYMBIONT_COUNT_X"], fields["SYMBIONT_LIST"])
    assert fields["MESSAGE"].startswith("permissions_restored path=a")
    assert all(re.fullmatch("[A-Z0-9_]+", name) for name in fields)


def test_a_field_can_not_forge_another() -> None:
    """A value with a newline and `KEY=` in it stays one value."""
    fields = parse_journal(events.encode_journal({"event": "x", "path": "a\nPRIORITY=0\nMESSAGE=forged"}))
    assert "6" == fields["PRIORITY"]
    assert "a\nPRIORITY=0\nMESSAGE=forged" == fields["SYMBIONT_PATH"]


def test_security_events_go_to_their_own_sink_as_well() -> None:
    """The audit log gets those that are marked, and only those."""
    heard: list[str] = []
    events.configure("json", "error", io.StringIO())
    events.send_security_events_to(lambda entry: heard.append(str(entry["event"])))
    try:
        events.emit("permissions_restored", path="state")
        events.emit("daemon_started")
    finally:
        events.send_security_events_to(None)
    assert ["permissions_restored"] == heard


def test_a_command_that_tells_itself_is_silent() -> None:
    """After `silence` nothing is said but to the audit log, until the log is configured again."""
    heard: list[str] = []
    out = io.StringIO()
    events.configure("json", "info", out)
    events.silence()
    events.send_security_events_to(lambda entry: heard.append(str(entry["event"])))
    try:
        events.emit("permissions_restored", path="state")
    finally:
        events.send_security_events_to(None)
    assert ("", ["permissions_restored"]) == (out.getvalue(), heard)
    events.configure("json", "info", out)
    events.emit("daemon_started")
    assert "daemon_started" in out.getvalue()


def test_an_unknown_event_is_a_mistake() -> None:
    """Only what `EVENTS` lists can be said."""
    events.configure("json", "info", io.StringIO())
    with pytest.raises(KeyError):
        events.emit("something_happened")


def test_every_event_that_the_source_names_is_listed_and_used() -> None:
    """No event is emitted without an entry, and no entry is left over."""
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "events.py")
    emitted = set(re.findall(r'(?<!\w)(?:emit|Report)\(\s*"(\w+)"', text))
    assert set() == emitted - events.EVENTS.keys()
    assert set() == {name for name in events.EVENTS if f'"{name}"' not in text}


def test_a_log_that_went_away_ends_nothing() -> None:
    """A closed stream, or a pipe without a reader, is no reason to stop keeping the tree."""
    out = io.StringIO()
    events.configure("json", "info", out)
    out.close()
    events.emit("daemon_started")


def test_the_journal_gets_datagrams_when_stderr_is_connected_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`$JOURNAL_STREAM` names stderr's own device and inode: each event is one datagram to the journal's socket."""
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, open(tmp_path / "stderr", "w") as stderr:
        journal.bind(address)
        journal.settimeout(5)
        found = os.fstat(stderr.fileno())
        monkeypatch.setattr(events, "_JOURNAL_SOCKET", address)
        monkeypatch.setattr("sys.stderr", stderr)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        events.configure()
        events.emit("tree_held", path="/srv", reason="not mounted")
        fields = parse_journal(journal.recv(65536))
    assert ("tree_held", "3", "/srv") == (fields["SYMBIONT_EVENT"], fields["PRIORITY"], fields["SYMBIONT_PATH"])


def test_a_stream_of_somebody_else_is_not_taken_for_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `$JOURNAL_STREAM` inherited from a parent whose stderr was the journal: JSON goes to stdout."""
    with open(tmp_path / "stderr", "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        events.configure()
        events.emit("daemon_started")
    assert "daemon_started" == json.loads(capsys.readouterr().out)["event"]


def test_a_journal_that_can_not_be_reached_leaves_a_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The message is not lost while journald restarts."""
    monkeypatch.setattr(events, "_JOURNAL_SOCKET", str(tmp_path / "none"))
    events.configure("journal")
    events.emit("tree_held", path="/srv", reason="not mounted")
    assert "tree_held path=/srv reason=not mounted" in capfd.readouterr().err


def test_the_catalogue_explains_every_event() -> None:
    """Each event has an id of its own that goes with its journal entry, and an entry in the catalogue."""
    ids = {name: events.message_id(name) for name in events.EVENTS}
    assert len(ids) == len(set(ids.values()))
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids.values())
    text = (SOURCE.parent.parent / "systemd/symbiont-datad.catalog").read_text()
    assert list(ids.values()) == re.findall(r"^-- ([0-9a-f]{32})\n", text, re.MULTILINE)
    entry = parse_journal(events.encode_journal({"event": "tree_held"}))
    assert ids["tree_held"] == entry["MESSAGE_ID"]


def test_ids_never_change() -> None:
    """Catalogues that are installed, and searches that people wrote down, know this one."""
    assert "26abfbb08270926eeeb85a96fc16c70a" == events.message_id("directory_recreated")


def test_advice_is_for_events() -> None:
    """No advice is left of an event that is gone."""
    assert events.ADVICE.keys() <= events.EVENTS.keys()
