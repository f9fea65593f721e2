"""Every command that a page shows is run in a home that has been used."""

import os
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests import contexts
from tests.cli.conftest import Datad
from tests.support import build_tree
from tests.test_docs import COMMANDS, TUTORIAL

RUN_ELSEWHERE = {TUTORIAL, "docs/benchmarks.md"}
"""Pages with commands that something else has run: a test of its own, and `scripts/bench`, which writes the page."""

AGENT = "0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11"
NAMES = {"restore", "versions", "repository key add", "…"}
"""What pages call a command, with nothing that it works on."""
ELSEWHERE = ("run", "service ", "--install-completion")
"""Run by tests/process and tests/system; the last one writes into a shell's own files."""
ENDLESS = ("--watch", "--follow")
ENDS = {"health": {1}, "templates log triage --at 2026-11-20": {0, 1}}
"""How those end that do not end well: no daemon runs, and the template may be younger than that."""
TYPED = {words for page, words in COMMANDS if page not in RUN_ELSEWHERE} - NAMES
SHOWN = sorted(words for words in TYPED if not words.startswith(ELSEWHERE) and not words.endswith(ENDLESS))


@pytest.fixture
def used(datad: Datad, root: Path) -> dict[str, str]:
    """A home with all that pages speak of; hands back what stands for the examples' ids, files and names."""
    datad("init")
    context = contexts.zipped(contexts.context("a"))
    build_tree(
        root,
        {
            "state": {"agents": {f"{AGENT}.json.gz": context, "0ced98c8-fc4c.json.gz": context}},
            "prompts": {"templates": {"triage.md": b"one\n"}},
            "vector_db": {"collections": {"notes": {}}},
        },
    )
    with closing(sqlite3.connect(root / "vector_db/collections/notes/chroma.sqlite3")) as db:
        db.execute("create table embeddings (id integer primary key, vector blob)")
        db.commit()
    datad("backup")
    (root / "prompts/templates/triage.md").write_bytes(b"two\n")
    datad("backup")
    (root / "state/agents/0ced98c8-fc4c.json.gz").write_bytes(contexts.zipped(contexts.context("a", text="more")))
    datad("sweep")
    older, newer = (one["short_id"] for one in datad("snapshots", "--tag", "backup", "--json").document["snapshots"])
    return {"2e2d": older, "7b32": older, "8caf": newer, "NAME": "notes", "state/agents/ID": f"state/agents/{AGENT}"}


@pytest.mark.slow
def test_commands_on_pages_work(datad: Datad, root: Path, used: dict[str, str], tmp_path: Path) -> None:
    """Each ends well, or with something left to look at, or as it has to here; none is misunderstood."""
    assert len(SHOWN) > 40
    key = root.parent / "datad.key"
    # A key is made before it is shown, another one is added before it is removed.
    order = sorted(
        SHOWN, key=lambda words: (not words.startswith("key new"), words.startswith("repository key remove"))
    )
    for words in order:
        if "copy-of.key" in words:
            shutil.copy(key, tmp_path / "copy-of.key")
        said = words
        for example, real in used.items():
            said = said.replace(example, real)
        if words.endswith("remove ID"):
            keys = datad("repository", "key", "list", "--json").document["keys"]
            said = said.replace("ID", next(one["id"] for one in keys if not one["current"]))
        said = said.replace("/tmp/there", str(tmp_path / "there")).replace("FILE", "~/.symbiont/new.key")
        done = datad(*(os.path.expanduser(word) for word in shlex.split(said)))
        expected = next((codes for start, codes in ENDS.items() if words.startswith(start)), {0, 3})
        assert done.returncode in expected, f"{said}: {done.returncode}\n{done.stdout}{done.stderr}"
