"""What a tree holds, in figures, as the bundle for a bug report tells it."""

from pathlib import Path

import pytest

from symbiont_datad.doctor import contents as module
from symbiont_datad.doctor.contents import contents, quarantined
from symbiont_datad.jobs.context import job_settings
from symbiont_datad.layout import Layout
from symbiont_datad.settings import load
from tests.conftest import AsNobody
from tests.support import build_tree


def layout(root: Path) -> Layout:
    """The layout of a tree with nothing but defaults."""
    return job_settings(
        load(overrides={"root_data_dir": str(root)}, environ={"HOME": str(root.parent)}).settings
    ).layout


def test_what_can_not_be_read_is_counted(open_path: Path, as_nobody: AsNobody) -> None:
    """A directory that is closed, and a tree that is not there at all."""
    build_tree(open_path / "data", {"state": {"agents": {"a": b"aaa"}, "closed": {"x": b""}}})
    (open_path / "data/state/closed").chmod(0o700)
    found = as_nobody(lambda: contents(layout(open_path / "data")))
    assert (1, 1, 3) == (found.unread, found.parts["state/agents"].entries, found.parts["state/agents"].bytes)
    assert 1 == contents(layout(open_path / "none")).unread


def test_of_very_many_names_some_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted."""
    build_tree(tmp_path / "data", {"state": {"agents": {f"a{number}": b"" for number in range(5)}}})
    monkeypatch.setattr(module, "_NAMES", 2)
    found = contents(layout(tmp_path / "data"))
    assert (2, 5) == (len(found.names), found.parts["state/agents"].entries)


def test_things_in_the_quarantine_are_counted(tmp_path: Path) -> None:
    """None where there is none."""
    assert 0 == quarantined(layout(tmp_path / "data"))
    build_tree(tmp_path / "data", {".quarantine": {"20261120T120000Z": {}, "20261121T120000Z": {}}})
    assert 2 == quarantined(layout(tmp_path / "data"))
