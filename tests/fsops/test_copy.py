"""Copies: shared blocks where the file system can, bytes elsewhere, both sides hashed."""

import errno
import fcntl
import gzip
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from symbiont_datad.fsops import copy as copying
from symbiont_datad.fsops.copy import CHUNK, Differs, Encoding, clone, copy, copy_small, sync_file_system

BODIES = [b"", b"x", b"y" * (CHUNK - 1), b"z" * CHUNK, os.urandom(CHUNK + 1), b"long " * CHUNK]


@contextmanager
def opened(source: Path, target: Path) -> Iterator[tuple[int, int]]:
    """The descriptors of a file and of a new, empty one."""
    from_fd, to_fd = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        yield from_fd, to_fd
    finally:
        os.close(from_fd)
        os.close(to_fd)


@pytest.mark.parametrize("body", BODIES, ids=len)
def test_a_copy_is_what_was_read(tmp_path: Path, body: bytes) -> None:
    """The digest is that of the source, and every piece was counted."""
    source, target, counted = tmp_path / "a", tmp_path / "b", list[int]()
    source.write_bytes(body)
    with opened(source, target) as (from_fd, to_fd):
        copied = copy(from_fd, to_fd, len(body), cloning=True, on_bytes=counted.append)
    assert (hashlib.sha256(body).digest(), len(body), len(body)) == (*copied, sum(counted))
    assert body == target.read_bytes()


@pytest.mark.parametrize("body", BODIES[1:], ids=len)
def test_a_converted_copy_holds_the_same_text(tmp_path: Path, body: bytes) -> None:
    """Packed and unpacked; the digest is that of the source's own bytes."""
    plain, packed, back = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    plain.write_bytes(body)
    with opened(plain, packed) as (from_fd, to_fd):
        copied = copy(from_fd, to_fd, len(body), Encoding.GZIP)
    assert (hashlib.sha256(body).digest(), packed.stat().st_size) == copied
    assert body == gzip.decompress(packed.read_bytes())
    with opened(packed, back) as (from_fd, to_fd):
        copied = copy(from_fd, to_fd, packed.stat().st_size, Encoding.PLAIN)
    assert (hashlib.sha256(packed.read_bytes()).digest(), len(body)) == copied
    assert body == back.read_bytes()


def test_what_follows_the_first_member_is_not_unpacked(tmp_path: Path) -> None:
    """As the runtime reads it; and what is no gzip, or ends in the middle, can't be unpacked."""
    source = tmp_path / "a"
    source.write_bytes(gzip.compress(b"text") + b"more")
    with opened(source, tmp_path / "b") as (from_fd, to_fd):
        copy(from_fd, to_fd, source.stat().st_size, Encoding.PLAIN)
    assert b"text" == (tmp_path / "b").read_bytes()
    for number, body in enumerate((b"plain", gzip.compress(b"text" * 99)[:20])):
        source.write_bytes(body)
        with (
            opened(source, tmp_path / str(number)) as (from_fd, to_fd),
            pytest.raises(ValueError, match=r"gzip|header"),
        ):
            copy(from_fd, to_fd, len(body), Encoding.PLAIN)


def test_no_more_than_the_given_size_is_read(tmp_path: Path) -> None:
    """What a log has grown by meanwhile is left for the next time."""
    source = tmp_path / "a"
    source.write_bytes(b"one\ntwo\n")
    with opened(source, tmp_path / "b") as (from_fd, to_fd):
        assert (hashlib.sha256(b"one\n").digest(), 4) == copy(from_fd, to_fd, 4)
    assert b"one\n" == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("small", [False, True])
def test_a_copy_that_reads_back_differently_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: Encoding, small: bool
) -> None:
    """A disk that lies, or somebody who writes to the copy."""
    body = gzip.compress(b"text" * 50) if encoding is Encoding.PLAIN else b"text" * 50
    source = tmp_path / "a"
    source.write_bytes(body)
    real = os.pread

    def lying(fd: int, size: int, at: int) -> bytes:
        found = real(fd, size, at)
        return found if fd == from_fd else found[:-1] + bytes([found[-1] ^ 1])

    with opened(source, tmp_path / "b") as (from_fd, to_fd):
        monkeypatch.setattr(os, "pread", lying)
        with pytest.raises((Differs, ValueError)):
            (copy_small(body, b"text" * 50, to_fd, encoding) if small else copy(from_fd, to_fd, len(body), encoding))


@pytest.mark.parametrize("encoding", Encoding)
def test_small_files_are_copied_from_memory(tmp_path: Path, encoding: Encoding) -> None:
    """With the same result."""
    text = b"text" * 500
    data = gzip.compress(text) if encoding is Encoding.PLAIN else text
    fd = os.open(tmp_path / "b", os.O_RDWR | os.O_CREAT)
    assert copy_small(data, text, fd, encoding) == os.fstat(fd).st_size
    os.close(fd)
    found = (tmp_path / "b").read_bytes()
    assert text == (gzip.decompress(found) if encoding is Encoding.GZIP else found)


def test_a_file_system_that_cant_share_blocks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then bytes go through; any other failure is one."""

    def failing(code: int) -> None:
        def ioctl(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "ioctl", ioctl)

    (tmp_path / "a").write_bytes(b"body")
    with opened(tmp_path / "a", tmp_path / "b") as (from_fd, to_fd):
        for code in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            failing(code)
            assert not clone(from_fd, to_fd)
        failing(errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            clone(from_fd, to_fd)


def test_a_file_system_is_flushed(tmp_path: Path) -> None:
    """Where the system can."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert sync_file_system(fd) is hasattr(copying._LIBC, "syncfs")
    finally:
        os.close(fd)
    if hasattr(copying._LIBC, "syncfs"):
        with pytest.raises(OSError, match="Bad file descriptor"):
            sync_file_system(-1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_shared_where_that_can_be(tmp_path: Path, kind: str) -> None:
    """On a real file system that can: 64 MiB take next to no room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    image, at = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    at.mkdir()
    subprocess.run(["mount", "-o", "loop", image, at], check=True)
    try:
        body = os.urandom(64 << 20)
        (at / "a").write_bytes(body)
        os.sync()
        free = os.statvfs(at).f_bavail
        with opened(at / "a", at / "b") as (from_fd, to_fd):
            copied = copy(from_fd, to_fd, len(body), cloning=True)
            os.fsync(to_fd)
        assert hashlib.sha256(body).digest() == copied.digest
        assert free - os.statvfs(at).f_bavail < (4 << 20) // os.statvfs(at).f_frsize
        assert body == (at / "b").read_bytes()
    finally:
        subprocess.run(["umount", at], check=True)
