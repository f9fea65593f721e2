"""What lstat says of a directory's entries: taken in one pass, compared as a whole, and kept for the next time."""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from symbiont_datad.restic.compression import compress, decompress_any
from symbiont_datad.restic.errors import Damaged

_LEVEL = 1

Fact = tuple[bytes, int, int, int, int, int, int, int]
"""Name, mtime and ctime (nanoseconds), size (0 for a directory), inode, mode, uid, gid of one entry."""

_DECODER = msgspec.msgpack.Decoder(list[bytes | int])


class Listing(NamedTuple):
    """A directory's entries in the order in which the file system names them.

    `facts` are those of all entries in one flat list: eight values each, as in `Fact`. `files` and `bytes`: how many
    regular files there are, and their size. `latest_ns`: the youngest ctime of what is no directory.
    """

    names: list[bytes]
    stats: list[os.stat_result | None]
    facts: list[bytes | int]
    files: int
    bytes: int
    latest_ns: int


def list_directory(
    fd: int, omit: Collection[bytes], on_error: Callable[[bytes, OSError], None], *, hollow: bool = False
) -> Listing:
    """List an open directory, without the names in `omit`; a `hollow` one as if nothing were in it.

    What goes in the meantime is no error; of what can't be looked at, `on_error` is told. Raises OSError.
    """
    names: list[bytes] = []
    stats: list[os.stat_result | None] = []
    facts: list[bytes | int] = []
    files = size = latest = 0
    if hollow:
        return Listing(names, stats, facts, 0, 0, 0)
    with os.scandir(fd) as entries:
        for entry in entries:  # this runs for each file of the tree, at every backup
            name = entry.name.encode("utf-8", "surrogateescape")
            if name in omit:
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                on_error(name, error)
                continue
            names.append(name)
            stats.append(found)
            mode, length, ctime = found.st_mode, found.st_size, found.st_ctime_ns
            if stat.S_ISDIR(mode):
                length = 0
            else:
                if ctime > latest:
                    latest = ctime
                if stat.S_ISREG(mode):
                    files += 1
                    size += length
            facts += (name, found.st_mtime_ns, ctime, length, found.st_ino, mode, found.st_uid, found.st_gid)
    return Listing(names, stats, facts, files, size, latest)


def digest(listing: Listing, own: os.stat_result | None) -> bytes:
    """All facts in short, with those of the directory itself if they are given. Access times don't count."""
    found = blake2b(msgspec.msgpack.encode(listing.facts), digest_size=32)
    if own is not None:
        numbers = (own.st_mtime_ns, own.st_ctime_ns, own.st_ino, own.st_mode, own.st_uid, own.st_gid)
        found.update(msgspec.msgpack.encode(numbers))
    return found.digest()


def each(facts: Iterable[bytes | int]) -> Iterator[Fact]:
    """The facts entry by entry."""
    flat = iter(facts)
    return zip(flat, flat, flat, flat, flat, flat, flat, flat, strict=True)


def pack(facts: list[bytes | int], unsure: Collection[bytes], before_ns: int) -> bytes:
    """The facts, to be kept. Entries that are unsure, or changed at `before_ns` or later, will match nothing."""
    kept: list[bytes | int] = []
    for fact in each(facts):
        kept += fact
        if fact[2] >= before_ns or fact[0] in unsure:
            kept[-6] = -1  # no ctime is negative but those before 1970, and then the entry is looked at again
    return compress(msgspec.msgpack.encode(kept), _LEVEL)


def unpack(packed: bytes) -> set[Fact]:
    """The facts that were kept; none if they can't be read."""
    try:
        return set(each(_DECODER.decode(decompress_any(packed))))
    except (Damaged, msgspec.MsgspecError, ValueError, TypeError):
        return set()
