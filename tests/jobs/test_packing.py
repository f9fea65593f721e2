"""Days of the prompt history become one file each, which holds all of them, and no kill loses a day."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.formats.age import new_identity
from symbiont_datad.formats.packed import members
from symbiont_datad.fsops.aside import Aside
from symbiont_datad.fsops.remove import Failure
from symbiont_datad.jobs import packing
from symbiont_datad.jobs.context import JobSettings, RepositorySettings
from symbiont_datad.jobs.secrets import Secrets
from symbiont_datad.report import Outcome
from symbiont_datad.retention.rules import Rule
from tests.cli.test_restore import small_disk
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, stop_after, write

RULE = Rule("history", "prompts/history", whole=True, pack_after_s=7 * DAY)


def history_in(base: Path) -> Path:
    """Three days: an old one, one that is old by name only, and one of this week; and something that is no day."""
    history = base / "data/prompts/history"
    for path, age in (("2026-10-01/a.json", 40), ("2026-10-01/deep/b\n", 39), ("2026-10-02/late.json", 1),
                      ("2026-11-17/new.json", 1), ("notes/old.txt", 40)):  # fmt: skip
        write(history / path, path.encode() * 100, age_s=age * DAY)
    (history / "2026-10-01/link").symlink_to("a.json")
    os.utime(history / "2026-10-01/link", (0, 0), follow_symlinks=False)
    return history


def names(history: Path) -> list[str]:
    """What the history holds."""
    return sorted(os.listdir(history))


PACKED = ["2026-10-01.tar.zst", "2026-10-02", "2026-11-17", "notes"]


def test_an_old_day_is_packed_and_the_rest_stays(tmp_path: Path) -> None:
    """The file is as old as the day was; what was in it is kept to be brought back, and a dry run says the same."""
    settings = settings_for(tmp_path, RULE, undo_window_s=DAY)
    history = history_in(tmp_path)
    dry = run("clean", settings, dry_run=True)
    ran = run("clean", settings)
    assert dry.report.actions == ran.report.actions
    assert PACKED == names(history)
    (action,) = ran.report.actions
    assert ("day_packed", "prompts/history/2026-10-01", "history") == (action.kind, action.path, action.rule)
    assert "not changed for 39d, over 7d: 3 files, now in 2026-10-01.tar.zst" == action.reason
    assert (["history_packed"], 1) == (ran.told, ran.report.counts["packed"])
    found = (history / "2026-10-01.tar.zst").stat()
    assert (int((NOW - 39 * DAY) * 1e9), 0o644) == (found.st_mtime_ns, found.st_mode & 0o7777)
    with (history / "2026-10-01.tar.zst").open("rb") as file:
        assert ["2026-10-01", "2026-10-01/deep", "2026-10-01/a.json", "2026-10-01/deep/b\n", "2026-10-01/link"] == [
            member.name for member in members(file)
        ]
    run("undo", settings)
    assert sorted([*PACKED, "2026-10-01"]) == names(history)


def test_tar_opens_it(tmp_path: Path) -> None:
    """`tar --zstd -xf` in the history makes the day again."""
    settings = settings_for(tmp_path, RULE)
    history = history_in(tmp_path)
    was = {path.name: (path.read_bytes(), path.lstat().st_mtime_ns) for path in (history / "2026-10-01").glob("*.json")}
    run("clean", settings)
    subprocess.run(["tar", "--zstd", "-C", history, "-xf", history / "2026-10-01.tar.zst"], check=True)
    assert was == {
        path.name: (path.read_bytes(), path.lstat().st_mtime_ns) for path in (history / "2026-10-01").glob("*.json")
    }
    assert "a.json" == os.readlink(history / "2026-10-01/link")


def test_without_an_undo_window_the_day_is_gone(tmp_path: Path) -> None:
    """And nothing is left in the quarantine."""
    history = history_in(tmp_path)
    run("clean", settings_for(tmp_path, RULE))
    assert PACKED == names(history)
    assert [] == os.listdir(tmp_path / "data/.quarantine")


def test_the_same_rules_take_the_packed_file_later(tmp_path: Path) -> None:
    """It is one unit, as old as the day was."""
    rule = replace(RULE, max_age_s=60 * DAY)
    settings = settings_for(tmp_path, rule, require_snapshot=False)
    history = history_in(tmp_path)
    run("clean", settings)
    assert PACKED == names(history)
    ran = run("clean", settings, now=NOW + 22 * DAY)
    assert ("file_removed", "prompts/history/2026-10-01.tar.zst") in [
        (one.kind, one.path) for one in ran.report.actions
    ]


def sealed(settings: JobSettings, key: str) -> JobSettings:
    """The same settings, with encryption on."""
    repository = settings.snapshots.repository
    secrets = Secrets(encrypted=True, key_file=Path("/nonexistent"), key=key)
    return replace(
        settings, snapshots=replace(settings.snapshots, repository=RepositorySettings(repository.location, secrets))
    )


def test_with_encryption_it_is_sealed(tmp_path: Path) -> None:
    """With the key of the settings, and nothing readable is left."""
    key = new_identity()
    settings = sealed(settings_for(tmp_path, RULE), key)
    history = history_in(tmp_path)
    run("clean", settings)
    assert "2026-10-01.tar.zst.age" in names(history)
    with (history / "2026-10-01.tar.zst.age").open("rb") as file:
        assert 5 == len(list(members(file, key)))
    assert b"a.json" not in (history / "2026-10-01.tar.zst.age").read_bytes()


def test_what_cant_be_packed_is_told(tmp_path: Path) -> None:
    """Without the key nothing is packed, and the finding says why; the rules are applied all the same."""
    history = history_in(tmp_path)
    ran = run("clean", sealed(settings_for(tmp_path, RULE), "AGE-SECRET-KEY-1BROKEN"))
    assert ["not_packed"] == [finding.kind for finding in ran.report.findings]
    assert "2026-10-01" in names(history)


@pytest.mark.parametrize("kind", ["open", "a FIFO"])
def test_a_day_that_is_in_use_or_odd_stays(tmp_path: Path, kind: str) -> None:
    """A file that a process has open, or something that is no file, keeps the whole day."""
    settings = settings_for(tmp_path, RULE)
    history = history_in(tmp_path)
    if kind == "a FIFO":
        os.mkfifo(history / "2026-10-01/fifo")
    with (history / "2026-10-01/a.json").open("rb") if kind == "open" else open(os.devnull):
        assert () == run("clean", settings).report.actions
    assert "2026-10-01" in names(history)


def test_a_day_that_changes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to after it was packed and before it was moved: the packed file goes again, the day stays."""
    settings = settings_for(tmp_path, RULE)
    history = history_in(tmp_path)
    real = Aside.move_directory

    def late(self: Aside, path: str, planned: object) -> Failure | None:
        write(tmp_path / "data" / path / "late.json", age_s=0)
        return real(self, path, planned)  # type: ignore[arg-type]

    monkeypatch.setattr(Aside, "move_directory", late)
    ran = run("clean", settings)
    assert ((), 1) == (ran.report.actions, ran.report.counts["changed"])
    assert "2026-10-01.tar.zst" not in names(history)
    assert (history / "2026-10-01/late.json").exists()
    with ledger_of(settings) as ledger:
        assert ["failed"] == [row.state for row in ledger.actions()]


def test_a_second_day_of_that_name_gets_a_number(tmp_path: Path) -> None:
    """What somebody wrote to the day after it was packed is packed beside it."""
    settings = settings_for(tmp_path, RULE)
    history = history_in(tmp_path)
    run("clean", settings)
    write(history / "2026-10-01/again.json", age_s=39 * DAY)
    run("clean", settings)
    assert ["2026-10-01-2.tar.zst", *PACKED] == names(history)


@pytest.mark.parametrize("step", ["_write", "rename_new", "move_directory"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_the_next_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """The day is in the tree as a directory or as a file whatever happens, and packed once in the end."""
    settings = settings_for(tmp_path, RULE, undo_window_s=DAY)
    history = history_in(tmp_path)
    place: object = Aside if step == "move_directory" else packing
    real = getattr(place, step)

    class Killed(BaseException):
        """As SIGKILL, but that finally blocks run: those only tidy up."""

    def dying(*arguments: object) -> object:
        if when == "after":
            real(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, step, dying)
        with pytest.raises(Killed):
            run("clean", settings)
    assert {"2026-10-01", "2026-10-01.tar.zst"} & set(names(history))
    run("clean", settings, now=NOW + 60)
    assert PACKED == names(history)
    with (history / "2026-10-01.tar.zst").open("rb") as file:
        assert 5 == len(list(members(file)))
    assert Outcome.DONE is run("clean", settings, now=NOW + 3 * DAY).report.outcome


def test_on_a_full_disk_the_day_stays_as_it_is(tmp_path: Path) -> None:
    """What was begun is removed again, and the reason is told."""
    with small_disk(tmp_path / "disk", "1200k") as disk:
        settings = settings_for(disk, RULE)
        history = history_in(disk)
        large = write(history / "2026-10-01/large", os.urandom(700_000), age_s=40 * DAY)
        ran = run("clean", settings)
        assert Outcome.LEFT is ran.report.outcome
        (finding,) = ran.report.findings
        assert ("prompts/history/2026-10-01", True) == (finding.path, "No space left on device" in finding.detail)
        assert ["2026-10-01", *PACKED[1:]] == names(history)
        assert 700_000 == large.stat().st_size
        assert [] == os.listdir(disk / "data/.quarantine")


def test_somebody_elses_file_of_that_name_stays(tmp_path: Path) -> None:
    """What has the packed file's name and is no packed file; the day gets a number."""
    history = history_in(tmp_path)
    write(history / "2026-10-01.tar.zst", b"notes of my own", age_s=DAY)
    run("clean", settings_for(tmp_path, RULE))
    assert "2026-10-01-2.tar.zst" in names(history)
    assert b"notes of my own" == (history / "2026-10-01.tar.zst").read_bytes()


def test_a_day_that_is_written_to_after_all_stays(tmp_path: Path) -> None:
    """Between the plan and its turn somebody adds a file: it is a directory as before, and the next run looks again."""
    settings = settings_for(tmp_path, RULE)
    history = history_in(tmp_path)
    cells = tmp_path / "data/.quarantine"

    def stopping() -> bool:
        if cells.is_dir() and any(cells.iterdir()):
            write(history / "2026-10-01/more.json", age_s=40 * DAY)
        return False

    ran = run("clean", settings, stopping=stopping)
    assert (0, 1) == (ran.report.counts["packed"], ran.report.counts["changed"])
    assert ["2026-10-01", "2026-10-02", "2026-11-17", "notes"] == names(history)
    assert 1 == run("clean", settings).report.counts["packed"]


def test_asked_to_stop_the_rest_of_the_days_wait(tmp_path: Path) -> None:
    """Each day is there, as a directory or as a file."""
    settings = settings_for(tmp_path, RULE)
    history = tmp_path / "data/prompts/history"
    days = [f"2026-10-0{day}" for day in (1, 2, 3)]
    for day in days:
        write(history / day / "a.json", day.encode(), age_s=30 * DAY)
    seen, looks = set(), 0
    while True:
        ran = run("clean", settings, stopping=stop_after(looks), now=NOW + looks)
        assert days == [name[:10] for name in names(history)]
        seen.add(sum(name.endswith(".tar.zst") for name in names(history)))
        looks += 1
        if ran.report.outcome is not Outcome.INTERRUPTED:
            break
    assert {0, 1} < seen
    assert [f"{day}.tar.zst" for day in days] == names(history)
