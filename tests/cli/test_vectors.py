"""`vectors` and `vectors optimize`, as a user types them; and roots beside the data directory in backups."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Datad, Shelf
from tests.formats.test_vectors import faiss
from tests.jobs.collecting import lance_dataset, vector_table
from tests.jobs.making import NOW, write


@pytest.fixture
def collections(root: Path, shelf: Shelf) -> Path:
    """A data directory with a database and an index, both at rest."""
    shelf.make()
    place = root / "vector_db"
    os.utime(vector_table(place / "collections/notes/db"), (NOW, NOW))
    write(place / "indexes/notes/flat", faiss())
    return place


def test_collections_are_listed(datad: Datad, collections: Path) -> None:
    """One line each, and nothing is changed; then the findings, and exit code 3."""
    done = datad("vectors")
    assert (0, "") == (done.returncode, done.stderr)
    head, notes, index = done.stdout.splitlines()
    assert ["name", "place", "engine", "rows", "dim", "versions", "files", "size", "free", "changed", "optimised"] == (
        head.split()
    )
    assert ["notes", "collections", "sqlite", "60", "256", "–", "1"] == notes.split()[:7]
    assert ["notes", "indexes", "faiss", "500", "24", "–", "1"] == index.split()[:7]
    (collections / "collections/notes/db").chmod(0o666)
    done = datad("vectors")
    assert (3, True) == (done.returncode, "collection mode" in done.stdout)


def test_collections_as_json(datad: Datad, collections: Path, root: Path) -> None:
    """With the names of the metadata."""
    found = datad("vectors", "--json").document
    assert str(root) == found["root"]
    notes = found["collections"][0]
    assert ("notes", "sqlite", 60, 256, None) == (
        notes["name"], notes["engine"], notes["rows"], notes["dimension"], notes["last_optimised"]
    )  # fmt: skip
    assert notes["reclaimable_bytes"] > 300_000
    assert 0 == datad("vectors").returncode


def test_an_empty_directory_has_none(datad: Datad, root: Path) -> None:
    """That is said."""
    root.mkdir(parents=True)
    assert "there is no collection\n" == datad("vectors").stdout


@pytest.mark.usefixtures("ample")
def test_optimising_by_name(datad: Datad, collections: Path) -> None:
    """The plan, then the deed, each told; a name that nobody has is an error."""
    path = collections / "collections/notes/db"
    size = path.stat().st_size
    plan = datad("vectors", "optimize", "--dry-run")
    assert 0 == plan.returncode
    assert plan.stdout.startswith("would do collection optimized: vector_db/collections/notes/db")
    assert size == path.stat().st_size
    done = datad("vectors", "optimize", "notes", "--json")
    assert (0, 1) == (done.returncode, done.document["counts"]["optimized"])
    assert ["snapshot_created", "collection_optimized"] == [one["kind"] for one in done.document["actions"]]
    assert path.stat().st_size < size / 3
    lost = datad("vectors", "optimize", "nobody")
    assert (1, "symbiont-datad: optimize: there is no collection nobody\n") == (lost.returncode, lost.stderr)
    listed = datad("snapshots", "--tag", "optimize", "--json").document["snapshots"]
    assert 1 == len(listed)


def test_check_tells_of_collections_and_prompts(datad: Datad, collections: Path, root: Path) -> None:
    """Each with a severity and what to do."""
    datad("init")
    write(root / "prompts/templates/t.md", b"\0")
    write(root / "prompts/cache/c.json", b"{")
    lance_dataset(collections / "collections/memories/t.lance")
    (collections / "collections/memories/t.lance/data/3.lance").unlink()
    done = datad("check", "--json")
    found = {one["kind"]: one for one in done.of_tree}
    assert 3 == done.returncode
    assert {
        "collection_reclaimable": "info", "collection_damaged": "error", "template_unusable": "warning",
        "templates_unsaved": "warning", "cache_damaged": "warning",
    } == {kind: one["severity"] for kind, one in found.items()}  # fmt: skip
    assert all(one["remedy"] and one["path"] and one["detail"] for one in found.values())


# Roots beside the data directory


@pytest.fixture
def beside(root: Path, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of vectors beside the data directory, declared in the environment."""
    shelf.make()
    root.mkdir(parents=True)
    (root / "state").mkdir()
    write(root / "state/a.json", b"{}")
    vectors = tmp_path / "vectors"
    lance_dataset(vectors / "symbiont_context.lance")
    monkeypatch.setenv("SYMBIONT_DATAD_VECTOR_DB__EXTRA_ROOTS", f'["{vectors}"]')
    return vectors


@pytest.mark.usefixtures("ample")
def test_a_root_beside_is_backed_up_and_restored(datad: Datad, beside: Path, root: Path, tmp_path: Path) -> None:
    """One snapshot has both; each gets back what is asked for, by its absolute path."""
    assert 0 == datad("backup").returncode
    (one,) = datad("snapshots", "--json").document["snapshots"]
    assert [str(root), str(beside)] == one["paths"]
    data = beside / "symbiont_context.lance/data/3.lance"
    content = data.read_bytes()
    data.unlink()
    assert 0 == datad("restore", "latest", beside, "--target", tmp_path / "out").returncode
    assert content == (tmp_path / "out/symbiont_context.lance/data/3.lance").read_bytes()
    assert not (tmp_path / "out/state").exists()
    assert 0 == datad("restore", "latest", data, "--target", tmp_path / "one").returncode
    assert ["symbiont_context.lance"] == [path.name for path in (tmp_path / "one").iterdir()]
    assert 0 == datad("restore", "latest", "--target", tmp_path / "all").returncode
    assert ["state"] == [path.name for path in (tmp_path / "all").iterdir()]


def test_a_root_beside_is_not_restored_in_place(datad: Datad, beside: Path, tmp_path: Path) -> None:
    """It is no part of the tree that the daemon keeps; nor do two roots go into one target."""
    datad("backup")
    assert 2 == datad("restore", "latest", beside, "--in-place").returncode
    assert 2 == datad("restore", "latest", beside, "state", "--target", tmp_path / "out").returncode


@pytest.mark.usefixtures("ample")
def test_versions_of_a_file_beside(datad: Datad, beside: Path) -> None:
    """`versions` and `diff` know files in it."""
    file = write(beside / "symbiont_context.lance/notes.txt", b"one\n")
    datad("backup")
    write(file, b"two\n", 50.0)
    datad("backup")
    found = datad("versions", file, "--json").document["versions"]
    assert [True, False] == [one["current"] for one in found]
    assert "-one" in datad("diff", file, found[1]["snapshot"]).stdout


@pytest.mark.usefixtures("ample")
def test_a_root_beside_that_is_away(datad: Datad, beside: Path, tmp_path: Path) -> None:
    """The backup is made without it, and says so."""
    beside.rename(tmp_path / "unmounted")
    done = datad("backup")
    assert (3, True) == (done.returncode, f"not in snapshot: {beside}" in done.stdout)


def test_a_moved_directory_is_found_beside_its_roots(
    datad: Datad, shelf: Shelf, beside: Path, root: Path, tmp_path: Path
) -> None:
    """A backup of another place with roots beside it: the first path is the data directory."""
    old = tmp_path / "old/data"
    (old / "state").mkdir(parents=True)
    write(old / "state/a.json", b'{"old": 1}')
    shelf.add(old, beside)
    assert 0 == datad("restore", "latest", "state/a.json", "--target", tmp_path / "out").returncode
    assert b'{"old": 1}' == (tmp_path / "out/state/a.json").read_bytes()


@pytest.mark.parametrize("place", ["data", "data/vector_db", "datad", "backups", ""])
def test_a_root_beside_overlaps_nothing_of_ours(
    datad: Datad, root: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the data directory, nor the daemon's own, nor the repository, nor what holds them."""
    monkeypatch.setenv("SYMBIONT_DATAD_VECTOR_DB__EXTRA_ROOTS", f'["{root.parent / place}"]')
    done = datad("config", "check")
    assert (2, True) == (done.returncode, "must not overlap" in done.stdout + done.stderr)


def test_a_database_that_is_open_is_listed(datad: Datad, collections: Path) -> None:
    """While a process has it open and has just written to it."""
    with closing(sqlite3.connect(collections / "collections/notes/db")) as database:
        database.execute("insert into embeddings(body, vector) values ('one more', 'x')")
        database.commit()
        assert 0 == datad("vectors").returncode
