"""Cutting files: the chunks are the file, they stay small, and they find again what was only moved."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.restic.chunk import LARGEST, SMALLEST, WHOLE, pieces

MIB = 1 << 20
SEED = 0x3DA3358B4DC173
"""A polynomial as a repository has one."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor for reading."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def chunks(path: Path, seed: int = SEED) -> list[bytes]:
    """All chunks of a file."""
    with opened(path) as fd:
        return [bytes(piece) for piece, _ in pieces(fd, path.stat().st_size, seed)]


def noise(seed: int, size: int) -> bytes:
    """Bytes without any pattern."""
    return random.Random(seed).randbytes(size)


def stored_again(before: list[bytes], after: list[bytes]) -> int:
    """The bytes of the chunks that were not there before."""
    known = {sha256(chunk).digest() for chunk in before}
    return sum(len(chunk) for chunk in after if sha256(chunk).digest() not in known)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 40 MiB."""
    path = tmp_path_factory.mktemp("large") / "file"
    path.write_bytes(noise(1, 40 * MIB))
    return path


@pytest.fixture(scope="module")
def large_chunks(large: Path) -> list[bytes]:
    """Its chunks."""
    return chunks(large)


# The chunks are the file


@pytest.mark.parametrize("size", [0, 1, SMALLEST, WHOLE, WHOLE + 1, 3 * MIB + 7, 12 * MIB])
def test_the_chunks_together_are_the_file(tmp_path: Path, size: int) -> None:
    """Of any size, in order, without a gap."""
    path = tmp_path / "file"
    path.write_bytes(noise(size, size))

    assert path.read_bytes() == b"".join(chunks(path))


@pytest.mark.parametrize(
    "content", [noise(2, 12 * MIB), b"a" * 12 * MIB, bytes(12 * MIB), b"line\n" * 2 * MIB],
    ids=["noise", "one byte", "zeros", "lines"],
)  # fmt: skip
def test_no_chunk_is_too_large_for_restic_or_needlessly_small(tmp_path: Path, content: bytes) -> None:
    """At most 8 MiB, and only the last may have less than 512 KiB, whatever the file holds."""
    path = tmp_path / "file"
    path.write_bytes(content)

    sizes = [len(chunk) for chunk in chunks(path)]

    assert max(sizes) <= LARGEST == 8 * MIB
    assert min(sizes[:-1]) >= SMALLEST
    assert content == b"".join(chunks(path))


def test_chunks_are_of_a_mebibyte_or_so(large_chunks: list[bytes]) -> None:
    """So many blobs does a large file make."""
    assert 20 <= len(large_chunks) <= 60


# What was only moved is found again


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: b"x" + content,
        lambda content: noise(9, 100_000) + content,
        lambda content: content[12_345:],
        lambda content: content[: 20 * MIB] + b"in the middle" + content[20 * MIB :],
        lambda content: content + b"at the end",
    ],
    ids=["a byte before", "many bytes before", "without its beginning", "in the middle", "at the end"],
)  # fmt: skip
def test_a_small_change_stores_little_again(
    large: Path, large_chunks: list[bytes], tmp_path: Path, edit: Callable[[bytes], bytes]
) -> None:
    """However all that follows moves."""
    path = tmp_path / "edited"
    path.write_bytes(edit(large.read_bytes()))

    assert stored_again(large_chunks, chunks(path)) < 6 * MIB


@pytest.mark.slow
def test_an_insertion_at_the_front_of_a_very_large_file_stores_little_again(tmp_path: Path) -> None:
    """Of 200 MiB that move by a few bytes, nearly all are known."""
    before, after = tmp_path / "before", tmp_path / "after"
    content = noise(3, 200 * MIB)
    before.write_bytes(content)
    after.write_bytes(b"a few bytes" + content)

    assert stored_again(chunks(before), chunks(after)) < 6 * MIB


# The repository decides


def test_a_repository_always_cuts_the_same_way(large: Path, large_chunks: list[bytes]) -> None:
    """Otherwise nothing would be found again."""
    assert large_chunks == chunks(large)


def test_repositories_cut_differently(large: Path) -> None:
    """The sizes of stored blobs must not tell others which files are in a repository."""
    sizes = [[len(chunk) for chunk in chunks(large, seed)] for seed in (SEED, SEED + 2, 0x25B468838DCB75)]

    cuts = [{sum(some[:number]) for number in range(1, len(some))} for some in sizes]

    assert all(not a & b for a, b in [(cuts[0], cuts[1]), (cuts[0], cuts[2]), (cuts[1], cuts[2])])


# Holes


def test_a_hole_is_not_read(tmp_path: Path) -> None:
    """A sparse file of a gibibyte gives its zeros, whole chunks of them, without a look at the disk."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(noise(4, 2 * MIB))
        file.seek(MIB << 10)
        file.write(noise(5, 2 * MIB))
    with opened(path) as fd:
        found = [(len(piece), is_hole) for piece, is_hole in pieces(fd, path.stat().st_size, SEED)]
    holes = [size for size, is_hole in found if is_hole]
    if not holes:
        pytest.skip("not on this platform: the file system has no holes")

    assert (MIB << 10) + 2 * MIB == sum(size for size, _ in found)
    assert SMALLEST == holes[0]  # restic makes holes again in a file that has this chunk
    assert {LARGEST} == set(holes[1:-1])
    assert sum(holes) > 1000 * MIB


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([1, 4096, 100_000, MIB, 9 * MIB])), max_size=6), st.booleans()
)  # fmt: skip
def test_a_file_with_holes_is_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bool, int]], cut: bool
) -> None:
    """Holes and data of any size and order, also at the end: the chunks are what a reader sees."""
    path = tmp_path_factory.mktemp("holes") / "file"
    with path.open("wb") as file:
        for number, (is_hole, size) in enumerate(parts):
            if is_hole:
                file.seek(size, os.SEEK_CUR)
            else:
                file.write(noise(number, size))
        file.truncate(max(file.tell() - cut, 0))

    assert path.read_bytes() == b"".join(chunks(path))
    path.unlink()


# Files that change meanwhile


def test_a_file_that_shrinks_while_it_is_read_ends_early(tmp_path: Path) -> None:
    """Fewer bytes come, in chunks that are right as far as they go; the caller sees that they are too few."""
    path = tmp_path / "file"
    content = noise(6, 20 * MIB)
    path.write_bytes(content)
    read = b""
    with opened(path) as fd:
        for piece, _ in pieces(fd, 20 * MIB, SEED):
            if not read:
                os.truncate(path, 15 * MIB)
            read += piece

    assert 1 * MIB < len(read) < 20 * MIB
    assert content.startswith(read)


def test_a_file_that_grows_while_it_is_read_is_read_as_far_as_it_was(tmp_path: Path) -> None:
    """What is appended later is no part of it."""
    path = tmp_path / "file"
    path.write_bytes(noise(7, 3 * MIB))
    with opened(path) as fd:
        cutting = pieces(fd, 3 * MIB, SEED)
        read = bytes(next(cutting)[0])
        with path.open("ab") as file:
            file.write(b"more")
        read += b"".join(bytes(piece) for piece, _ in cutting)

    assert noise(7, 3 * MIB) == read
