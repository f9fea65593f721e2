"""docs/json.md says what the documents are."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests import contexts
from tests.cli.conftest import Datad
from tests.support import build_tree

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
JOBS = {"sweep", "rotate", "clean", "backup", "verify", "prune", "vectors optimize"}
GROWING = {"status", "events"}
"""Commands of which the page tells a part."""


def told() -> dict[str, set[str]]:
    """The keys in the tables of the page, by each name in the heading above."""
    found: dict[str, set[str]] = {}
    names: list[str] = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            names = re.findall(r"`([^`]+)`", line) or [line[3:]]
            found |= {name: set() for name in names}
        elif line.startswith("| `"):
            keys = set(re.findall(r"`([^`]+)`", line.split("|")[1]))
            for name in names:
                found[name] |= keys
    return found


@pytest.fixture
def used(datad: Datad, root: Path) -> str:
    """A tree that has been used, with a broken file and a directory that differs; hands back the path of a context."""
    datad("init")
    name = f"{contexts.agent_id('a')}.json.gz"
    agents = {name: contexts.zipped(contexts.context("a")), f"{contexts.agent_id('b')}.json.gz": b""}
    build_tree(root, {"state": {"agents": agents}, "vector_db": {"collections": {"c": {"x": b"1"}}}})
    for state in (root / "state" / "agents").iterdir():
        os.utime(state, (1e9, 1e9))
    datad("backup")
    datad("sweep")
    return f"state/agents/{name}"


@pytest.mark.slow
def test_documents_have_the_keys_that_are_told(datad: Datad, root: Path, used: str, tmp_path: Path) -> None:
    """Of every command on the page, and of the records in them: no more, no less, and `schema` is 1."""
    page = told()
    said: dict[str, Any] = {}
    others = {
        "check": [], "snapshots": [], "vectors": [], "repository unlock": [], "repository key list": [],
        "config show": [], "config check": [], "health": [], "events": [], "status": [],
        "restore": ["latest", "--target", str(tmp_path / "r")], "versions": [used], "diff": [used, "latest"],
        "init": [],
    }  # fmt: skip
    assert set(page) == {*others, *JOBS, "Actions", "Findings", "Drifts", "Snapshots"}
    (root / "logs" / "audit").chmod(0o700)
    for command, words in {**others, **{job: [] for job in JOBS}}.items():
        said[command] = datad(*command.split(), *words, "--json").document
        keys = set(said[command]) - {"schema", "message_type", "kept"}
        assert page[command] <= keys, command
        assert command in GROWING or page[command] == keys, command
    assert page["Findings"] | {"probe"} == set(said["check"]["findings"][0])
    assert page["Findings"] == set(said["sweep"]["findings"][0])
    assert page["Drifts"] == set(said["check"]["drifts"][0])
    assert page["Actions"] == set(said["backup"]["actions"][0])
    assert page["Actions"] | {"at", "severity", "job", "state"} == set(said["events"]["events"][0])
    assert page["Snapshots"] == set(said["snapshots"]["snapshots"][0]) == set(said["restore"]["snapshot"])
    assert {"id", "time", "reasons"} == set(said["prune"]["kept"][0])
    text = PAGE.read_text()
    for command, name in (("vectors", "collections"), ("versions", "versions"), ("config show", "settings"),
                          ("repository key list", "keys")):  # fmt: skip
        assert all(f"`{key}`" in text for key in said[command][name][0]), command
