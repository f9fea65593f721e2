"""What is known of each collection is kept in `vector_db/metadata/`, and written only when it has changed."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.jobs.context import JobSettings, VectorSettings
from symbiont_datad.jobs.metadata import stores_of
from symbiont_datad.report import Outcome
from tests.conftest import AsNobody
from tests.formats.test_vectors import faiss
from tests.jobs.collecting import lance_dataset, vector_table
from tests.jobs.making import NOW, ledger_of, run, settings_for, write
from tests.support import NOBODY, read_tree

PLACE = "data/vector_db/metadata"

_STORE = '{"path": "a", "engine": "lance", "bytes": 5, "rows": null, "dimension": 4, "fingerprint": "x"}'


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A database that is a collection, a Lance table that is one, and an index that is called like the first."""
    settings = settings_for(tmp_path)
    for name in ("indexes", "metadata"):
        (tmp_path / "data/vector_db" / name).mkdir()
    vector_table(tmp_path / "data/vector_db/collections/notes/db")
    lance_dataset(tmp_path / "data/vector_db/collections/memories/t.lance")
    write(tmp_path / "data/vector_db/indexes/notes/flat", faiss())
    return settings


def document(tmp_path: Path, name: str) -> dict[str, Any]:
    """What stands in a file of the metadata."""
    found: dict[str, Any] = json.loads((tmp_path / PLACE / name).read_bytes())
    return found


def test_each_collection_is_described(settings: JobSettings, tmp_path: Path) -> None:
    """Engine and figures, its stores, and its index; as actions in the ledger, too."""
    ran = run("vectors", settings)
    assert (Outcome.DONE, 3, 2) == (
        ran.report.outcome, ran.report.counts["collections"], ran.report.counts["written"]
    )  # fmt: skip
    assert {"notes.json", "memories.json"} == set(os.listdir(tmp_path / PLACE))
    notes, memories = document(tmp_path, "notes.json"), document(tmp_path, "memories.json")
    assert ("symbiont-datad", "sqlite", 60, 256, None) == (
        notes["kept_by"], notes["engine"], notes["rows"], notes["dimension"], notes["last_optimised"]
    )  # fmt: skip
    assert ("faiss", 500) == (notes["index"]["engine"], notes["index"]["rows"])
    assert ("lance", 100, 3, "vector_db/collections/memories/t.lance") == (
        memories["engine"], memories["rows"], memories["versions"], memories["stores"][0]["path"]
    )  # fmt: skip
    assert memories["reclaimable_bytes"] > 2000
    assert 0o644 == (tmp_path / PLACE / "notes.json").stat().st_mode & 0o777
    with ledger_of(settings) as ledger:
        assert 2 == len(ledger.actions(kinds=("metadata_written",)))


def test_what_has_not_changed_is_not_written(settings: JobSettings, tmp_path: Path) -> None:
    """Only the one that has; a dry run says which, and writes nothing."""
    run("vectors", settings)
    assert 0 == run("vectors", settings).report.counts["written"]
    write(tmp_path / "data/vector_db/collections/memories/t.lance/data/new.lance")
    before = read_tree(tmp_path / PLACE)
    dry = run("vectors", settings, dry_run=True).report
    assert ["vector_db/metadata/memories.json"] == [action.path for action in dry.actions]
    assert before == read_tree(tmp_path / PLACE)
    assert ["vector_db/metadata/memories.json"] == [one.path for one in run("vectors", settings).report.actions]


def test_what_is_gone_is_removed_and_what_is_not_ours_stays(settings: JobSettings, tmp_path: Path) -> None:
    """A description goes with its collection. Files of agents there are left alone, whatever they are."""
    mine = write(tmp_path / PLACE / "mine.json", b'{"owner": "an agent"}')
    odd = write(tmp_path / PLACE / "odd.json", b"\xff{")
    run("vectors", settings)
    (tmp_path / "data/vector_db/collections/memories").rename(tmp_path / "away")
    ran = run("vectors", settings)
    assert [("metadata_removed", "vector_db/metadata/memories.json")] == [
        (one.kind, one.path) for one in ran.report.actions
    ]
    assert (True, True, False) == (mine.exists(), odd.exists(), (tmp_path / PLACE / "memories.json").exists())


def test_a_description_that_was_tampered_with_is_put_right(settings: JobSettings, tmp_path: Path) -> None:
    """Whatever stands in it, nothing breaks, and it says what is true again; a link in its place is not followed."""
    run("vectors", settings)
    right = document(tmp_path, "notes.json")
    for content in (
        {**right, "rows": 1, "stores": "none"},
        {**right, "stores": [{"path": 1}, None, {**right["stores"][0], "rows": "many"}]},
        {**right, "stores": [{**right["stores"][0], "bytes": "x"}], "index": [1]},
    ):
        (tmp_path / PLACE / "notes.json").write_text(json.dumps(content))
        run("vectors", settings)
        assert right == document(tmp_path, "notes.json")
    secret = write(tmp_path / "secret", b"secret")
    (tmp_path / PLACE / "notes.json").unlink()
    (tmp_path / PLACE / "notes.json").symlink_to(secret)
    run("vectors", settings)
    assert (b"secret", right) == (secret.read_bytes(), document(tmp_path, "notes.json"))


@pytest.mark.parametrize(
    "stores",
    [
        "1", "null", '{"a": 1}', "[1]", '[{"path": "a"}]', "[[]]", f"[{_STORE.replace('5', 'Infinity')}]",
        f"[{_STORE.replace('5', '-1e999')}]", f"[{_STORE.replace('null', '[]')}]",
    ],
)  # fmt: skip
def test_a_description_that_makes_no_sense_is_passed_over(stores: str) -> None:
    """Agents may write into the directory of descriptions; they end no job by it."""
    for text in (
        f'{{"stores": {stores}}}',
        f'{{"index": {{"stores": {stores}}}}}',
        f'{{"stores": [], "index": {stores}}}',
    ):
        assert {} == stores_of([text.encode()])
    assert ["a"] == list(stores_of([f'{{"stores": [{_STORE}]}}'.encode()]))


def test_a_new_exposure_is_a_security_event(settings: JobSettings, tmp_path: Path, as_nobody: AsNobody) -> None:
    """Told once; the finding stays until it is put right."""
    del as_nobody
    assert [] == run("vectors", settings).told
    path = tmp_path / "data/vector_db/collections/notes/db"
    os.chown(path, NOBODY, NOBODY)
    first, second = run("vectors", settings), run("vectors", settings)
    assert (["collection_exposed"], []) == (first.told, second.told)
    assert ["collection_owner"] * 2 == [one.report.findings[0].kind for one in (first, second)]
    os.chown(path, 0, 0)
    assert Outcome.DONE == run("vectors", settings).report.outcome


def test_collections_beside_the_tree_are_described_in_it(settings: JobSettings, tmp_path: Path) -> None:
    """By their absolute path; nothing is written where they are, and one that is away keeps its description."""
    lance_dataset(tmp_path / "vectors/notes")
    beside = replace(settings, vectors=VectorSettings(extra_roots=(str(tmp_path / "vectors"),)))
    before = read_tree(tmp_path / "vectors")
    run("vectors", beside)
    (name,) = (name for name in os.listdir(tmp_path / PLACE) if name.startswith("notes-"))
    assert (f"{tmp_path}/vectors/notes", 100) == (document(tmp_path, name)["path"], document(tmp_path, name)["rows"])
    assert before == read_tree(tmp_path / "vectors")
    (tmp_path / "vectors").rename(tmp_path / "unmounted")
    assert [] == list(run("vectors", beside).report.actions)
    assert (tmp_path / PLACE / name).exists()


def test_usage_measures_roots_beside_the_tree(settings: JobSettings, tmp_path: Path) -> None:
    """As categories of their own, by their path."""
    write(tmp_path / "vectors/a/file", b"x" * 7)
    run("usage", replace(settings, vectors=VectorSettings(extra_roots=(str(tmp_path / "vectors"),))))
    with ledger_of(settings) as ledger:
        assert (1, 7) in [(one.files, one.bytes) for one in ledger.usage()[0] if one.category == f"{tmp_path}/vectors"]


def test_what_can_not_be_written_is_told(settings: JobSettings, tmp_path: Path) -> None:
    """A file where the descriptions belong: each that is missing is a finding, and nothing else suffers."""
    (tmp_path / PLACE).rmdir()
    (tmp_path / PLACE).write_bytes(b"in the way")
    ran = run("vectors", settings)
    unwritten = sorted(Path(one.path).name for one in ran.report.findings if one.kind == "metadata_unwritten")
    assert (Outcome.LEFT, ["memories.json", "notes.json"]) == (ran.report.outcome, unwritten)
    assert b"in the way" == (tmp_path / PLACE).read_bytes()


def test_a_description_that_cant_be_removed_stays(open_path: Path, as_nobody: AsNobody) -> None:
    """Its directory belongs to somebody else: that is told, and the next run tries again."""
    settings = settings_for(open_path)
    (open_path / "data/vector_db/metadata").mkdir()
    path = write(open_path / "data/vector_db/collections/a/file")
    run("vectors", settings)
    path.unlink()
    path.parent.rmdir()
    for one in (settings.daemon_dir, *settings.daemon_dir.rglob("*")):
        os.chown(one, NOBODY, NOBODY)
    report = as_nobody(lambda: run("vectors", settings, now=NOW + 1).report)
    assert [("metadata_unwritten", "vector_db/metadata/a.json")] == [(one.kind, one.path) for one in report.findings]
    assert ["a.json"] == os.listdir(open_path / "data/vector_db/metadata")
    assert ("metadata_removed",) == tuple(one.kind for one in run("vectors", settings, now=NOW + 2).report.actions)
