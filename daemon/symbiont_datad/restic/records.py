"""The repository's small files as records. Field names and order are restic's.

Source: restic `doc/design.rst`, "Snapshots", "Keys, Encryption and MAC", "Locks", "Indexing". Fields that are left out
when empty are so in restic's own JSON too. Bytes are standard base64 in JSON.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for text that can't be read: of a string that is no UTF-8, and of too deep a nesting, it says so
in Python's own words."""

Id = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]
"""The SHA-256 of a file or a blob in hex. That each digit is one is seen when it becomes bytes."""


class Config(msgspec.Struct, frozen=True):
    """The repository's config: its id, and the polynomial that restic's own chunker works with (hex)."""

    version: int
    id: str
    chunker_polynomial: str


class KeyFile(msgspec.Struct, frozen=True):
    """A key file: the master key, sealed with what scrypt makes of a password."""

    created: str
    username: str
    hostname: str
    kdf: str
    N: int
    r: int
    p: int
    salt: bytes
    data: bytes


class MacKey(msgspec.Struct, frozen=True):
    """The two halves of the Poly1305-AES key."""

    k: bytes
    r: bytes


class MasterKey(msgspec.Struct, frozen=True):
    """What a key file's `data` opens to."""

    mac: MacKey
    encrypt: bytes


class Lock(msgspec.Struct, frozen=True, omit_defaults=True):
    """A lock. `time` is when it was last refreshed; `uid` and `gid` are left out when they are 0, as restic does."""

    time: str
    exclusive: bool
    hostname: str
    username: str
    pid: int
    uid: int = 0
    gid: int = 0
    namespace: str = ""
    """Ours alone: which pid namespace `pid` is a number of, so that a dead pid is told from a foreign one."""


class IndexBlob(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One blob of a pack. `length` as stored; `uncompressed_length` only of compressed blobs. Both in bytes."""

    id: Id
    type: Literal["data", "tree"]
    offset: int
    length: int
    uncompressed_length: int = 0


class IndexPack(msgspec.Struct, frozen=True, gc=False):
    """One pack and its blobs."""

    id: Id
    blobs: list[IndexBlob]


class IndexFile(msgspec.Struct, frozen=True):
    """One index file."""

    packs: list[IndexPack]


class Summary(msgspec.Struct, frozen=True):
    """What a backup did. Sizes in bytes; `data_added_packed` as stored. Times are RFC 3339.

    A field that another program left out counts as nothing. Source: restic 0.17+ `restic.SnapshotSummary`.
    """

    backup_start: str = ""
    backup_end: str = ""
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0
    data_added_packed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A snapshot. `tree` is the id of the root's tree; `paths` are absolute."""

    time: str
    tree: str
    paths: list[str]
    parent: str = ""
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: list[str] = []
    tags: list[str] = []
    original: str = ""
    program_version: str = ""
    summary: Summary | None = None

    @property
    def at(self) -> datetime:
        """Its time, aware of its zone; finer than microseconds is cut off."""
        return parse_time(self.time)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with any number of fractional digits, as Go writes it. Raises ValueError."""
    moment, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{moment}.{rest[:digits][:6]:0<6}{rest[digits:]}"
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a zone")  # and not one that can't be compared with others
    return found


def format_time(seconds: float) -> str:
    """A time (seconds since the epoch) as restic writes it, in UTC."""
    return format_time_ns(round(seconds * 1e6) * 1000)


def format_time_ns(ns: int) -> str:
    """A time (nanoseconds since the epoch) in RFC 3339, UTC, without trailing zeros in the fraction.

    Years outside 0001 to 9999 can't be written so; they are moved to the nearest bound. Go refuses them as well.
    """
    seconds, fraction = divmod(ns, 1_000_000_000)
    if fraction:
        return f"{_whole(seconds)}{f'.{fraction:09d}'.rstrip('0')}Z"
    return f"{_whole(seconds)}Z"


@lru_cache(maxsize=4096)
def _whole(seconds: int) -> str:
    try:
        return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()  # noqa: DTZ001  # UTC, written as Z
    except OverflowError:
        return "9999-12-31T23:59:59" if seconds > 0 else "0001-01-01T00:00:00"
