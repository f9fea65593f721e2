"""The guard tells of saves in the directories in which they matter, and of nothing else."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import Tree
from symbiont_datad.guard.guard import Guard
from symbiont_datad.guard.saves import Saves
from tests.guard.keeping import SETTINGS, eventually, layout_at, made
from tests.guard.test_watch import wakes
from tests.support import Link, build_tree


@contextmanager
def telling(root: Path) -> Iterator[list[float]]:
    """A guard over a tree at `root`, and the times at which it told of a save."""
    told: list[float] = []
    guard = Guard(made(layout_at(root)), SETTINGS, lambda _: None, on_save=lambda: told.append(time.monotonic()))
    guard.create_tree()
    guard.start()
    time.sleep(0.2)
    try:
        yield told
    finally:
        guard.stop()


def rewritten(path: Path) -> None:
    """What most editors do: write a new file, and rename it over the old one."""
    new = path.with_name("new")
    new.write_bytes(b"two")
    new.rename(path)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda file: file.write_bytes(b"two"), id="written in place"),
        pytest.param(rewritten, id="replaced"),
        pytest.param(Path.unlink, id="removed"),
        pytest.param(lambda file: file.rename(file.parents[3] / "away"), id="moved away"),
        pytest.param(lambda file: (file.parent / "link").symlink_to("t.md"), id="linked"),
        pytest.param(lambda file: (file.parent / "sub").mkdir(), id="a new directory"),
    ],
)
def test_a_save_is_told(tmp_path: Path, act: Callable[[Path], object]) -> None:
    """Whatever changes what the templates are."""
    root = build_tree(tmp_path / "data", {"prompts": {"templates": {"t.md": b"one"}}})
    with telling(root) as told:
        assert [] == told
        act(root / "prompts/templates/t.md")
        assert eventually(lambda: bool(told))


def test_directories_below_are_watched_as_they_come(tmp_path: Path) -> None:
    """Those that are there at start, those that are made, and the templates themselves when they were replaced."""
    root = build_tree(tmp_path / "data", {"prompts": {"templates": {"a": {"b": {"t.md": b"one"}}}}})
    with telling(root) as told:
        for path in ("a/b/t.md", "new/t.md"):
            at = root / "prompts/templates" / path
            at.parent.mkdir(exist_ok=True)
            time.sleep(0.3)
            told.clear()
            at.write_bytes(b"two")
            assert eventually(lambda: bool(told)), path
        (root / "prompts/templates").rename(tmp_path / "away")
        assert eventually((root / "prompts/templates").is_dir)
        time.sleep(0.3)
        told.clear()
        (root / "prompts/templates/t.md").write_bytes(b"three")
        assert eventually(lambda: bool(told))


def test_nothing_else_is_told(tmp_path: Path) -> None:
    """Reads and modes of templates, and files anywhere else."""
    root = build_tree(tmp_path / "data", {"prompts": {"templates": {"t.md": b"one"}}})
    with telling(root) as told:
        (root / "prompts/templates/t.md").read_bytes()
        (root / "prompts/templates/t.md").chmod(0o600)
        (root / "prompts/cache/c.json").write_bytes(b"{}")
        (root / "prompts/t.md").write_bytes(b"one")
        (root / "logs/agents/a.log").write_bytes(b"a line")
        time.sleep(0.3)
        assert [] == told


def test_a_template_that_is_being_written_wakes_nobody(tmp_path: Path) -> None:
    """Ten thousand appends to an open template are no events; that it is closed is one."""
    root = build_tree(tmp_path / "data", {"prompts": {"templates": {"t.md": b"one"}}})
    writer = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for _ in range(10000):
    os.write(fd, b"more")
print("written", flush=True)
sys.stdin.read()
"""
    with telling(root) as told:
        watch = next(thread.native_id for thread in threading.enumerate() if thread.name == "watch")
        command = [sys.executable, "-c", writer, str(root / "prompts/templates/t.md")]
        before = wakes(watch)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert b"written\n" == process.stdout.readline()
            assert ([], True) == (told, wakes(watch) - before <= 2)
            process.communicate()
        assert eventually(lambda: bool(told))


def test_a_directory_of_very_many_files_ends_the_search(tmp_path: Path) -> None:
    """It is watched itself; what lies deeper is found by the next sweep, and nobody waits for the list."""
    (tmp_path / "t/many").mkdir(parents=True)
    (tmp_path / "t/many/0").touch()
    for number in range(1, 10_001):
        os.link(tmp_path / "t/many/0", tmp_path / f"t/many/{number}")
    (tmp_path / "t/many/deep").mkdir()
    found = Saves(("t",)).directories(Tree(os.path.realpath(tmp_path)))
    assert ["t", "t/many"] == found[:2]
    (tmp_path / "t/beside/deep").mkdir(parents=True)
    assert "t/beside/deep" not in Saves(("t",)).directories(Tree(os.path.realpath(tmp_path)))


def test_what_is_watched_has_a_bound(tmp_path: Path) -> None:
    """Of very many directories some are watched, links are not followed, and what is missing has none below it."""
    build_tree(tmp_path, {"t": {**{f"{n:03}": {} for n in range(100)}, "link": Link("/etc")}, "u": {}})
    saves = Saves(("t", "missing"))
    found = saves.directories(Tree(os.path.realpath(tmp_path)))
    assert 65 == len(found)
    assert {"t", "missing"} <= set(found)
    assert "t/link" not in saves.directories(Tree(os.path.realpath(tmp_path)), "t")
    assert [] == saves.directories(Tree(os.path.realpath(tmp_path)), "u")
    assert [True, True, False, False] == [saves.cover(path) for path in ("t", "t/a/b", "tt", "")]
