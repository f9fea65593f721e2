"""`repository init`, `unlock`, `key list`, `key add` and `key remove`, as a user types them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from symbiont_datad.jobs.repository import identity
from symbiont_datad.restic.lock import Identity, hold
from symbiont_datad.restic.records import Lock
from tests.cli.conftest import Datad, Shelf
from tests.support import read_tree

DEAD = Lock("2026-11-23T00:00:00Z", True, "elsewhere", "somebody", 4711)


def password_file(path: Path, password: str) -> Path:
    """A file with a password that only its owner can read."""
    path.write_text(f"{password}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def made(datad: Datad, shelf: Shelf) -> Shelf:
    """The repository, there already."""
    shelf.make()
    return shelf


def test_init_makes_a_repository_once(datad: Datad, shelf: Shelf) -> None:
    """The second time is refused and changes nothing; a dry run says what would happen, and makes nothing."""
    planned = datad("repository", "init", "--dry-run")
    assert (0, f"would make a repository in {shelf.path}\n") == (planned.returncode, planned.stdout)
    assert not shelf.path.exists()
    done = datad("repository", "init")
    assert (0, f"made {shelf.path}\n", "") == (done.returncode, done.stdout, done.stderr)
    before = read_tree(shelf.path)
    for words in (["repository", "init"], ["repository", "init", "--dry-run"]):
        again = datad(*words)
        assert (1, "") == (again.returncode, again.stdout)
        assert f"symbiont-datad: {shelf.path}: there is a repository already\n" == again.stderr
    assert before == read_tree(shelf.path)


def test_init_as_json(datad: Datad, shelf: Shelf) -> None:
    """Where it is, and its id."""
    document = datad("repository", "init", "--json").document
    expected = {"schema": 1, "repository": str(shelf.path), "dry_run": False, "id": shelf.open().config.id}
    assert expected == document


def test_restic_opens_what_init_made(datad: Datad, shelf: Shelf, tmp_path: Path) -> None:
    """With the key file as its password file, stock restic reads the repository."""
    restic = shutil.which("restic")
    if restic is None:
        pytest.skip("restic is not installed")
    datad("key", "new")
    (tmp_path / "datad.toml").write_text("enable_encryption = true\n")
    assert 0 == datad("--config", tmp_path / "datad.toml", "repository", "init").returncode
    key = tmp_path / "user" / ".symbiont" / "datad.key"
    command = [restic, "-r", str(shelf.path), "--no-cache", "--no-lock", "--password-file", str(key), "snapshots"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)


def test_unlock_removes_what_is_stale(datad: Datad, made: Shelf) -> None:
    """A lock that is old goes; one whose holder may be alive stays, unless all are to go."""
    repository = made.open()
    assert "there is no lock\n" == datad("repository", "unlock").stdout
    repository.write_lock(DEAD)
    with hold(repository, identity(), exclusive=False, settle_s=0.0):
        repository.write_lock(DEAD)
        planned = datad("repository", "unlock", "--dry-run", "--json").document
        assert {"schema": 1, "dry_run": True, "removed": 1, "left": 1} == planned
        done = datad("repository", "unlock")
        assert (0, ["removed 1 of 2 locks"]) == (done.returncode, done.stdout.splitlines()[:1])
        assert "--all removes them too" in done.stdout
        assert 1 == len(list(repository.lock_files()))
        assert 1 == datad("repository", "unlock", "--all", "--json").document["removed"]
        assert [] == list(repository.lock_files())
        repository.write_lock(DEAD)
        assert "removed 1 of 1 locks\n" == datad("repository", "unlock", "--all").stdout


def test_keys_are_added_listed_and_removed(datad: Datad, made: Shelf, tmp_path: Path) -> None:
    """The new password opens the repository until its key is removed; the one in use is never removed."""
    file = password_file(tmp_path / "second", "a second one")
    added = datad("repository", "key", "add", "--new-password-file", file)
    assert (0, "") == (added.returncode, added.stderr)
    name = added.stdout.split()[-1]
    keys = datad("repository", "key", "list", "--json").document["keys"]
    assert [True, False] == [key["current"] for key in keys]
    assert name == keys[1]["id"][:8]
    assert Shelf(made.path, "a second one").open().key_name == keys[1]["id"]
    listed = datad("repository", "key", "list").stdout.splitlines()
    assert ["id", "user", "host", "created"] == listed[0].split()
    assert [True, False] == [line.startswith("*") for line in listed[1:]]

    before = read_tree(made.path)
    refused = datad("repository", "key", "remove", keys[0]["id"][:8])
    assert (1, "") == (refused.returncode, refused.stdout)
    assert "is the one that the settings open the repository with, and is not removed" in refused.stderr
    assert f"would remove key {name}\n" == datad("repository", "key", "remove", name, "--dry-run").stdout
    assert before == read_tree(made.path)
    assert f"removed key {name}\n" == datad("repository", "key", "remove", name).stdout
    assert [keys[0]["id"]] == [key["id"] for key in datad("repository", "key", "list", "--json").document["keys"]]


def test_keys_as_json(datad: Datad, made: Shelf, tmp_path: Path) -> None:
    """The whole id; a dry run has none, and adds none."""
    file = password_file(tmp_path / "second", "a second one")
    words = ("repository", "key", "add", "--new-password-file", file)
    assert "would add a key\n" == datad(*words, "--dry-run").stdout
    assert {"schema": 1, "dry_run": True, "id": None} == datad(*words, "--dry-run", "--json").document
    assert 1 == len(datad("repository", "key", "list", "--json").document["keys"])
    name = datad(*words, "--json").document["id"]
    assert Shelf(made.path, "a second one").open().key_name == name
    removed = datad("repository", "key", "remove", name[:12], "--json").document
    assert {"schema": 1, "dry_run": False, "id": name} == removed


@pytest.mark.parametrize("wanted", ["", "zz"])
def test_a_key_that_is_not_there_is_not_removed(datad: Datad, made: Shelf, wanted: str) -> None:
    """Exit code 1, one line; also for an empty id, which every key begins with."""
    before = read_tree(made.path)
    done = datad("repository", "key", "remove", wanted)
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert before == read_tree(made.path)


def test_a_key_needs_a_password_from_somewhere(datad: Datad, made: Shelf) -> None:
    """Without a terminal to ask on: exit code 2, and what to give."""
    done = datad("repository", "key", "add")
    assert (2, "") == (done.returncode, done.stdout)
    assert "--new-password-file FILE" in done.stderr


def test_a_password_file_that_others_can_read_is_refused(datad: Datad, made: Shelf, tmp_path: Path) -> None:
    """As with every file that holds a secret."""
    file = password_file(tmp_path / "second", "known to all")
    file.chmod(0o644)
    done = datad("repository", "key", "add", "--new-password-file", file)
    assert (2, "") == (done.returncode, done.stdout)
    assert f"--new-password-file {file}: must be closed to other users" in done.stderr


def test_encryption_is_turned_on_for_a_repository_that_is_there(datad: Datad, made: Shelf, tmp_path: Path) -> None:
    """`key new`, the setting, `repository key add`; then the old way in is removed, and only the key opens it."""
    datad("key", "new")
    config = tmp_path / "datad.toml"
    config.write_text("enable_encryption = true\n")
    refused = datad("--config", config, "repository", "key", "list")
    assert 12 == refused.returncode
    assert "repository key add" in refused.stderr
    assert 0 == datad("--config", config, "repository", "key", "add").returncode
    keys = datad("--config", config, "repository", "key", "list", "--json").document["keys"]
    assert [False, True] == [key["current"] for key in keys]
    assert 0 == datad("--config", config, "repository", "key", "remove", keys[0]["id"]).returncode
    assert 12 == datad("snapshots").returncode
    assert 0 == datad("--config", config, "snapshots").returncode


def test_a_password_that_was_replaced_in_the_settings_still_opens_for_key_add(datad: Datad, tmp_path: Path) -> None:
    """`--password-file` names the old one; the settings' new one is added."""
    old, new = password_file(tmp_path / "old", "old"), password_file(tmp_path / "new", "new")
    config = tmp_path / "datad.toml"
    config.write_text(f'[backup]\npassword_file = "{old}"\n')
    datad("--config", config, "repository", "init")
    config.write_text(f'[backup]\npassword_file = "{new}"\n')
    refused = datad("--config", config, "repository", "key", "add")
    assert (12, "") == (refused.returncode, refused.stdout)
    assert "--password-file" in refused.stderr
    assert 0 == datad("--config", config, "repository", "key", "add", "--password-file", old).returncode
    assert 0 == datad("--config", config, "snapshots").returncode


def test_keys_are_not_changed_while_the_repository_is_locked(datad: Datad, made: Shelf, tmp_path: Path) -> None:
    """Exit code 11 and who holds it; nothing is changed."""
    file = password_file(tmp_path / "second", "a second one")
    other = Identity("elsewhere", "ada", 4711, 1000, 1000)
    with hold(made.open(), other, exclusive=True, settle_s=0.0):
        before = read_tree(made.path)
        done = datad("repository", "key", "add", "--new-password-file", file)
        assert (11, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert "locked exclusively by ada@elsewhere (process 4711)" in done.stderr
        assert before == read_tree(made.path)
