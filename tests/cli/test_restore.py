"""`restore`, as a user types it."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.fsops.lock import hold as hold_file
from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.restic.lock import Identity, hold
from tests.cli.conftest import Datad, Shelf
from tests.process.running import running, until
from tests.support import NOBODY, Link, Tree, build_tree, read_tree, run_as

NOON = 1_795_176_000.0  # 2026-11-20 12:00 UTC

DATA: Tree = {
    "state": {"agents": {"a.json": b"{}", "b.json": b'{"b": 1}'}, "sessions": {}},
    "logs": {"audit": {"security.log": b"one\n" * 5000}, "latest": Link("audit")},
    "prompts": {"templates": {"t\xe9": b"template"}, "cache": {}},
}


@pytest.fixture
def backup(root: Path, shelf: Shelf) -> str:
    """A snapshot of a small data directory."""
    build_tree(root, DATA)
    (root / "state" / "agents" / "a.json").chmod(0o600)
    os.utime(root / "state" / "agents" / "a.json", (NOON, NOON))
    shelf.make()
    return shelf.add(root, at=NOON)


@contextlib.contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A file system of that size, mounted there for the time of the block."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    at.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], timeout=10).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True, timeout=10)


def damage(path: Path) -> None:
    """Flip a bit in every so many bytes of a file, or of all files in a directory."""
    for file in [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]:
        content = bytearray(file.read_bytes())
        content[::64] = bytes(byte ^ 1 for byte in content[::64])
        file.chmod(0o600)
        file.write_bytes(content)


def packs(shelf: Shelf) -> set[Path]:
    """The repository's packs."""
    return {file for file in (shelf.path / "data").rglob("*") if file.is_file()}


def test_a_snapshot_is_restored_into_a_new_directory(datad: Datad, root: Path, tmp_path: Path, backup: str) -> None:
    """All that is in it, as it was, with modes and times; the data directory's own mode, too."""
    root.chmod(0o750)
    before = read_tree(root)
    done = datad("restore", backup[:8], "--target", "new/there")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith(
        f"restored 4 files, 19.5 KiB, from {backup[:8]} (here, 2026-11-20 12:00Z) to {tmp_path}"
    )
    assert DATA == read_tree(tmp_path / "new" / "there") == before
    file = (tmp_path / "new" / "there" / "state" / "agents" / "a.json").stat()
    assert (0o600, NOON) == (file.st_mode & 0o7777, file.st_mtime)
    assert 0o755 == (tmp_path / "new" / "there").stat().st_mode & 0o7777


@pytest.mark.parametrize("absolute", [False, True])
def test_only_some_paths_are_restored(datad: Datad, root: Path, tmp_path: Path, backup: str, absolute: bool) -> None:
    """Files and directories, relative to the data directory or absolute, at the same place in the target."""
    paths = ["state/agents/b.json", "logs"]
    done = datad("restore", "latest", *(root / path if absolute else path for path in paths), "--target", "out")
    assert 0 == done.returncode
    expected: Tree = {"state": {"agents": {"b.json": b'{"b": 1}'}}, "logs": DATA["logs"]}
    assert expected == read_tree(tmp_path / "out")


def test_latest_is_the_newest_that_has_the_paths(datad: Datad, root: Path, shelf: Shelf, backup: str) -> None:
    """Autosaves are made more often than backups, and have less in them."""
    newer = shelf.add(root / "state", at=NOON + 300, tags=("autosave",))

    def restored(*words: str) -> str:
        document = datad("restore", "latest", *words, "--target", "out", "--dry-run", "--json").document
        return str(document["snapshot"]["id"])

    assert newer == restored("state/agents/a.json")
    assert backup == restored("logs")
    assert backup == restored("--tag", "backup")
    assert newer == restored()
    noted = datad("restore", "latest", "--target", "out", "--dry-run")
    assert f"symbiont-datad: snapshot {newer[:8]} has only state; --tag backup is for all there is\n" == noted.stderr


def test_a_data_directory_that_lies_elsewhere_now(
    datad: Datad, root: Path, tmp_path: Path, shelf: Shelf, backup: str
) -> None:
    """On another machine, for another user: paths are still relative to the data directory."""
    config = tmp_path / "datad.toml"
    config.write_text(f'[backup]\nrepository = "{shelf.path}"\n')
    place = ("--config", config, "--root", tmp_path / "other" / "data")
    done = datad(*place, "restore", "latest", "state/agents", "--target", "out")
    assert 0 == done.returncode
    assert {"state": {"agents": DATA["state"]["agents"]}} == read_tree(tmp_path / "out")  # type: ignore[index,call-overload]


def test_a_dry_run_lists_and_writes_nothing(datad: Datad, tmp_path: Path, backup: str) -> None:
    """Every entry with its size, and what it comes to."""
    done = datad("restore", backup, "state", "--target", "out", "--dry-run")
    assert 0 == done.returncode
    assert [
        "            state/",
        "            state/agents/",
        "       2 B  state/agents/a.json",
        "       8 B  state/agents/b.json",
        "            state/sessions/",
        f"would restore 5 entries, 10 B, from {backup[:8]} (here, 2026-11-20 12:00Z)",
    ] == done.stdout.splitlines()
    assert not (tmp_path / "out").exists()
    document = datad("restore", backup, "state", "--target", "out", "--dry-run", "--json").document
    assert {"path": "state/agents/b.json", "type": "file", "bytes": 8} == document["entries"][3]


def test_restore_as_json(datad: Datad, tmp_path: Path, backup: str) -> None:
    """One document: from which snapshot, where to, how much."""
    document = datad("restore", "latest", "--target", "out", "--json").document
    assert backup == document["snapshot"]["id"]
    assert (str(tmp_path / "out"), False, False) == (document["target"], document["in_place"], document["dry_run"])
    assert (4, 1, 20018, []) == (document["files"], document["links"], document["bytes"], document["failed"])


def test_what_is_in_the_target_is_never_overwritten(datad: Datad, tmp_path: Path, backup: str) -> None:
    """Exit code 3; what is in the way is named, and the rest is restored."""
    build_tree(tmp_path / "out", {"state": {"agents": {"a.json": b"mine"}}})
    done = datad("restore", "latest", "state", "--target", "out")
    assert 3 == done.returncode
    assert "symbiont-datad: not restored: state/agents/a.json: something is there already\n" == done.stderr
    agents = {"a.json": b"mine", "b.json": b'{"b": 1}'}
    assert {"state": {"agents": agents, "sessions": {}}} == read_tree(tmp_path / "out")


@pytest.mark.parametrize(
    "words", [["restore", "latest"], ["restore", "latest", "--target", "out", "--in-place"], ["restore"]]
)
def test_where_to_is_asked_for(datad: Datad, tmp_path: Path, backup: str, words: list[str]) -> None:
    """Exit code 2: exactly one of --target and --in-place."""
    assert 2 == datad(*words).returncode
    assert not (tmp_path / "out").exists()


def test_the_target_is_not_in_the_tree_or_the_repository(datad: Datad, root: Path, shelf: Shelf, backup: str) -> None:
    """Exit code 1, also through a link; nothing is made."""
    (root.parent / "link").symlink_to(root)
    for target in (root / "out", root.parent / "link" / "out", shelf.path / "out", root):
        done = datad("restore", "latest", "--target", target)
        assert (1, "") == (done.returncode, done.stdout)
        assert "must not be in" in done.stderr
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ffff"], "no snapshot's id begins with ffff"),
        (["latest", "nope"], "nope: is not in snapshot"),
        (["latest", "state", "logs/nope"], "logs/nope: is not in snapshot"),
        (["latest", "/etc"], "/etc: is not in the data directory"),
        (["latest", "--host", "nobody"], "there is no snapshot like that"),
    ],
)
def test_what_is_not_there_cant_be_restored(
    datad: Datad, tmp_path: Path, backup: str, words: list[str], why: str
) -> None:
    """Exit code 1, one line, nothing made."""
    done = datad("restore", *words, "--target", "out")
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert why in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_empty_repository(datad: Datad, shelf: Shelf) -> None:
    """There is nothing to restore: exit code 1."""
    shelf.make()
    done = datad("restore", "latest", "--target", "out")
    assert (1, f"symbiont-datad: {shelf.path}: there is no snapshot\n") == (done.returncode, done.stderr)


def test_damaged_data_costs_only_what_lies_in_it(
    datad: Datad, root: Path, shelf: Shelf, tmp_path: Path, backup: str
) -> None:
    """Exit code 3: the file is named, with the pack and what to do; everything else is restored."""
    before = packs(shelf)
    (root / "logs" / "audit" / "new.log").write_bytes(os.urandom(100_000))
    shelf.add(root)
    damage(max(packs(shelf) - before, key=lambda pack: pack.stat().st_size))
    done = datad("restore", "latest", "--target", "out")
    assert 3 == done.returncode
    assert done.stderr.startswith("symbiont-datad: not restored: logs/audit/new.log: ")
    assert 1 == done.stderr.count("\n")
    (root / "logs" / "audit" / "new.log").unlink()
    assert read_tree(root) == read_tree(tmp_path / "out")


def test_a_damaged_snapshot_does_not_hide_the_others(
    datad: Datad, root: Path, shelf: Shelf, tmp_path: Path, backup: str
) -> None:
    """`latest` is the newest that can be read."""
    damage(shelf.path / "snapshots" / shelf.add(root, at=NOON + 60))
    assert 0 == datad("restore", "latest", "--target", "out").returncode
    assert read_tree(root) == read_tree(tmp_path / "out")


def test_a_full_disk(datad: Datad, root: Path, shelf: Shelf, tmp_path: Path, backup: str) -> None:
    """Exit code 1 and one line that names the target; no half file is left there."""
    (root / "logs" / "big.log").write_bytes(os.urandom(3 << 20))
    shelf.add(root)
    with small_disk(tmp_path / "disk", "1m") as disk:
        done = datad("restore", "latest", "--target", disk / "out")
        assert (1, "") == (done.returncode, done.stdout)
        line = f"symbiont-datad: {disk}/out: No space left on device; not everything was restored\n"
        assert line == done.stderr
        assert not list((disk / "out").rglob("*big.log*"))


def test_a_place_that_cant_be_written(datad: Datad, open_path: Path, shelf: Shelf, backup: str) -> None:
    """Another user, who may read the repository and nothing more: `--no-lock` reads it; the target is refused."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    shutil.copytree(shelf.path, open_path / "backups")
    for place in [open_path / "backups", *(open_path / "backups").rglob("*")]:
        place.chmod(0o755 if place.is_dir() else 0o644)
    config = open_path / "datad.toml"
    config.write_text(f'[backup]\nrepository = "{open_path}/backups"\n')
    (open_path / "mine").mkdir()
    os.chown(open_path / "mine", NOBODY, NOBODY)
    os.chdir(open_path)
    given = ("--config", config, "--root", open_path / "data", "restore", "latest", "--target")
    locked = run_as(NOBODY, lambda: datad(*given, open_path / "mine" / "out"))
    assert (1, "", 1) == (locked.returncode, locked.stdout, locked.stderr.count("\n"))
    assert "--no-lock" in locked.stderr
    refused = run_as(NOBODY, lambda: datad(*given, open_path / "out", "--no-lock"))
    assert (1, "", 1) == (refused.returncode, refused.stdout, refused.stderr.count("\n"))
    assert f"{open_path}/out: Permission denied" in refused.stderr
    assert 0 == run_as(NOBODY, lambda: datad(*given, open_path / "mine" / "out", "--no-lock")).returncode
    assert DATA == read_tree(open_path / "mine" / "out")


def test_while_somebody_else_has_the_repository_to_himself(
    datad: Datad, shelf: Shelf, tmp_path: Path, backup: str
) -> None:
    """Exit code 11 and who it is; --no-lock restores all the same."""
    with hold(shelf.open(), Identity("elsewhere", "ada", 4711, 1000, 1000), exclusive=True, settle_s=0.0):
        done = datad("restore", "latest", "--target", "out")
        assert (11, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert "locked exclusively by ada@elsewhere (process 4711)" in done.stderr
        assert not (tmp_path / "out").exists()
        assert 0 == datad("restore", "latest", "--target", "out", "--no-lock").returncode


def test_restore_leaves_no_lock(datad: Datad, shelf: Shelf, backup: str) -> None:
    """It holds one while it runs."""
    assert 0 == datad("restore", "latest", "--target", "out").returncode
    assert {} == read_tree(shelf.path / "locks")


@pytest.mark.parametrize(
    ("password", "code", "why"), [("wrong", 12, "the password is wrong"), (None, 10, "no repository")]
)
def test_without_a_way_in(
    datad: Datad,
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    password: str | None,
    code: int,
    why: str,
) -> None:
    """Exit code 12 for a wrong password, 10 where there is no repository; nothing is made."""
    if password is not None:
        shelf.make()
        monkeypatch.setenv("SYMBIONT_DATAD_BACKUP__PASSWORD", password)
    before = read_tree(tmp_path)
    done = datad("restore", "latest", "--target", "out")
    assert (code, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert why in done.stderr
    assert before == read_tree(tmp_path)


# In place


def in_quarantine(root: Path) -> dict[str, object]:
    """What lies in quarantine: the content of each item, by what its record says of it."""
    found: dict[str, object] = {}
    for record in root.glob(".quarantine/*/record.json"):
        item = record.parent / "item"
        found[json.loads(record.read_text())["reason"]] = read_tree(item) if item.is_dir() else item.read_bytes()
    return found


def live(root: Path) -> Tree:
    """The data directory without its quarantine."""
    return {name: node for name, node in read_tree(root).items() if name != ".quarantine"}


def test_a_file_is_put_back_in_place(datad: Datad, root: Path, backup: str) -> None:
    """It is as it was; what was there lies in quarantine with a record; everything else is untouched."""
    (root / "state" / "agents" / "a.json").write_bytes(b"broken")
    (root / "state" / "agents" / "new.json").write_bytes(b"new")
    done = datad("restore", "latest", "state/agents/a.json", "--in-place")
    assert (0, "") == (done.returncode, done.stderr)
    first, second, third = done.stdout.splitlines()
    assert first.startswith("state/agents/a.json: restored; what was there is .quarantine/")
    assert second.startswith(f"restored 1 files, 2 B, from {backup[:8]} (here, 2026-11-20 12:00Z) in place in ")
    assert "The runtime serves contexts from memory until its next start" in third
    assert b"{}" == (root / "state" / "agents" / "a.json").read_bytes()
    assert 0o600 == (root / "state" / "agents" / "a.json").stat().st_mode & 0o7777
    assert b"new" == (root / "state" / "agents" / "new.json").read_bytes()
    assert {f"state/agents/a.json was restored from snapshot {backup[:8]}": b"broken"} == in_quarantine(root)
    (event,) = datad("events", "--kind", "restored", "--json").document["events"]
    assert ("restore", "state/agents/a.json") == (event["job"], event["path"])


def test_the_whole_directory_is_put_back_in_place(datad: Datad, root: Path, backup: str) -> None:
    """By the directories of the layout; nothing of what was live is gone; empty ones (caches) stay as they are."""
    shutil.rmtree(root / "logs")
    (root / "state" / "agents" / "b.json").unlink()
    (root / "state" / "agents" / "a.json").write_bytes(b"broken")
    (root / "prompts" / "cache" / "c.json").write_bytes(b"cached")
    (root / "prompts" / "templates" / "mine").write_bytes(b"later")
    document = datad("restore", backup, "--in-place", "--json").document
    assert ["logs", "prompts/templates", "state/agents"] == [one["path"] for one in document["swapped"]]
    expected: Tree = {**DATA, "prompts": {**DATA["prompts"], "cache": {"c.json": b"cached"}}}  # type: ignore[dict-item]
    assert expected == live(root)
    assert {
        f"prompts/templates was restored from snapshot {backup[:8]}": {"t\xe9": b"template", "mine": b"later"},
        f"state/agents was restored from snapshot {backup[:8]}": {"a.json": b"broken"},
    } == in_quarantine(root)
    assert None is document["swapped"][0]["quarantined"]


def test_an_autosave_puts_back_only_what_it_has(datad: Datad, root: Path, shelf: Shelf, backup: str) -> None:
    """Templates are swapped, and the history beside them is not."""
    shelf.add(root / "state", root / "prompts" / "templates", at=NOON + 300, tags=("autosave",))
    (root / "prompts" / "history").mkdir()
    (root / "prompts" / "history" / "h").write_bytes(b"history")
    (root / "prompts" / "templates" / "t\xe9").write_bytes(b"other")
    document = datad("restore", "latest", "--tag", "autosave", "--in-place", "--json").document
    assert ["prompts/templates", "state/agents"] == [one["path"] for one in document["swapped"]]
    assert b"history" == (root / "prompts" / "history" / "h").read_bytes()
    assert b"template" == (root / "prompts" / "templates" / "t\xe9").read_bytes()


def test_a_dry_run_in_place_changes_nothing(datad: Datad, root: Path, backup: str) -> None:
    """It says what would be swapped."""
    (root / "state" / "agents" / "a.json").write_bytes(b"broken")
    before = read_tree(root)
    done = datad("restore", "latest", "state/agents", "--in-place", "--dry-run")
    assert (0, "would swap state/agents") == (done.returncode, done.stdout.splitlines()[-1])
    assert before == read_tree(root)


def test_damaged_data_changes_nothing_in_place(datad: Datad, root: Path, shelf: Shelf, backup: str) -> None:
    """Exit code 1, the file is named, the live ones are as they were, and nothing is left behind."""
    file = root / "logs" / "audit" / "new.log"
    file.write_bytes(os.urandom(100_000))
    before = packs(shelf)
    shelf.add(root)
    damage(max(packs(shelf) - before, key=lambda pack: pack.stat().st_size))
    file.write_bytes(b"newer")
    live_before = read_tree(root)
    done = datad("restore", "latest", "--in-place")
    assert (1, "") == (done.returncode, done.stdout)
    first, last = done.stderr.splitlines()
    assert first.startswith("symbiont-datad: logs/audit/new.log: can't be restored: ")
    assert "symbiont-datad: nothing was changed; --target restores what is whole" == last
    assert {**live_before, QUARANTINE: {}} == read_tree(root)


def test_a_full_disk_changes_nothing_in_place(
    datad: Datad, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1; what was live is still there, and what was staged is gone."""
    with small_disk(tmp_path / "disk", "3m") as disk:
        root = disk / "data"
        build_tree(root, {"logs": {"audit": {"a.log": os.urandom(2 << 20)}}})
        shelf.make()
        shelf.add(root)
        before = read_tree(root)
        monkeypatch.setenv("SYMBIONT_DATAD_BACKUP__REPOSITORY", str(shelf.path))
        monkeypatch.setenv("SYMBIONT_DATAD_DAEMON_DIR", str(tmp_path / "datad"))
        done = datad("--root", root, "restore", "latest", "--in-place")
        line = f"symbiont-datad: {root}: No space left on device; nothing was changed\n"
        assert (1, "", line) == (done.returncode, done.stdout, done.stderr)
        assert {**before, QUARANTINE: {}} == read_tree(root)


def test_what_can_not_be_swapped_is_told_with_what_was(datad: Datad, root: Path, backup: str) -> None:
    """A mount in a directory's place can't be renamed: what came before it is restored, it is as it was."""
    (root / "logs" / "audit" / "later.log").write_bytes(b"later")
    mount = root / "prompts" / "templates"
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", mount, mount], timeout=10).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        done = datad("restore", "latest", "logs", "prompts/templates", "--in-place")
    finally:
        subprocess.run(["umount", mount], check=True, timeout=10)
    assert (1, "") == (done.returncode, done.stdout)
    first, second = done.stderr.splitlines()
    assert first.startswith("symbiont-datad: logs: is restored; what was there is .quarantine/")
    assert (
        "symbiont-datad: prompts/templates: can't be put in place: Device or resource busy; "
        "it is as it was, and so are those after it"
    ) == second
    assert DATA == live(root)
    assert ["later.log" in str(item) for item in in_quarantine(root).values()] == [True]


def test_a_directory_that_is_gone_is_made_again(datad: Datad, root: Path, backup: str) -> None:
    """Only what was asked for is in it."""
    shutil.rmtree(root / "state")
    assert 0 == datad("restore", "latest", "state/agents/b.json", "--in-place").returncode
    assert {"agents": {"b.json": b'{"b": 1}'}} == live(root)["state"]


def test_without_a_data_directory_nothing_is_put_in_place(datad: Datad, root: Path, backup: str) -> None:
    """Exit code 1, and what makes it."""
    shutil.rmtree(root)
    done = datad("restore", "latest", "--in-place")
    assert (1, f"symbiont-datad: {root}: is not there; `symbiont-datad init` makes it\n") == (
        done.returncode,
        done.stderr,
    )
    assert not root.exists()


def test_a_link_in_the_tree_is_not_followed(datad: Datad, root: Path, tmp_path: Path, backup: str) -> None:
    """Where an agent has put a link in place of a directory, nothing is written to where that leads."""
    outside = build_tree(tmp_path / "outside", {"agents": {"a.json": b"not ours"}})
    shutil.rmtree(root / "state")
    (root / "state").symlink_to(outside)
    done = datad("restore", "latest", "state/agents/a.json", "--in-place")
    assert (1, "") == (done.returncode, done.stdout)
    assert {"agents": {"a.json": b"not ours"}} == read_tree(outside)


def test_two_restores_in_place_dont_meet(datad: Datad, root: Path, backup: str) -> None:
    """Exit code 11 while another one is at work."""
    lock = root.parent / "datad" / "locks" / "restore.lock"
    with hold_file(lock, "another restore is running"):
        done = datad("restore", "latest", "--in-place")
        assert (11, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert "another restore is running" in done.stderr
    assert DATA == live(root)


@pytest.mark.slow
def test_a_restore_in_place_while_the_daemon_runs(datad: Datad, root: Path, shelf: Shelf) -> None:
    """The guard has nothing to undo: the tree is as declared, and nothing of ours is moved, removed or reported."""
    # The daemon has a repository of its own: its first snapshots would race with the one that is restored here.
    with running(root.parent, f'[backup]\nrepository = "{root.parent / "other"}"\n') as daemon:
        build_tree(root / "state" / "agents", {"a.json": b"{}"})
        shelf.make()
        shelf.add(root)
        (root / "state" / "agents" / "a.json").write_bytes(b"broken")
        for _ in range(5):
            assert 0 == datad("restore", "latest", "--in-place").returncode
            assert b"{}" == (root / "state" / "agents" / "a.json").read_bytes()
        shutil.rmtree(root / "state" / "agents")
        until((root / "state" / "agents").is_dir)
        assert 0 == datad("restore", "latest", "state/agents", "--in-place").returncode
        until(daemon.is_right)
        assert ["state/agents"] == daemon.recorded("directory_recreated")
        assert [] == daemon.recorded("permissions_restored") == daemon.recorded("obstruction_quarantined")
    assert {"a.json": b"{}"} == read_tree(root / "state" / "agents")
