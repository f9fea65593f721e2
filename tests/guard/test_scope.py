"""A scope says which rows of the layout and which directories of users a pass looks at. Pure."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.guard.scope import ALL, EVERYTHING, Scope, children_in_scope, covers
from symbiont_datad.layout import Directory, Layout
from tests.guard.keeping import small_layout

ROWS = (
    Directory("logs", 0o755, "logs"),
    Directory("logs/agents", 0o755, "one log an agent"),
    Directory("db", 0o755, "vectors"),
    Directory("db/sets", 0o755, "collections", open=True),
    Directory("db/sets/own", 0o755, "a row of its own in an open directory"),
    Directory("db/sets/own/deep", 0o755, "and one below that", open=True),
    Directory("logs2", 0o755, "a name that begins like another"),
)
LAYOUT: Layout = small_layout(Path("/nowhere"), *ROWS)


def looked_at(scope: Scope) -> dict[str, list[str]]:
    """The rows in scope, each with its children in scope."""
    found = {row.path: children_in_scope(row, scope) for row in LAYOUT.directories}
    return {path: children for path, children in found.items() if children is not None}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, {}),
        ({"logs": False}, {"logs": [], "logs/agents": []}),
        ({"logs/agents": True}, {"logs/agents": []}),
        ({"db": False}, {"db": [], "db/sets": [], "db/sets/own": [], "db/sets/own/deep": []}),
        ({"db": True}, {"db": [], "db/sets": ALL, "db/sets/own": [], "db/sets/own/deep": ALL}),
        ({"db/sets/x": False}, {"db/sets": ["db/sets/x"]}),
        ({"db/sets/x": True, "db/sets/y": False}, {"db/sets": ["db/sets/x", "db/sets/y"]}),
        ({"db/sets/x": False, "db/sets": True}, {"db/sets": ALL, "db/sets/own": [], "db/sets/own/deep": ALL}),
        ({"db/sets/own": False}, {"db/sets": ["db/sets/own"], "db/sets/own": [], "db/sets/own/deep": []}),
        ({"db/sets/own/deep/z": False}, {"db/sets/own/deep": ["db/sets/own/deep/z"]}),
        ({"unknown": True}, {}),
        ({"logs/agents/a.log": False}, {}),
    ],
)
def test_a_scope_names_rows_and_children(scope: Scope, expected: dict[str, list[str]]) -> None:
    """Rows at and below a path are meant; children of open directories when they are named or the path is deep."""
    assert expected == looked_at(scope)


def test_everything_is_every_row_and_every_child() -> None:
    """The whole scope leaves nothing out, and the root's own without depth leaves out only the children."""
    assert {row.path: ALL if row.open else [] for row in LAYOUT.directories} == looked_at(EVERYTHING)
    assert {row.path: [] for row in LAYOUT.directories} == looked_at({"": False})


@pytest.mark.parametrize(
    ("scope", "path", "expected"),
    [
        ({}, "", True),
        ({}, "logs", False),
        ({"logs": False}, "logs/agents", True),
        ({"logs": False}, "logs2", False),
        ({"db": False}, "db/sets/x", False),
        ({"db": True}, "db/sets/x", True),
        ({"db/sets/x": False}, "db/sets/x", True),
        ({"db/sets/x": False}, "db/sets/y", False),
        ({"logs": True}, "gone/from/the/layout", False),
        (EVERYTHING, "gone/from/the/layout", True),
    ],
)
def test_covers_tells_which_complaints_a_pass_answers(scope: Scope, path: str, expected: bool) -> None:
    """What a pass has looked at, it may say is well again; of what it hasn't, it knows nothing."""
    assert expected is covers(scope, LAYOUT, path)


names = st.sampled_from(
    ["", "logs", "logs/agents", "db", "db/sets", "db/sets/x", "db/sets/own", "db/sets/own/deep/z", "no"]
)


@given(st.dictionaries(names, st.booleans()), st.dictionaries(names, st.booleans()))
def test_a_larger_scope_never_sees_less(one: dict[str, bool], other: dict[str, bool]) -> None:
    """Hints that are added to others take nothing away: what each covers alone, both cover together."""
    both = {path: one.get(path, False) or other.get(path, False) for path in one | other}
    for path in ("", "logs", "logs/agents", "db", "db/sets", "db/sets/x", "db/sets/own", "db/sets/own/deep/z"):
        alone = covers(one, LAYOUT, path) or covers(other, LAYOUT, path)
        assert not alone or covers(both, LAYOUT, path)
