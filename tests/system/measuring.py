"""Coverage of what runs on a booted machine: `scripts/coverage` says in DATAD_COVERAGE where the data belong.

Every Python of the machine measures when it finds the variables that coverage.py looks for. The service manager hands
them to all services, and opens the one directory that the sealed ones have to write to.
"""

import os
import re
import shutil
from pathlib import Path

_DATA, _SETTINGS = "/opt/coverage", "/etc/coverage/pyproject.toml"
_VARIABLES = {"COVERAGE_PROCESS_START": _SETTINGS, "COVERAGE_FILE": f"{_DATA}/data"}


def _directory() -> Path | None:
    """Where the data go on this machine; None where nobody asks for them."""
    found = os.environ.get("DATAD_COVERAGE")
    return Path(found) if found else None


def environment() -> dict[str, str]:
    """What a command on the machine needs in its environment."""
    return _VARIABLES if _directory() else {}


def options() -> list[str]:
    """What systemd-nspawn has to be told."""
    found = _directory()
    return [f"--bind={found}:{_DATA}"] if found else []


def tool() -> str:
    """What has to be installed on the machine, as pip calls it; empty where nothing is measured."""
    return "coverage" if _directory() else ""


def requirements(lock: Path) -> str:
    """The lines of a lock for `tool`."""
    if _directory() is None:
        return ""
    found = re.search(r"^coverage==(?:.*\\\n)+.*\n", lock.read_text(), re.MULTILINE)
    assert found is not None
    return found[0]


def prepare(root: Path, settings: Path) -> None:
    """Have a root file system measure as the settings (a pyproject.toml) say, once coverage.py is installed in it."""
    if _directory() is None:
        return
    (root / _DATA[1:]).mkdir()
    there = root / _SETTINGS[1:]
    there.parent.mkdir()
    shutil.copy(settings, there)
    variables = " ".join(f"{name}={value}" for name, value in _VARIABLES.items())
    managers = dict.fromkeys(("system", "user"), f"[Manager]\nDefaultEnvironment={variables}\n")
    files = {f"etc/systemd/{kind}.conf.d/coverage.conf": text for kind, text in managers.items()}
    for unit in ("symbiont-datad.service", "symbiont-datad@.service"):
        # Not in /etc, where tests remove drop-ins.
        files[f"usr/local/lib/systemd/system/{unit}.d/coverage.conf"] = f"[Service]\nReadWritePaths=-{_DATA}\n"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
