"""What targets share: a place for one input, and pieces of JSON."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JSON = (
    b'"', b":", b",", b"{}", b"[]", b"null", b"true", b"-0", b"1e400", b'"\\ud800"', b'"\\u0000"', b"NaN", b"-Infinity",
    b"9007199254740993", b"1.5", b'{"a":[{"b":', b'"a"', b'"": 1', b'"\xff"', b"/**/",
)  # fmt: skip
"""Pieces of JSON, right and wrong."""

PASSWORD = "a password"


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one input, in memory where there is such a place."""
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="datad-fuzz-", dir=shm) as folder:
        yield Path(folder)
