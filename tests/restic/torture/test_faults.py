"""A disk that is really full, and a source that can't be read."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import FileKind
from tests.restic.making import PASSWORD, make_repository, read_snapshot, reopen
from tests.restic.torture.peers import check_with_restic
from tests.restic.torture.tracing import traced
from tests.restic.torture.working import Ledger, Source, Task, leftovers, local, start


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A file system of this size, with room for 600 files."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    at.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=600", "tmpfs", str(at)], check=True, timeout=10
    )
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True, timeout=10)


@pytest.mark.slow
def test_backups_fill_a_disk_until_one_is_refused(tmp_path: Path) -> None:
    """The backup that finds no room says so and leaves no temporary file; all snapshots before it are whole, also for
    restic. A prune makes room with what space there is, and the same backup then works.
    """
    source = Source(tmp_path / "source", 2)
    with small_disk(tmp_path / "disk", "6m") as disk:
        place = disk / "repository"
        ledger = Ledger(str(place), "a password")
        task = Task("init", str(place), ledger.password, source=str(source.path), keep=1)

        def work(name: str) -> tuple[int, list[tuple[object, ...]]]:
            worker = start(replace(task, work=name))
            worker.go_on()
            told = list(worker.told())
            code = worker.end()
            ledger.note(told, source.tree)
            ledger.check(source.tree)
            assert [] == list(local(place).list(FileKind.LOCK))
            return code, told

        assert 0 == work("init")[0]
        code, turns, told = 0, 0, list[tuple[object, ...]]()
        while code == 0:
            turns += 1
            source.change()
            (source.path / "large/huge").write_bytes(os.urandom(700_000))
            source._files["large"]["huge"] = (source.path / "large/huge").read_bytes()
            code, told = work("backup")
        assert turns > 3
        assert (1, "failed", "NoSpace") == (code, *told[-1][:2])
        assert str(told[-1][2]).endswith("no space left on device")
        assert [] == leftovers(str(place))
        check_with_restic(str(place), ledger.password)

        assert 0 == work("prune")[0]
        assert 0 == work("backup")[0]
        check_with_restic(str(place), ledger.password)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("pread64", "large/0"),
        ("/preadv.*", "large/huge"),
        ("getdents64", "small"),
    ],
)
def test_what_a_disk_can_not_read_is_named_and_all_else_is_saved(tmp_path: Path, call: str, where: str) -> None:
    """EIO on reading a file or a directory: the snapshot is made, and says what is missing; the next one has it."""
    place, source = tmp_path / "repository", Source(tmp_path / "source", 3)
    make_repository(place)
    ledger = Ledger(str(place), PASSWORD)
    task = Task("backup", str(place), PASSWORD, source=str(source.path))

    done = traced(task, tmp_path / "log", all_threads=True, inject=f"{call}:error=EIO", path=str(source.path / where))

    assert 0 == done.code, done.told
    what, name, unread = done.told[-1]
    assert ("saved", [str(source.path / where)]) == (what, unread)
    assert name in dict(reopen(place).snapshots())
    held = read_snapshot(reopen(place), name)
    assert source.tree["quiet"] == held["quiet"]
    check_with_restic(str(place), PASSWORD)

    worker = start(task)
    worker.go_on()
    ledger.note(list(worker.told()), source.tree)
    assert 0 == worker.end()
    assert source.tree == read_snapshot(reopen(place), *ledger.snapshots)
