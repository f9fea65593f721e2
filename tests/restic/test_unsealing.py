"""Small files that other processes write: what comes back is what comes back without them, whatever befalls them."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from symbiont_datad.restic.crew import Crew
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.index import Place
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.metadata import Metadata
from symbiont_datad.restic.notes import small_note
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.restorer import Options, Progress, Restored, Restorer
from symbiont_datad.restic.tree import Attribute, decode_tree, encode_node, encode_tree
from symbiont_datad.restic.unsealing import Done, make_files
from symbiont_datad.restic.wanted import want
from symbiont_datad.restic.writer import Writer
from tests.conftest import AsNobody
from tests.restic.making import make_repository, reopen, snapshot
from tests.restic.test_archiver import crew
from tests.restic.test_restorer import assert_whole_files, flip, opened, refuses_when_full, restore, state, tree_of
from tests.support import NOBODY, Tree, build_tree

HELPED = Options(crew_from=1)


@pytest.fixture
def crowd(tmp_path: Path) -> tuple[Path, Path, str]:
    """Two directories with many small files, and what is none; the repository, in several packs: the first one that is
    read is for the process that restores; and the snapshot's name.
    """
    small: Tree = {f"{number:03}": b"%d\n" % number * (number * 7 % 400) for number in range(500)}
    source = build_tree(
        tmp_path / "source",
        {"a": {**small, "large": os.urandom(3 << 20), "zeros": bytes(300_000), "same": b"3\n"},
         "b": {f"{number:03}": os.urandom(900) for number in range(200)}, "few": {"x": b"x"}},
    )  # fmt: skip
    os.setxattr(source / "a/007", "user.note", b"\0binary\xff")
    (source / "a/008").chmod(0o4751)
    if os.geteuid() == 0:
        os.chown(source / "a/009", 1234, 5678)
    return (
        source,
        tmp_path / "repository",
        snapshot(make_repository(tmp_path / "repository"), source, pack_size=150_000),
    )


def test_everything_comes_back(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Content, mode, owner, times, attributes and holes, with every file counted; and no process is left."""
    source, place, name = crowd
    progress = Progress()
    with opened(tmp_path / "target") as fd:
        node = tree_of(repository := reopen(place), name)
        restored = Restorer(repository, fd, HELPED, progress).restore(bytes.fromhex(node.subtree), own=node)
    assert () == restored.failed
    assert state(source) == state(tmp_path / "target")
    sizes = [path.stat().st_size for path in source.rglob("*") if path.is_file()]
    assert (len(sizes), sum(sizes)) == (restored.counts.files, restored.counts.bytes)
    assert (len(sizes), sum(sizes)) == (progress.files, progress.bytes)
    assert [] == crew()


def test_damage_costs_what_it_costs_without_them(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Whichever pack has a flipped bit or is gone, the same files are named, with the same reason."""
    _, place, name = crowd

    def both(case: str) -> list[Restored]:
        return [
            restore(reopen(place), name, tmp_path / f"{case} {kind}", options)
            for kind, options in (("helped", HELPED), ("alone", Options()))
        ]

    repository = reopen(place)
    repository.load_index()
    blobs = Counter(at.pack.hex() for _, at in repository.index.blobs() if at.type is BlobType.DATA)
    packs = [pack for pack, count in blobs.items() if count > 1]  # those of small files
    told = set()
    for number, pack in enumerate(place / "data" / pack[:2] / pack for pack in sorted(packs)):
        before = pack.read_bytes()
        flip(pack, 100)
        helped, alone = both(f"flipped {number}")
        assert helped == alone
        pack.unlink()
        helped_gone, alone_gone = both(f"gone {number}")
        assert helped_gone == alone_gone
        told |= {path for one in (helped, helped_gone) for path, _ in one.failed}
        pack.write_bytes(before)
    assert {b"a/010", b"b/010"} <= told


def test_what_is_there_stays(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """A file, a link and a directory that have the name are named as failed, and are as they were."""
    source, place, name = crowd
    target = build_tree(tmp_path / "target", {"a": {"100": b"mine", "102": {"x": b"x"}}})
    (target / "a/101").symlink_to("100")
    restored = restore(reopen(place), name, target, HELPED)
    assert [(b"a/100", "File exists"), (b"a/101", "File exists"), (b"a/102", "File exists")] == list(restored.failed)
    assert b"mine" == (target / "a/100").read_bytes()
    assert "100" == os.readlink(target / "a/101")
    assert b"x" == (target / "a/102/x").read_bytes()
    assert (source / "a/103").read_bytes() == (target / "a/103").read_bytes()


def test_only_what_the_restore_made_is_left_to_others(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """In a directory that was there before, a file that was just written may be somebody else's: nobody is asked."""
    _, place, name = crowd

    def seen(target: Path) -> list[int]:
        found: list[int] = []

        def stopping() -> bool:
            found.extend(crew())
            return False

        restore(reopen(place), name, target, Options(crew_from=1, stopping=stopping))
        return found

    assert [] == seen(build_tree(tmp_path / "there", {"a": {}, "b": {}, "few": {}}))
    assert [] != seen(tmp_path / "made")


def test_a_target_that_is_full(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """The error is raised, and no half file is left."""
    source, place, name = crowd
    refuses_when_full(reopen(place), name, source, tmp_path / "target", "400k", HELPED)


def test_one_who_is_not_root(open_path: Path, as_nobody: AsNobody) -> None:
    """What can't be set is told of the files that the others wrote too."""
    source = build_tree(open_path / "source", {f"{number:03}": b"%d" % number for number in range(100)})
    os.setxattr(source / "007", "trusted.note", b"root's")
    os.setxattr(source / "008", "user.note", b"anybody's")
    (source / "009").chmod(0o6755)
    os.chown(source / "010", 0, 0)
    place = open_path / "repository"
    name = snapshot(make_repository(place), source)
    target = open_path / "target"
    target.mkdir()
    for path in (target, place, *place.rglob("*")):
        os.chown(path, NOBODY, NOBODY)

    def both() -> tuple[Restored, Restored]:
        return restore(reopen(place), name, target / "helped", HELPED), restore(reopen(place), name, target / "alone")

    helped, alone = as_nobody(both)
    assert helped == alone
    assert state(target / "helped") == state(target / "alone")


def test_what_cant_be_set_is_told(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Content without an attribute is better than none: it is there, and who has written it makes no difference."""
    if os.geteuid():
        pytest.skip("only root is told of attributes of the system")
    source, place, name = crowd
    repository = reopen(place)
    root = tree_of(repository, name)
    nodes = decode_tree(repository.load_blob(bytes.fromhex(root.subtree)))
    folder = next(node for node in nodes if node.name == "a")
    inner = decode_tree(repository.load_blob(bytes.fromhex(folder.subtree)))
    for node in inner:
        node.extended_attributes = [*node.extended_attributes, Attribute("nobody.knows", b"x")]
    with Writer(repository) as writer:
        tree, _ = writer.store(BlobType.TREE, encode_tree(map(encode_node, inner)))
        folder.subtree = tree.hex()
        top, _ = writer.store(BlobType.TREE, encode_tree(map(encode_node, nodes)))
    found = []
    for target, options in (("helped", HELPED), ("alone", Options())):
        with opened(tmp_path / target) as fd:
            found.append(Restorer(reopen(place), fd, options).restore(top))
        for path in source.rglob("*"):
            if path.is_file():
                assert path.read_bytes() == (tmp_path / target / path.relative_to(source)).read_bytes()
    assert found[0] == found[1]
    assert {b"a/" + node.raw_name for node in inner} == {path for path, _ in found[0].failed}
    assert {"its attribute nobody.knows can't be set"} == {reason.partition(": ")[0] for _, reason in found[0].failed}


def test_what_lies_elsewhere_is_for_this_process(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Other processes know only of directories; from any other place all comes back without them."""

    class Elsewhere(LocalBackend):
        """A storage of another kind."""

    source, place, name = crowd
    assert () == restore(reopen(Elsewhere(str(place))), name, tmp_path / "target", HELPED).failed
    assert state(source) == state(tmp_path / "target")


# Processes that are killed, and a restore that is to stop


def test_killed_processes_are_no_loss(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Whenever they are killed, everything is there afterwards, as it was."""
    source, place, name = crowd
    for number in range(4):
        target = tmp_path / f"target {number}"
        over = threading.Event()

        def kill(target: Path = target, files: int = 150 * number, over: threading.Event = over) -> None:
            while not over.is_set() and sum(1 for _ in target.glob("*/*")) < files:
                time.sleep(0)
            for pid in crew():
                os.kill(pid, signal.SIGKILL)

        killing = threading.Thread(target=kill)
        killing.start()
        try:
            restored = restore(reopen(place), name, target, HELPED)
        finally:
            over.set()
            killing.join()
        assert () == restored.failed
        assert state(source) == state(target)


def test_one_that_is_killed_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    """What it made of its task goes, whole or half; what lay there before stays."""
    target = build_tree(tmp_path / "target", {"other": b"mine", "third": b"mine too"})
    os.link(target / "third", tmp_path / "another name")
    place = Place(bytes(32), BlobType.DATA, 0, 100, 0)
    metadata = Metadata(0o600, 0, 0, (0, 0), (0, 0), [])
    notes = [small_note(1, name, metadata) for name in (b"first", b"second", b"third")]
    wanted = [want(bytes(32), place, note) for note in notes]
    time.sleep(0.05)  # more than a tick of any clock
    with opened(target) as fd, Crew("tests.restic.dying", b"") as dying:
        assert Done(0, 0, wanted, ()) == make_files(dying, fd, "00" * 32, wanted)
        assert dying.failed
        assert Done(0, 0, wanted, ()) == make_files(dying, fd, "00" * 32, wanted)
    assert {"other": b"mine", "third": b"mine too"} == {path.name: path.read_bytes() for path in target.iterdir()}


def test_stopping_leaves_no_half_file(crowd: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Whenever it is asked to stop it does, no process is left, and no half file."""
    source, place, name = crowd

    def after(asked: int) -> Callable[[], bool]:
        calls = iter(range(asked))
        return lambda: next(calls, None) is None

    asked = 0
    while True:
        target = tmp_path / f"target {asked}"
        try:
            restore(reopen(place), name, target, Options(crew_from=1, stopping=after(asked)))
        except Interrupted:
            asked += 1
        else:
            break
        assert [] == crew()
        assert_whole_files(target, source)
    assert asked > 3
