"""Which files are open is seen across processes, without waiting for any."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from symbiont_datad.fsops.opened import identity, open_files
from symbiont_datad.fsops.root import Tree
from tests.conftest import AsNobody
from tests.support import Tree as Data

HOLDER = "import sys; file = open(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"


def test_a_file_that_another_process_holds_is_open(tree: Callable[[Data], Path]) -> None:
    """While another process has a file open, even one renamed since, it is among the open ones; afterwards it isn't."""
    root = tree({"held": b"", "idle": b""})
    ids = {name: identity(Tree(str(root)), name) for name in ("held", "idle")}
    command = [sys.executable, "-c", HOLDER, str(root / "held")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (root / "held").rename(root / "renamed")
        assert ids["held"] in open_files(str(root)).files
        assert ids["idle"] not in open_files(str(root)).files
    assert ids["held"] not in open_files(str(root)).files


def test_root_sees_all_and_nobody_says_what_is_hidden(tmp_path: Path, as_nobody: AsNobody) -> None:
    """Root has nothing to add; a user who may not look into others' processes says how many those are."""
    assert "" == open_files(str(tmp_path)).unseen
    assert "processes of other users" in as_nobody(lambda: open_files(str(tmp_path)).unseen)


def test_identity_follows_no_link_and_knows_what_is_gone(tree: Callable[[Data], Path]) -> None:
    """A link's identity is its own, and a missing file has none."""
    root = tree({"f": b""})
    (root / "link").symlink_to("f")
    found = os.lstat(root / "link")
    assert (found.st_dev, found.st_ino) == identity(Tree(str(root)), "link")
    assert identity(Tree(str(root)), "gone") is None
