"""What is found of the time before the tree, where, and how sure that is."""

import os
from pathlib import Path

import pytest

from symbiont_datad.migrate.detect import Detected, detect, kind_of, named_sources, unmigrated
from symbiont_datad.migrate.legacy import Certainty, Kind
from symbiont_datad.migrate.target import Target
from tests.migrate.making import Home, agent, context, write
from tests.support import Tree, build_tree

A = agent(1)
CONTEXTS: Tree = {f"{A}.json": context(), f"{A}.json.backup.5.json": context()}
VECTORS: Tree = {"symbiont_context.lance": {"data": {}, "_versions": {}}}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home; a project is in it."""
    home = Home(tmp_path.resolve())
    (home.base / "project").mkdir()
    return home


def look(home: Home, environ: dict[str, str] | None = None, target: Target | None = None) -> Detected:
    """Detect from the project's directory."""
    return detect(target or home.target, str(home.base / "project"), str(home.base), environ or {})


def places(found: Detected, home: Home) -> dict[str, tuple[str, str]]:
    """The places by their path relative to the home: kind and certainty, with a mark where one can't be migrated."""
    return {
        os.path.relpath(one.source.path, home.base): (one.source.kind, f"{one.certainty}{' !' if one.problem else ''}")
        for one in found.candidates
    }


def test_nothing_is_nothing(home: Home) -> None:
    """No place, no setting; an empty directory is no data."""
    build_tree(home.base / "project", {"data": {"contexts": {}}, "backups": {}, "symbiont.toml": b""})
    assert Detected((), ()) == look(home)


def test_the_old_defaults_are_known_by_what_is_in_them(home: Home) -> None:
    """What only has the name is no legacy data for sure."""
    build_tree(home.base / "project", {
        "data": {"contexts": CONTEXTS, "vector_db": VECTORS}, "agent_storage": {"mine.txt": b""},
        "backups": {"db.sql": b""}, "logs": {"model_io.encrypted.log": b"{}", "app.log": b""},
    })  # fmt: skip
    build_tree(home.base / ".symbiont", {"logs": {"mcp-cli.log": b"x"}})
    found = look(home)
    assert {
        "project/data/contexts": (Kind.CONTEXTS, "sure"),
        "project/data/vector_db": (Kind.VECTORS, "sure"),
        "project/agent_storage": (Kind.CONTEXTS, "unsure"),
        "project/backups": (Kind.BACKUPS, "unsure"),
        "project/logs": (Kind.LOGS, "sure"),
        ".symbiont/logs": (Kind.LOGS, "sure"),
    } == places(found, home)
    assert {"contexts", "vector_db", "logs"} == {Path(source.path).name for source in found.sources}
    assert ("model_io.encrypted.log", "model_io.encrypted.log.*") == next(
        one.source.names for one in found.candidates if one.source.path.endswith("project/logs")
    )


SETTINGS = b"""
[context]
storage_path = "./here"          # the contexts
[storage]
context_path = "/srv/none"
backup_path = "~/saved"
[vector_db]
data_path = "vectors"
[logging]
log_file_path = "out/io.log"
[keys]
storage_path = "./keys"
"""


def test_settings_name_places(home: Home) -> None:
    """In the runtime's files, in .env files and the environment; relative to the working directory, or to the home."""
    build_tree(home.base / "project", {
        "symbiont.toml": SETTINGS, "here": CONTEXTS, "vectors": {"something": b""}, "out": {"io.log": b"x", "b": b""},
        "keys": {"k": b""}, ".env": b"export CONTEXT_STORAGE_PATH='./env one' # x\nTOKEN=1\n",
        ".env.local": b'SYMBIONT_VECTOR_DATA_PATH="./vec"\n#BACKUP_DIRECTORY=./no\n',
        ".env.example": b"BACKUP_DIRECTORY=./example\n", "env one": CONTEXTS, "vec": VECTORS,
    })  # fmt: skip
    build_tree(home.base / "saved", {f"{A}.backup.7.json": context()})
    build_tree(home.base / ".symbiont", {"mcp-config.toml": b"[symbiont]\ncontext_storage_path = '../more'\n"})
    build_tree(home.base / "more", {"a": b""})
    found = look(home, {"BACKUP_DIRECTORY": "/srv/nowhere", "HOME": "x"})
    assert {
        "context.storage_path", "storage.context_path", "storage.backup_path", "vector_db.data_path",
        "logging.log_file_path", "CONTEXT_STORAGE_PATH", "SYMBIONT_VECTOR_DATA_PATH", "BACKUP_DIRECTORY",
        "symbiont.context_storage_path",
    } == {mention.name for mention in found.mentions}  # fmt: skip
    assert {
        "project/here": (Kind.CONTEXTS, "sure"),
        "project/env one": (Kind.CONTEXTS, "sure"),
        "saved": (Kind.BACKUPS, "sure"),
        "project/vectors": (Kind.VECTORS, "likely"),
        "project/vec": (Kind.VECTORS, "sure"),
        "project/out": (Kind.LOGS, "sure"),
        "more": (Kind.CONTEXTS, "likely"),
    } == places(found, home)


@pytest.mark.parametrize("text", [b"[context\n", b"\xff", b"a = " + b"[" * 5000, b"x" * (5 << 20)])
def test_a_file_that_cant_be_read_is_named(home: Home, text: bytes) -> None:
    """And nothing else is lost for it."""
    build_tree(home.base / "project", {"symbi.toml": text, "data": {"contexts": CONTEXTS}})
    found = look(home)
    assert [str(home.base / "project" / "symbi.toml")] == [file for file, _ in found.unread]
    assert ["project/data/contexts"] == list(places(found, home))


def test_values_that_are_no_paths_are_none(home: Home) -> None:
    """Of another type, empty, with a NUL, or an address."""
    text = b"""
[context]
storage_path = 7
[storage]
context_path = ""
backup_path = "s3://b"
[vector_db]
data_path = "a\\u0000"
"""
    build_tree(home.base / "project", {"symbiont.toml": text})
    assert () == look(home).candidates


def test_what_meets_the_tree_can_be_no_source(home: Home) -> None:
    """The snapshots beside the tree lie where the old backups could; a setting may name the tree itself."""
    build_tree(home.base / ".symbiont", {
        "backups": {"config": b"", "keys": {}, "snapshots": {}}, "data": {"state": {"agents": CONTEXTS}},
        "symbiont.toml": b"[storage]\ncontext_path = './data/state/agents'\n[context]\nstorage_path = '..'\n",
    })  # fmt: skip
    found = detect(home.target, str(home.base / ".symbiont"), str(home.base), {})
    assert () == found.sources
    assert {".": (Kind.CONTEXTS, "likely !")} == places(found, home)


def test_a_place_that_holds_another_is_not_taken_as_a_whole(home: Home) -> None:
    """Its files would come twice."""
    build_tree(home.base / "project", {
        "symbiont.toml": b"[context]\nstorage_path = 'data'\n", "data": {"contexts": CONTEXTS, "x.json": b""},
    })  # fmt: skip
    found = look(home)
    assert {"project/data": (Kind.CONTEXTS, "likely !"), "project/data/contexts": (Kind.CONTEXTS, "sure")} == places(
        found, home
    )
    assert ["contexts"] == [Path(source.path).name for source in found.sources]


def test_what_was_brought_over_is_not_waiting_any_more(home: Home) -> None:
    """The marker counts, and not what is in the tree."""
    write(home.old / f"{A}.json", context())
    write(home.base / "project" / "data" / "vector_db" / "t.lance" / "_versions" / "1.manifest", b"")
    assert 2 == len(unmigrated(look(home), home.target))
    home.migrate()
    assert ["vector_db"] == [Path(source.path).name for source in unmigrated(look(home), home.target)]


def test_more_places_are_looked_at_if_the_settings_say_so(home: Home) -> None:
    """Each is what it looks like."""
    build_tree(home.base, {"one": CONTEXTS, "two": VECTORS, "three": {"a.log": b""}, "four": {"x": b""}})
    target = Target(
        home.target.root, home.target.daemon_dir,
        legacy=tuple(home.base / name for name in ("one", "two", "three", "four", "none")),
    )  # fmt: skip
    assert {
        "one": (Kind.CONTEXTS, "sure"),
        "two": (Kind.VECTORS, "sure"),
        "three": (Kind.LOGS, "sure"),
        "four": (Kind.CONTEXTS, "likely"),
    } == places(look(home, target=target), home)
    assert Certainty.SURE == look(home, target=target).candidates[0].certainty


def test_a_directory_that_only_holds_known_ones_stands_for_them(home: Home) -> None:
    """`--from ./data` means what is in it."""
    data = build_tree(home.base / "data", {"contexts": CONTEXTS, "vector_db": VECTORS, "other": {}})
    assert [("contexts", Kind.CONTEXTS), ("vector_db", Kind.VECTORS)] == [
        (Path(source.path).name, source.kind) for source in named_sources(str(data))
    ]
    assert [("other", Kind.CONTEXTS)] == [(Path(s.path).name, s.kind) for s in named_sources(str(data / "other"))]
    assert Kind.BACKUPS == kind_of(str(build_tree(home.base / "b", {f"{A}.backup.7.json": b""})))


def test_variables_are_read_as_a_shell_does(home: Home) -> None:
    """Quoted and not, with a remark behind; an empty one names nothing, and nor does an example."""
    project = home.base / "project"
    (project / ".env").write_text("export CONTEXT_STORAGE_PATH='a b'  # here\nBACKUP_DIRECTORY=saved  # there\n")
    (project / ".env.local").write_text("CONTEXT_STORAGE_PATH=\nBACKUP_DIRECTORY=''\nOTHER=x\n")
    (project / ".env.example").write_text("CONTEXT_STORAGE_PATH=other\n")
    found = [(Path(one.file).name, one.name, one.value) for one in look(home).mentions]
    assert [(".env", "CONTEXT_STORAGE_PATH", "a b"), (".env", "BACKUP_DIRECTORY", "saved")] == found


def test_without_a_home_only_the_project_is_looked_at(home: Home) -> None:
    """As of a service whose user has none."""
    build_tree(home.base / ".symbiont", {"logs": {"mcp-cli.log": b"x"}})
    build_tree(home.base / "project", {"data": {"contexts": CONTEXTS}})
    found = detect(home.target, str(home.base / "project"), None, {})
    assert {"project/data/contexts": (Kind.CONTEXTS, "sure")} == places(found, home)


@pytest.mark.parametrize("name", ["chroma.sqlite3", "docs.faiss", "a.hnsw"])
def test_other_stores_are_vectors(tmp_path: Path, name: str) -> None:
    """By the ends of their files' names."""
    assert Kind.VECTORS is kind_of(str(build_tree(tmp_path / "store", {name: b""})))
