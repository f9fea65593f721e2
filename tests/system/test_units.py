"""What systemd itself says to the units: nothing when it reads them, and how much they leave open."""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from symbiont_datad.service.shipped import shipped
from symbiont_datad.service.unit import adapted
from tests.system.machine import PROGRAM

pytestmark = pytest.mark.slow

SYSTEM, TEMPLATE, USER = "symbiont-datad.service", "symbiont-datad@.service", "user/symbiont-datad.service"
DROP_INS = ("network", "http", "tree", "volume", "dynamic-user")


def placed(root: Path, unit: str, drop_ins: Iterable[str], as_shipped: bool) -> str:
    """The unit and its drop-ins in a directory of the root file system; where the unit is, as seen from inside."""
    directory = Path(tempfile.mkdtemp(dir=root / "srv"))
    directory.chmod(0o755)
    text = shipped(f"systemd/{unit}")
    name = Path(unit).name.replace("@.", "@ada.")
    (directory / f"{name}.d").mkdir(parents=True)
    program = PROGRAM if unit != USER else "/usr/bin/true"
    (directory / name).write_text(text if as_shipped else adapted(text, 257, program))
    for drop_in in drop_ins:
        (directory / f"{name}.d/{drop_in}.conf").write_text(shipped(f"systemd/drop-ins/{drop_in}.conf"))
    if "volume" in drop_ins:  # a machine that has the drop-in has the volume
        (directory / "var-lib-symbiont.mount").write_text("[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/var/lib/symbiont\n")
    return f"/{(directory / name).relative_to(root)}"


def analyze(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze of the root file system, which is newer than that of the machine."""
    command = ["chroot", str(root), "env", "XDG_RUNTIME_DIR=/tmp", "systemd-analyze", "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("as_shipped", [True, False], ids=["shipped", "installed"])
@pytest.mark.parametrize(
    ("unit", "drop_ins"), [(SYSTEM, []), (TEMPLATE, []), (USER, []), *((SYSTEM, [name]) for name in DROP_INS)]
)
def test_systemd_knows_every_word(root: Path, unit: str, drop_ins: list[str], as_shipped: bool) -> None:
    """`systemd-analyze verify` prints nothing: neither for the files as they come, nor as they are installed."""
    if unit == USER:  # the program's usual place, as the shipped unit has it
        program = root / "root/.local/bin/symbiont-datad"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.unlink(missing_ok=True)
        program.symlink_to("/usr/bin/true")
    at = placed(root, unit, drop_ins, as_shipped)
    result = analyze(root, "verify", "--man=no", *(["--user"] if unit == USER else []), at)
    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize(
    ("unit", "drop_ins", "most"),
    [
        (SYSTEM, [], 1.0),
        (TEMPLATE, [], 1.0),
        (SYSTEM, ["tree"], 1.0),
        (SYSTEM, ["volume"], 1.0),
        (SYSTEM, ["dynamic-user"], 1.0),
        (SYSTEM, ["network"], 2.0),
        (SYSTEM, ["http"], 2.0),
    ],
)
def test_little_is_left_open(root: Path, unit: str, drop_ins: list[str], most: float) -> None:
    """`systemd-analyze security`: at most 1.0 for a service that needs no network, 2.0 for one that does."""
    at = placed(root, unit, drop_ins, as_shipped=False)
    result = analyze(root, "security", "--offline=true", f"--threshold={round(most * 10)}", at)
    assert 0 == result.returncode, result.stdout


def test_the_message_catalogue_is_one(root: Path) -> None:
    """`journalctl --update-catalog` takes it without a word."""
    directory = root / "usr/local/lib/systemd/catalog"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "symbiont-datad.catalog"
    file.write_text(shipped("systemd/symbiont-datad.catalog"))
    try:
        command = ["chroot", str(root), "journalctl", "--update-catalog"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    finally:
        file.unlink()
