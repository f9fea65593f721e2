"""The threat model names tests that are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/threat-model.md"


def named() -> list[str]:
    """The tests that the page names."""
    return sorted(set(re.findall(r"`(tests/[^`]+)`", PAGE.read_text())))


def found_in(file: Path) -> set[str]:
    """The tests of a module, as pytest names them."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_every_row_names_a_test() -> None:
    """What stops somebody is shown by a test, or it says `Not stopped`."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "| ---" not in line]
    rows = [row for row in rows if not row.endswith("| Test |")]
    assert len(rows) > 30
    assert [] == [row for row in rows if "`tests/" not in row.split(" | ")[-1]]
    assert 4 == PAGE.read_text().count("**Not stopped.**")


@pytest.mark.parametrize("name", named())
def test_every_test_that_is_named_is_there(name: str) -> None:
    """A renamed test takes its name with it to the page."""
    path, _, test = name.partition("::")
    assert (ROOT / path).is_file()
    assert test in found_in(ROOT / path)
