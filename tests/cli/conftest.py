"""What the tests of commands on snapshots share: a command line in this process, and snapshots of any time and host."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from symbiont_datad import settings_sources
from symbiont_datad.cli import main
from symbiont_datad.restic.archived import Options, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.crypto import Scrypt
from symbiont_datad.restic.lock import Identity
from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.records import format_time
from symbiont_datad.restic.repository import Repository, create_repository, open_repository
from symbiont_datad.restic.writer import Writer
from tests.support import own_environ

WHO = Identity("here", "somebody", 1, 1000, 1000)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout, which is all of it, or its last line."""
        text = self.stdout if self.stdout.startswith("{\n") else self.stdout.splitlines()[-1]
        document = json.loads(text)
        assert 1 == document["schema"]
        return document

    @property
    def of_tree(self) -> list[Any]:
        """What `check` found in the tree, without what it found of the machine."""
        return [one for one in self.document["findings"] if one["probe"] == "tree"]


Datad = Callable[..., Done]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data directory's path; nothing is there yet."""
    return tmp_path / "user" / ".symbiont" / "data"


@pytest.fixture
def datad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Datad:
    """Types `symbiont-datad …` in `tmp_path`, with a home of its own; sees nothing of the machine's own settings."""
    # Those who run tests beside each other set COLUMNS.
    kept = own_environ()
    for name in [name for name in os.environ if name not in kept or name == "COLUMNS"]:
        monkeypatch.delenv(name)
    for name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(settings_sources, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.setattr(settings_sources, "RUN_SECRETS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["symbiont-datad", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        told = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, told.out, told.err)

    return run


@dataclass(frozen=True, slots=True)
class Shelf:
    """A repository beside the data directory, and ways to put snapshots into it."""

    path: Path
    password: str = ""

    def make(self) -> Repository:
        """Make it, with a key that costs little."""
        backend = backend_at(str(self.path), {})
        return create_repository(backend, self.password, WHO, time.time(), scrypt=Scrypt(1 << 10, 8, 1))

    def open(self) -> Repository:
        """Open it."""
        return open_repository(backend_at(str(self.path), {}), self.password)

    def add(self, *paths: Path, at: float = 0.0, host: str = "here", tags: tuple[str, ...] = ("backup",)) -> str:
        """Make a snapshot of directories, as of a time (seconds since the epoch; 0: now); hand back its id."""
        repository = self.open()
        options = Options(WHO, tags=tags)
        targets = [(os.fsencode(os.path.realpath(path)), os.open(path, os.O_RDONLY)) for path in paths]
        try:
            with Writer(repository) as writer:
                archived = Archiver(repository, writer, options).archive(targets)
        finally:
            for _, fd in targets:
                os.close(fd)
        names = [name for name, _ in targets]
        snapshot = snapshot_of(archived, writer.added, options, names, time.time_ns())
        changes: dict[str, object] = {"hostname": host}
        if at:
            changes["time"] = format_time(at)
        return repository.save_snapshot(msgspec.structs.replace(snapshot, **changes))


@pytest.fixture
def shelf(root: Path) -> Shelf:
    """The repository of the default settings; it is not made yet."""
    return Shelf(root.parent / "backups")
