"""Each test here runs with each restic that there is: the system's, and the one that `DATAD_RESTIC` names."""

import os
import shutil
from pathlib import Path

import pytest

from tests.restic.interop.peers import Ours, Restic, version_of
from tests.restic.interop.rich import build, rich


def _restic(which: str, repository: Path) -> Restic:
    program = os.environ.get("DATAD_RESTIC") if which == "newer" else shutil.which("restic")
    if not program:
        pytest.skip("DATAD_RESTIC names no restic" if which == "newer" else "restic is not installed")
    return Restic(program, version_of(program), repository)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Where the repository is, or will be."""
    return tmp_path / "repository"


@pytest.fixture(params=["installed", "newer"])
def restic(request: pytest.FixtureRequest, repository: Path) -> Restic:
    """A restic, for the repository."""
    return _restic(request.param, repository)


@pytest.fixture
def newer(repository: Path) -> Restic:
    """The newer restic, for commands that the installed one may not have."""
    return _restic("newer", repository)


@pytest.fixture
def ours(repository: Path) -> Ours:
    """Ourselves, for the repository."""
    return Ours(repository)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with a little of everything."""
    return build(tmp_path / "source", rich())
