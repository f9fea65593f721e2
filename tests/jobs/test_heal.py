"""Healing on a real disk: the last good state is put back, the broken file is kept whole, nothing else is touched."""

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.formats.age import new_identity, recipient_of, seal
from symbiont_datad.formats.state_name import backup_name, context_name
from symbiont_datad.fsops import lease
from symbiont_datad.fsops.agent_lock import hold_agent
from symbiont_datad.fsops.root import Tree
from symbiont_datad.jobs import heal as healing
from symbiont_datad.jobs import judging, past
from symbiont_datad.jobs import sweep as sweeping
from symbiont_datad.jobs.context import JobSettings, StateSettings
from symbiont_datad.jobs.repository import identity
from symbiont_datad.jobs.repository import place as place_of
from symbiont_datad.jobs.saving import Saved
from symbiont_datad.report import Outcome, Severity
from symbiont_datad.restic.crypto import Scrypt
from symbiont_datad.restic.repository import create_repository
from tests import contexts
from tests.conftest import AsNobody
from tests.jobs.making import DAY, NOW, Ran, ledger_of, run, settings_for, write
from tests.jobs.snapshotting import held_by, snapshots
from tests.support import mapped

LEASES = pytest.mark.skipif(lease._SET_LEASE is None, reason="this system has no leases")
MODES = pytest.mark.parametrize("gzipped", [True, False], ids=["gzip", "plain"])


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """An empty tree, and an empty repository that opens fast."""
    settings = settings_for(tmp_path)
    create_repository(place_of(settings.repository), "", identity(), NOW, scrypt=Scrypt(1 << 10, 8, 1))
    return settings


def agents(settings: JobSettings) -> Path:
    """Where the contexts are."""
    return Path(settings.layout.root, "state/agents")


def content(name: str, gzipped: bool = True, at: float = contexts.AT, text: str = "x") -> bytes:
    """A context's content, in a mode."""
    value = contexts.context(name, at, text)
    return contexts.zipped(value) if gzipped else contexts.plain(value)


def place(settings: JobSettings, name: str, gzipped: bool = True) -> Path:
    """Where an agent's context is, in a mode."""
    return agents(settings) / context_name(contexts.agent_id(name), gzip=gzipped)


def backup_place(settings: JobSettings, name: str, age_s: float, gzipped: bool = True) -> Path:
    """Where an agent's backup is that was made so long ago."""
    return agents(settings) / backup_name(contexts.agent_id(name), int(NOW - age_s), gzip=gzipped)


def whole_ones(settings: JobSettings, gzipped: bool = True, count: int = 3) -> None:
    """Other agents, which are well, one of them with a backup, an archive and a session."""
    for number in range(count):
        write(place(settings, f"well {number}", gzipped), content(f"well {number}", gzipped), age_s=3600)
    write(backup_place(settings, "well 0", 2 * DAY, gzipped), content("well 0", gzipped), age_s=2 * DAY)
    write(agents(settings) / "archives/x/archive_5.json", contexts.plain(contexts.archive()))
    write(Path(settings.layout.root, "state/sessions/s.json"), b"{}")


def files(settings: JobSettings) -> dict[str, tuple[bytes, int, int]]:
    """The content, modification time and inode of every file outside the quarantine, by path."""
    root = Path(settings.layout.root)
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in root.rglob("*")
        if path.is_file() and ".quarantine" not in path.parts and path.name != ".contexts.lock"
    }


def quarantined(settings: JobSettings) -> dict[str, bytes]:
    """What is in quarantine, by the path that it had."""
    cells = Path(settings.layout.root, ".quarantine").glob("*")
    return {json.loads((cell / "record.json").read_text())["path"]: (cell / "item").read_bytes() for cell in cells}


def sweep(settings: JobSettings, *, saving: bool = False, **options: Any) -> Ran:
    """A sweep; without its autosave, which takes longer than all the rest, unless the test is about that."""
    with pytest.MonkeyPatch.context() as patch:
        if not saving:
            patch.setattr(sweeping, "autosave", lambda *_: Saved())
        ran = run("sweep", settings, **options)
    return Ran(ran.report, [one for one in ran.events if not one["event"].startswith(("snapshot_", "repository_"))])


def told(ran: Ran) -> list[tuple[str, str]]:
    """The actions on contexts: kind and path."""
    return [(one.kind, one.path) for one in ran.report.actions if one.kind.startswith("context_")]


def relative(settings: JobSettings, path: Path) -> str:
    """A path as reports have it."""
    return str(path.relative_to(settings.layout.root))


def broken_kinds(gzipped: bool) -> dict[str, bytes]:
    """Damaged content, by the name of the damage."""
    good = content("broken", gzipped, text="newer than its backup")
    kinds = {
        "empty": b"",
        "truncated": good[: len(good) * 2 // 3],
        "not_json": b"\x00\xff<html>not a context",
        "nul_filled": bytes(len(good)),
        "missing_fields": b'{"agent_id": "x"}',
        "wrong_type": contexts.plain(contexts.context(updated_at="yesterday")),
    }
    if gzipped:
        kinds["not_gzip"] = good[:40] + b"\xff\xff\xff" + good[43:]
        kinds["missing_fields"] = gzip.compress(kinds["missing_fields"])
        kinds["wrong_type"] = gzip.compress(kinds["wrong_type"])
    return kinds


@MODES
def test_every_kind_of_damage_is_healed_from_the_newest_good_backup(settings: JobSettings, gzipped: bool) -> None:
    """Told apart, equal to the backup byte for byte, the broken file whole in quarantine, all others untouched."""
    whole_ones(settings, gzipped)
    expected, broken = {}, broken_kinds(gzipped)
    for kind, bad in broken.items():
        path = write(place(settings, kind, gzipped), bad)
        path.chmod(0o640)
        write(backup_place(settings, kind, 2 * DAY, gzipped), content(kind, gzipped, text="older"))
        good = write(backup_place(settings, kind, DAY, gzipped), content(kind, gzipped))
        write(backup_place(settings, kind, 3600, gzipped), content(kind, gzipped)[:50])
        expected[relative(settings, path)] = good.read_bytes()
    before = files(settings)
    ran = sweep(settings)
    after = files(settings)
    assert expected == {path: after[path][0] for path in expected}
    assert {path: state for path, state in before.items() if path not in expected} == {
        path: state for path, state in after.items() if path not in expected
    }
    assert {path: before[path][0] for path in expected} == quarantined(settings)
    assert {0o640} == {os.stat(Path(settings.layout.root, path)).st_mode & 0o777 for path in expected}
    kinds = {event["path"]: event["damage"] for event in ran.events if event["event"] == "context_damaged"}
    assert {relative(settings, place(settings, kind, gzipped)): kind for kind in broken} == kinds
    assert {("context_restored", path) for path in expected} == set(told(ran))
    assert (Outcome.DONE, 0, len(broken)) == (
        ran.report.outcome, ran.report.counts["damaged"], ran.report.counts["healed"],
    )  # fmt: skip


def test_what_was_done_is_explained(settings: JobSettings) -> None:
    """The ledger's row, the finding and the record name the damage, the version, its age and when it counts."""
    path = write(place(settings, "a"), b"")
    good = write(backup_place(settings, "a", DAY), content("a", at=NOW - 1.5 * DAY))
    ran = sweep(settings)
    (finding,) = ran.report.findings
    with ledger_of(settings) as ledger:
        (row,) = ledger.actions(kinds=["context_restored"])
    assert (relative(settings, path), "state.heal", "done", len(good.read_bytes())) == (
        row.path, row.rule, row.state, row.bytes,
    )  # fmt: skip
    (cell,) = Path(settings.layout.root, ".quarantine").glob("*")
    record = json.loads((cell / "record.json").read_text())
    for text in (row.reason, finding.detail, record["reason"]):
        place_of_it = f".quarantine/{cell.name}/item"
        when = "as it was at 2026-11-16T23:06:40Z (1d 12h ago)"
        for words in ("it was empty", when, good.name, "next start", place_of_it):
            assert words in text
    assert ("context_restored", Severity.INFO, True) == (finding.kind, finding.severity, "restart" in finding.remedy)
    (event,) = (event for event in ran.events if event["event"] == "context_restored")
    assert (1.5 * DAY, relative(settings, good)) == (event["age_s"], event["source"])


def test_after_healing_all_is_quiet(settings: JobSettings) -> None:
    """The next sweep finds nothing new, tells nothing, and the snapshot of the first one holds the healed state."""
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    sweep(settings, saving=True)
    again = sweep(settings, saving=True, now=NOW + 20)
    assert ([], (), 0) == (again.told, again.report.findings, again.report.counts["checked"])
    (one,) = snapshots(settings, "autosave")
    held = held_by(settings, one)[relative(settings, path)]
    assert len(content("a")) == held.size


def test_the_healed_state_is_saved_in_the_same_sweep(settings: JobSettings) -> None:
    """Even where the damaged state was saved before and nothing else has changed."""
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    sweep(replace(settings, state=StateSettings(heal="report")), saving=True, now=NOW)
    sweep(settings, saving=True, now=NOW + 1)
    held = [held_by(settings, one)[relative(settings, path)].size for one in snapshots(settings, "autosave")]
    assert [0, len(content("a"))] == held


# Which version


def saved(settings: JobSettings, path: Path, data: bytes, at: float) -> None:
    """Have a backup at a time, in which a file has this content, written an hour before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (at - 3600, at - 3600))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: int(at * 1e9))
        assert Outcome.DONE is run("backup", settings, now=at).report.outcome


@pytest.mark.parametrize(("snapshot_age_s", "expected"), [(3600, "snapshot"), (2 * DAY, "backup")])
def test_newest_of_backups_and_snapshots_wins(settings: JobSettings, snapshot_age_s: float, expected: str) -> None:
    """Whichever had the state last."""
    path = place(settings, "a")
    saved(settings, path, content("a", text="in the snapshot"), NOW - snapshot_age_s)
    write(path, b"", age_s=60)
    write(backup_place(settings, "a", DAY), content("a", text="in the backup"))
    ran = sweep(settings)
    assert content("a", text=f"in the {expected}") == path.read_bytes()
    assert expected in ran.report.findings[0].detail


def test_a_clock_that_was_ahead_brings_no_older_state_back(settings: JobSettings) -> None:
    """What was saved since it was set right wins over snapshots that bear later times, and over older ones."""
    path, now = place(settings, "a"), time.time()
    saved(settings, path, content("a", text="oldest"), now - DAY)
    saved(settings, path, content("a", text="while it was ahead"), now + DAY)
    path.write_bytes(content("a", text="broken")[:60])
    backup = agents(settings) / backup_name(contexts.agent_id("a"), int(now), gzip=True)
    backup.write_bytes(content("a", text="since"))
    sweep(settings, now=now + 3600)
    assert content("a", text="since") == path.read_bytes()
    path.write_bytes(content("a", text="broken")[:60])
    backup.unlink()
    sweep(settings, now=now + 7200)
    assert content("a", text="oldest") == path.read_bytes()


def test_a_snapshot_that_holds_the_damage_is_passed_over(settings: JobSettings) -> None:
    """The broken file is in the newer snapshots too; the newest whole one counts."""
    path = place(settings, "a")
    saved(settings, path, content("a", text="oldest"), NOW - 3 * DAY)
    saved(settings, path, content("a", text="whole"), NOW - 2 * DAY)
    saved(settings, path, content("a", text="broken")[:60], NOW - DAY)
    write(path, content("a", text="broken")[:60], age_s=DAY)
    sweep(settings)
    assert content("a", text="whole") == path.read_bytes()


def test_a_version_from_the_other_mode_is_put_back_in_the_mode_in_force(settings: JobSettings) -> None:
    """The runtime's compression was off when the last good version was saved, and is on now."""
    whole_ones(settings)
    old = place(settings, "a", gzipped=False)
    saved(settings, old, content("a", gzipped=False), NOW - DAY)
    old.unlink()
    path = write(place(settings, "a"), b"\0" * 50, age_s=60)
    sweep(settings)
    assert content("a", gzipped=False) == gzip.decompress(path.read_bytes())
    assert not old.exists()


def test_a_repository_that_is_away_means_backups_only(settings: JobSettings, tmp_path: Path) -> None:
    """The backup is put back, and it is said that the snapshots could not be looked at, and why."""
    path = place(settings, "a")
    saved(settings, path, content("a", text="in the snapshot"), NOW - 3600)
    (tmp_path / "backups").rename(tmp_path / "away")
    write(path, b"", age_s=60)
    write(backup_place(settings, "a", DAY), content("a", text="in the backup"))
    ran = sweep(settings)
    assert content("a", text="in the backup") == path.read_bytes()
    assert "snapshots could not be looked at (there is no repository)" in ran.report.findings[0].detail


def test_the_repository_is_opened_only_to_heal(settings: JobSettings) -> None:
    """A conversion needs no version of the past, and what was looked for in vain is not looked for at each sweep."""
    whole_ones(settings)
    write(place(settings, "odd", gzipped=False), content("odd", gzipped=False), age_s=7200)
    lost = write(place(settings, "lost"), b"")
    opened: list[str] = []
    look = past.Past._look_into_snapshots

    def counting(self: past.Past, cases: Any) -> None:
        opened.extend(case.agent for case in cases)
        look(self, cases)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past.Past, "_look_into_snapshots", counting)
        for number in range(4):
            sweep(settings, now=NOW + number)
        assert [contexts.agent_id("lost")] == opened
        write(lost, b"\0", age_s=60)
        sweep(settings, now=NOW + 9)
        assert 2 == len(opened)
        sweep(settings, now=NOW + DAY)
        assert 3 == len(opened)


# What is left alone


@pytest.mark.parametrize("backups", [0, 2])
def test_without_a_good_version_it_is_told_and_left(settings: JobSettings, backups: int) -> None:
    """The finding says what was looked at; the file stays as it is, and so do its broken backups."""
    path = write(place(settings, "a"), b"{")
    for number in range(backups):
        write(backup_place(settings, "a", (number + 1) * DAY), b"")
    before = files(settings)
    sweep(settings)
    ran = sweep(settings, now=NOW + 1)
    assert before == files(settings)
    (finding,) = ran.report.findings
    assert ("context_truncated", Severity.ERROR, relative(settings, path)) == (
        finding.kind, finding.severity, finding.path,
    )  # fmt: skip
    have = "none of its 2 backups is whole" if backups else "it has no backup"
    assert f"{have}, and no snapshot has a whole version" in finding.remedy
    assert Outcome.LEFT is ran.report.outcome


def test_without_a_good_version_it_is_moved_if_the_settings_say_so(settings: JobSettings, tmp_path: Path) -> None:
    """So that the runtime starts. While the repository is away it stays, for a good version may be there."""
    settings = replace(settings, state=StateSettings(quarantine_lost=True))
    path = write(place(settings, "a"), b"{")
    (tmp_path / "backups").rename(tmp_path / "away")
    assert [] == told(sweep(settings))
    (tmp_path / "away").rename(tmp_path / "backups")
    ran = sweep(settings, now=NOW + 1)
    assert [("context_quarantined", relative(settings, path))] == told(ran)
    assert {relative(settings, path): b"{"} == quarantined(settings)
    (finding,) = ran.report.findings
    assert (False, Severity.WARNING) == (path.exists(), finding.severity)
    assert "no snapshot has a whole version" in finding.detail
    assert () == sweep(settings, now=NOW + 2).report.findings


@pytest.mark.parametrize("heal", ["report", "off"])
def test_healing_can_be_turned_off(settings: JobSettings, heal: str) -> None:
    """`report` tells and touches nothing, `off` does not even look."""
    settings = replace(settings, state=StateSettings(heal=heal))
    write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    write(place(settings, "b"), content("b"))
    write(place(settings, "odd", False), content("odd", False))
    before = files(settings)
    ran = sweep(settings)
    assert before == files(settings)
    expected = ["context_empty", "context_other_mode"] if heal == "report" else []
    assert expected == [finding.kind for finding in ran.report.findings]


def test_a_dry_run_is_the_plan(settings: JobSettings) -> None:
    """It names what would be put back, from where, and touches nothing; the real run does just that."""
    whole_ones(settings)
    write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    write(place(settings, "odd", gzipped=False), content("odd", gzipped=False), age_s=7200)
    before = files(settings)
    dry = sweep(settings, dry_run=True)
    assert (before, {}) == (files(settings), quarantined(settings))
    assert [] == dry.told
    assert {"the next sweep heals it"} == {finding.remedy for finding in dry.report.findings}
    assert told(dry) == told(sweep(settings))
    assert 3 == len(told(dry))


def test_a_file_that_is_open_or_fresh_is_left(settings: JobSettings) -> None:
    """Who has it open may be writing it; what changed a moment ago may change again."""
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    with open(path, "ab"):
        ran = sweep(settings)
        assert ([], (), 1) == (ran.told, ran.report.findings, ran.report.counts["unsettled"])
    write(path, b"", age_s=5)
    assert [] == sweep(settings).told
    sweep(replace(settings, state=StateSettings(heal="report")), now=NOW + 5)
    with open(path, "ab"):
        known = sweep(settings, now=NOW + 6)
        assert ([], ["context_empty"]) == (told(known), [finding.kind for finding in known.report.findings])
    assert 1 == len(told(sweep(settings, now=NOW + 7)))


def test_a_file_from_the_future_has_to_hold_still_for_a_sweep(settings: JobSettings) -> None:
    """A file server whose clock is ahead: what is being written there looks as if it were long done."""
    write(place(settings, "a"), b"", age_s=-3600)
    write(backup_place(settings, "a", DAY), content("a"))
    assert [] == told(sweep(settings))
    assert 1 == len(told(sweep(settings, now=NOW + 1)))


@LEASES
def test_a_file_that_is_being_cut_is_left(settings: JobSettings) -> None:
    """While open(2) cuts a file it may be empty with its old time, and no descriptor shows it. So with a mapping."""
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    with mapped(path):
        ran = sweep(settings)
        assert ([], (), 1) == (ran.told, ran.report.findings, ran.report.counts["unsettled"])
    sweep(replace(settings, state=StateSettings(heal="report")), now=NOW + 1)
    with mapped(path):  # known to be damaged by now
        assert [] == told(sweep(settings, now=NOW + 2))
    assert 1 == len(told(sweep(settings, now=NOW + 3)))


@pytest.mark.parametrize("late", [True, False], ids=["written", "not written"])
def test_where_the_kernel_tells_nothing_it_has_to_hold_still(
    settings: JobSettings, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Without leases what looks damaged is looked at once more, a moment later, for all of them at once."""
    monkeypatch.setattr(lease, "_SET_LEASE", None)
    for name in "ab":
        write(place(settings, name), b"")
        write(backup_place(settings, name, DAY), content(name))
    waits = []

    def sleep(length_s: float) -> None:
        waits.append(length_s)
        if late:
            place(settings, "a").write_bytes(content("a", text="saved just now"))

    monkeypatch.setattr(time, "sleep", sleep)
    ran = sweep(settings)
    assert [judging.CUT_S] == waits
    assert (1 if late else 2) == len(told(ran))
    assert (place(settings, "a").read_bytes() == content("a", text="saved just now")) is late


LOOKS = {"before the record": 0, "before the swap": 1, "in the swap": 2}
"""How often the file was looked at before a moment."""


@contextmanager
def writer_at(
    monkeypatch: pytest.MonkeyPatch, what: str, path: Path, opens: int, writes: int, data: bytes
) -> Iterator[None]:
    """While `what` of `jobs.heal` moves a file, somebody opens it by its name after so many looks at it, and writes to
    it before another one, or, if that never comes, when all is over.
    """
    real, fd, written = getattr(healing, what), -1, False

    def late(*arguments: Any, unchanged: Callable[[os.stat_result | None], bool], **other: Any) -> object:
        seen = 0

        def looking(found: os.stat_result | None) -> bool:
            nonlocal seen, fd, written
            if seen == writes:
                os.write(fd, data)
                written, found = True, os.fstat(fd)
            answer = unchanged(found)
            seen += 1
            if seen == opens:
                fd = os.open(path, os.O_WRONLY)
            return answer

        if opens == 0:
            nonlocal fd
            fd = os.open(path, os.O_WRONLY)
        return real(*arguments, unchanged=looking, **other)

    with monkeypatch.context() as patch:
        patch.setattr(healing, what, late)
        yield
    assert fd != -1
    if not written:
        os.write(fd, data)
    os.close(fd)


@pytest.mark.parametrize("leases", [True, False])
@pytest.mark.parametrize("writes", LOOKS.values(), ids=LOOKS)
def test_a_file_that_changes_meanwhile_is_left(
    settings: JobSettings, monkeypatch: pytest.MonkeyPatch, writes: int, leases: bool
) -> None:
    """Whenever the runtime saves it while it is being healed: its new state is in place afterwards, whole."""
    if not leases:
        monkeypatch.setattr(lease, "_SET_LEASE", None)
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    fresh = content("a", text="saved just now")
    with writer_at(monkeypatch, "put_in_place", path, writes, writes, fresh):
        ran = sweep(settings)
    assert (fresh, {}) == (path.read_bytes(), quarantined(settings))
    assert [] == told(ran)
    with ledger_of(settings) as ledger:
        assert ["failed"] == [row.state for row in ledger.actions(kinds=["context_restored"])]


@LEASES
@pytest.mark.parametrize("opens", LOOKS.values(), ids=LOOKS)
def test_who_opens_a_file_meanwhile_keeps_it(
    settings: JobSettings, monkeypatch: pytest.MonkeyPatch, opens: int
) -> None:
    """Though nothing is written yet when it changes places: what is written afterwards is where the runtime looks."""
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    fresh = content("a", text="saved just now")
    with writer_at(monkeypatch, "put_in_place", path, opens, -1, fresh):
        ran = sweep(settings)
    assert (fresh, {}) == (path.read_bytes(), quarantined(settings))
    assert [] == told(ran)


@LEASES
@pytest.mark.parametrize("opens", [0, 1], ids=["before the move", "in the move"])
def test_who_opens_the_other_mode_meanwhile_keeps_it(
    settings: JobSettings, monkeypatch: pytest.MonkeyPatch, opens: int
) -> None:
    """The same of a file that is moved aside because it is in the mode that the runtime does not load."""
    whole_ones(settings)
    write(place(settings, "a"), content("a"))
    other = write(place(settings, "a", gzipped=False), content("a", gzipped=False), age_s=2 * DAY)
    with writer_at(monkeypatch, "quarantine", other, opens, -1, b" "):
        ran = sweep(settings)
    assert ([], {}) == (told(ran), quarantined(settings))
    assert b" " == other.read_bytes()[:1]


def test_whoever_saves_it_just_now_is_not_disturbed(settings: JobSettings) -> None:
    """While somebody holds the agent's lock nothing is done; the next sweep does it."""
    write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    with Tree(settings.layout.root).directory("state") as state_fd:
        with hold_agent(state_fd, contexts.agent_id("a"), patience_s=0):
            assert [] == told(sweep(settings))
        with hold_agent(state_fd, contexts.agent_id("b"), patience_s=0):
            assert 1 == len(told(sweep(settings, now=NOW + 1)))


def test_a_deleted_agent_stays_deleted(settings: JobSettings) -> None:
    """Backups without a context are what the runtime leaves of an agent that it has deleted."""
    write(backup_place(settings, "a", DAY), content("a"))
    before = files(settings)
    sweep(settings)
    assert before == files(settings)


def test_contexts_of_another_version_are_left(settings: JobSettings) -> None:
    """When several lack the very same field, no crash did that."""
    for name in "abc":
        value = contexts.context(name)
        del value["retention_policy"]
        write(place(settings, name), contexts.zipped(value))
        write(backup_place(settings, name, DAY), content(name))
    before = files(settings)
    ran = sweep(settings)
    assert before == files(settings)
    assert {"context_missing_fields"} == {finding.kind for finding in ran.report.findings}
    assert "another version" in ran.report.findings[0].remedy


def test_there_is_no_fight(settings: JobSettings) -> None:
    """What lacks the same field again after it was healed is meant so; other damage is healed each time."""
    value = contexts.context("a")
    del value["retention_policy"]
    path = write(place(settings, "a"), contexts.zipped(value))
    write(backup_place(settings, "a", DAY), content("a"))
    assert 1 == len(told(sweep(settings)))
    for number, (data, actions) in enumerate([(contexts.zipped(value), 0), (b"", 1), (b"", 1)]):
        write(path, data, age_s=3600)
        ran = sweep(settings, now=NOW + number)
        assert actions == len(told(ran))
        if not actions:
            assert "another version" in ran.report.findings[0].remedy


def test_what_is_only_unusual_is_told_and_left(settings: JobSettings) -> None:
    """A role that version 1.19.0 does not know may be one of a newer version; of many such files one line tells."""
    for number in range(30):
        value = contexts.context(f"a{number}")
        value["conversation_history"][0]["role"] = "Assistant"
        write(place(settings, f"a{number}"), contexts.zipped(value))
        write(backup_place(settings, f"a{number}", DAY), content(f"a{number}"))
    before = files(settings)
    ran = sweep(settings)
    assert before == files(settings)
    assert (21, {"context_other_schema"}, {Severity.WARNING}) == (
        len(ran.report.findings),
        {finding.kind for finding in ran.report.findings},
        {finding.severity for finding in ran.report.findings},
    )
    assert 0 == ran.report.counts["damaged"]


def test_json_of_somebody_else_is_no_context(settings: JobSettings) -> None:
    """The runtime passes over names that are no UUIDs: `notes.json` is neither healed, converted nor moved."""
    settings = replace(settings, state=StateSettings(quarantine_lost=True, compression="on"))
    write(agents(settings) / "notes.json", b'{"to do": []}')
    before = files(settings)
    sweep(settings)
    ran = sweep(settings, now=NOW + 1)
    assert before == files(settings)
    assert [Severity.WARNING] == [one.severity for one in ran.report.findings if one.kind != "context_other_mode"]


# Modes


@MODES
def test_content_in_the_wrong_form_is_written_anew(settings: JobSettings, gzipped: bool) -> None:
    """Nothing is lost: the same JSON in the form that the name promises; the original is in quarantine."""
    whole_ones(settings, gzipped)
    original = content("a", not gzipped, text="the newest there is")
    path = write(place(settings, "a", gzipped), original)
    write(backup_place(settings, "a", DAY, gzipped), content("a", gzipped))
    assert [("context_converted", relative(settings, path))] == told(sweep(settings))
    plain = content("a", False, text="the newest there is")
    assert plain == (gzip.decompress(path.read_bytes()) if gzipped else path.read_bytes())
    assert {relative(settings, path): original} == quarantined(settings)
    assert int((NOW - DAY) * 1e9) == path.stat().st_mtime_ns


@MODES
def test_a_context_in_the_other_mode_is_converted(settings: JobSettings, gzipped: bool) -> None:
    """The runtime lists it and never loads it: now it does, and the original is in quarantine."""
    whole_ones(settings, gzipped)
    other = write(place(settings, "a", not gzipped), content("a", not gzipped), age_s=7200)
    path = place(settings, "a", gzipped)
    ran = sweep(settings)
    assert [("context_converted", relative(settings, path)), ("context_quarantined", relative(settings, other))] == (
        told(ran)
    )
    plain = content("a", False)
    assert plain == (gzip.decompress(path.read_bytes()) if gzipped else path.read_bytes())
    assert {relative(settings, other): content("a", not gzipped)} == quarantined(settings)
    assert () == sweep(settings, now=NOW + 1).report.findings


@pytest.mark.parametrize("newer", ["the loaded", "the other"])
def test_of_an_agent_in_both_modes_the_newer_state_stays(settings: JobSettings, newer: str) -> None:
    """By what they say themselves; both originals are kept unless one is what stays."""
    whole_ones(settings)
    at = {"the loaded": contexts.AT, "the other": contexts.AT - 60}
    at[newer] = contexts.AT + 60
    loaded = write(place(settings, "a"), content("a", at=at["the loaded"]), age_s=7200)
    other = write(place(settings, "a", False), content("a", False, at=at["the other"]), age_s=7200)
    expected = {relative(settings, other): other.read_bytes()}
    if newer == "the other":
        expected[relative(settings, loaded)] = loaded.read_bytes()
    sweep(settings)
    assert contexts.plain(contexts.context("a", at[newer], "x")) == gzip.decompress(loaded.read_bytes())
    assert (False, expected) == (other.exists(), quarantined(settings))


def test_a_tie_means_that_nothing_is_done(settings: JobSettings) -> None:
    """One compressed, one plain: nobody knows which the runtime loads, and the finding says what to set."""
    write(place(settings, "a"), content("a"))
    write(place(settings, "b", False), content("b", False))
    write(place(settings, "c"), content("c", False))
    write(place(settings, "d", False), content("d"))
    before = files(settings)
    ran = sweep(settings)
    assert before == files(settings)
    assert "state.compression" in next(one for one in ran.report.findings if "mixed" in one.kind).remedy
    sweep(replace(settings, state=StateSettings(compression="off")), now=NOW + 1)
    expected = {place(settings, name, False).name for name in "abcd"}
    assert expected == {path.name for path in agents(settings).glob("*.*")}


# Rights, seals, places


def test_owner_stays(settings: JobSettings) -> None:
    """As root, the file that is put back belongs to whom the broken one belonged."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = write(place(settings, "a"), b"")
    good = write(backup_place(settings, "a", DAY), content("a"))
    for one in (path, good):
        os.chown(one, 1234, 2345)
    sweep(settings)
    assert (1234, 2345, content("a")) == (path.stat().st_uid, path.stat().st_gid, path.read_bytes())


def test_another_users_file_takes_no_agents_place(settings: JobSettings) -> None:
    """As root: a backup that belongs to somebody else may be a second name of that user's file."""
    if os.geteuid() != 0:
        pytest.skip("only root could read it")
    path = write(place(settings, "a"), b"")
    os.chown(path, 1234, 1234)
    os.chown(write(backup_place(settings, "a", DAY), content("a")), 4321, 4321)
    sweep(settings)
    assert b"" == path.read_bytes()


def test_another_users_context_is_told_and_left(open_path: Path, as_nobody: AsNobody) -> None:
    """Who is neither its owner nor root would make it a file that the runtime can't write to."""
    settings = settings_for(open_path)
    path = write(place(settings, "a"), b"")
    write(backup_place(settings, "a", DAY), content("a"))
    for folder in (agents(settings), Path(settings.layout.root), Path(settings.layout.root, "state")):
        folder.chmod(0o777)
    for name in ("datad", "backups"):
        (open_path / name).mkdir()
        (open_path / name).chmod(0o777)
    ran = as_nobody(lambda: sweep(settings))
    assert b"" == path.read_bytes()
    assert "let the daemon run as that user or as root" in ran.report.findings[0].remedy


def test_sealed_context_is_healed_with_its_key_alone(settings: JobSettings) -> None:
    """Without the key nobody can tell which backup is whole; with it the newest whole one is put back as it is."""
    identity = new_identity()
    good = seal(content("a"), recipient_of(identity))
    agent = contexts.agent_id("a")
    path = write(agents(settings) / context_name(agent, gzip=True, sealed=True), good[:100])
    write(agents(settings) / backup_name(agent, int(NOW - DAY), gzip=True, sealed=True), good)
    broken_inside = seal(content("a")[:40], recipient_of(identity))
    write(agents(settings) / backup_name(agent, int(NOW - 60), gzip=True, sealed=True), broken_inside, age_s=60)
    ran = sweep(settings)
    assert ("context_truncated", good[:100]) == (ran.report.findings[0].kind, path.read_bytes())
    assert "encryption.key_file" in ran.report.findings[0].remedy
    where = settings.snapshots.repository
    secrets = replace(where.secrets, key=identity)
    keyed = replace(settings, snapshots=replace(settings.snapshots, repository=replace(where, secrets=secrets)))
    sweep(keyed, now=NOW + 1)
    assert good == path.read_bytes()


def test_a_sealed_context_beside_an_open_one_is_its_own(settings: JobSettings) -> None:
    """A sealed file neither converts nor replaces the one that the runtime loads."""
    agent = contexts.agent_id("a")
    write(place(settings, "a"), content("a"))
    sealed = seal(content("a"), recipient_of(new_identity()))
    write(agents(settings) / context_name(agent, gzip=True, sealed=True), sealed)
    before = files(settings)
    assert () == sweep(settings).report.findings
    assert before == files(settings)


def test_nothing_is_lost_on_a_full_disk(settings: JobSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new file can't be written, the broken one stays in place, and the finding says why."""
    path = write(place(settings, "a"), b"{")
    write(backup_place(settings, "a", DAY), content("a"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(healing, "stage_file", full)
    ran = sweep(settings)
    assert (b"{", {}) == (path.read_bytes(), quarantined(settings))
    assert "No space left on device" in ran.report.findings[0].remedy
    monkeypatch.undo()
    sweep(settings, now=NOW + 1)
    assert content("a") == path.read_bytes()


def test_state_may_lie_deeper(tmp_path: Path) -> None:
    """With another name for the state's directory, the lock and the contexts are found there."""
    settings = settings_for(tmp_path)
    root = Path(settings.layout.root)
    (root / "var").mkdir()
    (root / "state").rename(root / "var/state")
    layout = replace(
        settings.layout,
        categories=tuple((one, "var/state" if path == "state" else path) for one, path in settings.layout.categories),
    )
    agent = contexts.agent_id("a")
    path = write(root / "var/state/agents" / context_name(agent, gzip=True), b"")
    write(root / "var/state/agents" / backup_name(agent, 1000, gzip=True), content("a"))
    sweep(replace(settings, layout=layout))
    assert content("a") == path.read_bytes()
