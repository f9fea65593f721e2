"""Status: one truth, with the daemon up or down."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from symbiont_datad.cli.status_document import document
from symbiont_datad.cli.status_screen import Terminal, screen
from symbiont_datad.fsops.lock import hold
from symbiont_datad.ledger import Ledger
from symbiont_datad.ledger_prompts import Executions
from symbiont_datad.ledger_schema import SpacePoint, UsagePoint
from symbiont_datad.live import LiveState, read_state, write_state
from symbiont_datad.report import Action, CacheUse, Finding, JobReport, Legacy, Outcome, Severity
from symbiont_datad.status import collect
from tests.conftest import AsNobody
from tests.service.looking import month


def fill(daemon_dir: Path) -> None:
    """What a daemon leaves after a while."""
    with Ledger(daemon_dir / "ledger.db") as ledger:
        run = ledger.begin_run("sweep", 1000.0)
        report = JobReport("sweep", Outcome.LEFT, 1000.0, 2.0, counts={"damaged": 1})
        ledger.replace_findings("sweep", [Finding("truncated", "state/agents/a.json", Severity.ERROR, "cut")], 1000.0)
        ledger.finish_run(run, report)
        ledger.record_usage([UsagePoint(1000.0, "state", 3, 4096)], SpacePoint(1000.0, 50, 100, 5, 10))
    write_state(daemon_dir, LiveState(os.getpid(), 500.0, 1000.0, True, True, (), {"sweep": 1300.0}))


def test_with_the_daemon_up_it_tells_of_all(tmp_path: Path) -> None:
    """The keeper's pid, its jobs' next runs, usage, and what is damaged."""
    daemon_dir = tmp_path / "datad"
    daemon_dir.mkdir()
    fill(daemon_dir)
    with hold(daemon_dir / "locks" / "keeper.lock", "kept"):
        found = collect("/srv/data", daemon_dir)
    text = "\n".join(screen(found, 1010.0))
    first, second, *_ = text.splitlines()
    assert "error: truncated: state/agents/a.json (since 10 s) → symbiont-datad check" == first
    assert second == f"/srv/data is kept by process {os.getpid()} for 8m 30s"
    assert "in 4m 50s" in text
    assert "free: 50 B of 100 B (50 %), 50 % of the inodes" in text
    shown = document(found, 1010.0)
    assert ("truncated", "1970-01-01T00:16:40.000Z") == (
        shown["findings"][0]["kind"],
        shown["findings"][0]["first_seen"],
    )
    assert {"running": True, "pid": os.getpid()} == {key: shown["daemon"][key] for key in ("running", "pid")}


def test_it_foretells_when_the_disk_will_be_full(tmp_path: Path) -> None:
    """From the points of two days: when, at what rate, and what fills it."""
    now = time.time()
    with Ledger(tmp_path / "ledger.db") as ledger:
        for hour in range(48, -1, -1):
            at, lost = now - hour * 3600, (48 - hour) << 30
            space = SpacePoint(at, (280 << 30) - lost, 1000 << 30, 10**6, 10**7)
            below = [UsagePoint(at, "logs/agents", 5, lost * 4 // 5), UsagePoint(at, "", 1, 1)]
            ledger.record_usage([UsagePoint(at, "logs", 5, lost)], space, below)
    found = collect("/srv/data", tmp_path)
    text = "\n".join(screen(found, now))
    assert "full in 10 days at the rate of the last day: 80 % of it is logs/agents" in text
    shown = document(found, now)["forecast"]
    assert 232 * 3600 == pytest.approx(shown["bytes"]["full_in_s"], rel=0.01)
    assert 0.8 == pytest.approx(shown["bytes"]["share"], rel=0.01)
    assert ("logs/agents", 86_400) == (shown["bytes"]["mostly"], shown["bytes"]["over_s"])
    assert None is shown["inodes"]


def test_it_tells_of_the_quarantine(tmp_path: Path) -> None:
    """What was moved aside, and what can be brought back until when."""
    root = tmp_path / "data"
    for name, kind in (("20261118T110640Z", "removed"), ("20261118T120640Z", "removed"), ("20261118T130640Z", "x")):
        cell = root / ".quarantine" / name
        cell.mkdir(parents=True)
        record = {"kind": kind, "until": "2026-11-19T11:06:40Z", "run": name, "files": 3, "bytes": 2048}
        (cell / "record.json").write_text(json.dumps(record))
    with Ledger(tmp_path / "datad/ledger.db") as ledger:
        ledger.record_usage([UsagePoint(1.0, "quarantine", 9, 9)], SpacePoint(1.0, 1, 2, 3, 4))
    found = collect(str(root), tmp_path / "datad")
    text = "\n".join(screen(found, 1_795_000_000.0, Terminal(200)))
    assert "quarantine: 1 thing moved aside" in text
    assert (
        "undo: `clean --undo` brings back 3 files (2 KiB) of the run 20261118T120640Z until 2026-11-19 11:06Z; "
        "1 earlier run too" in text
    )
    shown = document(found, 1_795_000_000.0)["quarantine"]
    assert (3, ["20261118T120640Z", "20261118T110640Z"]) == (shown["things"], [run["run"] for run in shown["undo"]])
    assert {"run": "20261118T120640Z", "until": "2026-11-19T11:06:40.000Z", "files": 3, "bytes": 2048} == shown["undo"][
        0
    ]


def test_what_was_healed_lately_is_told(tmp_path: Path) -> None:
    """The newest first, each with what was wrong and what was put back; after a week it is history."""
    now = time.time()
    with Ledger(tmp_path / "ledger.db") as ledger:
        for age_s in (8 * 86400, *range(600, 0, -100)):
            reason = "it was empty; put back as it was yesterday, from a backup; and more"
            ledger.record([Action("context_restored", f"a{age_s}", "state.heal", reason)], now - age_s)
    found = collect("/srv/data", tmp_path)
    assert [f"a{age_s}" for age_s in range(100, 700, 100)] == [row.path for row in found.healed]
    lines = list(screen(found, now, Terminal(200)))
    place = lines.index("context restored        a100  (1m 40s ago)")
    assert "  it was empty; put back as it was yesterday, from a backup" == lines[place + 1]
    assert "… and 1 more; all of them: symbiont-datad events --job sweep" in lines
    assert 6 == len(document(found, now)["healed"])


def test_with_the_daemon_down_it_says_since_when(tmp_path: Path) -> None:
    """Nobody holds the lock: the state that was left tells when it was last alive."""
    daemon_dir = tmp_path / "datad"
    daemon_dir.mkdir()
    fill(daemon_dir)
    found = collect("/srv/data", daemon_dir)
    first, *rest = screen(found, 1060.0)
    assert "error: no daemon keeps /srv/data: it died 1m ago → symbiont-datad service status" == first
    assert not any("in 4m" in line for line in rest)
    assert document(found, 1060.0)["daemon"]["pid"] is None


def test_a_narrow_plain_terminal(tmp_path: Path) -> None:
    """No line is longer than it, nothing but ASCII, no colour; what can be missed is left out of the tables."""
    fill(tmp_path)
    found = collect("/srv/data", tmp_path)
    for width in (30, 40, 71):
        lines = list(screen(found, 1010.0, Terminal(width, colors=False, unicode=False)))
        assert max(map(len, lines)) <= width
        assert "\n".join(lines).isascii()
    assert "files" in "\n".join(screen(found, 1010.0, Terminal(72)))
    assert "state             4 KiB  ##########" in list(screen(found, 1010.0, Terminal(40, unicode=False)))


def test_colours_only_mark(tmp_path: Path) -> None:
    """With them the text is the same."""
    fill(tmp_path)
    found = collect("/srv/data", tmp_path)
    plain, colored = (list(screen(found, 1010.0, Terminal(100, colors=colors))) for colors in (False, True))
    assert plain != colored
    assert plain == [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in colored]


def test_what_may_not_be_read_is_said(open_path: Path, as_nobody: AsNobody) -> None:
    """Somebody else's daemon: no traceback, a line that names the ledger."""
    daemon_dir = open_path / "datad"
    daemon_dir.mkdir(mode=0o755)
    fill(daemon_dir)
    found = as_nobody(lambda: collect("/srv/data", daemon_dir))
    assert "ledger.db" in found.ledger_problem
    assert any("the ledger can't be read" in line for line in screen(found, 1010.0, Terminal(200)))


def test_before_the_first_start_there_is_nothing_and_nothing_is_made(tmp_path: Path) -> None:
    """Asking leaves no file behind."""
    found = collect("/srv/data", tmp_path / "datad")
    assert ["error: no daemon keeps /srv/data → symbiont-datad service install"] == list(screen(found, 0.0))
    assert not (tmp_path / "datad").exists()


def test_a_state_that_can_not_be_read_is_no_state(tmp_path: Path) -> None:
    """Half a file, or one of another version, is passed over."""
    for text in ("", "{", "[]", '{"schema": 1}', '{"schema": 2, "pid": 1, "more": true}', "[" * 5000):
        (tmp_path / "status.json").write_text(text)
        assert read_state(tmp_path) is None


def test_the_state_reads_back(tmp_path: Path) -> None:
    """What the daemon writes is what `status` gets."""
    state = LiveState(7, 1.0, 2.0, True, False, ("a warning",), {"clean": 9.0}, ("clean",))
    write_state(tmp_path, state)
    assert state == read_state(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_on_a_full_disk_the_state_moves_on(tmp_path: Path) -> None:
    """Where there is no room for another file the old one is written over: the daemon does not seem to have stopped."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)], check=True)
    try:
        first = LiveState(1, 1.0, 1.0, True, True, ("something to say",), beat=1.0)
        write_state(small, first)
        with (small / "fill").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        second = LiveState(1, 1.0, 2.0, True, False, beat=2.0)
        write_state(small, second)
        assert second == read_state(small)
        assert ["fill", "status.json"] == sorted(path.name for path in small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_state_in_memory(tmp_path: Path) -> None:
    """With a runtime directory nothing is written to the disk but a link; the last state is a file again."""
    own, runtime = tmp_path / "datad", tmp_path / "run"
    own.mkdir()
    runtime.mkdir()
    for beat in (1.0, 2.0):
        state = LiveState(1, 1.0, 1.0, True, True, beat=beat)
        write_state(own, state, runtime)
        assert state == read_state(own)
    assert runtime / "status.json" == (own / "status.json").readlink()
    last = LiveState(1, 1.0, 3.0, False, False)
    write_state(own, last)
    (runtime / "status.json").unlink()
    assert last == read_state(own)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 1, "pid": 1, "unknown": 2}'])
def test_a_state_that_is_none(tmp_path: Path, content: str) -> None:
    """What can't be read as a state is no state."""
    (tmp_path / "status.json").write_text(content)
    assert read_state(tmp_path) is None


def names(node: object) -> Iterator[str]:
    """Every key in a document, but for those of mappings whose keys are data."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            if key not in ("counts", "actions_today"):
                yield from names(value)
    elif isinstance(node, list):
        for one in node:
            yield from names(one)


def test_each_name_of_the_document_is_explained(tmp_path: Path) -> None:
    """docs/status.md has every one, and those of an event."""
    month(tmp_path, time.time())
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.record([Action("context_restored", "a", "state.heal", "it was empty")], time.time())
        ledger.replace_cache_use([CacheUse(60.0, 1, 2)], time.time())
        ledger.add_executions([Executions("2026-11-23", "triage", 1, 2, 1, 3.0, 3.0, 4.0)], {})
    legacy = Legacy("/srv/old", "contexts", "mirror", True, 1.0, 2.0, 3, 4)
    write_state(tmp_path, LiveState(1, 1.0, 1.0, True, True, legacy=(legacy,)))
    cell = tmp_path / "data/.quarantine/20261118T110640Z"
    cell.mkdir(parents=True)
    record = {"kind": "removed", "until": "2036-11-19T11:06:40Z", "run": cell.name, "files": 3, "bytes": 2048}
    (cell / "record.json").write_text(json.dumps(record))
    shown = document(collect(str(tmp_path / "data"), tmp_path), time.time())
    assert all(value or value == 0 for key, value in shown.items() if key not in ("warnings", "daemon"))
    explained = set(re.findall(r"`([a-z_]+)`", (Path(__file__).parents[1] / "docs/status.md").read_text()))
    assert set() == set(names(shown)) - explained
