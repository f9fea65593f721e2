"""Collections are told apart by what lies in them, and measured without a change to them."""

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.formats.vectors import Engine
from symbiont_datad.jobs.collections import Collection, Survey, survey
from symbiont_datad.jobs.context import JobContext, JobSettings, VectorSettings
from symbiont_datad.ledger import Ledger
from symbiont_datad.report import Outcome, Severity
from tests.conftest import AsNobody
from tests.formats.test_vectors import faiss, hnswlib
from tests.jobs.collecting import lance_dataset, qdrant_collection, vector_table
from tests.jobs.making import run, settings_for, stop_after, write
from tests.support import read_tree


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree with an empty vector database."""
    settings = settings_for(tmp_path)
    (tmp_path / "data/vector_db/indexes").mkdir()
    return settings


def surveyed(settings: JobSettings) -> Survey:
    """A survey, now."""
    return survey(JobContext(settings, Ledger(None), 0, time.time()))


def only(settings: JobSettings) -> Collection:
    """The one collection that there is."""
    (one,) = surveyed(settings).collections
    return one


def test_engines_are_known_by_content_not_by_name(settings: JobSettings, tmp_path: Path) -> None:
    """Every name says something else; indexes are listed beside the collections."""
    place = tmp_path / "data/vector_db"
    lance_dataset(place / "collections/a/table.sqlite3")
    vector_table(place / "collections/b/index.lance")
    qdrant_collection(place / "collections/c.lance")
    write(place / "collections/d/config.json", b'{"model_type": "bert"}')
    write(place / "collections/d/chroma.sqlite3", b"notes about chroma" * 10)
    write(place / "indexes/a/notes.txt", faiss())
    write(place / "indexes/loose.faiss", hnswlib(rows=0) + bytes(20))
    (place / "collections/empty").mkdir()
    found = surveyed(settings)
    assert {
        ("collections", "a"): (Engine.LANCE, 100, 8, 3),
        ("collections", "b"): (Engine.SQLITE, 60, 256, None),
        ("collections", "c.lance"): (Engine.QDRANT, None, 384, None),
        ("collections", "d"): (Engine.UNKNOWN, None, None, None),
        ("collections", "empty"): (Engine.UNKNOWN, None, None, None),
        ("indexes", "a"): (Engine.FAISS, 500, 24, None),
        ("indexes", "loose.faiss"): (Engine.HNSWLIB, 0, 24, None),
    } == {(one.place, one.name): (one.engine, one.rows, one.dimension, one.versions) for one in found.collections}
    assert [("collection_unknown", "vector_db/collections/d", Severity.INFO)] == [
        (one.kind, one.path, one.severity) for one in found.findings
    ]


def test_nothing_is_changed_or_left_behind(settings: JobSettings, tmp_path: Path) -> None:
    """Neither in the tree (no -wal, no -shm) nor in the daemon's own directory."""
    vector_table(tmp_path / "data/vector_db/collections/b/db")
    lance_dataset(tmp_path / "data/vector_db/collections/a/t.lance")
    before = read_tree(tmp_path / "data")
    surveyed(settings)
    assert before == read_tree(tmp_path / "data")
    assert [] == list((tmp_path / "datad").glob("copies/*/*"))


def test_what_a_lance_table_does_not_need(settings: JobSettings, tmp_path: Path) -> None:
    """Files of old versions, and the part of its data that is deleted rows; a tagged version is needed."""
    path = lance_dataset(tmp_path / "data/vector_db/collections/a/t.lance", versions=3, rows=100, deleted=25)
    size = (path / f"_versions/{2**64 - 2:020}.manifest").stat().st_size
    assert 2 * 1000 + 2 * size + 250 == only(settings).reclaimable
    (path / "_refs/tags").mkdir(parents=True)
    (path / "_refs/tags/keep.json").write_text('{"version": 1}')
    assert 1000 + size + 250 == only(settings).reclaimable
    (path / "tree/branch/_versions").mkdir(parents=True)
    (path / "tree/branch/_versions/1.manifest").write_bytes(b"x")
    assert 0 == only(settings).reclaimable


def test_damage_of_a_table_is_told(settings: JobSettings, tmp_path: Path) -> None:
    """A file that the newest version needs and is not there; a manifest that can't be read."""
    a = lance_dataset(tmp_path / "data/vector_db/collections/a/t.lance")
    b = lance_dataset(tmp_path / "data/vector_db/collections/b/t.lance")
    (a / "data/3.lance").unlink()
    (b / f"_versions/{2**64 - 4:020}.manifest").write_bytes(b"")
    c = vector_table(tmp_path / "data/vector_db/collections/c/db")
    with c.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    found = {one.path: (one.severity, one.detail) for one in surveyed(settings).findings}
    place = "vector_db/collections"
    assert (Severity.ERROR, "version 3 needs data/3.lance, not there") == found[f"{place}/a/t.lance"]
    assert (Severity.ERROR, "the manifest of version 3: too short for a manifest") == found[f"{place}/b/t.lance"]
    assert Severity.ERROR == found[f"{place}/c/db"][0]
    assert {f"{place}/a/t.lance", f"{place}/b/t.lance", f"{place}/c/db"} == found.keys()


def test_a_fingerprint_is_another_one_when_the_content_is(settings: JobSettings, tmp_path: Path) -> None:
    """A new version, a transaction that waits in the -wal, a changed file; not a read, nor the next survey."""
    place = tmp_path / "data/vector_db/collections"
    lance_dataset(place / "a/t.lance")
    vector_table(place / "b/db")
    write(place / "c/index", faiss())

    def prints() -> dict[str, str]:
        return {one.name: one.fingerprint for one in surveyed(settings).collections}

    first = prints()
    assert first == prints()
    os.rename(place / f"a/t.lance/_versions/{2**64 - 4:020}.manifest", tmp_path / "away")
    second = prints()
    with closing(sqlite3.connect(place / "b/db")) as database:
        database.execute("insert into embeddings(body, vector) values ('one more', 'x')")
        database.commit()
        third = prints()
    write(place / "c/index", faiss(rows=501), age_s=5.0)
    fourth = prints()
    changed = [
        {name for name in before if before[name] != after[name]}
        for before, after in ((first, second), (second, third), (third, fourth))
    ]
    assert [{"a"}, {"b"}] == changed[:2]
    assert "c" in changed[2]


def test_figures_of_what_has_not_changed_are_taken_over(settings: JobSettings, tmp_path: Path) -> None:
    """A database is copied once for its rows, and not again before it changes."""
    vector_table(tmp_path / "data/vector_db/collections/b/db")
    context = JobContext(settings, Ledger(None), 0, time.time())
    (store,) = survey(context).collections[0].stores
    known = {store.path: replace(store, rows=4711)}
    assert 4711 == survey(context, known).collections[0].rows
    changed = {store.path: replace(store, rows=4711, fingerprint="another")}
    assert 60 == survey(context, changed).collections[0].rows


def test_roots_beside_the_tree(settings: JobSettings, tmp_path: Path) -> None:
    """Each table in one is a collection, by its absolute path; one with files is one itself; one may be missing."""
    lance_dataset(tmp_path / "vectors/symbiont_context.lance")
    vector_table(tmp_path / "chroma/chroma.sqlite3")
    roots = tuple(str(tmp_path / name) for name in ("vectors", "chroma", "missing"))
    found = surveyed(replace(settings, vectors=VectorSettings(extra_roots=roots)))
    assert {
        f"{tmp_path}/vectors/symbiont_context.lance": (Engine.LANCE, 100),
        f"{tmp_path}/chroma": (Engine.SQLITE, 60),
    } == {one.shown: (one.engine, one.rows) for one in found.collections}
    assert all(one.beside and one.name == one.shown for one in found.collections)
    assert [("extra_root_unread", f"{tmp_path}/missing")] == [(one.kind, one.path) for one in found.findings]


def test_a_table_without_versions_has_none(settings: JobSettings, tmp_path: Path) -> None:
    """Its directories are there, and nothing has been committed: its files count, and no rows."""
    path = lance_dataset(tmp_path / "data/vector_db/collections/a/t.lance", versions=1)
    next((path / "_versions").iterdir()).unlink()
    one = only(settings)
    assert (Engine.LANCE, None, 0, 1000) == (one.engine, one.rows, one.versions, one.bytes)
    assert [] == surveyed(settings).findings


def test_a_manifest_that_leads_elsewhere_is_not_read(settings: JobSettings, tmp_path: Path) -> None:
    """A link in its place is damage."""
    path = lance_dataset(tmp_path / "data/vector_db/collections/a/t.lance", versions=2)
    newest = min((path / "_versions").iterdir())
    newest.rename(tmp_path / "manifest")
    newest.symlink_to(tmp_path / "manifest")
    (finding,) = [one for one in surveyed(settings).findings if one.kind == "collection_damaged"]
    assert "the manifest of version 2: it can't be read" == finding.detail


def test_tags_that_name_nothing_keep_nothing(settings: JobSettings, tmp_path: Path) -> None:
    """A version that is gone, and what is no tag; one that names a version keeps its files."""
    path = lance_dataset(tmp_path / "data/vector_db/collections/a/t.lance", versions=3)
    before = only(settings).reclaimable
    write(path / "_refs/tags/gone.json", b'{"version": 77}')
    write(path / "_refs/tags/odd.json", b"[]")
    assert before == only(settings).reclaimable
    write(path / "_refs/tags/kept.json", b'{"version": 1}')
    assert before - 1000 > only(settings).reclaimable


def test_a_very_large_database_is_not_copied_for_its_figures(settings: JobSettings, tmp_path: Path) -> None:
    """Its rows are not known then; that it is a database is, and how large it is."""
    path = vector_table(tmp_path / "data/vector_db/collections/a/db")
    os.truncate(path, (256 << 20) + 1)
    one = only(settings)
    assert (Engine.SQLITE, None, (256 << 20) + 1) == (one.engine, one.rows, one.bytes)
    assert [] == surveyed(settings).findings


def test_what_of_a_collection_cant_be_read_is_told(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory in it, or the place of all collections: the rest is looked at."""
    settings = settings_for(open_path)
    place = open_path / "data/vector_db/collections"
    write(place / "a/closed/file")
    write(place / "a/notes")
    (place / "a/closed").chmod(0o700)
    surveyed(settings)
    found = as_nobody(lambda: surveyed(settings))
    assert ("unread", "vector_db/collections/a/closed", "Permission denied") in [
        (one.kind, one.path, one.detail) for one in found.findings
    ]
    assert [1] == [one.files for one in found.collections]
    place.chmod(0o700)
    (finding,) = as_nobody(lambda: surveyed(settings)).findings
    assert ("unread", "vector_db/collections") == (finding.kind, finding.path)


def test_asked_to_stop_it_looks_at_no_more(settings: JobSettings, tmp_path: Path) -> None:
    """Nothing is written of what was looked at so far, nor removed of what was not."""
    for name in "ab":
        write(tmp_path / f"data/vector_db/collections/{name}/file")
    (tmp_path / "data/vector_db/metadata").mkdir()
    run("vectors", settings, now=time.time())
    before = read_tree(tmp_path / "data/vector_db/metadata")
    write(tmp_path / "data/vector_db/collections/a/more")
    ran = run("vectors", settings, now=time.time(), stopping=stop_after(1))
    assert (Outcome.INTERRUPTED, 0) == (ran.report.outcome, ran.report.counts["written"])
    assert before == read_tree(tmp_path / "data/vector_db/metadata")
