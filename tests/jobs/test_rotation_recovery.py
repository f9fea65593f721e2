"""What a rotation that was cut short has left, state by state: the next run takes it back or finishes it, and says so.

The states are those between two steps. `test_rotation_kills.py` comes to them by kills, and to those within a step.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from symbiont_datad.formats.rotated import TAKEN, UNFINISHED, following, hidden, rotated
from symbiont_datad.fsops import collapse
from symbiont_datad.fsops.collapse import Cut, can_collapse, find_cut, find_head
from symbiont_datad.fsops.root import pinned
from symbiont_datad.jobs import JOBS
from symbiont_datad.jobs.audit_chain import AuditChain, verify
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.jobs.rotation_journal import JOURNAL, Journal, Pending, Step
from symbiont_datad.report import Outcome
from tests.conftest import AsNobody
from tests.jobs.log_writing import EVERYTHING, archives_of, assert_stream, lines, log_settings_for
from tests.jobs.making import NOW, run
from tests.jobs.test_rotate import log_in, names
from tests.support import NOBODY

_LINES = 1000
_TAKEN_BACK = "a rotation was cut short and taken back: the log is as it was"
_FINISHED = "a rotation was cut short and finished: {} is whole"
_NO_ARCHIVE = "a rotation was cut short, and its archive is gone"
_NO_DIRECTORY = "a rotation was cut short, and its directory is gone"


@dataclass(frozen=True, slots=True)
class Half:
    """A step that is written down. Its archive is whole, and the log is as it was before."""

    settings: JobSettings
    log: Path
    archive: Path
    cut: Cut

    @property
    def unfinished(self) -> Path:
        """What the archive is called until the step gives it its name."""
        return self.archive.parent / hidden(self.archive.name, UNFINISHED)

    def publish(self) -> None:
        """The archive gets its name."""
        self.unfinished.rename(self.archive)

    def blank(self) -> None:
        """What is archived and would stay behind is overwritten."""
        with self.log.open("r+b") as file:
            collapse.blank(file.fileno(), self.cut)

    def go(self) -> str:
        """The next run: what it says about the step. Nothing is due and nothing else is done."""
        ran = run("rotate", self.settings)
        assert (Outcome.DONE, ()) == (ran.report.outcome, ran.report.findings)
        (action,) = ran.report.actions
        assert ("rotation_recovered", ["rotation_recovered"]) == (action.kind, ran.told)
        assert not (self.settings.daemon_dir / JOURNAL).exists()
        if self.log.parent.exists():
            assert [] == [name for name in names(self.log.parent) if name.startswith(".")]
        return action.reason


def begun(base: Path, step: Step = Step.COLLAPSE, path: str = "system/a.log") -> Half:
    """A rotation of a log of `_LINES` lines that has come as far as its journal."""
    settings = log_settings_for(base, replace(EVERYTHING, rotate_at=10**9), compress="none")
    log = log_in(base, lines(_LINES), path)
    size = log.stat().st_size
    with log.open("rb") as file:
        cut = find_cut(file.fileno(), size, 4096) if step is Step.COLLAPSE else find_head(file.fileno(), size)
    assert cut is not None
    archived = log.read_bytes()[: cut.end if step is Step.COLLAPSE else size]
    one = Half(settings, log, log.parent / following(log.name, None, NOW - 60).name, cut)
    one.unfinished.write_bytes(archived)
    settings.daemon_dir.mkdir()
    if settings.logs.is_audit(f"logs/{path}"):
        AuditChain(settings).expect(f"logs/audit/{one.archive.name}")
    digest = sha256(archived).hexdigest()
    pending = Pending(step, f"logs/{path}", one.archive.name, log.stat().st_ino, len(archived), digest, cut)
    Journal(settings.daemon_dir).begin(pending)
    return one


def collapsed(one: Half) -> None:
    """The head of the log is gone."""
    one.blank()
    one.log.write_bytes(one.log.read_bytes()[one.cut.at :])  # the same file


def emptied(one: Half) -> None:
    """The log was cut to nothing, and a writer wrote on."""
    one.log.write_bytes(b"")


PATHS = pytest.mark.parametrize("path", ["system/a.log", "audit/a.log"])


@PATHS
@pytest.mark.parametrize("step", [Step.COLLAPSE, Step.TRUNCATE])
@pytest.mark.parametrize("came_to", ["archive", "blank"])
def test_before_the_archive_has_its_name_it_is_taken_back(tmp_path: Path, step: Step, came_to: str, path: str) -> None:
    """Whether or not something was overwritten: the log is as it was, and no archive of it is expected any more."""
    one = begun(tmp_path, step, path)
    if came_to == "blank":
        one.blank()
    assert _TAKEN_BACK == one.go()
    assert (lines(_LINES), []) == (one.log.read_bytes(), archives_of(one.log))
    assert (frozenset(), []) == (AuditChain(one.settings).pending(), verify(one.settings))


@PATHS
@pytest.mark.parametrize("came_to", ["archive", "blank"])
def test_before_the_head_is_gone_it_is_taken_back(tmp_path: Path, came_to: str, path: str) -> None:
    """An archive that has its name already loses it: its lines are in the log."""
    one = begun(tmp_path, path=path)
    one.publish()
    if came_to == "blank":
        one.blank()
    assert _TAKEN_BACK == one.go()
    assert (lines(_LINES), []) == (one.log.read_bytes(), archives_of(one.log))
    assert (frozenset(), []) == (AuditChain(one.settings).pending(), verify(one.settings))


@PATHS
@pytest.mark.parametrize(
    ("step", "do"), [(Step.COLLAPSE, collapsed), (Step.TRUNCATE, emptied), (Step.TRUNCATE, lambda _one: None)],
    ids=["collapsed", "cut to nothing", "cut, and the same lines written again"],
)  # fmt: skip
def test_from_the_cut_on_it_is_finished(tmp_path: Path, step: Step, do: Callable[[Half], None], path: str) -> None:
    """The archive has what the log lacks: it stays, and an audit log's is in the manifest."""
    one = begun(tmp_path, step, path)
    archived = one.unfinished.read_bytes()
    one.publish()
    do(one)
    left = one.log.read_bytes()
    assert _FINISHED.format(one.archive.name) == one.go()
    assert (archived, left) == (one.archive.read_bytes(), one.log.read_bytes())
    assert (frozenset(), []) == (AuditChain(one.settings).pending(), verify(one.settings))


def test_a_collapse_that_has_left_a_gap_is_brought_to_its_end(tmp_path: Path) -> None:
    """The NUL bytes that a kill within the call leaves go, and no line with them."""
    with pinned(str(tmp_path)) as fd:
        if not can_collapse(fd):
            pytest.skip("not on this platform: the file system of the tests can't collapse a range")
    one = begun(tmp_path)
    one.publish()
    one.blank()
    with one.log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        collapse._collapse(file.fileno(), one.cut.at)
        file.truncate(size)
    assert _FINISHED.format(one.archive.name) == one.go()
    assert b"\0" not in one.log.read_bytes()
    assert_stream(one.log, _LINES)


def test_an_archive_of_lines_that_the_log_no_longer_has_gets_its_name(tmp_path: Path) -> None:
    """Somebody emptied the log before the next run came: then the hidden archive is all that is left of it."""
    one = begun(tmp_path, Step.TRUNCATE)
    one.blank()
    emptied(one)
    assert _FINISHED.format(one.archive.name) == one.go()
    assert_stream(one.log, _LINES)


def replaced(log: Path) -> None:
    """Another file has the log's name."""
    log.rename(log.with_suffix(".kept"))
    log.write_bytes(b"others\n")


def linked(log: Path) -> None:
    """The log has a second name, which may be anywhere."""
    os.link(log, log.with_suffix(".kept"))


def gone(log: Path) -> None:
    """The log has no name any more."""
    log.rename(log.with_suffix(".kept"))


def changed(log: Path) -> None:
    """Somebody has rewritten its head."""
    with log.open("r+b") as file:
        file.write(b"#" * (log.stat().st_size - 2))


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("do", [replaced, linked, gone, changed])
def test_a_log_that_is_no_longer_the_same_is_left(tmp_path: Path, do: Callable[[Path], None], published: bool) -> None:
    """Who knows what became of its lines: an archive that has its name stays, one that has none goes."""
    one = begun(tmp_path)
    if published:
        one.publish()
    do(one.log)
    before = {name: (one.log.parent / name).read_bytes() for name in names(one.log.parent) if not name.startswith(".")}
    assert (_FINISHED.format(one.archive.name) if published else _TAKEN_BACK) == one.go()
    assert before == {name: (one.log.parent / name).read_bytes() for name in names(one.log.parent)}


def test_what_is_gone_altogether_is_no_hindrance(tmp_path: Path) -> None:
    """The archive, or the directory of the log: that is told, and rotation goes on."""
    one = begun(tmp_path / "1")
    one.publish()
    collapsed(one)
    one.archive.unlink()
    assert _NO_ARCHIVE == one.go()
    one = begun(tmp_path / "2", path="agents/a.log")
    one.unfinished.unlink()
    one.log.unlink()
    one.log.parent.rmdir()
    assert _NO_DIRECTORY == one.go()


def test_what_cant_be_put_right_now_stops_the_rest(tmp_path: Path) -> None:
    """A directory has the log's name: the run fails and says why, and the next one after that is gone is fine."""
    one = begun(tmp_path)
    one.log.rename(tmp_path / "aside")
    one.log.mkdir()
    report = run("rotate", one.settings).report
    assert (Outcome.FAILED, True) == (report.outcome, one.unfinished.exists())
    assert report.message.startswith("a rotation was cut short, and can't be put right now: ")
    one.log.rmdir()
    (tmp_path / "aside").rename(one.log)
    assert _TAKEN_BACK == one.go()


# An archive that was being stored in another way


@dataclass(frozen=True, slots=True)
class Stored:
    """A plain archive, and beside it, hidden, what it is to become."""

    half: Half
    plain: Path


def storing(base: Path, path: str = "system/a.log") -> Stored:
    """An archive that is about to be compressed: that is written down."""
    settings = log_settings_for(base, replace(EVERYTHING, rotate_at=10**9), compress="none")
    log = log_in(base, path=path)
    place = following(log.name, None, NOW - 60)
    plain, packed = log.parent / place.name, log.parent / replace(place, extension=".gz").name
    plain.write_bytes(lines(_LINES))
    content = b"packed"
    half = Half(settings, log, packed, Cut(0, 0, 0, b"", b""))
    half.unfinished.write_bytes(content)
    settings.daemon_dir.mkdir()
    if settings.logs.is_audit(f"logs/{path}"):
        AuditChain(settings).expect(f"logs/audit/{plain.name}")
    Journal(settings.daemon_dir).begin(
        Pending(
            Step.STORE, f"logs/{path}", packed.name, plain.stat().st_ino, len(content), sha256(content).hexdigest(),
            plain=plain.name,
        )
    )  # fmt: skip
    return Stored(half, plain)


@pytest.mark.parametrize("published", [True, False])
def test_while_the_plain_archive_is_there_the_other_one_goes(tmp_path: Path, published: bool) -> None:
    """So that no line is there twice."""
    one = storing(tmp_path)
    if published:
        one.half.publish()
    assert _TAKEN_BACK == one.half.go()
    assert [one.half.log.name, one.plain.name] == names(one.plain.parent)
    assert lines(_LINES) == one.plain.read_bytes()


def test_an_audit_archive_that_was_to_be_stored_is_expected_as_before(tmp_path: Path) -> None:
    """It was made by a rotation of ours: as it stays plain here, the same run lists it."""
    one = storing(tmp_path, "audit/a.log")
    assert _TAKEN_BACK == one.half.go()
    assert (frozenset(), []) == (AuditChain(one.half.settings).pending(), verify(one.half.settings))


@PATHS
@pytest.mark.parametrize("published", [True, False])
def test_once_the_plain_archive_is_gone_the_other_one_stays(tmp_path: Path, path: str, published: bool) -> None:
    """It is all that is left of the lines, by whichever name it is there."""
    one = storing(tmp_path, path)
    if published:
        one.half.publish()
    one.plain.unlink()
    assert _FINISHED.format(one.half.archive.name) == one.half.go()
    assert b"packed" == one.half.archive.read_bytes()
    assert (frozenset(), []) == (AuditChain(one.half.settings).pending(), verify(one.half.settings))


# Logs that were taken from their place


def taken(base: Path, stamp: float, content: bytes) -> tuple[JobSettings, Path]:
    """Settings, and a log that was renamed at that time and has no name of an archive yet."""
    settings = log_settings_for(base, replace(EVERYTHING, rotate_at=10**9), compress="none")
    log, place = log_in(base), following("a.log", None, stamp)
    assert place == rotated(place.name)
    (log.parent / hidden(place.name, TAKEN)).write_bytes(content)
    return settings, log


def test_a_log_that_was_taken_becomes_an_archive(tmp_path: Path) -> None:
    """The newest of its log, whatever its name says; and an empty one goes."""
    settings, log = taken(tmp_path, NOW - 60, lines(10, 5))
    (log.parent / following(log.name, None, NOW - 30).name).write_bytes(lines(5))
    ran = run("rotate", settings)
    assert [("rotation_recovered", "logs/system/a.log")] == [(one.kind, one.path) for one in ran.report.actions]
    assert_stream(log, 15)
    taken(tmp_path, NOW - 20, b"")
    assert [] == [*run("rotate", settings).report.actions]
    assert 3 == len(names(log.parent))


def test_where_the_daemon_may_not_write_it_waits(open_path: Path, as_nobody: AsNobody) -> None:
    """What can't be tidied up now stays, and no other log has to wait for it."""
    settings, log = taken(open_path, NOW - 60, lines(5))
    unfinished = log.parent / hidden(following(log.name, None, NOW).name, UNFINISHED)
    unfinished.write_bytes(b"half")
    other = log_in(open_path, lines(9), "agents/b.log")
    settings.daemon_dir.mkdir()
    for path in (settings.daemon_dir, other, other.parent):
        os.chown(path, NOBODY, NOBODY)
    JOBS["rotate"].load()  # nobody may be unable to
    due = replace(settings, logs=replace(settings.logs, rules=(replace(EVERYTHING, patterns=("agents/*",)),)))
    as_nobody(lambda: run("rotate", due).report.outcome)
    assert (3, 1) == (len(names(log.parent)), len(archives_of(other)))
    run("rotate", settings)
    assert_stream(log, 5)
    assert not unfinished.exists()
