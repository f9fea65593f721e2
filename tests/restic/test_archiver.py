"""Making snapshots: what changed is seen, what did not is not read again, and what can't be read is told."""

import gc
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from symbiont_datad.restic import find
from symbiont_datad.restic.archived import Archived, Options, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.checker import check
from symbiont_datad.restic.chunk import WHOLE
from symbiont_datad.restic.crypto import Buffer, Scrypt
from symbiont_datad.restic.errors import Interrupted, Missing, NoSpace
from symbiont_datad.restic.known import Memory
from symbiont_datad.restic.listing import list_directory
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.prune import Progress, carry_out, forget, survey
from symbiont_datad.restic.prune_plan import Limits, plan
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository, create_repository
from symbiont_datad.restic.restorer import Restorer
from symbiont_datad.restic.tree import Node, decode_tree, encode_node, quote, unquote
from symbiont_datad.restic.writer import Added, Writer
from tests.conftest import AsNobody
from tests.restic.making import IDENTITY, PASSWORD, Disturbed, read_snapshot, reopen
from tests.support import NOBODY, Link, Tree, build_tree, read_tree

SETTLED_S = 2.1
"""Seconds after which a file counts as one that holds still (`SLACK_NS`, and a little)."""

AGENTS: dict[str, Tree | bytes | Link] = {
    "a.json": b"one",
    "b.json": b"two",
    "link": Link("a.json"),
    "deep": {"er": {"c.json": b"three"}},
}
TREE: Tree = {"agents": AGENTS, "logs": {"a.log": b"a line\n"}, "empty": {}}
WIDE: Tree = {**TREE, "agents": {f"{number:03}.json": b"%d" % number for number in range(110)} | AGENTS}


class Files:
    """A repository's files in memory, where no fsync takes its time; it notes what kinds of files were read."""

    location = "memory"

    def __init__(self) -> None:
        self.loads: list[FileKind] = []
        self._files: dict[tuple[FileKind, str], bytes] = {}

    def create(self) -> None:
        """As the protocol has it."""

    def save(self, kind: FileKind, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """As the protocol has it."""
        self._files[kind, name] = b"".join(parts)

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As the protocol has it."""
        self.loads.append(kind)
        try:
            return self._files[kind, name][offset : None if length is None else offset + length]
        except KeyError:
            raise Missing(f"{kind}/{name} is not there") from None

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """As the protocol has it."""
        yield from [(name, len(content)) for (of, name), content in list(self._files.items()) if of is kind]

    def remove(self, kind: FileKind, name: str) -> None:
        """As the protocol has it."""
        self._files.pop((kind, name), None)

    def free(self) -> None:
        """As the protocol has it."""

    def damage(self, pack: str) -> None:
        """Have a pack's content be another one."""
        self._files[FileKind.DATA, pack] = bytes(len(self._files[FileKind.DATA, pack]))


def make_repository(backend: Backend) -> Repository:
    """A new, empty repository."""
    return create_repository(backend, PASSWORD, IDENTITY, time.time(), scrypt=Scrypt(n=1 << 4), settle_s=0)


@dataclass(frozen=True)
class Taken:
    """A snapshot that was made."""

    name: str
    archived: Archived
    added: Added


@dataclass
class Backups:
    """A directory, its repository, and what is remembered from one backup to the next."""

    at: Path
    options: Options = field(default_factory=lambda: Options(IDENTITY))
    repository: Backend = field(default_factory=Files)

    def __post_init__(self) -> None:
        make_repository(self.repository)

    @property
    def source(self) -> Path:
        """What is backed up."""
        return self.at / "source"

    @property
    def memory(self) -> Path:
        """The file that saves time."""
        return self.at / "memory"

    def node(self, name: str) -> Node:
        """What a snapshot says of the whole source."""
        return node_at(self.repository, name, self.source)

    def parents(self) -> tuple[tuple[str, Snapshot], ...]:
        """The snapshots that there are, newest first."""
        return tuple(sorted(reopen(self.repository).snapshots(), key=lambda pair: pair[1].at, reverse=True))

    def take(
        self, source: Path | None = None, meanwhile: Callable[[], object] | None = None, **changes: object
    ) -> Taken:
        """Another snapshot, as a new process would make it; `changes` are made to the options."""
        repository = reopen(self.repository)
        options = replace(self.options, **{"parents": self.parents(), **changes})  # type: ignore[arg-type]
        memory = Memory.load(self.memory, repository.config.id, indexes(repository))
        writer = Disturbed(repository, meanwhile) if meanwhile else Writer(repository)
        taken = take(repository, source or self.source, options, memory, writer)
        memory.save(self.memory, indexes(repository))
        return taken


def take(
    repository: Repository,
    source: Path,
    options: Options,
    memory: Memory | None = None,
    writer: Writer | None = None,
) -> Taken:
    """One snapshot of a directory."""
    target = os.fsencode(source)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with writer or Writer(repository) as sink:
            archived = Archiver(repository, sink, options, memory).archive([(target, fd)])
    finally:
        os.close(fd)
    name = repository.save_snapshot(snapshot_of(archived, sink.added, options, [target], time.time_ns()))
    return Taken(name, archived, sink.added)


def indexes(repository: Repository) -> list[str]:
    """The names of the index files."""
    return [name for name, _ in repository.backend.list(FileKind.INDEX)]


def afresh(source: Path) -> Node:
    """The node of a directory when nothing of it is known."""
    files = Files()
    return node_at(files, take(make_repository(files), source, Options(IDENTITY)).name, source)


def node_at(repository: Backend, name: str, path: Path) -> Node:
    """The node of a directory in a snapshot. That of one above would differ with whatever else is made there."""
    opened = reopen(repository)
    node = find.node_at(opened, opened.snapshot(name), os.fsencode(path))
    assert node is not None
    return node


def nodes_at(repository: Backend, name: str, path: Path) -> dict[bytes, Node]:
    """The nodes in a directory in a snapshot."""
    opened = reopen(repository)
    opened.load_index()
    tree = opened.load_blob(bytes.fromhex(node_at(repository, name, path).subtree))
    return {node.raw_name: node for node in decode_tree(tree)}


def is_whole(repository: Backend) -> bool:
    """Whether every pack can be read and every snapshot has what it needs."""
    return check(reopen(repository), choose=sorted).problems == ()


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    """Nothing was backed up yet, and all files are new."""
    found = Backups(tmp_path)
    build_tree(found.source, TREE)
    return found


@dataclass(frozen=True)
class Settled:
    """What was made a while ago, so that its files hold still."""

    copies: list[Path]
    wide: list[Path]
    just_backed_up: Backups
    part_later: Backups
    unreadable: Backups | None


@pytest.fixture(scope="module")
def settled_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settled]:
    """Everything that has to be of some age, made at once: to wait in each test would take minutes."""
    at = tmp_path_factory.mktemp("settled")
    copies = [build_tree(at / f"{number}" / "source", TREE).parent for number in range(2 * len(CHANGES) + 20)]
    wide = [build_tree(at / f"wide{number}" / "source", WIDE).parent for number in range(3 * len(CHANGES) + 20)]
    with ExitStack() as held:
        unreadable = None
        if os.geteuid() == 0:
            open_path = Path(held.enter_context(TemporaryDirectory(prefix="datad-")))
            unreadable = _unreadable(open_path)
        found = Settled(copies, wide, _backed_up_twice(at / "hot"), _backed_up_once(at / "part"), unreadable)
        time.sleep(SETTLED_S)
        yield found


def _backed_up_twice(at: Path) -> Backups:
    backups = Backups(at)
    build_tree(backups.source, TREE)
    backups.take()
    counts = backups.take().archived.counts
    assert (4, 0) == (counts.files_changed, counts.files_unmodified), "what has just changed is to be read again"
    return backups


def _backed_up_once(at: Path) -> Backups:
    backups = Backups(at)
    build_tree(backups.source, TREE)
    backups.take()
    return backups


def _unreadable(at: Path) -> Backups:
    """A file and a directory that nobody may read, in a tree of nobody's."""
    at.chmod(0o755)
    repository = LocalBackend(str(at / "repository"))
    backups = Backups(at, repository=repository)
    build_tree(backups.source, TREE)
    for path in (at, *at.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for path, mode in ((backups.source / "agents" / "a.json", 0o600), (backups.source / "logs", 0o700)):
        os.chown(path, 0, 0)
        path.chmod(mode)
    return backups


@pytest.fixture
def settled(settled_module: Settled) -> Backups:
    """Files that hold still, and one snapshot of them."""
    found = Backups(settled_module.copies.pop())
    found.take()
    return found


@pytest.fixture
def very_wide(settled_module: Settled, monkeypatch: pytest.MonkeyPatch) -> Backups:
    """A directory of a hundred entries that is treated as one of a million is, and one snapshot of it."""
    monkeypatch.setattr("symbiont_datad.restic.repository.LONG", 1)
    found = Backups(settled_module.wide.pop(), Options(IDENTITY, spool_from=100))
    found.take()
    return found


@pytest.fixture
def wide(settled_module: Settled) -> Backups:
    """The same with a large directory, whose entries are remembered one by one."""
    found = Backups(settled_module.wide.pop())
    found.take()
    return found


# What changed


def _same_size(source: Path) -> None:
    file = source / "agents" / "a.json"
    before = file.stat()
    file.write_bytes(b"ONE")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _other_link(source: Path) -> None:
    (source / "agents" / "link").unlink()
    (source / "agents" / "link").symlink_to("b.json")


def _fifo_instead(source: Path) -> None:
    (source / "agents" / "a.json").unlink()
    os.mkfifo(source / "agents" / "a.json")


def _replaced(source: Path) -> None:
    before = (source / "agents" / "a.json").stat()
    (source / "new").write_bytes(b"uno")
    os.utime(source / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (source / "new").rename(source / "agents" / "a.json")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content of the same size and time": _same_size,
    "content": lambda source: (source / "agents" / "a.json").write_bytes(b"another"),
    "a file that took another's place": _replaced,
    "mode": lambda source: (source / "agents" / "a.json").chmod(0o600),
    "mode of a directory": lambda source: (source / "empty").chmod(0o700),
    "mode of the top": lambda source: source.chmod(0o700),
    "name": lambda source: (source / "agents" / "a.json").rename(source / "agents" / "z.json"),
    "name of a directory": lambda source: (source / "agents" / "deep").rename(source / "agents" / "depth"),
    "target of a link": _other_link,
    "a new file deep down": lambda source: (source / "agents" / "deep" / "er" / "d").write_bytes(b""),
    "a file less deep down": lambda source: (source / "agents" / "deep" / "er" / "c.json").unlink(),
    "a directory less": lambda source: (source / "empty").rmdir(),
    "time only": lambda source: os.utime(source / "agents" / "a.json", ns=(5, 5)),
    "a pipe in a file's place": _fifo_instead,
    "another name for a file": lambda source: os.link(source / "agents" / "a.json", source / "logs" / "a"),
}
if hasattr(os, "setxattr"):
    CHANGES |= {
        "attribute": lambda source: os.setxattr(source / "agents" / "a.json", "user.a", b"b"),
        "attribute of a directory": lambda source: os.setxattr(source / "empty", "user.a", b"b"),
    }
if os.geteuid() == 0:
    CHANGES["owner"] = lambda source: os.chown(source / "agents" / "a.json", 1234, 4321)


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "from the snapshot"])
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_seen(change: str, remembered: bool, settled: Backups) -> None:
    """After any change the snapshot is the same as one that is made without knowing anything."""
    if not remembered:
        settled.memory.unlink()
    _see(change, settled)


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_seen_in_a_large_directory(change: str, wide: Backups) -> None:
    """The same where the entries beside it are known without a look at the old tree."""
    _see(change, wide)


def _see(change: str, backups: Backups) -> None:
    before = backups.node(backups.parents()[0][0])
    CHANGES[change](backups.source)
    taken = backups.take()
    assert before != backups.node(taken.name)
    assert not taken.archived.unchanged
    assert afresh(backups.source) == backups.node(taken.name)
    assert is_whole(backups.repository)
    again = backups.take()
    assert backups.node(taken.name) == backups.node(again.name)
    assert again.archived.unchanged


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "from the snapshot"])
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_seen_in_a_very_large_directory(change: str, remembered: bool, very_wide: Backups) -> None:
    """The same where neither the old tree nor the new one is ever in memory as a whole."""
    if not remembered:
        very_wide.memory.unlink()
    _see(change, very_wide)


def test_a_very_large_directory_is_counted_right(very_wide: Backups) -> None:
    """What is new, what has changed and what is as it was, of files of all kinds and of directories among them."""
    agents = very_wide.source / "agents"
    (agents / "new.json").write_bytes(b"new")
    (agents / "a.json").write_bytes(b"changed")
    (agents / "deep" / "er" / "c.json").write_bytes(b"changed")
    (agents / "large").write_bytes(bytes(WHOLE + 1))
    very_wide.memory.unlink()
    taken = very_wide.take()
    counts = taken.archived.counts
    assert (2, 2, 112) == (counts.files_new, counts.files_changed, counts.files_unmodified)
    assert (0, 4) == (counts.dirs_new, counts.dirs_changed)
    assert very_wide.node(taken.name) == afresh(very_wide.source)
    assert read_tree(very_wide.source) == read_snapshot(reopen(very_wide.repository), taken.name)


def test_a_very_large_directory_of_which_everything_changed(very_wide: Backups) -> None:
    """All is read, and counts as changed; the tree is the one that is made without knowing anything."""
    for number in range(110):
        (very_wide.source / "agents" / f"{number:03}.json").write_bytes(b"changed %d" % number)
    taken = very_wide.take()
    assert (0, 110) == (taken.archived.counts.files_new, taken.archived.counts.files_changed)
    assert very_wide.node(taken.name) == afresh(very_wide.source)


def test_a_very_large_directory_is_pruned_found_and_restored(very_wide: Backups) -> None:
    """What reads trees in parts sees all of them: what is still needed stays, and comes back."""
    (very_wide.source / "agents" / "050.json").write_bytes(b"changed")
    name = very_wide.take().name
    repository = reopen(very_wide.repository)
    forget(repository, [other for other, _ in very_wide.parents() if other != name])
    found = survey(repository, Progress(), lambda: False)
    carry_out(repository, found, plan(found, Limits(max_unused=0)), Progress(), lambda: False)
    assert is_whole(very_wide.repository)
    repository = reopen(very_wide.repository)
    node = node_at(very_wide.repository, name, very_wide.source)
    tree = bytes.fromhex(node.subtree)
    files = {folder + find.decode_node(raw).raw_name for folder, raw in find.files_in(repository, tree)}
    assert files == {os.fsencode(path.relative_to(very_wide.source)) for path in very_wide.source.rglob("*.*")}
    target = very_wide.at / "target"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert () == Restorer(repository, fd).restore(tree).failed
    finally:
        os.close(fd)
    assert read_tree(very_wide.source) == read_tree(target)


def test_a_file_that_goes_from_a_very_large_directory(very_wide: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone before it is read is left out, and those beside it keep their places."""
    (very_wide.source / "agents" / "050.json").write_bytes(b"changed")
    (very_wide.source / "agents" / "051.json").write_bytes(b"changed too")
    very_wide.memory.unlink()

    def list_and_remove(fd: int, *rest: object) -> object:
        found = list_directory(fd, *rest)  # type: ignore[arg-type]
        with suppress(FileNotFoundError):
            os.unlink("050.json", dir_fd=fd)
        return found

    monkeypatch.setattr("symbiont_datad.restic.archiver.list_directory", list_and_remove)
    taken = very_wide.take()
    assert () == taken.archived.unread
    assert 113 == taken.archived.counts.files
    assert read_tree(very_wide.source) == read_snapshot(reopen(very_wide.repository), taken.name)


def test_few_changes_among_very_many_files(very_wide: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are known don't pile up behind one that is read: each keeps its place."""
    monkeypatch.setattr("symbiont_datad.restic.batches._FILES", 4)
    very_wide.memory.unlink()
    for number in (0, 50, 51):
        (very_wide.source / f"agents/{number:03}.json").write_bytes(b"changed")
    taken = very_wide.take()
    assert read_tree(very_wide.source) == read_snapshot(reopen(very_wide.repository), taken.name)
    assert (0, 3) == (taken.archived.counts.files_new, taken.archived.counts.files_changed)


@pytest.mark.parametrize("size", ["large", "very large"])
@pytest.mark.parametrize("change", ["name", "a new file deep down"])
def test_a_large_directory_whose_tree_is_damaged(change: str, size: str, request: pytest.FixtureRequest) -> None:
    """Its files are read anew, whether one of them has changed or only what is below it."""
    wide = request.getfixturevalue("wide" if size == "large" else "very_wide")
    assert isinstance(wide, Backups)
    assert isinstance(wide.repository, Files)
    repository = reopen(wide.repository)
    repository.load_index()
    for place in {place for _, place in repository.index.blobs() if place.type is BlobType.TREE}:
        wide.repository.damage(place.pack.hex())
    CHANGES[change](wide.source)
    taken = wide.take()
    here = wide.source / "agents"
    expected = take(make_repository(fresh := Files()), wide.source, Options(IDENTITY)).name
    assert nodes_at(fresh, expected, here).keys() == nodes_at(wide.repository, taken.name, here).keys()
    assert node_at(fresh, expected, here).subtree == node_at(wide.repository, taken.name, here).subtree
    counts = taken.archived.counts
    assert 114 + (change != "name") == counts.files, "none counts twice"
    assert taken.archived.unread == ()


def test_beside_a_database_in_a_large_directory(wide: Backups) -> None:
    """A log beside a file that only looks like a database's is a file as others are, and stays one."""
    for name in ("x", "x-wal"):
        (wide.source / "agents" / name).write_bytes(b"no database")
    assert afresh(wide.source) == wide.node(wide.take().name)
    assert afresh(wide.source) == wide.node(wide.take().name)


def test_nothing_changed_needs_no_look_at_the_repository(settled: Backups) -> None:
    """Where nothing changed, the tree is the same, nothing is stored, and neither index nor data is read."""
    assert isinstance(settled.repository, Files)
    settled.repository.loads.clear()
    taken = settled.take()
    assert {FileKind.CONFIG, FileKind.KEY, FileKind.SNAPSHOT} == set(settled.repository.loads)
    assert taken.archived.unchanged
    assert 0 == taken.added.data_blobs
    assert 1 == len({settled.node(name).subtree for name, _ in settled.parents()})
    counts = taken.archived.counts
    assert (4, 4, 18) == (counts.files, counts.files_unmodified, counts.bytes)
    assert (0, 0) == (counts.dirs_changed, counts.dirs_new)


def test_nothing_changed_without_the_memory(settled: Backups) -> None:
    """Without the memory the trees are read, no file is, and the tree is the same."""
    settled.memory.unlink()
    taken = settled.take()
    assert taken.archived.unchanged
    assert (4, 0) == (taken.archived.counts.files_unmodified, taken.archived.counts.files_changed)
    assert 0 == taken.added.data_blobs


def test_only_what_changed_is_read(settled: Backups) -> None:
    """One changed file of a directory is read; those beside it and elsewhere are not."""
    (settled.source / "agents" / "a.json").write_bytes(b"more")
    counts = settled.take().archived.counts
    assert (0, 1, 3) == (counts.files_new, counts.files_changed, counts.files_unmodified)


def test_what_just_changed_is_read_again(settled_module: Settled) -> None:
    """A file that was written just before it was read may change again in the same tick of the clock."""
    backups = settled_module.just_backed_up  # twice, and the second time all was read
    assert 4 == backups.take().archived.counts.files_changed
    counts = backups.take().archived.counts
    assert (0, 4) == (counts.files_changed, counts.files_unmodified)


# The memory


def test_a_memory_of_another_repository_is_dropped(settled: Backups) -> None:
    """A repository that was made anew gets everything."""
    settled.repository = Files()
    make_repository(settled.repository)
    taken = settled.take()
    assert (4, 0) == (taken.archived.counts.files_new, taken.archived.counts.files_unmodified)
    assert is_whole(settled.repository)


def test_a_memory_from_before_a_prune_is_dropped(settled: Backups) -> None:
    """What was pruned is stored again, although nothing changed on the disk."""
    repository = reopen(settled.repository)
    forget(repository, [name for name, _ in settled.parents()])
    found = survey(repository, Progress(), lambda: False)
    carry_out(repository, found, plan(found, Limits(max_unused=0)), Progress(), lambda: False)
    taken = settled.take()
    assert 4 == taken.archived.counts.files_new
    assert is_whole(settled.repository)
    assert TREE == read_snapshot(reopen(settled.repository), taken.name)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x94\x01\xa0\x90\x80", os.urandom(4096)])
def test_a_damaged_memory_is_no_error(content: bytes, settled: Backups) -> None:
    """It only saves time."""
    settled.memory.write_bytes(content)
    assert settled.take().archived.unchanged
    assert settled.take().archived.unchanged


def test_a_memory_that_cannot_be_written_is_no_error(settled: Backups) -> None:
    """The backup is made, and the next one as well."""
    settled.memory.unlink()
    settled.memory.mkdir()
    assert settled.take().archived.unchanged
    assert settled.take().archived.unchanged


def test_two_parents(settled_module: Settled) -> None:
    """What a newer snapshot of a part holds is not read again for the whole; what only the older one holds may be."""
    backups = settled_module.part_later
    whole = backups.parents()[0]  # made when the files had just been written
    backups.memory.unlink(missing_ok=True)
    part = backups.take(backups.source / "agents", parents=()).name
    backups.memory.unlink()
    taken = backups.take(parents=((part, reopen(backups.repository).snapshot(part)), whole))
    counts = taken.archived.counts
    assert (0, 1, 3) == (counts.files_new, counts.files_changed, counts.files_unmodified)
    assert is_whole(backups.repository)


# What is left out


def test_hollow_directories_and_omitted_paths(backups: Backups) -> None:
    """A hollow directory is there with its mode and nothing in it; what is omitted is not there."""
    source = os.fsencode(backups.source)
    (backups.source / "logs").chmod(0o750)
    backups.options = replace(
        backups.options, hollow=frozenset([source + b"/logs"]), omit=frozenset([source + b"/agents/deep"])
    )
    for taken in (backups.take(), backups.take()):
        expected: Tree = {
            "agents": {"a.json": b"one", "b.json": b"two", "link": Link("a.json")},
            "logs": {},
            "empty": {},
        }
        assert expected == read_snapshot(reopen(backups.repository), taken.name)
        assert 0o750 == nodes_at(backups.repository, taken.name, backups.source)[b"logs"].mode & 0o777
    backups.options = Options(IDENTITY)
    assert TREE == read_snapshot(reopen(backups.repository), backups.take().name)


# What does not hold still. `stopping` is asked after a directory was listed and before its files are read.


def after_listing(action: Callable[[], object]) -> Callable[[], bool]:
    """Something that happens once files were listed, before the first is read."""
    asked = iter([lambda: None, action])

    def stopping() -> bool:
        next(asked, lambda: None)()
        return False

    return stopping


@pytest.fixture
def flat(tmp_path: Path) -> Backups:
    """One directory of two files."""
    found = Backups(tmp_path)
    build_tree(found.source, {"a": b"one", "b": b"two"})
    return found


def test_a_file_that_vanishes(flat: Backups) -> None:
    """It is not in the snapshot, as if it had gone a moment earlier, and that is no error."""
    taken = flat.take(stopping=after_listing((flat.source / "a").unlink))
    assert ((), ()) == (taken.archived.unread, taken.archived.torn)
    assert {"b": b"two"} == read_snapshot(reopen(flat.repository), taken.name)


@pytest.mark.parametrize(
    "instead", [os.mkfifo, os.mkdir, lambda path: os.symlink("b", path)], ids=["pipe", "directory", "link"]
)
def test_a_file_that_is_replaced(instead: Callable[[Path], None], flat: Backups) -> None:
    """What takes a file's place meanwhile is neither followed nor waited for; the next snapshot has it."""

    def replace_it() -> None:
        (flat.source / "a").unlink()
        instead(flat.source / "a")

    taken = flat.take(stopping=after_listing(replace_it))
    assert {"b": b"two"} == read_snapshot(reopen(flat.repository), taken.name)
    assert is_whole(flat.repository)
    assert {b"a", b"b"} == set(nodes_at(flat.repository, flat.take().name, flat.source))


def test_a_directory_that_is_replaced_by_a_link(tmp_path: Path) -> None:
    """The link is not followed: what is named was not stored. One that is open by then, whichever it is, is."""
    backups = Backups(tmp_path)
    names = ("one", "two", "three")
    build_tree(backups.source, {name: {} for name in names})

    def replace_them() -> None:
        for name in names:
            (backups.source / name).rmdir()
            (backups.source / name).symlink_to("/etc")

    taken = backups.take(stopping=after_listing(replace_them))
    unread = {os.path.basename(path) for path, _ in taken.archived.unread}
    stored = nodes_at(backups.repository, taken.name, backups.source)
    assert (2, 1) == (len(unread), len(stored))
    assert set(map(os.fsencode, names)) == unread | stored.keys()
    assert {"dir"} == {node.type for node in stored.values()}


def test_a_file_that_does_not_hold_still(flat: Backups) -> None:
    """Its name is handed back, its node says so, and the next snapshot has it right."""
    file = flat.source / "a"
    file.write_bytes(bytes(8 << 20))
    with file.open("r+b", buffering=0) as open_file:
        taken = flat.take(meanwhile=lambda: os.pwrite(open_file.fileno(), os.urandom(64), 0))
    assert ((os.fsencode(file), "changed while it was read"),) == taken.archived.torn
    assert nodes_at(flat.repository, taken.name, flat.source)[b"a"].error
    assert is_whole(flat.repository)
    taken = flat.take()
    assert () == taken.archived.torn
    assert {"a": file.read_bytes(), "b": b"two"} == read_snapshot(reopen(flat.repository), taken.name)


def test_a_log_that_grows_is_not_torn(flat: Backups) -> None:
    """What was there when reading began is in the snapshot, whole lines as they were."""
    file = flat.source / "a"
    file.write_bytes(b"".join(b"%07d\n" % number for number in range(200_000)))
    with file.open("ab", buffering=0) as log:
        taken = flat.take(meanwhile=lambda: log.write(b"another line\n"))
    assert () == taken.archived.torn
    tree = read_snapshot(reopen(flat.repository), taken.name)
    stored = tree["a"]
    assert isinstance(stored, bytes)
    assert len(stored) >= 1_600_000
    assert file.read_bytes().startswith(stored)


def test_unreadable_files_are_named_and_tried_again(settled_module: Settled, as_nobody: AsNobody) -> None:
    """What may not be read is named and left out; once it may be read, it is in the next snapshot."""
    backups = settled_module.unreadable
    assert backups is not None
    locked, closed = backups.source / "agents" / "a.json", backups.source / "logs"
    expected = sorted([(os.fsencode(path), "Permission denied") for path in (locked, closed)])
    for _ in range(2):
        taken = as_nobody(backups.take)
        assert expected == sorted(taken.archived.unread)
        assert b"a.json" not in nodes_at(backups.repository, taken.name, backups.source / "agents")
    locked.chmod(0o644)
    closed.chmod(0o755)
    taken = as_nobody(backups.take)
    assert () == taken.archived.unread
    assert TREE == read_snapshot(reopen(backups.repository), taken.name)
    assert is_whole(backups.repository)


# Interrupted, deep, wide


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("asked", [0, 1, 2, 5, 9, 40])
def test_interrupted_leaves_a_usable_repository(asked: int, tmp_path: Path) -> None:
    """Wherever it stops, no snapshot is there, no descriptor is left, and the next backup is whole."""
    backups = Backups(tmp_path)
    build_tree(backups.source, {f"{i}": {f"{j}": b"%d" % j for j in range(3)} for i in range(20)})
    before = descriptors()
    answers = iter([False] * asked)
    with pytest.raises(Interrupted):
        backups.take(stopping=lambda: next(answers, True))
    assert before == descriptors()
    assert () == backups.parents()
    taken = backups.take()
    assert 60 == taken.archived.counts.files
    assert is_whole(backups.repository)


@contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """So many descriptors, and no more, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_and_deep_directories_need_few_descriptors(tmp_path: Path) -> None:
    """2,000 directories beside each other, and some deep below each other, with 256 descriptors."""
    backups = Backups(tmp_path)
    for number in range(2000):
        (backups.source / f"wide{number}").mkdir(parents=True)
        (backups.source / f"wide{number}" / "file").write_bytes(b"%d" % number)
    for top in ("a", "wide1000", "z"):
        deep = backups.source / top / "/".join(["d"] * 120)
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(top.encode())
    before = descriptors()
    with few_descriptors(256):
        taken = backups.take()
        again = backups.take()
    assert (before, ()) == (descriptors(), taken.archived.unread)
    assert 2003 == taken.archived.counts.files
    assert backups.node(taken.name) == backups.node(again.name)
    assert is_whole(backups.repository)


def test_too_deep_is_named(tmp_path: Path) -> None:
    """What lies deeper than an archiver goes is not in the snapshot, and is told."""
    backups = Backups(tmp_path)
    (backups.source / "/".join(["d"] * 130)).mkdir(parents=True)
    taken = backups.take()
    deepest = os.fsencode(backups.source) + b"/d" * 129
    assert ((deepest, "deeper than 128 directories"),) == taken.archived.unread
    assert is_whole(backups.repository)


# Processes that read small files


def crew() -> list[int]:
    """The processes that read for this one."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if pid.isdigit() and b"symbiont_datad.restic.crew" in command and parent == str(os.getpid()):
            found.append(int(pid))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="not on this platform: no /proc")


@pytest.fixture
def crowd(tmp_path: Path) -> Backups:
    """Small files, and one that is large, which processes read."""
    found = Backups(tmp_path, Options(IDENTITY, crew_from=0))
    build_tree(found.source, {f"{i:03}": b"%d" % (i % 290) * i for i in range(300)} | {"large": os.urandom(3 << 20)})
    return found


def test_processes_store_the_same(crowd: Backups) -> None:
    """Whether processes or threads read, the snapshot is the same, and nothing is left to store."""
    taken = crowd.take()
    assert (
        300
        == taken.added.data_blobs
        - len(nodes_at(crowd.repository, taken.name, crowd.source)[b"large"].content or ())
        + 1
    )
    without = take(reopen(crowd.repository), crowd.source, Options(IDENTITY))
    assert crowd.node(taken.name) == crowd.node(without.name)
    assert 0 == without.added.data_blobs
    assert is_whole(crowd.repository)


@needs_proc
def test_a_killed_process_is_no_loss(crowd: Backups) -> None:
    """Its files are read by who asked for them."""
    killed: list[int] = []

    def stopping() -> bool:
        if not killed:
            killed.extend(crew())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        return False

    taken = crowd.take(stopping=stopping)
    assert killed
    assert ((), 301) == (taken.archived.unread, taken.archived.counts.files)
    assert 0 == take(reopen(crowd.repository), crowd.source, Options(IDENTITY)).added.data_blobs
    assert is_whole(crowd.repository)
    assert [] == crew()


def test_a_small_file_that_grows_is_cut_as_others_are(flat: Backups) -> None:
    """When it is large by the time that it is read, it shares its chunks with the next snapshot."""
    grown = os.urandom(1_400_000)
    flat.options = Options(IDENTITY, crew_from=0)
    flat.take(stopping=after_listing(lambda: (flat.source / "a").write_bytes(grown)))
    without = take(reopen(flat.repository), flat.source, Options(IDENTITY))
    assert 0 == without.added.data_blobs


# Names, links and attributes that are no text


def test_names_and_links_that_are_no_text(tmp_path: Path) -> None:
    """Any bytes are a name or a link's target; a link says in JSON what Go's JSON says."""
    backups = Backups(tmp_path)
    backups.source.mkdir()
    every = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    (backups.source / os.fsdecode(every)).write_bytes(b"every byte")
    target = b"bad\xe2\x82\xff<" + "\u2028\ufffd".encode()
    os.symlink(target, os.fsencode(backups.source / "link"))
    node = nodes_at(backups.repository, backups.take().name, backups.source)
    assert {every, b"link"} == set(node)
    assert target == node[b"link"].linktarget_raw
    assert '"linktarget":"bad\\ufffd\\ufffd\\ufffd\\u003c\\u2028\ufffd"'.encode() in encode_node(node[b"link"])


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="not on this platform: no extended attributes")
def test_attributes_of_all_that_has_some(tmp_path: Path) -> None:
    """Attributes of directories and files; of links and pipes where root may set them; names that are no text."""
    backups = Backups(tmp_path)
    build_tree(backups.source, {"file": b"", "directory": {}, "link": Link("file")})
    os.mkfifo(backups.source / "pipe")
    os.setxattr(backups.source / "file", b"user.\xff", b"\0\xff")
    os.setxattr(backups.source / "directory", "user.a", b"")
    expected = {b"file": [("user.\ufffd", b"\0\xff")], b"directory": [("user.a", b"")], b"link": [], b"pipe": []}
    if os.geteuid() == 0:
        for name in ("link", "pipe"):
            os.setxattr(backups.source / name, "trusted.a", b"1", follow_symlinks=False)
            expected[name.encode()] = [("trusted.a", b"1")]
    nodes = nodes_at(backups.repository, backups.take().name, backups.source)
    assert expected == {name: [(a.name, a.value) for a in node.extended_attributes] for name, node in nodes.items()}


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        ("a\\tb\\x01\\u00a0\\U000e0001", "a\tb\x01\u00a0\U000e0001"),
        ("\U0001fae8\u0cf3", "\U0001fae8\u0cf3"),  # of Unicode 15.0, which Python 3.11 does not know
    ],
)
def test_names_are_quoted_as_go_quotes_them(quoted: str, name: str) -> None:
    """What can't be printed is escaped, and what Go can print is not, whatever Unicode this Python knows."""
    assert quoted == quote(name.encode())
    assert name.encode() == unquote(quoted)


# What is rare


def test_the_collector_is_left_as_it_was(tmp_path: Path) -> None:
    """A backup and a restore rest it while they work; where it was off before, it stays off."""
    backups = Backups(tmp_path)
    build_tree(backups.source, TREE)
    gc.disable()
    try:
        repository = reopen(backups.repository)
        taken = backups.take()
        (tmp_path / "target").mkdir()
        fd = os.open(tmp_path / "target", os.O_RDONLY)
        repository.load_index()
        Restorer(repository, fd).restore(bytes.fromhex(backups.node(taken.name).subtree))
        os.close(fd)
        assert not gc.isenabled()
    finally:
        gc.enable()
    backups.take()
    assert gc.isenabled()
    assert TREE == read_tree(tmp_path / "target")


def test_a_large_directory_of_files_alone(tmp_path: Path) -> None:
    """It is remembered entry by entry as others are: what has changed, came and went is seen."""
    backups = Backups(tmp_path)
    build_tree(backups.source, {f"{number:03}": b"%d" % number for number in range(150)})
    backups.take()
    (backups.source / "007").write_bytes(b"changed")
    (backups.source / "008").unlink()
    (backups.source / "new").write_bytes(b"new")
    taken = backups.take()
    assert read_tree(backups.source) == read_snapshot(reopen(backups.repository), taken.name)
    assert 150 == taken.archived.counts.files
    assert afresh(backups.source) == backups.node(taken.name)


def test_a_long_tree_is_stored_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, while others are put together; what that raises is raised, and there is no snapshot."""
    monkeypatch.setattr("symbiont_datad.restic.archiver._LONG_TREE", 1)
    backups = Backups(tmp_path)
    build_tree(backups.source, TREE)
    taken = backups.take()
    assert TREE == read_snapshot(reopen(backups.repository), taken.name)
    assert is_whole(backups.repository)

    class Full(Writer):
        def store_as(self, blob: bytes, kind: BlobType, plain: Buffer, *, again: bool = False) -> bool:
            if kind is BlobType.TREE and threading.current_thread().name.startswith("tree"):
                raise NoSpace("no room for a tree")
            return super().store_as(blob, kind, plain, again=again)

    (backups.source / "agents/a.json").write_bytes(b"changed")
    repository = reopen(backups.repository)
    with pytest.raises(NoSpace, match="no room for a tree"):
        take(repository, backups.source, backups.options, writer=Full(repository))
    assert [taken.name] == [name for name, _ in backups.parents()]


def test_links_and_pipes_that_are_replaced_while_a_large_file_is_read(tmp_path: Path) -> None:
    """What is there by then, or not there, is for the next snapshot; what was listed is not."""
    backups = Backups(tmp_path, Options(IDENTITY, spool_from=1))
    build_tree(backups.source, {"b": Link("x"), "c": Link("x"), "d": Link("x")})
    os.truncate(os.open(backups.source / "a", os.O_CREAT | os.O_WRONLY), 2 << 20)

    def replace_them() -> None:
        (backups.source / "b").unlink()
        (backups.source / "b").write_bytes(b"a file")
        (backups.source / "c").unlink()

    taken = backups.take(stopping=after_listing(replace_them))
    assert ((), ()) == (taken.archived.torn, taken.archived.unread)
    expected: Tree = {"a": bytes(2 << 20), "d": Link("x")}
    assert expected == read_snapshot(reopen(backups.repository), taken.name)
    assert {**expected, "b": b"a file"} == read_snapshot(reopen(backups.repository), backups.take().name)


def test_a_link_that_may_not_be_looked_at_any_more_is_named(open_path: Path, as_nobody: AsNobody) -> None:
    """And left out, as a file is that may not be read; once it may be, it is in the next snapshot."""
    backups = Backups(open_path, Options(IDENTITY, spool_from=1))
    build_tree(backups.source, {"a": b"one", "b": Link("a")})
    os.truncate(backups.source / "a", 2 << 20)
    for path in (open_path, *open_path.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    close = after_listing(lambda: backups.source.chmod(0o400))
    unread = as_nobody(lambda: backups.take(stopping=close).archived.unread)
    assert {(os.fsencode(backups.source / name), "Permission denied") for name in "ab"} == set(unread)
    backups.source.chmod(0o755)
    assert () == backups.take().archived.unread
