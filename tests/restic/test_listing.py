"""Listing a directory: every entry once, with all that lstat says of it."""

import os
from pathlib import Path

import pytest

from symbiont_datad.restic.facts import Fact, fact_of, name_of
from symbiont_datad.restic.listing import Listing, list_directory


def listed(path: Path, *omit: bytes) -> Listing:
    """The listing of a directory; whatever can't be looked at fails the test."""

    def fail(name: bytes, error: OSError) -> None:
        pytest.fail(f"{name!r}: {error}")

    fd = os.open(path, os.O_RDONLY)
    try:
        return list_directory(fd, omit, fail)
    finally:
        os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """More files than are looked at in one go, and a few other things."""
    for number in range(300):
        (tmp_path / f"{number}.json").write_bytes(b"x" * number)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).write_bytes(b"1234")
    return tmp_path


def test_every_entry_with_its_facts(place: Path) -> None:
    """Names, facts, the figures of them all, and which are no regular files."""
    found = listed(place)
    expected = {}
    for entry in os.scandir(os.fsencode(place)):
        of = entry.stat(follow_symlinks=False)
        expected[entry.name] = Fact(
            of.st_mtime_ns, of.st_ctime_ns, of.st_size, of.st_ino, of.st_mode, of.st_uid, of.st_gid
        )
    assert expected == {name_of(record): fact_of(record) for record in found.records}
    assert (301, sum(range(300)) + 4) == (found.files, found.size)
    assert [b"folder"] == found.directories
    assert {b"folder", b"link", b"pipe"} == set(map(name_of, found.others))
    assert max(fact.ctime_ns for name, fact in expected.items() if name != b"folder") == found.latest_ns


def test_omitted_names(place: Path) -> None:
    """They are as if they were not there."""
    found = listed(place, b"\xff", b"folder", b"7.json")
    assert set() == {b"\xff", b"folder", b"7.json"} & set(found.names)
    assert 299 == found.files


def test_only_what_is_no_file_is_left(place: Path) -> None:
    """When the files are forgotten, their figures stay, and the others are where they are said to be."""
    found = listed(place)
    digest = found.digest(None)
    found.forget_files()
    assert {b"folder", b"link", b"pipe"} == set(found.names) == set(map(name_of, found.others))
    assert ([b"folder"], 301, digest) == (found.directories, found.files, found.digest(None))


def test_each_change_changes_the_digest(place: Path) -> None:
    """Of an entry, or of the directory itself where it counts; reading a file does not."""
    seen = {listed(place).digest(None)}
    (place / "1.json").read_bytes()
    assert seen == {listed(place).digest(None)}
    for change in (
        lambda: (place / "1.json").write_bytes(b"y"),
        lambda: (place / "1.json").chmod(0o600),
        lambda: (place / "1.json").rename(place / "01.json"),
        (place / "2.json").unlink,
        lambda: os.utime(place / "folder", ns=(1, 1)),
    ):
        change()
        seen.add(listed(place).digest(None))
    assert 6 == len(seen)
    own = listed(place).digest(os.stat(place))
    place.chmod(0o700)
    assert own != listed(place).digest(os.stat(place))


@pytest.mark.parametrize("mtime", [-(10**18), 0, 2**63 + 10**9])
def test_times_of_any_century(mtime: int, tmp_path: Path) -> None:
    """A time before 1970 is what it is; one after 2262 can't be told exactly, and is no error."""
    (tmp_path / "a").write_bytes(b"")
    os.utime(tmp_path / "a", ns=(mtime, mtime))
    (record,) = listed(tmp_path).records
    assert min((tmp_path / "a").stat().st_mtime_ns, 2**63 - 1) == fact_of(record).mtime_ns


def test_an_entry_that_went_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes between the directory's own list and the look at the entry is left out; what is denied is told."""
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c").write_bytes(b"")
    real = os.stat

    def look(name: bytes, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        if name == b"a":
            raise FileNotFoundError(2, "gone")
        if name == b"b":
            raise PermissionError(13, "denied")
        return real(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", look)
    denied: list[tuple[bytes, int | None]] = []
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        found = list_directory(fd, (), lambda name, error: denied.append((name, error.errno)))
    finally:
        os.close(fd)
    assert ([b"c"], [(b"b", 13)]) == (found.names, denied)
