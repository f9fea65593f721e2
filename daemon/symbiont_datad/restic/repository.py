"""A repository: its key, its small files, its index, and reading blobs. `writer` adds blobs to it.

What holds at every moment, so that a kill at any instant leaves each snapshot whole: a pack is saved before the index
file that names it, and an index file before the snapshot that needs it; what is read is read in the opposite order.

Source: restic `doc/design.rst`, "Repository Layout" and "Unpacked Data Format".
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import msgspec

from symbiont_datad.restic import polynomial
from symbiont_datad.restic.backend import Backend, FileKind
from symbiont_datad.restic.compression import compress, decompress_any
from symbiont_datad.restic.crypto import Key, Scrypt, make_key_file, open_key_file
from symbiont_datad.restic.errors import (
    Damaged,
    Missing,
    NoRepository,
    RepositoryError,
    RepositoryExists,
    WrongPassword,
)
from symbiont_datad.restic.index import Index, Place
from symbiont_datad.restic.index_cache import IndexCache
from symbiont_datad.restic.lock import Identity
from symbiont_datad.restic.opening import open_blob
from symbiont_datad.restic.records import UNREADABLE, Config, KeyFile, Lock, Snapshot, format_time
from symbiont_datad.restic.text import LONG, LongText

T = TypeVar("T")

VERSION = 2
"""The version of the format that is written. Version 1 (without compression) is read and written as it is."""

_COMPRESSED = b"\x02"
_MOST_KEYS = 20
"""Key files that are tried with a password, as in restic: each try costs a scrypt."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of a repository. `current` is the one that opened it."""

    name: str
    file: KeyFile
    current: bool


class Repository:
    """An open repository. Reading may happen from several threads."""

    def __init__(self, backend: Backend, key: Key, key_name: str, config: Config, level: int | None) -> None:
        """Use `open_repository` or `create_repository`."""
        self.backend = backend
        self.key = key
        self.key_name = key_name
        self.config = config
        self.level = level if config.version >= 2 else None
        self.index = Index()
        self.index_names: set[str] = set()
        self.index_lock = threading.Lock()
        self.index_cache: IndexCache | None = None
        """Where the index is kept besides, if it is; to be set before the index is needed."""
        self._index_read = False

    # Small files

    def load_file(self, kind: FileKind, name: str) -> bytes:
        """The JSON of an index, snapshot, lock or config. Raises Missing or Damaged, with the file's name."""
        return _named(kind, name, lambda: self._open_file(kind, name))

    def _open_file(self, kind: FileKind, name: str) -> bytes:
        text = self.key.open(read_whole(self.backend, kind, name))
        if text[:1] in (b"{", b"["):
            return text
        if text[:1] != _COMPRESSED:
            raise Damaged("it begins like no file of a repository")
        return decompress_any(memoryview(text)[1:])

    def save_file(self, kind: FileKind, text: bytes) -> str:
        """Store the JSON of an index, snapshot or lock; hand back its name."""
        plain = text if self.level is None else _COMPRESSED + compress(text, self.level)
        sealed = self.key.seal(plain)
        name = sha256(sealed).hexdigest()
        self.backend.save(kind, name, [sealed])
        return name

    # Snapshots

    def snapshots(self) -> Iterator[tuple[str, Snapshot]]:
        """Every snapshot with its id, in no order. Raises Damaged at the first that can't be read."""
        for name, _ in self.backend.list(FileKind.SNAPSHOT):
            try:
                yield name, self.snapshot(name)
            except Missing:
                continue  # somebody else has forgotten it meanwhile

    def snapshot(self, name: str) -> Snapshot:
        """One snapshot by its whole id. Raises Missing or Damaged."""
        text = self.load_file(FileKind.SNAPSHOT, name)
        return _named(FileKind.SNAPSHOT, name, lambda: _decode(text, Snapshot))

    def save_snapshot(self, snapshot: Snapshot) -> str:
        """Store a snapshot and hand back its id. All that it needs must be stored and named by index files already."""
        return self.save_file(FileKind.SNAPSHOT, msgspec.json.encode(snapshot))

    # Blobs

    def load_index(self) -> None:
        """Read the index files that were not read yet; the first time, all. Raises Damaged or Missing."""
        names = [name for name, _ in self.backend.list(FileKind.INDEX)]
        if self.index_cache is not None and not self._index_read and not self.index_names:
            kept = self.index_cache.load(names)
            if kept is not None:
                self.index, self.index_names = kept[0], set(kept[1])
        for name in names:
            if name in self.index_names:
                continue
            text = self.load_file(FileKind.INDEX, name)
            with self.index_lock:
                _named(FileKind.INDEX, name, lambda text=text: self.index.load(text))  # type: ignore[misc]
            self.index_names.add(name)
        self._index_read = True

    def need_index(self) -> None:
        """Read the index if it was never read."""
        if not self._index_read:
            self.load_index()

    def keep_index(self) -> None:
        """Keep the index for the next time, if there is a place for it and it was read."""
        if self.index_cache is not None and self._index_read:
            with self.index_lock:
                self.index_cache.save(self.index, self.index_names)

    def find(self, blob: bytes) -> Place | None:
        """Where a blob lies; None when the index, as far as it is loaded, does not know it."""
        with self.index_lock:
            return self.index.find(blob)

    def load_blob(self, blob: bytes) -> bytes:
        """A blob's plaintext, which has the hash that is its id. Raises Missing or Damaged."""
        place = self.find(blob)
        if place is None:
            raise Missing(f"blob {blob.hex()} is in no pack that the index knows")
        sealed = self.backend.load(FileKind.DATA, place.pack.hex(), place.offset, place.length)
        return _named(FileKind.DATA, place.pack.hex(), lambda: self.open_blob(blob, sealed, place.plain_length))

    def load_text(self, blob: bytes) -> bytes | LongText:
        """A blob's plaintext, like `load_blob`; one that is long stays compressed."""
        place = self.find(blob)
        if place is None or place.size < LONG:
            return self.load_blob(blob)
        sealed = self.backend.load(FileKind.DATA, place.pack.hex(), place.offset, place.length)
        return _named(FileKind.DATA, place.pack.hex(), lambda: self.open_text(blob, sealed, place.plain_length))

    def open_text(self, blob: bytes, sealed: bytes | memoryview, plain_length: int) -> bytes | LongText:
        """The plaintext of a blob, like `open_blob`; one that is long stays compressed."""
        if (plain_length or len(sealed)) < LONG:
            return self.open_blob(blob, sealed, plain_length)
        text = LongText(self.key.open(sealed), plain_length)
        text.verify(blob)
        return text

    def open_blob(self, blob: bytes, sealed: bytes | memoryview, plain_length: int) -> bytes:
        """The plaintext of a blob as it lies in its pack; `plain_length` 0: it is not compressed. Raises Damaged."""
        return open_blob(self.key, blob, sealed, plain_length)

    # Locks: what `lock` needs of a repository

    def lock_files(self) -> Iterator[tuple[str, Lock | None]]:
        """Every lock with its name; None for one that can't be read (somebody may be writing it)."""
        for name, _ in list(self.backend.list(FileKind.LOCK)):
            try:
                yield name, _decode(self.load_file(FileKind.LOCK, name), Lock)
            except Missing:
                continue
            except Damaged:
                yield name, None

    def write_lock(self, lock: Lock) -> str:
        """Store a lock; hand back its name."""
        return self.save_file(FileKind.LOCK, msgspec.json.encode(lock))

    def remove_lock(self, name: str) -> None:
        """Remove a lock."""
        self.backend.remove(FileKind.LOCK, name)

    # Keys

    def keys(self) -> list[KeyEntry]:
        """The repository's keys, oldest first. Raises Damaged."""
        found = [
            KeyEntry(name, _load_key_file(self.backend, name), name == self.key_name)
            for name, _ in self.backend.list(FileKind.KEY)
        ]
        return sorted(found, key=lambda entry: entry.file.created)

    def add_key(self, password: str, identity: Identity, now: float, scrypt: Scrypt | None = None) -> str:
        """Let another password open the repository; hand back the new key's name."""
        return _save_key(self.backend, self.key, password, identity, now, scrypt or Scrypt())

    def remove_key(self, name: str) -> None:
        """Remove a key. Raises RepositoryError for the one that opened the repository: it could be the last.

        So could any other be once somebody has removed that one. To be used under an exclusive lock.
        """
        if name == self.key_name:
            raise RepositoryError("the key that opened the repository can't be removed; open it with another one first")
        if self.key_name not in _names(self.backend, FileKind.KEY):
            raise RepositoryError("the key that opened the repository is gone meanwhile; open it with another one")
        self.backend.remove(FileKind.KEY, name)


def create_repository(
    backend: Backend,
    password: str,
    identity: Identity,
    now: float,
    *,
    level: int | None = 3,
    scrypt: Scrypt | None = None,
    settle_s: float = 0.2,
) -> Repository:
    """Make a repository of version 2. `level` is zstd's; None stores everything as it is.

    The config comes last: until it is there, there is no repository. A key without a config is what a killed run has
    left, or the key of somebody who is making the repository just now; if the password opens it, it becomes the key of
    this one. So hosts that begin at the same time end up in the same repository: each waits for `settle_s` until it
    sees the others' keys, and all take the first by name. Raises RepositoryExists.
    """
    if _config(backend) is not None:
        raise RepositoryExists(f"{backend.location}: there is a repository already")
    own, key = "", Key.random()
    if not _names(backend, FileKind.KEY):
        backend.create()
        own = _save_key(backend, key, password, identity, now, scrypt or Scrypt())
    elif any(_names(backend, kind) for kind in (FileKind.SNAPSHOT, FileKind.INDEX, FileKind.DATA)):
        raise RepositoryExists(f"{backend.location}: there are keys and data, but no config: that is lost")
    time.sleep(settle_s)
    sealed = _config(backend)
    if sealed is not None:  # somebody was quicker
        if own and not _opens(key, sealed):
            backend.remove(FileKind.KEY, own)
        return open_repository(backend, password, level=level)
    first = min(_names(backend, FileKind.KEY))
    if own and own != first:
        backend.remove(FileKind.KEY, own)
    try:
        key = open_key_file(_load_key_file(backend, first), password)
    except WrongPassword:
        raise RepositoryExists(
            f"{backend.location}: there is a key that this password does not open, but no config; either somebody else "
            "is making a repository there just now, or its config is lost"
        ) from None
    config = Config(VERSION, _random_id(), f"{polynomial.random_irreducible():x}")
    backend.save(FileKind.CONFIG, "", [key.seal(msgspec.json.encode(config))])
    return Repository(backend, key, first, config, level)


def open_repository(backend: Backend, password: str, *, level: int | None = 3) -> Repository:
    """Open a repository with one of its passwords.

    Raises NoRepository, WrongPassword, Damaged, or RepositoryError for a version that is not known here.
    """
    sealed = _config(backend)
    if sealed is None:
        raise NoRepository(f"{backend.location}: there is no repository")
    name, key = _find_key(backend, password, sealed)
    config = _named(FileKind.CONFIG, "", lambda: _decode(key.open(sealed), Config))
    if config.version not in (1, 2):
        raise RepositoryError(f"{backend.location}: version {config.version} of the format is not known here")
    try:
        valid = polynomial.is_irreducible(int(config.chunker_polynomial, 16))
    except ValueError:
        valid = False
    if not valid:
        raise Damaged("config: its polynomial is none that restic would take")
    return Repository(backend, key, name, config, level)


def read_whole(backend: Backend, kind: FileKind, name: str) -> bytes:
    """A whole file whose name is its hash; read again once when it is not, for the error may be the transport's.

    Raises Missing or Damaged.
    """
    for _ in range(2):
        data = backend.load(kind, name)
        if kind is FileKind.CONFIG or sha256(data).hexdigest() == name:
            return data
    raise Damaged("its content changed since it was written")


def _find_key(backend: Backend, password: str, config: bytes) -> tuple[str, Key]:
    """The first key that the password opens, and that opens the config.

    One that does not is of somebody who began to make the repository at the same time as another, and was killed.
    """
    damage: RepositoryError | None = None
    for name in _names(backend, FileKind.KEY)[:_MOST_KEYS]:
        try:
            key = open_key_file(_load_key_file(backend, name), password)
        except (Damaged, Missing) as error:
            damage = error
        except WrongPassword:
            continue
        else:
            if _opens(key, config):
                return name, key
            damage = Damaged("config: its seal is broken: the data changed, or another key sealed it")
    if damage is not None:
        raise damage
    raise WrongPassword(f"{backend.location}: the password is wrong, no key opens with it")


def _names(backend: Backend, kind: FileKind) -> list[str]:
    return [name for name, _ in backend.list(kind)]


def _config(backend: Backend) -> bytes | None:
    """The config as it is sealed; None when there is none."""
    try:
        return backend.load(FileKind.CONFIG, "")
    except Missing:
        return None


def _opens(key: Key, sealed: bytes) -> bool:
    try:
        key.open(sealed)
    except Damaged:
        return False
    return True


def _load_key_file(backend: Backend, name: str) -> KeyFile:
    return _named(FileKind.KEY, name, lambda: _decode(read_whole(backend, FileKind.KEY, name), KeyFile))


def _save_key(backend: Backend, key: Key, password: str, identity: Identity, now: float, scrypt: Scrypt) -> str:
    file = make_key_file(
        key,
        password,
        created=format_time(now),
        username=identity.username,
        hostname=identity.hostname,
        scrypt=scrypt,
    )
    text = msgspec.json.encode(file)
    name = sha256(text).hexdigest()
    backend.save(FileKind.KEY, name, [text])
    return name


def _random_id() -> str:
    return secrets.token_hex(32)


def _decode(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as error:
        raise Damaged(f"it can't be read ({error})") from None


def _named(kind: FileKind, name: str, work: Callable[[], T]) -> T:
    """Do the work; when it finds damage, say in which file."""
    try:
        return work()
    except Damaged as error:
        file = kind.value if kind is FileKind.CONFIG else f"{kind.value}/{name}"
        raise Damaged(f"{file}: {error}") from None
