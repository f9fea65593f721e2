"""What restic writes, we check, restore, add to, forget and prune; and restic finds it whole afterwards."""

import os
import time
from pathlib import Path

import pytest

from symbiont_datad.restic.archived import Options
from symbiont_datad.restic.prune import Progress, carry_out, forget, survey
from symbiont_datad.restic.prune_plan import Limits, plan
from tests.restic.interop.peers import Ours, Restic
from tests.restic.interop.rich import as_kept_by, differences, facts_of
from tests.restic.making import IDENTITY, reopen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=["1", "2"], ids=["version 1", "version 2"])
def made(request: pytest.FixtureRequest, restic: Restic, source: Path) -> Restic:
    """A repository that restic made, of either version, with a snapshot of the whole tree."""
    restic("init", "--repository-version", request.param)
    time.sleep(2.1)  # so that no file is as new as its snapshot
    restic.back_up("--host", "host", source)
    return restic


def prune(repository: Path) -> None:
    """Leave nothing that no snapshot needs."""
    opened = reopen(repository)
    found = survey(opened, Progress(), lambda: False)
    carry_out(opened, found, plan(found, Limits(max_unused=0)), Progress(), lambda: False)


def test_we_check_and_restore(made: Restic, source: Path, ours: Ours, tmp_path: Path) -> None:
    """Each of two snapshots comes back as it was, and all data is sound."""
    before = as_kept_by(made.version, facts_of(source))
    (source / "text").write_bytes(b"changed")
    (source / "empty" / "new").write_bytes(b"new")
    (source / "a byte").unlink()
    os.rename(source / "large", source / "names" / "larger")
    made.back_up("--host", "host", source)
    assert () == ours.check()
    (newer, _), (older, _) = ours.snapshots()
    for name, expected in ((older, before), (newer, as_kept_by(made.version, facts_of(source)))):
        assert () == ours.restore(name, source, tmp_path / name).failed
        assert [] == differences(expected, facts_of(tmp_path / name))


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT-14"])
def test_we_back_up_beside_restic(zone: str, made: Restic, source: Path, ours: Ours, tmp_path: Path) -> None:
    """With restic's snapshot as our parent no file is read, in whatever zone it wrote its times."""
    made.environment["TZ"] = zone
    made.back_up("--host", "host", "--force", source)
    counts = ours.back_up(source).archived.counts
    unknown = int(made.version < (0, 17))  # a name with a letter newer than that restic: it writes the name otherwise
    assert (unknown, 0) == (counts.files_new, counts.files_changed)
    (source / "text").write_bytes(b"changed")
    taken = ours.back_up(source)
    counts = taken.archived.counts
    assert (0, 1) == (counts.files_new, counts.files_changed)
    assert ((), ()) == (taken.archived.unread, taken.archived.torn)
    made.check()
    assert () == ours.check()
    assert () == ours.restore(taken.name, source, tmp_path / "ours").failed
    assert [] == differences(facts_of(source), facts_of(tmp_path / "ours"))
    there = made.restore(taken.name, source, tmp_path / "theirs")
    assert [] == differences(as_kept_by(made.version, facts_of(source)), facts_of(there))
    summary = made.back_up("--host", "host", source)
    assert (0, 0) == (summary["files_new"], summary["files_changed"])


def test_we_forget_and_prune(made: Restic, source: Path, ours: Ours, tmp_path: Path) -> None:
    """Of what both have stored, we remove what is not needed any more; the rest is whole for both."""
    first = ours.snapshots()[0][0]
    (source / "large").unlink()
    (source / "text").write_bytes(b"changed")
    ours.back_up(source, Options(IDENTITY))
    made.back_up("--host", "host", source)
    size = _size(ours.repository)
    forget(reopen(ours.repository), [name for name, _ in ours.snapshots()[1:]])
    prune(ours.repository)
    assert _size(ours.repository) < size - (4 << 20)
    made.check()
    assert () == ours.check()
    ((last, _),) = ours.snapshots()
    assert first != last
    there = made.restore(last, source, tmp_path / "theirs")
    assert [] == differences(as_kept_by(made.version, facts_of(source)), facts_of(there))
    assert () == ours.restore(last, source, tmp_path / "ours").failed
    assert [] == differences(as_kept_by(made.version, facts_of(source)), facts_of(tmp_path / "ours"))
    made.back_up("--host", "host", source)
    made("forget", "--keep-last", "1", "--prune")
    made.check()
    assert () == ours.check()


def test_restic_upgrades_a_repository_that_we_used(newer: Restic, source: Path, ours: Ours) -> None:
    """A repository of version 1 that both wrote to becomes one of version 2, and both go on."""
    newer("init", "--repository-version", "1")
    ours.back_up(source)
    newer("migrate", "upgrade_repo_v2")
    newer("prune", "--repack-uncompressed", "--max-unused", "0")
    ours.back_up(source)
    newer.check()
    assert () == ours.check()
    assert 2 == reopen(ours.repository).config.version


def _size(repository: Path) -> int:
    return sum(path.stat().st_size for path in repository.rglob("*"))
