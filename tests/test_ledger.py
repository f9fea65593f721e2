"""The ledger: what it keeps, what it survives."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from symbiont_datad.ledger import Ledger, LedgerError
from symbiont_datad.ledger_events import Filter
from symbiont_datad.ledger_schema import SpacePoint, UsagePoint
from symbiont_datad.ledger_totals import ActionTotal, CountTotal, RunTotal
from symbiont_datad.report import Action, Finding, JobReport, Outcome, Severity
from symbiont_datad.status_history import History, history
from tests.torture.disk import Disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger can be."""
    return tmp_path / "datad" / "ledger.db"


def removal(path: str, size: int = 10) -> Action:
    """An action as retention makes them."""
    return Action("file_removed", path, "cache", "not used for 41 d", size)


def test_an_action_is_told_again_as_it_was_recorded(path: Path) -> None:
    """What is recorded comes back, with the job of its run, or the guard's name where there was none."""
    with Ledger(path) as ledger:
        run = ledger.begin_run("clean", 100.0)
        ledger.record([removal("prompts/cache/a.json")], 101.0, run)
        ledger.record([Action("permissions_restored", "state", "layout state", "mode was 0o777")], 102.0)
        first, second = ledger.actions()
    assert ("clean", "prompts/cache/a.json", "not used for 41 d", 10, "done") == (
        first.job,
        first.path,
        first.reason,
        first.bytes,
        first.state,
    )
    assert ("guard", 102.0) == (second.job, second.at)


def test_bytes_of_a_path_in_what_a_run_says(path: Path) -> None:
    """They are escaped, wherever they stand, and lines stay lines."""
    with Ledger(path) as ledger:
        run = ledger.begin_run("clean", 1.0)
        ledger.finish_run(run, JobReport("clean", Outcome.FAILED, 1.0, 1.0, message="a\nä \udcff"))
        ledger.replace_findings("clean", [Finding("odd", "p", Severity.ERROR, "\udcff", "look at \udcff")], 1.0)
        ((finding, _),) = ledger.findings()
        assert "a\nä \\udcff" == ledger.last_runs()["clean"].message
    assert ("\\udcff", "look at \\udcff") == (finding.detail, finding.remedy)


def test_actions_are_found_by_path_kind_job_and_time(path: Path) -> None:
    """Each filter leaves what it names; a directory means what is below it, and no neighbour with a longer name."""
    with Ledger(path) as ledger:
        run = ledger.begin_run("clean", 1.0)
        names = ["logs/a/x", "logs/a", "logs/ab", "logs/a.b", "logs/b"]
        for at, name in enumerate(names):
            ledger.record([removal(name)], float(at), run if at % 2 else None)
        assert ["logs/a/x", "logs/a"] == [row.path for row in ledger.actions(path="logs/a")]
        assert names[3:] == [row.path for row in ledger.actions(since=3.0)]
        assert ["logs/a", "logs/a.b"] == [row.path for row in ledger.actions(job="clean")]
        assert [] == ledger.actions(kinds=["backup_rotated"])
        assert names[-2:] == [row.path for row in ledger.actions(limit=2)]


def test_a_name_that_is_no_text_is_kept_readable(path: Path) -> None:
    """Bytes that are no UTF-8, and newlines, are told as escapes and found by the same name."""
    odd = os.fsdecode(b"prompts/cache/\xff\nx")
    with Ledger(path) as ledger:
        ledger.record([removal(odd)], 1.0)
        assert ["prompts/cache/\\xff\\nx"] == [row.path for row in ledger.actions(path=odd)]


def test_a_plan_is_there_before_it_is_confirmed(path: Path) -> None:
    """Planned rows are seen by another process at once, and end as done or failed."""
    with Ledger(path) as ledger, Ledger(path) as other:
        run = ledger.begin_run("clean", 1.0)
        ledger.plan([removal("a"), removal("b")], 2.0, run)
        assert ["planned", "planned"] == [row.state for row in other.actions()]
        ledger.confirm(run, ["b"])
        assert {"a": "done", "b": "failed"} == {row.path: row.state for row in other.actions()}


def test_a_killed_process_leaves_what_it_committed(path: Path) -> None:
    """SIGKILL right after a commit loses no row."""
    code = (
        "import os, sys; from pathlib import Path; from symbiont_datad.ledger import Ledger;"
        "from symbiont_datad.report import Action; ledger = Ledger(Path(sys.argv[1]));"
        "ledger.plan([Action('file_removed', str(n), 'cache', 'why') for n in range(1000)], 1.0, 1);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert -9 == done.returncode
    with Ledger(path) as ledger:
        assert 1000 == len(ledger.actions())


def test_runs_tell_the_last_success_and_the_last_run(path: Path) -> None:
    """A failed or unfinished run is the last run, and not the last success."""
    with Ledger(path) as ledger:
        for at, outcome in ((1.0, Outcome.DONE), (2.0, Outcome.LEFT), (3.0, Outcome.FAILED)):
            run = ledger.begin_run("sweep", at)
            ledger.finish_run(run, JobReport("sweep", outcome, at, 0.5, counts={"checked": 7}, message="m"))
        ledger.begin_run("clean", 4.0)
        assert {"sweep": 2.0} == ledger.last_successes()
        last = ledger.last_runs()
    assert ("failed", 3.5, {"checked": 7}) == (last["sweep"].outcome, last["sweep"].ended_at, last["sweep"].counts)
    assert last["clean"].outcome is None


def test_the_last_success_is_the_last_one_made_not_the_one_with_the_latest_time(path: Path) -> None:
    """A run of a time when the clock was years ahead is not the last one any more when another has done well."""
    with Ledger(path) as ledger:
        for at in (1.0, 9e9, 2.0):
            ledger.finish_run(ledger.begin_run("backup", at), JobReport("backup", Outcome.DONE, at, 0.5))
        assert {"backup": 2.0} == ledger.last_successes()


def test_a_finding_keeps_its_first_sight_and_goes_when_it_is_mended(path: Path) -> None:
    """A job's newest findings replace its old ones; those of other jobs stay."""
    bad = Finding("truncated", "state/agents/a.json", Severity.ERROR, "cut", "restore it")
    with Ledger(path) as ledger:
        ledger.replace_findings("sweep", [bad], 10.0)
        ledger.replace_findings("clean", [Finding("held", "logs", Severity.INFO, "no snapshot")], 11.0)
        ledger.replace_findings("sweep", [bad], 20.0)
        assert [(bad, 10.0)] == [(one, seen) for one, seen in ledger.findings() if one.kind == "truncated"]
        ledger.replace_findings("sweep", [], 30.0)
        assert ["held"] == [one.kind for one, _ in ledger.findings()]


def test_usage_tells_the_newest_figures(path: Path) -> None:
    """Older points don't show."""
    with Ledger(path) as ledger:
        assert ([], None) == ledger.usage()
        for at in (1.0, 2.0):
            space = SpacePoint(at, 5, 10, 3, 4)
            ledger.record_usage([UsagePoint(at, "state", int(at), 100), UsagePoint(at, "logs", 1, 1)], space)
        points, newest = ledger.usage()
    assert {("state", 2), ("logs", 1)} == {(point.category, point.files) for point in points}
    assert SpacePoint(2.0, 5, 10, 3, 4) == newest


def test_a_damaged_ledger_is_moved_aside_whole(path: Path) -> None:
    """A file that is no database is kept under another name, and a new ledger works."""
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with Ledger(path) as ledger:
        assert ledger.replaced is not None
        assert b"not a database" * 100 == ledger.replaced.read_bytes()
        ledger.record([removal("a")], 1.0)
        assert 1 == len(ledger.actions())


def test_a_ledger_whose_schema_is_no_text_is_damaged_too(path: Path) -> None:
    """sqlite3 can't even put SQLite's message into words: the daemon starts all the same."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table runs_ (n)")
    path.write_bytes(path.read_bytes().replace(b"runs_", b"\xe3" * 5).replace(b"(n)", b"(n,"))
    with pytest.raises(LedgerError):
        Ledger.for_reading(path)
    with Ledger(path) as ledger:
        assert ledger.replaced is not None
        assert 1 == ledger.begin_run("sweep", 1.0)


def test_a_damaged_ledger_is_left_alone_by_those_who_only_read(path: Path) -> None:
    """`status` and `events` say that it can't be read, and move nothing."""
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError):
        Ledger.for_reading(path)
    assert [path] == list(path.parent.iterdir())


def test_a_ledger_of_a_newer_version_is_refused_and_untouched(path: Path) -> None:
    """An older daemon doesn't write into what it doesn't understand."""
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version = 99")
    db.close()
    for opening in (Ledger, Ledger.for_reading):
        with pytest.raises(LedgerError, match="newer version"):
            opening(path)
    with sqlite3.connect(path) as db:
        assert (99,) == db.execute("pragma user_version").fetchone()
    db.close()


def test_processes_and_threads_write_at_once(path: Path) -> None:
    """Eight threads on two connections lose no row and see no lock error."""
    with Ledger(path) as one, Ledger(path) as two:

        def write(ledger: Ledger, name: int) -> None:
            for n in range(50):
                ledger.record([removal(f"{name}/{n}")], time.time())

        threads = [threading.Thread(target=write, args=(ledger, n)) for n in range(4) for ledger in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 400 == len(one.actions())


def test_the_file_is_private(path: Path) -> None:
    """Paths and reasons are nobody else's business, whatever the umask says."""
    before = os.umask(0)
    try:
        Ledger(path).close()
    finally:
        os.umask(before)
    assert (0o600, 0o700) == (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)


def test_a_full_disk_is_an_error_of_its_own_kind(path: Path) -> None:
    """When SQLite can't write, LedgerError tells, and the ledger works again once there is room."""
    with Ledger(path) as ledger:
        ledger._db.execute("pragma max_page_count = 30")
        with pytest.raises(LedgerError, match="full"):
            ledger.record([removal("x" * 4000) for _ in range(1000)], 1.0)
        assert [] == ledger.actions()
        ledger._db.execute("pragma max_page_count = 100000")
        ledger.record([removal("a")], 1.0)
        assert 1 == len(ledger.actions())


FIRST = """
create table runs (
    id integer primary key, job text not null, started_at real not null, ended_at real, outcome text,
    actions integer not null default 0, bytes integer not null default 0, message text not null default '',
    counts text not null default '{}');
create index runs_by_job on runs (job, started_at);
create table actions (
    id integer primary key, run integer, at real not null, kind text not null, path text not null,
    rule text not null, reason text not null, bytes integer not null, state text not null);
create index actions_by_time on actions (at);
create index actions_by_path on actions (path);
create index actions_planned on actions (run) where state = 'planned';
create table findings (
    kind text not null, path text not null, job text not null, severity text not null, detail text not null,
    remedy text not null, first_seen real not null, last_seen real not null, primary key (path, kind)) without rowid;
create table usage (
    at real not null, category text not null, files integer not null, bytes integer not null,
    primary key (at, category)) without rowid;
create table space (
    at real primary key, free_bytes integer not null, total_bytes integer not null, free_inodes integer not null,
    total_inodes integer not null) without rowid;
create table seen (
    path blob primary key, mark text not null) without rowid;
insert into runs (id, job, started_at) values (7, 'clean', 1.0);
insert into actions (run, at, kind, path, rule, reason, bytes, state)
    values (7, 2.0, 'file_removed', 'prompts/cache/a', 'cache', 'old', 3, 'done');
insert into usage values (5.0, 'state', 1, 2);
insert into space values (5.0, 1, 2, 3, 4);
pragma user_version = 1;
"""
"""A ledger as the first version made it."""


def test_an_old_ledger_opens_with_all_that_is_in_it(path: Path) -> None:
    """A ledger of the first version is brought up to date once, and loses nothing."""
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript(FIRST)
    db.close()
    for _ in range(2):
        with Ledger(path) as ledger:
            assert ["prompts/cache/a"] == [row.path for row in ledger.actions()]
            assert ([UsagePoint(5.0, "state", 1, 2)], SpacePoint(5.0, 1, 2, 3, 4)) == ledger.usage()
            assert ([], [SpacePoint(5.0, 1, 2, 3, 4)]) == ledger.usage_since(0.0)
            assert ledger.replaced is None
    with Ledger(path) as ledger:
        ledger.record_usage([], SpacePoint(6.0, 1, 2, 3, 4), [UsagePoint(6.0, "logs/agents", 1, 9)])
        assert [UsagePoint(6.0, "logs/agents", 1, 9)] == ledger.usage_since(0.0)[0]


def test_a_file_is_found_by_what_was_done_to_its_directory(path: Path) -> None:
    """Kinds that mean all that is in a directory count for what is below it; others don't, nor do neighbours."""
    with Ledger(path) as ledger:
        for kind, name in (("moved", "h/d"), ("moved", "h/d2"), ("mended", "h"), ("moved", "h/d/e/f")):
            ledger.record([Action(kind, name, "history", "old")], 1.0)
        found = [row.path for row in ledger.actions(path="h/d/e", covering=["moved"])]
        assert ["h/d", "h/d/e/f"] == found
        assert ["h/d/e/f"] == [row.path for row in ledger.actions(path="h/d/e")]


def test_old_points_are_thinned_out(path: Path) -> None:
    """All of the last two days, one an hour before that, one a day after sixty."""
    day, hour = 86_400.0, 3600.0
    now = 65 * day
    times = [number * 6 * hour for number in range(62 * 4)]
    times += [62 * day + number * 600 for number in range(3 * 144 + 1)]
    with Ledger(path) as ledger:
        for at in times:
            space = SpacePoint(at, 1, 10, 3, 4)
            ledger.record_usage([UsagePoint(at, "logs", 1, 1)], space, [UsagePoint(at, "logs/a", 1, 1)])
        below, spaces = ledger.usage_since(0.0)
    assert [point.at for point in below] == [point.at for point in spaces]
    ages = [now - point.at for point in below]
    assert [at for at in times if now - at <= 2 * day] == [point.at for point in below if now - point.at <= 2 * day]
    assert 24 <= sum(2 * day < age < 3 * day for age in ages) <= 26
    assert 57 * 4 - 1 <= sum(3 * day <= age <= 60 * day for age in ages) <= 57 * 4 + 1
    assert 5 <= sum(age > 60 * day for age in ages) <= 6


def test_rows_can_be_written_on_a_full_disk(path: Path) -> None:
    """The reserve takes some thousand rows when the file can grow no more, and the log is used again."""
    with Ledger(path) as ledger, Ledger(path) as other:
        ledger.keep_reserve()
        (pages,) = ledger._db.execute("pragma page_count").fetchone()
        assert 250 <= ledger._db.execute("pragma freelist_count").fetchone()[0]
        for one in (ledger, other):
            one._db.execute(f"pragma max_page_count = {pages}")
        for number in range(2000):
            other.record([removal(f"prompts/cache/{number:064}.json")], 1.0)
        assert 2000 == len(ledger.actions())
        ledger._db.execute(f"pragma max_page_count = {pages + 1000}")
        ledger.keep_reserve()
        assert 250 <= ledger._db.execute("pragma freelist_count").fetchone()[0]
        assert "ok" == ledger._db.execute("pragma integrity_check").fetchone()[0]


def test_what_a_ledger_in_memory_knows_can_be_written_down_later(path: Path) -> None:
    """Runs and actions become new ones of the real ledger; those that are there keep their numbers."""
    with Ledger(path) as ledger, Ledger(None) as memory:
        ledger.record([removal("before")], 1.0, ledger.begin_run("clean", 1.0))
        run = memory.begin_run("relieve", 2.0)
        memory.plan([removal("a"), removal("b")], 3.0, run)
        memory.confirm(run, ["b"])
        memory.record([removal("c")], 4.0)
        ledger.take_over(memory)
        assert [
            ("clean", "before", "done"),
            ("relieve", "a", "done"),
            ("relieve", "b", "failed"),
            ("guard", "c", "done"),
        ] == [(row.job, row.path, row.state) for row in ledger.actions()]
        counted = {(total.kind, total.rule): total.actions for total in ledger.totals().actions}
        assert {("file_removed", "cache"): 2, ("file_removed", ""): 1} == counted


def test_one_mark_can_be_asked_for(path: Path) -> None:
    """By its name; none is an empty text."""
    with Ledger(path) as ledger:
        ledger.update_marks({"//broken/prompts/cache": "17"}, ())
        assert ("17", "") == (ledger.mark("//broken/prompts/cache"), ledger.mark("//broken/other"))


def test_totals_count_what_was_done_and_outlive_the_rows(path: Path) -> None:
    """Actions count when they are confirmed, by kind and rule, and runs by outcome; the guard's rules name directories
    and don't count. What was planned only, or failed, is none of it."""
    with Ledger(path) as ledger:
        run = ledger.begin_run("clean", 100.0)
        rows = ledger.plan([removal("a"), removal("b"), removal("c", 5)], 101.0, run)
        ledger.plan([removal("later")], 101.0, run)
        ledger.confirm(run, ["b"], rows)
        ledger.record([removal("d")], 102.0, run)
        ledger.record([Action("directory_recreated", "state", "layout state", "")], 102.0)
        ledger.finish_run(run, JobReport("clean", Outcome.DONE, 100.0, 2.0, counts={"removed": 3}))
        ledger.finish_run(
            ledger.begin_run("clean", 200.0), JobReport("clean", Outcome.DONE, 200.0, 0.5, counts={"removed": 1})
        )
        ledger.count_lost(JobReport("clean", Outcome.FAILED, 300.0, 1.0))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("delete from actions")
        db.execute("delete from runs")
    with Ledger(path) as ledger:
        totals = ledger.totals()
    assert (ActionTotal("directory_recreated", "", 1, 0), ActionTotal("file_removed", "cache", 3, 25)) == totals.actions
    assert (
        RunTotal("clean", "done", 2, 2.5, 200.0, 0.5),
        RunTotal("clean", "failed", 1, 1.0, 300.0, 1.0),
    ) == totals.runs
    assert (CountTotal("clean", "removed", 4, 1),) == totals.counts


def test_a_ledger_without_totals_gets_those_of_its_runs(path: Path) -> None:
    """One of before there were any tells when each job last did well."""
    with Ledger(path) as ledger:
        for at in (100.0, 200.0):
            ledger.finish_run(ledger.begin_run("backup", at), JobReport("backup", Outcome.DONE, at, at / 100))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("drop table run_totals")
    with Ledger(path) as ledger:
        assert (RunTotal("backup", "done", 2, 3.0, 200.0, 2.0),) == ledger.totals().runs


def test_findings_are_counted_by_kind(path: Path) -> None:
    """Whatever their paths are."""
    with Ledger(path) as ledger:
        found = [Finding("unread", name, Severity.WARNING, "") for name in ("a", "b")]
        ledger.replace_findings("usage", [*found, Finding("repository_damaged", "", Severity.ERROR, "")], 1.0)
        assert {("unread", "warning"): 2, ("repository_damaged", "error"): 1} == ledger.count_findings()


ON_BTRFS = """
import os, sys
from pathlib import Path
from symbiont_datad.ledger import Ledger, LedgerError

with Ledger(Path(sys.argv[1])) as ledger:
    ledger.begin_run("sweep", 1.0)
    os.sync()
    print("written", flush=True)
    sys.stdin.readline()
    try:
        ledger.begin_run("sweep", 2.0)
    except LedgerError:
        pass
"""


@pytest.mark.slow
def test_a_full_disk_ends_nobody_on_btrfs(tmp_path: Path) -> None:
    """There what is mapped needs room to be changed, unless it is written over in place."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    with Disk("btrfs", tmp_path) as disk:
        command = [sys.executable, "-c", ON_BTRFS, str(disk.at / "datad/ledger.db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert b"written\n" == process.stdout.readline()
            disk.fill()
            process.communicate(b"\n")
        assert 0 == process.returncode


def test_many_marks_are_read_in_order(path: Path) -> None:
    """Marks that were left in any order come in that of their paths, however many there are; each once."""
    paths = [f"state/agents/{number:05}" for number in range(12_000)] + ["//sweep/quiet", "state/agents/\udcff"]
    marks = dict.fromkeys(paths, "seen")
    with Ledger(path) as ledger:
        ledger.update_marks(marks, ())
        assert sorted(marks.items(), key=lambda pair: os.fsencode(pair[0])) == list(ledger.each_mark())
        ledger.update_marks([(paths[7], "anew")], paths[8:])
        assert [*((each, "seen") for each in paths[:7]), (paths[7], "anew")] == list(ledger.each_mark())


def test_a_damaged_ledger_can_be_refused(path: Path) -> None:
    """By who must not begin a new one: it stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(path, replace_damaged=False)
    assert b"not a database" * 100 == path.read_bytes()


def test_a_ledger_that_lacks_a_table_says_so(path: Path) -> None:
    """Whether it is read or written."""
    with Ledger(path) as ledger:
        with closing(sqlite3.connect(path)) as db:
            db.execute("drop table space")
        with pytest.raises(LedgerError, match="no such table: space"):
            ledger.usage()
    assert (History(), ()) == history(path.parent, 10.0, Filter())


def test_no_reserve_where_there_is_no_disk(path: Path) -> None:
    """A ledger in memory has none; of a directory that has gone nothing can be told."""
    with Ledger(None) as ledger:
        ledger.keep_reserve()
        assert not ledger.actions()
    with Ledger(path) as ledger:
        path.parent.rename(path.parent.with_name("gone"))
        with pytest.raises(LedgerError, match="No such file"):
            ledger.keep_reserve()


def test_a_plan_of_nothing_confirms_nothing(path: Path) -> None:
    """What else is planned in the run stays so."""
    with Ledger(path) as ledger:
        run = ledger.begin_run("clean", 1.0)
        ledger.plan([removal("a")], 2.0, run)
        ledger.confirm(run, rows=range(0))
        assert ["planned"] == [row.state for row in ledger.actions()]
