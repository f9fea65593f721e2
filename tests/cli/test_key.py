"""`key new` and `key show-recipient`, as a user types them."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from symbiont_datad import settings_sources
from symbiont_datad.cli import main
from symbiont_datad.formats.age import new_identity, read_identity, recipient_of
from tests.support import NOBODY, build_tree, read_tree


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's home directory."""
    return tmp_path / "user"


@pytest.fixture
def datad(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Types `symbiont-datad …` in `tmp_path`, with a home of its own; sees nothing of the machine's own settings."""
    for name in [name for name in os.environ if name.startswith("SYMBIONT_DATAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(settings_sources, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.setattr(settings_sources, "RUN_SECRETS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["symbiont-datad", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, told.out, told.err)

    return run


def test_a_new_key_is_made_where_the_settings_say(datad: Command, home: Path) -> None:
    """Mode 0600, in a directory of mode 0700. Its place, its recipient and what to set are told, never the secret."""
    done = datad("key", "new")
    file = home / ".symbiont" / "datad.key"
    assert (0, "") == (done.returncode, done.stderr)
    identity = read_identity(file.read_bytes())
    assert [
        f"wrote {file}",
        f"recipient: {recipient_of(identity)}",
        "Keep a copy of this file elsewhere: without it nothing can be opened again.",
        "To use it, set in ~/.symbiont/datad.toml:",
        "  enable_encryption = true  # above the first [table]",
    ] == done.stdout.splitlines()
    assert "AGE-SECRET-KEY" not in done.stdout
    assert (0o600, 0o700) == (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode))
    assert ["datad.key"] == os.listdir(file.parent)


def test_a_key_is_never_replaced(datad: Command, home: Path) -> None:
    """The second time: exit code 1, one line, and the first key is as it was."""
    datad("key", "new")
    before = read_tree(home)
    done = datad("key", "new")
    assert (1, "") == (done.returncode, done.stdout)
    (line,) = done.stderr.splitlines()
    assert f"{home}/.symbiont/datad.key: is there already, and a key is never replaced" in line
    assert before == read_tree(home)


def test_what_is_told_to_be_set_is_good_settings(datad: Command, tmp_path: Path) -> None:
    """The lines for datad.toml, taken as they stand, lead to the key that was made elsewhere."""
    done = datad("key", "new", "--output", "my keys/a.key")
    file = tmp_path / "my keys" / "a.key"
    lines = done.stdout.splitlines()
    assert f"wrote {file}" == lines[0]
    toml = "\n".join(line.strip() for line in lines if line.startswith("  "))
    assert {"enable_encryption": True, "encryption": {"key_file": str(file)}} == tomllib.loads(toml)
    (tmp_path / "datad.toml").write_text(toml)
    shown = datad("--config", tmp_path / "datad.toml", "key", "show-recipient")
    assert lines[1] == f"recipient: {shown.stdout.strip()}"


def test_nothing_is_to_be_set_when_all_is(datad: Command, home: Path) -> None:
    """With encryption on and the key in its place there is no advice about settings."""
    build_tree(home, {".symbiont": {"datad.toml": b"enable_encryption = true\n"}})
    assert 3 == len(datad("key", "new").stdout.splitlines())


def test_a_key_of_a_credential_is_told_to_win(datad: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has set `encryption.key` as well learns that the file is not used."""
    monkeypatch.setenv("SYMBIONT_DATAD_ENCRYPTION__KEY", new_identity())
    done = datad("key", "new")
    told = "encryption.key is set as well (from environment SYMBIONT_DATAD_ENCRYPTION__KEY), and is used instead"
    assert told in done.stdout


def test_new_as_json(datad: Command, tmp_path: Path) -> None:
    """One document: where, for whom, and what to set."""
    document = json.loads(datad("key", "new", "--output", "a.key", "--json").stdout)
    file = tmp_path / "a.key"
    assert {
        "schema": 1,
        "path": str(file),
        "recipient": recipient_of(read_identity(file.read_bytes())),
        "settings": {"enable_encryption": True, "encryption.key_file": str(file)},
    } == document


def test_a_place_that_cant_be_written_is_one_line(datad: Command, tmp_path: Path) -> None:
    """The file is named, and there is no traceback."""
    (tmp_path / "file").write_bytes(b"")
    done = datad("key", "new", "--output", "file/a.key")
    assert (1, f"symbiont-datad: {tmp_path}/file/a.key: can't be written: Not a directory\n") == (
        done.returncode,
        done.stderr,
    )


def test_root_makes_a_users_key_the_users(datad: Command, open_path: Path) -> None:
    """What root makes in a user's directory belongs to that user, who can use it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    (open_path / "home").mkdir()
    os.chown(open_path / "home", NOBODY, NOBODY)
    datad("key", "new", "--output", open_path / "home" / "keys" / "datad.key")
    assert NOBODY == (open_path / "home" / "keys" / "datad.key").stat().st_uid
    assert 0 == datad("key", "show-recipient", open_path / "home" / "keys" / "datad.key").returncode


def test_show_recipient_prints_it_alone(datad: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script takes stdout as it is; of the settings' key, with encryption on or off, or of a file."""
    datad("key", "new")
    done = datad("key", "show-recipient")
    assert (0, "", 1) == (done.returncode, done.stderr, done.stdout.count("\n"))
    assert done.stdout.startswith("age1")
    datad("key", "new", "--output", "other.key")
    other = recipient_of(read_identity((tmp_path / "other.key").read_bytes()))
    assert f"{other}\n" == datad("key", "show-recipient", "other.key").stdout
    assert {"schema": 1, "recipient": other} == json.loads(datad("key", "show-recipient", "other.key", "--json").stdout)
    monkeypatch.setenv("SYMBIONT_DATAD_ENCRYPTION__KEY", (tmp_path / "other.key").read_text().strip())
    assert f"{other}\n" == datad("key", "show-recipient").stdout


def test_show_recipient_of_no_key(datad: Command, tmp_path: Path, home: Path) -> None:
    """Exit code 2 and one line that says what to do; nothing on stdout."""
    done = datad("key", "show-recipient")
    assert (2, "") == (done.returncode, done.stdout)
    name = f'encryption.key_file = "{home}/.symbiont/datad.key"'
    assert f"symbiont-datad: {name}: there is no such file; make one with `symbiont-datad key new`" in done.stderr
    (tmp_path / "some.key").write_text("hunter2\n")
    (tmp_path / "some.key").chmod(0o600)
    done = datad("key", "show-recipient", "some.key")
    problem = "must be one age identity (AGE-SECRET-KEY-1…), and is something else"
    assert (2, "", f"symbiont-datad: some.key: {problem}\n") == (done.returncode, done.stdout, done.stderr)


def test_the_remedy_for_an_open_key_file_works(datad: Command, tmp_path: Path) -> None:
    """The command in the message, typed as it stands, closes the file."""
    datad("key", "new", "--output", "it's mine.key")
    (tmp_path / "it's mine.key").chmod(0o644)
    done = datad("key", "show-recipient", "it's mine.key")
    assert 2 == done.returncode
    subprocess.run(shlex.split(done.stderr.strip().rpartition("; ")[2]), check=True, timeout=10)
    assert 0 == datad("key", "show-recipient", "it's mine.key").returncode


def test_stock_age_opens_with_the_file_what_it_sealed_to_the_recipient(datad: Command, tmp_path: Path) -> None:
    """The whole round by hand: `key new`, `age -r $(key show-recipient)`, `age -d -i KEY`."""
    age = shutil.which("age")
    if age is None:
        pytest.skip("age is not installed")
    datad("key", "new", "--output", "a.key")
    recipient = datad("key", "show-recipient", "a.key").stdout.strip()
    sealed = subprocess.run([age, "-r", recipient], input=b"by hand", capture_output=True, timeout=20).stdout
    opened = subprocess.run([age, "-d", "-i", tmp_path / "a.key"], input=sealed, capture_output=True, timeout=20)
    assert (0, b"by hand") == (opened.returncode, opened.stdout)


def test_only_what_is_missing_is_advised(datad: Command, home: Path, tmp_path: Path) -> None:
    """Where encryption is on already, only the file is to be named."""
    (tmp_path / "datad.toml").write_text("enable_encryption = true\n")
    done = datad("--config", tmp_path / "datad.toml", "key", "new", "--output", tmp_path / "other.key")
    assert (0, False, True) == (done.returncode, "enable_encryption" in done.stdout, "key_file = " in done.stdout)
