"""The sweep finds every damaged state file once, and rotates the runtime's backups without losing a good state."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.formats.context import LARGEST
from symbiont_datad.jobs import sweep as sweeping
from symbiont_datad.jobs.context import JobSettings, StateSettings
from symbiont_datad.report import Outcome, Severity
from tests import contexts
from tests.conftest import AsNobody
from tests.jobs import making
from tests.jobs.making import DAY, NOW, Ran, context, ledger_of, settings_for, stop_after, write


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """An empty tree, in which damage is told and not healed: that is test_heal's business."""
    return settings_for(tmp_path, state=StateSettings(heal="report"))


def run(name: str, settings: JobSettings, **options: Any) -> Ran:
    """Run a job, and leave out of what it told what it said of snapshots: those are test_autosave's business."""
    ran = making.run(name, settings, **options)
    actions = tuple(action for action in ran.report.actions if not action.kind.startswith("snapshot_"))
    report = replace(
        ran.report, actions=actions, actions_total=len(actions), bytes_total=sum(action.bytes for action in actions)
    )
    return Ran(report, [event for event in ran.events if not event["event"].startswith(("snapshot_", "repository_"))])


def marks(settings: JobSettings) -> dict[str, str]:
    """What the sweep has left of each file."""
    with ledger_of(settings) as ledger:
        return {path: mark for path, mark in ledger.marks().items() if not path.startswith("//")}


def agents(settings: JobSettings) -> Path:
    """Where the contexts are."""
    return Path(settings.layout.root, "state/agents")


def backups(settings: JobSettings, agent: str) -> list[str]:
    """The names of an agent's backups."""
    return sorted(name for name in os.listdir(agents(settings)) if name.startswith(agent) and ".backup." in name)


def test_whole_contexts_are_checked_once(settings: JobSettings) -> None:
    """The first sweep reads each file, the second none, a changed file is read again."""
    for number in range(5):
        write(agents(settings) / f"a{number}.json.gz", context())
    write(Path(settings.layout.root, "state/sessions/s.json"), b'{"version": 2}')
    first = run("sweep", settings)
    assert Outcome.DONE is first.report.outcome
    assert (5, 1, 6, 0) == tuple(first.report.counts[key] for key in ("contexts", "sessions", "checked", "damaged"))
    assert 0 == run("sweep", settings).report.counts["checked"]
    write(agents(settings) / "a3.json.gz", context(text="longer than before"))
    assert 1 == run("sweep", settings).report.counts["checked"]


def test_each_kind_of_damage_is_found_and_told_apart(settings: JobSettings) -> None:
    """One file of each kind of damage: the finding's kind names it, its remedy names the newest good backup."""
    good = context()
    kinds = {
        "empty": b"",
        "truncated": good[:50],
        "not_json": b"\x00\xff<html>",
        "nul_filled": bytes(500),
        "other_extension": context(zipped=False),
        "missing_fields": b'{"agent_id": "x"}',
        "not_gzip": good[:20] + b"\xff\xff\xff" + good[23:],
    }
    for kind, content in kinds.items():
        write(agents(settings) / f"{kind}.json.gz", content)
        write(agents(settings) / f"{kind}.json.backup.1000.json", good)
        write(agents(settings) / f"{kind}.json.backup.2000.json", good[:30])
    ran = run("sweep", settings)
    assert {f"context_{kind}": f"state/agents/{kind}.json.gz" for kind in kinds} == {
        finding.kind: finding.path for finding in ran.report.findings
    }
    assert ["context_damaged"] * 6 == ran.told
    assert {*kinds} - {"missing_fields"} == {event["damage"] for event in ran.events}
    assert Outcome.LEFT is ran.report.outcome
    for finding in ran.report.findings:
        stranger = finding.kind == "context_missing_fields"  # the runtime passes over its name, which is no UUID
        assert (Severity.WARNING if stranger else Severity.ERROR) is finding.severity
        assert (
            stranger
            or finding.kind == "context_other_extension"
            or finding.path[:-3] + ".backup.1000.json" in finding.remedy
        )


def test_damage_is_told_once_and_found_until_it_is_mended(settings: JobSettings) -> None:
    """The event comes once, the finding at every sweep, and when the file reads again that is told once as well."""
    write(agents(settings) / "a.json.gz", b"")
    assert ["context_damaged"] == run("sweep", settings).told
    again = run("sweep", settings)
    assert ([], 1, 0) == (again.told, len(again.report.findings), again.report.counts["checked"])
    assert "no backup" in again.report.findings[0].remedy
    write(agents(settings) / "a.json.gz", b"\0\0")
    assert [] == run("sweep", settings).told
    write(agents(settings) / "a.json.gz", context())
    mended = run("sweep", settings, now=NOW + 1)
    assert (["context_recovered"], ()) == (mended.told, mended.report.findings)
    assert [] == run("sweep", settings).told
    with ledger_of(settings) as ledger:
        assert [] == ledger.findings()


def test_a_file_that_is_removed_is_forgotten(settings: JobSettings) -> None:
    """A damaged file that goes is no finding any more, no recovery, and leaves no mark."""
    path = write(agents(settings) / "a.json.gz", b"")
    run("sweep", settings)
    path.unlink()
    gone = run("sweep", settings)
    assert ([], ()) == (gone.told, gone.report.findings)
    assert {} == marks(settings)


def test_a_broken_session_is_found(settings: JobSettings) -> None:
    """Sessions must be JSON and nothing more."""
    sessions = Path(settings.layout.root, "state/sessions")
    write(sessions / "whole.json", b"[]")
    write(sessions / "cut.json", b'{"version": ')
    (finding,) = run("sweep", settings).report.findings
    assert ("session_truncated", "state/sessions/cut.json") == (finding.kind, finding.path)


def test_a_file_is_judged_when_it_has_settled(settings: JobSettings) -> None:
    """A half-written file is left alone for `settle_s` seconds and then judged; it is not rotated for meanwhile."""
    write(agents(settings) / "a.json.gz", context()[:40], age_s=5)
    for number in range(4):
        write(agents(settings) / f"a.json.backup.{number}.json", context() if number == 0 else b"")
    early = run("sweep", settings)
    assert ((), 1, 4) == (early.report.findings, early.report.counts["unsettled"], early.report.counts["backups_kept"])
    late = run("sweep", settings, now=NOW + 5)
    assert ["context_truncated"] == [finding.kind for finding in late.report.findings]
    assert 0 == late.report.counts["unsettled"]


def test_surplus_backups_go_and_the_newest_stay(settings: JobSettings) -> None:
    """Of forty leaked backups in both patterns three remain, the ledger has a row for each that went."""
    write(agents(settings) / "a.json.gz", context())
    for number in range(40):
        name = f"a.json.backup.{1000 + number}.json" if number % 2 else f"a.backup.{1000 + number}.json"
        write(agents(settings) / name, context())
    write(agents(settings) / "b.json.backup.1.json", context())
    ran = run("sweep", settings)
    assert ["a.backup.1038.json", "a.json.backup.1037.json", "a.json.backup.1039.json"] == backups(settings, "a.")
    assert ["b.json.backup.1.json"] == backups(settings, "b.")
    assert (37, 4) == (ran.report.counts["backups_removed"], ran.report.counts["backups_kept"])
    assert (37, 37 * len(context())) == (ran.report.actions_total, ran.report.bytes_total)
    assert {("backup_rotated", "backup_count")} == {(action.kind, action.rule) for action in ran.report.actions}
    with ledger_of(settings) as ledger:
        rows = ledger.actions(job="sweep")
    assert [(action.path, "done") for action in ran.report.actions] == [
        (row.path, row.state) for row in rows if row.kind == "backup_rotated"
    ]


def test_the_last_good_backup_of_a_damaged_context_stays(settings: JobSettings) -> None:
    """However many broken backups are newer, the one that parses is kept."""
    write(agents(settings) / "a.json.gz", b"")
    write(agents(settings) / "a.json.backup.1000.json", context())
    write(agents(settings) / "a.json.backup.999.json", context())
    for number in range(6):
        write(agents(settings) / f"a.json.backup.{2000 + number}.json", context()[:9])
    run("sweep", settings)
    assert "a.json.backup.1000.json" in backups(settings, "a.")
    assert "a.json.backup.999.json" not in backups(settings, "a.")


def test_a_dry_run_is_the_plan_and_touches_nothing(settings: JobSettings) -> None:
    """A dry run names what would go; nothing goes, is told or is marked, and the real run does the same."""
    write(agents(settings) / "a.json.gz", context())
    write(agents(settings) / "b.json.gz", b"")
    for number in range(6):
        write(agents(settings) / f"a.json.backup.{number}.json", context())
    dry = run("sweep", settings, dry_run=True)
    assert (6, []) == (len(backups(settings, "a.")), dry.told)
    with ledger_of(settings) as ledger:
        assert ({}, []) == (ledger.marks(), ledger.actions())
    real = run("sweep", settings)
    assert (dry.report.actions, dry.report.findings) == (real.report.actions, real.report.findings)
    assert 3 == len(real.report.actions)


def test_a_context_in_the_other_mode_is_found(settings: JobSettings) -> None:
    """One plain context among compressed ones is never loaded by the runtime, and that is said."""
    for number in range(3):
        write(agents(settings) / f"a{number}.json.gz", context())
    write(agents(settings) / "odd.json", context(zipped=False))
    ran = run("sweep", settings)
    assert [("context_other_mode", "state/agents/odd.json")] == [(one.kind, one.path) for one in ran.report.findings]
    assert [] == ran.told


def test_leftovers_are_found_and_do_no_harm(settings: JobSettings) -> None:
    """A temporary file of a crash is worth a word, not a warning."""
    write(agents(settings) / "archives/a/archive_5.tmp")
    ran = run("sweep", settings)
    assert [("leftover", Severity.INFO)] == [(finding.kind, finding.severity) for finding in ran.report.findings]
    assert Outcome.DONE is ran.report.outcome


def test_what_is_no_state_is_passed_over(settings: JobSettings) -> None:
    """A temporary file that is young, other people's files, and what is found of a crash wherever it lies."""
    state = Path(settings.layout.root, "state")
    write(state / "sessions/young.tmp", age_s=1)
    write(state / "sessions/notes.txt")
    write(state / "README")
    write(state / "sessions/old.tmp")
    ran = run("sweep", settings)
    assert [("leftover", "state/sessions/old.tmp")] == [(one.kind, one.path) for one in ran.report.findings]
    assert 0 == ran.report.counts["sessions"]


def test_a_context_of_many_megabytes_is_told_of(settings: JobSettings) -> None:
    """Nobody reads it to its end: whether the runtime loads it is for the user to see, and it is never healed."""
    settings = replace(settings, state=StateSettings(quarantine_lost=True))
    path = agents(settings) / f"{contexts.agent_id('a')}.json"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    os.utime(path, (NOW - DAY, NOW - DAY))
    (finding,) = run("sweep", settings).report.findings
    assert ("context_too_large", "look whether the runtime still loads it") == (finding.kind, finding.remedy)
    assert LARGEST + 1 == path.stat().st_size


def test_each_backup_that_goes_is_told_of_if_that_is_wanted(settings: JobSettings) -> None:
    """At the level debug, beside the ledger's row."""
    write(agents(settings) / "a.json.gz", context())
    for number in range(5):
        write(agents(settings) / f"a.json.backup.{number}.json", context())
    ran = run("sweep", replace(settings, log_level="debug"))
    paths = [f"state/agents/a.json.backup.{number}.json" for number in range(2)]
    assert paths == [event["path"] for event in ran.events if event["event"] == "backup_rotated"]


@pytest.mark.timeout(20)
def test_only_regular_files_are_opened(settings: JobSettings, tmp_path: Path) -> None:
    """A FIFO, a link and a directory with the names of contexts are passed over; odd names are read."""
    secret = write(tmp_path / "secret.json", b"not a context")
    os.mkfifo(agents(settings) / "fifo.json")
    (agents(settings) / "link.json").symlink_to(secret)
    (agents(settings) / "directory.json").mkdir()
    write(agents(settings) / "a\nb.json.gz", context())
    write(agents(settings) / "\udcff.json.gz", b"")
    ran = run("sweep", settings)
    assert ["state/agents/\udcff.json.gz"] == [finding.path for finding in ran.report.findings]
    assert 2 == ran.report.counts["contexts"]
    assert [] == run("sweep", settings).told


def test_a_file_that_cant_be_read_is_no_damage(open_path: Path, as_nobody: AsNobody) -> None:
    """Without permission nothing is said of a file's content, and it is judged as soon as it can be read."""
    settings = settings_for(open_path)
    path = write(agents(settings) / "a.json.gz", context())
    path.chmod(0)
    for name in ("datad", "backups"):
        (open_path / name).mkdir()
        (open_path / name).chmod(0o777)
    closed = as_nobody(lambda: run("sweep", settings))
    assert ["unread", "not_in_snapshot"] == [finding.kind for finding in closed.report.findings]
    assert [] == closed.told
    path.chmod(0o644)
    assert 1 == as_nobody(lambda: run("sweep", settings)).report.counts["checked"]


def test_a_sweep_stops_between_two_files(settings: JobSettings) -> None:
    """Asked to stop, it keeps what it has judged for the next sweep, which does the rest."""
    for number in range(20):
        write(agents(settings) / f"a{number}.json.gz", context())
    stopped = run("sweep", settings, stopping=stop_after(5))
    assert (Outcome.INTERRUPTED, 5) == (stopped.report.outcome, stopped.report.counts["checked"])
    rest = run("sweep", settings)
    assert (Outcome.DONE, 15) == (rest.report.outcome, rest.report.counts["checked"])


def test_a_quiet_sweep_tells_the_same(settings: JobSettings) -> None:
    """Where nothing has changed nothing is looked at; a changed file, or another setting, is seen at once."""
    path = write(agents(settings) / "a.json.gz", context())
    for number in range(2):
        write(agents(settings) / f"a.json.backup.{number}.json", context())
    first = run("sweep", settings).report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "sort_state", None)
        quiet = run("sweep", settings, now=NOW + 1).report
    assert {**first.counts, "checked": 0, "saved": 0} == dict(quiet.counts)
    assert 1 == run("sweep", replace(settings, backup_count=1), now=NOW + 2).report.counts["backups_removed"]
    run("sweep", settings, now=NOW + 3)
    write(path, b"", age_s=50)
    for number in (4, 5):
        assert 1 == run("sweep", settings, now=NOW + number).report.counts["damaged"]
    write(path, context(), age_s=40)
    assert ["context_recovered"] == run("sweep", settings, now=NOW + 6).told
    write(path, context(), age_s=-6)
    for number in (7, 8):
        assert 1 == run("sweep", settings, now=NOW + number).report.counts["unsettled"]


def test_a_quiet_sweep_is_one_walk(settings: JobSettings) -> None:
    """With nothing changed, two thousand contexts take well under a second."""
    for number in range(2000):
        write(agents(settings) / f"a{number}.json", context(zipped=False), age_s=DAY + number)
    run("sweep", settings)
    clock = time.process_time()
    assert 0 == run("sweep", settings).report.counts["checked"]
    assert 0.5 > time.process_time() - clock
