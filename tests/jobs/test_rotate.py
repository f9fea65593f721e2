"""Rotation: what is due goes into archives, the right way for who writes to it, and nothing is lost or left unsaid."""

import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.formats.age import new_identity
from symbiont_datad.formats.rotated import rotated
from symbiont_datad.formats.storing import Storage
from symbiont_datad.fsops import collapse, swap
from symbiont_datad.fsops.collapse import can_collapse
from symbiont_datad.fsops.lease import Held
from symbiont_datad.fsops.root import pinned
from symbiont_datad.jobs import rotation, rotation_plan
from symbiont_datad.jobs.log_archive import Part
from symbiont_datad.jobs.rotation_journal import Journal, Unreadable
from symbiont_datad.jobs.rotation_plan import Task
from symbiont_datad.jobs.secrets import Secrets
from symbiont_datad.report import Outcome, Severity
from symbiont_datad.retention.logs import LogRule
from tests.conftest import AsNobody
from tests.jobs.log_writing import (
    EVERYTHING,
    archives_of,
    assert_stream,
    content_of,
    holding,
    line,
    lines,
    log_settings_for,
    stream_of,
    until_larger,
    writing,
)
from tests.jobs.making import DAY, NOW, Ran, ledger_of, run
from tests.support import NOBODY

ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits a second for each rotation."""
    monkeypatch.setattr(rotation, "SETTLE_S", 0.02)


@pytest.fixture
def collapsing(tmp_path: Path) -> Path:
    """A directory on a file system that can take the head out of a file."""
    with pinned(str(tmp_path)) as fd:
        if not can_collapse(fd):
            pytest.skip("not on this platform: the file system of the tests can't collapse a range")
    return tmp_path


def log_in(base: Path, content: bytes = b"", path: str = "system/a.log", mode: int = 0o644) -> Path:
    """A log of the tree at `base/data`."""
    log = base / "data/logs" / path
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(content)
    log.chmod(mode)
    return log


def names(path: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(os.listdir(path))


def found(ran: Ran) -> list[tuple[str, str]]:
    """The findings of a run: kind and path."""
    return [(finding.kind, finding.path) for finding in ran.report.findings]


def kinds(ran: Ran) -> list[str]:
    """The kinds of a run's actions."""
    return [action.kind for action in ran.report.actions]


# Ways


def test_the_head_of_a_log_goes_under_a_writer_in_append_mode(collapsing: Path) -> None:
    """The archive has whole lines, the live log begins with one blank line, and together they are the stream."""
    settings = log_settings_for(collapsing)
    log = log_in(collapsing, lines(990))
    inode = log.stat().st_ino
    with holding(log) as pid, log.open("ab") as late:
        dry = run("rotate", settings, dry_run=True)
        assert [log.name] == names(log.parent)
        ran = run("rotate", settings)
        late.write(line(990))
    (archive,) = archives_of(log)
    assert "a.log.20261118T110640Z-0001.zst" == archive.name
    assert content_of(archive) + log.read_bytes().split(b"\n", 1)[1] == lines(991)
    assert b"" == log.read_bytes().split(b"\n", 1)[0].strip(b" \t")
    assert (inode, True) == (log.stat().st_ino, log.stat().st_size < 9000)
    assert dry.report.actions == ran.report.actions
    (action,) = ran.report.actions
    assert ("log_rotated", "logs/system/a.log", "logs") == (action.kind, action.path, action.rule)
    assert f"by collapse, because process {pid} (python" in action.reason
    assert len(content_of(archive)) == action.bytes
    assert (Outcome.DONE, ["log_rotated", "logs_rotated"]) == (ran.report.outcome, ran.told)
    assert ([], 1) == (dry.told, ran.report.counts["rotated"])
    with ledger_of(settings) as ledger:
        assert [("done", "logs/system/a.log")] == [(row.state, row.path) for row in ledger.actions(job="rotate")]


def test_rotations_under_a_fast_writer(collapsing: Path) -> None:
    """Again and again while a process writes as fast as it can: the stream, line by line."""
    settings = log_settings_for(collapsing)
    log = log_in(collapsing)
    with writing(log) as writer:
        for _ in range(20):
            until_larger(log, 30_000)
            run("rotate", settings)
        count = writer.stop()
    assert_stream(log, count)
    assert len(archives_of(log)) >= 20


def test_a_log_that_is_opened_for_each_line_is_renamed(tmp_path: Path) -> None:
    """Its name is never missing, and no line is lost in the instant."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path)
    with writing(log, "reopen", rate=20_000) as writer:
        for _ in range(5):
            until_larger(log, 10_000)
            ran = run("rotate", settings)
            # Where a writer has to wait for a processor while it has the log open, it is left for the next run.
            reasons = [action.reason for action in ran.report.actions if action.kind == "log_rotated"]
            assert all("by rename, because nobody has it open" in reason for reason in reasons)
        count = writer.stop()
    run("rotate", settings)
    assert_stream(log, count)
    assert {".zst"} == {path.suffix for path in archives_of(log)}


def test_a_reader_is_no_writer(tmp_path: Path) -> None:
    """Whoever only reads a log does not keep it from being renamed."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(10))
    with holding(log, "read"):
        assert 1 == run("rotate", settings).report.counts["rotated"]
    assert (b"", lines(10)) == (log.read_bytes(), content_of(archives_of(log)[0]))


def test_a_writer_with_a_place_of_its_own_is_named_and_left(tmp_path: Path) -> None:
    """Not in append mode: nothing is touched, the finding names the process, and it is told once."""
    settings = log_settings_for(tmp_path, allow_copytruncate=True)
    log = log_in(tmp_path, lines(1000))
    with holding(log, "place") as pid:
        first, second = run("rotate", settings), run("rotate", settings)
    (finding,) = first.report.findings
    assert ("log_left_alone", "logs/system/a.log", Severity.WARNING) == (finding.kind, finding.path, finding.severity)
    assert f"process {pid} (python" in finding.detail
    assert ">> instead of >" in finding.remedy
    assert (["log_left_alone"], []) == (first.told, second.told)
    assert (Outcome.LEFT, 1) == (second.report.outcome, second.report.counts["left_alone"])
    assert (["a.log"], lines(1000)) == (names(log.parent), log.read_bytes())


def test_whoever_cant_be_seen_is_not_nobody(tmp_path: Path) -> None:
    """A file that is mapped for writing is in no list of descriptors, and yet the kernel says that somebody has it."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(1000))
    with log.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        file.close()
        ran = run("rotate", settings)
    assert "somebody who can't be seen has it open" in ran.report.findings[0].detail
    assert ["a.log"] == names(log.parent)


def test_what_the_user_declares_is_believed(collapsing: Path) -> None:
    """A log whose writers can't be seen goes by what the settings say of them."""
    log = log_in(collapsing, lines(1000))
    with log.open("ab"):  # this process itself is not looked at
        ran = run("rotate", log_settings_for(collapsing, appended=("system/*.log",)))
        assert "by collapse, because it is declared in logs.appended" in ran.report.actions[0].reason
    with holding(log):
        settings = log_settings_for(collapsing, reopened=("system/*.log",), compress="none")
        ran = run("rotate", settings, now=NOW + 1)
        assert "by rename, because it is declared in logs.reopened" in ran.report.actions[0].reason
        # It is not so, and that is noticed.
        assert ["log_rotated", "rotation_undone"] == kinds(ran)
    assert_stream(log, 1000)
    assert 1 == len(archives_of(log))


def test_a_log_that_was_opened_in_the_instant_gets_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens a log just when it is renamed, and keeps it, writes on to the live log; the finding names them."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(10))
    exchange = swap.exchange
    with _late(log) as opened:

        def late(*arguments: object) -> None:
            opened()
            exchange(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(rotation, "exchange", late)
        ran = run("rotate", settings)
    assert ["log_rotated", "rotation_undone"] == kinds(ran)
    assert "kept it open while it was renamed" in ran.report.findings[0].detail
    assert (["a.log"], lines(10)) == (names(log.parent), log.read_bytes())
    assert 0 == ran.report.counts["rotated"]


@contextmanager
def _late(log: Path) -> Iterator[Callable[[], None]]:
    """What opens a log in another process, once, when it is called."""
    with ExitStack() as stack:
        held: list[int] = []

        def once() -> None:
            if not held:
                held.append(stack.enter_context(holding(log)))

        yield once


def test_where_lines_arrived_meanwhile_nothing_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new log is in use already: the old one stays an archive, plain, while somebody writes to it."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(10))
    monkeypatch.setattr(rotation.Rotator, "_refuse_held", lambda *_: None)
    monkeypatch.setattr(rotation_plan, "held", lambda *_: Held.NO)
    kept_open = rotation.Rotator.kept_open

    def written(rotator: rotation.Rotator, tasks: list[Task], settle: bool) -> list[Task]:
        log.write_bytes(line(11))
        return kept_open(rotator, tasks, settle)

    monkeypatch.setattr(rotation.Rotator, "kept_open", written)
    with log.open("ab") as file:
        ran = run("rotate", settings)
        file.write(line(10))
    assert ["a.log", "a.log.20261118T110640Z-0001"] == names(log.parent)
    assert "still writes to" in ran.report.findings[0].detail
    assert_stream(log, 12)
    monkeypatch.undo()
    monkeypatch.setattr(rotation, "SETTLE_S", 0.02)
    assert 1 == run("rotate", replace(settings, logs=replace(settings.logs, rules=(_every(DAY),)))).report.counts[
        "stored"
    ]  # fmt: skip
    assert_stream(log, 12)


def _every(seconds: float, **other: object) -> LogRule:
    return replace(EVERYTHING, rotate_at=None, rotate_every_s=seconds, **other)  # type: ignore[arg-type]


def test_copying_and_cutting_only_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing better is possible, the log is left; with the setting it is cut, and a warning says the risk."""
    monkeypatch.setattr(rotation_plan, "can_collapse", lambda _fd: False)
    log = log_in(tmp_path, lines(1000))
    with holding(log), log.open("ab") as late:
        ran = run("rotate", log_settings_for(tmp_path))
        assert ("log_left_alone", "logs/system/a.log") == found(ran)[0]
        assert "logs.allow_copytruncate" in ran.report.findings[0].remedy
        ran = run("rotate", log_settings_for(tmp_path, allow_copytruncate=True))
        late.write(line(1000))
    assert ["log_cut_unsafely", "log_rotated", "logs_rotated"] == ran.told
    assert "what is written during the cut is lost" in ran.events[0]["reason"]
    assert "by copy and truncate" in ran.report.actions[0].reason
    assert line(1000) == log.read_bytes()
    assert [".zst"] == [path.suffix for path in archives_of(log)]
    assert_stream(log, 1001)


# What is no log


def test_what_is_no_file_of_lines_is_left(tmp_path: Path) -> None:
    """Databases, NUL bytes, hard links and lines without end stay, each with its reason."""
    settings = log_settings_for(tmp_path)
    log_in(tmp_path, b"SQLite format 3\0" + b"x" * 5000, "system/db.log")
    log_in(tmp_path, b"\0" * 10 + lines(50), "system/gap.log")
    linked = log_in(tmp_path, lines(50), "system/linked.log")
    os.link(linked, tmp_path / "elsewhere")
    endless = log_in(tmp_path, b"{" * 100_000, "system/endless.log")
    before = {name: (endless.parent / name).read_bytes() for name in names(endless.parent)}
    with holding(endless):
        ran = run("rotate", settings)
    details = {finding.path.rpartition("/")[2]: finding.detail for finding in ran.report.findings}
    assert {"db.log", "gap.log", "linked.log", "endless.log"} == details.keys()
    assert "database" in details["db.log"]
    assert "NUL bytes" in details["gap.log"]
    assert "2 names" in details["linked.log"]
    assert "no whole block of finished lines" in details["endless.log"] or "can't take the head" in details[
        "endless.log"
    ]  # fmt: skip
    assert before == {name: (endless.parent / name).read_bytes() for name in names(endless.parent)}


def test_fifos_sockets_links_and_odd_names(tmp_path: Path) -> None:
    """Nothing is followed or hung on, and a name of any bytes is a name."""
    settings = log_settings_for(tmp_path)
    system = tmp_path / "data/logs/system"
    outside = tmp_path / "outside.log"
    outside.write_bytes(lines(100))
    (system / "link.log").symlink_to(outside)
    (system / "away").symlink_to(tmp_path)
    os.mkfifo(system / "fifo.log")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(system / "s.log"))
        odd = ["a\nb.log", "-rf.log", os.fsdecode(b"\xff.log"), " .log"]
        for name in odd:
            log_in(tmp_path, lines(100), f"system/{name}")
        ran = run("rotate", settings)
    assert (Outcome.DONE, 4) == (ran.report.outcome, ran.report.counts["rotated"])
    for name in odd:
        assert_stream(system / name, 100)
        assert 1 == len(archives_of(system / name))
    assert lines(100) == outside.read_bytes()
    assert (system / "link.log").is_symlink()
    with ledger_of(settings) as ledger:
        assert 1 == len([row for row in ledger.actions() if row.path == "logs/system/a\\nb.log"])


@pytest.mark.skipif(not ROOT, reason="not on this platform: only root mounts")
def test_another_file_system_is_not_entered(tmp_path: Path) -> None:
    """What is mounted inside the logs is left; logs that are a mount of their own are told of."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(100))
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.log").write_bytes(lines(100))
    mount = log.parent / "mounted"
    mount.mkdir()
    ran = None
    for at in (mount, tmp_path / "data/logs"):
        subprocess.run(["mount", "--bind", other, at], check=True)
        try:
            ran = run("rotate", settings)
        finally:
            subprocess.run(["umount", "-l", at], check=True)
        assert ["b.log"] == names(other)
        assert (at == mount) == (ran.report.counts["rotated"] == 1)
    assert ran is not None
    assert [("not_rotated", "logs")] == found(ran)


# When


def test_size_age_and_both(tmp_path: Path) -> None:
    """A log is due from a size on, or from an age on, since its newest archive or its birth, if it has a minimum."""
    small, large = log_in(tmp_path, lines(3), "system/s.log"), log_in(tmp_path, lines(100), "system/l.log")
    now = time.time()

    def rotated(rule: LogRule, at: float) -> list[str]:
        ran = run("rotate", log_settings_for(tmp_path, rule), now=at)
        return [action.path.rpartition("/")[2] for action in ran.report.actions if action.kind == "log_rotated"]

    assert [] == rotated(replace(EVERYTHING, rotate_at=100_000), now)
    assert ["l.log"] == rotated(replace(EVERYTHING, rotate_at=500), now)
    assert [] == rotated(_every(DAY), now + DAY / 2)
    large.write_bytes(lines(100))
    assert ["s.log"] == rotated(_every(2 * DAY), now + 2 * DAY - 1) or small.stat().st_size
    assert ["l.log"] == rotated(_every(DAY, rotate_min=500), now + DAY + 60)
    small.write_bytes(lines(3))
    assert ["s.log"] == rotated(_every(DAY), now + 5 * DAY)
    assert [] == rotated(_every(DAY), now + 9 * DAY), "they are empty"


def test_a_log_of_less_than_a_block_waits(collapsing: Path) -> None:
    """Held open and too small to cut: no finding, it will grow."""
    log = log_in(collapsing, lines(3))
    with holding(log):
        ran = run("rotate", log_settings_for(collapsing))
    assert (Outcome.DONE, 0, ["a.log"]) == (ran.report.outcome, ran.report.counts["left_alone"], names(log.parent))


def test_what_a_rotation_has_left_is_not_rotated_again(collapsing: Path) -> None:
    """Only the blank line is in it: that is no content, and it is never part of an archive."""
    settings = log_settings_for(collapsing)
    log = log_in(collapsing, lines(1000))
    with holding(log):
        run("rotate", settings)
    assert 1 == run("rotate", settings, now=NOW + 1).report.counts["rotated"]
    second = archives_of(log)[1]
    assert content_of(second) == lines(1000)[len(content_of(archives_of(log)[0])) :]
    log.write_bytes(b"")
    assert 0 == run("rotate", settings, now=NOW + 2).report.counts["rotated"]


# What becomes of the archives


@pytest.mark.skipif(not ROOT, reason="not on this platform: only root gives files away")
@pytest.mark.parametrize("how", ["append", None])
def test_mode_owner_and_times_are_kept(collapsing: Path, how: str | None) -> None:
    """An archive has what its log has; the log that takes the place has its mode and owner."""
    log = log_in(collapsing, lines(1000), mode=0o640)
    os.chown(log, NOBODY, NOBODY)
    if how is None:
        os.utime(log, (NOW - 5, NOW - 7))
        run("rotate", log_settings_for(collapsing))
    else:
        with holding(log):
            os.utime(log, (NOW - 5, NOW - 7))
            run("rotate", log_settings_for(collapsing))
    (archive,) = archives_of(log)
    status = archive.stat()
    assert (0o640, NOBODY, NOBODY) == (status.st_mode & 0o7777, status.st_uid, status.st_gid)
    assert NOW - 7 == status.st_mtime
    live = log.stat()
    assert (0o640, NOBODY, NOBODY) == (live.st_mode & 0o7777, live.st_uid, live.st_gid)


@pytest.mark.skipif(not ROOT, reason="not on this platform: only root gives files away")
def test_an_access_list_is_kept(tmp_path: Path) -> None:
    """Whoever could append to the log by its access list can append to the new one."""
    log = log_in(tmp_path, lines(100), mode=0o640)
    subprocess.run(["setfacl", "-m", f"u:{NOBODY}:rw", log], check=True)
    acl = os.getxattr(log, "system.posix_acl_access")
    run("rotate", log_settings_for(tmp_path))
    assert acl == os.getxattr(log, "system.posix_acl_access")
    assert acl == os.getxattr(archives_of(log)[0], "system.posix_acl_access")


@pytest.mark.parametrize(("compress", "tool"), [("zstd", "zstdcat"), ("gzip", "zcat"), ("none", "cat")])
@pytest.mark.parametrize("sealed", [False, True], ids=["open", "sealed"])
@pytest.mark.parametrize("how", ["append", None], ids=["collapse", "rename"])
def test_stock_tools_open_archives(collapsing: Path, compress: str, tool: str, sealed: bool, how: str | None) -> None:
    """`zstdcat` and `zcat` read them; when encryption is on, after `age -d -i KEY`."""
    for needed in (tool, *(["age"] if sealed else [])):
        if subprocess.run(["sh", "-c", f"command -v {needed}"], capture_output=True).returncode:
            pytest.skip(f"there is no {needed}")
    settings = log_settings_for(collapsing, compress=compress)
    key = collapsing / "key"
    key.write_text(new_identity() + "\n")
    key.chmod(0o600)
    if sealed:
        repository = replace(settings.repository, secrets=Secrets(encrypted=True, key_file=key))
        settings = replace(settings, snapshots=replace(settings.snapshots, repository=repository))
    log = log_in(collapsing, lines(1000))
    if how is None:
        run("rotate", settings)
    else:
        with holding(log):
            run("rotate", settings)
    (archive,) = archives_of(log)
    assert ".age" == archive.suffix if sealed else ".age" != archive.suffix
    opening = f'age -d -i "{key}" "{archive}" | {tool}' if sealed else f'{tool} < "{archive}"'
    content = subprocess.run(["sh", "-c", opening], capture_output=True, check=True).stdout
    left = log.read_bytes().split(b"\n", 1)[1] if how else b""
    assert lines(1000) == content + left


def test_without_its_key_nothing_is_rotated(tmp_path: Path) -> None:
    """Encryption is on and the key is not there: the run fails, and no line is archived in the open."""
    settings = log_settings_for(tmp_path)
    repository = replace(settings.repository, secrets=Secrets(encrypted=True, key_file=tmp_path / "none"))
    settings = replace(settings, snapshots=replace(settings.snapshots, repository=repository))
    log = log_in(tmp_path, lines(100))
    report = run("rotate", settings).report
    assert (Outcome.FAILED, 2) == (report.outcome, report.exit_code)
    assert ["a.log"] == names(log.parent)


@pytest.mark.parametrize("how", ["append", None], ids=["collapse", "rename"])
def test_compression_may_wait_for_the_next_rotation(collapsing: Path, how: str | None) -> None:
    """With `delay_compress` the newest archive of each log stays plain."""
    settings = log_settings_for(collapsing, delay_compress=True)
    log = log_in(collapsing)
    for number in range(3):
        with log.open("ab") as file:
            file.write(lines(1000, 1000 * number))
        if how is None:
            run("rotate", settings, now=NOW + number)
        else:
            with holding(log):
                run("rotate", settings, now=NOW + number)
        run("rotate", replace(settings, logs=replace(settings.logs, rules=(_every(DAY),))), now=NOW + number)
        assert [".zst"] * number == [path.suffix for path in archives_of(log)[:-1]]
        assert archives_of(log)[-1].suffix not in (".zst", ".gz")
    assert_stream(log, 3000)


def test_what_somebody_has_unpacked_is_left(tmp_path: Path) -> None:
    """An archive that is there packed and plain stays like that: the plain one is somebody's copy."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(100))
    run("rotate", settings)
    (packed,) = archives_of(log)
    packed.with_suffix("").write_bytes(content_of(packed))
    ran = run("rotate", settings, now=NOW + 1)
    assert ([packed.with_suffix("").name, packed.name], 0) == (names(log.parent)[1:], ran.report.counts["stored"])


def test_an_archive_that_somebody_writes_to_is_not_compressed(tmp_path: Path) -> None:
    """A plain archive waits for as long as it is open for writing."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path)
    archive = log.with_name("a.log.20261101T000000Z-0001")
    archive.write_bytes(lines(100))
    with holding(archive):
        assert (0, []) == ((ran := run("rotate", settings)).report.counts["stored"], ran.told)
    assert 1 == run("rotate", settings).report.counts["stored"]
    assert_stream(log, 100)


def test_a_large_log_becomes_several_archives(collapsing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied is copied part by part, so that little room is needed beside it."""
    monkeypatch.setattr(rotation_plan, "PART", 50_000)
    log = log_in(collapsing, lines(3000))
    size = log.stat().st_size
    with holding(log):
        ran = run("rotate", log_settings_for(collapsing))
    archives = archives_of(log)
    assert size // 50_000 <= len(archives) <= size // 30_000
    assert max(len(content_of(path)) for path in archives) <= 50_000
    assert sum(len(content_of(path)) for path in archives) == ran.report.bytes_total
    assert_stream(log, 3000)


# Which archives go


def archive_at(log: Path, days: float, number: int = 1, size: int = 100) -> Path:
    """An archive that was made so many days before NOW."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(NOW - days * DAY))
    path = log.with_name(f"{log.name}.{stamp}-{number:04}.zst")
    path.write_bytes(b"x" * size)
    return path


def test_archives_go_by_count_age_and_total(tmp_path: Path) -> None:
    """What the settings don't keep goes, with a row each; the plan of a dry run is what is done."""
    rule = replace(EVERYTHING, rotate_at=10**9, keep=3, max_age_s=30 * DAY)
    settings = log_settings_for(tmp_path, rule, max_total=350)
    one, two = log_in(tmp_path, b"", "system/one.log"), log_in(tmp_path, b"", "agents/two.log")
    for days in (1.0, 2.0, 3.0, 4.0, 40.0):
        archive_at(one, days)
    for days in (2.5, 29):
        archive_at(two, days)
    dry = run("rotate", settings, dry_run=True)
    assert 9 == len(names(one.parent)) + len(names(two.parent))
    ran = run("rotate", settings)
    assert dry.report.actions == ran.report.actions
    assert [[NOW - 2 * DAY, NOW - DAY], [NOW - 2.5 * DAY]] == [[*map(_at, archives_of(log))] for log in (one, two)]
    assert {"log_archive_removed"} == {*kinds(ran)}
    assert (4, ["log_archives_trimmed"]) == (ran.report.counts["removed"], ran.told)
    reasons = [action.reason for action in ran.report.actions]
    assert any("rotated 40d ago, over 30d" in reason for reason in reasons)
    assert any("one of 4 archives of its log, 3 are kept" in reason for reason in reasons)
    assert any("archives of logs together over 350 B" in reason for reason in reasons)


def _at(path: Path) -> float:
    place = rotated(path.name)
    assert place is not None
    return float(place.at)


def test_a_new_archive_counts_at_once(tmp_path: Path) -> None:
    """With `keep` archives there, a rotation is followed by the removal of the oldest."""
    settings = log_settings_for(tmp_path, replace(EVERYTHING, keep=2))
    log = log_in(tmp_path)
    for number in range(4):
        log.write_bytes(lines(100))
        run("rotate", settings, now=NOW + number)
    assert [NOW + 2, NOW + 3] == [_at(path) for path in archives_of(log)]


def test_archives_wait_for_a_backup(tmp_path: Path) -> None:
    """What no backup holds stays, without a warning each time; after a backup it goes."""
    settings = replace(log_settings_for(tmp_path, replace(EVERYTHING, rotate_at=10**9, keep=1)), require_snapshot=True)
    log = log_in(tmp_path)
    for days in (1, 2, 3):
        archive_at(log, days)
    ran = run("rotate", settings)
    assert (Outcome.DONE, 2, 0) == (ran.report.outcome, *[ran.report.counts[key] for key in ("waiting", "removed")])
    run("backup", settings, now=NOW + 1)
    archive_at(log, 4)
    ran = run("rotate", settings, now=NOW + 2)
    assert (1, 2) == (ran.report.counts["waiting"], ran.report.counts["removed"])
    assert 2 == len(archives_of(log))


def test_an_archive_that_is_read_stays(tmp_path: Path) -> None:
    """What a process has open is not removed; another goes in its place."""
    settings = log_settings_for(tmp_path, replace(EVERYTHING, rotate_at=10**9, keep=2))
    log = log_in(tmp_path)
    made = [archive_at(log, days) for days in (3, 2, 1)]
    with holding(made[0], "read"):
        run("rotate", settings)
    assert [made[0], made[2]] == archives_of(log)


# Trouble


def test_a_full_disk_leaves_the_log_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for the archive: nothing is left of it, the log stays, and the finding says so. Others go on."""
    monkeypatch.setattr(rotation_plan, "can_collapse", lambda _fd: True)
    settings = log_settings_for(tmp_path)
    log, other = log_in(tmp_path, lines(1000)), log_in(tmp_path, lines(100), "agents/b.log")
    store = Storage.store

    def full(storage: Storage, source: Part, sink: object) -> None:
        if source.fd and os.readlink(f"/proc/self/fd/{source.fd}").endswith("system/a.log"):
            raise OSError(28, "No space left on device")
        store(storage, source, sink)  # type: ignore[arg-type]

    monkeypatch.setattr(Storage, "store", full)
    with holding(log):
        ran = run("rotate", settings)
    assert [("not_rotated", "logs/system/a.log")] == found(ran)
    assert "No space left" in ran.report.findings[0].detail
    assert (["a.log"], lines(1000)) == (names(log.parent), log.read_bytes())
    assert 1 == len(archives_of(other))
    with ledger_of(settings) as ledger:
        assert {"logs/system/a.log": "failed", "logs/agents/b.log": "done"} == {
            row.path: row.state for row in ledger.actions(kinds=["log_rotated"])
        }


def test_when_the_cut_fails_all_is_as_before(collapsing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive goes again, the blanked line is back, and another run does it."""
    settings = log_settings_for(collapsing)
    log = log_in(collapsing, lines(1000))

    real = collapse._collapse

    def refuse(fd: int, length: int, offset: int = 0) -> None:
        if os.fstat(fd).st_nlink:
            raise OSError(5, "Input/output error")
        real(fd, length, offset)  # it is only tried

    with holding(log):
        monkeypatch.setattr(collapse, "_collapse", refuse)
        ran = run("rotate", settings)
        assert [("not_rotated", "logs/system/a.log")] == found(ran)
        assert (["a.log"], lines(1000)) == (names(log.parent), log.read_bytes())
        assert not (settings.daemon_dir / "rotation.json").exists()
        monkeypatch.undo()
        assert 1 == run("rotate", settings).report.counts["rotated"]
    assert_stream(log, 1000)


def test_a_log_that_is_cut_while_it_is_copied_is_left(collapsing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else empties it meanwhile: no archive is made of what is no longer there."""
    log = log_in(collapsing, lines(3000))
    read = Part.read

    def cut(part: Part, size: int = -1, /) -> bytes:
        os.truncate(log, 100)
        return read(part, size)

    with holding(log):
        monkeypatch.setattr(Part, "read", cut)
        ran = run("rotate", log_settings_for(collapsing))
    assert [("not_rotated", "logs/system/a.log")] == found(ran)
    assert (["a.log"], lines(3000)[:100]) == (names(log.parent), log.read_bytes())


def test_a_line_that_is_not_finished_is_waited_for(tmp_path: Path) -> None:
    """A log that nobody has open and that ends within a line is renamed only when it has been like that for long."""
    settings = log_settings_for(tmp_path)
    log = log_in(tmp_path, lines(100)[:-3])
    assert 0 == run("rotate", settings).report.counts["rotated"]
    os.utime(log, (time.time() - 100, time.time() - 100))
    assert 1 == run("rotate", settings).report.counts["rotated"]


_STEP = {"schema": 1, "step": "collapse", "log": "logs/a.log", "archive": "a.log.x", "inode": 7, "bytes": 9,
         "sha256": "0", "plain": ""}  # fmt: skip
_CUT = {"start": 0, "at": 4096, "end": 4097, "mark": "00" * 8, "original": "eA=="}


@pytest.mark.parametrize(
    "content",
    [
        b"{}", b"[" * 5000, json.dumps(_STEP | {"log": 7}).encode(), json.dumps(_STEP | {"inode": "7"}).encode(),
        json.dumps(_STEP | {"bytes": 10**30}).encode(), json.dumps(_STEP | {"cut": _CUT}).encode(),
        json.dumps(_STEP | {"schema": 2}).encode(),
        json.dumps(_STEP | {"cut": _CUT | {"start": 5000}}).encode(), json.dumps(_STEP | {"cut": [1]}).encode(),
    ],
)  # fmt: skip
def test_a_journal_that_makes_no_sense_is_unreadable(tmp_path: Path, content: bytes) -> None:
    """Whatever is in it: text in the place of a number, a cut that ends before it begins, too deep a nesting."""
    (tmp_path / "rotation.json").write_bytes(content)
    with pytest.raises(Unreadable, match=r"rotation\.json"):
        Journal(tmp_path).read()


def test_a_step_that_cant_be_put_right_stops_the_rest(collapsing: Path) -> None:
    """A journal that nobody understands is not passed over: the run fails and says which file it is."""
    settings = log_settings_for(collapsing)
    log = log_in(collapsing, lines(1000))
    settings.daemon_dir.mkdir(exist_ok=True)
    (settings.daemon_dir / "rotation.json").write_text("{}")
    report = run("rotate", settings).report
    assert (Outcome.FAILED, ["a.log"]) == (report.outcome, names(log.parent))
    assert "rotation.json" in report.message
    dry = run("rotate", settings, dry_run=True)
    assert [("rotation_pending", "logs")] == found(dry)


def test_it_stops_between_two_logs_and_in_the_middle_of_one(collapsing: Path) -> None:
    """Asked to stop, it leaves what it did not finish as it was."""
    settings = log_settings_for(collapsing, compress="none")
    logs = [log_in(collapsing, lines(20_000), f"system/{name}.log") for name in "ab"]
    with holding(logs[0]), holding(logs[1]):
        looks = 0
        while True:
            looks += 1
            seen = iter(range(10**6))
            report = run("rotate", settings, stopping=lambda: next(seen) >= looks, now=NOW + looks).report  # noqa: B023
            for log in logs:
                assert_stream(log, 20_000)
                assert [] == [name for name in names(log.parent) if name.startswith(".")]
            if report.outcome is not Outcome.INTERRUPTED:
                break
    assert looks > 4


def test_who_is_not_root_rotates_what_is_theirs(open_path: Path, as_nobody: AsNobody) -> None:
    """As another user: own logs are rotated, by collapse under own writers; what only others may write to is left."""
    settings = log_settings_for(open_path)
    (settings.daemon_dir).mkdir()
    mine = log_in(open_path, lines(1000), "system/mine.log")
    theirs = log_in(open_path, lines(1000), "agents/theirs.log")
    for path in (settings.daemon_dir, mine, mine.parent, theirs.parent):
        os.chown(path, NOBODY, NOBODY)

    def rotate() -> list[tuple[str, str]]:
        ran = run("rotate", settings)
        return [(action.path, action.reason) for action in ran.report.actions]

    done = as_nobody(rotate)
    assert ["logs/system/mine.log", f"logs/system/{archives_of(mine)[0].stem}"] == [path for path, _ in done]
    assert "by rename, because nobody has it open" in done[0][1]
    assert_stream(mine, 1000)
    assert NOBODY == archives_of(mine)[0].stat().st_uid == mine.stat().st_uid
    assert ["theirs.log"] == names(theirs.parent), "nobody could make a log of root's"


def test_a_log_that_other_users_may_write_to(open_path: Path, as_nobody: AsNobody) -> None:
    """Whoever can't see others' processes leaves it, though an own writer appends; with that right taken, not."""
    settings = log_settings_for(open_path)
    settings.daemon_dir.mkdir()
    log = log_in(open_path, lines(1000), mode=0o666)
    for path in (settings.daemon_dir, log, log.parent):
        os.chown(path, NOBODY, NOBODY)

    def rotate() -> str:
        command = ["/bin/sh", "-c", 'exec 3>>"$0"; echo; read line', str(log)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            report = run("rotate", settings).report
            process.communicate()
        return report.findings[0].detail if report.findings else report.actions[0].reason

    assert "so could users whose processes can't be seen" in as_nobody(rotate)
    log.chmod(0o644)
    assert "by collapse, because process" in as_nobody(rotate)


def test_many_logs_are_looked_through_at_once(tmp_path: Path) -> None:
    """Thousands of logs of which none is due cost a walk, and no look at any process."""
    settings = log_settings_for(tmp_path, replace(EVERYTHING, rotate_at=10**6))
    agents = tmp_path / "data/logs/agents"
    agents.mkdir()
    for number in range(3000):
        (agents / f"{number}.log").write_bytes(b"one line\n")
    ran = run("rotate", settings)
    assert (Outcome.DONE, 0, []) == (ran.report.outcome, ran.report.actions_total, ran.told)


def test_json_lines_stay_json(collapsing: Path) -> None:
    """Each line of a JSON-lines file that is not blank is a document, in the archive and in what is left."""
    settings = log_settings_for(collapsing)
    log = log_in(collapsing, b"".join(b'{"n": %d}\n' % n for n in range(2000)), "audit/a.jsonl")
    with holding(log):
        run("rotate", settings)
    assert [{"n": n} for n in range(2000)] == [json.loads(one) for one in stream_of(log).splitlines()]
    assert {b" ", b"\t"} >= {bytes([one]) for one in log.read_bytes().split(b"\n", 1)[0]}


def test_the_command_line_of_a_child_is_not_told(tmp_path: Path) -> None:
    """A writer is named by its number and its program's name: arguments may hold what is secret."""
    log = log_in(tmp_path, lines(1000))
    code = "import sys; file = open(sys.argv[1], 'r+b'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(log), "--token=hunter2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "hunter2" not in run("rotate", log_settings_for(tmp_path)).report.findings[0].detail
        process.communicate()


def test_archives_wait_where_the_repository_is_away(tmp_path: Path) -> None:
    """What is older than the last backup would go, but nobody can say that it holds them: that is told."""
    settings = replace(log_settings_for(tmp_path, replace(EVERYTHING, rotate_at=10**9, keep=1)), require_snapshot=True)
    log = log_in(tmp_path)
    for days in (1, 2, 3):
        archive_at(log, days)
    run("backup", settings, now=NOW + 1)
    (tmp_path / "backups").rename(tmp_path / "away")
    ran = run("rotate", settings, now=NOW + 2)
    (finding,) = ran.report.findings
    assert ("retention_waits", 3) == (finding.kind, len(archives_of(log)))
    assert finding.detail.startswith("2 archives would go, but ")
