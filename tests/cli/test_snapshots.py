"""`snapshots`, as a user types it."""

import os
import re
import shutil
from pathlib import Path

import pytest

from symbiont_datad.jobs.repository import identity
from symbiont_datad.restic.lock import hold
from tests.cli.conftest import Datad, Shelf
from tests.support import NOBODY, build_tree, read_tree, run_as

NOON = 1_795_176_000.0  # 2026-11-20 12:00 UTC


@pytest.fixture
def three(root: Path, shelf: Shelf) -> list[str]:
    """Three snapshots, made in another order than their times: ids by time."""
    build_tree(root, {"state": {"agents": {"a.json": b"{}"}}, "logs": {"a.log": b"one\n" * 1000}})
    shelf.make()
    last = shelf.add(root, at=NOON + 3600, host="other")
    first = shelf.add(root, at=NOON)
    middle = shelf.add(root / "state", at=NOON + 60, tags=("autosave", "nightly"))
    return [first, middle, last]


def test_snapshots_are_listed_the_newest_last(datad: Datad, shelf: Shelf, three: list[str]) -> None:
    """A table of eighty columns at most: id, time, host, tags, files, size, what was added."""
    done = datad("snapshots")
    assert (0, "") == (done.returncode, done.stderr)
    head, *rows, end = done.stdout.splitlines()
    assert ["id", "time", "host", "tags", "files", "size", "added"] == head.split()
    assert [
        f"{three[0][:8]} 2026-11-20 12:00Z here backup 2 3.9 KiB LITTLE",
        f"{three[1][:8]} 2026-11-20 12:01Z here autosave,nightly 1 2 B ADDED",
        f"{three[2][:8]} 2026-11-20 13:00Z other backup 2 3.9 KiB ADDED",
    ] == [re.sub(r"[\d.]+ KiB$", "ADDED", re.sub(r"\d+ B$", "LITTLE", " ".join(row.split()))) for row in rows]
    assert f"3 snapshots in {shelf.path}" == end
    assert 80 >= max(map(len, done.stdout.splitlines()[:-1]))


def test_snapshots_as_json(datad: Datad, root: Path, three: list[str]) -> None:
    """Whole ids, times in UTC, sizes in bytes."""
    document = datad("snapshots", "--json").document
    assert three == [one["id"] for one in document["snapshots"]]
    first = document["snapshots"][0]
    little = first["added_bytes"], first["stored_bytes"]
    assert max(little) < 1500  # the one of an hour later was made before it; only what is above the root may differ
    assert 0 < document["snapshots"][2]["stored_bytes"] < document["snapshots"][2]["added_bytes"]
    assert {
        "id": three[0],
        "short_id": three[0][:8],
        "time": "2026-11-20T12:00:00.000Z",
        "host": "here",
        "user": "somebody",
        "tags": ["backup"],
        "paths": [str(root)],
        "program": "",
        "files": 2,
        "bytes": 4002,
        "added_bytes": little[0],
        "stored_bytes": little[1],
    } == first


def test_snapshots_are_chosen_by_tag_host_and_path(datad: Datad, root: Path, three: list[str]) -> None:
    """Each option narrows the list; several tags must all be there."""

    def listed(*words: str) -> list[int]:
        return [three.index(one["id"]) for one in datad("snapshots", "--json", *words).document["snapshots"]]

    assert [0, 2] == listed("--tag", "backup")
    assert [1] == listed("--tag", "autosave", "--tag", "nightly")
    assert [] == listed("--tag", "autosave", "--tag", "backup")
    assert [0, 1] == listed("--host", "here")
    assert [1] == listed("--path", str(root / "state"))


def test_an_empty_repository_has_no_snapshots(datad: Datad, shelf: Shelf) -> None:
    """That is no error."""
    shelf.make()
    done = datad("snapshots")
    assert (0, f"0 snapshots in {shelf.path}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_snapshots_are_listed_while_somebody_holds_the_repository(datad: Datad, shelf: Shelf, three: list[str]) -> None:
    """Listing neither waits for an exclusive lock nor leaves one."""
    with hold(shelf.open(), identity(), exclusive=True, settle_s=0.0):
        before = read_tree(shelf.path / "locks")
        assert 3 == len(datad("snapshots", "--json").document["snapshots"])
        assert before == read_tree(shelf.path / "locks")


def test_a_damaged_snapshot_hides_no_other(datad: Datad, shelf: Shelf, three: list[str]) -> None:
    """Exit code 3, the damaged file is named, the others are listed."""
    file = shelf.path / "snapshots" / three[1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    done = datad("snapshots", "--json")
    assert 3 == done.returncode
    assert [three[0], three[2]] == [one["id"] for one in done.document["snapshots"]]
    assert [three[1]] == [one["id"] for one in done.document["unread"]]
    assert f"snapshots/{three[1]}: its content changed since it was written" in done.stderr


def test_where_there_is_no_repository(datad: Datad, shelf: Shelf) -> None:
    """Exit code 10, one line that says what to do, and nothing is made."""
    done = datad("snapshots")
    assert (10, "") == (done.returncode, done.stdout)
    assert f"symbiont-datad: {shelf.path}: there is no repository; `repository init` makes one\n" == done.stderr
    assert not shelf.path.exists()


def test_with_a_wrong_password(datad: Datad, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 12, one line."""
    shelf.make()
    monkeypatch.setenv("SYMBIONT_DATAD_BACKUP__PASSWORD", "wrong")
    done = datad("snapshots")
    assert (12, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "the password is wrong" in done.stderr


def test_without_permission(datad: Datad, open_path: Path, three: list[str], root: Path) -> None:
    """Exit code 1 and one line that names the repository, for another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    repository = open_path / "backups"
    shutil.copytree(root.parent / "backups", repository)
    config = open_path / "datad.toml"
    config.write_text(f'[backup]\nrepository = "{repository}"\n')
    os.chdir(open_path)
    done = run_as(NOBODY, lambda: datad("--config", config, "--root", open_path / "data", "snapshots"))
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert str(repository) in done.stderr
    assert "ermi" in done.stderr
