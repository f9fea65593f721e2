"""Files and directories of unusual size."""

import os
import random
from pathlib import Path

import pytest

from tests.restic.interop.peers import Ours, Restic
from tests.restic.interop.rich import Directory, Entry, File, Sparse, build, differences, facts_of
from tests.restic.making import make_repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GIB = 1 << 30
ENTRIES = 100_000


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 5 GiB of which 3 MiB are written, and one that is nothing but a hole."""
    noise = random.Random(5).randbytes(1 << 20)
    entries: dict[bytes, Entry] = {
        b"islands": Sparse(
            5 * GIB, {7: noise, 3 * GIB - 1: noise[::-1], 5 * GIB - 100_000: noise[:100_000]}, mode=0o600
        ),
        b"hole": Sparse(5 * GIB + 1),
    }
    return build(tmp_path_factory.mktemp("vast") / "source", entries)


def test_we_keep_5_gib_for_restic(vast: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """Holes cost nothing in our repository, restic restores them, and so do we."""
    make_repository(ours.repository)
    taken = ours.back_up(vast)
    assert taken.added.packed < 4 << 20
    restic.check()
    assert () == ours.check()
    if restic.version >= (0, 15):  # it makes holes
        there = restic.restore(taken.name, vast, tmp_path / "theirs", "--sparse")
        assert [] == differences(facts_of(vast), facts_of(there))
        assert blocks(there) < 32 << 20
    assert () == ours.restore(taken.name, vast, tmp_path / "ours").failed
    assert [] == differences(facts_of(vast), facts_of(tmp_path / "ours"))
    assert blocks(tmp_path / "ours") < 32 << 20
    summary = restic.back_up("--host", "host", vast)
    assert (0, 0) == (summary["files_new"], summary["files_changed"])


def test_restic_keeps_5_gib_for_us(vast: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """What restic cut into thousands of chunks of zeros becomes a hole again."""
    restic("init")
    restic.back_up("--host", "host", vast)
    assert () == ours.check()
    ((name, _),) = ours.snapshots()
    assert () == ours.restore(name, vast, tmp_path / "ours").failed
    assert [] == differences(facts_of(vast), facts_of(tmp_path / "ours"))
    assert blocks(tmp_path / "ours") < 32 << 20


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of 100,000 entries, files and some others."""
    entries: dict[bytes, Entry] = {b"%06d" % number: File(b"%d" % (number % 1000)) for number in range(ENTRIES - 2)}
    return build(tmp_path_factory.mktemp("wide") / "source", entries | {b"directory": Directory(), b"z": File(b"z")})


def test_we_keep_100_000_entries_for_restic(wide: Path, restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """restic reads a tree of 30 MB, restores it, and finds nothing changed; so do we."""
    make_repository(ours.repository)
    taken = ours.back_up(wide)
    assert ENTRIES - 1 == taken.archived.counts.files
    restic.check()
    expected = facts_of(wide)
    there = restic.restore(taken.name, wide, tmp_path / "theirs")
    assert [] == differences(expected, facts_of(there))
    summary = restic.back_up("--host", "host", wide)
    assert (0, 0, ENTRIES - 1) == (summary["files_new"], summary["files_changed"], summary["files_unmodified"])
    assert () == ours.check()
    newest, _ = ours.snapshots()[0]
    assert newest != taken.name
    assert () == ours.restore(newest, wide, tmp_path / "ours").failed
    assert [] == differences(expected, facts_of(tmp_path / "ours"))
    counts = ours.back_up(wide).archived.counts
    assert (0, 0) == (counts.files_new, counts.files_changed)


def blocks(path: Path) -> int:
    """Bytes that the files of a directory take on the disk."""
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(path))
