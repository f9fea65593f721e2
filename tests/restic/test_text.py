"""Long texts: what is cut into parts has all nodes in order, and what is made in pieces is what is made at once."""

import random
from hashlib import sha256

import pytest
import zstandard

from symbiont_datad.restic.compression import compress, decompress
from symbiont_datad.restic.crypto import Key
from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.spool import Spool
from symbiont_datad.restic.text import LongText, parts, parts_of, seal_text
from symbiont_datad.restic.tree import Attribute, Node, decode_tree, encode_node, encode_tree, quote, split_tree

NAMES = (b"a", b'},{"name":"x","type":"file"', b"\\", b'\\"', b"\xff\xfe", "späße".encode(), b"},{", b"z" * 255)


def a_tree(count: int, seed: int) -> bytes:
    """A tree of files with names that are hard to read, and with attributes, which look like nodes."""
    chance = random.Random(seed)
    names = sorted({chance.choice(NAMES)[:240] + b"%d" % number for number in range(count)})
    return encode_tree([encode_node(a_node(name, chance)) for name in names])


def a_node(name: bytes, chance: random.Random) -> Node:
    time = "2026-01-01T00:00:00Z"
    attributes = [Attribute(f"user.{number}", chance.randbytes(9)) for number in range(chance.choice([0, 0, 1, 3]))]
    return Node(
        name=quote(name), type="file", mtime=time, atime=time, ctime=time, uid=0, gid=0, size=chance.randrange(9),
        extended_attributes=attributes, content=[chance.randbytes(32).hex()],
    )  # fmt: skip


def pieces(text: bytes, size: int) -> list[bytes]:
    """The text in pieces of this size."""
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 7, 100, 300, 1000, 10_000, 10**6])
def test_parts_have_all_nodes_in_order(size: int) -> None:
    """Wherever the pieces of a tree end, its parts are trees, which together have the nodes that the whole has."""
    text = a_tree(60, size)
    found = list(parts(pieces(text, size)))
    assert decode_tree(text) == [node for part in found for node in decode_tree(part)]
    assert [bytes(raw) for raw in split_tree(text)] == [bytes(raw) for part in found for raw in split_tree(part)]
    assert (len(found) > 1) is (size >= 100)
    assert all(part == encode_tree(split_tree(part)) for part in found)


def test_a_tree_that_is_written_otherwise_comes_whole() -> None:
    """One with blanks, one with nothing in it, and what is no tree."""
    for text in (b'{ "nodes": [] }', encode_tree(()), b"", b"{", b"nothing that begins as a tree does"):
        assert [text] == list(parts(pieces(text, 3)))


def test_parts_of_a_text_that_is_short() -> None:
    """One that is in memory is one part."""
    assert (b"{}",) == parts_of(b"{}")


@pytest.mark.parametrize("level", [None, 1])
def test_a_text_in_pieces_is_the_one_at_once(level: int | None) -> None:
    """Its id is its hash, it opens to the text, and it is compressed as restic compresses: the frame says its size."""
    text, key = a_tree(500, 1), Key.random()
    blob, sealed, plain_length = seal_text(pieces(text, 999), len(text), key, level)
    assert sha256(text).digest() == blob
    packed = key.open(sealed)
    assert (len(text) if level else 0) == plain_length
    assert text == (decompress(packed, plain_length) if level else packed)
    if level:
        assert len(text) == zstandard.frame_content_size(packed)
    found = LongText(packed, plain_length)
    found.verify(blob)
    assert len(text) == found.size
    assert text == b"".join(found.pieces()) == b"".join(found.pieces())
    assert decode_tree(text) == [node for part in parts_of(found) for node in decode_tree(part)]


def test_a_long_text_that_is_another_one() -> None:
    """Another content, another length or no frame at all is damage."""
    text = a_tree(9, 2)
    blob = sha256(text).digest()
    for packed, plain_length in (
        (compress(text + b" ", 1), len(text) + 1),
        (compress(text, 1), len(text) + 1),
        (compress(text, 1)[:-9], len(text)),
        (b"no frame", len(text)),
        (text[:-1], 0),
    ):
        with pytest.raises(Damaged):
            LongText(packed, plain_length).verify(blob)


def test_a_spool_gives_back_what_it_was_given() -> None:
    """Nodes of some megabytes, of which most are compressed meanwhile, in the form of a tree."""
    chance = random.Random(3)
    nodes = {b"%06d" % number: encode_node(a_node(b"%06d" % number, chance)) for number in range(9000)}
    spool = Spool()
    for name, node in nodes.items():
        spool.add(bytes(44) + name, node)
    text = b"".join(spool.pieces())
    assert spool.large.size == len(text) - 1
    assert encode_tree(nodes.values()) == text[:-4] + b"]}\n"
    assert [bytes(44) + name for name in nodes] == spool.large.records
