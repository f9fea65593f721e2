"""A backup holds the tree, says what it lacks, forgets by the rules, and costs nothing when it can't be made."""

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings, Keep, Progress
from symbiont_datad.jobs.rehearsal import rehearsal
from symbiont_datad.jobs.repository import locked, opened
from symbiont_datad.quantities import Share
from symbiont_datad.report import Outcome
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.errors import Missing
from tests.conftest import AsNobody
from tests.jobs.making import context, ledger_of, run, settings_for, snapshots_in, stop_after, write
from tests.jobs.snapshotting import content_of, held_by, snapshots


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree with something in each category."""
    settings = settings_for(tmp_path)
    root = Path(settings.layout.root)
    write(root / "state/agents/a.json.gz", context())
    write(root / "logs/system/symbiont.log", b"a line\n" * 1000)
    write(root / "prompts/cache/0a.json", b"{}")
    write(root / "vector_db/collections/c/data", bytes(range(256)) * 100)
    write(root / ".quarantine/20261123T000000Z/item", b"broken")
    return settings


def with_snapshots(settings: JobSettings, **other: object) -> JobSettings:
    """The same with other settings of snapshots."""
    return replace(settings, snapshots=replace(settings.snapshots, **other))  # type: ignore[arg-type]


def test_the_tree_is_in_it(settings: JobSettings) -> None:
    """Every file with its content, but no cache and nothing of the quarantine."""
    ran = run("backup", settings, now=time.time())
    assert (Outcome.DONE, 3) == (ran.report.outcome, ran.report.counts["files"])
    (one,) = snapshots(settings, "backup")
    found = held_by(settings, one)
    assert {"state/agents/a.json.gz", "logs/system/symbiont.log", "vector_db/collections/c/data"} == set(found)
    assert context() == content_of(settings, found["state/agents/a.json.gz"])
    assert ([settings.layout.root], 3) == (one[1].paths, one[1].summary and one[1].summary.total_files_processed)
    assert one[1].program_version.startswith("symbiont-datad ")


def test_caches_are_in_it_when_asked_for(settings: JobSettings) -> None:
    """`backup.include_caches` takes them in."""
    settings = with_snapshots(settings, include_caches=True)
    run("backup", settings, now=time.time())
    assert "prompts/cache/0a.json" in held_by(settings, snapshots(settings)[0])


def test_it_is_told_and_written_down(settings: JobSettings) -> None:
    """The event and the ledger's row name the snapshot, and the log says that a repository was made."""
    ran = run("backup", settings, now=time.time())
    ((name, _),) = snapshots(settings)
    assert ["repository_created", "snapshot_created"] == ran.told
    event = ran.events[1]
    assert (name[:8], ["backup"], 3) == (event["id"], event["tags"], event["files"])
    with ledger_of(settings) as ledger:
        assert [("snapshot_created", name[:8])] == [(row.kind, row.path) for row in ledger.actions(job="backup")]


def test_the_latest_are_kept(settings: JobSettings) -> None:
    """With `backup_count` 2 the third backup forgets the first, tells why, and the second stays."""
    settings = with_snapshots(settings, backups=Keep(last=2))
    for _ in range(2):
        run("backup", settings, now=time.time())
    first, second = snapshots(settings)
    ran = run("backup", settings, now=time.time())
    assert [second[0]] == [name for name, _ in snapshots(settings)][:-1]
    assert (["snapshot_created", "snapshot_forgotten"], 1) == (ran.told, ran.report.counts["forgotten"])
    with ledger_of(settings) as ledger:
        (row,) = ledger.actions(kinds=["snapshot_forgotten"])
    assert (first[0][:8], "backup_count", "done") == (row.path, row.rule, row.state)


def test_the_ledger_knows_which_there_are(settings: JobSettings) -> None:
    """Without the repository's password: those that are there, with their sizes; what was forgotten is none of them.
    `verify` finds out what another program has removed."""
    settings = with_snapshots(settings, backups=Keep(last=2))
    for _ in range(3):
        run("backup", settings, now=time.time())
    there = snapshots(settings)
    with ledger_of(settings) as ledger:
        noted = ledger.snapshots()
    assert [(name, "backup", 3) for name, _ in there] == [(one.id, one.tag, one.files) for one in noted]
    assert [one.at.timestamp() for _, one in there] == [one.at for one in noted]
    opened(settings.repository).backend.remove(FileKind.SNAPSHOT, there[0][0])
    run("verify", settings, now=time.time())
    with ledger_of(settings) as ledger:
        assert [there[1][0]] == [one.id for one in ledger.snapshots()]


def test_other_peoples_snapshots_stay(settings: JobSettings) -> None:
    """What another host made, and what has none of our tags, is not ours to forget."""
    settings = with_snapshots(settings, backups=Keep(last=1))
    run("backup", settings, now=time.time())
    repository = opened(settings.repository)
    ((_, ours),) = repository.snapshots()
    others = {
        repository.save_snapshot(type(ours)(ours.time, ours.tree, ours.paths, hostname=host, tags=tags))
        for host, tags in (("another-host", ["backup"]), (ours.hostname, []), (ours.hostname, ["mine"]))
    }
    run("backup", settings, now=time.time())
    assert others <= {name for name, _ in snapshots(settings)}
    assert 4 == len(snapshots(settings))


def test_what_can_not_be_read_is_said(open_path: Path, as_nobody: AsNobody) -> None:
    """The snapshot is tagged, the finding names the file, and the last complete snapshot outlives the rules."""
    settings = with_snapshots(settings_for(open_path), backups=Keep(last=1))
    for name in ("datad", "backups"):
        (open_path / name).mkdir()
        (open_path / name).chmod(0o777)
    path = write(open_path / "data/state/agents/a.json.gz", context())
    as_nobody(lambda: run("backup", settings, now=time.time()))
    path.chmod(0)
    ran = as_nobody(lambda: run("backup", settings, now=time.time()))
    assert [("not_in_snapshot", "state/agents/a.json.gz")] == [(one.kind, one.path) for one in ran.report.findings]
    assert (Outcome.LEFT, 1) == (ran.report.outcome, ran.report.counts["unread"])
    as_nobody(lambda: run("backup", settings, now=time.time()))
    assert [["backup"], ["backup", "incomplete"]] == [one.tags for _, one in snapshots(settings)]


def test_too_little_space_is_refused(settings: JobSettings, tmp_path: Path) -> None:
    """With less free than `min_free`, nothing is written, and the message names the setting."""
    settings = with_snapshots(settings, min_free=Share(amount=1 << 60))
    ran = run("backup", settings, now=time.time())
    assert (Outcome.FAILED, ["backup_refused"]) == (ran.report.outcome, ran.told)
    assert "backup.min_free = 1EiB" in ran.report.message
    assert not (tmp_path / "backups").exists()


def test_a_dry_run_writes_nothing(settings: JobSettings, tmp_path: Path) -> None:
    """The plan has the same shape, sizes and reasons; no repository is made, and none is changed."""
    settings = with_snapshots(settings, backups=Keep(last=1))
    dry = run("backup", settings, now=time.time(), dry_run=True)
    assert not (tmp_path / "backups").exists()
    real = run("backup", settings, now=time.time())
    assert [(one.kind, one.reason) for one in dry.report.actions] == [
        (one.kind, one.reason) for one in real.report.actions
    ]
    before = sorted(tmp_path.glob("backups/*/*"))
    again = run("backup", settings, now=time.time(), dry_run=True)
    assert ["snapshot_created", "snapshot_forgotten"] == [one.kind for one in again.report.actions]
    assert (before, []) == (sorted(tmp_path.glob("backups/*/*")), again.told)


def test_it_stops_between_two_files(settings: JobSettings) -> None:
    """Asked to stop, it makes no snapshot and leaves nothing broken; the next one is whole."""
    for number in range(50):
        write(Path(settings.layout.root, f"logs/agents/{number}.log"), os.urandom(100))
    stopped = run("backup", settings, now=time.time(), stopping=stop_after(5))
    assert (Outcome.INTERRUPTED, []) == (stopped.report.outcome, snapshots(settings))
    assert 53 == run("backup", settings, now=time.time()).report.counts["files"]
    assert [] == list(Path(settings.repository.location, "locks").iterdir())


def test_a_repository_that_is_away_costs_nothing(settings: JobSettings, tmp_path: Path) -> None:
    """The run fails with a message; when the repository is back, the next one does the work."""
    run("backup", settings, now=time.time())
    (tmp_path / "backups").rename(tmp_path / "away")
    away = run("backup", settings, now=time.time())
    assert (Outcome.FAILED, 10, False) == (away.report.outcome, away.report.exit_code, (tmp_path / "backups").exists())
    (tmp_path / "away").rename(tmp_path / "backups")
    assert Outcome.DONE is run("backup", settings, now=time.time()).report.outcome
    assert 2 == len(snapshots(settings))


def test_a_live_database_is_whole(settings: JobSettings) -> None:
    """Rows that lie in the log beside an open database are in its copy, and that log is not in the snapshot."""
    path = Path(settings.layout.root, "vector_db/metadata.sqlite")
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("create table t (n integer)")
        database.executemany("insert into t values (?)", [(number,) for number in range(1000)])
        database.commit()
        assert Path(f"{path}-wal").stat().st_size
        run("backup", settings, now=time.time())
    (one,) = snapshots(settings)
    found = {name: node for name, node in held_by(settings, one).items() if "metadata" in name}
    assert ["vector_db/metadata.sqlite"] == list(found)
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(content_of(settings, found["vector_db/metadata.sqlite"]))
    with closing(sqlite3.connect(copy)) as database:
        assert [(1000,)] == database.execute("select count(*) from t").fetchall()


def test_its_progress_is_seen(settings: JobSettings) -> None:
    """Another thread can see how far it is, against what there was the last time."""
    run("backup", settings, now=time.time())
    progress = Progress()
    seen: list[Progress] = []

    def look() -> bool:
        seen.append(replace(progress))
        return False

    ran = run("backup", settings, now=time.time(), progress=progress, stopping=look)
    assert {("backup", 3, ran.report.counts["bytes"])} == {
        (one.phase, one.total_files, one.total_bytes) for one in seen if one.phase == "backup"
    }
    assert (3, ran.report.counts["bytes"]) == max((one.files, one.bytes) for one in [*seen, progress])


def test_pruning_frees_what_nobody_needs(settings: JobSettings, tmp_path: Path) -> None:
    """When the snapshot that held a large file is forgotten, `prune` says what it would free, and frees it."""
    settings = with_snapshots(settings, backups=Keep(last=1))
    large = write(Path(settings.layout.root, "logs/system/large"), os.urandom(3 << 20))
    run("backup", settings, now=time.time())
    large.unlink()
    run("backup", settings, now=time.time())
    planned = run("prune", settings, now=time.time(), dry_run=True)
    done = run("prune", settings, now=time.time())
    size = sum(file.stat().st_size for file in (tmp_path / "backups").rglob("*") if file.is_file())
    assert (Outcome.DONE, ["repository_pruned"]) == (done.report.outcome, done.told)
    assert 3 << 20 <= planned.report.counts["freed"]
    assert 3 << 20 <= done.report.counts["freed"]
    assert 1 << 20 > size
    (one,) = snapshots(settings)
    assert context() == content_of(settings, held_by(settings, one)["state/agents/a.json.gz"])


def test_a_repository_with_a_password_of_its_own(settings: JobSettings, tmp_path: Path) -> None:
    """`backup.password` seals it; without it nothing opens, and the run says so with exit code 12."""
    secret = replace(settings, snapshots=snapshots_in(tmp_path / "backups", password="of its own"))
    assert Outcome.DONE is run("backup", secret, now=time.time()).report.outcome
    ran = run("backup", settings, now=time.time())
    assert (Outcome.FAILED, 12) == (ran.report.outcome, ran.report.exit_code)
    assert 1 == len(snapshots(secret))


def test_what_hinders_a_prune_hinders_no_backup(settings: JobSettings, tmp_path: Path) -> None:
    """Somebody else at work there puts it off; a pack that is gone is told of. The snapshot is made all the same."""
    now = time.time()
    run("backup", settings, now=now)
    with locked(opened(settings.repository)):
        ran = run("backup", settings, now=now + 2 * 3600)
    assert (Outcome.DONE, ["snapshot_created", "prune_skipped"]) == (ran.report.outcome, ran.told)
    for pack in (tmp_path / "backups/data").glob("*/*"):
        pack.unlink()
    ran = run("backup", settings, now=now + 4 * 3600)
    assert "snapshot_created" in ran.told
    assert ["not_pruned"] == [one.kind for one in ran.report.findings]
    assert "`symbiont-datad verify` tells what is broken" == ran.report.findings[0].remedy


def test_a_root_beside_the_tree_that_is_away_is_told(settings: JobSettings, tmp_path: Path) -> None:
    """It is in no snapshot, and the rest is."""
    away = str(tmp_path / "away")
    settings = replace(settings, vectors=replace(settings.vectors, extra_roots=(away,)))
    ran = run("backup", settings, now=time.time())
    assert (Outcome.LEFT, [("not_in_snapshot", away, "No such file or directory")], 3) == (
        ran.report.outcome,
        [(one.kind, one.path, one.detail) for one in ran.report.findings],
        ran.report.counts["files"],
    )


def test_a_rehearsal_of_the_first_backup_writes_nothing() -> None:
    """Its repository is nowhere: nothing is in it, whatever was saved to it."""
    backend = rehearsal(None, None).backend
    backend.create()
    backend.save(FileKind.SNAPSHOT, "name", [b"content"])
    backend.remove(FileKind.SNAPSHOT, "name")
    assert ("nowhere", [], None) == (backend.location, list(backend.list(FileKind.SNAPSHOT)), backend.free())
    with pytest.raises(Missing, match="name isn't there"):
        backend.load(FileKind.SNAPSHOT, "name")
