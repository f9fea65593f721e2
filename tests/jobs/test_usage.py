"""Usage is measured in one walk, and files get the mode and owner that the settings declare, and only they."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs import JOBS, permissions
from symbiont_datad.ledger_trim import Limits
from symbiont_datad.report import Action, Outcome
from tests.conftest import AsNobody
from tests.jobs.making import NOW, ledger_of, run, settings_for, write
from tests.support import NOBODY


def mode(path: Path) -> int:
    """The permission bits of a file, with setuid, setgid and sticky."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_every_category_is_measured(tmp_path: Path) -> None:
    """Files and bytes by category, the quarantine as its own, and the file system's room, as df says it."""
    settings = settings_for(tmp_path)
    root = tmp_path / "data"
    for path, size in (
        ("state/agents/a.json", 10), ("logs/system/deep/er/a.log", 20), ("logs/b.log", 3), ("prompts/cache/c", 40),
        ("vector_db/collections/n/d", 50), ("elsewhere/e", 7), ("loose", 1), (".quarantine/cell/item", 1000),
    ):  # fmt: skip
        write(root / path, b"x" * size)
    ran = run("usage", settings)
    assert (Outcome.DONE, 8, 1131) == (ran.report.outcome, ran.report.counts["files"], ran.report.counts["bytes"])
    with ledger_of(settings) as ledger:
        points, space = ledger.usage()
    assert {
        "state": (1, 10), "logs": (2, 23), "prompts": (1, 40), "vector_db": (1, 50), "other": (2, 8),
        "quarantine": (1, 1000),
    } == {point.category: (point.files, point.bytes) for point in points}  # fmt: skip
    found = os.statvfs(root)
    assert space is not None
    assert (found.f_blocks * found.f_frsize, found.f_files) == (space.total_bytes, space.total_inodes)
    assert abs(found.f_bavail * found.f_frsize - space.free_bytes) < 1 << 30


def test_the_directories_of_the_layout_are_measured_as_well(tmp_path: Path) -> None:
    """Each file counts for the nearest one, so that all of them together are the tree; in the same walk."""
    settings = settings_for(tmp_path)
    root = tmp_path / "data"
    for path, size in (
        ("state/agents/a", 1), ("state/agents/archives/x/b", 2), ("state/c", 4), ("logs/system/deep/d", 8),
        ("prompts/history/2026-01-01/e", 16), ("elsewhere/f", 32), ("g", 64),
    ):  # fmt: skip
        write(root / path, b"x" * size)
    run("usage", settings)
    with ledger_of(settings) as ledger:
        points, spaces = ledger.usage_since(0.0)
    assert 1 == len(spaces)
    held = {point.category: (point.files, point.bytes) for point in points if point.files}
    assert {"state/agents": (1, 1), "state/agents/archives": (1, 2), "state": (1, 4), "logs/system": (1, 8),
            "prompts/history": (1, 16), "": (2, 96)} == held  # fmt: skip
    assert {row.path for row in settings.layout.directories} == {point.category for point in points}


def test_the_ledger_forgets(tmp_path: Path) -> None:
    """What is older than the settings say goes with each run; a dry one forgets nothing."""
    settings = replace(settings_for(tmp_path), ledger=Limits(100.0))
    with ledger_of(settings) as ledger:
        for age_s in (101, 99):
            ledger.record([Action("file_removed", str(age_s), "cache", "old")], NOW - age_s)
    for dry_run, left in ((True, ["101", "99"]), (False, ["99"])):
        run("usage", settings, dry_run=dry_run)
        with ledger_of(settings) as ledger:
            assert left == [row.path for row in ledger.actions()]


def test_an_empty_tree_is_measured_as_such(tmp_path: Path) -> None:
    """A category without files has a point that says zero."""
    settings = settings_for(tmp_path)
    run("usage", settings)
    with ledger_of(settings) as ledger:
        assert {("state", 0, 0), ("logs", 0, 0)} <= {(one.category, one.files, one.bytes) for one in ledger.usage()[0]}


def test_a_dry_run_measures_and_writes_nothing(tmp_path: Path) -> None:
    """The plan names what would be changed; the files and the ledger stay as they are."""
    settings = settings_for(tmp_path, file_mode=0o640)
    path = write(tmp_path / "data/logs/a.log")
    path.chmod(0o666)
    dry = run("usage", settings, dry_run=True)
    assert (0o666, ["permissions_restored"], []) == (mode(path), [one.kind for one in dry.report.actions], dry.told)
    with ledger_of(settings) as ledger:
        assert ([], []) == (ledger.usage()[0], ledger.actions())
    assert dry.report.actions == run("usage", settings).report.actions


def test_modes_are_restored_and_set_id_bits_cleared(tmp_path: Path) -> None:
    """Every regular file at any depth gets the declared mode; directories, FIFOs and links' targets keep theirs."""
    settings = settings_for(tmp_path, file_mode=0o640)
    root = tmp_path / "data"
    wrong = [write(root / name) for name in ("loose", "logs/system/deep/a\n.log", "vector_db/collections/n/\udcff")]
    for path in wrong:
        path.chmod(0o6777)
    right = write(root / "prompts/cache/right")
    right.chmod(0o640)
    os.mkfifo(root / "logs/fifo", 0o600)
    outside = write(tmp_path / "outside")
    outside.chmod(0o600)
    (root / "logs/link").symlink_to(outside)
    quarantined = write(root / ".quarantine/cell/item")
    quarantined.chmod(0o600)
    ran = run("usage", settings)
    assert [0o640] * 4 == [mode(path) for path in (*wrong, right)]
    assert [0o600] * 3 == [mode(path) for path in (root / "logs/fifo", outside, quarantined)]
    assert 0o755 == mode(root / "logs")
    assert {("permissions_restored", "file_permissions")} == {(one.kind, one.rule) for one in ran.report.actions}
    assert (3, ["permissions_restored"]) == (ran.report.actions_total, ran.told)
    with ledger_of(settings) as ledger:
        assert 3 == len(ledger.actions(job="usage"))
    assert ([], 0) == ((again := run("usage", settings)).told, again.report.actions_total)


def test_owners_are_restored(open_path: Path, as_nobody: AsNobody) -> None:
    """As root, files get the declared owner; the group that is not declared stays."""
    del as_nobody  # only root can do this
    settings = settings_for(open_path, uid=NOBODY)
    path = write(open_path / "data/logs/a.log")
    ran = run("usage", settings)
    assert (NOBODY, os.getgid()) == (path.stat().st_uid, path.stat().st_gid)
    assert [("owner_restored", "owner")] == [(one.kind, one.rule) for one in ran.report.actions]


def test_root_refuses_a_file_with_another_name(open_path: Path, as_nobody: AsNobody) -> None:
    """A hard link to a file outside the tree is left as it is by root, and told of once."""
    del as_nobody
    settings = settings_for(open_path, file_mode=0o666, uid=NOBODY)
    secret = write(open_path / "secret")
    secret.chmod(0o600)
    (open_path / "data/logs/planted.log").hardlink_to(secret)
    ran = run("usage", settings)
    assert (0o600, 0) == (mode(secret), secret.stat().st_uid)
    assert (["repair_refused"], [("repair_refused", "logs/planted.log")]) == (
        ran.told,
        [(finding.kind, finding.path) for finding in ran.report.findings],
    )
    assert ((), Outcome.LEFT) == (ran.report.actions, ran.report.outcome)
    again = run("usage", settings)
    assert ([], 1) == (again.told, len(again.report.findings))


def test_a_user_changes_only_what_is_theirs(open_path: Path, as_nobody: AsNobody) -> None:
    """What belongs to somebody else is told of, with the system's reason, and the rest is put right."""
    settings = settings_for(open_path, file_mode=0o640)
    theirs, mine = write(open_path / "data/logs/theirs.log"), write(open_path / "data/logs/mine.log")
    for path in (theirs, mine):
        path.chmod(0o666)
    os.chown(mine, NOBODY, NOBODY)
    (open_path / "datad").mkdir()
    (open_path / "datad").chmod(0o777)
    ran = as_nobody(lambda: run("usage", settings))
    assert (0o666, 0o640) == (mode(theirs), mode(mine))
    assert [("repair_failed", "logs/theirs.log")] == [(one.kind, one.path) for one in ran.report.findings]
    assert ["logs/mine.log"] == [action.path for action in ran.report.actions]


def test_what_cant_be_listed_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """A closed directory is a finding, and the rest is measured."""
    settings = settings_for(open_path)
    write(open_path / "data/state/agents/a.json")
    (open_path / "data/state/agents").chmod(0o700)
    write(open_path / "data/logs/a.log")
    (open_path / "datad").mkdir()
    (open_path / "datad").chmod(0o777)
    ran = as_nobody(lambda: run("usage", settings))
    assert [("unread", "state/agents")] == [(finding.kind, finding.path) for finding in ran.report.findings]
    assert 1 == ran.report.counts["files"]


def test_many_findings_are_counted(tmp_path: Path) -> None:
    """Of more than twenty files that have several names each, the rest is one number."""
    if os.geteuid() != 0:
        pytest.skip("only root refuses files of several names")
    settings = settings_for(tmp_path, file_mode=0o640)
    for number in range(13):
        path = write(tmp_path / f"data/logs/{number}.log")
        path.chmod(0o600)
        os.link(path, tmp_path / f"data/logs/{number}.other")
    ran = run("usage", settings)
    refused = [one for one in ran.report.findings if one.kind == "repair_refused"]
    assert (21, "and 6 more files have several names") == (len(refused), refused[-1].detail)
    assert ["repair_refused"] == ran.told


def test_many_failures_are_counted(open_path: Path, as_nobody: AsNobody) -> None:
    """Of more than twenty files that can't be changed, the rest is one number."""
    settings = settings_for(open_path, file_mode=0o640)
    for number in range(22):
        write(open_path / f"data/logs/{number}.log").chmod(0o644)
    (open_path / "datad").mkdir()
    os.chown(open_path / "datad", NOBODY, NOBODY)
    JOBS["usage"].load()  # who is nobody may not read it
    failed = [one for one in as_nobody(lambda: run("usage", settings)).report.findings if one.kind == "repair_failed"]
    assert (21, "and 2 more files could not be changed") == (len(failed), failed[-1].detail)


def test_a_dry_run_changes_no_owner(tmp_path: Path) -> None:
    """It says whose the files would be."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    settings = settings_for(tmp_path, uid=NOBODY)
    path = write(tmp_path / "data/logs/a.log")
    assert ["owner_restored"] == [one.kind for one in run("usage", settings, dry_run=True).report.actions]
    assert 0 == path.stat().st_uid


def test_many_changes_are_written_down_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a row, however many there are."""
    monkeypatch.setattr(permissions, "_BATCH", 2)
    settings = settings_for(tmp_path, file_mode=0o640)
    paths = [f"logs/system/{number}" for number in range(5)]
    for path in paths:
        write(tmp_path / "data" / path).chmod(0o600)
    run("usage", settings)
    with ledger_of(settings) as ledger:
        assert paths == sorted(row.path for row in ledger.actions(kinds=["permissions_restored"]))
