"""Room on a disk that is nearly full: on a real one of 16 MiB, in the order of what is missed least."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.formats.rotated import Rotated
from symbiont_datad.jobs import relieve as relieve_module
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.quantities import Share
from symbiont_datad.report import Outcome
from symbiont_datad.retention.pressure import Marks
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, write
from tests.process.running import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

KIB = 1024
SIZE = 16 << 20
MARKS = Marks(Share(percent=10), Share(percent=20), Share(percent=0), Share(percent=0))
CACHE = Rule("cache", "prompts/cache", max_bytes=1 << 30, age_by=AgeBy.USED, cache=True)
HISTORY = Rule("history", "prompts/history", max_age_s=300 * DAY, whole=True)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 16 MiB and 2,000 inodes."""
    monkeypatch.setattr(relieve_module, "_LOOKS_ON_S", 0.0)
    where = tmp_path / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=2000", "tmpfs", str(where)], check=True)
    yield where
    subprocess.run(["umount", str(where)], check=True)


def settings_on(disk: Path, *rules: Rule, **other: object) -> JobSettings:
    """Settings of a tree on the small disk, with the ledger and the repository elsewhere."""
    settings = settings_for(disk, *rules, marks=MARKS, undo_window_s=DAY, **other)  # type: ignore[arg-type]
    away = disk.parent
    snapshots = replace(settings.snapshots, repository=replace(settings.repository, location=str(away / "backups")))
    return replace(settings, daemon_dir=away / "datad", snapshots=snapshots)


def fill(disk: Path, free: int) -> None:
    """Leave so many bytes free, with a file that no rule is about."""
    with (disk / "data/vector_db/ballast").open("ab") as file:
        found = os.statvfs(disk)
        file.write(bytes(found.f_bavail * found.f_frsize - free))


def free(disk: Path) -> int:
    """The bytes that are free."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def picture(root: Path) -> dict[str, tuple[int, int]]:
    """What lies below state: size and time of each file."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in (root / "state").rglob("*")}


def test_with_room_enough_nothing_is_touched(disk: Path) -> None:
    """Above the high mark there is no pressure, whatever the low one says."""
    settings = settings_on(disk, CACHE)
    write(disk / "data/prompts/cache/a", bytes(100 * KIB), age_s=DAY)
    fill(disk, SIZE // 10 + 8 * KIB)
    ran = run("relieve", settings)
    assert (Outcome.DONE, (), []) == (ran.report.outcome, ran.report.actions, ran.told)


def test_the_least_recently_used_cache_files_go_up_to_the_mark(disk: Path) -> None:
    """Though the cache is below its own limits; no more than it takes; at once, and with a row each."""
    settings = settings_on(disk, CACHE)
    for number in range(40):
        write(disk / f"data/prompts/cache/{number:02}", bytes(100 * KIB), age_s=number * 3600)
    fill(disk, SIZE // 20)
    dry = run("relieve", settings, dry_run=True)
    ran = run("relieve", settings)
    assert dry.report.actions == ran.report.actions
    assert 0 <= free(disk) - SIZE // 5 < 100 * KIB
    left = len(os.listdir(disk / "data/prompts/cache"))
    assert [f"prompts/cache/{number:02}" for number in range(left, 40)] == [one.path for one in ran.report.actions]
    assert {("file_removed", "limits")} == {(one.kind, one.rule) for one in ran.report.actions}
    assert "least recently used in the cache; the disk is nearly full" in ran.report.actions[0].reason
    assert ["room_made"] == ran.told
    assert not (disk / "data/.quarantine").exists()
    with ledger_of(settings) as ledger:
        assert {"done"} == {row.state for row in ledger.actions()}
        assert 40 - left == len(ledger.actions())


def test_inodes_run_out_too(disk: Path) -> None:
    """Files of no size count there."""
    marks = Marks(Share(percent=0), Share(percent=0), Share(percent=10), Share(amount=300))
    settings = replace(settings_on(disk, CACHE), marks=marks)
    number = 0
    while os.statvfs(disk).f_favail > 150:
        write(disk / f"data/prompts/cache/{number:04}", b"", age_s=number)
        number += 1
    run("relieve", settings)
    assert 300 == os.statvfs(disk).f_favail


def test_the_order_is_kept_and_state_is_never_touched(disk: Path) -> None:
    """The cache, what can be undone, then rotated logs and what a rule takes anyway, if a backup has them."""
    sessions = Rule("sessions", "state/sessions", max_age_s=30 * DAY)
    settings = settings_on(disk, CACHE, HISTORY, sessions)
    root = disk / "data"
    archive = Rotated("agent.log", int(NOW - 5 * DAY), 1, ".zst").name
    body = os.urandom(400 * KIB)
    write(root / f"logs/agents/{archive}", body, age_s=5 * DAY)
    write(root / "logs/agents/agent.log", body, age_s=5 * DAY)
    write(root / f"logs/audit/{archive}", body, age_s=9 * DAY)
    for day in range(3):
        write(root / f"prompts/history/2026-11-0{day + 1}/a", body, age_s=(9 - day) * DAY)
    write(root / "state/sessions/s.json", body, age_s=20 * DAY)
    write(root / "state/agents/archives/x/archive_1.json", body, age_s=99 * DAY)
    run("backup", settings)
    write(root / "logs/agents/other.log.20261101T000000Z-0001", body, age_s=20 * DAY)  # no backup has it
    for number in range(4):
        write(root / f"prompts/cache/{number}", bytes(200 * KIB), age_s=DAY + number)
    write(root / "prompts/history/2026-10-01/old", body, age_s=301 * DAY)
    run("clean", replace(settings, require_snapshot=False, marks=Marks()))  # into the quarantine
    assert 1 == len(os.listdir(root / ".quarantine"))
    before = picture(root)
    fill(disk, SIZE // 20)

    gone: list[str] = []
    for target in (1000, 1400, 1800, 2200, 2600, 3000):
        low = Share(amount=free(disk) + 400 * KIB if target > 1000 else free(disk) + 800 * KIB)
        marks = Marks(Share(amount=free(disk) + 1), low, Share(percent=0), Share(percent=0))
        gone += [one.path for one in run("relieve", replace(settings, marks=marks)).report.actions]
    assert [
        "prompts/cache/0", "prompts/cache/1", "prompts/cache/2", "prompts/cache/3",
        ".quarantine/20261118T110640Z",
        f"logs/agents/{archive}",
        "prompts/history/2026-11-01", "prompts/history/2026-11-02",
    ] == gone  # fmt: skip
    assert before == picture(root)
    assert sorted(os.listdir(root / "logs/agents")) == ["agent.log", "other.log.20261101T000000Z-0001"]
    assert (root / f"logs/audit/{archive}").exists()
    assert ["2026-11-03"] == os.listdir(root / "prompts/history")
    last = run("relieve", replace(settings, marks=Marks(Share(percent=100), Share(percent=100)))).report
    assert (Outcome.LEFT, ()) == (last.outcome, last.actions)
    assert "a backup would let" in last.message


def test_protected_and_open_files_stay(disk: Path) -> None:
    """What is open gives nothing back, what a pattern protects is not ours, and what has another name gives nothing."""
    settings = settings_on(disk, replace(CACHE, protect=("keep*",)))
    cache = disk / "data/prompts/cache"
    for name in ("keep", "open", "linked", "plain"):
        write(cache / name, bytes(200 * KIB), age_s=DAY)
    os.link(cache / "linked", disk / "data/elsewhere")
    fill(disk, SIZE // 20)
    with (cache / "open").open("rb"):
        ran = run("relieve", settings)
    assert ["prompts/cache/plain"] == [action.path for action in ran.report.actions]
    assert "nothing is left that may go" in ran.report.message
    assert ["disk_nearly_full"] == [finding.kind for finding in ran.report.findings]


def test_clean_makes_room_too_and_keeps_nothing_to_undo(disk: Path) -> None:
    """While the disk is nearly full, what rules remove goes at once: directories as well."""
    settings = settings_on(disk, CACHE, HISTORY, require_snapshot=False)
    write(disk / "data/prompts/history/2026-01-01/deep/a", bytes(300 * KIB), age_s=301 * DAY)
    write(disk / "data/prompts/cache/a", bytes(300 * KIB), age_s=DAY)
    fill(disk, 0)
    ran = run("clean", settings)
    assert [("directory_removed", "prompts/history/2026-01-01"), ("file_removed", "prompts/cache/a")] == [
        (one.kind, one.path) for one in ran.report.actions
    ]
    assert [] == os.listdir(disk / "data/prompts/history")
    assert not (disk / "data/.quarantine").exists() or [] == os.listdir(disk / "data/.quarantine")


def test_a_disk_that_fills_up_again_is_emptied_again(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job looks on for a while after it has made room."""
    monkeypatch.setattr(relieve_module, "_LOOKS_ON_S", 1.0)
    settings = settings_on(disk, CACHE)
    cache = disk / "data/prompts/cache"
    for number in range(80):
        write(cache / f"{number:02}", bytes(100 * KIB), age_s=number * 3600)
    fill(disk, SIZE // 20)

    def again() -> None:
        until(lambda: free(disk) >= SIZE // 5)
        fill(disk, SIZE // 20)

    with ThreadPoolExecutor(1) as other:
        filled = other.submit(again)
        ran = run("relieve", settings)
        filled.result()
    assert free(disk) >= SIZE // 5
    assert ran.report.actions_total == 80 - len(os.listdir(cache))
    assert ["room_made"] == ran.told


def test_what_lies_elsewhere_gives_no_room(disk: Path) -> None:
    """Another file system is mounted where a cache and a history are: neither is entered, and nothing of them goes."""
    settings = settings_on(disk, replace(CACHE, patterns=("*.json",)), HISTORY)
    mounts = [disk / "data/prompts/cache", disk / "data/prompts/history"]
    fill(disk, SIZE // 20)
    for mount in mounts:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mount)], check=True)
    try:
        for mount in mounts:
            write(mount / "2026-01-01/a.json", bytes(100 * KIB), age_s=400 * DAY)
        report = run("relieve", settings).report
        assert (Outcome.LEFT, ()) == (report.outcome, report.actions)
        assert [True, True] == [(mount / "2026-01-01/a.json").exists() for mount in mounts]
    finally:
        for mount in mounts:
            subprocess.run(["umount", str(mount)], check=True)


def test_a_cache_without_a_rule_goes_too(disk: Path) -> None:
    """Whatever the settings say of caches: results that can be made again are missed least."""
    settings = settings_on(disk)
    write(disk / "data/prompts/cache/a", bytes(900 * KIB), age_s=DAY)
    fill(disk, SIZE // 20)
    assert "prompts/cache/a" in [one.path for one in run("relieve", settings).report.actions]


def test_the_quarantine_goes_before_rotated_logs(disk: Path) -> None:
    """In one run that needs both."""
    settings = settings_on(disk, CACHE)
    root = disk / "data"
    archive = Rotated("agent.log", int(NOW - 5 * DAY), 1, ".zst").name
    write(root / f"logs/agents/{archive}", os.urandom(400 * KIB), age_s=5 * DAY)
    run("backup", settings)
    rule = Rule("history", "prompts/history", max_age_s=30 * DAY, whole=True)
    write(root / "prompts/history/2026-01-01/a", bytes(400 * KIB), age_s=90 * DAY)
    run(
        "clean",
        replace(settings, layout=replace(settings.layout, rules=(rule,)), require_snapshot=False, marks=Marks()),
    )
    fill(disk, SIZE // 20)
    paths = [one.path for one in run("relieve", settings).report.actions]
    assert [".quarantine/20261118T110640Z", f"logs/agents/{archive}"] == paths
