"""Whole directories, patterns and protection: what a rule is about, and what keeps it from taking anything."""

import importlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs import JOBS
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.layout import Directory
from symbiont_datad.report import Outcome
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.conftest import AsNobody
from tests.jobs.making import DAY, NOW, run, settings_for, write
from tests.support import NOBODY

HISTORY = Rule("history", "prompts/history", max_age_s=30 * DAY, whole=True)


def settings_of(base: Path, *rules: Rule, **other: object) -> JobSettings:
    """Settings with rules that need no snapshot."""
    return settings_for(base, *rules, require_snapshot=False, **other)  # type: ignore[arg-type]


def gone(settings: JobSettings, **options: object) -> list[str]:
    """The paths of what a run takes; it has to say the same as a dry run before it."""
    dry = run("clean", settings, dry_run=True, **options)  # type: ignore[arg-type]
    ran = run("clean", settings, **options)  # type: ignore[arg-type]
    assert dry.report.actions == ran.report.actions
    return [action.path for action in ran.report.actions]


@pytest.mark.parametrize("undo_window_s", [0.0, DAY])
def test_a_day_goes_whole_or_not_at_all(tmp_path: Path, undo_window_s: float) -> None:
    """One new file keeps a day; one that is all old goes with everything, by one action, which says how much it was."""
    settings = settings_of(tmp_path, HISTORY, undo_window_s=undo_window_s)
    history = tmp_path / "data/prompts/history"
    for name in ("2026-01-01/a", "2026-01-01/deep/er/b\n", "2026-01-02/a", "loose\udcff"):
        write(history / name, age_s=40 * DAY)
    write(history / "2026-01-02/new", age_s=DAY)
    (history / "2026-01-01/empty").mkdir()
    assert ["prompts/history/loose\udcff", "prompts/history/2026-01-01"] == gone(settings)
    assert ["2026-01-02"] == os.listdir(history)
    assert ["a", "new"] == sorted(os.listdir(history / "2026-01-02"))


def test_reasons_tell_how_many_files_went(tmp_path: Path) -> None:
    """And the bytes of all of them."""
    settings = settings_of(tmp_path, HISTORY)
    for name in "abc":
        write(tmp_path / f"data/prompts/history/2026-01-01/{name}", age_s=40 * DAY)
    (action,) = run("clean", settings).report.actions
    assert ("not changed for 40d, over 30d (3 files)", 300) == (action.reason, action.bytes)


def test_counts_are_of_directories(tmp_path: Path) -> None:
    """Three days at most means three days, however many files they have."""
    settings = settings_of(tmp_path, replace(HISTORY, max_age_s=None, max_files=3))
    for day in range(5):
        for name in "abc":
            write(tmp_path / f"data/prompts/history/2026-01-0{day + 1}/{name}", age_s=(9 - day) * DAY)
    assert ["prompts/history/2026-01-01", "prompts/history/2026-01-02"] == gone(settings)


def test_a_day_waits_until_a_backup_has_all_of_it(tmp_path: Path) -> None:
    """One file that is in none keeps the whole day."""
    settings = settings_for(tmp_path, HISTORY)
    day = tmp_path / "data/prompts/history/2026-01-01"
    write(day / "a", age_s=40 * DAY)
    run("backup", settings)
    write(day / "b", age_s=40 * DAY)
    ran = run("clean", settings)
    assert ((), 1) == (ran.report.actions, ran.report.counts["waiting"])
    run("backup", settings, now=NOW + 60)
    assert ["prompts/history/2026-01-01"] == [action.path for action in run("clean", settings).report.actions]


def fifo(day: Path) -> None:
    """A pipe without a reader."""
    os.mkfifo(day / "deep/fifo")


def unix_socket(day: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(day / "deep")  # an address has 108 bytes
        one.bind("socket")


def device(day: Path) -> None:
    """A device that one could read from for ever."""
    if os.geteuid() != 0:
        pytest.skip("only root can make devices")
    os.mknod(day / "deep/zero", 0o020666, os.makedev(1, 5))


@pytest.mark.parametrize("plant", [fifo, unix_socket, device])
@pytest.mark.parametrize("whole", [True, False])
def test_odd_things_hold_nobody_up_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None], whole: bool
) -> None:
    """A FIFO, a socket, a device: not opened, not removed, and what holds it stays whole."""
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, replace(HISTORY, whole=whole, broken=True, cache=True))
    day = tmp_path / "data/prompts/history/2026-01-01"
    write(day / "deep/a", age_s=40 * DAY)
    write(day / "b", age_s=40 * DAY)
    plant(day)
    ended = threading.Timer(30, os._exit, [1])  # a test that hangs would hang for a minute
    ended.start()
    try:
        paths = gone(settings)
    finally:
        ended.cancel()
    assert ([] if whole else ["prompts/history/2026-01-01/b", "prompts/history/2026-01-01/deep/a"]) == paths
    assert 1 == len([path for path in (day / "deep").iterdir() if not path.is_file()])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("whole", [True, False])
def test_no_mount_is_crossed(tmp_path: Path, whole: bool) -> None:
    """Files on another file system inside the tree are nobody's business, nor is the day that they are mounted in."""
    settings = settings_of(tmp_path, replace(HISTORY, whole=whole))
    day = tmp_path / "data/prompts/history/2026-01-01"
    write(day / "a", age_s=40 * DAY)
    (day / "mount").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(day / "mount")], check=True)
    try:
        theirs = write(day / "mount/theirs", age_s=40 * DAY)
        assert ([] if whole else ["prompts/history/2026-01-01/a"]) == gone(settings)
        assert theirs.exists()
    finally:
        subprocess.run(["umount", str(day / "mount")], check=True)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in a day goes with it; what it leads to stays, and so does a day that is a link itself."""
    settings = settings_of(tmp_path, HISTORY)
    history = tmp_path / "data/prompts/history"
    outside = write(tmp_path / "outside/2026-01-01/a", age_s=40 * DAY)
    write(history / "2026-01-02/a", age_s=40 * DAY)
    (history / "2026-01-02/out").symlink_to(tmp_path / "outside")
    os.utime(history / "2026-01-02/out", (0, 0), follow_symlinks=False)
    (history / "2026-01-01").symlink_to(outside.parent)
    assert ["prompts/history/2026-01-02"] == gone(settings)
    assert outside.exists()
    assert (history / "2026-01-01").is_symlink()


def test_an_open_file_keeps_its_day(tmp_path: Path) -> None:
    """The day counts as one that stays."""
    settings = settings_of(tmp_path, HISTORY)
    held = write(tmp_path / "data/prompts/history/2026-01-01/deep/a", age_s=40 * DAY)
    with held.open("rb"):
        ran = run("clean", settings)
    assert ((), 1) == (ran.report.actions, ran.report.counts["kept_open"])
    assert ["prompts/history/2026-01-01"] == gone(settings)


def test_a_day_that_cant_be_read_stays(open_path: Path, as_nobody: AsNobody) -> None:
    """Nobody knows what is in it; that is told, and the others go."""
    settings = settings_of(open_path, HISTORY, undo_window_s=DAY)
    history = open_path / "data/prompts/history"
    for day in ("2026-01-01", "2026-01-02"):
        write(history / day / "deep/a", age_s=40 * DAY)
    (history / "2026-01-01/deep").chmod(0o700)
    for path in [open_path / "data", history, history / "2026-01-02", history / "2026-01-02/deep"]:
        path.chmod(0o777)
    (open_path / "data").chmod(0o755)
    (open_path / "data/.quarantine").mkdir(0o700)
    os.chown(open_path / "data/.quarantine", 65534, 65534)
    (open_path / "datad").mkdir()
    (open_path / "datad").chmod(0o777)
    ran = as_nobody(lambda: run("clean", settings))
    assert ["prompts/history/2026-01-02"] == [action.path for action in ran.report.actions]
    assert (Outcome.LEFT, ["unread"]) == (ran.report.outcome, [finding.kind for finding in ran.report.findings])


def test_what_is_left_of_a_day_is_told_of_once(open_path: Path, as_nobody: AsNobody) -> None:
    """It lies in the quarantine by then, where the same run looks again."""
    settings = settings_of(open_path, HISTORY)
    day = open_path / "data/prompts/history/2026-01-01"
    write(day / "deep/a", age_s=40 * DAY)  # in a directory that is not theirs
    (open_path / "data/.quarantine").mkdir(0o700)
    (open_path / "datad").mkdir()
    for path in (day.parent, day, open_path / "data/.quarantine", open_path / "datad"):
        os.chown(path, NOBODY, NOBODY)
    JOBS["clean"].load()
    importlib.import_module("_strptime")  # who is nobody may not read it
    ran = as_nobody(lambda: run("clean", settings))
    (cell,) = os.listdir(open_path / "data/.quarantine")
    assert [("not_removed", f".quarantine/{cell}")] == [(one.kind, one.path) for one in ran.report.findings]
    assert (open_path / f"data/.quarantine/{cell}").is_dir()


def test_what_is_declared_or_anothers_keeps_its_day(tmp_path: Path) -> None:
    """A directory of the layout inside a unit, and files that another rule is about, don't go with it."""
    other = Rule("kept", "prompts/history/2026-01-02/kept", max_age_s=900 * DAY)
    settings = settings_of(tmp_path, HISTORY, other)
    row = Directory("prompts/history/2026-01-01/declared", 0o755, "")
    layout = replace(settings.layout, directories=(*settings.layout.directories, row))
    for name in ("2026-01-01/a", "2026-01-01/declared/b", "2026-01-02/a", "2026-01-02/kept/b", "2026-01-03/a"):
        write(tmp_path / "data/prompts/history" / name, age_s=40 * DAY)
    assert ["prompts/history/2026-01-03"] == gone(replace(settings, layout=layout))


def test_today_and_tomorrow_stay(tmp_path: Path) -> None:
    """However short the age is, and however few days may be."""
    settings = settings_of(tmp_path, replace(HISTORY, max_age_s=1.0, max_files=1))
    settings = replace(settings, layout=replace(settings.layout, days="prompts/history"))
    for day in ("2026-11-15", "2026-11-18", "2026-11-19"):
        write(tmp_path / "data/prompts/history" / day / "a", age_s=DAY)
    assert ["prompts/history/2026-11-15"] == gone(settings)


def test_the_day_in_the_name_can_count(tmp_path: Path) -> None:
    """A day that was restored yesterday is as old as its name says."""
    settings = settings_of(tmp_path, replace(HISTORY, age_by=AgeBy.NAME))
    for day in ("2026-10-18", "2026-10-20", "no day"):
        write(tmp_path / "data/prompts/history" / day / "a", age_s=DAY)
    assert ["prompts/history/2026-10-18"] == gone(settings)


def test_a_rule_can_be_about_some_files(tmp_path: Path) -> None:
    """By patterns, in its directory and below; what it is not about is left to the rule that is about all."""
    traces = Rule("traces", "logs", max_age_s=DAY, patterns=("**/*.trace", "debug"), keep_newest=True)
    logs = Rule("logs", "logs", max_age_s=30 * DAY, keep_newest=True)
    settings = settings_of(tmp_path, logs, traces)
    for name, age in (("a.trace", 2), ("deep/b.trace", 3), ("debug/c.log", 4), ("a.log", 5), ("old.log", 40),
                      ("now.trace", 0), ("audit/x.trace", 50)):  # fmt: skip
        write(tmp_path / "data/logs" / name, age_s=age * DAY)
    assert {"logs/a.trace", "logs/deep/b.trace", "logs/debug/c.log", "logs/old.log"} == set(gone(settings))


@pytest.mark.parametrize("whole", [True, False])
def test_protected_things_stay(tmp_path: Path, whole: bool) -> None:
    """A pattern protects a file, a directory with all in it, and a whole day for the sake of one file."""
    rule = replace(HISTORY, whole=whole, protect=("2026-01-01", "**/*.pinned"))
    settings = settings_of(tmp_path, rule)
    for name in ("2026-01-01/a", "2026-01-02/deep/b.pinned", "2026-01-02/c", "2026-01-03/d"):
        write(tmp_path / "data/prompts/history" / name, age_s=40 * DAY)
    expected = ["prompts/history/2026-01-03"] if whole else [
        "prompts/history/2026-01-02/c", "prompts/history/2026-01-03/d", "prompts/history/2026-01-03"
    ]  # fmt: skip
    assert expected == gone(settings)
