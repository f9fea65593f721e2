"""What a repository says of itself: the files that are there, read one by one, so that damage of one hides no other.

`checker` judges it. What is read here is read in the order that lets others write meanwhile: the snapshots before the
index, and the index before the list of packs.
"""

import re
from binascii import unhexlify
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter

import msgspec

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.crypto import OVERHEAD, SALT
from symbiont_datad.restic.errors import Damaged, Interrupted, LockLost, Missing, RepositoryError, Unavailable
from symbiont_datad.restic.index import decode_index
from symbiont_datad.restic.pack import header_entry, header_size
from symbiont_datad.restic.records import UNREADABLE, Config, IndexPack, KeyFile, Lock
from symbiont_datad.restic.repository import Repository, read_whole

REPAIR_INDEX = "`restic repair index` makes a new index from the packs that are there"

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    `file` is its name in the repository (`data/ab12…`), or `tree …` for what is wrong inside a whole pack. `snapshots`
    are the ids of those that it hurts, `paths` some of the paths in them: both only as far as that is known.
    `harmless`: it takes space or tells of an interruption, and hurts nothing.
    """

    file: str
    reason: str
    remedy: str = ""
    snapshots: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    harmless: bool = False


@dataclass(slots=True)
class Progress:
    """How far a check is; another thread may look at it while it runs. `bytes` are of packs, as stored.

    `files` counts what the phase is about: index files, trees or packs. A total of 0 is unknown.
    """

    phase: str = ""
    files: int = 0
    total_files: int = 0
    bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PackEntry:
    """What the index says of a pack: the hash of its header's entries, its blobs' number and bytes, its own bytes."""

    header: bytes
    blobs: int
    body: int
    size: int


@dataclass(slots=True)
class Contents:
    """What was read, and what was found wrong.

    `snapshots`: id and tree's id of each that can be read. `packs`: what the index says; `sizes`: the packs that are
    there, with their bytes. `suspects`: packs that are damaged, and why; `scrub` finds out how much. `lost`: by the
    place of a problem in `problems`, the ids of the trees and chunks that can't be had because of it.
    """

    snapshots: list[tuple[str, str]] = field(default_factory=list)
    packs: dict[str, PackEntry] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    suspects: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    lost: dict[int, frozenset[bytes]] = field(default_factory=dict)

    def add(self, problem: Problem, lost: Iterable[bytes] = ()) -> None:
        """Note a problem, and what is lost by it."""
        if lost := frozenset(lost):
            self.lost[len(self.problems)] = lost
        self.problems.append(problem)


def read_contents(repository: Repository, progress: Progress, ask: Callable[[], None]) -> Contents:
    """Read everything but packs; the repository's index holds afterwards what could be read of it.

    `ask` is called between two files; what it raises ends the reading. Raises Unavailable.
    """
    contents = Contents()
    _check_config(repository, contents)
    _check_keys(repository, contents)
    _check_locks(repository, contents)
    progress.phase = "snapshots"
    for name, _ in list(repository.backend.list(FileKind.SNAPSHOT)):
        ask()
        _read_snapshot(repository, name, contents)
    progress.phase, progress.files = "index", 0
    indexes = list(repository.backend.list(FileKind.INDEX))
    progress.total_files = len(indexes)
    for name, _ in indexes:
        ask()
        _read_index(repository, name, contents)
        progress.files += 1
    progress.phase, progress.files, progress.total_files = "packs", 0, 0
    contents.sizes.update(repository.backend.list(FileKind.DATA))
    _compare_sizes(contents)
    return contents


def reason_of(error: Exception, file: str = "") -> str:
    """What a failure says of a file, without the file's name. What no file is to blame for is raised again."""
    if isinstance(error, (Unavailable, Interrupted, LockLost)):
        raise error
    return str(error).removeprefix(f"{file}: ")


def is_id(text: str) -> bool:
    """Whether this can be the id of a blob or a file."""
    return _ID.fullmatch(text) is not None


def _check_config(repository: Repository, contents: Contents) -> None:
    try:
        config = msgspec.json.decode(repository.load_file(FileKind.CONFIG, ""), type=Config)
        if config != repository.config:
            contents.add(Problem("config", "it is not the one that the repository was opened with"))
    except (RepositoryError, *UNREADABLE) as error:
        contents.add(
            Problem("config", reason_of(error, "config"), "put a copy of this file back; without it nothing opens")
        )


def _check_keys(repository: Repository, contents: Contents) -> None:
    for name, _ in list(repository.backend.list(FileKind.KEY)):
        file = f"keys/{name}"
        try:
            key = msgspec.json.decode(read_whole(repository.backend, FileKind.KEY, name), type=KeyFile)
            if key.kdf != "scrypt" or len(key.salt) != SALT or len(key.data) <= OVERHEAD:
                raise Damaged("it is no key that can be used")
        except Missing:
            continue  # somebody removed it just now
        except (RepositoryError, *UNREADABLE) as error:
            contents.add(
                Problem(
                    file,
                    reason_of(error, file),
                    "open the repository with another key, remove this one and add it anew",
                )
            )


def _check_locks(repository: Repository, contents: Contents) -> None:
    for name, _ in list(repository.backend.list(FileKind.LOCK)):
        file = f"locks/{name}"
        try:
            msgspec.json.decode(repository.load_file(FileKind.LOCK, name), type=Lock)
        except Missing:
            continue  # its owner is done
        except (RepositoryError, *UNREADABLE) as error:
            contents.add(
                Problem(file, reason_of(error, file), "remove it when no other program works in the repository")
            )


def _read_snapshot(repository: Repository, name: str, contents: Contents) -> None:
    file = f"snapshots/{name}"
    try:
        tree = repository.snapshot(name).tree
        if not is_id(tree):
            raise Damaged(f"{tree!r} is not the id of a tree")
    except Missing:
        return  # it was forgotten just now
    except RepositoryError as error:
        contents.add(Problem(file, reason_of(error, file), "it can't be restored any more; forget it", (name,)))
    else:
        contents.snapshots.append((name, tree))


def _read_index(repository: Repository, name: str, contents: Contents) -> None:
    file = f"index/{name}"
    try:
        text = repository.load_file(FileKind.INDEX, name)
        packs = decode_index(text).packs
        if name not in repository.index_names:
            with repository.index_lock:
                repository.index.load_packs(packs)
            repository.index_names.add(name)
        for pack in packs:
            _add_pack(pack, file, contents)
    except RepositoryError as error:
        contents.add(Problem(file, reason_of(error, file), REPAIR_INDEX))


def _add_pack(pack: IndexPack, file: str, contents: Contents) -> None:
    entry = _entry_of(pack)
    if entry is None:
        contents.add(Problem(file, f"it says of pack {pack.id} that its blobs overlap or leave a gap", REPAIR_INDEX))
        return
    known = contents.packs.setdefault(pack.id, entry)
    if known is entry:
        return
    if known == entry:
        contents.add(
            Problem(file, f"another index file names pack {pack.id} too", "prune writes a new index", harmless=True)
        )
    else:
        contents.add(Problem(file, f"it says something else of pack {pack.id} than another index file", REPAIR_INDEX))


def _entry_of(pack: IndexPack) -> PackEntry | None:
    """What the index says of a pack; None when its blobs don't follow each other."""
    header = []
    end = compressed = 0
    for blob in sorted(pack.blobs, key=attrgetter("offset")):
        if blob.offset != end:
            return None
        length, plain_length = blob.length, blob.uncompressed_length
        end += length
        compressed += plain_length != 0
        header.append(header_entry(unhexlify(blob.id), blob.type == "tree", length, plain_length))
    blobs = len(header)
    return PackEntry(sha256(b"".join(header)).digest(), blobs, end, end + header_size(blobs, compressed))


def _compare_sizes(contents: Contents) -> None:
    """Whether each pack that the index names is there, as long as it must be; and which packs no index names."""
    for name, entry in contents.packs.items():
        size = contents.sizes.get(name)
        if size is None:
            contents.suspects[name] = "it isn't there"
        elif size != entry.size:
            contents.suspects[name] = f"it has {size} bytes instead of {entry.size}"
    for name, size in contents.sizes.items():
        if name not in contents.packs:
            reason = f"no index file names it ({size} bytes); a backup that was interrupted leaves such packs"
            contents.add(Problem(f"data/{name}", reason, "prune removes it", harmless=True))
