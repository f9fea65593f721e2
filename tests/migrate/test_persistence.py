"""`FilePersistenceConfig.migrate_from_legacy`, as agent code calls it."""

import gzip
import os
from pathlib import Path

import pytest

from symbiont_datad import FilePersistenceConfig, settings_sources
from symbiont_datad.errors import DatadError
from symbiont_datad.migrate.migration import Refused
from tests.conftest import AsNobody
from tests.migrate.making import HOUR, NOW, Home, agent, context, everything, lost, write

A, B = agent(1), agent(2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's home, and nothing of the machine's own settings."""
    for name in [name for name in os.environ if name.startswith("SYMBIONT_DATAD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(settings_sources, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.setattr(settings_sources, "RUN_SECRETS", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path)


def test_contexts_come_over(home: Home) -> None:
    """With archives; twice is once; --undo of the command knows of it."""
    write(home.old / f"{A}.json", context(), NOW - HOUR)
    write(home.old / "archives" / A / "archive_1.json", b"{}")
    first = everything(home.old)
    config = FilePersistenceConfig.migrate_from_legacy("project/data/contexts")
    assert home.agents == config.agent_contexts_path()
    assert context() == gzip.decompress((config.agent_contexts_path() / f"{A}.json.gz").read_bytes())
    assert ([], first) == (lost(home.old, home.root), everything(home.old))
    assert config.sessions_path().is_dir()
    assert config == FilePersistenceConfig.migrate_from_legacy(home.old)
    assert 2 == home.undo()[0].removed


def test_a_path_without_anything_is_nothing_to_migrate(home: Home) -> None:
    """The directories are made all the same, as the runtime's own does."""
    config = FilePersistenceConfig.migrate_from_legacy(home.old)
    assert config.agent_contexts_path().is_dir()
    assert FilePersistenceConfig.load() == config


def test_the_tree_itself_is_refused(home: Home) -> None:
    """Nothing is touched."""
    FilePersistenceConfig.load().ensure_directories()
    with pytest.raises(Refused, match="lies in the data directory"):
        FilePersistenceConfig.migrate_from_legacy(home.agents)


def test_what_did_not_come_over_is_an_error(
    open_path: Path, as_nobody: AsNobody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named. What came over stays; a damaged file came over, to quarantine."""
    home = Home(open_path)
    write(home.old / f"{A}.json", context())
    write(home.old / f"{agent(3)}.json", b"", NOW - HOUR)
    closed = write(home.old / f"{B}.json", context(), mode=0)
    for path in [home.base, *home.base.rglob("*")]:
        os.chown(path, 65534, -1)
    os.chown(closed, 0, -1)
    monkeypatch.setenv("HOME", str(home.base))

    def migrate() -> str:
        try:
            FilePersistenceConfig.migrate_from_legacy(home.old)
        except DatadError as error:
            return str(error)
        return ""

    assert f"{closed}: Permission denied" == as_nobody(migrate)
    assert home.live(1).exists()
