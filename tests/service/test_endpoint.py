"""What the settings ask of HTTP: where to listen, and with which token; and a server that follows them."""

import socket
from pathlib import Path

import pytest

from symbiont_datad.errors import SettingsError
from symbiont_datad.service.endpoint import Endpoint, Listening, listening
from symbiont_datad.service.request import Answer
from symbiont_datad.settings import Settings

TOKEN = "a-token-of-32-visible-characters"


def settings(root: Path, **http: object) -> Settings:
    """Settings with this section."""
    return Settings.model_validate({"root_data_dir": root / "data", "http": http})


def file_with(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """A file."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_off_by_default(tmp_path: Path) -> None:
    """Nobody listens unless asked to."""
    assert listening(settings(tmp_path)) is None
    assert listening(settings(tmp_path, token=TOKEN)) is None


def test_a_token_is_read(tmp_path: Path) -> None:
    """From its file, without the line's end, or as a setting; no text of it shows it."""
    file = file_with(tmp_path / "token", f"{TOKEN}\n".encode(), 0o640)
    by_file = listening(settings(tmp_path, listen="0.0.0.0:8125", token_file=file))
    by_value = listening(settings(tmp_path, listen="0.0.0.0:8125", token=TOKEN))
    assert Listening("0.0.0.0:8125", TOKEN) == by_file == by_value
    assert TOKEN not in repr(by_file)
    assert Listening("127.0.0.1:8125") == listening(settings(tmp_path, listen="127.0.0.1:8125"))


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0, "there is no such file"),
        (b"too short\n", 0o600, "at least 16 visible ASCII characters"),
        (b"with blanks in its middle", 0o600, "at least 16 visible ASCII characters"),
        ("größer als sechzehn".encode(), 0o600, "at least 16 visible ASCII characters"),
        (b"\xff" * 20, 0o600, "must be text"),
        (TOKEN.encode(), 0o644, "closed to other users"),
        (b"x" * 5000, 0o600, "at most 4096 bytes"),
    ],
)
def test_a_file_that_will_not_do(tmp_path: Path, content: bytes | None, mode: int, why: str) -> None:
    """It is said which and why, and its content is not shown."""
    file = tmp_path / "token"
    if content is not None:
        file_with(file, content, mode)
    with pytest.raises(SettingsError, match=why) as caught:
        listening(settings(tmp_path, listen="127.0.0.1:8125", token_file=file))
    assert str(caught.value).startswith("http.token_file")
    assert content is None or content.decode("latin-1").strip() not in str(caught.value)


def test_what_listens_to_all_needs_a_token_whatever_the_settings_let_through(tmp_path: Path) -> None:
    """And one that can be read."""
    (tmp_path / "token").mkdir(mode=0o700)
    with pytest.raises(SettingsError, match=r"http\.token_file = .*token\": "):
        listening(settings(tmp_path, listen="0.0.0.0:8125", token_file=tmp_path / "token"))
    local = settings(tmp_path, listen="127.0.0.1:8125")
    opened = local.model_copy(update={"http": local.http.model_copy(update={"listen": "0.0.0.0:8125"})})
    with pytest.raises(SettingsError, match=r"http\.listen = 0\.0\.0\.0:8125: needs http\.token_file"):
        listening(opened)


def test_a_token_that_will_not_do(tmp_path: Path) -> None:
    """The same for one that is a setting."""
    with pytest.raises(SettingsError, match=r"http\.token: must be at least 16"):
        listening(settings(tmp_path, listen="127.0.0.1:8125", token="short"))


def test_it_follows(tmp_path: Path) -> None:
    """A server where one is wanted, none where it is not; what is in the way is said once and tried again."""
    endpoint = Endpoint({"/livez": lambda: Answer(200, b"ok\n")})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = Listening(f"127.0.0.1:{taken.getsockname()[1]}")
        for _ in range(2):
            endpoint.follow(wanted)
            assert f"can't listen on {wanted.address}: Address already in use" == endpoint.problem
    endpoint.follow(wanted)
    endpoint.follow(wanted)
    assert "" == endpoint.problem
    host, _, port = wanted.address.partition(":")
    socket.create_connection((host, int(port)), 5.0).close()
    endpoint.follow(None)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), 5.0)
