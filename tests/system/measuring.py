"""Coverage of what runs on a booted machine: `scripts/coverage` says in DATAD_COVERAGE where the data belong.

Every Python of the machine starts to measure when it finds the variable that coverage.py looks for. The service manager
hands it to all services, and opens the one directory that the sealed ones have to write to.
"""

import os
import re
from pathlib import Path

_DATA = "/opt/coverage"
_SETTINGS = "/etc/coverage.conf"
_CONFIGURATION = f"""\
[run]
branch = true
source_pkgs = symbiont_datad
parallel = true
data_file = {_DATA}/data
patch = _exit, fork
disable_warnings = module-not-imported, module-not-measured, no-data-collected
"""


def _directory() -> Path | None:
    """Where the data go on this machine; None where nobody asks for them."""
    found = os.environ.get("DATAD_COVERAGE")
    return Path(found) if found else None


def environment() -> dict[str, str]:
    """What a command of the machine needs in its environment."""
    return {"COVERAGE_PROCESS_START": _SETTINGS} if _directory() else {}


def options() -> list[str]:
    """What systemd-nspawn has to be told."""
    found = _directory()
    return [f"--bind={found}:{_DATA}"] if found else []


def tool() -> str:
    """What has to be installed on the machine, as pip calls it; empty where nothing is measured."""
    return "coverage" if _directory() else ""


def requirements(lock: Path) -> str:
    """The lock's lines for `tool`."""
    if _directory() is None:
        return ""
    found = re.search(r"^coverage(?:.*\\\n)+.*\n", lock.read_text(), re.MULTILINE)
    assert found is not None
    return found[0]


def prepare(root: Path) -> None:
    """Have a root file system measure, once coverage.py is installed in it."""
    if _directory() is None:
        return
    (root / _DATA[1:]).mkdir()
    manager = f"[Manager]\nDefaultEnvironment=COVERAGE_PROCESS_START={_SETTINGS}\n"
    files = {
        _SETTINGS: _CONFIGURATION,
        "/etc/systemd/system.conf.d/coverage.conf": manager,
        "/etc/systemd/user.conf.d/coverage.conf": manager,
        "/etc/systemd/system/service.d/coverage.conf": f"[Service]\nReadWritePaths=-{_DATA}\n",
    }
    for name, text in files.items():
        path = root / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
