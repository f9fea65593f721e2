"""What goes when a disk is nearly full: in order, and no more than it takes."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.quantities import Share
from symbiont_datad.retention.pressure import (
    Candidate,
    Lack,
    Marks,
    Space,
    Stage,
    lack,
    next_look_s,
    pressed,
    relieve,
    told,
)

MIB = 1 << 20
MARKS = Marks(Share(percent=10), Share(percent=15), Share(percent=10), Share(amount=20))


def space(free_mib: float, inodes: int = 90, total_inodes: int = 100) -> Space:
    """A file system of 100 MiB."""
    return Space(int(free_mib * MIB), 100 * MIB, inodes, total_inodes)


def test_the_marks_say_when_and_how_much() -> None:
    """Below the high mark something is done, up to the low one; bytes and inodes each have theirs."""
    assert not pressed(space(10), MARKS)
    assert pressed(space(9.9), MARKS)
    assert Lack(5 * MIB + 1, 0) == lack(Space(10 * MIB - 1, 100 * MIB, 90, 100), MARKS)
    assert pressed(space(50, 9), MARKS)
    assert Lack(0, 11) == lack(space(50, 9), MARKS)
    assert not lack(space(15, 20), MARKS)
    assert not pressed(space(50, 10), MARKS)
    assert [True, True, False] == [bool(one) for one in (Lack(1, 0), Lack(0, 1), Lack(0, 0))]
    assert not Lack(-5, -1)


def test_the_last_inode_counts() -> None:
    """A file system of a single inode is one that counts them."""
    marks = Marks(inodes_high=Share(percent=100), inodes_low=Share(percent=100))
    assert pressed(space(50, 0, 1), marks)
    assert Lack(0, 1) == lack(space(50, 0, 1), marks)


def test_a_file_system_without_inodes_lacks_none() -> None:
    """btrfs has 0 of 0."""
    assert not pressed(space(50, 0, 0), MARKS)
    assert Lack(0, 0) == lack(space(50, 0, 0), MARKS)


def test_a_mark_above_all_there_is_can_be_reached() -> None:
    """An amount that is more than the disk has means all of it."""
    marks = Marks(Share(amount=200 * MIB), Share(amount=300 * MIB), Share(percent=0), Share(percent=0))
    assert pressed(space(99), marks)
    assert not pressed(space(100), marks)


def test_stages_come_in_order_and_a_later_one_only_if_needed() -> None:
    """Caches are enough for the first; the second needs undoable things too, the oldest first."""

    def stages() -> list[tuple[Stage, list[Candidate]]]:
        return [
            (Stage.CACHES, [Candidate("c2", 2, 10, 1), Candidate("c1", 1, 10, 1)]),
            (Stage.UNDOABLE, [Candidate("u2", 9, 10, 5), Candidate("u1", 8, 10, 5)]),
        ]

    assert ["c1"] == [one.path for _, one in relieve(stages(), Lack(5, 0))]
    assert ["c1", "c2", "u1"] == [one.path for _, one in relieve(stages(), Lack(25, 0))]
    for nothing in (Lack(0, 0), Lack(-1, -1)):
        assert [] == list(relieve(stages(), nothing))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Lack(1, 0), ["byte"]),
        (Lack(2, 0), ["byte", "both"]),
        (Lack(0, 1), ["inode"]),
        (Lack(0, 2), ["inode", "both"]),
        (Lack(1, 1), ["inode", "byte"]),
        (Lack(1, 2), ["inode", "byte", "both"]),
        (Lack(3, 3), ["inode", "byte", "both"]),
    ],
)
def test_what_gives_back_nothing_that_is_missing_stays(wanted: Lack, expected: list[str]) -> None:
    """A file of no bytes is no help to a lack of bytes, and one with another name none to a lack of inodes."""
    candidates = [Candidate("nothing", 0, 0, 0), Candidate("inode", 1, 0, 1), Candidate("byte", 2, 1, 0)]
    found = relieve([(Stage.CACHES, [*candidates, Candidate("both", 3, 1, 1)])], wanted)
    assert expected == [one.path for _, one in found]


def test_a_stage_is_not_looked_at_before_its_time() -> None:
    """Listing what the repository holds takes time: it isn't asked while caches are enough."""
    asked: list[bool] = []

    def stages() -> Iterator[tuple[Stage, list[Candidate]]]:
        yield Stage.CACHES, [Candidate("c", 1, 10, 1)]
        asked.append(True)
        yield Stage.EARLY, [Candidate("e", 1, 10, 1)]

    list(relieve(stages(), Lack(10, 0)))
    assert [] == asked


CANDIDATES = st.lists(
    st.builds(
        Candidate, st.text("abc", min_size=1, max_size=4), st.integers(0, 20), st.integers(0, 50), st.integers(0, 3)
    ),
    max_size=15,
    unique_by=lambda one: one.path,
)


@given(st.tuples(*[CANDIDATES] * 5), st.builds(Lack, st.integers(0, 300), st.integers(0, 10)))
def test_no_more_goes_than_it_takes(found: tuple[list[Candidate], ...], wanted: Lack) -> None:
    """Enough goes if there is enough; without the last one it would not be; what is dearer waits for the rest."""
    stages = list(zip(Stage, found, strict=True))
    going = list(relieve(stages, wanted))
    size, inodes = sum(one.bytes for _, one in going), sum(one.inodes for _, one in going)
    useful = [(one.bytes, one.inodes) for some in found for one in some]
    assert size >= wanted.bytes or size >= sum(one[0] for one in useful)
    assert inodes >= wanted.inodes or inodes >= sum(one[1] for one in useful)
    if going:
        last = going[-1][1]
        assert size - last.bytes < wanted.bytes or inodes - last.inodes < wanted.inodes
    assert [stage for stage, _ in going] == sorted(stage for stage, _ in going)
    for stage, some in stages:
        chosen = [one for one_stage, one in going if one_stage is stage]
        assert chosen == sorted(chosen, key=lambda one: (one.at_ns, one.path))
        if any(one_stage > stage for one_stage, _ in going):
            skipped = [one for one in some if one not in chosen]
            assert all(one.bytes == 0 or one.inodes == 0 or size >= wanted.bytes for one in skipped)


@given(st.floats(0, 100), st.floats(-(1 << 40), 1 << 40))
def test_looks_are_never_too_rare_nor_too_often(free_mib: float, shrinking: float) -> None:
    """At least every ten seconds, at most five times a second, and at rest no more than once a second."""
    wait = next_look_s(space(free_mib), MARKS, shrinking)
    assert 0.2 <= wait <= 10
    assert shrinking > 0 or wait >= 1


def test_looks_come_more_often_the_nearer_the_mark_is() -> None:
    """At 10 MiB a second and 40 MiB to go, it is looked at least four times before the mark."""
    assert 1 == next_look_s(space(50), MARKS, 10 * MIB)
    assert 0.25 == next_look_s(space(20), MARKS, 10 * MIB)
    far = Space(500 << 30, 1000 << 30, 90, 100)
    assert 10 == next_look_s(far, MARKS, 0)
    assert 10 == next_look_s(far, MARKS, 1)
    assert 4 == next_look_s(Space(101 << 30, 1000 << 30, 90, 100), MARKS, 0)
    assert 0.5 == next_look_s(Space((100 << 30) + 2, 1000 << 30, 90, 100), MARKS, 1)
    assert 0.2 == next_look_s(space(9), MARKS, 1)
    assert 1 == next_look_s(space(9), MARKS, 0)


def test_what_is_told_has_bytes_and_inodes() -> None:
    """For people."""
    assert "5 MiB of 100 MiB free (5 %), 90 % of the inodes" == told(space(5))
    assert "5 MiB of 100 MiB free (5 %)" == told(space(5, 0, 0))
    assert "100 MiB of 100 MiB free (100 %), 100 % of the inodes" == told(space(100, 100))
    assert "0 B of 0 B free (0 %)" == told(Space(0, 0, 0, 0))
