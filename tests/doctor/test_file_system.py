"""What file systems can do, tried on real ones."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.doctor import file_system
from symbiont_datad.doctor.file_system import Disk
from symbiont_datad.fsops.features import Features, features
from symbiont_datad.quantities import Share
from symbiont_datad.retention.pressure import Marks
from tests.jobs.mounts import mounted

GOOD = Features(
    "ext4", "/", False, False, 60 << 30, 100 << 30, 900, 1000,
    collapse=True, reflink=False, case_sensitive=True, hard_links=True, exchange=True, modes=True,
)  # fmt: skip
MARKS = Marks(Share(percent=10), Share(percent=15), Share(percent=10), Share(percent=15))

CAN = {
    "ext4": (True, False),
    "xfs": (True, True),
    "btrfs": (False, True),
    "tmpfs": (False, False),
}
"""Collapse and reflink, by the kernel's own sources; a small xfs is made with reflink by default (mkfs.xfs(8))."""


@pytest.mark.parametrize(
    ("kinds", "seen"),
    [
        pytest.param([], GOOD, id="good"),
        pytest.param(["read_only"], replace(GOOD, read_only=True), id="read-only"),
        pytest.param(["little_space"], replace(GOOD, free_bytes=1 << 30), id="nearly full"),
        pytest.param(["few_inodes"], replace(GOOD, free_inodes=3), id="few inodes"),
        pytest.param([], replace(GOOD, free_inodes=0, total_inodes=0), id="no inodes to run out of"),
        pytest.param(["shared"], replace(GOOD, shared=True), id="network"),
        pytest.param(["no_modes"], replace(GOOD, modes=False), id="FAT"),
        pytest.param(["no_collapse", "no_case_sensitive"], replace(GOOD, collapse=False, case_sensitive=False), id="m"),
        pytest.param([], replace(GOOD, collapse=None, exchange=None, modes=None), id="not tried"),
    ],
)
def test_judging(kinds: list[str], seen: Features) -> None:
    """What it can't do is a note; what keeps the daemon from its work is more."""
    found = file_system.judge(Disk("/t", seen, "", MARKS, "/o", own_shared=False)).findings
    assert kinds == [one.kind for one in found]
    notes = {"shared", "no_collapse", "no_case_sensitive"}
    assert [one.kind in notes for one in found] == [one.severity == "info" for one in found]
    assert all(one.detail and one.remedy for one in found)


def test_a_ledger_on_a_network_file_system_is_told_of() -> None:
    """Also where the tree itself can't be looked at."""
    seen = file_system.judge(Disk("/t", None, "gone", MARKS, "/o", own_shared=True))
    assert ["ledger_on_network"] == [one.kind for one in seen.findings]
    assert "gone" in seen.told


def test_trying_leaves_nothing(tmp_path: Path) -> None:
    """Neither in the tree nor in the scratch directory; what Unix has is there."""
    (tmp_path / "tree" / "state").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    found = features(str(tmp_path / "tree"), tmp_path / "own")
    assert (True, True, True) == (found.case_sensitive, found.hard_links, found.modes)
    assert found.kind
    assert ["state"] == os.listdir(tmp_path / "tree")
    assert [] == os.listdir(tmp_path / "own")


def test_without_a_scratch_directory_names_are_not_tried(tmp_path: Path) -> None:
    """Nothing is guessed; an empty directory tells nothing of case, nor does a name without letters."""
    for name in ("1", "20261118"):
        found = features(str(tmp_path), None)
        assert (None, None, None, None) == (found.hard_links, found.exchange, found.modes, found.case_sensitive)
        (tmp_path / name).touch()


def test_a_scratch_directory_on_another_file_system_tells_nothing(tmp_path: Path) -> None:
    """Names are not tried there, and nothing is left."""
    for path in ("data", "elsewhere"):
        (tmp_path / path).mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "elsewhere"], capture_output=True).returncode:
        pytest.skip("not on this platform: a file system can't be mounted here")
    try:
        found = features(str(tmp_path / "data"), tmp_path / "elsewhere")
        assert (None, None, None) == (found.hard_links, found.exchange, found.modes)
        assert [] == os.listdir(tmp_path / "elsewhere")
    finally:
        subprocess.run(["umount", tmp_path / "elsewhere"], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CAN)
def test_what_real_file_systems_can_do(kind: str, tmp_path: Path) -> None:
    """Each is found to be what it is; read-only it is said to be that, and nothing is tried."""
    with mounted(kind, tmp_path) as at:
        (at / "data" / "state").mkdir(parents=True)
        (at / "datad").mkdir()
        found = features(str(at / "data"), at / "datad")
        assert (kind, str(at)) == (found.kind, found.mounted_at)
        assert CAN[kind] == (found.collapse, found.reflink)
        assert (True, True, True, True) == (found.hard_links, found.exchange, found.modes, found.case_sensitive)
        subprocess.run(["mount", "-o", "remount,ro", at], check=True)
        found = features(str(at / "data"), at / "datad")
        assert (True, None, None) == (found.read_only, found.collapse, found.hard_links)
