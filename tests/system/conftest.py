"""One booted machine for all tests here."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.machine import Machine, booted, in_memory, prepared_root


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system with the daemon in it, installed from its wheel."""
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine")
    for command in ("mmdebstrap", "systemd-nspawn"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")
    with in_memory(tmp_path_factory.mktemp("machine")) as directory:
        yield prepared_root(directory)


@pytest.fixture(scope="session")
def machine(root: Path) -> Iterator[Machine]:
    """A machine that runs; nothing of ours is installed as a service."""
    with booted(root) as machine:
        yield machine
