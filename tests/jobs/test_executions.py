"""Executed prompts are counted by day and template, each record once, and bounded in every run."""

import json
import os
from pathlib import Path

import pytest

from symbiont_datad.jobs import executions
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.ledger_prompts import Executions
from tests.jobs.making import DAY, NOW, ledger_of, run, settings_for, stop_after, write

TODAY = "2026-11-18"


def record(root: Path, path: str, age_s: float = 100.0, **fields: object) -> Path:
    """One record below the history, written so many seconds before NOW."""
    return write(root / "data/prompts/history" / path, json.dumps(fields).encode(), age_s)


def counted(settings: JobSettings) -> dict[tuple[str, str], int]:
    """The runs in the ledger, by day and template."""
    with ledger_of(settings) as ledger:
        return {(one.day, one.template): one.runs for one in ledger.executions("0", "9")}


def test_records_are_counted_by_day_and_template(tmp_path: Path) -> None:
    """With their bytes and latencies; what names no template counts as that, in whatever shape it is."""
    settings = settings_for(tmp_path)
    size = 0
    for number, latency in enumerate((5, 15, 40)):
        size += record(tmp_path, f"{TODAY}/{number}.json", template="triage", latency_ms=latency).stat().st_size
    record(tmp_path, f"{TODAY}/a/deep/er.json", template="summarise")
    record(tmp_path, "2026-11-17/0.json", DAY, template="triage")
    record(tmp_path, f"{TODAY}/odd.json", nothing=1)
    write(tmp_path / f"data/prompts/history/{TODAY}/broken.json", b"{", 100.0)
    write(tmp_path / f"data/prompts/history/{TODAY}/large.json", b" " * (2 << 20), 100.0)
    assert 8 == run("usage", settings).report.counts["executions"]
    with ledger_of(settings) as ledger:
        found = {(one.day, one.template): one for one in ledger.executions("0", "9")}
    assert {("2026-11-17", "triage"): 1, (TODAY, "triage"): 3, (TODAY, "summarise"): 1, (TODAY, ""): 3} == {
        key: one.runs for key, one in found.items()
    }
    assert Executions(TODAY, "triage", 3, size, 3, 60.0, 40.0, NOW - 100.0) == found[TODAY, "triage"]


def test_a_record_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted is not opened again; what comes later is added, also with the same time."""
    settings = settings_for(tmp_path)
    for number in range(10):
        record(tmp_path, f"{TODAY}/{number}.json", template="t")
    run("usage", settings)
    for path in (tmp_path / f"data/prompts/history/{TODAY}").iterdir():
        path.write_bytes(b"{}")
        os.utime(path, (NOW - 100, NOW - 100))
    record(tmp_path, f"{TODAY}/91.json", template="t")
    record(tmp_path, f"{TODAY}/0.json", 50.0, template="t")
    assert 2 == run("usage", settings).report.counts["executions"]
    assert 0 == run("usage", settings).report.counts["executions"]
    assert {(TODAY, "t"): 12} == counted(settings)


def test_what_may_still_be_written_waits(tmp_path: Path) -> None:
    """A record of this second is counted by the next run."""
    settings = settings_for(tmp_path)
    record(tmp_path, f"{TODAY}/0.json", 1.0, template="t")
    assert 0 == run("usage", settings).report.counts["executions"]
    assert 1 == run("usage", settings, now=NOW + 5).report.counts["executions"]


def test_many_records_take_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and in whatever order they are listed: a part in each run, all in the end, none twice."""
    monkeypatch.setattr(executions, "_FILES", 7)
    settings = settings_for(tmp_path)
    for number in range(40):
        record(tmp_path, f"{TODAY if number % 2 else 'yesterday'}/{number:02}.json", 100.0 + number % 5, template="t")
    reports = [run("usage", settings).report.counts for _ in range(7)]
    assert [7, 7, 7, 7, 7, 5, 0] == [counts["executions"] for counts in reports]
    assert [True] * 5 + [False] * 2 == [counts["executions_pending"] > 0 for counts in reports]
    assert 40 == sum(counted(settings).values())


def test_a_day_that_comes_late_is_counted(tmp_path: Path) -> None:
    """A day's directory from elsewhere has older records than those that were counted; one that comes back has not."""
    settings = settings_for(tmp_path)
    record(tmp_path, f"{TODAY}/0.json", template="t")
    run("usage", settings)
    old = record(tmp_path, "2026-10-01/0.json", 40 * DAY, template="t")
    assert 1 == run("usage", settings).report.counts["executions"]
    content = old.read_bytes()
    old.unlink()
    run("usage", settings)
    write(old, content, 40 * DAY)
    assert 0 == run("usage", settings).report.counts["executions"]


def test_a_directory_that_is_no_day_counts_by_its_records(tmp_path: Path) -> None:
    """So does what lies in the history itself."""
    settings = settings_for(tmp_path)
    record(tmp_path, "batch-7/0.json", DAY, template="t")
    record(tmp_path, "loose.json", template="t")
    run("usage", settings)
    assert {("2026-11-17", "t"): 1, (TODAY, "t"): 1} == counted(settings)


def test_lines_are_read_on_from_where_they_ended(tmp_path: Path) -> None:
    """A file that is appended to: whole lines only, each once; a new file of that name from its beginning."""
    settings = settings_for(tmp_path)
    path = tmp_path / f"data/prompts/history/{TODAY}/log.jsonl"
    line = json.dumps({"template": "t", "latency_ms": 1}).encode() + b"\n"
    write(path, line * 3 + line[:10], 1.0)
    run("usage", settings)
    assert {(TODAY, "t"): 3} == counted(settings)
    with path.open("ab") as file:
        file.write(line[10:] + line)
    assert 2 == run("usage", settings).report.counts["executions"]
    assert 0 == run("usage", settings).report.counts["executions"]
    path.unlink()
    (path.parent / "holds the inode").touch()
    write(path, line, 1.0)
    assert 1 == run("usage", settings).report.counts["executions"]


def test_invented_templates_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that writes another name into each record does not fill the ledger."""
    monkeypatch.setattr(executions, "_TEMPLATES", 5)
    settings = settings_for(tmp_path)
    for number in range(20):
        record(tmp_path, f"{TODAY}/{number:02}.json", template=f"t{number}\x1b[31m")
    run("usage", settings)
    record(tmp_path, f"{TODAY}/99.json", 50.0, template="one more")
    run("usage", settings)
    found = counted(settings)
    assert (6, 16) == (len(found), found[TODAY, executions.OTHERS])
    assert all(template.isprintable() for _, template in found)


def test_links_are_not_followed_and_a_dry_run_counts_nothing(tmp_path: Path) -> None:
    """Neither a link nor a FIFO is read."""
    settings = settings_for(tmp_path)
    secret = write(tmp_path / "secret.json", b'{"template": "secret"}')
    folder = tmp_path / f"data/prompts/history/{TODAY}"
    folder.mkdir()
    (folder / "0.json").symlink_to(secret)
    os.mkfifo(folder / "1.json")
    (tmp_path / "data/prompts/history/2026-11-16").symlink_to(tmp_path)
    run("usage", settings)
    record(tmp_path, f"{TODAY}/2.json", template="t")
    run("usage", settings, dry_run=True)
    assert {} == counted(settings)


def test_an_interrupted_walk_loses_no_record(tmp_path: Path) -> None:
    """What was not seen because the run was asked to stop is counted by the next."""
    settings = settings_for(tmp_path)
    for number in range(50):
        record(tmp_path, f"{TODAY}/{number}.json", 100.0 + number, template="t")
    seen = iter(range(1000))
    run("usage", settings, stopping=lambda: next(seen) > 20)
    run("usage", settings)
    assert {(TODAY, "t"): 50} == counted(settings)


def test_asked_to_stop_the_rest_is_counted_later(tmp_path: Path) -> None:
    """Wherever it stops, in a directory or between files of lines: no record is lost or counted twice."""
    settings = settings_for(tmp_path)
    for number in range(3):
        record(tmp_path, f"{TODAY}/{number}.json", template="t")
        record(tmp_path, f"2026-11-17/{number}.json", DAY, template="t")
    line = b'{"template": "t"}\n'
    for name in "ab":
        write(tmp_path / f"data/prompts/history/{TODAY}/{name}.jsonl", line + b" \n" + line, 100.0)
    steps = [0]
    for looks in range(12):
        run("usage", settings, now=NOW + looks, stopping=stop_after(looks))
        steps.append(sum(counted(settings).values()))
    assert steps == sorted(steps)
    assert 0 < steps[-2]
    run("usage", settings, now=NOW + 20)
    assert {(TODAY, "t"): 7, ("2026-11-17", "t"): 3} == counted(settings)


def test_records_in_one_run_have_a_bound_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond it is counted by the runs that follow."""
    monkeypatch.setattr(executions, "_BYTES", 10)
    settings = settings_for(tmp_path)
    for number in range(3):
        record(tmp_path, f"{TODAY}/{number}/a.json", template="t")
    assert [1, 1, 1, 0] == [run("usage", settings).report.counts["executions"] for _ in range(4)]
    assert {(TODAY, "t"): 3} == counted(settings)
