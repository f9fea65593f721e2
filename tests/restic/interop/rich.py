"""A tree with a little of everything that a file system can hold, as data; and what can be said of a tree.

What only root can make (other owners, devices, capabilities) is left out for others.
"""

import errno
import os
import random
import re
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

ROOT = os.geteuid() == 0
NOW_NS = 1_700_000_000_123_456_789
_BLOCK = 64 << 10
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What every entry has. `mode` None: as it comes. Attributes that the file system refuses are left out."""

    mode: int | None = None
    owner: tuple[int, int] | None = None
    mtime_ns: int = NOW_NS
    attributes: Mapping[str, bytes] = field(default_factory=dict)

    def make(self, _path: bytes) -> None:
        """Make the entry at this path."""
        raise NotImplementedError


@dataclass(frozen=True)
class File(Entry):
    """A regular file."""

    content: bytes = b""

    def make(self, path: bytes) -> None:
        """As `Entry` has it."""
        with open(path, "xb") as file:
            file.write(self.content)


@dataclass(frozen=True)
class Sparse(Entry):
    """A file of `size` bytes, all hole but for what is written at some positions."""

    size: int
    islands: Mapping[int, bytes] = field(default_factory=dict)

    def make(self, path: bytes) -> None:
        """As `Entry` has it."""
        with open(path, "xb") as file:
            file.truncate(self.size)
            for position, content in self.islands.items():
                os.pwrite(file.fileno(), content, position)


@dataclass(frozen=True)
class Directory(Entry):
    """A directory."""

    def make(self, path: bytes) -> None:
        """As `Entry` has it."""
        os.mkdir(path)


@dataclass(frozen=True)
class Symlink(Entry):
    """A symbolic link."""

    target: bytes

    def make(self, path: bytes) -> None:
        """As `Entry` has it."""
        os.symlink(self.target, path)


@dataclass(frozen=True)
class HardLink(Entry):
    """Another name for a file, by its path from the top."""

    other: bytes
    top: bytes = b""

    def make(self, path: bytes) -> None:
        """As `Entry` has it."""
        os.link(self.other, path, follow_symlinks=False)


@dataclass(frozen=True)
class Special(Entry):
    """A FIFO, socket or device: `kind` as stat(2) has it."""

    kind: int
    device: tuple[int, int] = (0, 0)

    def make(self, path: bytes) -> None:
        """As `Entry` has it."""
        if self.kind == stat.S_IFSOCK:
            here = os.open(".", os.O_RDONLY)
            os.chdir(os.path.dirname(path))  # a socket's path is short
            try:
                with socket.socket(socket.AF_UNIX) as listening:
                    listening.bind(os.path.basename(path))
            finally:
                os.fchdir(here)
                os.close(here)
        else:
            os.mknod(path, self.kind | 0o600, os.makedev(*self.device))


def build(top: Path, entries: Mapping[bytes, Entry]) -> Path:
    """Make the entries below `top`, in their order; hand back `top`."""
    top.mkdir(parents=True)
    base = os.fsencode(top) + b"/"
    here = os.open(".", os.O_RDONLY)
    os.chdir(top)
    try:
        for path, entry in entries.items():
            entry.make(path if isinstance(entry, HardLink) else base + path)
    finally:
        os.fchdir(here)
        os.close(here)
    for path, entry in reversed(list(entries.items())):  # what is in a directory before the directory
        _finish(base + path, entry)
    return top


def _finish(path: bytes, entry: Entry) -> None:
    if isinstance(entry, HardLink):
        return
    if entry.owner is not None and ROOT:
        os.lchown(path, *entry.owner)
    if entry.mode is not None:
        os.chmod(path, entry.mode)
    for name, value in entry.attributes.items():
        if ROOT or name.startswith("user."):
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _acl(user: int) -> bytes:
    """An access control list that lets one more user read, as Linux keeps it (`linux/posix_acl_xattr.h`)."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 6, nobody), (0x02, 4, user), (0x04, 4, nobody), (0x10, 4, nobody), (0x20, 4, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


_MODES = sorted(
    {1 << bit for bit in range(12)} | {0, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0o070, 0o007}
)
_DIRECTORY_MODES = (0o1777, 0o2775, 0o3777, 0o700, 0o555, 0o7777)
_TIMES = {
    b"1901": -(1 << 31) * 10**9,
    b"1969": -1,
    b"1970": 0,
    b"1970, a little": 1,
    b"a whole second": 1_700_000_000_000_000_000,
    b"tenths": 1_700_000_000_100_000_000,
    b"2262": (1 << 63) - 1,
}
_NAMES = [
    b"n" * 255,
    "ä".encode() * 127,
    bytes(byte for byte in range(1, 256) if byte != ord("/")),
    b"-rf", b" ", b" a ", b"new\nline", b"*?[a]", b".hidden", b"...", b"C:\\n\\x41", b'"quoted\' <&>', b"%s%n", b"\xff",
    "e\u0301 \u00e9 \u202e \u2028 \ufffd \U0001f980 \U0001fae8 \U000e0001 \ue000".encode(),
]  # fmt: skip

LARGE = _noise(1, 5 << 20)


def rich() -> dict[bytes, Entry]:
    """The tree."""
    found: dict[bytes, Entry] = {
        b"empty": Directory(),
        b"empty file": File(),
        b"a byte": File(b"\0"),
        b"1 MiB": File(_noise(2, 1 << 20)),
        b"1 MiB and a byte": File(_noise(3, (1 << 20) + 1)),
        b"large": File(LARGE, mode=0o640),
        b"large with an insertion": File(b"inserted " * 111 + LARGE),
        b"zeros": File(bytes(3 << 20)),
        b"hole": Sparse(64 << 20),
        b"islands": Sparse(80 << 20, {0: b"first", 33 << 20: b"in the middle", (80 << 20) - 4: b"last"}),
        b"text": File(b"line\n" * 1000),
        b"pipe": Special(stat.S_IFIFO, mode=0o622),
        b"socket": Special(stat.S_IFSOCK, mode=0o755),
        b"link": Symlink(b"text"),
        b"link to nothing": Symlink(b"../../nowhere"),
        b"link to a directory": Symlink(b"/"),
        b"long link": Symlink(b"d/" * 2000 + b"x"),
        b"link of text": Symlink("ä<&>\u2028\"\\\t\b\f\x01\x7f".encode()),
        b"link of bytes": Symlink(bytes(byte for byte in range(1, 256)) + b"\xe2\x82"),
        b"two names": File(b"one file"),
        b"the other name": HardLink(b"two names"),
        b"attributes": File(b"", attributes={"user.a": b"", "user.binary": bytes(range(256)), "user.\u00e4": b"\xff"}),
        b"directory with attributes": Directory(attributes={"user.a": b"b"}),
        b"acl": File(b"", mode=0o644, attributes={"system.posix_acl_access": _acl(1234)}),
        b"directory with acl": Directory(mode=0o755, attributes={"system.posix_acl_default": _acl(1235)}),
        b"capable": File(
            b"#!", mode=0o755, attributes={"security.capability": struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)}
        ),
        b"of nobody": File(b"", mode=0o6755, owner=(65534, 65533)),
        b"of a large number": File(b"", owner=(4_000_000_000, 3_000_000_000)),
        b"link of nobody": Symlink(b"text", owner=(65534, 65534)),
        b"directory of nobody": Directory(mode=0o2750, owner=(65534, 65534)),
        b"directory of nobody/second name": HardLink(b"two names"),
        b"names": Directory(),
        b"modes": Directory(),
        b"times": Directory(mtime_ns=-5_000_000_001),
    }  # fmt: skip
    if ROOT:
        found[b"character device"] = Special(stat.S_IFCHR, (1, 3), mode=0o666)
        found[b"block device"] = Special(stat.S_IFBLK, (7, 300), mode=0o660, owner=(0, 6))
        found[b"trusted"] = File(b"", attributes={"trusted.a": b"b"})
    found |= {b"names/" + name: File(name) for name in _NAMES}
    found |= {b"modes/%04o" % mode: File(b"%o" % mode, mode=mode) for mode in _MODES if ROOT or mode & 0o400}
    found |= {b"modes/directory %04o" % mode: Directory(mode=mode) for mode in _DIRECTORY_MODES}
    found |= {b"times/" + name: File(name, mtime_ns=time) for name, time in _TIMES.items()}
    found |= {b"times/link " + name: Symlink(name, mtime_ns=time) for name, time in _TIMES.items()}
    found |= {b"deep" + b"/d" * depth: Directory(mtime_ns=NOW_NS + depth) for depth in range(100)}
    found[b"deep" + b"/d" * 99 + b"/file"] = File(b"deep down")
    return found


@dataclass(frozen=True)
class Facts:
    """What is compared of an entry. `digest` of a file's content; `first`: the first of a file's names in the tree."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    attributes: tuple[tuple[str, bytes], ...]
    size: int = 0
    digest: str = ""
    target: bytes = b""
    device: int = 0
    first: bytes = b""


def facts_of(top: Path) -> dict[bytes, Facts]:
    """Everything below a directory, and the directory itself as b"."; without sockets, which no one restores."""
    found: dict[bytes, Facts] = {}
    first: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(top)
    for path in _walk(base):
        name = path[len(base) + 1 :] or b"."
        entry = os.lstat(path)
        kind = stat.S_IFMT(entry.st_mode)
        if kind == stat.S_IFSOCK:
            continue
        other = first.setdefault((entry.st_dev, entry.st_ino), name) if entry.st_nlink > 1 else b""
        found[name] = Facts(
            kind=kind,
            mode=stat.S_IMODE(entry.st_mode),
            owner=(entry.st_uid, entry.st_gid),
            mtime_ns=entry.st_mtime_ns,
            attributes=tuple((n, os.getxattr(path, n, follow_symlinks=False)) for n in _attributes(path)),
            size=entry.st_size if kind == stat.S_IFREG else 0,
            digest=_digest(path) if kind == stat.S_IFREG else "",
            target=os.readlink(path) if kind == stat.S_IFLNK else b"",
            device=entry.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            first=other if kind == stat.S_IFREG else b"",
        )
    return found


def differences(expected: Mapping[bytes, Facts], found: Mapping[bytes, Facts]) -> list[str]:
    """What is not as expected, in words, one line for each entry."""
    lines = [f"{path!r} is missing" for path in expected if path not in found]
    lines += [f"{path!r} is too many" for path in found if path not in expected]
    for path in sorted(expected.keys() & found.keys()):
        here, there = vars(expected[path]), vars(found[path])
        wrong = [f"{name} {here[name]!r} became {there[name]!r}" for name in here if here[name] != there[name]]
        lines += [f"{path!r}: {'; '.join(wrong)}"] if wrong else []
    return lines


def as_kept_by(version: tuple[int, ...], facts: dict[bytes, Facts]) -> dict[bytes, Facts]:
    """What a restic of this version keeps: before 0.16 it took each byte of a link that is no text for a U+FFFD."""
    if version >= (0, 16):
        return facts
    link = facts[b"link of bytes"]
    text = re.sub("[\udc80-\udcff]", "\ufffd", link.target.decode("utf-8", "surrogateescape"))
    return facts | {b"link of bytes": replace(link, target=text.encode())}


def _walk(path: bytes) -> Iterator[bytes]:
    """A path and all below it, the names of a directory in order."""
    yield path
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in sorted(os.listdir(path)):
            yield from _walk(path + b"/" + name)


def _attributes(path: bytes) -> list[str]:
    with suppress(OSError):
        return sorted(os.listxattr(path, follow_symlinks=False))
    return []


def _digest(path: bytes) -> str:
    """A digest of all blocks that are not zero: the same however much of the file is a hole, and holes aren't read."""
    digest = sha256()
    zeros = bytes(_BLOCK)
    with open(path, "rb", buffering=0) as file:
        at, size = 0, os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:  # ENXIO: no data any more
                break
            block = os.pread(file.fileno(), _BLOCK, at)
            if block != zeros[: len(block)]:
                digest.update(b"%d:" % at + block)
            at += _BLOCK
    return digest.hexdigest()
