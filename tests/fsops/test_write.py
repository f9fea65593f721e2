"""Files are written whole or not at all, and what is moved aside is kept with a record of why."""

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.fsops.root import QUARANTINE, Tree, pinned
from symbiont_datad.fsops.write import append_line, describe, quarantine, write_atomic
from tests.conftest import AsNobody
from tests.guard.keeping import NOW
from tests.support import NOBODY, Link, build_tree, read_tree

CELL = "20261118T110640Z"


def write(directory: Path, name: str, data: bytes, mode: int = 0o600) -> None:
    """Write one file."""
    with pinned(str(directory)) as fd:
        write_atomic(fd, name, data, mode)


@pytest.mark.parametrize("name", ["record.json", "x" * 255, "ü" * 127, os.fsdecode(b"\xff\xfe"), "with blank"])
@pytest.mark.parametrize("data", [b"", b"x", bytes(3_000_000)], ids=["nothing", "a byte", "3 MB"])
def test_a_file_is_written_whole(tmp_path: Path, name: str, data: bytes) -> None:
    """Any name and any length arrive, with exactly the mode asked for, in place of what was there, and nothing else."""
    before = os.umask(0o077)
    try:
        write(tmp_path, name, b"old", 0o644)
        write(tmp_path, name, data, 0o640)
    finally:
        os.umask(before)
    assert {name: data} == read_tree(tmp_path)
    assert 0o640 == stat.S_IMODE((tmp_path / name).stat().st_mode)


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step fails, the old file is as it was, and there is no temporary one and no descriptor left."""
    (tmp_path / "file").write_bytes(b"old")
    before = len(os.listdir("/proc/self/fd"))

    def failing(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path, "file", b"new")
    assert {"file": b"old"} == read_tree(tmp_path)
    assert before == len(os.listdir("/proc/self/fd"))


WRITER = """
import sys, itertools
from symbiont_datad.fsops.root import pinned
from symbiont_datad.fsops.write import write_atomic
with pinned(sys.argv[1]) as fd:
    for number in itertools.count():
        write_atomic(fd, "file", b"%d" % (number % 10) * 100_000)
        print(flush=True)
"""


def test_a_kill_leaves_one_whole_file(tmp_path: Path) -> None:
    """Killed at any instant, a writer leaves an old file or a new one, never a part; the next one tidies up."""
    for turn in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3 + turn):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        content = (tmp_path / "file").read_bytes()
        assert (1, 100_000) == (len(set(content)), len(content))


def test_what_has_the_temporary_name_is_no_matter(tmp_path: Path) -> None:
    """A FIFO by the temporary file's name doesn't block, a file left by a crash goes; a directory is an error."""
    name = f".file.{os.getpid()}.tmp"
    os.mkfifo(tmp_path / name)
    write(tmp_path, "file", b"one")
    (tmp_path / name).write_bytes(b"longer than what is written")
    write(tmp_path, "file", b"two")
    assert {"file": b"two"} == read_tree(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        write(tmp_path, "file", b"three")
    assert b"two" == (tmp_path / "file").read_bytes()


def test_lines_of_many_processes_stay_whole(tmp_path: Path) -> None:
    """Lines that several processes append are each in the file once, none torn."""
    code = (
        "import sys\nfrom symbiont_datad.fsops.root import pinned\nfrom symbiont_datad.fsops.write import append_line\n"
        "with pinned(sys.argv[1]) as fd:\n"
        "    for n in range(500): append_line(fd, 'log', b'%s-%d\\n' % (sys.argv[2].encode() * 50, n))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), letter]) for letter in "abc"]
    assert [0, 0, 0] == [process.wait(30) for process in processes]
    # Who looks while another's line is half in the file takes it for one that was cut off, and leaves an empty line.
    lines = [line for line in (tmp_path / "log").read_bytes().splitlines() if line]
    letters = (b"a", b"b", b"c")
    assert sorted(b"%s-%d" % (letter * 50, number) for letter in letters for number in range(500)) == sorted(lines)
    assert 0o600 == stat.S_IMODE((tmp_path / "log").stat().st_mode)


def _linked(path: Path) -> None:
    path.write_bytes(b"x")
    os.link(path, path.with_name("other"))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_bytes(b"x"), "a file"),
        (_linked, "a file with 2 hard links"),
        (lambda path: path.mkdir(), "a directory"),
        (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
        (os.mkfifo, "a FIFO"),
        (_socket, "a socket"),
    ],
)
def test_anything_can_be_quarantined(tmp_path: Path, make: Callable[[Path], object], what: str) -> None:
    """Whatever it is, it is moved as it is, never opened, and its record says what it was and why it went."""
    tree = Tree(str(build_tree(tmp_path / "data", {"state": {"agents": {}}})))
    at = tmp_path / "data/state/agents/bad.json"
    make(at)
    before = os.lstat(at)
    assert what == describe(before)
    where = quarantine(tree, "state/agents/bad.json", kind="damaged", reason="can't be read", now=NOW)
    assert f"{QUARANTINE}/{CELL}/item" == where
    after = os.lstat(tmp_path / "data" / where)
    assert (before.st_ino, before.st_mode, before.st_nlink) == (after.st_ino, after.st_mode, after.st_nlink)
    assert not os.path.lexists(at)
    record = json.loads((tmp_path / "data" / where).with_name("record.json").read_text())
    assert ("state/agents/bad.json", "bad.json", "damaged", "can't be read", what, "2026-11-18T11:06:40Z", 1) == tuple(
        record[key] for key in ("path", "name", "kind", "reason", "type", "at", "schema")
    )
    assert ("/nowhere" if what == "a symbolic link" else None) == record.get("target")
    home = tmp_path / "data" / QUARANTINE
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in (home, home / CELL)}


def test_the_same_second_is_no_collision(tmp_path: Path) -> None:
    """Things quarantined at one time, of one name, lie apart, in the order in which they came."""
    tree = Tree(str(build_tree(tmp_path / "data", {})))
    cells = []
    for number in range(3):
        (tmp_path / "data/bad").write_bytes(b"%d" % number)
        cells.append(quarantine(tree, "bad", kind="damaged", reason="", now=NOW))
    assert [f"{QUARANTINE}/{CELL}{suffix}/item" for suffix in ("", "-1", "-2")] == cells
    assert [b"0", b"1", b"2"] == [(tmp_path / "data" / cell).read_bytes() for cell in cells]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failed_quarantine_leaves_no_trace(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the record can't be written or the move fails, the thing is where it was and the quarantine is empty."""
    tree = Tree(str(build_tree(tmp_path / "data", {"bad": b"x"})))
    real = getattr(os, call)

    def failing(*args: object, **kwargs: object) -> object:
        if call == "rename" and args[0] != "bad":
            return real(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with pytest.raises(OSError, match="No space left"):
                quarantine(tree, "bad", kind="damaged", reason="", now=NOW)
        assert {"bad": b"x", QUARANTINE: {}} == read_tree(tmp_path / "data")


def test_what_is_missing_is_not_quarantined(tmp_path: Path) -> None:
    """A path that isn't there, or leads through a link, raises, and leaves no cell."""
    tree = Tree(str(build_tree(tmp_path / "data", {"a": {"b": b""}, "link": Link("a")})))
    missing = FileNotFoundError
    for path, error in (("nothing", missing), ("a/nothing", missing), ("link/b", NotADirectoryError)):
        with pytest.raises(error):
            quarantine(tree, path, kind="damaged", reason="", now=NOW)
    assert {} == read_tree(tmp_path / "data").get(QUARANTINE, {})


def test_roots_quarantine_is_the_owners(open_path: Path, as_nobody: AsNobody) -> None:
    """What root quarantines in a user's tree, the user can remove; one of root's own doesn't stop the user."""
    root = build_tree(open_path / "data", {"bad": b"x"})
    os.chown(root, NOBODY, NOBODY)
    tree = Tree(str(root))
    where = quarantine(tree, "bad", kind="damaged", reason="", now=NOW)

    def remove() -> None:
        os.unlink(root / where)
        os.unlink((root / where).with_name("record.json"))
        os.rmdir((root / where).parent)
        (root / "bad").write_bytes(b"y")

    as_nobody(remove)
    os.chown(root / QUARANTINE, 0, 0)
    where = as_nobody(lambda: quarantine(tree, "bad", kind="damaged", reason="", now=NOW))
    assert b"y" == (root / where).read_bytes()
    assert (0, NOBODY) == ((root / ".quarantine.obstruction-1").stat().st_uid, (root / QUARANTINE).stat().st_uid)


texts = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=50)
names = texts | st.binary(min_size=1, max_size=50).map(os.fsdecode)


@given(names.filter(lambda name: not set(name) & set("/\0") and name not in (".", "..", QUARANTINE)))
def test_any_name_can_be_quarantined(name: str) -> None:
    """Whatever bytes a name is made of, the thing is moved and the record is JSON."""
    with tempfile.TemporaryDirectory() as base:
        root = build_tree(Path(base) / "data", {name: b"x"})
        where = quarantine(Tree(str(root)), name, kind="damaged", reason="", now=NOW)
        assert b"x" == (root / where).read_bytes()
        assert json.loads((root / where).with_name("record.json").read_text())["path"].isprintable()


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    """What a crash cut off stays a line of its own."""
    (tmp_path / "log").write_bytes(b"one\ntw")
    with pinned(str(tmp_path)) as fd:
        append_line(fd, "log", b"three\n")
    assert b"one\ntw\nthree\n" == (tmp_path / "log").read_bytes()


def test_root_can_write_for_somebody_else(tmp_path: Path) -> None:
    """The file belongs to the given owner from the moment it has its name."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    with pinned(str(tmp_path)) as fd:
        write_atomic(fd, "a", b"x", 0o640, owner=(1234, 1235))
    found = (tmp_path / "a").stat()
    assert (1234, 1235, 0o640) == (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def test_what_stands_in_the_quarantines_way_is_kept_beside_it(tmp_path: Path) -> None:
    """Each time under a name of its own."""
    for number in (1, 2):
        build_tree(tmp_path, {"a": b"%d" % number, QUARANTINE: b"in the way %d" % number})
        found = quarantine(Tree(str(tmp_path)), "a", kind="x", reason="y", now=NOW)
        assert b"%d" % number == (tmp_path / found).read_bytes()
        (tmp_path / QUARANTINE).rename(tmp_path / f"aside {number}")
    obstructions = {f"{QUARANTINE}.obstruction-{number}": b"in the way %d" % number for number in (1, 2)}
    assert obstructions == {name: node for name, node in read_tree(tmp_path).items() if name.startswith(QUARANTINE)}


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="not on this platform: leases")
def test_a_line_that_a_lease_holds_back_is_an_error(tmp_path: Path) -> None:
    """Who gives up its lease only when it likes is not waited for; then the line is appended."""
    (tmp_path / "log").write_bytes(b"one\n")
    with (tmp_path / "log").open("rb") as reading, pinned(str(tmp_path)) as fd:
        fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGURG)  # the signal that others want it, which is ignored
        fcntl.fcntl(reading, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        with pytest.raises(BlockingIOError):
            append_line(fd, "log", b"two\n")
        assert b"one\n" == (tmp_path / "log").read_bytes()
        fcntl.fcntl(reading, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        append_line(fd, "log", b"two\n")
    assert b"one\ntwo\n" == (tmp_path / "log").read_bytes()
