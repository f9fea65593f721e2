"""Files that don't hold still while they are read: what is stored of them bothers no restic."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from symbiont_datad.restic.archived import Options
from tests.conftest import AsNobody
from tests.restic.interop.peers import Ours, Restic
from tests.restic.interop.rich import LARGE
from tests.restic.making import IDENTITY, Disturbed, make_repository
from tests.support import NOBODY, build_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_unruly_files(restic: Restic, ours: Ours, tmp_path: Path) -> None:
    """Torn, growing, vanished and replaced files: the snapshot is made, and restic checks, lists and restores it."""
    make_repository(ours.repository)
    source = build_tree(tmp_path / "source", {
        "torn": LARGE, "log": LARGE, "vanishes": b"1", "pipe": b"2", "link": b"3", "directory": {"file": b"4"},
        "still": b"5",
    })  # fmt: skip

    def disturb() -> None:
        (source / "vanishes").unlink()
        (source / "pipe").unlink()
        os.mkfifo(source / "pipe")
        (source / "link").unlink()
        (source / "link").symlink_to("/etc")
        (source / "directory" / "file").unlink()
        (source / "directory").rmdir()
        (source / "directory").symlink_to("/etc")

    asked = iter([lambda: None, disturb])  # before the listing, and after it

    def stopping() -> bool:
        next(asked, lambda: None)()
        return False

    options = Options(IDENTITY, stopping=stopping)
    with (source / "torn").open("r+b", buffering=0) as torn, (source / "log").open("ab", buffering=0) as log:

        def write() -> None:
            os.pwrite(torn.fileno(), os.urandom(64), 0)
            log.write(b"a line\n")

        taken = ours.back_up(source, options, writer=partial(Disturbed, work=write))
    assert [os.fsencode(source / "torn")] == [path for path, _ in taken.archived.torn]
    replaced = {os.fsencode(source / "directory"), os.fsencode(source / "link")}
    assert replaced == {path for path, _ in taken.archived.unread}
    restic.check()
    restic("ls", "--long", taken.name)
    there = restic.restore(taken.name, source, tmp_path / "theirs")
    assert ["log", "still", "torn"] == sorted(os.listdir(there))
    assert LARGE == (there / "log").read_bytes()[: len(LARGE)]
    assert LARGE[64:] == (there / "torn").read_bytes()[64:]
    summary = restic.back_up("--host", "host", source)
    assert 5 == summary["files_new"] + summary["files_changed"] + summary["files_unmodified"] + 2

    after = ours.back_up(source, replace(options, parents=tuple(ours.snapshots())))
    assert ((), ()) == (after.archived.unread, after.archived.torn)
    assert () == ours.check()
    restic.check()
    there = restic.restore(after.name, source, tmp_path / "later")
    assert (source / "torn").read_bytes() == (there / "torn").read_bytes()
    assert ["directory", "link", "log", "pipe", "still", "torn"] == sorted(os.listdir(there))


def test_unreadable_files(restic: Restic, open_path: Path, as_nobody: AsNobody) -> None:
    """What we may not read is left out and named, and restic finds the snapshot whole."""
    ours = Ours(open_path / "repository")
    source = build_tree(open_path / "source", {"readable": b"1", "secret": b"2", "closed": {"file": b"3"}})
    make_repository(ours.repository)
    for path in (ours.repository, *ours.repository.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (source / "secret").chmod(0o600)
    (source / "closed").chmod(0o700)
    taken = as_nobody(lambda: ours.back_up(source))
    expected = sorted([os.fsencode(source / "closed"), os.fsencode(source / "secret")])
    assert expected == sorted(path for path, _ in taken.archived.unread)
    theirs = replace(restic, repository=ours.repository)
    theirs.check()
    there = theirs.restore(taken.name, source, open_path / "target")
    assert ["readable"] == os.listdir(there)
