"""Files through time: what is said where a snapshot is damaged, the directory has moved, or there is nothing to say."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.errors import DatadError
from symbiont_datad.fsops.root import Tree
from symbiont_datad.jobs import template_log as templates
from symbiont_datad.jobs.context import JobSettings, Progress
from symbiont_datad.jobs.history import Content, content_of, file_versions, live_content, node_in
from symbiont_datad.jobs.repository import opened
from symbiont_datad.jobs.restore import choose
from symbiont_datad.jobs.snapshots import relative_to
from symbiont_datad.jobs.template_log import What, template_log
from symbiont_datad.restic.repository import Repository
from tests.jobs.making import run, settings_for, write
from tests.jobs.snapshotting import cheap_repository, snapshots

TEMPLATE = "prompts/templates/greet.md"


@pytest.fixture
def settings(tmp_path: Path) -> JobSettings:
    """A tree with a template, and an empty repository."""
    settings = cheap_repository(settings_for(tmp_path))
    write(tmp_path / "data" / TEMPLATE, b"Hello\n")
    return settings


def backed_up(settings: JobSettings) -> str:
    """Make a backup; its id."""
    run("backup", settings, now=time.time())
    return snapshots(settings)[-1][0]


def repository_of(settings: JobSettings) -> tuple[Repository, Tree]:
    """The repository, and the tree."""
    return opened(settings.repository), settings.layout.tree


def versions(settings: JobSettings) -> tuple[list[int], int | None, list[str]]:
    """The sizes of a template's versions, which of them is there now, and the snapshots that can't be looked into."""
    lost: list[str] = []
    found, now = file_versions(*repository_of(settings), TEMPLATE, lambda name, _: lost.append(name), Progress())
    return [one.node.size for one in found], now, lost


def changes(settings: JobSettings) -> tuple[list[What], list[str]]:
    """A template's changes, the newest first, and the snapshots that can't be looked into."""
    lost: list[str] = []
    found = template_log(*repository_of(settings), TEMPLATE, lambda name, _: lost.append(name))
    return [one.what for one in found], lost


def test_without_a_snapshot_there_are_no_versions(settings: JobSettings) -> None:
    """And no changes."""
    assert (([], None, []), ([], [])) == (versions(settings), changes(settings))


def test_a_damaged_snapshot_is_named(settings: JobSettings, tmp_path: Path) -> None:
    """The others tell what they know."""
    damaged = backed_up(settings)
    write(tmp_path / "data" / TEMPLATE, b"Good morning\n")
    backed_up(settings)
    file = tmp_path / "backups/snapshots" / damaged
    file.chmod(0o600)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert ([13], 0, [damaged]) == versions(settings)
    assert ([What.CREATED], [damaged]) == changes(settings)


def test_a_tree_that_has_moved_is_found_in_older_snapshots(settings: JobSettings, tmp_path: Path) -> None:
    """In backups, and in those of a part of it, by what their paths have in common."""
    backed_up(settings)
    moved = replace(settings, layout=replace(settings.layout, root=str(tmp_path / "moved")))
    (tmp_path / "data").rename(tmp_path / "moved")
    assert ([6], 0, []) == versions(moved)
    assert ([What.CREATED], []) == changes(moved)
    other = cheap_repository(settings_for(tmp_path / "other"))
    write(tmp_path / "other/data" / TEMPLATE, b"Hi\n")
    write(tmp_path / "other/data/state/sessions/a.json", b"{}")
    run("sweep", other, now=time.time())
    assert {"autosave", "templates"} == {tag for _, one in snapshots(other) for tag in one.tags}
    wanted = choose(opened(other.repository), str(tmp_path / "elsewhere"), "latest", (), None, ("autosave",))
    assert str(tmp_path / "other/data") == wanted.root


def test_what_is_no_file_any_more_was_removed(settings: JobSettings, tmp_path: Path) -> None:
    """A directory has the template's name by then; after that it is made again."""
    path = tmp_path / "data" / TEMPLATE
    backed_up(settings)
    path.unlink()
    write(path / "part", b"x")
    backed_up(settings)
    (path / "part").unlink()
    path.rmdir()
    write(path, b"Hello again\n")
    backed_up(settings)
    assert ([What.CREATED, What.REMOVED, What.CREATED], []) == changes(settings)


def test_of_a_very_large_template_only_the_size_is_told(
    settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after it, lines are counted."""
    monkeypatch.setattr(templates, "LARGEST", 50)
    backed_up(settings)
    for content in (b"line\n" * 30, b"short\n"):
        write(tmp_path / "data" / TEMPLATE, content)
        backed_up(settings)
    found = template_log(*repository_of(settings), TEMPLATE, lambda *_: None)
    assert [(6, 1, 0), (150, None, 0), (6, 1, 1)] == [(one.bytes, one.lines, one.added) for one in found]


def test_what_is_asked_for_and_not_there(settings: JobSettings, tmp_path: Path) -> None:
    """Each is said in a line that names the path."""
    name = backed_up(settings)
    repository, tree = repository_of(settings)
    with pytest.raises(DatadError, match=rf"prompts/none: is not in snapshot {name[:8]}"):
        node_in(repository, tree, "prompts/none", name)
    with pytest.raises(DatadError, match="prompts/none: is in no snapshot"):
        node_in(repository, tree, "prompts/none", "latest")
    _, folder = node_in(repository, tree, "prompts/templates", "latest")
    with pytest.raises(DatadError, match="prompts/templates: is no file there, but a directory"):
        content_of(repository, folder, "prompts/templates", 100)
    _, node = node_in(repository, tree, TEMPLATE, name)
    assert (Content(None, 6), Content(b"Hello\n", 6)) == (
        content_of(repository, node, TEMPLATE, 5), content_of(repository, node, TEMPLATE, 6),
    )  # fmt: skip
    assert (Content(None, 6), Content(b"Hello\n", 6)) == (
        live_content(tree, TEMPLATE, 5), live_content(tree, TEMPLATE, 6),
    )  # fmt: skip
    (tmp_path / "data" / TEMPLATE).unlink()
    with pytest.raises(DatadError, match=f"{TEMPLATE}: can't be read now: No such file"):
        live_content(tree, TEMPLATE, 6)


def test_which_snapshot_is_meant_has_to_be_there(settings: JobSettings, tmp_path: Path) -> None:
    """With one snapshot it is said what that one lacks, with several that none has it."""
    backed_up(settings)
    repository = opened(settings.repository)
    beside = str(tmp_path / "beside")
    with pytest.raises(DatadError, match=f"has no directory {beside}"):
        choose(repository, beside, "latest", (), None, (), beside=True)
    with pytest.raises(DatadError, match=r"logs/none: is not in snapshot"):
        choose(repository, settings.layout.root, "latest", ("logs/none",), None, ())
    backed_up(settings)
    repository = opened(settings.repository)  # one that knows of the second
    with pytest.raises(DatadError, match="no snapshot has logs/none and logs/system"):
        choose(repository, settings.layout.root, "latest", ("logs/none", "logs/system"), None, ())


def test_paths_as_users_type_them(tmp_path: Path) -> None:
    """The directory itself is the empty path; what is outside of it is refused."""
    root = str(tmp_path)
    assert ["", "", "a/b", "b"] == [relative_to(root, path) for path in (".", root, f"{root}/a/b", "a/../b")]
    with pytest.raises(DatadError, match="is not in the data directory"):
        relative_to(root, "../elsewhere")
