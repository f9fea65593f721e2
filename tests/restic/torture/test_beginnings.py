"""How a repository begins when a run was killed, or when several hosts begin at once; and that a key always remains."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.crypto import Scrypt
from symbiont_datad.restic.errors import Damaged, RepositoryError, RepositoryExists
from symbiont_datad.restic.local import LocalBackend
from symbiont_datad.restic.repository import Repository, create_repository, open_repository
from tests.restic.making import IDENTITY, PASSWORD, reopen, snapshot
from tests.support import build_tree

SCRYPT = Scrypt(n=1 << 4)


def create(backend: LocalBackend, password: str = PASSWORD, settle_s: float = 0.0) -> Repository:
    """Make a repository."""
    return create_repository(backend, password, IDENTITY, time.time(), scrypt=SCRYPT, settle_s=settle_s)


def half_made(path: Path) -> LocalBackend:
    """What a run has left that was killed before it saved the config."""
    backend = LocalBackend(str(path))
    create(backend)
    (path / "config").unlink()
    return backend


def keys(backend: LocalBackend) -> list[str]:
    """The names of the keys."""
    return sorted(name for name, _ in backend.list(FileKind.KEY))


def test_what_a_killed_run_has_begun_is_finished(tmp_path: Path) -> None:
    """A key without a config, and nothing else, becomes the key of the repository."""
    backend = half_made(tmp_path / "repository")
    before = keys(backend)

    made = create(backend)

    assert before == keys(backend) == [made.key_name]
    assert made.config == open_repository(backend, PASSWORD).config


def test_what_another_password_has_begun_is_left_alone(tmp_path: Path) -> None:
    """Somebody else may be at it just now: an error, and no key of ours is left."""
    backend = half_made(tmp_path / "repository")
    before = keys(backend)

    with pytest.raises(RepositoryExists, match="this password does not open"):
        create(backend, "another")

    assert before == keys(backend)
    assert [] == list(backend.list(FileKind.CONFIG))


def test_a_repository_that_lost_its_config_is_not_begun_anew(tmp_path: Path) -> None:
    """Where there is data, a new config would hide it."""
    backend = LocalBackend(str(tmp_path / "repository"))
    snapshot(create(backend), build_tree(tmp_path / "source", {"a": b"a"}))
    (tmp_path / "repository/config").unlink()

    with pytest.raises(RepositoryExists, match="lost"):
        create(backend)

    assert [] == list(backend.list(FileKind.CONFIG))


class Meeting(LocalBackend):
    """A place at which several look for keys, and then all go on at the same moment."""

    def __init__(self, path: Path, hosts: int) -> None:
        super().__init__(str(path))
        self._met = threading.Barrier(hosts, timeout=20)

    def create(self) -> None:
        """They all have seen that there is no key."""
        super().create()
        self._met.wait()


def test_hosts_that_begin_at_once_end_up_in_one_repository(tmp_path: Path) -> None:
    """Whoever makes it at the same time as others: all have one key in the end, and read what the others store."""
    backend = Meeting(tmp_path / "repository", 3)
    source = build_tree(tmp_path / "source", {"a": b"a"})

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: create(backend, settle_s=0.2), range(3)))

    assert 1 == len(keys(backend))
    assert {*keys(backend)} == {repository.key_name for repository in made}
    for repository in made:
        assert snapshot(repository, source) in dict(reopen(tmp_path / "repository").snapshots())


def test_a_key_that_does_not_open_the_config_is_passed_over(tmp_path: Path) -> None:
    """Whoever was killed while several made a repository may leave a key that leads nowhere."""
    backends = [LocalBackend(str(tmp_path / name)) for name in ("one", "two")]
    made = [create(backend) for backend in backends]
    for mine, other in ((0, 1), (1, 0)):  # whichever is listed first
        text = backends[other].load(FileKind.KEY, made[other].key_name)
        backends[mine].save(FileKind.KEY, made[other].key_name, [text])

    for backend, repository in zip(backends, made, strict=True):
        assert repository.key_name == open_repository(backend, PASSWORD).key_name


def test_a_config_that_no_key_opens_is_damage(tmp_path: Path) -> None:
    """A password that is right and a config that changed: that is told as it is."""
    backend = LocalBackend(str(tmp_path / "repository"))
    create(backend)
    sealed = bytearray(backend.load(FileKind.CONFIG, ""))
    sealed[20] ^= 1
    backend.save(FileKind.CONFIG, "", [sealed])

    with pytest.raises(Damaged, match="config: its seal is broken"):
        open_repository(backend, PASSWORD)


def test_two_who_remove_each_others_key_leave_one(tmp_path: Path) -> None:
    """The key that opened the repository stays; when it is gone all the same, no other one may go."""
    backend = LocalBackend(str(tmp_path / "repository"))
    first = create(backend)
    first.add_key("another", IDENTITY, time.time(), SCRYPT)
    second = open_repository(backend, "another")

    first.remove_key(second.key_name)

    with pytest.raises(RepositoryError, match="gone meanwhile"):
        second.remove_key(first.key_name)
    assert [first.key_name] == keys(backend)
