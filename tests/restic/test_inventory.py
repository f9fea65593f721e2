"""What prune decides by: blobs that lie close are read together, and a tree that makes no sense is told."""

from pathlib import Path

import pytest

from symbiont_datad.restic.errors import Damaged
from symbiont_datad.restic.inventory import Record, spans, take_inventory, used_blobs
from symbiont_datad.restic.pack import BlobType
from symbiont_datad.restic.writer import Writer
from tests.restic.making import make_repository

MIB = 1 << 20


def blob(offset: int, length: int, plain_length: int = 0) -> Record:
    """A blob that lies there."""
    return Record(bytes(32), BlobType.DATA, offset, length, plain_length)


@pytest.mark.parametrize(
    ("blobs", "groups"),
    [
        pytest.param([], [], id="none"),
        pytest.param([blob(100, 50), blob(0, 100)], [[0, 100]], id="in their order"),
        pytest.param([blob(0, 9), blob(MIB, 9), blob(MIB + 99, 9)], [[0], [MIB, MIB + 99]], id="far apart"),
        pytest.param([blob(at * 100, 100, 2 * MIB) for at in range(5)], [[0, 100], [200, 300], [400]], id="much in it"),
        pytest.param([blob(0, 9 * MIB)], [[0]], id="a large one"),
    ],
)  # fmt: skip
def test_what_lies_close_is_read_at_once(blobs: list[Record], groups: list[list[int]]) -> None:
    """Unless that would be too much, as it lies there or when it is opened."""
    found = list(spans("pack", blobs))
    assert groups == [[one.offset for one in span.blobs] for span in found]
    assert {"pack"} >= {span.pack for span in found}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"nodes":[{"name":"a","type":"dir"}]}\n', "has a directory without a tree"),
        (b'{"nodes":7}\n', "can't be read"),
    ],
)
def test_a_tree_that_makes_no_sense_ends_it(tmp_path: Path, text: bytes, reason: str) -> None:
    """Nobody knows then what is needed, so nothing may go."""
    repository = make_repository(tmp_path / "repository")
    with Writer(repository) as writer:
        tree, _ = writer.store(BlobType.TREE, text)
    inventory = take_inventory(repository, lambda: False)
    with pytest.raises(Damaged, match=f"tree {tree.hex()} {reason}"):
        used_blobs(repository, inventory, [tree], lambda _: None, lambda: False)
