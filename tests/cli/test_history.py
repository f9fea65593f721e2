"""`versions` and `diff`, as a user types them."""

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Datad, Shelf
from tests.cli.test_restore import damage, packs
from tests.support import build_tree

NOON = 1_795_176_000.0  # 2026-11-20 12:00 UTC
FILE = "state/agents/a.json.gz"


def context(**values: object) -> bytes:
    """A context as the runtime writes it: pretty-printed, gzip."""
    return gzip.compress(json.dumps({"agent_id": "a", **values}, indent=2).encode(), mtime=0)


@pytest.fixture
def four(root: Path, shelf: Shelf) -> list[str]:
    """Four snapshots, an hour apart, in which a context has two contents: one, two, two, one."""
    build_tree(root, {"state": {"agents": {}}, "logs": {"b.log": b"first\nsecond\n"}})
    shelf.make()
    ids = []
    for number, goal in enumerate(["rest", "work", "work", "rest"]):
        (root / FILE).write_bytes(context(goal=goal))
        ids.append(shelf.add(root, at=NOON + 3600 * number))
    return ids


def test_versions_are_the_distinct_contents(datad: Datad, root: Path, four: list[str]) -> None:
    """Newest first, each once in a row, with the snapshots that hold it; `*` marks what is there now."""
    done = datad("versions", FILE)
    assert (0, "") == (done.returncode, done.stderr)
    head, *rows = done.stdout.splitlines()
    assert ["snapshot", "time", "modified", "size", "snapshots"] == head.split()
    assert [["*", four[3][:8], "1"], [four[2][:8], "2"], [four[0][:8], "1"]] == [
        [*row.split()[: 1 + row.startswith("*")], row.split()[-1]] for row in rows
    ]
    assert 80 >= max(map(len, done.stdout.splitlines()))
    (root / FILE).write_bytes(context(goal="sleep"))
    assert "what is there now is none of these" == datad("versions", root / FILE).stdout.splitlines()[-1]


def test_versions_as_json(datad: Datad, four: list[str]) -> None:
    """Whole ids; every snapshot that holds a version is named."""
    found = datad("versions", FILE, "--json").document["versions"]
    assert [[four[3]], [four[2], four[1]], [four[0]]] == [
        [one["id"] for one in version["snapshots"]] for version in found
    ]
    assert [True, False, False] == [version["current"] for version in found]
    assert [len(context(goal="rest"))] * 3 == [version["bytes"] for version in found]
    assert "2026-11-20T15:00:00.000Z" == found[0]["time"]


def test_a_file_that_is_gone_still_has_versions(datad: Datad, root: Path, four: list[str]) -> None:
    """None of them is what is there now."""
    (root / FILE).unlink()
    found = datad("versions", FILE, "--json").document["versions"]
    assert [False, False, False] == [version["current"] for version in found]


def test_versions_of_other_hosts_are_not_mixed_in(
    datad: Datad, root: Path, shelf: Shelf, four: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this host has made snapshots, only those count."""
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    (root / FILE).write_bytes(context(goal="elsewhere"))
    shelf.add(root, at=NOON + 86400, host="there")
    assert four[3] == datad("versions", FILE, "--json").document["versions"][0]["snapshot"]


@pytest.mark.parametrize("path", ["state/agents/nobody.json", "nowhere/at/all", "state/agents"])
def test_versions_of_what_never_was(datad: Datad, four: list[str], path: str) -> None:
    """Exit code 1, one line."""
    done = datad("versions", path)
    assert (1, "", f"symbiont-datad: {path}: is in no snapshot\n") == (done.returncode, done.stdout, done.stderr)


def test_a_path_outside_of_the_data_directory_is_refused(datad: Datad, four: list[str]) -> None:
    """Exit code 1, one line, for an absolute path and for one that climbs out."""
    for path in ("/etc/passwd", "../../../etc/passwd"):
        done = datad("versions", path)
        assert (1, "") == (done.returncode, done.stdout)
        assert "is not in the data directory" in done.stderr


def test_a_context_is_compared_value_by_value(datad: Datad, root: Path, four: list[str]) -> None:
    """gzip is opened; the paths of changed values are told; A and B are prefixes, `latest`, or now."""
    done = datad("diff", FILE, four[0][:8], four[1][:8])
    assert (0, "") == (done.returncode, done.stderr)
    assert [
        f"--- {four[0][:8]} 2026-11-20 12:00Z",
        f"+++ {four[1][:8]} 2026-11-20 13:00Z",
        '~ goal: "rest" → "work"',
    ] == done.stdout.splitlines()
    (root / FILE).write_bytes(context(goal="sleep", mood="good"))
    now = datad("diff", FILE, "latest")
    assert ["+++ now", '~ goal: "rest" → "sleep"', '+ mood: "good"'] == now.stdout.splitlines()[1:]


def test_diff_as_json(datad: Datad, four: list[str]) -> None:
    """The changes as records, the two sides with their snapshots."""
    document = datad("diff", FILE, four[0], "latest", "--json").document
    assert (True, []) == (document["equal"], document["changes"])
    document = datad("diff", FILE, four[0], four[1], "--json").document
    assert (four[0], four[1], False) == (document["a"]["snapshot"], document["b"]["snapshot"], document["equal"])
    assert [{"path": "goal", "kind": "changed", "before": "rest", "after": "work"}] == document["changes"]


def test_text_is_compared_line_by_line(datad: Datad, root: Path, four: list[str]) -> None:
    """A unified diff; what would do something to a terminal is escaped."""
    (root / "logs" / "b.log").write_bytes(b"first\nthird \x1b[31m\n")
    lines = datad("diff", "logs/b.log", "latest").stdout.splitlines()
    assert ["@@ -1,2 +1,2 @@", " first", "-second", "+third \\x1b[31m"] == lines[2:]


def test_equal_files_are_said_to_be_equal(datad: Datad, four: list[str]) -> None:
    """Without a diff."""
    done = datad("diff", FILE, "latest")
    assert f"{FILE} is the same in {four[3][:8]} 2026-11-20 15:00Z and now\n" == done.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["logs", "latest"], "logs: is no file there, but a directory"),
        (["nope.json", "latest"], "nope.json: is in no snapshot"),
        ([FILE, "xyz"], "'xyz' is neither the beginning of a snapshot's id (0-9, a-f) nor `latest`"),
    ],
)
def test_what_cant_be_compared(datad: Datad, four: list[str], words: list[str], why: str) -> None:
    """Exit code 1, one line that says why."""
    done = datad("diff", *words)
    assert (1, "", f"symbiont-datad: {why}\n") == (done.returncode, done.stdout, done.stderr)


def test_a_damaged_pack_is_named(datad: Datad, shelf: Shelf, four: list[str]) -> None:
    """Flipped bits in stored data: exit code 1 and the pack's name, never another content."""
    for pack in sorted((shelf.path / "data").rglob("*")):
        if pack.is_file():
            content = bytearray(pack.read_bytes())
            content[::64] = bytes(byte ^ 1 for byte in content[::64])
            pack.chmod(0o600)
            pack.write_bytes(content)
    done = datad("diff", FILE, four[0])
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "data/" in done.stderr


def test_a_snapshot_that_can_not_be_looked_into_is_named(
    datad: Datad, root: Path, shelf: Shelf, four: list[str]
) -> None:
    """The versions of the others are told all the same: exit code 3."""
    before = packs(shelf)
    (root / FILE).write_bytes(context(goal="lost"))
    lost = shelf.add(root, at=NOON + 86400)
    for pack in packs(shelf) - before:
        damage(pack)
    done = datad("versions", FILE)
    assert (3, 4) == (done.returncode, len(done.stdout.splitlines()[1:]))
    assert done.stderr.startswith(f"symbiont-datad: snapshot {lost[:8]}: ")
    assert [lost] == [one["id"] for one in datad("versions", FILE, "--json").document["unread"]]


def test_what_is_too_large_is_not_compared(datad: Datad, four: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is named with its size; whether they are equal is not known."""
    monkeypatch.setattr("symbiont_datad.formats.diff.LARGEST", 10)
    done = datad("diff", FILE, four[0], four[1])
    assert (0, 1) == (done.returncode, len(done.stdout.splitlines()))
    assert [True] * 3 == [text in done.stdout for text in (four[0][:8], four[1][:8], ") are too large to compare")]
    assert datad("diff", FILE, four[0], four[1], "--json").document["equal"] is None
