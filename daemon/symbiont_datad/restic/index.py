"""The index: in which pack each blob lies. In memory a blob takes about 50 bytes, however many there are.

Records of a fixed size lie in one array, in buckets by the first two bytes of the blob's id; so a look-up is one
subtraction and a short search, and loading makes no object for a blob that stays.

Source of the file format: restic `doc/design.rst`, "Indexing".
"""

import struct
from array import array
from binascii import unhexlify
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, Self

import msgspec

from symbiont_datad.restic.crypto import OVERHEAD
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.pack import BlobType, PackedBlob
from symbiont_datad.restic.records import UNREADABLE, IndexBlob, IndexFile, IndexPack

ROLL_OVER = 50_000
"""An index file is closed when it names this many blobs, as restic does."""

_RECORD = struct.Struct("<32sIIII")  # id, pack's number * 2 + type, offset, length, plain length
_SIZE = _RECORD.size
_ID = 32
_FEW = 16
"""Records that are fewer than this part of those that are sorted stay apart from them."""
_PREFIX = struct.Struct(f">H{_SIZE - 2}x")
_BUCKETS = 1 << 16
_TYPES = tuple(BlobType)  # looked up in a tuple, because an enum's own call costs more than all else of a look-up

_DECODER = msgspec.json.Decoder(IndexFile)


class Place(NamedTuple):
    """Where a blob lies. `length` as sealed, `plain_length` 0 when it is not compressed; both in bytes."""

    pack: bytes
    type: BlobType
    offset: int
    length: int
    plain_length: int

    @property
    def size(self) -> int:
        """The size of the blob's plaintext in bytes."""
        return self.plain_length or self.length - OVERHEAD


class Index:
    """All blobs of a repository. One thread at a time."""

    def __init__(self) -> None:
        self._packs: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._table = bytearray()
        self._starts = array("I", bytes(4 * (_BUCKETS + 1)))
        self._unsorted = bytearray()
        self._fresh: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """The number of records; a blob that lies in two packs counts twice."""
        return (len(self._table) + len(self._unsorted)) // _SIZE + len(self._fresh)

    @classmethod
    def of_table(cls, packs: list[bytes], table: bytes, starts: bytes) -> Self:
        """The index that `as_table` was asked of."""
        index = cls()
        index._packs = packs
        index._numbers = {pack: number for number, pack in enumerate(packs)}
        index._table = bytearray(table)
        index._starts = array("I", starts)
        return index

    def as_table(self) -> tuple[list[bytes], bytes, bytes]:
        """All packs, all records, and where their buckets begin, as they are here in memory."""
        self._settle()
        return self._packs, bytes(self._table), self._starts.tobytes()

    def load(self, text: bytes) -> None:
        """Add what an index file (its JSON) says. Raises Damaged."""
        self.load_packs(decode_index(text).packs)

    def load_packs(self, packs: Iterable[IndexPack]) -> None:
        """The same for an index file that is decoded."""
        pack_record = _RECORD.pack
        records = self._unsorted
        before = len(records)
        try:
            for pack in packs:
                number = self._number(unhexlify(pack.id)) * 2
                records += b"".join(
                    [
                        pack_record(
                            unhexlify(blob.id), number + (blob.type == "tree"), blob.offset, blob.length,
                            blob.uncompressed_length,
                        )
                        for blob in pack.blobs
                    ]
                )  # fmt: skip
        except (ValueError, struct.error) as error:
            del records[before:]
            raise Damaged(f"an index file can't be read ({error})") from None
        added = len(records) - before
        if not before and added * _FEW < len(self._table):  # to sort them in would take longer than to read them
            for at in range(0, added, _SIZE):
                self._add_fresh(bytes(records[at : at + _SIZE]))
            del records[:added]

    def add(self, pack: bytes, blobs: Iterable[PackedBlob]) -> None:
        """Add a pack that was just saved."""
        number = self._number(pack) * 2
        for blob in blobs:
            self._add_fresh(_RECORD.pack(blob.id, number + blob.type, blob.offset, blob.length, blob.plain_length))
        if len(self._fresh) > max(ROLL_OVER, len(self._table) // _SIZE):
            self._settle()

    def _add_fresh(self, record: bytes) -> None:
        blob = record[:_ID]
        if blob in self._fresh:  # as data and as a tree, or in two packs
            self._unsorted += self._fresh[blob]
        self._fresh[blob] = record

    def find(self, blob: bytes) -> Place | None:
        """Where the blob lies (one of the places, if there are several); None when the index does not know it."""
        if self._unsorted:
            self._settle()
        record = self._fresh.get(blob)
        if record is None:
            bucket = blob[0] << 8 | blob[1]
            start, end = self._starts[bucket] * _SIZE, self._starts[bucket + 1] * _SIZE
            at = self._table.find(blob, start, end)
            while at >= 0 and (at - start) % _SIZE:  # the same bytes across two records
                at = self._table.find(blob, at + 1, end)
            if at < 0:
                return None
            return self._place(*_RECORD.unpack_from(self._table, at)[1:])
        return self._place(*_RECORD.unpack(record)[1:])

    def places(self, blob: bytes) -> Iterator[Place]:
        """Everywhere that the blob lies: in several packs, or as data and as a tree."""
        self._settle()
        bucket = blob[0] << 8 | blob[1]
        for at in range(self._starts[bucket] * _SIZE, self._starts[bucket + 1] * _SIZE, _SIZE):
            if self._table.startswith(blob, at):
                yield self._place(*_RECORD.unpack_from(self._table, at)[1:])

    def __contains__(self, blob: bytes) -> bool:
        """Whether the index knows the blob."""
        return self.find(blob) is not None

    def blobs(self) -> Iterator[tuple[bytes, Place]]:
        """Every record, in no order. The index must not change meanwhile."""
        self._settle()
        for blob, *fields in _RECORD.iter_unpack(self._table):
            yield blob, self._place(*fields)

    def packs(self) -> list[bytes]:
        """The ids of all packs that were ever named, also those of which no blob is left."""
        return self._packs

    def _number(self, pack: bytes) -> int:
        number = self._numbers.setdefault(pack, len(self._packs))
        if number == len(self._packs):
            self._packs.append(pack)
        return number

    def _place(self, number: int, offset: int, length: int, plain_length: int) -> Place:
        return Place(self._packs[number >> 1], _TYPES[number & 1], offset, length, plain_length)

    def _settle(self) -> None:
        """Sort what came since the last time into the buckets: a counting sort, by the first two bytes of the id.

        What was added last is found first.
        """
        if not self._unsorted and not self._fresh:
            return
        self._unsorted = bytearray().join((*self._fresh.values(), self._unsorted))
        self._fresh.clear()
        counts = [0] * (_BUCKETS + 1)
        for source in (self._unsorted, self._table):
            for (prefix,) in _PREFIX.iter_unpack(source):
                counts[prefix + 1] += 1
        starts = array("I", accumulate(counts))
        cursor = array("I", starts)
        sorted_table = bytearray(len(self._table) + len(self._unsorted))
        for source in (self._unsorted, self._table):
            view = memoryview(source)
            at = 0
            for (prefix,) in _PREFIX.iter_unpack(source):
                slot = cursor[prefix]
                cursor[prefix] = slot + 1
                sorted_table[slot * _SIZE : slot * _SIZE + _SIZE] = view[at : at + _SIZE]
                at += _SIZE
            view.release()
        self._table, self._starts, self._unsorted = sorted_table, starts, bytearray()


def encode_index(packs: Iterable[tuple[bytes, Iterable[PackedBlob]]]) -> bytes:
    """The JSON of an index file that names these packs."""
    return msgspec.json.encode(
        IndexFile(
            [
                IndexPack(
                    pack.hex(),
                    [
                        IndexBlob(blob.id.hex(), blob.type.word, blob.offset, blob.length, blob.plain_length)
                        for blob in blobs
                    ],
                )
                for pack, blobs in packs
            ]
        )
    )


def decode_index(text: bytes) -> IndexFile:
    """An index file as a record. Raises Damaged."""
    try:
        return _DECODER.decode(text)
    except UNREADABLE as error:
        raise Damaged(f"an index file can't be read ({error})") from None
