"""What an earlier snapshot knows of a file: nothing but all that lstat tells says that it is the same."""

import pytest

from symbiont_datad.restic.facts import Fact
from symbiont_datad.restic.known import Known
from symbiont_datad.restic.tree import Node

NOON_NS = 1_767_268_800_000_000_000
FACT = Fact(mtime_ns=NOON_NS, ctime_ns=NOON_NS, size=5, inode=7, mode=0o100600, uid=1, gid=2)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-01T12:00:00Z", True),
        ("2026-01-01T13:00:00+01:00", True),
        ("2026-01-01T06:30:00-05:30", True),
        ("2026-01-01T12:00:00+01:00", False),
        ("2026-01-01T12:00:00.000000001Z", False),
        ("noon", False),
    ],
)
def test_times_are_compared_in_every_zone(text: str, same: bool) -> None:
    """restic writes them in the zone of its machine; what is no time is no time of this file."""
    node = Node(
        name="a", type="file", mtime=text, atime=text, ctime=text, uid=1, gid=2, inode=7, size=5, content=[],
    )  # fmt: skip
    assert same is Known(node, b"", NOON_NS + 1).is_unchanged(FACT)


def test_what_changed_as_it_was_read_may_have_changed_once_more() -> None:
    """A clock has its grain: a file of the same instant is read again."""
    noon = "2026-01-01T12:00:00Z"
    node = Node(
        name="a", type="file", mtime=noon, atime=noon, ctime=noon, uid=1, gid=2, inode=7, size=5, content=[],
    )  # fmt: skip
    assert not Known(node, b"", NOON_NS).is_unchanged(FACT)
