"""Secrets are read only from files that nobody else could have read or put there, and never written over."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.errors import DatadError, UnsafePath
from symbiont_datad.fsops.secret import GROUP_MAY_READ, OWNER_ALONE, Exposed, read_secret, write_new_secret
from tests.conftest import AsNobody
from tests.support import NOBODY, Link, build_tree, read_tree


def file_of(path: Path, mode: int = 0o600, owner: int = -1) -> Path:
    """A file with `secret` in it."""
    path.write_bytes(b"secret")
    path.chmod(mode)
    if owner != -1:
        os.chown(path, owner, owner)
    return path


def home_of_nobody(above: Path) -> Path:
    """A directory that belongs to nobody, in one of root's."""
    (above / "home").mkdir()
    os.chown(above / "home", NOBODY, NOBODY)
    return above / "home"


def read(path: Path, forbidden: int = OWNER_ALONE) -> bytes:
    """Read it."""
    return read_secret(path, forbidden, 1000)


@pytest.mark.parametrize(
    ("mode", "forbidden"),
    [
        (0o600, OWNER_ALONE),
        (0o400, OWNER_ALONE),
        (0o700, OWNER_ALONE),
        (0o600, GROUP_MAY_READ),
        (0o440, GROUP_MAY_READ),
    ],
)
def test_a_closed_file_is_read(tmp_path: Path, mode: int, forbidden: int) -> None:
    """Its owner alone may read it, or a group where that is allowed."""
    assert b"secret" == read(file_of(tmp_path / "key", mode), forbidden)


@pytest.mark.parametrize(
    ("mode", "forbidden", "right"),
    [
        (0o640, OWNER_ALONE, "600"),
        (0o644, OWNER_ALONE, "600"),
        (0o604, OWNER_ALONE, "600"),
        (0o620, OWNER_ALONE, "600"),
        (0o601, OWNER_ALONE, "600"),
        (0o444, OWNER_ALONE, "400"),
        (0o644, GROUP_MAY_READ, "640"),
        (0o660, GROUP_MAY_READ, "640"),
    ],
)
def test_a_file_open_to_others_is_refused_until_it_is_closed(
    tmp_path: Path, mode: int, forbidden: int, right: str
) -> None:
    """The refusal names the mode, and the command in it puts it right."""
    file = file_of(tmp_path / "my key", mode)
    with pytest.raises(Exposed, match=f"must be closed to other users, and has mode 0o{mode:o}; ") as caught:
        read(file, forbidden)
    assert f"chmod {right} '{file}'" == str(caught.value).partition("; ")[2]
    file.chmod(int(right, 8))
    assert b"secret" == read(file, forbidden)


def test_a_link_is_refused_and_what_it_names_is_told(tmp_path: Path) -> None:
    """A link in place of the file is not followed; one on the way to it is."""
    build_tree(tmp_path, {"there": {}, "here": Link("there"), "key": Link("there/key")})
    file_of(tmp_path / "there" / "key")
    with pytest.raises(Exposed, match=f'must not be a symbolic link; name the file itself, "{tmp_path}/there/key"'):
        read(tmp_path / "key")
    assert b"secret" == read(tmp_path / "here" / "key")


@pytest.mark.parametrize("what", ["a FIFO", "a directory", "a socket"])
def test_only_a_file_is_opened(tmp_path: Path, what: str) -> None:
    """Nothing waits for a FIFO's other end."""
    path = tmp_path / "key"
    make: dict[str, Callable[[Path], object]] = {
        "a FIFO": os.mkfifo,
        "a directory": os.mkdir,
        "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    }
    make[what](path)
    with pytest.raises(Exposed, match=f"must be a file, and is {what}"):
        read(path)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    """1000 bytes are read, 1001 are not."""
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(bytes(1000))
    assert bytes(1000) == read(tmp_path / "key")
    (tmp_path / "key").write_bytes(bytes(1001))
    with pytest.raises(Exposed, match="at most 1000 bytes"):
        read(tmp_path / "key")


@pytest.mark.parametrize(("name", "error"), [("key", FileNotFoundError), ("no/key", FileNotFoundError)])
def test_a_missing_file_is_missing(tmp_path: Path, name: str, error: type[OSError]) -> None:
    """The file or its directory: the caller tells what to do."""
    with pytest.raises(error):
        read(tmp_path / name)


def test_somebody_elses_file_is_refused(open_path: Path, as_nobody: AsNobody) -> None:
    """A file that another user owns, who can change it, is refused by root and by users; root's own is not."""
    file_of(open_path / "key", 0o600, 1234)
    with pytest.raises(Exposed, match="belongs to uid 1234, who can change it"):
        read(open_path / "key")
    os.chown(open_path, NOBODY, NOBODY)
    (open_path / "roots").write_bytes(b"secret")
    (open_path / "roots").chmod(0o640)
    os.chown(open_path / "roots", 0, NOBODY)
    assert b"secret" == as_nobody(lambda: read(open_path / "roots", GROUP_MAY_READ))
    (open_path / "mine").write_bytes(b"secret")
    (open_path / "mine").chmod(0o440)
    os.chown(open_path / "mine", 1234, NOBODY)
    with pytest.raises(Exposed, match="belongs to uid 1234, who can change it"):
        as_nobody(lambda: read(open_path / "mine", GROUP_MAY_READ))


def test_root_reads_the_key_of_the_directorys_owner(open_path: Path, as_nobody: AsNobody) -> None:
    """A user's key in the user's own directory serves a daemon that runs as root, too."""
    home = home_of_nobody(open_path)
    as_nobody(lambda: write_new_secret(home / "key", b"secret"))
    assert b"secret" == read(home / "key")


@pytest.mark.usefixtures("as_nobody")
def test_root_reads_nothing_through_a_directory_of_everybody(open_path: Path) -> None:
    """Whoever could put another file there could give root a key of their own."""
    open_path.chmod(0o777)
    file_of(open_path / "key")
    with pytest.raises(UnsafePath):
        read(open_path / "key")
    for name in ("new", "deep/new", "very/deep/new"):
        with pytest.raises(UnsafePath):
            write_new_secret(open_path / name, b"secret")
    assert {"key": b"secret"} == read_tree(open_path)


def test_an_unreadable_file_is_an_error_of_the_system(open_path: Path, as_nobody: AsNobody) -> None:
    """Root's 0600 file is no user's to read."""
    file_of(open_path / "key")
    with pytest.raises(PermissionError):
        as_nobody(lambda: read(open_path / "key"))


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_new_secret_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    """Mode 0600 in a directory of mode 0700 that was made for it, whatever the umask, and no other file beside it."""
    before = os.umask(umask)
    try:
        write_new_secret(tmp_path / "made" / "key", b"secret")
    finally:
        os.umask(before)
    assert {"made": {"key": b"secret"}} == read_tree(tmp_path)
    found = (tmp_path / "made" / "key").stat()
    assert (0o600, 1) == (stat.S_IMODE(found.st_mode), found.st_nlink)
    assert 0o700 == stat.S_IMODE((tmp_path / "made").stat().st_mode)


def test_an_ordinary_user_keeps_a_secret(open_path: Path, as_nobody: AsNobody) -> None:
    """The file and the directory that is made for it are theirs alone."""
    home = home_of_nobody(open_path)
    as_nobody(lambda: write_new_secret(home / "made" / "key", b"secret"))
    found = [(path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in (home / "made", home / "made/key")]
    assert [(NOBODY, 0o700), (NOBODY, 0o600)] == found
    assert {"made": {"key": b"secret"}} == read_tree(home)


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """Only what is made gets a mode."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o750)
    write_new_secret(tmp_path / "there" / "key", b"secret")
    assert 0o750 == stat.S_IMODE((tmp_path / "there").stat().st_mode)


@pytest.mark.parametrize("there", [b"old", {"a": b"1"}, Link("elsewhere"), Link("nowhere")])
def test_nothing_is_replaced(tmp_path: Path, there: bytes | dict[str, bytes] | Link) -> None:
    """A file, a directory or a link with the name stays as it is, and so does what the link leads to."""
    before = {"key": there, "elsewhere": b"else"}
    build_tree(tmp_path, before)
    with pytest.raises(FileExistsError):
        write_new_secret(tmp_path / "key", b"secret")
    assert before == read_tree(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "link", "fchmod"])
def test_a_failure_leaves_nothing(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step fails, there is no file, not even a temporary one."""

    def failing(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(OSError, match="No space left"):
            write_new_secret(tmp_path / "key", b"secret")
    assert {} == read_tree(tmp_path)


def test_what_a_crash_left_is_not_in_the_way(tmp_path: Path) -> None:
    """A temporary file of the same name, even a planted link, is removed and never written through."""
    (tmp_path / "victim").write_bytes(b"theirs")
    (tmp_path / f".key.{os.getpid()}.tmp").symlink_to("victim")
    write_new_secret(tmp_path / "key", b"secret")
    assert {"key": b"secret", "victim": b"theirs"} == read_tree(tmp_path)


@pytest.mark.usefixtures("as_nobody")
def test_what_root_makes_belongs_to_the_directorys_owner(open_path: Path) -> None:
    """In a user's directory the file, and the directory made for it, are that user's; elsewhere they stay root's."""
    write_new_secret(open_path / "key", b"secret")
    assert 0 == (open_path / "key").stat().st_uid
    made = home_of_nobody(open_path) / "made"
    write_new_secret(made / "key", b"secret")
    assert {(NOBODY, NOBODY)} == {(path.stat().st_uid, path.stat().st_gid) for path in (made, made / "key")}
    assert 0o600 == stat.S_IMODE((made / "key").stat().st_mode)


def test_a_directory_that_is_not_ours_is_not_written_to(open_path: Path, as_nobody: AsNobody) -> None:
    """The system's own refusal, and nothing is left."""
    with pytest.raises(PermissionError):
        as_nobody(lambda: write_new_secret(open_path / "key", b"secret"))
    assert {} == read_tree(open_path)


def test_a_refusal_is_a_failure_that_is_told() -> None:
    """It reaches the user as a line without a traceback."""
    assert issubclass(Exposed, DatadError)
