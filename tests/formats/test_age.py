"""The key: made so that stock age and stock restic both take the file, and refused when one of them would not."""

import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.age import NoIdentity, new_identity, read_identity, recipient_of, unseal
from symbiont_datad.formats.sealed import is_cut, is_sealed

IDENTITY = "AGE-SECRET-KEY-1XS3A4WE7M3K73URN9RAWAGJQL78ZDUHVRPWVQD3WEFGQ8CARGAMSTJQREE"
RECIPIENT = "age1jf8y9gmpu04fpfppma4f3mgljcul6ph8jc090zge69r29ak5t90sckej8r"
LINE = IDENTITY.encode()
OTHER = new_identity().encode()


def tool(name: str) -> str:
    """The path of a stock tool; skips where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key file with the identity of this module."""
    file = tmp_path / "datad.key"
    file.touch(0o600)
    file.write_text(f"{IDENTITY}\n")
    return file


def test_a_new_identity_is_new_and_reads_back() -> None:
    """Two are two; each is one line that is read as it was made."""
    one, other = new_identity(), new_identity()
    assert one != other
    assert one == read_identity(f"{one}\n".encode())


@pytest.mark.parametrize("content", [LINE, LINE + b"\n"], ids=["no newline", "newline"])
def test_one_line_is_read(content: bytes) -> None:
    """With or without the newline at its end the identity is the same, and its recipient is the known one."""
    assert IDENTITY == read_identity(content)
    assert RECIPIENT == recipient_of(IDENTITY)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n\n", "holds nothing but blanks", id="newlines"),
        pytest.param(bytes(75), "NUL bytes", id="NUL"),
        pytest.param(
            b"# created: 2026-11-23T07:00:00Z\n# public key: age1\n" + LINE + b"\n",
            "must be one line.*restic takes the whole file.*as age-keygen writes them: keep only the line",
            id="age-keygen",
        ),
        pytest.param(LINE + b"\n# mine\n", "must be one line.*as age-keygen writes them", id="comment after it"),
        pytest.param(LINE + b"\nsecond\n", "must be one line.*other lines as well: keep", id="another line"),
        pytest.param(LINE + b"\n" + OTHER + b"\n", "holds several", id="two identities"),
        pytest.param(LINE + b"\r\n", "Windows line ends", id="CRLF"),
        pytest.param(LINE + b"\n\n", "empty lines", id="empty line after it"),
        pytest.param(LINE + b" \n", "no blanks", id="blank after it"),
        pytest.param(b" " + LINE, "no blanks", id="blank before it"),
        pytest.param(b"\xef\xbb\xbf" + LINE, "nothing before or after it", id="byte order mark"),
        pytest.param(IDENTITY.encode("utf-16"), "is something else", id="UTF-16"),
        pytest.param(LINE.lower(), "capital letters", id="small letters"),
        pytest.param(b"key = " + LINE, "nothing before or after it", id="assignment"),
        pytest.param(LINE[:-1] + b"Q", "damaged.*checksum", id="wrong checksum"),
        pytest.param(LINE[:40], "damaged", id="cut"),
        pytest.param(LINE[:30] + bytes(1) + LINE[31:], "damaged", id="NUL in it"),
        pytest.param(LINE[:16], "damaged", id="prefix alone"),
        pytest.param(RECIPIENT.encode(), "recipient, the public half", id="recipient"),
        pytest.param(b"AGE-PLUGIN-YUBIKEY-1QQQ\n", "plugin", id="plugin"),
        pytest.param(b"AGE-SECRET-KEY-PQ-1QQQ\n", "post-quantum", id="post-quantum"),
        pytest.param(b"age-encryption.org/v1\n-> scrypt x", "sealed with age itself", id="sealed"),
        pytest.param(b"-----BEGIN AGE ENCRYPTED FILE-----\n", "sealed with age itself", id="sealed, as text"),
        pytest.param(b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n", "SSH", id="SSH"),
        pytest.param(b"ssh-ed25519 AAAA me@here\n", "SSH public key", id="SSH, public"),
        pytest.param(b"correct horse battery staple\n", "something else", id="a password"),
    ],
)
def test_what_is_no_key_file_is_refused_by_name(content: bytes, problem: str) -> None:
    """Each kind of wrong file is told what is wrong with it, and no part of a secret is quoted."""
    with pytest.raises(NoIdentity, match=problem) as caught:
        read_identity(content)
    assert IDENTITY[17:30].lower() not in str(caught.value).lower()


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"AGE-SECRET-KEY-1" + tail))
def test_nothing_else_is_taken_for_a_key(content: bytes) -> None:
    """Whatever the bytes are, the answer is a refusal and never another exception."""
    with pytest.raises(NoIdentity):
        read_identity(content)


def test_a_recipient_has_no_recipient() -> None:
    """What is no identity is refused here as well."""
    with pytest.raises(NoIdentity):
        recipient_of(RECIPIENT)


def test_stock_age_opens_what_is_sealed_to_the_recipient(key_file: Path) -> None:
    """`age -d -i KEY` takes the file as it is."""
    age = tool("age")
    sealed = pyrage.encrypt(b"the content", [pyrage.x25519.Recipient.from_str(recipient_of(IDENTITY))])
    opened = subprocess.run([age, "-d", "-i", key_file], input=sealed, capture_output=True, timeout=20)
    assert (0, b"the content", b"") == (opened.returncode, opened.stdout, opened.stderr)


def test_what_stock_age_seals_opens_here(key_file: Path) -> None:
    """`age -r RECIPIENT` with the recipient that we show."""
    age = tool("age")
    sealed = subprocess.run([age, "-r", recipient_of(IDENTITY)], input=b"more", capture_output=True, timeout=20)
    key = pyrage.x25519.Identity.from_str(read_identity(key_file.read_bytes()))
    assert b"more" == pyrage.decrypt(sealed.stdout, [key])


def test_age_keygen_agrees_on_the_recipient(key_file: Path) -> None:
    """`age-keygen -y KEY` prints the same recipient."""
    keygen = tool("age-keygen")
    shown = subprocess.run([keygen, "-y", key_file], capture_output=True, text=True, timeout=20)
    assert (0, f"{RECIPIENT}\n") == (shown.returncode, shown.stdout)


def test_what_age_keygen_writes_needs_one_line_of_it(tmp_path: Path) -> None:
    """Its file is refused, and what the refusal asks for makes a good key of it."""
    file = tmp_path / "key"
    subprocess.run([tool("age-keygen"), "-o", file], capture_output=True, check=True, timeout=20)
    with pytest.raises(NoIdentity, match="keep only the line that begins with AGE-SECRET-KEY-1"):
        read_identity(file.read_bytes())
    (line,) = (line for line in file.read_bytes().splitlines() if line.startswith(b"AGE-SECRET-KEY-1"))
    assert recipient_of(read_identity(line)) in file.read_text()


def test_armored_content_is_sealed_and_never_seen_to_be_cut() -> None:
    """What stock age makes with `-a` is opened too; only its key's owner can tell whether it is whole."""
    content = pyrage.encrypt(b"secret", [pyrage.x25519.Recipient.from_str(RECIPIENT)], armored=True)
    assert (True, False, False) == (is_sealed(content), is_cut(content), is_cut(content[:-9]))
    assert b"secret" == unseal(content, IDENTITY)
