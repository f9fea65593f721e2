"""The way to the tree: pinned part by part, no link followed, no mount crossed, no untrusted place entered."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.errors import UnsafePath
from symbiont_datad.fsops import root as module
from symbiont_datad.fsops.root import (
    Tree,
    beneath,
    give_away,
    pinned,
    pinned_file,
    readable,
    refuse_untrusted,
    resolve,
    set_mode,
    set_owner,
    sync_directory,
)
from tests.conftest import AsNobody
from tests.support import NOBODY, Link, build_tree
from tests.support import Tree as Data

DATA: Data = {"a": {"b": {"c": {}}}, "file": b"x", "link": Link("a"), "loop": Link("loop"), "gone": Link("nothing")}


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", ["link", "file", "loop", "gone", "link/b", "file/b"])
@pytest.mark.parametrize("opening", [pinned, readable])
def test_only_directories_are_pinned(tmp_path: Path, opening: Callable[..., object], name: str) -> None:
    """A link, whatever it leads to, and a file are refused, and leave no descriptor open."""
    build_tree(tmp_path / "data", DATA)
    before = descriptors()
    for _ in range(3):
        with pytest.raises(NotADirectoryError), Tree(str(tmp_path / "data")).directory(name):
            pass
    with pytest.raises(NotADirectoryError), pinned(str(tmp_path / "data")) as fd, opening("link", fd):  # type: ignore[attr-defined]
        pass
    assert before == descriptors()


def test_a_path_is_pinned_part_by_part(tmp_path: Path) -> None:
    """The descriptor is that of the directory; one in the way that became a link makes it fail, wherever it is."""
    build_tree(tmp_path / "data", DATA)
    tree = Tree(str(tmp_path / "data"))
    with tree.directory("a/b/c") as fd:
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "data/a/b/c"))
    with tree.holding("a/b/c/new") as (fd, name):
        assert ("new", "c") == (name, os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to("moved")
    with pytest.raises(NotADirectoryError), tree.directory("a/b/c"):
        pass
    assert (str(tmp_path / "moved/a"), str(tmp_path / "new/x")) == (
        resolve(str(tmp_path / "data/link")),
        resolve(str(tmp_path / "new/x")),
    )


def test_a_pinned_directory_survives_its_name(tmp_path: Path) -> None:
    """What is done through a descriptor is done to that directory, whatever has its name by then."""
    build_tree(tmp_path, DATA)
    with pinned(str(tmp_path / "a")) as fd:
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a").symlink_to("file")
        set_mode(fd, 0o711)
        os.mkdir("made", dir_fd=fd)
    assert 0o711 == stat.S_IMODE((tmp_path / "moved").stat().st_mode)
    assert (tmp_path / "moved/made").is_dir()


def test_a_pinned_file_is_not_opened(tmp_path: Path) -> None:
    """A FIFO without a reader doesn't block, and nothing can be read through the descriptor."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"x")
    with pinned(str(tmp_path)) as fd:
        with pinned_file("fifo", fd) as file:
            assert stat.S_ISFIFO(os.fstat(file).st_mode)
        with pinned_file("file", fd) as file, pytest.raises(OSError, match="Bad file descriptor"):
            os.read(file, 1)


def test_modes_and_owners_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is not mounted, mode and owner are set through a second descriptor of the same directory."""
    real = os.chmod, os.chown

    def missing(which: int) -> Callable[..., None]:
        def call(path: str, *rest: int) -> None:
            if path.startswith("/proc/"):
                raise FileNotFoundError(path)
            real[which](path, *rest)

        return call

    monkeypatch.setattr(os, "chmod", missing(0))
    monkeypatch.setattr(os, "chown", missing(1))
    with pinned(str(tmp_path)) as fd:
        set_mode(fd, 0o711)
        set_owner(fd, os.geteuid(), -1)
        sync_directory(fd)
    assert 0o711 == stat.S_IMODE(tmp_path.stat().st_mode)


def test_a_mode_of_nothing_can_be_repaired(open_path: Path, as_nobody: AsNobody) -> None:
    """Pinning needs no permission on the directory itself, so its owner can repair mode 000; listing it needs one."""
    (open_path / "d").mkdir()
    os.chown(open_path / "d", NOBODY, NOBODY)
    (open_path / "d").chmod(0)

    def check() -> None:
        with pinned(str(open_path)) as above:
            with pytest.raises(PermissionError), readable("d", above):
                pass
            with pinned("d", above) as fd:
                set_mode(fd, 0o750)

    as_nobody(check)
    assert 0o750 == stat.S_IMODE((open_path / "d").stat().st_mode)


def test_parents_are_made_like_what_they_are_in(open_path: Path) -> None:
    """Made as root, the directories above the root belong to the owner of what they are in, as far as they are new."""
    if os.geteuid():
        pytest.skip("only root can give directories away")
    (open_path / "home").mkdir()
    os.chown(open_path / "home", NOBODY, NOBODY)
    (open_path / "home/theirs").mkdir()
    os.chown(open_path / "home/theirs", 4242, 4242)
    Tree(str(open_path / "home/a/b/data")).make_parents()
    Tree(str(open_path / "home/theirs/data")).make_parents()
    assert [(NOBODY, 0o755), (NOBODY, 0o755)] == [
        (found.st_uid, stat.S_IMODE(found.st_mode))
        for found in map(os.stat, (open_path / "home/a", open_path / "home/a/b"))
    ]
    assert 4242 == (open_path / "home/theirs").stat().st_uid
    assert not (open_path / "home/a/b/data").exists()


def test_parents_that_an_ordinary_user_makes_are_theirs(open_path: Path, as_nobody: AsNobody) -> None:
    """With the mode that the umask leaves, whoever owns what they are in."""
    open_path.chmod(0o777)

    def make() -> None:
        os.umask(0o027)
        Tree(str(open_path / "a/b/data")).make_parents()

    as_nobody(make)
    found = [os.stat(open_path / path) for path in ("a", "a/b")]
    assert [(NOBODY, 0o750)] * 2 == [(one.st_uid, stat.S_IMODE(one.st_mode)) for one in found]


def test_what_somebody_else_made_first_is_not_given_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process makes a parent between our look and our mkdir, it keeps its owner."""
    if os.geteuid():
        pytest.skip("only root can give directories away")
    real = os.mkdir

    def beaten(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, 0o700, dir_fd=dir_fd)
        os.chown(path, 4242, 4242, dir_fd=dir_fd)
        real(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", beaten)
    module.Tree(str(tmp_path / "a/data")).make_parents()
    assert 4242 == (tmp_path / "a").stat().st_uid


def test_only_an_empty_directory_of_ours_is_given_away(tmp_path: Path) -> None:
    """One with something in it, or of somebody else's, is refused; nothing to change is no refusal."""
    if os.geteuid():
        pytest.skip("only root can give directories away")
    build_tree(tmp_path, {"full": {"x": b""}, "empty": {}, "theirs": {}})
    os.chown(tmp_path / "theirs", 4242, 4242)
    for name in ("full", "theirs"):
        with pinned(str(tmp_path / name)) as fd:
            give_away(fd, os.fstat(fd).st_uid, -1)
            with pytest.raises(UnsafePath):
                give_away(fd, NOBODY, NOBODY)
    with pinned(str(tmp_path / "empty")) as fd:
        give_away(fd, NOBODY, -1)
    assert [0, 4242, NOBODY] == [(tmp_path / name).stat().st_uid for name in ("full", "theirs", "empty")]


@pytest.mark.parametrize(
    ("mode", "directory_owner", "owner", "trusted"),
    [
        (0o755, 1000, 2000, True),
        (0o775, 0, 2000, True),
        (0o777, 0, 0, False),
        (0o777, 0, None, False),
        (0o1777, 0, 0, True),
        (0o1777, 0, None, True),
        (0o1777, 0, 2000, False),
        (0o1777, 1000, 1000, True),
        (0o1777, 1000, 2000, False),
    ],
)
def test_whom_root_trusts(mode: int, directory_owner: int, owner: int | None, trusted: bool) -> None:
    """Root goes through a directory that everybody can write to only if it is sticky and nobody else owns the child."""
    if os.geteuid():
        pytest.skip("only root must be wary")
    directory = os.stat_result((stat.S_IFDIR | mode, 1, 1, 2, directory_owner, 0, 0, 0, 0, 0))
    if trusted:
        refuse_untrusted(directory, owner, "x")
    else:
        with pytest.raises(UnsafePath, match=r"x: lies in a directory that everybody can write to \(0o1?777\)"):
            refuse_untrusted(directory, owner, "x")


def test_others_rely_on_the_kernel(as_nobody: AsNobody) -> None:
    """Who is not root is refused nothing beyond what the kernel refuses."""
    directory = os.stat_result((stat.S_IFDIR | 0o777, 1, 1, 2, 0, 0, 0, 0, 0, 0))
    as_nobody(lambda: refuse_untrusted(directory, 4242, "x"))


def test_beneath_leaves_what_it_was_given_open(tmp_path: Path) -> None:
    """The descriptor of the start stays open, all others are closed, also when the way ends early."""
    build_tree(tmp_path, DATA)
    with pinned(str(tmp_path)) as fd:
        before = descriptors()
        with beneath(fd, "a/b/c"):
            assert before + 1 == descriptors()
        for path, error in (("a/x/c", FileNotFoundError), ("a/b/../../file", NotADirectoryError)):
            with pytest.raises(error), beneath(fd, path):
                pass
        assert before == descriptors()
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
