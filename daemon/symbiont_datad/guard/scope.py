"""What a pass looks at. Pure."""

from collections.abc import Mapping

from symbiont_datad.layout import Directory, Layout

Scope = Mapping[str, bool]
"""Paths to look at, with what is below them; a true value says that the children in open directories are meant too."""

EVERYTHING: Scope = {"": True}

ALL: list[str] = ["*"]


def children_in_scope(row: Directory, scope: Scope) -> list[str] | None:
    """None when the row is out of scope; else the paths of its open children that are in it (`ALL`, some, or none)."""
    covering = [deep for path, deep in scope.items() if not path or f"{row.path}/".startswith(f"{path}/")]
    if row.open and any(covering):
        return ALL
    some = [path for path in scope if row.open and path and path.rpartition("/")[0] == row.path]
    if some:
        return some
    return [] if covering else None


def covers(scope: Scope, layout: Layout, path: str) -> bool:
    """Whether a pass over the scope has looked at the directory at `path`, or knows that it is none of its business."""
    if not path or scope.get(""):
        return True  # every pass looks at the root
    own = layout.by_path.get(path)
    if own is not None:
        return children_in_scope(own, scope) is not None
    row = layout.row_for(path)
    children = None if row is None else children_in_scope(row, scope)
    return children is ALL or (children is not None and path in children)
