"""`templates log`, as a user types it."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Datad, Shelf
from tests.cli.test_restore import damage, packs
from tests.support import build_tree

NOON = 1_795_176_000.0  # 2026-11-20 12:00 UTC
PLACE = "prompts/templates"


@pytest.fixture
def saved(root: Path, shelf: Shelf) -> list[str]:
    """Three snapshots of the templates, a day apart: made, changed, removed."""
    build_tree(root, {"prompts": {"templates": {"other.md": b"x"}}})
    shelf.make()
    file = root / PLACE / "triage.md"
    ids = []
    for number, content in enumerate([b"# triage\nBe kind.\n", b"# triage\nBe quick.\n", None]):
        at = NOON + 86400 * number
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
            os.utime(file, (at - 60, at - 60))
        ids.append(shelf.add(root / PLACE, at=at, tags=("templates",)))
    return ids


def test_the_log_as_a_table(datad: Datad, saved: list[str]) -> None:
    """One line a change, the newest first, no wider than a screen."""
    done = datad("templates", "log", "triage.md")
    assert (0, "") == (done.returncode, done.stderr)
    head, removed, changed, created = done.stdout.splitlines()
    assert head.startswith("snapshot  when")
    assert [saved[2][:8], "2026-11-22", "12:00Z", "removed"] == removed.split()
    assert [saved[1][:8], "2026-11-21", "11:59Z"] == changed.split()[:3]
    assert changed.endswith("changed  19 B      2  1  1  -Be kind.")
    assert created.endswith("created  18 B      2  2  0  +# triage")


def test_the_log_as_json(datad: Datad, saved: list[str]) -> None:
    """Whole ids, times, the owner by name and number."""
    found = datad("templates", "log", f"{PLACE}/triage.md", "--json").document
    assert f"{PLACE}/triage.md" == found["path"]
    assert [*reversed(saved)] == [one["snapshot"] for one in found["changes"]]
    assert ["removed", "changed", "created"] == [one["change"] for one in found["changes"]]
    changed = found["changes"][1]
    assert ("2026-11-21T11:59:00.000Z", 19, 2, 1, 1, os.getuid()) == (
        changed["at"], changed["bytes"], changed["lines"], changed["added"], changed["removed"], changed["uid"]
    )  # fmt: skip


def test_what_was_in_force_then(datad: Datad, saved: list[str]) -> None:
    """The version of a day; before the first and after the removal there was none to speak of."""
    assert saved[0][:8] in datad("templates", "log", "triage.md", "--at", "2026-11-21").stdout
    assert "removed" in datad("templates", "log", "triage.md", "--at", "2026-11-23").stdout
    early = datad("templates", "log", "triage.md", "--at", "2026-11-01")
    assert (1, f"symbiont-datad: {PLACE}/triage.md: there was none then\n") == (early.returncode, early.stderr)
    assert 2 == datad("templates", "log", "triage.md", "--at", "someday").returncode


def test_a_name_without_its_ending(datad: Datad, saved: list[str]) -> None:
    """`other` is `other.md`; what is in no snapshot, or no template, is said."""
    assert "created" in datad("templates", "log", "other").stdout
    assert "created" in datad("templates", "log", "other.md").stdout
    assert "is in no snapshot" in datad("templates", "log", "nothing").stderr
    assert "is not in prompts/templates" in datad("templates", "log", "../../state/a").stderr


def test_latest_is_not_a_snapshot_of_templates_alone(datad: Datad, root: Path, shelf: Shelf, saved: list[str]) -> None:
    """`restore latest` means all there is, unless a path or the tag says otherwise."""
    backup = shelf.add(root, at=NOON - 86400)
    listed = datad("restore", "latest", "--target", root.parent / "out", "--dry-run", "--json").document
    assert backup == listed["snapshot"]["id"]
    by_path = datad("restore", "latest", f"{PLACE}/other.md", "--target", root.parent / "out", "--dry-run", "--json")
    assert saved[2] == by_path.document["snapshot"]["id"]
    by_tag = datad("restore", "latest", "--tag", "templates", "--target", root.parent / "o", "--dry-run", "--json")
    assert saved[2] == by_tag.document["snapshot"]["id"]


def test_a_snapshot_that_can_not_be_looked_into_is_named(
    datad: Datad, root: Path, shelf: Shelf, saved: list[str]
) -> None:
    """The changes that the others show are told all the same: exit code 3."""
    before = packs(shelf)
    (root / PLACE / "other.md").write_bytes(b"lost")
    lost = shelf.add(root / PLACE, at=NOON + 86400 * 5, tags=("templates",))
    for pack in packs(shelf) - before:
        damage(pack)
    done = datad("templates", "log", "triage.md")
    assert (3, 4) == (done.returncode, len(done.stdout.splitlines()))
    assert done.stderr.startswith(f"symbiont-datad: snapshot {lost[:8]}: ")


def test_templates_that_are_gone_have_a_log(datad: Datad, root: Path, saved: list[str]) -> None:
    """By their whole names, since nothing is there that could complete them."""
    shutil.rmtree(root / "prompts")
    assert "changed" in datad("templates", "log", "triage.md").stdout
    assert "is in no snapshot" in datad("templates", "log", "triage").stderr
