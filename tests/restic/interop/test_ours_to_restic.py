"""What we write, real restic reads, restores, adds to and prunes without a complaint."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbiont_datad.restic.errors import RepositoryLocked, WrongPassword
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.lock import hold
from symbiont_datad.restic.repository import open_repository
from tests.restic.interop.peers import LIMIT_S, Ours, Restic
from tests.restic.interop.rich import LARGE, as_kept_by, differences, facts_of
from tests.restic.making import IDENTITY, PASSWORD, make_repository, reopen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def name(repository: Path, source: Path, ours: Ours) -> str:
    """A snapshot of ours of the whole tree."""
    make_repository(repository)
    taken = ours.back_up(source)
    assert ((), ()) == (taken.archived.unread, taken.archived.torn)
    return taken.name


def test_restic_reads_all(name: str, source: Path, restic: Restic) -> None:
    """restic checks every byte, lists every entry and dumps what a file held."""
    restic.check()
    listed = [line["path"] for line in restic.json("ls", name) if line.get("struct_type") == "node"]
    assert len(list(source.rglob("*"))) + len(source.parts) - 1 == len(listed)
    restic("ls", "--long", name)
    restic("snapshots")
    restic("stats", "--mode", "raw-data")
    restic("find", "text")
    assert name == json.loads(restic("snapshots", "--json"))[0]["id"]
    done = restic.start("dump", name, source / "large")
    assert LARGE == done.communicate(timeout=60)[0]
    restic("dump", name, source / "names")  # as tar


@pytest.mark.parametrize("way", [[], ["--sparse"]], ids=["plain", "sparse"])
def test_restic_restores_all(way: list[str], name: str, source: Path, restic: Restic, tmp_path: Path) -> None:
    """Content, mode, owner, time, attributes, links and common files are as they were, with holes where asked for."""
    if way and restic.version < (0, 15):
        way = []
    there = restic.restore(name, source, tmp_path / "target", *way)
    assert [] == differences(as_kept_by(restic.version, facts_of(source)), facts_of(there))
    if way:
        assert (there / "islands").stat().st_blocks * 512 < 12 << 20


def test_restic_takes_every_tree_for_its_own(name: str, source: Path, newer: Restic, ours: Ours) -> None:
    """`rewrite` encodes each tree anew and refuses what comes out otherwise; what it makes of ours, we read."""
    assert "no snapshots were modified" in newer("rewrite", "--exclude", "no such name")
    newer("rewrite", "--exclude", str(source / "large"), "--forget")
    newer("tag", "--add", "rewritten")
    newer("repair", "snapshots", "--dry-run")
    newer.check()
    assert () == ours.check()
    ((rewritten, snapshot),) = ours.snapshots()
    assert (name, ["rewritten"]) == (snapshot.original, snapshot.tags)
    target = source.with_name("target")
    assert () == ours.restore(rewritten, source, target).failed
    assert ["b'large' is missing"] == [
        line for line in differences(facts_of(source), facts_of(target)) if "large'" in line
    ]


def test_restic_backs_up_beside_us(name: str, source: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """With our snapshot as its parent restic reads no file; what it stores, we check and restore."""
    files = ours.back_up(source).archived.counts.files
    summary = restic.back_up("--host", "host", source)
    assert (0, 0, files) == (summary["files_new"], summary["files_changed"], summary["files_unmodified"])
    assert 0 == summary["data_blobs"]
    restic.check()
    assert () == ours.check()
    newest, snapshot = ours.snapshots()[0]
    assert snapshot.parent
    assert () == ours.restore(newest, source, tmp_path / "target").failed
    assert [] == differences(as_kept_by(restic.version, facts_of(source)), facts_of(tmp_path / "target"))


def test_restic_makes_the_same_trees(name: str, source: Path, newer: Restic, ours: Ours) -> None:
    """Where restic notes devices for hard links alone, as we do, it finds every tree below stored already."""
    (source / "socket").unlink()  # restic passes over sockets
    taken = ours.back_up(source)
    newer.environment["RESTIC_FEATURES"] = "device-id-for-hardlinks=true"
    summary = newer.back_up("--host", "host", source)
    assert summary["tree_blobs"] < len(source.parts)
    assert ours.node(taken.name, source).subtree == ours.node(summary["snapshot_id"], source).subtree


def test_restic_forgets_and_prunes(name: str, source: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """After forget, prune and another prune of restic's the newest snapshot is whole, for both."""
    (source / "text").write_bytes(b"changed")
    (source / "large").unlink()
    os.truncate(source / "islands", 1 << 20)
    last = ours.back_up(source).name
    restic("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    restic("prune", "--repack-small" if restic.version >= (0, 15) else "--repack-cacheable-only")
    restic.check()
    assert () == ours.check()
    assert [last] == [name for name, _ in ours.snapshots()]
    assert () == ours.restore(last, source, tmp_path / "ours").failed
    assert [] == differences(facts_of(source), facts_of(tmp_path / "ours"))
    there = restic.restore(last, source, tmp_path / "theirs")
    assert [] == differences(as_kept_by(restic.version, facts_of(source)), facts_of(there))


def test_restic_compares_and_copies(name: str, source: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """`diff` sees what changed between two of our snapshots; `copy` takes them to another repository."""
    (source / "text").write_bytes(b"changed")
    newer = ours.back_up(source).name
    assert f"M    {source / 'text'}" in restic("diff", name, newer)
    other = Restic(restic.program, restic.version, tmp_path / "other", {"RESTIC_FROM_PASSWORD": PASSWORD})
    other("init")
    (tmp_path / "password").write_text(PASSWORD)
    other("copy", "--from-repo", ours.repository, "--from-password-file", tmp_path / "password", newer)
    other.check()
    assert () == Ours(other.repository).check()


def test_several_keys(name: str, source: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """A key that either adds opens the repository for both, and one that either removes does so no more."""
    (tmp_path / "second").write_text("theirs\n")
    restic("key", "add", "--new-password-file", tmp_path / "second")
    theirs = open_repository(LocalBackend(str(ours.repository)), "theirs")
    our_key = theirs.add_key("ours", IDENTITY, time.time())
    assert 3 == len(restic.json("key", "list")[0])
    restic("snapshots", password="ours")
    first = reopen(ours.repository).key_name
    restic("key", "remove", first, password="ours")
    with pytest.raises(WrongPassword):
        reopen(ours.repository)
    theirs.remove_key(our_key)
    assert "wrong password" in restic("snapshots", password="ours", code=1 if restic.version < (0, 17) else 12)
    restic("check", password="theirs")


def test_both_respect_locks(name: str, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """What needs the repository alone is refused while the other is at work, and the other way round."""
    store = reopen(ours.repository)
    locked = 1 if restic.version < (0, 17) else 11
    with hold(store, IDENTITY, exclusive=True):
        assert "locked" in restic("check", code=locked)
        assert "locked" in restic("backup", tmp_path / "source", code=locked)
    with hold(store, IDENTITY, exclusive=False):
        restic("snapshots")
        assert "locked" in restic("prune", code=locked)
    for command, exclusive in (("backup", False), ("check", True)):
        with working(restic, command):
            with pytest.raises(RepositoryLocked), hold(store, IDENTITY, exclusive=True):
                pass
            if exclusive:
                with pytest.raises(RepositoryLocked), hold(store, IDENTITY, exclusive=False):
                    pass
            else:
                with hold(store, IDENTITY, exclusive=False):
                    pass
    with hold(store, IDENTITY, exclusive=True):
        pass


@contextmanager
def working(restic: Restic, command: str) -> Iterator[None]:
    """restic in the middle of its work: stopped as soon as its lock is there, and let go afterwards."""
    arguments = ["--stdin"] if command == "backup" else ["--read-data"]
    process = restic.start(command, *arguments, stdin=subprocess.PIPE if command == "backup" else subprocess.DEVNULL)
    locks = restic.repository / "locks"
    try:
        while not any(len(name) == 64 for name in os.listdir(locks)):  # and not the temporary file that it becomes
            assert process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGSTOP)
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
        output, complaint = process.communicate(b"text" if process.stdin else None, timeout=LIMIT_S)
    assert 0 == process.returncode, output + complaint
