"""The work on many files: each gets its own answer, and what goes wrong with one says what and hinders no other."""

import os
import resource
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from symbiont_datad.fsops.copy import Copied, Encoding, copy
from symbiont_datad.fsops.root import Tree
from symbiont_datad.fsops.walk import walk
from symbiont_datad.migrate import workers
from symbiont_datad.migrate.content import Question
from symbiont_datad.migrate.workers import (
    CHANGED,
    NO_ROOM,
    UNREADABLE,
    Looking,
    Made,
    Making,
    Seen,
    Trouble,
    Workers,
    looking,
)
from tests.cli.test_restore import small_disk
from tests.conftest import AsNobody
from tests.support import Link, build_tree

ASKED = Question(judged=False, compared=True)


@dataclass
class Place:
    """A directory with files, and a staging place beside it."""

    path: Path

    @property
    def root(self) -> str:
        """Where the files are."""
        return str(self.path / "files")

    @property
    def stage(self) -> str:
        """Where copies are made."""
        return str(self.path / "stage")

    def orders(self) -> list[Looking]:
        """The order to look into each file, by its path."""
        found = walk(Tree(self.root), on_error=lambda path, error: pytest.fail(f"{path}: {error}"))
        return [looking(entry, ASKED) for entry in sorted(found, key=lambda entry: entry.path) if entry.is_file]

    def makings(self, *, growing: bool = False) -> list[Making]:
        """The order to copy each."""
        return [
            Making(one.path, one.inode, one.size, one.mtime_ns, one.mode, Encoding.AS_IS, growing)
            for one in self.orders()
        ]

    def look(self, orders: list[Looking]) -> list[Seen | Trouble | None]:
        """What came out."""
        with Workers() as own:
            return own.look(self.root, orders, lambda *_: None)

    def make(self, orders: list[Making]) -> list[Made | Trouble | None]:
        """What came out."""
        with Workers() as own:
            return own.make(self.root, orders, lambda *_: None, self.stage, cloning=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Three files in two directories."""
    build_tree(tmp_path, {"files": {"a": b"aaa", "b": b"bbb", "d": {"c": b"ccc"}}, "stage": {}})
    return Place(tmp_path)


def kinds(answers: list[Seen | Trouble | None] | list[Made | Trouble | None]) -> list[str]:
    """How it went with each: what went wrong, if anything did."""
    return [answer.kind if isinstance(answer, Trouble) else "" for answer in answers]


def test_what_changed_since_it_was_listed_is_told(place: Place) -> None:
    """Another size, another file, a link in its place, a file that went, a directory that went."""
    orders, makings = place.orders(), place.makings()
    root = Path(place.root)
    (root / "a").write_bytes(b"longer than it was")
    assert [CHANGED, "", ""] == kinds(place.look(orders))
    (root / "b").unlink()
    (root / "d").rename(root / "e")
    assert [CHANGED] * 3 == kinds(place.look(orders)) == kinds(place.make(makings))
    (root / "b").symlink_to("a")
    assert [CHANGED, UNREADABLE, CHANGED] == kinds(place.look(orders))
    assert [] == [name for _, _, files in os.walk(place.stage) for name in files]


def test_a_log_may_grow(place: Place) -> None:
    """What there was at first is taken; of any other file nothing is."""
    growing, others = place.makings(growing=True), place.makings()
    with (Path(place.root) / "a").open("ab") as file:
        file.write(b"and more")
    assert [CHANGED] == kinds(place.make(others[:1]))
    made = place.make(growing)[0]
    assert isinstance(made, Made)
    assert b"aaa" == (Path(place.stage) / made.name).read_bytes()


def test_a_directory_behind_a_link_is_not_looked_into(place: Place) -> None:
    """It was one when it was listed."""
    orders = place.orders()
    root = Path(place.root)
    (root / "d").rename(place.path / "elsewhere")
    build_tree(root, {"d": Link("../elsewhere")})
    assert ["", "", CHANGED] == kinds(place.look(orders))


def test_what_may_not_be_read_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """The others are answered all the same."""
    build_tree(open_path, {"files": {"a": b"a", "b": b"b"}, "stage": {}})
    (open_path / "files/a").chmod(0o600)
    place = Place(open_path)
    orders = place.orders()
    place.look(orders)
    assert [UNREADABLE, ""] == kinds(as_nobody(lambda: place.look(orders)))


def test_a_file_that_may_not_be_so_large_is_no_room(place: Place) -> None:
    """By the limit of the process: the copy that came to nothing is removed."""
    (Path(place.root) / "b").write_bytes(bytes(100_000))
    makings = place.makings()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        answers = place.make(makings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ["", NO_ROOM, ""] == kinds(answers)
    assert 2 == len([name for _, _, files in os.walk(place.stage) for name in files])


def test_it_stops_between_two_pieces(place: Place) -> None:
    """What is left then has no answer."""
    with Workers(lambda: True) as own:
        assert [None] * 3 == own.look(place.root, place.orders(), lambda *_: None)


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """More files than are done without processes, or in one piece."""
    monkeypatch.setattr(workers, "_FEW", 10)
    monkeypatch.setattr(workers, "_PIECE", 8)
    build_tree(tmp_path, {"files": {f"{number:04}": b"%d" % number for number in range(60)}, "stage": {}})
    return Place(tmp_path)


@pytest.mark.parametrize("killed", [False, True])
def test_processes_and_we_say_the_same(many: Place, killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many files processes help; when they are killed the work is done here, and nothing is missing."""
    with Workers() as helped:
        helped._count = 2  # as on a machine with two cores
        helped.expect(len(many.orders()))
        assert helped._crew is not None
        if killed:
            for member in helped._crew._members:
                member._process.send_signal(signal.SIGKILL)
                member._process.wait()
        looked = helped.look(many.root, many.orders(), lambda *_: None)
        made = helped.make(many.root, many.makings(), lambda *_: None, many.stage, cloning=False)
    monkeypatch.setattr(workers, "_FEW", 1000)
    assert many.look(many.orders()) == looked
    for number, one in enumerate(made):
        assert isinstance(one, Made)
        assert (b"%d" % number, Encoding.AS_IS) == ((Path(many.stage) / one.name).read_bytes(), one.encoding)


@pytest.mark.parametrize("growing", [False, True])
def test_what_is_written_while_it_is_copied_is_not_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch, growing: bool
) -> None:
    """Nothing of it is left in the staging place; of a log that only grew, what was there at first is taken."""
    log = Path(place.root) / "a"

    def copying(from_fd: int, to_fd: int, size: int, encoding: Encoding, *, cloning: bool) -> Copied:
        with log.open("ab") as file:
            file.write(b"more")
        return copy(from_fd, to_fd, size, encoding, cloning=cloning)

    monkeypatch.setattr(workers, "copy", copying)
    made = place.make(place.makings(growing=growing)[:1])
    assert ["" if growing else CHANGED] == kinds(made)
    copies = [Path(at, name).read_bytes() for at, _, files in os.walk(place.stage) for name in files]
    assert ([b"aaa"] if growing else []) == copies


def test_a_file_that_is_cut_while_it_is_read_is_not_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is copied at once as well."""
    real = os.pread

    def reading(fd: int, size: int, at: int) -> bytes:
        os.truncate(Path(place.root) / "a", 1)
        return real(fd, size, at)

    found = walk(Tree(place.root), on_error=lambda path, error: pytest.fail(f"{path}: {error}"))
    order = looking(next(entry for entry in found if entry.path == "a"), ASKED, copying=True)
    monkeypatch.setattr(os, "pread", reading)
    with Workers() as own:
        assert [CHANGED] == kinds(own.look(place.root, [order], lambda *_: None, place.stage))


def test_what_is_another_file_systems_is_not_read(place: Place) -> None:
    """It was mounted since the files were listed: no file of it is what was listed."""
    orders, makings = place.orders(), place.makings()
    with small_disk(place.path / "mount", "1m") as disk:
        (disk / "c").write_bytes(b"ccc")
        subprocess.run(["mount", "--bind", disk, Path(place.root) / "d"], check=True, timeout=10)
        try:
            answers = [*place.look(orders), *place.make(makings)]
        finally:
            subprocess.run(["umount", Path(place.root) / "d"], check=True, timeout=10)
    assert ["", "", UNREADABLE] * 2 == [one.kind if isinstance(one, Trouble) else "" for one in answers]
