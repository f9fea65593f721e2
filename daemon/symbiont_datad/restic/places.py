"""Where a repository may lie: a location as users write it, and the backend for it."""

import re
from collections.abc import Mapping

from symbiont_datad.restic.backend import Backend
from symbiont_datad.restic.errors import RepositoryError
from symbiont_datad.restic.local import LocalBackend

ALLOWED = "a path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
"""The locations that there are, in words."""

_CLOUD = re.compile(r"(?:s3|gs|az)://")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def backend_at(location: str, environ: Mapping[str, str]) -> Backend:
    """The backend for a location; `environ` is where a cloud's credentials and endpoint are looked for.

    Nothing is asked of disk or network yet. Raises RepositoryError for what is no location. A path that begins like a
    scheme (`a:b`) is written as `./a:b`, so that a location of some other tool never becomes a directory.
    """
    if _CLOUD.match(location):
        # Whoever keeps a repository in a directory never loads obstore.
        from symbiont_datad.restic.cloud import CloudBackend

        return CloudBackend(location, environ)
    scheme = _SCHEME.match(location)
    if scheme:
        raise RepositoryError(f"a repository can't be at {scheme[1]}:…; allowed are {ALLOWED}")
    if not location:
        raise RepositoryError(f"the repository's location is empty; allowed are {ALLOWED}")
    return LocalBackend(location)
