"""Reading a file that was listed: the whole of it, or nothing when it is another one by now."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.fsops import read
from symbiont_datad.fsops.read import opened_regular, read_unchanged
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import Entry, look


@pytest.fixture
def reading(tmp_path: Path) -> Callable[..., bytes | None]:
    """Reads the file `a` as it was listed, no more than so many bytes."""
    (tmp_path / "a").write_bytes(b"0123456789")
    entry = look(Tree(str(tmp_path)), "a")
    assert entry is not None

    def call(largest: int = 100) -> bytes | None:
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            return read_unchanged("a", fd, entry, largest)
        finally:
            os.close(fd)

    return call


def test_all_of_it_or_as_much_as_is_wanted(reading: Callable[..., bytes | None]) -> None:
    """A file of no more than the limit comes whole."""
    assert b"0123456789" == reading()
    assert b"0123456789" == reading(10)
    assert b"0123" == reading(4)


def test_small_pieces_make_a_whole(reading: Callable[..., bytes | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems read less than they were asked for."""
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 3)))
    assert b"0123456789" == reading()
    assert b"01234" == reading(5)


def test_another_file_is_not_read(reading: Callable[..., bytes | None], tmp_path: Path) -> None:
    """Neither one that was written to since, nor one that took its place."""
    with open(tmp_path / "a", "ab") as file:
        file.write(b"!")
    assert reading() is None
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        reading()
    (tmp_path / "a").write_bytes(b"0123456789")
    assert reading() is None
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic"):
        reading()


def test_a_file_that_changes_under_the_reader_is_not_read(
    reading: Callable[..., bytes | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read may be half of the one and half of the other."""
    real = os.read

    def late(fd: int, size: int) -> bytes:
        data = real(fd, size)
        os.truncate(tmp_path / "a", 3)
        return data

    monkeypatch.setattr(os, "read", late)
    assert reading() is None


def test_look_sees_what_a_walk_sees(tmp_path: Path) -> None:
    """Nothing where there is nothing; links are not followed."""
    tree = Tree(str(tmp_path))
    assert look(tree, "none") is None
    assert look(tree, "none/deeper") is None
    (tmp_path / "l").symlink_to("none")
    found = look(tree, "l")
    assert (False, "l") == (found and found.is_file, found and found.path)
    assert isinstance(found, Entry)


def test_reading_is_no_use(reading: Callable[..., bytes | None], tmp_path: Path) -> None:
    """The access time tells when an agent has used a file, and not when we have looked at it."""
    os.utime(tmp_path / "a", ns=(1, 2))
    assert reading() is None  # its times are others than when it was listed
    fd = os.open(tmp_path, os.O_RDONLY)
    with opened_regular("a", fd) as file:
        assert b"0123456789" == os.read(file, 100)
    os.close(fd)
    assert 1 == os.stat(tmp_path / "a").st_atime_ns


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_reads_all_the_same(tmp_path: Path) -> None:
    """Who does not own a file may not hide that he has read it."""
    (tmp_path / "a").write_bytes(b"0123456789")
    fd = os.open(tmp_path, os.O_RDONLY)
    tmp_path.chmod(0o755)
    program = """
import os, sys
from symbiont_datad.fsops.read import opened_regular
os.setuid(65534)
with opened_regular("a", int(sys.argv[1])) as fd:
    print(os.read(fd, 4).decode())
"""
    found = subprocess.run([sys.executable, "-c", program, str(fd)], pass_fds=(fd,), capture_output=True, text=True)
    os.close(fd)
    assert ("0123\n", "", 0) == (found.stdout, found.stderr, found.returncode)


def test_where_every_read_leaves_its_trace(
    reading: Callable[..., bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On systems without O_NOATIME the content is the same."""
    monkeypatch.setattr(read, "_NOATIME", 0)
    assert b"0123456789" == reading()
