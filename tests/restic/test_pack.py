"""Packs: what goes in comes out, a header that makes no sense is refused, and restic's own packs are read."""

import base64
import struct
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.restic.crypto import OVERHEAD, Key
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.pack import BlobType, PackedBlob, Packer, header_length, header_size, read_header

# A pack that restic 0.18.0 made, with the key for it.
RESTIC_KEY = Key(
    base64.b64decode("2tEWfP071C+JKNQo3pPiI6IHLTqi7yOOBiYCSsxtEDs="),
    base64.b64decode("mIi2eO1/zHt2xEirixv0Zg=="),
    base64.b64decode("GXli0V1xhbCqEYxLDlSXbA=="),
)
RESTIC_PACK = base64.b64decode(
    "YiXpzZmbmtkFawVlfNKrRPSe4pFKPjCZyTTF5hNgFmhvmgYl+ojlVXQIUBRlSJXVxW7Z4oIE/o06DUaztaEiv8Fnamypkww9Gqf8Uc0k80sUpMcHerID"
    "HYGnT/hPJhTP8blxql/QFT7i0FOJNS4msWoi+f6IYyfOSDN86bxcPcfgQPnaSQAAAA=="
)

blobs = st.lists(st.tuples(st.sampled_from(BlobType), st.binary(max_size=60), st.integers(0, 2**32 - 1)), min_size=1)


def entries(pack: bytes, key: Key) -> list[PackedBlob]:
    """The blobs that a pack's header names, found from its end as a reader does it."""
    return read_header(pack[-header_length(pack[-4:], len(pack)) :], key)


def sealed_header(key: Key, text: bytes) -> bytes:
    """A header with any text in it, as it stands at the end of a pack."""
    sealed = key.seal(text)
    return sealed + struct.pack("<I", len(sealed))


def test_restic() -> None:
    """A pack of restic's: its entry, and the blob."""
    (blob,) = entries(RESTIC_PACK, RESTIC_KEY)
    # restic compresses every blob of a repository of version 2 for which that pays; this is none.
    assert PackedBlob(sha256(b"hello, repository\n").digest(), BlobType.DATA, 0, 59, 18) == blob
    assert len(RESTIC_PACK) == blob.length + header_size(1, 1)


@given(blobs)
def test_round_trip(contents: list[tuple[BlobType, bytes, int]]) -> None:
    """What is packed is found again, at the offsets where it lies; the header is as long as computed."""
    key, packer = Key.random(), Packer()
    for kind, plain, plain_length in contents:
        packer.add(sha256(plain).digest(), kind, key.seal(plain), plain_length)
    size = packer.size
    pack = bytes(packer.finish(key))
    found = entries(pack, key)
    assert packer.blobs == found
    assert contents == [
        (blob.type, key.open(pack[blob.offset : blob.offset + blob.length]), blob.plain_length) for blob in found
    ]
    compressed = sum(blob.plain_length != 0 for blob in found)
    assert len(pack) - size == header_size(len(found), compressed) == header_length(pack[-4:], len(pack))


def test_absorb() -> None:
    """A packer that takes over another's blobs has both, at new offsets."""
    key, one, two = Key.random(), Packer(), Packer()
    for packer, text in ((one, b"first"), (two, b"second"), (two, b"third")):
        packer.add(sha256(text).digest(), BlobType.DATA, key.seal(text), 0)
    one.absorb(two)
    pack = bytes(one.finish(key))
    found = [key.open(pack[blob.offset : blob.offset + blob.length]) for blob in entries(pack, key)]
    assert [b"first", b"second", b"third"] == found


def test_size_of_plaintext() -> None:
    """A blob's own size is told whether or not it is compressed."""
    assert 18 == PackedBlob(b"", BlobType.DATA, 0, 18 + OVERHEAD, 0).size
    assert 500 == PackedBlob(b"", BlobType.DATA, 0, 60, 500).size


@pytest.mark.parametrize(
    ("tail", "size"),
    [
        (b"\xff\xff\xff\xff", 1000),  # longer than the pack
        (b"\x00\x00\x00\x00", 1000),  # nothing at all
        (struct.pack("<I", 68), 1000),  # too short for one entry
        (struct.pack("<I", 997), 1000),  # no room for the length itself
        (b"", 0),
        (b"\x45\x00", 2),
    ],
)
def test_impossible_length(tail: bytes, size: int) -> None:
    """A length that no header can have is refused before anything is read."""
    with pytest.raises(Damaged):
        header_length(tail, size)


def test_possible_lengths() -> None:
    """The smallest header, and one that is all the pack but its length."""
    assert 73 == header_length(struct.pack("<I", 69), 73)
    assert 1000 == header_length(struct.pack("<I", 996), 1000)


@pytest.mark.parametrize(
    "text",
    [
        b"\x04" + bytes(36),  # no such kind
        b"\xff" + bytes(40),
        b"\x00" + bytes(35),  # a byte is missing
        b"\x02" + bytes(36),  # as long as an entry of a blob that is not compressed
        b"\x00" + bytes(36) + b"\x00",  # an entry, and the beginning of another
    ],
)
def test_header_that_makes_no_sense(text: bytes) -> None:
    """A header whose seal is right, but not its entries."""
    key = Key.random()
    with pytest.raises(Damaged):
        read_header(sealed_header(key, text), key)


def test_header_of_another_key() -> None:
    """A header that another key sealed, or that changed, is refused."""
    with pytest.raises(Damaged):
        read_header(sealed_header(Key.random(), bytes(37)), Key.random())
