"""What retention removed can be brought back for a while, and it is told where it is."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.fsops.cells import cells
from symbiont_datad.fsops.root import Tree
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.report import Outcome
from symbiont_datad.retention.rules import AgeBy, Rule
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, write
from tests.support import read_tree

CACHE = Rule("cache", "prompts/cache", max_age_s=30 * DAY, age_by=AgeBy.USED, cache=True)
HISTORY = Rule("history", "prompts/history", max_age_s=30 * DAY, whole=True)
LOGS = Rule("logs", "logs", max_age_s=30 * DAY, keep_newest=True)


def with_window(base: Path, *rules: Rule, **other: object) -> JobSettings:
    """Settings with a day to undo, and rules that need no snapshot."""
    return settings_for(base, *rules, undo_window_s=DAY, require_snapshot=False, **other)  # type: ignore[arg-type]


def content(base: Path) -> object:
    """What is in the tree, without the quarantine."""
    found = dict(read_tree(base / "data"))
    found.pop(".quarantine", None)
    return found


def test_what_a_rule_removed_comes_back(tmp_path: Path) -> None:
    """Files and whole directories are as they were; the ledger tells of both ways, and the quarantine is empty."""
    settings = with_window(tmp_path, HISTORY, LOGS)
    for path in ("prompts/history/2026-01-01/a", "prompts/history/2026-01-01/deep/b", "logs/system/old.log"):
        write(tmp_path / "data" / path, path.encode(), age_s=40 * DAY)
    write(tmp_path / "data/logs/system/new.log")
    before = content(tmp_path)
    cleaned = run("clean", settings)
    assert [("directory_quarantined", "prompts/history/2026-01-01"), ("file_quarantined", "logs/system/old.log")] == [
        (action.kind, action.path) for action in cleaned.report.actions
    ]
    assert "until 2026-11-19 11:06Z `symbiont-datad clean --undo`" in cleaned.report.message
    assert before != content(tmp_path)
    dry = run("undo", settings, now=NOW + 60, dry_run=True)
    undone = run("undo", settings, now=NOW + 60)
    assert before == content(tmp_path)
    assert dry.report.actions == undone.report.actions
    assert (["removal_undone"], Outcome.DONE, 3) == (
        undone.told,
        undone.report.outcome,
        undone.report.counts["files"],
    )
    assert [] == os.listdir(tmp_path / "data/.quarantine")
    with ledger_of(settings) as ledger:
        rows = ledger.actions(
            path="prompts/history/2026-01-01/deep/b", covering=("directory_quarantined", "removal_undone")
        )
    assert ["directory_quarantined", "removal_undone"] == [row.kind for row in rows]


def test_a_cache_leaves_nothing_behind(tmp_path: Path) -> None:
    """What can be made again goes at once, and there is nothing to undo."""
    settings = with_window(tmp_path, CACHE)
    write(tmp_path / "data/prompts/cache/a", age_s=40 * DAY)
    assert "" == run("clean", settings).report.message
    assert not (tmp_path / "data/.quarantine").exists()
    failed = run("undo", settings).report
    assert (Outcome.FAILED, "nothing that retention removed is in the quarantine") == (failed.outcome, failed.message)


def test_the_last_run_or_another_one(tmp_path: Path) -> None:
    """Without a name the newest run is undone, with one that run; a wrong name tells which there are."""
    settings = with_window(tmp_path, LOGS)
    logs = tmp_path / "data/logs/system"
    write(logs / "new.log")
    for number in range(2):
        write(logs / f"{number}.log", age_s=40 * DAY)
        run("clean", settings, now=NOW + number)
    assert "there are: 20261118T110641Z, 20261118T110640Z" in run("undo", settings, undo="x").report.message
    run("undo", settings, now=NOW + 2)
    assert ["1.log", "new.log"] == sorted(os.listdir(logs))
    run("undo", settings, now=NOW + 3, undo="20261118T110640Z")
    assert ["0.log", "1.log", "new.log"] == sorted(os.listdir(logs))


def test_what_is_there_again_is_named_and_stays(tmp_path: Path) -> None:
    """Nothing is replaced; what could not come back is still in the quarantine for the next try."""
    settings = with_window(tmp_path, LOGS)
    logs = tmp_path / "data/logs/system"
    for name in ("a.log", "b.log"):
        write(logs / name, age_s=40 * DAY)
    write(logs / "new.log")
    run("clean", settings)
    write(logs / "a.log", b"mine")
    undone = run("undo", settings)
    assert (Outcome.LEFT, ["logs/system/a.log"]) == (
        undone.report.outcome,
        [finding.path for finding in undone.report.findings],
    )
    assert (b"mine", True) == ((logs / "a.log").read_bytes(), (logs / "b.log").exists())
    (logs / "a.log").unlink()
    assert Outcome.DONE is run("undo", settings).report.outcome
    assert b"x" * 100 == (logs / "a.log").read_bytes()


def test_for_the_window_no_rule_takes_it_again(tmp_path: Path) -> None:
    """Nor does it count towards a cap, so that nothing else goes in its place; when the time is over it goes."""
    settings = with_window(tmp_path, replace(LOGS, max_files=3))
    logs = tmp_path / "data/logs/system"
    for number in range(5):
        write(logs / f"{number}.log", age_s=(40 if number < 2 else 3 - number / 10) * DAY)
    run("clean", settings)
    run("undo", settings, now=NOW + 1)
    assert () == run("clean", settings, now=NOW + 2).report.actions
    assert 5 == len(os.listdir(logs))
    late = run("clean", settings, now=NOW + DAY + 2)
    assert ["logs/system/0.log", "logs/system/1.log"] == [action.path for action in late.report.actions]


def test_when_the_window_is_over_it_goes_for_good(tmp_path: Path) -> None:
    """With a row that says so."""
    settings = with_window(tmp_path, LOGS)
    write(tmp_path / "data/logs/system/old.log", age_s=40 * DAY)
    write(tmp_path / "data/logs/system/new.log")
    run("clean", settings)
    assert () == run("clean", settings, now=NOW + DAY - 1).report.actions
    ran = run("clean", settings, now=NOW + DAY)
    (gone,) = ran.report.actions
    assert ("quarantine_expired", ".quarantine/20261118T110640Z", "undo_window") == (gone.kind, gone.path, gone.rule)
    assert (["quarantine_expired"], 1) == (ran.told, ran.report.counts["expired"])
    assert [] == os.listdir(tmp_path / "data/.quarantine")


KILLED = """
import sys
from pathlib import Path
from symbiont_datad.jobs import removal
from symbiont_datad.retention.rules import Rule
from tests.jobs.test_undo import with_window, rules_of
from tests.jobs.making import run

removal.BATCH = 20
settings = with_window(Path(sys.argv[1]), *rules_of())
print(flush=True)
run("clean", settings)
"""


def rules_of() -> tuple[Rule, Rule]:
    """What the killed run goes by."""
    return LOGS, HISTORY


@pytest.mark.parametrize("after", [1, 150, 420])
def test_a_kill_loses_nothing_and_can_be_undone(tmp_path: Path, after: int) -> None:
    """SIGKILL while things are moved: each is where it was or in the quarantine, has a row, and comes back."""
    settings = with_window(tmp_path, *rules_of())
    root = tmp_path / "data"
    for number in range(400):
        write(root / f"logs/system/{number:03}.log", age_s=40 * DAY)
        write(root / f"prompts/history/2026-01-{number % 28 + 1:02}/{number:03}", age_s=40 * DAY)
    write(root / "logs/system/new.log")
    before = content(tmp_path)

    def gone() -> int:
        return 400 - len(os.listdir(root / "logs/system")) + 28 - len(os.listdir(root / "prompts/history"))

    path = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), path])},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while gone() < after and process.poll() is None:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    lost = set(map(str, (p.relative_to(root) for p in root.glob(".quarantine/*/files/**/*") if p.is_file())))
    moved = {name.split("/files/", 1)[1] for name in lost}
    with ledger_of(settings) as ledger:
        rows = {row.path: row.state for row in ledger.actions()}
    assert all(any(name == path or name.startswith(f"{path}/") for path in rows) for name in moved)
    assert all((root / path).exists() for path, state in rows.items() if state == "failed")
    assert not any((root / path).exists() for path, state in rows.items() if state == "done")
    if cells(Tree(str(root))):
        run("undo", settings, now=time.time())
    assert before == content(tmp_path)


def test_of_many_places_that_are_taken_some_are_named(tmp_path: Path) -> None:
    """And how many more there are; without a window nothing is said of one."""
    settings = with_window(tmp_path, LOGS)
    for number in range(30):
        write(tmp_path / f"data/logs/system/{number}.log", age_s=(40 + number) * DAY)
    run("clean", settings)
    for number in range(30):
        write(tmp_path / f"data/logs/system/{number}.log")
    ran = run("undo", replace(settings, undo_window_s=0.0))
    assert (Outcome.LEFT, 29, 0, "") == (
        ran.report.outcome, ran.report.counts["taken"], ran.report.counts["things"], ran.report.message,
    )  # fmt: skip
    assert "more)" in ran.report.findings[-1].detail
    assert 29 > len(ran.report.findings)
