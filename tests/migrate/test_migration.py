"""Migrations on a disk: what comes where, again, and back."""

import errno
import gzip
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.errors import Locked
from symbiont_datad.fsops import lease, lock
from symbiont_datad.fsops.copy import Copied, Encoding, copy
from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.migrate import apply, content, migration, planning, workers
from symbiont_datad.migrate.apply import NoRoom
from symbiont_datad.migrate.compat import keep_working
from symbiont_datad.migrate.content import Content, Question
from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.migration import (
    Refused,
    Result,
    alone,
    migrate_source,
    open_journal,
    refuse_overlap,
    source_path,
)
from symbiont_datad.migrate.plan import plan
from symbiont_datad.migrate.planning import Plan
from symbiont_datad.migrate.records import State
from symbiont_datad.migrate.target import Compat
from symbiont_datad.report import Severity
from tests.cli.test_restore import small_disk
from tests.conftest import AsNobody
from tests.migrate.making import HOUR, NOW, Home, Progress, agent, context, everything, lost, unloadable, write
from tests.support import NOBODY, build_tree, mapped

A, B = agent(1), agent(2)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user's home; nothing is in it yet."""
    return Home(tmp_path)


def fill(home: Home, *, zipped: bool) -> None:
    """A tree with contexts and an old place in the other mode: conflicts, damage, archives, odd names, backups."""
    tree, old = not zipped, zipped
    ending = {True: ".json.gz", False: ".json"}
    for number in range(20):
        write(home.old / f"{agent(number)}{ending[old]}", context(f"old {number}", zipped=old), NOW - HOUR * number)
    write(home.agents / f"{agent(1)}{ending[tree]}", context("tree", zipped=tree), NOW - HOUR * 0.5)
    write(home.agents / f"{agent(2)}{ending[tree]}", context("tree", zipped=tree), NOW - HOUR * 90, 0o600)
    write(home.agents / f"{agent(3)}{ending[tree]}", context("old 3", zipped=tree), NOW - HOUR * 90)
    write(home.agents / f"{agent(4)}{ending[tree]}", b"", NOW - HOUR)
    write(home.agents / f"{agent(99)}{ending[tree]}", context("only in the tree", zipped=tree))
    for n in range(6):
        write(home.old / f"{agent(5)}.backup.{NOW - n}.json", context(f"backup {n}", zipped=old), NOW - n - 100)
    write(home.old / f"{agent(6)}{ending[old]}", context("cut", zipped=old)[:60])
    write(home.old / f"{agent(7)}{ending[old]}", b"")
    write(home.old / "archives" / agent(8) / "archive_1700000000.json", gzip.compress(b"{}", mtime=0))
    write(home.old / "archives" / agent(8) / "archive_1700000001.tmp", b"{")
    write(home.old / "notes for Zoë.txt", b"remember")
    write(home.old / "odd\nname", b"odd")
    write(home.old / os.fsdecode(b"not utf-8 \xff"), b"bytes")
    write(home.old / "deep" / "er" / "x.bin", os.urandom(3_000_000))
    write(home.old / "empty", b"")


@pytest.mark.parametrize("zipped", [False, True])
def test_every_byte_comes_over_and_every_context_loads(home: Home, zipped: bool) -> None:
    """With conflicts, damage, archives and odd names, from either mode to the other; the old place stays as it was."""
    home.gzip = not zipped
    fill(home, zipped=zipped)
    old = everything(home.old)
    result = home.migrate()
    assert old == everything(home.old)
    assert [] == lost(home.old, home.root)
    assert [] == unloadable(home.agents, home.target.extension)
    assert sorted(
        ["legacy_truncated", "legacy_empty", "legacy_leftover", "legacy_conflict", "legacy_conflict"]
    ) == sorted(finding.kind for finding in result.findings)
    read = gzip.decompress if home.gzip else bytes
    assert context("tree") == read(home.live(1).read_bytes())
    assert context("old 2") == read(home.live(2).read_bytes())
    assert context("old 4") == read(home.live(4).read_bytes())
    assert b"remember" == (home.agents / "notes for Zoë.txt").read_bytes()
    kept = home.agents / f"{agent(2)}{'.json' if home.gzip else ''}.backup.{NOW - 90 * HOUR}.json"
    assert (0o600, NOW - 90 * HOUR) == (kept.stat().st_mode & 0o777, kept.stat().st_mtime)


def test_a_second_run_does_nothing(home: Home) -> None:
    """Nothing is read, nothing written; what was left is named again."""
    fill(home, zipped=False)
    (home.old / "link").symlink_to("/etc/passwd")
    home.migrate()
    before = everything(home.root)
    again = home.migrate()
    assert (0, 0, []) == (again.files, again.same, again.steps)
    assert (["legacy_link"], 1) == ([finding.kind for finding in again.findings], again.left_behind)
    assert before == everything(home.root)


def test_without_its_journal_a_second_run_sees_that_all_is_there(home: Home) -> None:
    """By content: nothing comes twice."""
    fill(home, zipped=False)
    home.migrate()
    before = {path: one for path, one in everything(home.root).items() if QUARANTINE not in path}
    home.target.journal_path.unlink()
    home.migrate()
    assert before == {path: one for path, one in everything(home.root).items() if QUARANTINE not in path}


@pytest.mark.parametrize("zipped", [False, True])
def test_undo_gives_back_the_first_state(home: Home, zipped: bool) -> None:
    """Files with their times, modes and content, and no directory or quarantine more than there was."""
    home.gzip = not zipped
    fill(home, zipped=zipped)
    first = everything(home.root, home.old)
    home.migrate()
    undone, actions = home.undo()
    assert first == everything(home.root, home.old)
    assert ([], []) == (undone.kept, undone.findings)
    assert {"migration_undone"} == {action.kind for action in actions}
    assert not home.target.journal_path.exists()


def test_two_files_of_one_time_are_two_files(home: Home) -> None:
    """What was overwritten comes back, though what took its place has the same time, mode, and even size."""
    write(home.agents / f"{A}.json.gz", bytes(len(context(zipped=True))), NOW - HOUR)
    write(home.old / f"{A}.json.gz", context(zipped=True), NOW - HOUR)
    first = everything(home.root, home.old)
    home.migrate()
    assert context(zipped=True) == home.live(1).read_bytes()
    assert 1 == home.undo()[0].restored
    assert first == everything(home.root, home.old)


def test_undo_removes_a_tree_that_was_not_there(home: Home) -> None:
    """The root itself as well."""
    write(home.old / f"{A}.json", context())
    home.migrate()
    assert home.live(1).exists()
    home.undo()
    assert not home.root.exists()


def test_what_was_written_since_is_kept_by_undo(home: Home) -> None:
    """It is listed. Where something else was before, that is back, and what was written is a backup beside it."""
    write(home.agents / f"{A}.json.gz", context("first", zipped=True), NOW - 90 * HOUR)
    write(home.old / f"{A}.json", context("old a"), NOW - HOUR)
    write(home.old / f"{B}.json", context("old b"), NOW - HOUR)
    home.migrate()
    write(home.live(1), context("since a", zipped=True), NOW)
    write(home.live(2), context("since b", zipped=True), NOW)
    undone, _ = home.undo()
    backup = f"state/agents/{A}.json.backup.{NOW}.json"
    assert sorted([backup, f"state/agents/{B}.json.gz"]) == sorted(undone.kept)
    assert context("first", zipped=True) == home.live(1).read_bytes()
    assert context("since a", zipped=True) == (home.root / backup).read_bytes()
    assert context("since b", zipped=True) == home.live(2).read_bytes()


def test_what_is_new_or_changed_comes_with_the_next_run(home: Home) -> None:
    """A file that has changed takes the place of its own copy, without a backup of that."""
    write(home.old / f"{A}.json", context("one"))
    home.migrate()
    write(home.old / f"{A}.json", context("two"), NOW - HOUR)
    write(home.old / f"{B}.json", context("new"))
    assert 2 == home.migrate().files
    assert context("two") == gzip.decompress(home.live(1).read_bytes())
    assert [f"{A}.json.gz", f"{B}.json.gz"] == sorted(path.name for path in home.agents.iterdir())
    home.undo()
    assert not home.agents.exists()


def test_modes_and_times_come_over(home: Home) -> None:
    """A file that only its owner may read is no more open in the tree."""
    write(home.old / f"{A}.json", context(), NOW - 12.345, 0o600)
    write(home.old / "x", b"x", NOW - 5, 0o4755)
    home.migrate()
    assert (0o600, NOW - 12.345) == (home.live(1).stat().st_mode & 0o7777, round(home.live(1).stat().st_mtime, 3))
    assert 0o755 == (home.agents / "x").stat().st_mode & 0o7777


@pytest.mark.slow
def test_many_files_go_through_processes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """In portions and by several processes, with the same result; sizes around the bounds of what is in memory, too."""
    monkeypatch.setattr(workers, "_FEW", 10)
    monkeypatch.setattr(workers, "_PIECE", 7)
    monkeypatch.setattr(migration, "_CHUNK", 40)
    for number in range(150):
        write(home.old / f"{agent(number)}.json", context(f"{number} " * (number * 7)))
    for size in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20):
        write(home.old / f"{size}.bin", os.urandom(size))
        write(home.old / f"{agent(1000 + size)}.json", context("x" * size))
    result = home.migrate()
    assert 162 == result.files
    assert [] == lost(home.old, home.root)
    assert [] == unloadable(home.agents, ".json.gz")
    home.undo()
    assert not home.root.exists()


def test_a_dataset_and_logs(home: Home) -> None:
    """Vectors go to the collections, logs to the system's."""
    vectors, logs = home.base / "project" / "data" / "vector_db", home.base / "project" / "logs"
    write(vectors / "symbiont_context.lance" / "data" / "a.lance", b"a" * 5000)
    write(vectors / "symbiont_context.lance" / "_versions" / "1.manifest", b"m")
    write(logs / "model_io.encrypted.log", b'{"a": 1}\n')
    write(logs / "app.log", b"mine\n")
    home.migrate(home.source(Kind.VECTORS, vectors))
    home.migrate(Source(str(logs.resolve()), Kind.LOGS, ("model_io.encrypted.log",)))
    collection = home.root / "vector_db" / "collections" / "symbiont_context.lance"
    assert b"a" * 5000 == (collection / "data" / "a.lance").read_bytes()
    assert ["model_io.encrypted.log"] == os.listdir(home.root / "logs" / "system")
    home.undo()
    assert not home.root.exists()


def test_an_older_dataset_of_the_tree_gets_another_name_and_undo_gives_it_back(home: Home) -> None:
    """Both are whole all the time."""
    place = home.root / "vector_db" / "collections" / "t.lance"
    old = home.base / "vectors"
    for base, text, at in ((place, b"tree", NOW - 90 * HOUR), (old / "t.lance", b"old", NOW - HOUR)):
        write(base / "data" / "x.lance", text, at)
        write(base / "_versions" / "1.manifest", text, at)
    first = everything(home.root, old)
    home.migrate(home.source(Kind.VECTORS, old))
    other = place.with_name(f"t-{NOW - 90 * HOUR}.lance")
    assert (b"old", b"tree") == ((place / "data" / "x.lance").read_bytes(), (other / "data" / "x.lance").read_bytes())
    home.undo()
    assert first == everything(home.root, old)


# Trouble


def test_a_log_that_grows_comes_as_it_was(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there was when it was looked at, and then the rest: nobody has to stop writing."""
    log, real = write(home.old / "a.log", b"one\n" * 100_000), copy
    seen: list[int] = []

    def copying(from_fd: int, to_fd: int, size: int, encoding: Encoding, *, cloning: bool) -> Copied:
        copied = real(from_fd, to_fd, size, encoding, cloning=cloning)
        if len(seen) < 2:
            with log.open("ab") as file:
                file.write(b"more\n")
            os.utime(log, (NOW + len(seen), NOW + len(seen)))
        seen.append(copied.size)
        return copied

    monkeypatch.setattr("symbiont_datad.migrate.workers.copy", copying)
    result = home.migrate(Source(str(home.old.resolve()), Kind.LOGS))
    assert ([400_000, 400_005, 400_010], []) == (seen, result.findings)
    assert log.read_bytes() == (home.root / "logs" / "system" / "a.log").read_bytes()


@pytest.mark.parametrize("reading", [False, True])
def test_a_file_that_never_holds_still_is_left_and_named(
    home: Home, monkeypatch: pytest.MonkeyPatch, reading: bool
) -> None:
    """While it is read, or just after. The others come, and it comes with the next run, when its writer is at rest."""
    monkeypatch.setattr(migration, "SETTLE_S", 0.01)
    busy = write(home.old / f"{A}.json", context("0"))
    write(home.old / f"{B}.json", context())
    count, look, fstat = 0, content.of_data, os.fstat

    def change() -> None:
        nonlocal count
        count += 1
        busy.write_bytes(context("0" * count))
        os.utime(busy, (NOW - count, NOW - count))

    def looking(data: bytes, question: Question) -> tuple[Content, bytes]:
        if b'"0' in data:
            change()
        return look(data, question)

    def telling(fd: int) -> os.stat_result:
        if os.path.samestat(fstat(fd), busy.stat()):
            change()
        return fstat(fd)

    if reading:
        monkeypatch.setattr(os, "fstat", telling)
    else:
        for module in ("workers", "content"):
            monkeypatch.setattr(f"symbiont_datad.migrate.{module}.of_data", looking)
    result = home.migrate()
    monkeypatch.undo()
    assert [("legacy_busy", str(busy))] == [(f.kind, f.path) for f in result.findings if f.kind == "legacy_busy"]
    home.migrate()
    assert busy.read_bytes() == gzip.decompress(home.live(1).read_bytes())
    assert home.live(2).exists()


def test_a_file_of_the_same_tick_is_looked_at_twice(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is as young as its copy may have been written again without lstat showing it: the newer content comes."""
    monkeypatch.setattr(migration, "SETTLE_S", 0.01)
    ahead = time.time() + HOUR  # a clock that is ahead, so that the file is young however slow this is
    young = write(home.old / f"{A}.json", context("1"), ahead)
    calm = write(home.old / f"{B}.json", context("2"), ahead)

    def stopping() -> bool:
        if home.live(1).exists() and young.read_bytes() == context("1"):
            write(young, context("3"), ahead)
        return False

    with alone(home.target), open_journal(home.target) as journal:
        result = migrate_source(home.source(), home.target, journal, Progress(), stopping=stopping)
    assert 0 == result.left_behind
    assert [context("3"), calm.read_bytes()] == [gzip.decompress(home.live(one).read_bytes()) for one in (1, 2)]
    assert 0 == home.migrate().files


def test_a_migration_waits_for_another_one(home: Home) -> None:
    """For a while, because a mirror holds the same lock for an instant; then it says who is at work."""
    home.root.mkdir(parents=True)
    with alone(home.target):
        with pytest.raises(Locked, match="another migration is under way"), alone(home.target, patience_s=0.0):
            pass
        with pytest.raises(Locked), alone(home.target, patience_s=0.06):
            pass


def test_undo_tells_what_it_can_not_give_back(home: Home) -> None:
    """A directory of the tree that went since, with what the migration had replaced in it."""
    write(home.agents / f"{A}.json.gz", context("tree", zipped=True), NOW - 90 * HOUR)
    write(home.old / f"{A}.json", context("old"), NOW - HOUR)
    write(home.old / "sub" / "x", b"x")
    home.migrate()
    shutil.rmtree(home.agents)
    undone, _ = home.undo()
    assert [("not_restored", f"state/agents/{A}.json.gz")] == [(one.kind, one.path) for one in undone.findings]


def test_undo_keeps_a_context_that_was_written_since_as_a_backup(home: Home) -> None:
    """The old one is back under its name; of two of one second each has a name of its own."""
    live = write(home.live(1), context("tree", zipped=True), NOW - 90 * HOUR)
    write(home.old / f"{A}.json", context("old"), NOW - HOUR)
    home.migrate()
    write(live, context("since", zipped=True), NOW)
    taken = write(home.agents / f"{A}.json.backup.{NOW}.json", b"taken", NOW)
    undone, _ = home.undo()
    assert context("tree", zipped=True) == live.read_bytes()
    assert [f"state/agents/{A}.json.backup.{NOW + 1}.json"] == undone.kept
    assert context("since", zipped=True) == (home.root / undone.kept[0]).read_bytes()
    assert b"taken" == taken.read_bytes()


def test_what_cant_be_read_is_named_and_left(home: Home, as_nobody: AsNobody, open_path: Path) -> None:
    """As another user: a file and a directory that are closed; once they are open, the next run brings them."""
    home = Home(open_path)
    write(home.old / f"{A}.json", context("open"))
    closed = write(home.old / f"{B}.json", context("closed"), mode=0o600)
    write(home.old / "archives" / B / "archive_1.json", b"{}")
    (home.old / "archives" / B).chmod(0o700)
    for path in [home.base, *home.base.rglob("*")]:
        os.chown(path, 0 if path in (closed, home.old / "archives" / B) else NOBODY, -1)
    result = as_nobody(home.migrate)
    assert {str(closed), str(home.old / "archives" / B)} == {finding.path for finding in result.findings}
    assert {Severity.WARNING} == {finding.severity for finding in result.findings}
    assert [f"{A}.json.gz"] == os.listdir(home.agents)
    for path in home.old.rglob("*"):
        os.chown(path, NOBODY, -1)
    assert 2 == as_nobody(home.migrate).files
    assert [] == lost(home.old, home.root)


def test_as_root_files_keep_their_owners(home: Home) -> None:
    """So that what belongs to an agent is still its own, and nothing of root's becomes anybody's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(write(home.old / f"{A}.json", context()), 1234, 1235)
    write(home.old / f"{B}.json", context(), mode=0o600)
    home.migrate()
    assert (1234, 1235) == (home.live(1).stat().st_uid, home.live(1).stat().st_gid)
    assert (0, 0o600) == (home.live(2).stat().st_uid, home.live(2).stat().st_mode & 0o777)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("data", "is the data directory itself"),
        ("data/state/agents", "lies in the data directory; move it out of there first"),
        (".", "holds the data directory; name the directory with the legacy data itself"),
        ("datad/x", "lies in the daemon's own directory"),
        ("backups", "is the snapshot repository itself"),
        ("other", "is a snapshot repository"),
    ],
)
def test_a_source_that_meets_the_tree_is_refused(home: Home, place: str, why: str) -> None:
    """The same, in it, around it; also through a link and a bind mount's other name."""
    base = home.root.parent
    build_tree(base, {"data": {"state": {"agents": {}}}, "datad": {"x": {}}, "backups": {},
                      "other": {"config": b"", "keys": {}, "snapshots": {}}})  # fmt: skip
    (home.base / "link").symlink_to(base / place)
    with pytest.raises(Refused, match=why):
        refuse_overlap(source_path(str(home.base / "link"), home.target), home.target)


def test_a_loop_of_links_is_refused(home: Home) -> None:
    """Clearly, and without going round in it; so is what is not there, or no directory."""
    (home.base / "a").symlink_to(home.base / "b")
    (home.base / "b").symlink_to(home.base / "a")
    with pytest.raises(Refused, match="is a loop of symbolic links"):
        source_path(str(home.base / "a"), home.target)
    with pytest.raises(Refused, match="can't be read: No such file"):
        source_path(str(home.base / "none"), home.target)
    with pytest.raises(Refused, match="is no directory"):
        source_path(str(write(home.base / "file", b"")), home.target)


def test_a_loop_of_links_inside_is_left(home: Home) -> None:
    """Links in an old place are named and not followed."""
    write(home.old / f"{A}.json", context())
    (home.old / "loop").symlink_to(".")
    (home.old / "archives").symlink_to("..")
    result = home.migrate()
    assert (1, {"loop", "archives"}) == (result.files, {Path(f.path).name for f in result.findings})


def test_something_in_the_way_costs_only_what_goes_there(home: Home) -> None:
    """A file where a directory belongs, a directory where a context belongs, a link: each is named."""
    write(home.old / f"{A}.json", context())
    write(home.old / f"{B}.json", context())
    write(home.old / "sub" / "x", b"x")
    write(home.old / "archives" / A / "archive_1.json", b"{}")
    write(home.agents / "sub", b"in the way")
    (home.agents / f"{A}.json.gz").mkdir(parents=True)
    (home.agents / "archives").symlink_to("/tmp")
    result = home.migrate()
    assert 1 == result.files
    assert home.live(2).exists()
    warned = {f.path.removeprefix(f"{home.old}/") for f in result.findings if f.severity is Severity.WARNING}
    assert {f"{A}.json", "sub/x", f"archives/{A}/archive_1.json"} == warned
    (home.agents / f"{A}.json.gz").rmdir()
    (home.agents / "sub").unlink()
    (home.agents / "archives").unlink()
    assert 3 == home.migrate().files


def test_too_little_room_is_told_before_anything_is_copied(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is needed, and how much there is."""
    write(home.old / f"{A}.json", context())
    real = os.fstatvfs

    class Little:
        def __init__(self, fd: int) -> None:
            self._real = real(fd)

        def __getattr__(self, name: str) -> object:
            return 1 if name in ("f_bavail",) else getattr(self._real, name)

    monkeypatch.setattr(os, "fstatvfs", Little)
    with pytest.raises(NoRoom, match=r"[48] KiB are needed there, and 4 KiB are free; nothing was copied"):
        home.migrate()
    monkeypatch.undo()
    assert not home.agents.exists()
    assert 1 == home.migrate().files


def test_too_few_inodes_are_told_before_anything_is_copied(home: Home) -> None:
    """A disk may be full of files with room left for bytes."""
    for number in range(30):
        write(home.old / f"{agent(number)}.json", b"{}")
    home.root.parent.mkdir()
    with small_disk(home.root, "4m,nr_inodes=20") as disk:
        with pytest.raises(NoRoom, match=r"30 files would come there, and there are only \d+ free inodes"):
            home.migrate()
        assert [] == [path for path in disk.rglob("*") if path.is_file()]


def test_another_file_system_in_an_old_place_is_left_and_named(home: Home) -> None:
    """What is mounted there may be anything; who wants it says so."""
    write(home.old / f"{A}.json", context())
    with small_disk(home.old / "mounted", "1m") as disk:
        (disk / "x").write_bytes(b"x")
        result = home.migrate()
    assert (1, [("legacy_mount", str(home.old / "mounted"))]) == (
        result.files,
        [(one.kind, one.path) for one in result.findings],
    )


def test_who_is_not_root_brings_and_takes_back(open_path: Path, as_nobody: AsNobody) -> None:
    """With the strictest umask: modes are those of the old files; undo gives back what was there, and the link goes."""
    home = Home(open_path)
    write(home.old / f"{A}.json", context("newer"), NOW - HOUR, 0o664)
    closed = write(home.old / "a closed one", b"x", mode=0o600)
    write(home.live(1), context("older", zipped=True), NOW - 90 * HOUR, 0o660)
    for path in [home.base, *home.base.rglob("*")]:
        os.chown(path, 0 if path == closed else NOBODY, -1)
    first = everything(home.root, home.old)

    def bring() -> Result:
        os.umask(0o077)
        result = home.migrate()
        with alone(home.target), open_journal(home.target) as journal:
            (row,) = journal.sources()
            keep_working(row, home.target, journal, Compat.SYMLINK, both_ways=False, left=False)
        return result

    assert [str(closed)] == [one.path for one in as_nobody(bring).findings if one.kind == "legacy_unread"]
    assert (0o664, NOBODY) == (home.live(1).stat().st_mode & 0o777, home.old.lstat().st_uid)
    as_nobody(home.undo)
    assert first == everything(home.root, home.old)


def test_a_migration_that_is_interrupted_goes_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two portions: what has come over stays, it counts as begun, and the next run brings the rest."""
    monkeypatch.setattr(migration, "_CHUNK", 1)
    for number in range(1, 9):
        write(home.old / f"{agent(number)}.json", context())
    with alone(home.target), open_journal(home.target) as journal:
        result = migrate_source(home.source(), home.target, journal, Progress(), stopping=home.agents.exists)
        (row,) = journal.sources()
    assert (True, State.BEGUN) == (result.interrupted, row.state)
    assert [] == unloadable(home.agents, ".json.gz")
    came = len(os.listdir(home.agents))
    assert 0 < came < 8
    assert 8 - came == home.migrate().files


def test_what_is_half_written_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer ends in a moment: the whole file comes."""
    monkeypatch.setattr(planning, "SETTLE_S", HOUR)  # it is young however slow this is
    monkeypatch.setattr(migration, "SETTLE_S", 0.01)
    half = home.old / f"{A}.json"
    home.old.mkdir(parents=True)
    half.write_bytes(context()[:100])
    monkeypatch.setattr(time, "sleep", lambda _: write(half, context()))
    assert [] == home.migrate().findings
    assert context() == gzip.decompress(home.live(1).read_bytes())


@pytest.mark.skipif(lease._SET_LEASE is None, reason="this system has no leases")
@pytest.mark.parametrize("size", [0, 2_000_000], ids=["small", "large"])
def test_what_is_being_cut_is_not_damaged(home: Home, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """While open(2) cuts a file it may be short already with its old time: it is busy, and comes with the next run."""
    monkeypatch.setattr(migration, "SETTLE_S", 0.01)
    busy = write(home.old / f"{A}.json", b" " * size, NOW - HOUR)
    write(home.old / f"{B}.json", context())
    with mapped(busy):
        result = home.migrate()
    assert [("legacy_busy", str(busy))] == [(finding.kind, finding.path) for finding in result.findings]
    assert home.live(2).exists()
    write(busy, context("saved just now"))
    assert [] == home.migrate().findings
    assert busy.read_bytes() == gzip.decompress(home.live(1).read_bytes())


def test_what_came_meanwhile_is_met(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that the runtime wrote after it was seen that there is none: the newer one wins, the other is kept."""
    monkeypatch.setattr(migration, "SETTLE_S", 0.01)
    write(home.old / f"{A}.json", context("old"), NOW - HOUR)

    def planned(*words: Any, **named: Any) -> Plan:
        found = plan(*words, **named)
        if not home.live(1).exists():
            write(home.live(1), context("by the runtime", zipped=True), NOW)
        return found

    monkeypatch.setattr(migration, "plan", planned)
    result = home.migrate()
    assert ["legacy_conflict"] == [one.kind for one in result.findings]
    assert context("by the runtime") == gzip.decompress(home.live(1).read_bytes())
    assert [] == lost(home.old, home.root)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EIO])
def test_what_was_live_is_kept_where_there_are_no_hard_links(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As a copy with its mode and time. Where it can't be kept the old context stays where it is, and that is told."""

    def refused(*_: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    write(home.old / f"{A}.json", context("newer"), NOW - HOUR)
    write(home.live(1), context("older", zipped=True), NOW - 90 * HOUR, 0o640)
    first = everything(home.root)
    monkeypatch.setattr(os, "link", refused)
    result = home.migrate()
    kept = [(path.read_bytes(), path.stat().st_mode & 0o777, path.stat().st_mtime) for path in backups(home)]
    if number == errno.EIO:
        assert ([], os.strerror(number)) == (kept, result.findings[-1].detail)
        assert context("older") == gzip.decompress(home.live(1).read_bytes())
    else:
        assert [(context("older", zipped=True), 0o640, NOW - 90 * HOUR)] == kept
    home.undo()
    assert first == everything(home.root)


def backups(home: Home) -> list[Path]:
    """The backups that are live."""
    return sorted(home.agents.glob("*.backup.*"))


def test_portions_are_put_in_their_place_one_after_the_other(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by size: whatever the bounds are, all comes."""
    monkeypatch.setattr(apply, "_BATCH", 2)
    monkeypatch.setattr(apply, "_BATCH_BYTES", 20_000)
    for number in range(1, 8):
        write(home.old / f"{agent(number)}.json", context("x" * 3000 * (number % 3)))
    assert 7 == home.migrate().files
    assert [] == lost(home.old, home.root)


def test_a_lock_that_comes_free_is_taken(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror holds it for an instant."""
    home.root.mkdir(parents=True)
    with ExitStack() as mirror:
        mirror.enter_context(alone(home.target))
        monkeypatch.setattr(lock, "_TRIES", 1)
        monkeypatch.setattr(time, "sleep", lambda _: mirror.close())
        with alone(home.target):
            monkeypatch.undo()


# Back again


def test_a_log_that_was_written_since_stays_beside_what_was_there(home: Home) -> None:
    """Under a name with its time, and of two of one second each has its own."""
    tree, old = home.root / "logs" / "system" / "a.log", home.base / "project" / "logs" / "a.log"
    write(tree, b"older\n", NOW - 90 * HOUR)
    write(old, b"newer\n", NOW - HOUR)
    home.migrate(home.source(Kind.LOGS, old.parent))
    assert b"newer\n" == tree.read_bytes()
    write(tree, b"since\n", NOW)
    write(tree.with_name(f"a.log.since-{NOW}"), b"taken")
    undone, _ = home.undo()
    assert (b"older\n", [f"logs/system/a.log.since-{NOW + 1}"]) == (tree.read_bytes(), undone.kept)
    assert b"since\n" == (home.root / undone.kept[0]).read_bytes()


def test_a_dataset_that_was_written_to_since_is_not_replaced_by_undo(home: Home) -> None:
    """The one that had its name before stays under the other, and that is told."""
    place, old = home.root / "vector_db" / "collections" / "t.lance", home.base / "vectors"
    for base, text, at in ((place, b"tree", NOW - 90 * HOUR), (old / "t.lance", b"old", NOW - HOUR)):
        write(base / "data" / "x.lance", text, at)
        write(base / "_versions" / "1.manifest", text, at)
    home.migrate(home.source(Kind.VECTORS, old))
    write(place / "data" / "y.lance", b"since")
    undone, _ = home.undo()
    other = place.with_name(f"t-{NOW - 90 * HOUR}.lance")
    assert [("not_restored", "vector_db/collections/t.lance")] == [(one.kind, one.path) for one in undone.findings]
    assert (b"since", b"tree") == ((place / "data" / "y.lance").read_bytes(), (other / "data" / "x.lance").read_bytes())
