"""A file in a log's place: as open as the log was, or less so where we may not do better, never more."""

import os
import stat
from pathlib import Path

from symbiont_datad.jobs.log_archive import make_like
from tests.conftest import AsNobody
from tests.support import NOBODY


def test_who_can_not_give_a_file_away_opens_it_to_fewer(open_path: Path, as_nobody: AsNobody) -> None:
    """What the log's group may do is for that group alone; where the group can be kept, it may go on doing it."""
    theirs = open_path / "theirs.log"
    theirs.touch()
    theirs.chmod(0o664)
    (open_path / "made").mkdir()
    os.chown(open_path / "made", NOBODY, NOBODY)

    def make(name: str) -> tuple[bool, str, int]:
        fd = os.open(open_path / "made" / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        like = os.open(theirs, os.O_RDONLY)
        whole = make_like(fd, os.fstat(like), like)
        made = os.fstat(fd)
        return whole, stat.filemode(made.st_mode), made.st_gid

    assert (False, "-rw----r--", NOBODY) == as_nobody(lambda: make("a"))
    os.chown(theirs, 0, NOBODY)
    assert (False, "-rw-rw-r--", NOBODY) == as_nobody(lambda: make("b"))
    os.chown(theirs, NOBODY, NOBODY)
    assert (True, "-rw-rw-r--", NOBODY) == as_nobody(lambda: make("c"))
