"""The repository's password: where it comes from, that restic reads the same one, and that it is never shown."""

import codecs
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from symbiont_datad.errors import ExitCode, SettingsError
from symbiont_datad.formats.age import new_identity
from symbiont_datad.fsops.secret import write_new_secret
from symbiont_datad.jobs.secrets import Secrets, age_identity, check_secrets, repository_password, secrets_of
from symbiont_datad.settings import Settings
from symbiont_datad.settings_sections import Backup, Encryption
from tests.conftest import AsNobody

KEY = new_identity()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A good key file."""
    write_new_secret(tmp_path / "datad.key", f"{KEY}\n".encode())
    return tmp_path / "datad.key"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """A file with a password of its own."""
    write_new_secret(tmp_path / "password", b"from the file\n")
    return tmp_path / "password"


def test_without_encryption_there_is_no_password(tmp_path: Path) -> None:
    """The empty password, and no key is looked for."""
    secrets = Secrets(False, tmp_path / "nowhere")
    assert "" == repository_password(secrets)
    check_secrets(secrets)


def test_the_key_is_the_password(key_file: Path) -> None:
    """With encryption on: the line without its newline."""
    secrets = Secrets(True, key_file)
    assert KEY == repository_password(secrets) == age_identity(secrets)
    check_secrets(secrets)


def test_the_first_source_wins(key_file: Path, password_file: Path) -> None:
    """`backup.password`, then its file, then `encryption.key`, then its file."""
    other = new_identity()
    assert "given" == repository_password(Secrets(True, key_file, other, password_file, "given"))
    assert "from the file" == repository_password(Secrets(True, key_file, other, password_file))
    assert other == repository_password(Secrets(True, key_file, other))
    assert KEY == repository_password(Secrets(True, key_file))
    assert "from the file" == repository_password(Secrets(False, key_file, other, password_file))
    assert "" == repository_password(Secrets(False, key_file, other))


def test_settings_lead_to_their_secrets(key_file: Path, password_file: Path) -> None:
    """Each setting arrives in its place."""
    settings = Settings(
        enable_encryption=True,
        encryption=Encryption(key_file=key_file, key=SecretStr(KEY)),
        backup=Backup(password_file=password_file, password=SecretStr("given")),
    )
    assert Secrets(True, key_file, KEY, password_file, "given") == secrets_of(settings)
    assert Secrets(False, Settings().encryption.key_file) == secrets_of(Settings())


@pytest.mark.parametrize("own_password", [None, "given"])
def test_a_missing_key_is_an_error_at_the_start(tmp_path: Path, own_password: str | None) -> None:
    """Also when the repository has its own password: other files are sealed with the key. The remedy is named."""
    secrets = Secrets(True, tmp_path / "datad.key", password=own_password)
    with pytest.raises(SettingsError) as caught:
        check_secrets(secrets)
    assert (
        f'encryption.key_file = "{tmp_path}/datad.key": there is no such file; make one with `symbiont-datad key new`, '
        "or put your copy of it there"
    ) == str(caught.value)
    assert ExitCode.USAGE == caught.value.exit_code


def test_bad_secrets_are_refused_by_the_name_of_their_setting(tmp_path: Path, key_file: Path) -> None:
    """Every refusal is one line that begins with the setting, and none holds the secret."""
    named = f'encryption.key_file = "{key_file}": '
    key_file.write_text(f"# created: today\n{KEY}\n")
    assert refusal(Secrets(True, key_file)).startswith(f"{named}must be one line")
    key_file.write_text(f"{KEY}\n")
    key_file.chmod(0o644)
    assert f"{named}must be closed to other users, and has mode 0o644; chmod 600 {key_file}" == refusal(
        Secrets(True, key_file)
    )
    assert refusal(Secrets(True, tmp_path)).endswith("must be a file, and is a directory")
    assert refusal(Secrets(True, key_file / "inside")).endswith("can't be read: Not a directory")
    damaged = refusal(Secrets(True, key_file, KEY[:-3]))
    assert damaged.startswith("encryption.key: is a damaged age identity")
    assert damaged.endswith("; make one with `symbiont-datad key new`")


def refusal(secrets: Secrets) -> str:
    """What check_secrets says."""
    with pytest.raises(SettingsError) as caught:
        check_secrets(secrets)
    message = str(caught.value)
    assert "\n" not in message
    assert KEY[16:30] not in message
    return message


def test_a_key_that_others_own_or_hold_is_refused(open_path: Path, as_nobody: AsNobody) -> None:
    """A user neither reads root's key nor takes one from another user."""
    write_new_secret(open_path / "datad.key", f"{KEY}\n".encode())
    with pytest.raises(SettingsError, match="can't be read: Permission denied"):
        as_nobody(lambda: repository_password(Secrets(True, open_path / "datad.key")))


@pytest.mark.parametrize(
    ("content", "password"),
    [
        pytest.param(b"simple", "simple", id="no newline"),
        pytest.param(b"with newline\n", "with newline", id="newline"),
        pytest.param(b"windows\r\n", "windows", id="CRLF"),
        pytest.param(b" \t\n around \v\f\n\n", "around", id="blanks around"),
        pytest.param(b"two\nlines\n", "two\nlines", id="two lines"),
        pytest.param("\u00a0\u2003\u3000grün\u0085\u2028".encode(), "grün", id="other blanks"),
        pytest.param(b"\x1ccontrols\x1f\n", "\x1ccontrols\x1f", id="control characters are no blanks"),
        pytest.param(codecs.BOM_UTF8 + b"marked\n", "marked", id="UTF-8 with mark"),
        pytest.param(codecs.BOM_UTF16_LE + "grün\r\n".encode("utf-16-le"), "grün", id="UTF-16, little"),
        pytest.param(codecs.BOM_UTF16_BE + "grün 😀\n".encode("utf-16-be"), "grün 😀", id="UTF-16, big"),
        pytest.param(b"latin gr\xfcn\n", "latin gr\udcfcn", id="no UTF-8"),
        pytest.param(b"ends in \x85\n", "ends in \udc85", id="half a blank"),
    ],
)
def test_a_password_file_is_read_as_restic_reads_it(password_file: Path, content: bytes, password: str) -> None:
    """Mark and encoding are undone, the space around it goes, and all else stays."""
    password_file.write_bytes(content)
    assert password == repository_password(Secrets(False, Path("/none"), password_file=password_file))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "must hold a password, and is empty"),
        (b" \r\n", "must hold a password, and is empty"),
        (codecs.BOM_UTF16_LE + b"\x00", "byte order mark says UTF-16"),
        (codecs.BOM_UTF16_BE + b"\xd8\x00\x00a", "byte order mark says UTF-16"),
        (b"x" * 65_537, "at most 65536 bytes"),
    ],
)
def test_a_password_file_without_a_password_is_refused(password_file: Path, content: bytes, problem: str) -> None:
    """Never is an empty password read where one was promised."""
    password_file.write_bytes(content)
    with pytest.raises(SettingsError, match=problem) as caught:
        repository_password(Secrets(False, Path("/none"), password_file=password_file))
    assert str(caught.value).startswith(f'backup.password_file = "{password_file}": ')


def test_a_password_file_may_be_a_groups(password_file: Path) -> None:
    """0640 is fine, 0644 is not; a missing file is an error."""
    secrets = Secrets(False, Path("/none"), password_file=password_file)
    password_file.chmod(0o640)
    assert "from the file" == repository_password(secrets)
    password_file.chmod(0o644)
    assert refusal(secrets).endswith(f"has mode 0o644; chmod 640 {password_file}")
    password_file.unlink()
    assert refusal(secrets).endswith("there is no such file")


def test_secrets_are_not_shown(key_file: Path) -> None:
    """Neither repr nor str of the record has them; a pickle, for the pipe, does."""
    secrets = Secrets(True, key_file, KEY, None, "hunter2")
    assert "hunter2" not in f"{secrets} {secrets!r}"
    assert KEY not in f"{secrets} {secrets!r}"
    assert secrets == pickle.loads(pickle.dumps(secrets))


def test_a_jobs_process_needs_no_settings_model_for_them() -> None:
    """Importing this module loads neither pydantic nor typer."""
    code = "import sys, symbiont_datad.jobs.secrets; print(*{'pydantic', 'typer', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (0, "\n") == (done.returncode, done.stdout)


@pytest.fixture
def restic(tmp_path: Path) -> list[str]:
    """restic with a repository of its own in `tmp_path/repository`; skips where it is missing."""
    found = os.environ.get("DATAD_RESTIC") or shutil.which("restic")
    if found is None:
        pytest.skip("restic is not installed")
    return [found, "--no-cache", "--quiet", "--repo", str(tmp_path / "repository")]


@pytest.mark.slow
def test_restic_takes_the_key_file_as_its_password_file(key_file: Path, restic: list[str]) -> None:
    """What restic made with `--password-file KEY` opens with the string that we hand back, and the reverse."""
    password = repository_password(Secrets(True, key_file))
    given = {**os.environ, "RESTIC_PASSWORD": password}
    subprocess.run([*restic, "--password-file", str(key_file), "init"], check=True, timeout=60)
    subprocess.run([*restic, "cat", "config"], check=True, timeout=60, env=given, stdout=subprocess.DEVNULL)
    shutil.rmtree(restic[-1])
    subprocess.run([*restic, "init"], check=True, timeout=60, env=given)
    cat = [*restic, "--password-file", str(key_file), "cat", "config"]
    subprocess.run(cat, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"\n\x1ctwo\nlines\x1f \v\r\n",
        codecs.BOM_UTF16_LE + "grün\u3000\u0085\r\n".encode("utf-16-le"),
        codecs.BOM_UTF8 + b"gr\xfcn \x85\n",
    ],
    ids=["lines", "UTF-16", "no UTF-8"],
)
def test_restic_reads_the_same_password_from_a_file(password_file: Path, restic: list[str], content: bytes) -> None:
    """A repository that restic made with a file opens with what we read from it."""
    password_file.write_bytes(content)
    password = repository_password(Secrets(False, Path("/none"), password_file=password_file))
    subprocess.run([*restic, "--password-file", str(password_file), "init"], check=True, timeout=60)
    given = {**os.environb, b"RESTIC_PASSWORD": os.fsencode(password)}
    subprocess.run([*restic, "cat", "config"], check=True, timeout=60, env=given, stdout=subprocess.DEVNULL)
