"""Which files are open is seen across processes, without waiting for any."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.fsops import opened
from symbiont_datad.fsops.opened import identity, open_files, open_to_others, writers
from symbiont_datad.fsops.process import this_process
from symbiont_datad.fsops.root import Tree
from tests.conftest import AsNobody
from tests.support import Tree as Data

HOLDER = "import sys; file = open(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"


def test_a_file_that_another_process_holds_is_open(tree: Callable[[Data], Path]) -> None:
    """While another process has a file open, even one renamed since, it is among the open ones; afterwards it isn't."""
    root = tree({"held": b"", "idle": b""})
    ids = {name: identity(Tree(str(root)), name) for name in ("held", "idle")}
    command = [sys.executable, "-c", HOLDER, str(root / "held")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (root / "held").rename(root / "renamed")
        assert ids["held"] in open_files(str(root)).files
        assert ids["idle"] not in open_files(str(root)).files
    assert ids["held"] not in open_files(str(root)).files


def test_root_sees_all_and_nobody_says_what_is_hidden(tmp_path: Path, as_nobody: AsNobody) -> None:
    """Root has nothing to add; a user who may not look into others' processes says how many those are."""
    assert "" == open_files(str(tmp_path)).unseen
    assert "processes of other users" in as_nobody(lambda: open_files(str(tmp_path)).unseen)


def test_identity_follows_no_link_and_knows_what_is_gone(tree: Callable[[Data], Path]) -> None:
    """A link's identity is its own, and a missing file has none."""
    root = tree({"f": b""})
    (root / "link").symlink_to("f")
    found = os.lstat(root / "link")
    assert (found.st_dev, found.st_ino) == identity(Tree(str(root)), "link")
    assert identity(Tree(str(root)), "gone") is None


WRITER = "import os, sys; fd = os.open(sys.argv[1], int(sys.argv[2])); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("flags", "appends"),
    [
        pytest.param(os.O_WRONLY | os.O_APPEND, True, id="append mode"),
        pytest.param(os.O_RDWR | os.O_APPEND, True, id="append mode, reading as well"),
        pytest.param(os.O_WRONLY, False, id="a place of its own"),
        pytest.param(os.O_RDWR, False, id="a place of its own, reading as well"),
        pytest.param(os.O_RDONLY, None, id="a reader"),
        pytest.param(getattr(os, "O_PATH", 0), None, id="a pin"),
    ],
)
def test_who_writes_and_how(tree: Callable[[Data], Path], flags: int, appends: bool | None) -> None:
    """A writer is known by its process, its program's name and its mode; who only reads is none."""
    root = tree({"log": b"x", "other": b""})
    file = identity(Tree(str(root)), "log")
    assert file is not None
    command = [sys.executable, "-c", WRITER, str(root / "log"), str(flags)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = writers(str(root), [file]).of.get(file, ())
        expected = [] if appends is None else [(process.pid, appends)]
        assert expected == [(one.pid, one.appends) for one in found]
        assert all(one.command.startswith("python") for one in found)
        process.communicate()
    assert {} == writers(str(root), [file]).of


def test_whoever_writes_both_ways_counts_as_the_worse(tree: Callable[[Data], Path]) -> None:
    """One descriptor in append mode and one that is not: the process is no safe writer."""
    root = tree({"log": b"x"})
    file = identity(Tree(str(root)), "log")
    assert file is not None
    code = "import sys; a = open(sys.argv[1], 'ab'); b = open(sys.argv[1], 'r+b'); c = open(sys.argv[1], 'ab')"
    command = [sys.executable, "-c", f"{code}; print(flush=True); sys.stdin.read()", str(root / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [False] == [one.appends for one in writers(str(root), [file]).of[file]]
        process.communicate()


def test_who_sees_all_processes(tmp_path: Path, as_nobody: AsNobody, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root outside a container does; other users never do, nor does anybody inside one, nor without /proc."""
    who = this_process()
    monkeypatch.setattr(opened, "this_process", lambda: replace(who, own_pid_space=False))
    assert writers(str(tmp_path), []).complete
    assert not as_nobody(lambda: writers(str(tmp_path), []).complete)
    monkeypatch.setattr(opened, "this_process", lambda: replace(who, own_pid_space=True))
    assert not writers(str(tmp_path), []).complete
    monkeypatch.setattr(opened, "this_process", lambda: replace(who, own_pid_space=False))
    monkeypatch.setattr(opened, "_PROC", str(tmp_path))
    assert not writers(str(tmp_path), []).complete


def test_a_file_system_that_other_machines_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kind of the mount that is nearest above."""
    (tmp_path / "self").mkdir()
    mounts = (("/", "ext4"), ("/srv", "nfs4"), ("/srv/local", "xfs"), ("/mnt/a", "fuse.sshfs"), ("/vm", "virtiofs"))
    lines = [f"22 1 0:21 / {at} rw shared:1 - {kind} source rw\n" for at, kind in mounts]
    (tmp_path / "self/mountinfo").write_text("".join(lines))
    monkeypatch.setattr(opened, "_PROC", str(tmp_path))
    assert [False, True, True, False, True, True, False] == [
        opened.is_shared(path)
        for path in ("/home/data", "/srv/data", "/srv", "/srv/local/data", "/mnt/a/b", "/vm/x", "/srvx")
    ]
    monkeypatch.setattr(opened, "_PROC", str(tmp_path / "none"))
    assert not opened.is_shared("/srv")


@pytest.mark.parametrize(
    ("mode", "others"), [(0o600, False), (0o644, False), (0o664, False), (0o646, True), (0o666, True)]
)
def test_who_else_could_have_it_open(tmp_path: Path, mode: int, others: bool) -> None:
    """By the mode: other users if all may write; the group only where it is not the user's own."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    os.chown(path, os.geteuid(), os.getegid())
    assert others is open_to_others(path.stat())


def test_a_group_of_several_and_another_owner(open_path: Path, as_nobody: AsNobody) -> None:
    """A group that is not the user's own may write; and whose file it is may as well."""
    path = open_path / "file"
    path.touch()
    path.chmod(0o664)
    os.chown(path, -1, 1)
    assert open_to_others(path.stat())
    path.chmod(0o644)
    assert not open_to_others(path.stat())
    assert as_nobody(lambda: open_to_others(path.stat()))
    assert stat.S_ISREG(path.stat().st_mode)
