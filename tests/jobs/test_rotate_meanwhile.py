"""What comes in between while a log is rotated, at each of the moments at which a run looks whether to stop."""

import gzip
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from symbiont_datad.formats.rotated import COMPRESSED, following
from symbiont_datad.jobs import rotation, rotation_plan
from symbiont_datad.jobs.audit_chain import AuditChain, verify
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.rotation_report import FINDINGS
from symbiont_datad.report import Outcome
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
)
from tests.jobs.making import DAY, NOW, At, Ran, run, stop_after
from tests.jobs.test_rotate import _quick, archive_at, collapsing, found, log_in, names
from tests.support import NOBODY

COUNT = 1000

__all__ = ["_quick", "collapsing"]  # fixtures


@pytest.fixture
def uncollapsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on a file system that counts as one that can't."""
    monkeypatch.setattr(rotation_plan, "can_collapse", lambda _fd: False)
    return tmp_path


def at_each_moment(
    settings: JobSettings, log: Path, do: Callable[[], object], *, held: bool
) -> Iterator[tuple[bool, Ran]]:
    """Runs, each on a log of `COUNT` lines, which a process may have open, and no archives. In each `do` is done at one
    moment later; whether it was done comes with it. The last run had so few moments that it was not.
    """
    for moment in count():
        for name in names(log.parent):
            (log.parent / name).unlink()
        log.write_bytes(lines(COUNT))
        at = At(moment, do)
        with holding(log) if held else nullcontext():
            ran = run("rotate", settings, stopping=at, now=NOW + moment)
        yield at.done, ran
        if not at.done:
            assert moment > 2
            return


def all_lines(log: Path, *others: Path) -> Counter[bytes]:
    """The lines of a log, of its archives, and of other files: how often each is there."""
    whole = b"".join(map(content_of, [*archives_of(log), log, *others]))
    return Counter(one for one in whole.splitlines() if one.strip())


@pytest.mark.parametrize("held", [True, False], ids=["collapse", "rename"])
@pytest.mark.slow
def test_another_file_takes_the_logs_place(collapsing: Path, held: bool) -> None:
    """As a program's own rotation does it: each line is somewhere, and none is there twice."""
    settings, log = log_settings_for(collapsing), log_in(collapsing)
    aside = log.with_name("renamed")

    def replaced() -> None:
        log.rename(aside)
        log.write_bytes(line(COUNT))

    for done, _ in at_each_moment(settings, log, replaced, held=held):
        assert Counter(lines(COUNT + done).splitlines()) == all_lines(log, *[aside] * done)


@pytest.mark.slow
def test_lines_that_come_while_a_log_is_copied_are_in_its_archive(uncollapsing: Path) -> None:
    """What is written before the cut is copied as well, with or without its end."""
    settings, log = log_settings_for(uncollapsing, allow_copytruncate=True, compress="none"), log_in(uncollapsing)

    def written() -> None:
        with log.open("ab") as file:
            file.write(line(COUNT) + line(COUNT + 1)[:5])

    for done, ran in at_each_moment(settings, log, written, held=True):
        assert lines(COUNT) + done * (line(COUNT) + line(COUNT + 1)[:5]) == b"".join(
            content_of(path) for path in [*archives_of(log), log]
        )
        assert (1, 1) == (ran.report.counts["rotated"], ran.report.counts["rotated_truncate"])


@pytest.mark.parametrize("path", ["system/a.log", "audit/a.log"])
def test_a_writer_with_a_place_of_its_own_comes_while_it_is_copied(collapsing: Path, path: str) -> None:
    """It would leave a gap: the log stays as it is, nothing is left of the archive, and none is expected."""
    settings, log = log_settings_for(collapsing), log_in(collapsing, lines(COUNT), path)
    with ExitStack() as stack:
        stack.enter_context(holding(log))
        seen = iter(range(10**6))

        def stopping() -> bool:
            if next(seen) == 2:
                stack.enter_context(holding(log, "place"))
            return False

        ran = run("rotate", settings, stopping=stopping)
        assert (0, lines(COUNT)) == (ran.report.counts["rotated"], log.read_bytes())
        assert [log.name] == [name for name in names(log.parent) if name.startswith((".", log.name))]
        assert frozenset() == AuditChain(settings).pending()
    assert [] == verify(settings)


@pytest.mark.parametrize("path", ["system/a.log", "audit/a.log"])
@pytest.mark.slow
def test_whoever_opens_a_log_meanwhile_keeps_it(tmp_path: Path, path: str) -> None:
    """Before it is renamed it is left; after that it gets its place back, and no archive of it is expected."""
    settings = log_settings_for(tmp_path)
    for moment in range(4):
        log = log_in(tmp_path, lines(COUNT), path)
        with ExitStack() as stack:
            seen = iter(range(10**6))

            def stopping(moment: int = moment, seen: Iterator[int] = seen, log: Path = log) -> bool:
                if next(seen) == moment:
                    stack.enter_context(holding(log))
                return False

            run("rotate", settings, stopping=stopping, now=NOW + moment)
            assert_stream(log, COUNT)
        run("rotate", settings, now=NOW + 50 + moment)
        assert_stream(log, COUNT)
        assert (frozenset(), []) == (AuditChain(settings).pending(), verify(settings))
        for archive in archives_of(log):
            archive.unlink()
        (settings.daemon_dir / "audit-chain.json").unlink(missing_ok=True)
        (log.parent / "archives.manifest").unlink(missing_ok=True)


@pytest.mark.parametrize("written", [False, True], ids=["its place is given back", "its place is in use again"])
@pytest.mark.parametrize("path", ["system/a.log", "audit/a.log"])
def test_whoever_had_found_a_log_by_its_name_keeps_it(
    tmp_path: Path, path: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens what was renamed in that instant: the log gets its place back. What had its place meanwhile goes, unless
    somebody has written to it.
    """
    monkeypatch.setattr(rotation, "SETTLE_S", 600.0)
    settings, log = log_settings_for(tmp_path), log_in(tmp_path, lines(COUNT), path)
    with ExitStack() as stack:
        steps: list[str] = []

        def stopping() -> bool:
            """Yes ends a wait, twice: nothing else asks meanwhile."""
            if not steps and archives_of(log):
                stack.enter_context(holding(archives_of(log)[0]))
                steps.append("opened")
                return True
            if steps == ["opened"] and log.stat().st_size:
                archives_of(log)[0].write_bytes(line(COUNT) * written)
                steps.append("written")
                return True
            return False

        ran = run("rotate", settings, stopping=stopping)
    assert ["log_rotated", "rotation_undone"] == [action.kind for action in ran.report.actions]
    assert lines(COUNT) == log.read_bytes()
    assert written == len(archives_of(log))
    monkeypatch.setattr(rotation, "SETTLE_S", 0.02)
    for now in (NOW + 1, NOW + 2):
        assert Counter(lines(COUNT + written).splitlines()) == all_lines(log)
        run("rotate", settings, now=now)
    assert (frozenset(), []) == (AuditChain(settings).pending(), verify(settings))


def test_a_last_line_across_the_boundary_goes_as_a_whole(collapsing: Path) -> None:
    """Then nothing but the blank line is left of the log, and the run is over with it."""
    whole = b"y" * 8100 + b"\n" + b"z" * 500 + b"\n"
    log = log_in(collapsing, whole)
    with holding(log):
        ran = run("rotate", log_settings_for(collapsing, compress="none"))
    assert 1 == ran.report.counts["rotated_collapse"]
    (archive,) = archives_of(log)
    assert (whole, b"") == (archive.read_bytes(), log.read_bytes().strip())


def test_asked_to_stop_at_any_moment_no_line_is_missing(tmp_path: Path) -> None:
    """Before a log is renamed, before its archive is stored, before archives go: the next run does what is left."""
    settings = log_settings_for(tmp_path, replace(EVERYTHING, keep=1))
    log, other = log_in(tmp_path, lines(COUNT)), log_in(tmp_path, path="agents/b.log")
    old = [archive_at(other, days) for days in (3, 2, 1)]
    stopped = set()
    for looks in count():
        ran = run("rotate", settings, stopping=stop_after(looks), now=NOW + looks)
        assert_stream(log, COUNT)
        if ran.report.outcome is not Outcome.INTERRUPTED:
            break
        stopped.add((*(path.suffix for path in archives_of(log)), len(archives_of(other))))
    assert {(3,), (".zst", 3)} < stopped
    assert old[2:] == archives_of(other)


# File systems that other machines use


def test_on_a_shared_file_system_an_archive_has_to_be_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel knows of other machines' writers: for a minute a renamed log stays plain, and isn't in the manifest."""
    for module in (rotation, rotation_plan):
        monkeypatch.setattr(module, "is_shared", lambda _path: True)
    settings = log_settings_for(tmp_path, replace(EVERYTHING, rotate_at=100))
    log = log_in(tmp_path, lines(COUNT), "audit/a.log")
    ran = run("rotate", settings)
    assert (1, 0) == (ran.report.counts["rotated_rename"], ran.report.counts["stored"])
    (archive,) = archives_of(log)
    assert lines(COUNT) == archive.read_bytes()
    assert {archive.name} == AuditChain(settings).pending()
    monkeypatch.setattr(rotation, "QUIET_S", 0.0)
    assert 1 == run("rotate", settings, now=NOW + 1).report.counts["stored"]
    assert_stream(log, COUNT)
    assert (frozenset(), []) == (AuditChain(settings).pending(), verify(settings))


# Archives that are left as they are


def test_an_archive_that_a_kill_kept_from_the_manifest_is_listed(tmp_path: Path) -> None:
    """It is stored already; the next run takes it in as it is."""
    settings, log = log_settings_for(tmp_path), log_in(tmp_path, path="audit/a.log")
    place = following(log.name, None, NOW - 60)
    packed = log.with_name(replace(place, extension=COMPRESSED["gzip"]).name)
    packed.write_bytes(gzip.compress(lines(10)))
    archive_at(log_in(tmp_path), 1)  # of a log that the manifest is not about
    settings.daemon_dir.mkdir()
    AuditChain(settings).expect(f"logs/audit/{place.name}")
    run("rotate", settings)
    assert (frozenset(), []) == (AuditChain(settings).pending(), verify(settings))
    assert packed.name.encode() in (log.parent / "archives.manifest").read_bytes()


def test_archives_that_may_belong_elsewhere_stay_plain(tmp_path: Path) -> None:
    """One with a second name, and one whose log no rule is about."""
    settings, log = log_settings_for(tmp_path), log_in(tmp_path)
    linked = log.with_name(following(log.name, None, NOW - 60).name)
    others = log.with_name(following("notes.txt", None, NOW - 60).name)
    for path in (linked, others):
        path.write_bytes(lines(10))
    os.link(linked, tmp_path / "second")
    ran = run("rotate", settings)
    assert (0, 0, True, True) == (
        ran.report.counts["stored"], ran.report.counts["failed"], linked.exists(), others.exists(),
    )  # fmt: skip


def test_logs_of_one_directory_are_due_by_their_age(tmp_path: Path) -> None:
    """Two that have no archive yet, of which nobody knows more than when they were made."""
    settings = log_settings_for(tmp_path, replace(EVERYTHING, rotate_at=None, rotate_every_s=DAY))
    for name in ("a", "b"):
        log_in(tmp_path, lines(10), f"system/{name}.log")
    assert 0 == run("rotate", settings, now=0.0).report.counts["rotated"]
    assert 2 == run("rotate", settings, now=4e9).report.counts["rotated"]


# What can't be done is told


@pytest.mark.parametrize("held", [True, False], ids=["collapse", "rename"])
def test_an_audit_log_stays_if_its_manifest_cant_be_kept(collapsing: Path, held: bool) -> None:
    """No archive of it is made of which nobody could say that it is whole, and the run says which file is amiss."""
    settings, log = log_settings_for(collapsing), log_in(collapsing, lines(COUNT), "audit/a.log")
    (settings.daemon_dir / "audit-chain.json").mkdir(parents=True)
    with holding(log) if held else nullcontext():
        report = run("rotate", settings).report
    assert (Outcome.FAILED, True) == (report.outcome, "audit-chain.json" in report.message)
    assert (lines(COUNT), [log.name]) == (log.read_bytes(), names(log.parent))


def owned(*paths: Path) -> None:
    """Give paths to nobody."""
    for path in paths:
        os.chown(path, NOBODY, NOBODY)


def test_of_many_that_are_left_alone_some_are_named(tmp_path: Path) -> None:
    """And all are counted."""
    for number in range(FINDINGS + 3):
        log_in(tmp_path, b"SQLite format 3\0", f"system/{number}.log")
    ran = run("rotate", log_settings_for(tmp_path))
    assert (FINDINGS, FINDINGS + 3) == (len(ran.report.findings), ran.report.counts["left_alone"])
    assert [FINDINGS + 3] == [event["logs"] for event in ran.events if event["event"] == "log_left_alone"]


def test_who_may_not_remove_archives_says_so(open_path: Path, as_nobody: AsNobody) -> None:
    """In a directory of somebody else: of many some are told of, and all stay."""
    settings = log_settings_for(open_path, replace(EVERYTHING, rotate_at=10**9, keep=1))
    settings.daemon_dir.mkdir()
    owned(settings.daemon_dir)
    log = log_in(open_path)
    made = [archive_at(log, days) for days in range(FINDINGS + 4, 0, -1)]
    assert made == archives_of(log)
    report = as_nobody(lambda: run("rotate", settings).report)
    assert ["not_removed"] * FINDINGS == [finding.kind for finding in report.findings]
    assert (0, FINDINGS + 3, made) == (report.counts["removed"], report.counts["failed"], archives_of(log))


def test_an_audit_archive_that_goes_without_a_line_is_told_of(tmp_path: Path) -> None:
    """A rule removed it, and the manifest has a second name, so that it is not written to: the ledger has it."""
    settings = log_settings_for(tmp_path, LogRule("audit", ("audit/*.log",), keep=1))
    log = log_in(tmp_path, path="audit/a.log")
    oldest, newest = archive_at(log, 2), archive_at(log, 1)
    (log.parent / "archives.manifest").write_bytes(b"")
    os.link(log.parent / "archives.manifest", tmp_path / "second")
    ran = run("rotate", settings)
    assert [("not_listed", f"logs/audit/{oldest.name}")] == found(ran)
    assert (1, [newest]) == (ran.report.counts["removed"], archives_of(log))


def test_a_log_that_the_daemon_could_not_make_anew_is_left(open_path: Path, as_nobody: AsNobody) -> None:
    """Its writers could not append to a log of another owner: nothing is left of the attempt."""
    settings = log_settings_for(open_path, reopened=("**",))
    log = log_in(open_path, lines(COUNT))
    settings.daemon_dir.mkdir()
    owned(settings.daemon_dir, log.parent)
    report = as_nobody(lambda: run("rotate", settings).report)
    assert (0, [log.name], lines(COUNT)) == (report.counts["rotated"], names(log.parent), log.read_bytes())
