"""A location becomes the backend that it means, and nothing else becomes a directory."""

import os
from pathlib import Path

import pytest

from symbiont_datad.restic.cloud import CloudBackend
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.places import backend_at

ENVIRON = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "GOOGLE_BEARER_TOKEN": "c"}
ENVIRON |= {"AZURE_ACCOUNT_NAME": "d", "AZURE_ACCOUNT_KEY": "ZQ=="}


@pytest.mark.parametrize("location", ["/srv/backups", "./a:b", "backups", "../b", "/with:colon", "10:30"])
def test_a_path_is_a_directory(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path stays one, and asking for it touches nothing."""
    monkeypatch.chdir(tmp_path)
    backend = backend_at(location, {})
    assert isinstance(backend, LocalBackend)
    assert os.path.abspath(location) == backend.location
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("location", ["s3://bucket/prefix", "gs://bucket/a/b", "az://container/prefix", "s3://bucket"])
def test_a_bucket_is_a_cloud(location: str) -> None:
    """The three clouds are known by their schemes."""
    backend = backend_at(location, ENVIRON)
    assert isinstance(backend, CloudBackend)
    assert location == backend.location


@pytest.mark.parametrize(
    "location",
    [
        "", "sftp:me@host:/srv", "rest:https://user:SECRET@host/", "s3:https://host/bucket", "b2:bucket:prefix",
        "https://host/x", "file:///srv/backups", "S3://bucket", "azure:container:/", "rclone:remote:path",
    ],
)  # fmt: skip
def test_anything_else_is_refused(location: str) -> None:
    """What is no path and none of the clouds is refused, with what is allowed and without what it may hold."""
    with pytest.raises(RepositoryError, match=r"allowed are a path, s3://bucket/prefix, gs://.* or az://") as caught:
        backend_at(location, ENVIRON)
    assert "SECRET" not in str(caught.value)
