"""Verifying reads all in time, names what is damaged, and tries whether files can be restored."""

import os
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace as replaced

from symbiont_datad.jobs.context import JobSettings, VectorSettings
from symbiont_datad.jobs.drill import BYTES, FILES, drill
from symbiont_datad.jobs.repository import opened
from symbiont_datad.report import Outcome
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.tree import decode_tree, encode_node, encode_tree
from symbiont_datad.restic.writer import Writer
from tests.jobs.making import DAY, context, run, settings_for, write
from tests.jobs.snapshotting import snapshots


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree of which there is a backup."""
    settings = settings_for(tmp_path)
    root = Path(settings.layout.root)
    for number in range(30):
        write(root / f"state/agents/a{number}.json.gz", context(text=f"{number}"))
    write(root / "logs/system/large", os.urandom(2 << 20))
    run("backup", settings, now=time.time())
    return settings


def packs(settings: JobSettings) -> list[Path]:
    """The packs, the largest first."""
    found = Path(settings.repository.location, "data").glob("*/*")
    return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


def flip(path: Path, at: int) -> None:
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def test_a_whole_repository(settings: JobSettings, tmp_path: Path) -> None:
    """The structure is checked, and files are restored, compared and removed again."""
    ran = run("verify", settings, now=time.time())
    assert (Outcome.DONE, ["repository_verified", "restore_drill_passed"]) == (ran.report.outcome, ran.told)
    assert FILES == ran.report.counts["drilled"]
    assert not (tmp_path / "datad/drill").exists()


@pytest.mark.parametrize("back_s", [0.0, 365 * DAY])
def test_a_clock_that_was_set_back_stops_no_check(settings: JobSettings, back_s: float) -> None:
    """Nor does a check right after another one: the time since then is nothing to divide by."""
    now = time.time()
    assert Outcome.DONE == run("verify", settings, now=now).report.outcome
    assert Outcome.DONE == run("verify", settings, now=now - back_s).report.outcome


def test_all_is_read_in_time(settings: JobSettings) -> None:
    """Day after day a part of the packs is read, those longest unread first, so that none is older than it may be."""
    settings = replace(settings, snapshots=replace(settings.snapshots, read_all_within_s=3 * DAY))
    for number in range(2):
        write(Path(settings.layout.root, f"logs/system/{number}"), os.urandom(1 << 20))
        run("backup", settings, now=time.time())
    now = time.time()
    days = [run("verify", settings, now=now + day * DAY).report.counts for day in range(3)]
    assert days[0]["bytes"] <= sum(day["bytes_read"] for day in days)
    assert days[0]["bytes"] > max(day["bytes_read"] for day in days)


def test_as_much_is_read_as_asked_for(settings: JobSettings) -> None:
    """A subset that a user names takes the place of what is due."""
    counts = run("verify", settings, now=time.time(), subset="all").report.counts
    assert (counts["packs"], counts["bytes"]) == (counts["packs_read"], counts["bytes_read"])
    wrong = run("verify", settings, now=time.time(), subset="some")
    assert (Outcome.FAILED, 2) == (wrong.report.outcome, wrong.report.exit_code)


def test_a_flipped_bit_is_found_and_named(settings: JobSettings) -> None:
    """The finding names the pack, and the file that needs it."""
    pack = packs(settings)[0]
    flip(pack, 1 << 20)
    ran = run("verify", settings, now=time.time(), subset="all")
    (finding,) = ran.report.findings
    assert (Outcome.LEFT, ["repository_damaged"]) == (ran.report.outcome, ran.told)
    assert f"data/{pack.name}" in finding.path
    assert "logs/system/large" in finding.detail
    assert finding.remedy


def test_a_drill_finds_what_can_not_be_restored(settings: JobSettings, tmp_path: Path) -> None:
    """A file whose blob is damaged fails the drill by its name; the others pass."""
    for path in Path(settings.layout.root, "state/agents").glob("*.gz"):
        path.unlink()
    write(Path(settings.layout.root, "logs/system/other"), os.urandom(100_000))
    run("backup", settings, now=time.time())
    flip(packs(settings)[0], 1 << 20)
    _, newest = snapshots(settings)[-1]
    found = drill(
        opened(settings.repository), newest, settings.layout.tree, tmp_path / "drill", Random(1), lambda: False
    )
    assert 2 == found.files
    assert [f"{settings.layout.root}/logs/system/large".lstrip("/")] == [path for path, _ in found.wrong]


def test_without_a_repository(tmp_path: Path) -> None:
    """Nothing can be verified, none is made, and the exit code says so."""
    settings = settings_for(tmp_path)
    ran = run("verify", settings, now=time.time())
    assert (Outcome.FAILED, 10) == (ran.report.outcome, ran.report.exit_code)
    assert not (tmp_path / "backups").exists()


def test_an_empty_repository_is_whole(tmp_path: Path) -> None:
    """Without a snapshot there is nothing to restore, which is no fault."""
    settings = settings_for(tmp_path)
    run("sweep", settings, now=time.time())
    for name, _ in snapshots(settings):
        (tmp_path / "backups/snapshots" / name).unlink()
    ran = run("verify", settings, now=time.time())
    assert (Outcome.DONE, ["repository_verified"]) == (ran.report.outcome, ran.told)


def stored_as(settings: JobSettings, path: Path, content: bytes) -> Snapshot:
    """The newest snapshot, if a file had had other content when it was made; all else is as lstat tells it."""
    repository = opened(settings.repository)
    repository.need_index()
    _, newest = snapshots(settings)[-1]

    def changed(tree: str, parts: tuple[str, ...]) -> str:
        nodes = decode_tree(repository.load_blob(bytes.fromhex(tree)))
        at = next(number for number, node in enumerate(nodes) if node.name == parts[0])
        if len(parts) > 1:
            nodes[at] = replaced(nodes[at], subtree=changed(nodes[at].subtree, parts[1:]))
        else:
            nodes[at] = replaced(nodes[at], content=[writer.store(BlobType.DATA, content)[0].hex()])
        return writer.store(BlobType.TREE, encode_tree([encode_node(node) for node in nodes]))[0].hex()

    with Writer(repository) as writer:
        tree = changed(newest.tree, path.parts[1:])
    return replaced(newest, tree=tree)


def test_a_drill_sees_a_disk_that_forgets(settings: JobSettings, tmp_path: Path) -> None:
    """A live file that is another one than its copy, although lstat says that nobody has written to it, is doubtful."""
    for path in Path(settings.layout.root, "state/agents").glob("*.gz"):
        path.unlink()
    rotten = Path(settings.layout.root, "logs/system/large")
    rotten.write_bytes(b"a")
    run("backup", settings, now=time.time())
    other = stored_as(settings, rotten, b"b")
    found = drill(
        opened(settings.repository), other, settings.layout.tree, tmp_path / "drill", Random(1), lambda: False
    )
    assert ([], [str(rotten).lstrip("/")]) == (found.wrong, found.doubtful)
    rotten.write_bytes(b"c")  # whom somebody has written to since may differ
    found = drill(
        opened(settings.repository), other, settings.layout.tree, tmp_path / "drill", Random(1), lambda: False
    )
    assert ([], []) == (found.wrong, found.doubtful)


def test_a_drill_is_small_however_much_there_is(settings: JobSettings, tmp_path: Path) -> None:
    """Of many files some are taken; one that is too large for it is not, nor one that was torn when it was stored."""
    root = Path(settings.layout.root)
    for number in range(5 * FILES):
        write(root / f"logs/system/{number}", b"%d" % number)
    with (root / "logs/huge").open("wb") as file:
        file.truncate(BYTES + 1)
    run("backup", settings, now=time.time())
    _, newest = snapshots(settings)[-1]
    repository = opened(settings.repository)
    for seed in range(3):
        found = drill(repository, newest, settings.layout.tree, tmp_path / "drill", Random(seed), lambda: False)
        assert (FILES, []) == (found.files, found.wrong)


def test_a_failed_drill_is_told(settings: JobSettings, tmp_path: Path) -> None:
    """Damage in a pack whose turn to be read has not come: the restore of a file finds it."""
    for path in Path(settings.layout.root, "state/agents").glob("*.gz"):
        path.unlink()
    run("backup", settings, now=time.time())
    flip(packs(settings)[0], 1 << 20)
    others = next(
        number for number in range(256) if not list(Path(tmp_path, "backups/data", f"{number:02x}").glob("*"))
    )
    ran = run("verify", settings, now=time.time(), subset=f"{others + 1}/256")
    assert ["repository_verified", "restore_drill_failed"] == ran.told
    (finding,) = ran.report.findings
    assert (Outcome.LEFT, "drill_failed") == (ran.report.outcome, finding.kind)
    assert finding.path.endswith("logs/system/large")


def test_a_drill_without_room_is_told(settings: JobSettings, tmp_path: Path) -> None:
    """Where its directory can't be made, the repository is whole all the same."""
    (tmp_path / "datad/drill").write_bytes(b"in the way")
    ran = run("verify", settings, now=time.time())
    assert (Outcome.LEFT, ["not_drilled"]) == (ran.report.outcome, [one.kind for one in ran.report.findings])


def test_a_drill_restores_what_lies_beside_the_tree(tmp_path: Path) -> None:
    """A root beside it is in the backup, and its files are restored as well; no live file is compared with them."""
    settings = settings_for(tmp_path, vectors=VectorSettings(extra_roots=(str(tmp_path / "vectors"),)))
    write(tmp_path / "vectors/notes/file")
    write(tmp_path / "data/logs/system/a.log")
    run("backup", settings, now=time.time())
    ran = run("verify", settings, now=time.time())
    assert (Outcome.DONE, 2) == (ran.report.outcome, ran.report.counts["drilled"])
