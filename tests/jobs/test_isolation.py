"""A collection shares nothing with another one, belongs to one owner, and nobody else can write to it."""

import os
from pathlib import Path

import pytest

from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.report import Severity
from tests.conftest import AsNobody
from tests.jobs.making import settings_for, write
from tests.jobs.test_collections import surveyed
from tests.support import NOBODY

A, B = "vector_db/collections/a", "vector_db/collections/b"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """Two collections with a file each."""
    settings = settings_for(tmp_path)
    for path in (A, B):
        write(tmp_path / "data" / path / "deep/file").chmod(0o644)
    return settings


def told(settings: JobSettings) -> dict[tuple[str, str], tuple[Severity, str]]:
    """What is told of the collections' isolation, and of which it says that it is exposed, by kind and path."""
    found = surveyed(settings)
    exposed = {one.shown for one in found.collections if one.exposed}
    findings = {
        (one.kind, one.path): (one.severity, one.detail) for one in found.findings if one.kind != "collection_unknown"
    }
    assert exposed == {path for (_, path), (severity, _) in findings.items() if severity is not Severity.INFO} - OUT
    return findings


OUT = {"vector_db/collections/out"}


def test_what_is_as_it_should_be(settings: JobSettings, tmp_path: Path) -> None:
    """Links that stay inside, and two names of one file in one collection, are nobody's business."""
    (tmp_path / "data" / A / "deep/link").symlink_to("file")
    (tmp_path / "data" / A / "other").hardlink_to(tmp_path / "data" / A / "deep/file")
    assert {} == told(settings)


def test_files_of_two_collections_are_told(settings: JobSettings, tmp_path: Path) -> None:
    """By a hard link, on both sides; by one to a file elsewhere, on one."""
    (tmp_path / "data" / B / "stolen").hardlink_to(tmp_path / "data" / A / "deep/file")
    assert {
        ("collection_shared", A): (Severity.WARNING, f"deep/file is the same file as {B}/stolen"),
        ("collection_shared", B): (Severity.WARNING, f"stolen is the same file as {A}/deep/file"),
    } == told(settings)
    (tmp_path / "data" / B / "stolen").rename(tmp_path / "elsewhere")
    assert {("collection_shared", A): (Severity.WARNING, "deep/file has 1 more names outside of it")} == told(settings)


def test_a_file_that_is_just_being_made_may_have_two_names(settings: JobSettings, tmp_path: Path) -> None:
    """Some engines put files in their place by a link."""
    new = tmp_path / "data" / A / "deep/file"
    os.utime(new)
    (tmp_path / "elsewhere").hardlink_to(new)
    assert {} == told(settings)


def test_links_that_lead_out_are_told(settings: JobSettings, tmp_path: Path) -> None:
    """To another collection, or out of the tree; also where a collection itself is a link."""
    (tmp_path / "data" / A / "deep/link").symlink_to("../../b/deep/file")
    (tmp_path / "data" / B / "link").symlink_to("/etc")
    (tmp_path / "data/vector_db/collections/out").symlink_to("/srv")
    found = told(settings)
    assert f"deep/link is a link to {B}/deep/file, outside of it" == found["collection_shared", A][1]
    assert "link is a link to /etc, outside of it" == found["collection_shared", B][1]
    assert found["collection_shared", "vector_db/collections/out"][1].startswith("a symbolic link")


def test_files_of_others_are_told(settings: JobSettings, tmp_path: Path, as_nobody: AsNobody) -> None:
    """A file or a directory in it that belongs to another user than the collection."""
    del as_nobody  # only root can give files away
    os.chown(tmp_path / "data" / A / "deep/file", NOBODY, NOBODY)
    assert {("collection_owner", A): (Severity.WARNING, f"deep/file belongs to user {NOBODY}, not 0")} == told(settings)
    for path in (tmp_path / "data" / A, tmp_path / "data" / A / "deep"):
        os.chown(path, NOBODY, NOBODY)
    assert {} == told(settings)


def test_modes_that_let_others_write_are_told(settings: JobSettings, tmp_path: Path) -> None:
    """All others: a warning. A group, which is often a private one: a note, and no reason to refuse anything."""
    (tmp_path / "data" / A / "deep/file").chmod(0o666)
    (tmp_path / "data" / B / "deep").chmod(0o775)
    assert {
        ("collection_mode", A): (Severity.WARNING, "deep/file has mode 0o666, declared 0o644"),
        ("collection_mode", B): (Severity.INFO, "deep has mode 0o775, declared 0o755"),
    } == told(settings)


def test_a_directory_of_somebody_else_is_told(settings: JobSettings, tmp_path: Path, as_nobody: AsNobody) -> None:
    """That one can put anything into it."""
    del as_nobody
    os.chown(tmp_path / "data" / A / "deep", NOBODY, -1)
    assert {("collection_owner", A): (Severity.WARNING, f"deep belongs to user {NOBODY}, not 0")} == told(settings)
