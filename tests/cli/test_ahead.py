"""What is known of a command before the command line is built, and what a backup begins with."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.cli import ahead
from symbiont_datad.cli.words import Words, words_of
from symbiont_datad.restic import looking


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["backup"], Words(command="backup")),
        (["--root", "a", "--config", "b", "backup", "--json"], Words(Path("b"), Path("a"), "backup", ["--json"])),
        (["--root", "a"], Words()),
        (["--root=a", "backup"], Words()),
        (["--root", "--help", "backup"], Words()),
        (["--help"], Words()),
        ([], Words()),
    ],
)
def test_words(typed: list[str], expected: Words) -> None:
    """Options in their usual form, then the command; else it is left to the command line."""
    assert expected == words_of(typed)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree with contexts, which count as very many."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(looking, "_LARGE", 0)
    monkeypatch.setattr(looking, "_cores", lambda: 2)
    (tmp_path / "tree/state/agents").mkdir(parents=True)
    (tmp_path / "tree/state/agents/a.json").touch()
    yield tmp_path / "tree"
    ahead.end()


def places() -> list[int]:
    """The inodes of directories that somebody looks at ahead."""
    return [inode for _, inode in looking._ahead]


def test_a_backup_begins_with_the_contexts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tree that is meant, wherever that was said."""
    expected = [(root / "state/agents").stat().st_ino]
    ahead.begin(words_of(["--root", str(root), "backup"]))
    assert expected == places()
    fd = os.open(root / "state/agents", os.O_RDONLY)
    assert [[b"a.json"]] == [names for names, _ in looking.look_at_all(fd, ())]
    os.close(fd)
    assert [] == places()
    monkeypatch.chdir(root.parent)
    ahead.begin(words_of(["--root", "tree", "backup"]))
    assert expected == places()
    ahead.end()
    assert [] == places()
    (root.parent / "datad.toml").write_text(f'root_data_dir = "{root}"')
    ahead.begin(words_of(["--config", str(root.parent / "datad.toml"), "backup"]))
    assert expected == places()


@pytest.mark.parametrize("rest", [["status"], ["backup", "--help"], []])
def test_nothing_else_does(root: Path, rest: list[str]) -> None:
    """No other command, and no question for help."""
    ahead.begin(words_of(["--root", str(root), *rest]))
    assert [] == places()


def test_what_is_not_there_or_not_sure_is_left(root: Path) -> None:
    """No contexts, a link in their place, settings that can't be read: the backup itself tells of that."""
    ahead.begin(words_of(["--config", str(root / "none.toml"), "backup"]))
    (root / "state/agents").rename(root / "elsewhere")
    ahead.begin(words_of(["--root", str(root), "backup"]))
    (root / "state/agents").symlink_to(root / "elsewhere")
    ahead.begin(words_of(["--root", str(root), "backup"]))
    assert [] == places()
