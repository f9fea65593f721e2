"""The servers, started once, and the backends that the contract is for."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import Backend
from symbiont_datad.restic.places import backend_at
from tests.restic.backends.servers import BUCKET, S3Server, moto_server, rclone_server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server over files."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server in memory."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(
    params=["local", pytest.param("rclone", marks=pytest.mark.slow), pytest.param("moto", marks=pytest.mark.slow)]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """An empty place for a repository, of each kind that can be had here, made ready for saving."""
    if request.param == "local":
        made = backend_at(str(tmp_path / "repository"), {})
    else:
        server: S3Server = request.getfixturevalue(request.param)
        made = backend_at(f"s3://{BUCKET}/some/place-{next(_numbers)}", server.environ)
    made.create()
    return made
