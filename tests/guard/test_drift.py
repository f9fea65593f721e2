"""What differs between a row of the layout and what was seen. Pure."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.guard.drift import NOTHING, Observed, drifts, wanted_mode
from symbiont_datad.layout import Directory, Layout
from symbiont_datad.report import DriftKind
from tests.guard.keeping import small_layout

ROW = Directory("logs", 0o750, "logs", open=True)
OPTIONAL = Directory("logs", 0o750, "logs", open=True, required=False)
ANYBODYS = small_layout(Path("/nowhere"), ROW)


def seen(mode: int, uid: int = 1000, gid: int = 1000) -> Observed:
    """A directory that was seen."""
    return Observed("a directory", stat.S_IFDIR | mode, uid, gid, 1)


def owned(uid: int, gid: int) -> Layout:
    """A layout whose directories belong to somebody."""
    return Layout("/nowhere", ANYBODYS.directories, (), uid=uid, gid=gid)


@pytest.mark.parametrize(
    ("row", "path", "observed", "layout", "expected"),
    [
        (ROW, "logs", NOTHING, ANYBODYS, [("missing", "a directory", "nothing")]),
        (OPTIONAL, "logs", NOTHING, ANYBODYS, []),
        (ROW, "logs/child", NOTHING, ANYBODYS, []),
        (ROW, "logs", Observed("a FIFO", stat.S_IFIFO), ANYBODYS, [("obstructed", "a directory", "a FIFO")]),
        (OPTIONAL, "logs", Observed("a file", stat.S_IFREG), ANYBODYS, [("obstructed", "a directory", "a file")]),
        (ROW, "logs/child", Observed("a file", stat.S_IFREG), ANYBODYS, []),
        (ROW, "logs", seen(0o750), ANYBODYS, []),
        (ROW, "logs", seen(0o2750), ANYBODYS, []),
        (ROW, "logs", seen(0o1750), ANYBODYS, [("mode", "0o750", "0o1750")]),
        (ROW, "logs", seen(0o6750), ANYBODYS, [("mode", "0o2750", "0o6750")]),
        (ROW, "logs/child", seen(0), ANYBODYS, [("mode", "0o750", "0o0")]),
        (OPTIONAL, "logs", seen(0o755), ANYBODYS, [("mode", "0o750", "0o755")]),
        (ROW, "logs", seen(0o750), owned(1000, 1000), []),
        (ROW, "logs", seen(0o750), owned(0, -1), [("owner", "0:any", "1000:1000")]),
        (ROW, "logs", seen(0o750), owned(-1, 7), [("owner", "any:7", "1000:1000")]),
        (ROW, "logs", seen(0o700), owned(7, 7), [("mode", "0o750", "0o700"), ("owner", "7:7", "1000:1000")]),
    ],
)
def test_drifts(
    row: Directory, path: str, observed: Observed, layout: Layout, expected: list[tuple[str, str, str]]
) -> None:
    """Each way to differ is one drift that says what is declared and what is there."""
    assert [(DriftKind(kind), path, *rest) for kind, *rest in expected] == [
        (one.kind, one.path, one.expected, one.found) for one in drifts(row, path, observed, layout)
    ]


@given(st.integers(0, 0o7777), st.integers(0, 0o7777))
def test_a_mode_that_was_set_is_no_drift(declared: int, found: int) -> None:
    """Whatever a directory's mode was, the one that is set then satisfies the row, and set-group-ID stays."""
    row = Directory("logs", declared, "logs")
    wanted = wanted_mode(row, found)
    assert () == drifts(row, "logs", seen(wanted), ANYBODYS)
    assert wanted & stat.S_ISGID >= found & stat.S_ISGID
    assert wanted & ~stat.S_ISGID == declared & ~stat.S_ISGID
