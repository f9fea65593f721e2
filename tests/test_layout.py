"""The layout: what the settings declare, as a table of directories."""

import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.layout import Category, Directory, Layout
from symbiont_datad.retention.rules import AgeBy
from tests.guard.keeping import again, layout_at, made

DECLARED = {
    "": (),
    "state": ("agents", "sessions"),
    "logs": ("system", "agents", "audit"),
    "prompts": ("templates", "history", "cache"),
    "vector_db": ("collections", "indexes", "metadata"),
}
"""docs/design.md, "What it is"."""


def paths(layout: Layout) -> list[str]:
    """The paths of the rows that are made."""
    return [row.path for row in layout.directories if row.required]


def test_the_tree_of_the_design_is_declared(tmp_path: Path) -> None:
    """Without settings, the rows are the design's four directories and theirs, each 0755."""
    layout = layout_at(tmp_path / "data")
    expected = {f"{top}/{name}" for top, names in DECLARED.items() for name in names} | set(DECLARED)
    assert expected == set(paths(layout))
    assert {0o755} == {row.mode for row in layout.directories}
    assert {"prompts/history", "vector_db/collections", "vector_db/indexes", "state/agents/archives"} == {
        row.path for row in layout.directories if row.open
    }


def test_what_is_declared_is_what_is_made(tmp_path: Path) -> None:
    """On the disk are the required rows and nothing else."""
    layout = made(layout_at(tmp_path / "data"))
    found = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*")}
    assert set(paths(layout)) - {""} == found


names = st.text("abcxyz", min_size=1, max_size=4)
tops = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=4, max_size=4)


def apart(chosen: list[str]) -> bool:
    """Whether no directory is another one, or in it."""
    return not any(
        one == other or one.startswith(other + "/") for one in chosen for other in chosen if one is not other
    )


@given(tops.filter(lambda chosen: len(set(chosen)) == 4 and apart(chosen)))
def test_parents_come_before_their_children(chosen: list[str]) -> None:
    """Wherever the categories lie, the root is first, and every row's parent is a row above it."""
    keys = ("state_dir", "logs_dir", "prompts_dir", "vector_db_dir")
    layout = layout_at(Path("/nowhere"), **dict(zip(keys, chosen, strict=True)))
    seen: set[str] = set()
    for row in layout.directories:
        assert not row.path or row.parent in seen
        assert row.path not in seen
        seen.add(row.path)
    assert "" == layout.directories[0].path
    for category, top in zip(
        (Category.STATE, Category.LOGS, Category.PROMPTS, Category.VECTOR_DB), chosen, strict=True
    ):
        assert category is layout.category_of(f"{top}/some/file")
        assert f"{top}/x" == layout.path_of(category, "x")
        assert top == layout.path_of(category)


def test_a_category_may_lie_deeper(tmp_path: Path) -> None:
    """`var/state` makes `var` a row of its own, with a mode that can be set."""
    layout = layout_at(tmp_path / "data", state_dir="var/state", logs_dir="var/log", permissions={"var/state": 0o700})
    assert {"var", "var/state", "var/state/agents", "var/log/audit"} <= set(paths(layout))
    assert (0o700, 0o755, "var/state/agents") == (
        layout.by_path["var/state"].mode, layout.by_path["var"].mode, layout.agents,
    )  # fmt: skip
    assert () == again(made(layout)).drifts


def test_more_directories_are_rows(tmp_path: Path) -> None:
    """Extra directories have their own mode or the common one, in any order, even below what isn't required."""
    extra = [
        {"path": "reports/daily", "mode": 0o750, "open": True},
        {"path": "reports"},
        {"path": "state/agents/archives/kept"},
    ]
    layout = made(layout_at(tmp_path / "data", layout={"directory": extra}, dir_permissions=0o700))
    assert (0o750, 0o700, True) == (
        layout.by_path["reports/daily"].mode, layout.by_path["reports"].mode, layout.by_path["reports/daily"].open,
    )  # fmt: skip
    for path in ("reports/daily", "state/agents/archives/kept"):
        assert (tmp_path / "data" / path).is_dir()
    assert layout.by_path["state/agents/archives"].open
    assert () == again(layout).drifts


def test_watched_are_those_that_tell_of_others(tmp_path: Path) -> None:
    """Watched is what has required rows below or is open: never a leaf in which agents only keep files."""
    layout = layout_at(tmp_path / "data")
    assert {
        "", "state", "logs", "prompts", "vector_db",
        "prompts/history", "vector_db/collections", "vector_db/indexes", "state/agents/archives",
    } == set(layout.watched)  # fmt: skip
    for row in layout.directories:
        if row.path and row.required:
            assert row.parent in layout.watched


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("", ""),
        ("logs", "logs"),
        ("vector_db/collections/x", "vector_db/collections"),
        ("vector_db/collections/x/y", None),
        ("logs/agents/x", None),
        ("unknown", None),
        ("state/agents/archives/a", "state/agents/archives"),
    ],
)
def test_the_row_for_a_path(tmp_path: Path, path: str, row: str | None) -> None:
    """A directory is judged by its own row, or by that of the open directory it is right in."""
    found = layout_at(tmp_path / "data").row_for(path)
    assert row == (found.path if found else None)


@pytest.mark.parametrize(
    ("path", "category"),
    [
        ("state", Category.STATE),
        ("state/agents/a.json", Category.STATE),
        ("statement", Category.OTHER),
        ("logs/x", Category.LOGS),
        ("prompts/cache/x", Category.PROMPTS),
        ("vector_db", Category.VECTOR_DB),
        ("", Category.OTHER),
        (".quarantine/x", Category.OTHER),
    ],
)
def test_categories(tmp_path: Path, path: str, category: Category) -> None:
    """A path belongs to the category whose directory it is or is in."""
    assert category is layout_at(tmp_path / "data").category_of(path)


def test_below(tmp_path: Path) -> None:
    """The rows at and below a path, parents first, and none that only begins alike."""
    layout = layout_at(tmp_path / "data", layout={"directory": [{"path": "logs2"}]})
    assert ["logs", "logs/system", "logs/agents", "logs/audit"] == [row.path for row in layout.below("logs")]
    assert list(layout.directories) == list(layout.below(""))
    assert [] == list(layout.below("nothing"))


def test_the_root_is_resolved_once(tmp_path: Path) -> None:
    """Links in the root's path are the user's own, and followed when the layout is made."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert str(tmp_path / "real/data") == layout_at(tmp_path / "link/data").root


def test_owners_are_numbers_or_left_alone(tmp_path: Path) -> None:
    """Without settings nobody's owner is touched; a name becomes its number."""
    plain, owned = layout_at(tmp_path / "data"), layout_at(tmp_path / "data", owner="root", group="0")
    assert (-1, -1, 0, 0) == (plain.uid, plain.gid, owned.uid, owned.gid)


def test_rules_are_only_those_asked_for(tmp_path: Path) -> None:
    """By default only the cache has a rule; a policy for another place makes one."""
    assert ["cache"] == [rule.name for rule in layout_at(tmp_path / "data").rules]
    layout = layout_at(tmp_path / "data", prompts_dir="p", retention={"history": {"max_age": "7d"}})
    assert ["cache", "history"] == [rule.name for rule in layout.rules]


def test_rules_say_what_the_settings_say(tmp_path: Path) -> None:
    """Days and archives go whole, caches by use and with their broken files, logs keep their newest; each rule has
    what its table says.
    """
    layout = layout_at(
        tmp_path / "data",
        retention={
            "history": {"pack_after": "7d", "age_by": "name"},
            "archives": {"max_files": 3},
            "logs": {"max_age": "9d", "protect": ["keep/**"]},
            "traces": {"directory": "logs/agents", "patterns": ["*.trace"], "max_bytes": "1MiB"},
            "prompts/templates": {"max_age": "1y"},
            "reports": {"whole": True},
        },
        layout={"directory": [{"path": "reports", "max_files": 5, "age_by": "read"}]},
    )
    rules = {rule.name: rule for rule in layout.rules}
    assert ["cache", "history", "archives", "logs", "reports", "traces", "prompts/templates"] == list(rules)
    assert (True, True, AgeBy.USED) == (rules["cache"].cache, rules["cache"].broken, rules["cache"].age_by)
    assert (True, 7 * 86_400, AgeBy.NAME) == (
        rules["history"].whole,
        rules["history"].pack_after_s,
        rules["history"].age_by,
    )
    assert (True, False) == (rules["archives"].whole, rules["archives"].keep_newest)
    assert (("keep/**",), True) == (rules["logs"].protect, rules["logs"].keep_newest)
    assert ("logs/agents", ("*.trace",), 1 << 20) == (
        rules["traces"].directory,
        rules["traces"].patterns,
        rules["traces"].max_bytes,
    )
    assert (5, True, AgeBy.READ) == (rules["reports"].max_files, rules["reports"].whole, rules["reports"].age_by)
    assert "prompts/history" == layout.days
    assert None is layout_at(tmp_path / "data", guard={"make_days": False}).days


def test_a_layout_is_a_value(tmp_path: Path) -> None:
    """It can't be changed, and travels to another process whole."""
    layout = layout_at(tmp_path / "data")
    with pytest.raises(FrozenInstanceError):
        layout.root = "/"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(layout))
    assert copy == layout
    assert copy.watched == layout.watched
    assert Directory("a/b/c", 0o755, "").parent == "a/b"


def test_importing_the_layout_loads_no_settings() -> None:
    """A job's process gets the layout without the settings' model."""
    heavy = "('pydantic', 'symbiont_datad.settings')"
    code = f"import sys, symbiont_datad.layout; print(*[name for name in sys.modules if name in {heavy}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env={**os.environ})
    assert run.stdout.strip() == ""
