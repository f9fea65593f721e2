"""Restoring: what comes back is equal, nothing is written elsewhere, damage costs exactly the files that need it."""

import errno
import os
import resource
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.restic import find
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.compare import Comparer
from symbiont_datad.restic.errors import Interrupted
from symbiont_datad.restic.find import node_at, walk
from symbiont_datad.restic.metadata import time_ns
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.restorer import Options, Progress, Restored, Restorer, below
from symbiont_datad.restic.tree import Node, encode_node, encode_tree
from symbiont_datad.restic.writer import Writer
from tests.conftest import AsNobody
from tests.restic.making import PASSWORD, make_repository, reopen, snapshot
from tests.restic.torture.peers import restic, resticses
from tests.support import NOBODY, Link, build_tree, read_tree

MIB = 1 << 20
WHEN_NS = 1_000_000_000_123_456_789


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a directory, which is made where it is missing."""
    path.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def tree_of(repository: Repository, name: str) -> Node:
    """The node of the directory that was put in a snapshot."""
    repository.load_index()
    found = repository.snapshot(name)
    node = node_at(repository, found, os.fsencode(found.paths[0]))
    assert node is not None
    return node


def restore(repository: Repository, name: str, target: Path, options: Options | None = None, **how: Any) -> Restored:
    """Restore what is in the directory of a snapshot."""
    node = tree_of(repository, name)
    with opened(target) as fd:
        return Restorer(repository, fd, options).restore(bytes.fromhex(node.subtree), own=node, **how)


def state(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that is to be equal of every entry: a file's blocks too, so that its holes are."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    top = os.fsencode(root)
    paths = [top]
    for folder, directories, files in os.walk(top):
        paths += [os.path.join(folder, name) for name in directories + files]
    for path in paths:
        entry = os.lstat(path)
        is_file = stat.S_ISREG(entry.st_mode)
        content: bytes | int = b""
        if stat.S_ISLNK(entry.st_mode):
            content = os.readlink(path)
        elif is_file and entry.st_size < 64 * MIB:
            content = Path(os.fsdecode(path)).read_bytes()
        found[path[len(top) :]] = (
            oct(entry.st_mode),
            entry.st_uid,
            entry.st_gid,
            entry.st_mtime_ns,
            entry.st_size if is_file else 0,
            content,
            entry.st_rdev,
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
            entry.st_size - entry.st_blocks * 512 > 8 * MIB,
        )
        if is_file and entry.st_nlink > 1:
            inodes.setdefault((entry.st_dev, entry.st_ino), []).append(path[len(top) :])
    found[b"the same files"] = tuple(sorted(tuple(sorted(names)) for names in inodes.values()))
    return found


def attributes(path: bytes) -> dict[str, bytes]:
    """The extended attributes of an entry."""
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def build_everything(root: Path) -> Path:
    """A tree with every kind of entry that there is."""
    build_tree(
        root,
        {
            "small": b"a few bytes",
            "empty": b"",
            "large": os.urandom(3 * MIB) + bytes(MIB) + os.urandom(2 * MIB),
            "again": b"a few bytes",
            "zeros": bytes(100_000),
            "link": Link("small"),
            "dangling": Link("/nowhere/\udcff"),
            "d": {"e": {"f": {"deep": b"deep"}}, "read only": {"x": b"x"}, "void": {}},
        },
    )
    for name in (b"caf\xe9", b"new\nline", b'q"uo\\te', "ünï\u2028<&>".encode(), b"x" * 255):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(name)
    os.link(root / "small", root / "d" / "hard")
    os.link(root / "large", root / "d" / "hard large")
    os.link(root / "empty", root / "hard empty")
    with open(root / "sparse", "wb") as file:
        file.write(b"head")
        file.truncate(5 << 30)
    with open(root / "sparse inside", "wb") as file:
        file.write(b"head")
        file.seek(40 * MIB)
        file.write(b"tail")
    os.mkfifo(root / "fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as server, opened(root) as fd:
        server.bind(f"/proc/self/fd/{fd}/socket")
    os.setxattr(root / "small", "user.note", b"\0binary\xff")
    os.setxattr(root / "d", "user.dir", b"value")
    (root / "small").chmod(0o640)
    (root / "again").chmod(0o4755)
    (root / "empty").chmod(0)
    (root / "d" / "e").chmod(0o3771)
    (root / "d" / "read only").chmod(0o500)
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.chown(root / "small", 1234, 5678)
        os.chown(root / "again", 1234, 0)
        (root / "again").chmod(0o6755)
        os.chown(root / "d", NOBODY, NOBODY)
        os.chown(root / "link", 17, 18, follow_symlinks=False)
        os.setxattr(root / "link", "trusted.note", b"on a link", follow_symlinks=False)
    for folder, directories, files in os.walk(os.fsencode(root), topdown=False):
        for number, name in enumerate([*directories, *files, b"."]):
            when = WHEN_NS + number * 1_000_000_001
            os.utime(os.path.join(folder, name), ns=(when, when), follow_symlinks=False)
    return root


def test_everything_comes_back(tmp_path: Path) -> None:
    """Every kind of entry is restored equal in content, mode, owner, times, attributes, links and holes."""
    source = build_everything(tmp_path / "source")
    expected = state(source)
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    restored = restore(repository, name, tmp_path / "target")
    assert () == restored.failed
    expected.pop(b"/socket")
    assert expected == state(tmp_path / "target")
    assert 1 == restored.counts.sockets
    assert sum(1 for path in source.rglob("*") if path.is_file() and not path.is_symlink()) == restored.counts.files
    with opened(tmp_path / "target") as fd:
        tree = bytes.fromhex(tree_of(repository, name).subtree)
        assert () == Comparer(repository).compare(tree, fd)


def test_an_ordinary_user_restores_what_is_allowed(open_path: Path, as_nobody: AsNobody) -> None:
    """Who is not root gets all content; owners stay his own, and nothing becomes set-user-ID for him."""
    source = build_everything(open_path / "source")
    os.chmod(source / "large", 0o6750)
    os.chown(source / "large", NOBODY, NOBODY)
    os.chmod(source / "large", 0o6750)
    repository = make_repository(open_path / "repository")
    name = snapshot(repository, source)
    subprocess.run(["chown", "-R", str(NOBODY), open_path / "repository"], check=True)
    (open_path / "mine").mkdir()
    os.chown(open_path / "mine", NOBODY, NOBODY)

    def act() -> Restored:
        return restore(reopen(open_path / "repository"), name, open_path / "mine" / "target")

    (failed,) = as_nobody(act).failed
    assert (b"null", "Operation not permitted") == failed
    target = open_path / "mine" / "target"
    assert (NOBODY, NOBODY) == ((target / "again").stat().st_uid, (target / "again").stat().st_gid)
    assert 0o755 == stat.S_IMODE((target / "again").stat().st_mode)
    assert 0o6750 == stat.S_IMODE((target / "large").stat().st_mode)
    assert (source / "large").read_bytes() == (target / "large").read_bytes()
    assert (source / "small").stat().st_mtime_ns == (target / "small").stat().st_mtime_ns


def test_one_entry_is_restored_under_its_name(tmp_path: Path) -> None:
    """A file, or a directory with its own mode, is restored alone; and what `below` names, with the way to it."""
    source = build_tree(tmp_path / "source", {"a": {"b": {"c": b"c", "d": b"d"}, "x": b"x"}, "ab": b"ab"})
    (source / "a" / "b").chmod(0o710)
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    found = repository.snapshot(name)
    for path, expected in ((b"/a/b", {"b": {"c": b"c", "d": b"d"}}), (b"/a/b/d", {"d": b"d"}), (b"/ab", {"ab": b"ab"})):
        node = node_at(repository, found, os.fsencode(source) + path)
        assert node is not None
        target = tmp_path / path.decode().replace("/", "_")
        with opened(target) as fd:
            assert () == Restorer(repository, fd).restore_node(node).failed
            assert () == Comparer(repository).compare_node(node, fd)
        assert expected == read_tree(target)
    assert 0o710 == stat.S_IMODE((tmp_path / "_a_b" / "b").stat().st_mode)
    restored = restore(repository, name, tmp_path / "selected", select=below([b"a/b/c", b"ab"]))
    assert {"a": {"b": {"c": b"c"}}, "ab": b"ab"} == read_tree(tmp_path / "selected")
    assert (2, 2, 3) == (restored.counts.files, restored.counts.directories, restored.counts.bytes)


@pytest.mark.parametrize("content", [b"new", os.urandom(2 * MIB)], ids=["small", "large"])
def test_what_is_there_stays_unless_asked(tmp_path: Path, content: bytes) -> None:
    """Existing files are listed and kept; with `overwrite` they are replaced; directories are merged."""
    source = build_tree(tmp_path / "source", {"d": {"a": content, "b": content}, "e": b"", "l": Link("x")})
    os.link(source / "d" / "a", source / "d" / "h")
    outside = build_tree(tmp_path / "outside", {"f": b"untouched"})
    there = {
        "d": {"a": b"old", "c": b"other"}, "e": Link(str(outside / "f")), "l": Link("y"), "z": b"",
    }  # fmt: skip
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    target = build_tree(tmp_path / "target", there)  # type: ignore[arg-type]
    failed = restore(repository, name, target).failed
    assert [b"d/a", b"d/h", b"e", b"l"] == [path for path, _ in failed]
    assert {"File exists"} == {reason for path, reason in failed if path != b"d/h"}
    assert there | {"d": {"a": b"old", "b": content, "c": b"other"}} == read_tree(target)
    assert () == restore(repository, name, target, Options(overwrite=True)).failed
    merged = {"a": content, "b": content, "c": b"other", "h": content}
    assert {"d": merged, "e": b"", "l": Link("x"), "z": b""} == read_tree(target)
    assert (target / "d" / "a").samefile(target / "d" / "h")
    assert {"f": b"untouched"} == read_tree(outside)
    assert () == restore(repository, name, target, Options(overwrite=True)).failed
    assert {"d": merged, "e": b"", "l": Link("x"), "z": b""} == read_tree(target)


def test_links_in_the_target_are_not_followed(tmp_path: Path) -> None:
    """A link where a directory belongs is refused by name with all that belongs in it; what it names is untouched."""
    source = build_tree(tmp_path / "source", {"d": {"a": b"new"}, "f": b"f", "s": {"t": b"t"}})
    outside = build_tree(tmp_path / "outside", {"a": b"untouched"})
    target = build_tree(tmp_path / "target", {"d": Link(str(outside)), "s": b"a file"})
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    for overwrite in (False, True):
        failed = restore(repository, name, target, Options(overwrite=overwrite), select=lambda path, _: path != b"f")
        assert ((b"d", "Not a directory"), (b"s", "Not a directory")) == failed.failed
    assert {"a": b"untouched"} == read_tree(outside)
    assert {"d": Link(str(outside)), "s": b"a file"} == read_tree(target)


def file_node(name: str, blob: str) -> Node:
    """A file of one blob."""
    at = "2026-11-23T10:00:00Z"
    return Node(
        name=name, type="file", mode=0o644, mtime=at, atime=at, ctime=at, uid=os.geteuid(), gid=os.getegid(),
        content=[blob],
    )  # fmt: skip


def test_a_malicious_tree_stays_inside(tmp_path: Path) -> None:
    """Names that lead elsewhere, what is unknown and ids that are none are refused by name; the rest is restored."""
    repository = make_repository(tmp_path / "repository")
    names = ["../x", "/etc/x", "..", ".", "", "a/b", "nul\\x00", "\\z", "good", "good", "x" * 300]
    with Writer(repository) as writer:
        blob = writer.store(BlobType.DATA, b"content")[0].hex()
        nodes = [file_node(name, blob) for name in names]
        nodes += [file_node("no id", "zz"), file_node("not there", "00" * 32)]
        nodes.append(file_node("time", blob))
        nodes[-1].mtime = "yesterday"
        nodes.append(file_node("door", blob))
        nodes[-1].type = "door"
        for name, kind, change in (
            ("owner", "fifo", {"uid": -1}), ("group", "file", {"gid": 1 << 32}),
            ("link", "symlink", {"linktarget": "a\0b"}),
            ("device", "chardev", {"device": 1 << 70}), ("zoneless", "fifo", {"mtime": "2026-11-23T10:00:00"}),
        ):  # fmt: skip
            nodes.append(file_node(name, blob))
            nodes[-1].type = kind
            for field, value in change.items():
                setattr(nodes[-1], field, value)
        text = encode_tree(encode_node(node) for node in nodes)
        tree = writer.store(BlobType.TREE, text)[0]
    target = tmp_path / "in" / "target"
    target.parent.mkdir()
    with opened(target) as fd:
        restored = Restorer(repository, fd).restore(tree)
    assert {"good": b"content"} == read_tree(target)
    assert ["target"] == os.listdir(target.parent)
    refused = {name.encode() for name in names} | {b"no id", b"not there", b"time", b"door"}
    refused |= {b"owner", b"group", b"link", b"device", b"zoneless"}
    assert refused == {path for path, _ in restored.failed}


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "2262-04-12T00:00:00Z"])
def test_any_time_that_a_tree_may_have_is_restored(tmp_path: Path, at: str) -> None:
    """What lies beyond 64 bits of nanoseconds costs nothing but what the file system can't keep of it."""
    repository = make_repository(tmp_path / "repository")
    with Writer(repository) as writer:
        nodes = [file_node(name, writer.store(BlobType.DATA, b"content")[0].hex()) for name in ("far", "near")]
        nodes[0].mtime = nodes[0].atime = at
        tree = writer.store(BlobType.TREE, encode_tree(encode_node(node) for node in nodes))[0]
    with opened(tmp_path / "target") as fd:
        assert () == Restorer(repository, fd).restore(tree).failed
    os.utime(tmp_path / "repository", ns=(time_ns(at), time_ns(at)))
    assert (tmp_path / "repository").stat().st_mtime == (tmp_path / "target/far").stat().st_mtime
    assert b"content" == (tmp_path / "target/near").read_bytes()


def test_a_directory_that_is_swapped_meanwhile_is_refused(tmp_path: Path) -> None:
    """Another directory, or a link, put in place of one that was just made gets nothing."""
    source = build_tree(tmp_path / "source", {"d": {"a": b"secret"}, "e": {"a": b"secret"}, "ok": {"a": b"fine"}})
    outside = build_tree(tmp_path / "outside", {})
    repository = make_repository(tmp_path / "repository")
    node = tree_of(repository, snapshot(repository, source))
    target = tmp_path / "target"
    with opened(target) as fd:

        def swap_once() -> bool:
            if (target / "d").exists() and (target / "e").exists() and not (target / "moved").exists():
                (target / "d").rename(target / "moved")
                (target / "d").symlink_to(outside)
                (target / "e").rename(target / "moved too")
                (target / "e").mkdir()
            return False

        failed = Restorer(repository, fd, Options(stopping=swap_once)).restore(bytes.fromhex(node.subtree)).failed
    assert {b"d", b"e"} <= {path.split(b"/")[0] for path, _ in failed}
    assert {} == read_tree(outside)
    assert {} == read_tree(target / "e")
    assert {"a": b"fine"} == read_tree(target / "ok")


def test_a_file_that_is_replaced_while_its_content_comes_is_refused(tmp_path: Path) -> None:
    """What took its place is not written to, and not removed; the file is told as failed."""
    source = build_tree(tmp_path / "source", {"large": os.urandom(6 * MIB), "ok": b"fine"})
    victim = build_tree(tmp_path / "outside", {"victim": b"precious"}) / "victim"
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    target = tmp_path / "target"

    def swap() -> bool:
        if (target / "large").exists():
            (target / "large").unlink()
            os.link(victim, target / "large")
        return False

    restored = restore(repository, name, target, Options(stopping=swap))
    assert ((b"large", "another file took its place"),) == restored.failed
    assert {"large": b"precious", "ok": b"fine"} == read_tree(target)
    assert victim.samefile(target / "large")


# Damage


def many(tmp_path: Path) -> tuple[Path, Path, str]:
    """A directory in a repository of many small packs; the repository's path and the snapshot's id."""
    data = {f"{number:03}": os.urandom(3000) for number in range(60)}
    source = build_tree(tmp_path / "source", {"d": data, "big": os.urandom(4 * MIB), "z": b"z"})
    os.link(source / "d" / "000", source / "also 000")
    repository = make_repository(tmp_path / "repository")
    return source, tmp_path / "repository", snapshot(repository, source, pack_size=20_000)


def files_by_pack(repository: Repository, name: str) -> dict[str, set[bytes]]:
    """Which files need which pack, by the index."""
    found: dict[str, set[bytes]] = {}
    tree = tree_of(repository, name)
    for path, node in walk(repository, bytes.fromhex(tree.subtree)):
        for blob in node.content or ():
            place = repository.find(bytes.fromhex(blob))
            assert place is not None
            found.setdefault(place.pack.hex(), set()).add(path)
    return found


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.chmod(0o600)
    path.write_bytes(content)


def test_a_flipped_bit_costs_the_files_that_need_it(tmp_path: Path) -> None:
    """Exactly the files of the blob are named, with the pack; all others are equal, and no half file is left."""
    source, place, name = many(tmp_path)
    repository = reopen(place)
    packs = files_by_pack(repository, name)
    whole = read_tree(source)
    for number, (pack, files) in enumerate(sorted(packs.items())):
        path = place / "data" / pack[:2] / pack
        before = path.read_bytes()
        flip(path, 100)
        target = tmp_path / f"target {number}"
        failed = restore(reopen(place), name, target).failed
        path.write_bytes(before)
        named = {path for path, _ in failed}
        assert named
        assert named <= files
        assert named == {b"big"} or len(named - {b"also 000", b"d/000"}) <= 1
        assert all(pack in reason or "is the same file as" in reason for _, reason in failed)
        assert whole == {**as_dict(read_tree(target)), **lost(whole, named, read_tree(target))}


def as_dict(tree: Any) -> dict[str, Any]:
    """A tree as a plain dict."""
    return dict(tree)


def lost(whole: Any, named: set[bytes], found: Any) -> dict[str, Any]:
    """What has to be added to what was found, to be whole; fails when what is named as lost is there."""
    added: dict[str, Any] = {"d": dict(found["d"])}
    for path in named:
        folder, _, name = path.decode().rpartition("/")
        into = added["d"] if folder else added
        assert name not in (found["d"] if folder else found)
        into[name] = (whole["d"] if folder else whole)[name]
    return added


def test_a_blob_that_lies_twice_is_taken_from_the_other_pack(tmp_path: Path) -> None:
    """With a second copy of every blob, trees included, a pack that is damaged or gone costs nothing."""
    source, place, name = many(tmp_path)
    repository = reopen(place)
    repository.load_index()
    blobs = [(blob, found.type, repository.load_blob(blob)) for blob, found in list(repository.index.blobs())]
    packs = sorted(place.glob("data/*/*"))
    with Writer(repository) as writer:
        for blob, kind, plain in blobs:
            writer.store_as(blob, kind, plain, again=True)
    for number, pack in enumerate(packs):
        if number % 2:
            pack.unlink()
        else:
            flip(pack, 5)
    assert () == restore(reopen(place), name, tmp_path / "target").failed
    assert state(source) == state(tmp_path / "target")


def test_a_tree_that_is_lost_costs_its_directory(tmp_path: Path) -> None:
    """A directory whose tree can't be read is named; the others are restored, it is there and empty."""
    source = build_tree(tmp_path / "source", {"a": {"x": b"x"}, "b": {"y": b"y"}, "c": b"c"})
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    node = tree_of(repository, name)
    with opened(tmp_path / "one") as fd:
        nodes = {node.name: node for node in find.nodes_of([repository.load_blob(bytes.fromhex(node.subtree))])}
        found = repository.find(bytes.fromhex(nodes["a"].subtree))
        assert found is not None
        flip(tmp_path / "repository" / "data" / found.pack.hex()[:2] / found.pack.hex(), found.offset + 20)
        restored = Restorer(repository, fd).restore(bytes.fromhex(node.subtree))
    assert [b"a"] == [path for path, _ in restored.failed]
    assert {"a": {}, "b": {"y": b"y"}, "c": b"c"} == read_tree(tmp_path / "one")


def test_what_differs_is_found(tmp_path: Path) -> None:
    """A comparison names each entry that is other, missing or longer than in the snapshot, and nothing else."""
    source = build_tree(
        tmp_path / "source",
        {"same": b"same", "other": b"other", "longer": b"l", "gone": b"g", "big": os.urandom(3 * MIB), "l": Link("x"),
         "d": {"x": b"x"}, "e": {}, "f": b"f"},
    )  # fmt: skip
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    target = tmp_path / "target"
    restore(repository, name, target)
    (target / "other").write_bytes(b"OTHER")
    (target / "longer").write_bytes(b"ll")
    (target / "gone").unlink()
    flip(target / "big", 2 * MIB)
    (target / "l").unlink()
    (target / "l").symlink_to("y")
    (target / "e").rmdir()
    (target / "e").write_bytes(b"")
    (target / "d" / "x").unlink()
    (target / "d" / "x").symlink_to("../same")
    (target / "f").unlink()
    os.mkfifo(target / "f")
    with opened(target) as fd:
        differences = Comparer(repository).compare(bytes.fromhex(tree_of(repository, name).subtree), fd)
    assert [b"big", b"d/x", b"e", b"f", b"gone", b"l", b"longer", b"other"] == [path for path, _ in differences]


# Stopping, and a target that is full


def test_stopping_leaves_no_half_file(tmp_path: Path) -> None:
    """When it is asked to stop it does, and of a file that isn't whole nothing is left."""
    _, place, name = many(tmp_path)
    for after in range(1, 12, 3):
        calls = iter(range(after))
        target = tmp_path / f"target {after}"

        def stopping(calls: Iterator[int] = calls) -> bool:
            return next(calls, None) is None

        with pytest.raises(Interrupted):
            restore(reopen(place), name, target, Options(stopping=stopping))
        assert_whole_files(target, tmp_path / "source")


def test_a_full_target_stops_the_restore(tmp_path: Path) -> None:
    """Without room nothing else is tried: the error is raised, and no half file is left."""
    source = build_tree(
        tmp_path / "source", {"big": os.urandom(6 * MIB), "d": {str(i): os.urandom(MIB) for i in range(4)}}
    )
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    refuses_when_full(repository, name, source, tmp_path / "target", "4m")


def refuses_when_full(
    repository: Repository, name: str, source: Path, target: Path, size: str, options: Options | None = None
) -> None:
    """Into a file system of that size a snapshot is not restored: that is raised, and what is there is whole."""
    target.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", target], capture_output=True)
    if mounted.returncode:
        pytest.skip("not on this platform: a file system can't be mounted here")
    try:
        with pytest.raises(OSError, match="No space left") as raised:
            restore(repository, name, target, options)
        assert errno.ENOSPC == raised.value.errno
        assert_whole_files(target, source)
    finally:
        subprocess.run(["umount", target], check=True)


def assert_whole_files(target: Path, source: Path) -> None:
    """Each file that is there is what it is in the source."""
    for path in target.rglob("*"):
        if path.is_file():
            assert (source / path.relative_to(target)).read_bytes() == path.read_bytes()


def test_progress_is_seen_from_another_thread(tmp_path: Path) -> None:
    """What is done never goes back or beyond what there is to do, and ends there."""
    _, place, name = many(tmp_path)
    repository, progress = reopen(place), Progress()
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append((progress.files, progress.bytes))
            time.sleep(0.001)

    looking = threading.Thread(target=look)
    looking.start()
    with opened(tmp_path / "target") as fd:
        Restorer(repository, fd, progress=progress).restore(bytes.fromhex(tree_of(repository, name).subtree))
    done.set()
    looking.join()
    assert sorted(seen) == seen
    assert (63, 63) == (progress.files, progress.total_files)
    assert 60 * 3000 + 4 * MIB + 1 == progress.bytes == progress.total_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-23T10:00:00.5Z", 1_795_428_000_500_000_000),
        ("2026-11-23T10:00:00.123456789+01:00", 1_795_424_400_123_456_789),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000_000),
    ],
)
def test_times_are_read(text: str, expected: int) -> None:
    """Nanoseconds, zones and times before 1970 are read as they are written."""
    assert expected == time_ns(text)


def test_a_deep_tree_and_a_wide_one(tmp_path: Path) -> None:
    """More levels and more directories than a process may have open are no trouble."""
    repository = make_repository(tmp_path / "repository")
    with Writer(repository) as writer:
        blob = writer.store(BlobType.DATA, b"leaf")[0].hex()
        leaf = deep = writer.store(BlobType.TREE, encode_tree([encode_node(file_node("leaf", blob))]))[0]
        for _ in range(300):
            deep = writer.store(BlobType.TREE, encode_tree([directory_node("d", deep)]))[0]
        wide = [directory_node(f"{number:03}", deep if number == 7 else leaf) for number in range(300)]
        tree = writer.store(BlobType.TREE, encode_tree(wide))[0]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (250, before[1]))
    try:
        with opened(tmp_path / "target") as fd:
            restored = Restorer(repository, fd).restore(tree)
            assert () == restored.failed
            assert () == Comparer(repository).compare(tree, fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (300, 600) == (restored.counts.files, restored.counts.directories)


def directory_node(name: str, tree: bytes) -> bytes:
    """A directory, encoded."""
    node = file_node(name, "")
    node.type, node.content, node.subtree, node.mode = "dir", None, tree.hex(), 0o755
    return encode_node(node)


# With restic


def leave_out_what_it_cannot(program: str, source: Path) -> None:
    """Take away what restic did not know yet in 0.14: attributes of links, and their targets that are no UTF-8."""
    said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60).stdout
    if int(said.split()[1].split(".")[1]) < 17:
        (source / "dangling").unlink()
        if os.geteuid() == 0:
            os.removexattr(source / "link", "trusted.note", follow_symlinks=False)


@pytest.mark.slow
def test_what_restic_stored_comes_back(tmp_path: Path) -> None:
    """A repository that restic made is restored equal to its source, and to what restic restores."""
    for number, program in enumerate(resticses()):
        source = build_everything(tmp_path / f"source {number}")
        leave_out_what_it_cannot(program, source)
        place = tmp_path / f"repository {number}"
        restic(program, str(place), PASSWORD, "init", "--repository-version", "2", "--no-lock")
        restic(program, str(place), PASSWORD, "backup", str(source))
        repository = reopen(place)
        (name,) = [name for name, _ in repository.backend.list(FileKind.SNAPSHOT)]
        assert () == restore(repository, name, tmp_path / f"target {number}").failed
        expected = state(source)
        expected.pop(b"/socket")
        found = state(tmp_path / f"target {number}")
        for path in found:
            if path == b"/zeros":  # what is all zero is a hole afterwards
                continue
            assert expected[path] == found[path], path
        assert expected.keys() == found.keys()


@pytest.mark.slow
def test_restic_restores_what_we_stored(tmp_path: Path) -> None:
    """restic restores our snapshot equal to its source."""
    for number, program in enumerate(resticses()):
        source = build_everything(tmp_path / f"source {number}")
        os.truncate(source / "sparse", 30 * MIB)  # it writes every zero
        leave_out_what_it_cannot(program, source)
        place = tmp_path / f"repository {number}"
        name = snapshot(make_repository(place), source)
        target = tmp_path / f"target {number}"
        restic(program, str(place), PASSWORD, "restore", name, "--target", str(target))
        expected = {path: entry[:8] for path, entry in state(source).items()}
        found = {path: entry[:8] for path, entry in state(target / source.relative_to("/")).items()}
        expected.pop(b"/socket")
        assert expected == found


@pytest.mark.slow
def test_a_directory_of_100000_entries(tmp_path: Path) -> None:
    """A flat directory of that size comes back whole."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(100_000):
        (source / str(number)).write_bytes(b"%d" % number)
    repository = make_repository(tmp_path / "repository")
    name = snapshot(repository, source)
    restored = restore(repository, name, tmp_path / "target")
    assert (100_000, ()) == (restored.counts.files, restored.failed)
    with opened(tmp_path / "target") as fd:
        assert () == Comparer(repository).compare(bytes.fromhex(tree_of(repository, name).subtree), fd)
