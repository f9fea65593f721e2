"""When a file was made."""

import os
import sys
import time
from pathlib import Path

import pytest

from symbiont_datad.fsops import birth
from symbiont_datad.fsops.birth import born
from symbiont_datad.fsops.root import pinned


def test_a_file_keeps_its_birth(tmp_path: Path) -> None:
    """It is when the file was made, whatever is done to it; of a link it is the link's own."""
    with pinned(str(tmp_path)) as fd:
        before = time.time()
        (tmp_path / "file").write_bytes(b"x")
        after = time.time()
        made = born("file", fd)
        if made is None:
            pytest.skip("not on this platform: the file system keeps no birth")
        assert before - 0.1 <= made <= after + 0.1
        os.utime(tmp_path / "file", (5, 5))
        (tmp_path / "link").symlink_to("file")
        assert made == born("file", fd)
        assert made < (born("link", fd) or 0)
        with pytest.raises(FileNotFoundError):
            born("gone", fd)


def test_where_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without statx(2) there is no answer."""
    monkeypatch.setattr(birth, "_LIBC", object())
    (tmp_path / "file").write_bytes(b"")
    with pinned(str(tmp_path)) as fd:
        assert born("file", fd) is None


@pytest.mark.skipif(sys.platform != "linux", reason="not on this platform: /proc")
def test_where_files_have_no_birth() -> None:
    """Those of a file system that keeps none, such as /proc, tell nothing."""
    with pinned("/proc") as fd:
        assert born("version", fd) is None
