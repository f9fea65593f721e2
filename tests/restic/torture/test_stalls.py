"""Locks over a storage that stalls at the wrong moment."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.restic.errors import RepositoryLocked
from symbiont_datad.restic.lock import hold
from symbiont_datad.restic.records import Lock
from symbiont_datad.restic.repository import Repository
from tests.restic.making import IDENTITY, make_repository

PRUNER = replace(IDENTITY, hostname="another host")
SETTLE_S = 0.02


class Stalling:
    """A store in which somebody else locks exclusively, after one has looked and before one's own file is there."""

    def __init__(self, repository: Repository, held: ExitStack) -> None:
        self._repository = repository
        self._held = held
        self.lock_files = repository.lock_files
        self.remove_lock = repository.remove_lock

    def write_lock(self, lock: Lock) -> str:
        """The other's two looks come first, so he is at work and knows nothing of us."""
        self._held.enter_context(hold(self._repository, PRUNER, exclusive=True, settle_s=SETTLE_S))
        return self._repository.write_lock(lock)


class Broken(Stalling):
    """A store whose second list of locks fails in an unheard-of way."""

    def __init__(self, repository: Repository, held: ExitStack) -> None:
        super().__init__(repository, held)
        self.write_lock = repository.write_lock  # type: ignore[method-assign]
        self.lock_files = self._fail_later
        self._looks = 0

    def _fail_later(self) -> Iterator[tuple[str, Lock | None]]:
        self._looks += 1
        if self._looks > 1:
            raise ArithmeticError
        yield from self._repository.lock_files()


def test_an_eager_lock_waits_when_its_file_came_late(tmp_path: Path) -> None:
    """Who locked meanwhile has not seen us: so nothing may begin, and above all no index be read, until we have looked
    again. He could be done with removing packs, and gone, by the time of an eager lock's second look.
    """
    repository = make_repository(tmp_path / "repository")
    with ExitStack() as held, pytest.raises(RepositoryLocked, match="another host"):
        held.enter_context(hold(Stalling(repository, held), IDENTITY, exclusive=False, eager=True, settle_s=SETTLE_S))
    assert [] == os.listdir(tmp_path / "repository/locks")


def test_an_eager_lock_that_could_not_look_again_is_none(tmp_path: Path) -> None:
    """Whatever keeps it from its second look, it is not confirmed."""
    repository = make_repository(tmp_path / "repository")
    with ExitStack() as held:
        lock = held.enter_context(hold(Broken(repository, held), IDENTITY, exclusive=False, eager=True, settle_s=0.5))
        with pytest.raises(ArithmeticError):
            lock.confirm()
