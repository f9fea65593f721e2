"""Targets: the files of a snapshot repository."""

import json
import os
import struct
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import msgspec

from symbiont_datad.jobs.snapshots import readable_snapshots
from symbiont_datad.restic import find
from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.checker import check
from symbiont_datad.restic.compression import compress
from symbiont_datad.restic.contents import Progress, read_contents
from symbiont_datad.restic.crypto import Key, Scrypt
from symbiont_datad.restic.errors import Damaged, RepositoryError
from symbiont_datad.restic.forget import Policy, decide
from symbiont_datad.restic.index import Index
from symbiont_datad.restic.index_cache import IndexCache
from symbiont_datad.restic.known import Memory, Seen
from symbiont_datad.restic.large import Large
from symbiont_datad.restic.lock import Identity, _held_by
from symbiont_datad.restic.metadata import metadata_of
from symbiont_datad.restic.pack import BlobType, Packer, header_length, parse_header, read_header
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository, create_repository, open_repository
from symbiont_datad.restic.restorer import Options, Restorer
from symbiont_datad.restic.text import parts
from symbiont_datad.restic.tree import decode_tree, name_nodes, split_tree, unquote
from symbiont_datad.restic.writer import Writer
from tests.fuzz.engine import LARGEST, Target
from tests.fuzz.memory import MemoryBackend
from tests.fuzz.pieces import JSON, PASSWORD, scratch


@lru_cache
def _key() -> Key:
    return Key.random()


def _pack(data: bytes) -> None:
    parse_header(data)


def _pack_file(data: bytes) -> None:
    key = _key()
    sealed = key.seal(data)
    whole = data[:50] + sealed + struct.pack("<I", len(sealed))
    end = header_length(whole[-4:], len(whole))
    read_header(whole[-end:], key)
    with suppress(Damaged):
        header_length(data[-4:], len(data))
    read_header(data, key)


def _pack_seeds() -> list[bytes]:
    packer = Packer()
    packer.add(b"a" * 32, BlobType.DATA, b"x" * 50, 0)
    packer.add(b"b" * 32, BlobType.TREE, b"y" * 60, 100)
    whole = bytes(packer.finish(_key()))
    entries = _key().open(whole[110:-4])
    return [entries, entries * 20, whole]


def _index(data: bytes) -> None:
    index = Index()
    try:
        index.load(data)
    finally:
        assert index.find(bytes(32)) is None or len(index)
        packs, table, starts = index.as_table()
        assert len(Index.of_table(packs, table, starts)) == len(index)


def _index_seeds() -> list[bytes]:
    blob = {"id": "0" * 64, "type": "data", "offset": 0, "length": 50, "uncompressed_length": 80}
    tree = {"id": "1" * 64, "type": "tree", "offset": 50, "length": 40}
    return [
        json.dumps({"packs": [{"id": "2" * 64, "blobs": [blob, tree]}]}).encode(),
        json.dumps({"supersedes": ["3" * 64], "packs": []}).encode(),
        json.dumps({"packs": [{"id": f"{n:064x}", "blobs": [blob] * 5} for n in range(5)]}).encode(),
    ]


_NODE = {
    "name": "a", "type": "file", "mode": 420, "mtime": "2026-11-23T12:00:00.5+01:00", "atime": "2026-11-23T12:00:00Z",
    "ctime": "2026-11-23T12:00:00Z", "uid": 0, "gid": 0, "user": "root", "inode": 7, "size": 3, "links": 1,
    "content": ["4" * 64], "extended_attributes": [{"name": "user.a", "value": "YQ=="}],
}  # fmt: skip


def _tree_seeds() -> list[bytes]:
    time = _NODE["mtime"]
    common = {"mtime": time, "atime": time, "ctime": time, "uid": 0, "gid": 0}
    nodes = [
        _NODE,
        {"name": "d", "type": "dir", "mode": 2147484141, **common, "subtree": "5" * 64, "content": None},
        {"name": "l", "type": "symlink", "mode": 134218239, **common, "linktarget": "/etc/passwd", "content": None},
        {"name": "p", "type": "fifo", "mode": 33554836, **common, "content": None},
        {"name": "\\xff\\n\\u00e9", "type": "file", **common, "content": [], "size": 0},
        {"name": "../../escaped", "type": "file", **common, "content": [], "size": 0},
        {"name": "z", "type": "dev", "mode": 67109248, "device": 259, **common, "content": None},
    ]
    wholes = [nodes, nodes[:1], nodes[1:3], [nodes[5]], []]
    return [
        *(json.dumps({"nodes": whole}).encode() + b"\n" for whole in wholes),
        *(json.dumps({"nodes": whole}, separators=(",", ":")).encode() + b"\n" for whole in wholes[:3]),
    ]


def _tree(data: bytes) -> None:
    for part in parts(data[at : at + 99] for at in range(0, len(data), 99)):
        decode_tree(part)
    for _, _, raw in name_nodes(data):
        assert bytes(raw)
    split_tree(data)
    for node in decode_tree(data):
        unquote(node.name)
        metadata_of(node)


_TREE_WORDS = (
    *JSON, b'"dir"', b'"symlink"', b'"hardlink"', b'"socket"', b'"chardev"', b'"subtree":', b'"links":2', b'".."',
    b'"a/b"', b'"/etc/cron.d/x"', b'"."', b'""', b'"\\\\x00"', b'"\\\\x2fetc"', b'"size":1e18', b'"size":1000000000000',
    b'"mode":4294967295', b'"0001-01-01T00:00:00Z"', b'"9999-12-31T23:59:59.999999999-23:59"', b'"uid":4294967296',
    b'"uid":-1', b'"device":18446744073709551615', b'"name":"security.selinux"', b'"linktarget_raw":"/w=="',
)  # fmt: skip


class _Repository:
    """A small repository in memory, as it was before each input; `spoilt` is it with one more file."""

    def __init__(self) -> None:
        backend = MemoryBackend()
        self.repository = create_repository(
            backend, PASSWORD, Identity("h", "u", 1, 0, 0), 1.8e9, scrypt=Scrypt(n=16), settle_s=0
        )
        with Writer(self.repository) as writer:
            self.chunk, _ = writer.store(BlobType.DATA, b"abc")
            tree = json.dumps({"nodes": [{**_NODE, "content": [self.chunk.hex()]}]}).encode() + b"\n"
            self.tree, _ = writer.store(BlobType.TREE, tree)
        self.repository.save_snapshot(Snapshot("2026-11-23T12:00:00Z", self.tree.hex(), ["/data"], hostname="h"))
        self.files = dict(backend.files)

    def opened(self) -> tuple[MemoryBackend, Repository]:
        """It, open, without asking for the password."""
        backend = MemoryBackend()
        backend.files = dict(self.files)
        base = self.repository
        return backend, Repository(backend, base.key, base.key_name, base.config, 3)


@lru_cache
def _repository() -> _Repository:
    return _Repository()


def _small_file(kind: FileKind) -> Callable[[bytes], None]:
    """A target that reads a sealed file of that kind. The first byte says how it is stored: as it is, or compressed."""

    def feed(data: bytes) -> None:
        how, text = data[:1], data[1:]
        backend, repository = _repository().opened()
        if how == b"z":
            text = b"\x02" + compress(text, 1)
        elif how == b"2":
            text = b"\x02" + text
        sealed = repository.key.seal(text) if how != b"r" else text
        name = sha256(sealed).hexdigest() if kind is not FileKind.CONFIG else ""
        backend.save(kind, name, [sealed])
        contents = read_contents(repository, Progress(), lambda: None)
        assert contents.problems or contents.snapshots
        check(repository)
        with suppress(RepositoryError):
            repository.load_index()
        readable_snapshots(repository)
        for _, lock in repository.lock_files():
            if lock is not None:
                _held_by(lock)
        if kind is FileKind.SNAPSHOT:
            snapshots, _ = readable_snapshots(repository)
            decide(snapshots, Policy(last=1, daily=3, weekly=2, yearly=1), 1.8e9)
            snapshots.sort(key=lambda one: one[1].at)
            for _, one in snapshots:
                list(find.walk(repository, find.blob_id(one.tree), on_error=lambda _path, _error: None))
        if kind is FileKind.CONFIG:
            open_repository(backend, PASSWORD)

    return feed


def _small_seeds(kind: FileKind) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        base = _repository()
        found = []
        for (own, name), _ in base.files.items():
            if own is kind:
                found.append(base.repository.load_file(kind, name))
        if kind is FileKind.LOCK:
            found.append(b'{"time":"2026-11-23T12:00:00Z","exclusive":true,"hostname":"h","username":"u","pid":7}')
        return [how + text for text in found for how in (b"p", b"z", b"2", b"r")]

    return seeds


def _key_file(data: bytes) -> None:
    backend, _ = _repository().opened()
    for kind, name in list(backend.files):
        if kind is FileKind.KEY:
            backend.remove(kind, name)
    backend.save(FileKind.KEY, sha256(data).hexdigest(), [data])
    read_contents(open_repository(backend, PASSWORD), Progress(), lambda: None)


def _key_seeds() -> list[bytes]:
    return [data for (kind, _), data in _repository().files.items() if kind is FileKind.KEY]


def _restored(data: bytes) -> None:
    """A tree is stored and restored. Nothing may appear beside the target, whatever names and links it has."""
    with scratch() as folder:
        _, repository = _repository().opened()
        data = data.replace(b"4" * 64, _repository().chunk.hex().encode())
        data = data.replace(b"5" * 64, _repository().tree.hex().encode())
        with Writer(repository) as writer:
            tree, _ = writer.store(BlobType.TREE, data)
        target = folder / "target"
        target.mkdir()
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            Restorer(repository, fd, Options(threads=1)).restore(tree)
        finally:
            os.close(fd)
            assert ["target"] == os.listdir(folder), os.listdir(folder)
            _remove_strange(target)


def _remove_strange(target: Path) -> None:
    """Attributes and modes that a restore gave would keep a directory from being removed."""
    for below, folders, _ in os.walk(target):
        for name in folders:
            if not os.path.islink(os.path.join(below, name)):
                os.chmod(os.path.join(below, name), 0o700)


def _memory(data: bytes) -> None:
    with scratch() as folder:
        file = folder / "memory"
        file.write_bytes(data)
        for seen in Memory.load(file, "r", ["i"]).directories.values():
            Large.unpack(seen.facts)
        Large.unpack(data)
        Large.unpack(compress(data, 1))
        IndexCache(file, "r").load(["i"])
        file.write_bytes(sha256(data).digest() + data)
        found = IndexCache(file, "r").load(["i"])
        if found is not None:
            found[0].find(bytes(32))


def _memory_seeds() -> list[bytes]:
    with scratch() as folder:
        file = folder / "memory"
        memory = Memory("r")
        large = Large([], array("I"))
        memory.directories[b"/data"] = Seen(b"e", b"c", b"t" * 32, 7, large.pack(None))
        memory.save(file, ["i"])
        index = Index()
        index.load(_index_seeds()[2])
        packs, table, starts = index.as_table()
        kept = msgspec.msgpack.encode([1, "r", ["i"], packs, table, starts])
        return [file.read_bytes(), kept[:LARGEST], msgspec.msgpack.encode([[b"a"], b"\1\0\0\0"])]


_FILE_WORDS = (*JSON, b'"tags":["', b'"paths":', b"0" * 64, b'"pid":-1', b'"time":"', b'"version":')

TARGETS = (
    Target("pack-header", _pack, _pack_seeds, (Damaged,)),
    Target("pack-file", _pack_file, _pack_seeds, (Damaged,)),
    Target("index", _index, _index_seeds, (Damaged,), JSON),
    Target("tree", _tree, _tree_seeds, (Damaged,), _TREE_WORDS),
    Target("restore", _restored, _tree_seeds, (RepositoryError, OSError), _TREE_WORDS),
    *(
        Target(f"{kind.name.lower()}-file", _small_file(kind), _small_seeds(kind), (RepositoryError,), _FILE_WORDS)
        for kind in (FileKind.INDEX, FileKind.SNAPSHOT, FileKind.LOCK, FileKind.CONFIG)
    ),
    Target(
        "key-file", _key_file, _key_seeds, (RepositoryError,),
        (*JSON, b'"N":', b'"r":', b'"p":', b"1048576", b"1073741823"),
    ),
    Target("archiver-memory", _memory, _memory_seeds),
)  # fmt: skip
