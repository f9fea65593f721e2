"""A large directory: a tree that is patched is the one that is made anew, and what is kept of it comes back."""

import random
from array import array
from itertools import pairwise

import pytest

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.facts import SIZE, ctime_of, name_of
from symbiont_datad.restic.large import Large, large_tree, patched_tree
from symbiont_datad.restic.tree import encode_tree

CHANCE = random.Random(7)


def record(name: bytes, ctime: int = 5) -> bytes:
    """A record of this name, whose other facts are all zero."""
    return (bytes(8) + ctime.to_bytes(8, "little", signed=True)).ljust(SIZE, b"\0") + name


def node(name: bytes, version: int) -> bytes:
    """Something like a node, whose length depends on its version."""
    return b'{"name":"%b","version":"%b"}' % (name, b"x" * version)


def anew(entries: dict[bytes, int]) -> tuple[bytes, Large]:
    """The tree of these entries (version by name) without a look at an older one."""
    return large_tree({name: node(name, version) for name, version in entries.items()}, map(record, entries))


@pytest.mark.parametrize("seed", range(60))
def test_a_patched_tree_is_the_one_made_anew(seed: int) -> None:
    """Whatever is added, changed and removed, at the ends, in a row or alone: text and memory are the same."""
    chance = random.Random(seed)
    names = [b"%x" % number for number in chance.sample(range(4096), 40)]
    before = dict.fromkeys(names[: chance.randint(0, 30)], 1)
    share = chance.choice([0.0, 0.1, 0.5, 1.0])
    after = {name: 2 if chance.random() < share else 1 for name in before if chance.random() > share / 2}
    after |= dict.fromkeys(names[30 : 30 + chance.randint(0, 10)], 3)
    text, large = anew(before)
    stay = {record(name) for name, version in after.items() if version == 1}
    nodes = {name: node(name, version) for name, version in after.items() if version != 1}
    assert large.fits(text)
    patch, remembered = patched_tree(large, stay, nodes, map(record, after))
    patched = patch.apply(text)
    assert anew(after) == (patched, remembered)
    assert encode_tree([node(name, after[name]) for name in sorted(after)]) == patched
    assert remembered.fits(patched)
    cuts = sorted(chance.choices(range(len(text)), k=5))
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if end > start]
    assert patched == b"".join(patch.stream(pieces))
    assert len(patched) == patch.size


def test_what_is_kept_comes_back() -> None:
    """All records and lengths; those that are doubtful have their name and match nothing."""
    large = Large([record(b"a"), record(b"b\xff"), record(b"c", -1)], array("I", [3, 4, 70_000]))
    assert large == Large.unpack(large.pack(None))
    kept = Large.unpack(large.pack(lambda one: name_of(one) == b"a" or ctime_of(one) < 0))
    assert kept is not None
    assert [b"a", b"b\xff", b"c"] == [name_of(one) for one in kept.records]
    assert {record(b"b\xff")} == set(large.records) & set(kept.records)
    assert large.lengths == kept.lengths


def test_damage_is_seen() -> None:
    """Whichever byte of what was kept is another one, it is not taken for what it was."""
    large = Large([record(b"%d" % number, number) for number in range(200)], array("I", range(200)))
    kept = large.pack(None)
    for place in range(0, len(kept), 7):
        damaged = bytearray(kept)
        damaged[place] ^= 1 << CHANCE.randrange(8)
        assert Large.unpack(bytes(damaged)) in (None, large)  # a flag that nobody reads may differ
    assert Large.unpack(b"") is None


def test_another_text_does_not_fit() -> None:
    """A tree of another length, or something else of that length, is not patched."""
    text, large = anew({b"a": 1, b"b": 2})
    assert [True, False, False, False] == [
        large.fits(one) for one in (text, text[:-1], b" " + text[1:], text[:-1] + b" ")
    ]
    assert Large([], array("I")).fits(encode_tree(()))


def test_a_long_text_is_patched_a_piece_at_a_time() -> None:
    """None of the pieces is much longer than a MiB, and together they are the text; one that is cut is damaged."""
    text, large = anew({b"%04d" % number: 2000 for number in range(2000)})
    gone = record(b"0007")
    patch, _ = patched_tree(large, set(large.records) - {gone}, {b"1000a": node(b"1000a", 5)}, [record(b"1000a")])
    pieces = [text[start : start + 100_000] for start in range(0, len(text), 100_000)]
    found = [bytes(piece) for piece in patch.stream(pieces)]
    assert patch.apply(text) == b"".join(found)
    assert 4 == len(found)
    assert max(map(len, found)) < 1.2 * (1 << 20)
    with pytest.raises(Damaged, match="too short"):
        list(patch.stream(pieces[:-2]))
