"""What surrounds the package: locks, scripts, units, versions, and the rule that CI skips nothing."""

import importlib.metadata
import os
import plistlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import symbiont_datad
from symbiont_datad.service.survey import systemd_version
from symbiont_datad.service.unit import adapted
from tests.conftest import AsNobody
from tests.process.running import until
from tests.support import NOBODY, Link, Tree, read_tree

ROOT = Path(__file__).parent.parent
LOCKS = tuple(f"requirements{use}.lock" for use in ("", "-build", "-dev", "-peers", "-mutation"))
UNITS = ("systemd/symbiont-datad.service", "systemd/symbiont-datad@.service", "systemd/user/symbiont-datad.service")
PLISTS = ("launchd/ai.symbiont.datad.plist", "launchd/daemon/ai.symbiont.datad.plist")


def pins(lock: str) -> dict[str, str]:
    """The versions that a lock names, by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def unit_lines(unit: str) -> list[str]:
    """The lines of a unit file that are no comment."""
    return [line for line in (ROOT / unit).read_text().splitlines() if line and not line.startswith("#")]


def tracked_files() -> list[Path]:
    """The files that git knows; skips where this is no checkout."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout")
    listed = subprocess.run(git, capture_output=True, check=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_hashes_and_no_address(lock: str) -> None:
    """A lock is nothing but versions, each with its hashes: it works with whatever index an installer uses."""
    entry = r"[a-z0-9-]+==\S+(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    assert re.fullmatch(f"(?:{entry})+", (ROOT / lock).read_text())


def test_locks_agree() -> None:
    """Run and dev share one environment, so the dev lock holds what the other two hold, in the same versions."""
    together = pins("requirements.lock") | pins("requirements-build.lock")
    assert together == {name: version for name, version in pins("requirements-dev.lock").items() if name in together}
    assert pins("requirements-build.lock") == {name: together[name] for name in pins("requirements-build.lock")}
    known = pins("requirements-dev.lock")
    for lock in ("requirements-peers.lock", "requirements-mutation.lock"):
        more = pins(lock)
        assert {name: known[name] for name in known.keys() & more.keys()} == {
            name: more[name] for name in known.keys() & more.keys()
        }
        known |= more


def test_locks_hold_what_the_project_asks_for() -> None:
    """Each direct dependency is in the lock for its use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {re.split(r"[<>=;\s]", line)[0] for line in project["project"]["dependencies"]}
    assert asked <= pins("requirements.lock").keys()
    dev = {re.split(r"[<>=;\s]", line)[0] for line in project["dependency-groups"]["dev"] if isinstance(line, str)}
    assert dev <= pins("requirements-dev.lock").keys()


@pytest.mark.parametrize(
    "script", ["scripts/setup", "scripts/run", "scripts/test", "scripts/coverage", "scripts/lock", ".ci/run"]
)
def test_scripts_are_executable_and_parse(script: str) -> None:
    """A script can be started as it is, and bash understands it."""
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize(
    ("python", "complaint"),
    [
        pytest.param("echo 3.10.4", "Python 3.11 or newer is needed, and {} is 3.10.4", id="old"),
        pytest.param("exit 127", "Python 3.11 or newer is needed, and {} does not start", id="broken"),
        pytest.param(
            "case $2 in *ensurepip*) exit 1;; esac; echo 3.12.1",
            "{} (3.12.1) comes without venv or ensurepip; on Debian and Ubuntu: apt-get install python3-venv",
            id="without venv",
        ),
    ],
)
def test_setup_says_which_python_it_needs(tmp_path: Path, python: str, complaint: str) -> None:
    """A Python that will not do is named with what it lacks, and nothing is made."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{python}\n")
    interpreter.chmod(0o755)
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    for name in (*LOCKS, "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    result = subprocess.run(
        [copy / "scripts" / "setup"],
        env=os.environ | {"PYTHON": str(interpreter)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (1, f"scripts/setup: {complaint.format(interpreter)}") == (
        result.returncode,
        result.stderr.strip().removesuffix("; another one can be named with PYTHON=…"),
    )
    assert not (copy / ".venv").exists()


def test_what_is_tracked_is_source() -> None:
    """Text, in the directories that belong here: what a run has left behind is neither."""
    tracked = tracked_files()
    rooms = {".ci", "bench", "daemon", "deploy", "docs", "launchd", "scripts", "systemd", "tests"}
    assert rooms == {path.relative_to(ROOT).parts[0] for path in tracked if path.parent != ROOT}
    assert [] == [path for path in tracked if b"\0" in path.read_bytes()]


def test_nothing_tracked_names_this_checkout() -> None:
    """No file holds the path of the directory in which somebody worked on it."""
    here = re.compile(rb"(?<![\w.-])" + re.escape(os.fsencode(ROOT)) + rb"(?![\w.-])")
    assert [] == [path for path in tracked_files() if here.search(path.read_bytes())]


def test_version_is_the_same_everywhere() -> None:
    """The installed metadata and the newest entry of the changelog have the package's version."""
    assert symbiont_datad.__version__ == importlib.metadata.version("symbiont-datad")
    headings = re.findall(r"^## \[?(\d\S*?)\]?(?: |$)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert symbiont_datad.__version__ == headings[0]


@pytest.mark.parametrize("unit", UNITS)
def test_units_say_how_the_daemon_is_run(unit: str) -> None:
    """systemd waits for readiness, watches over the daemon, reloads it, and starts it again after a failure."""
    expected = {
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "WatchdogSec=60",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "NoNewPrivileges=yes",
    }
    lines = unit_lines(unit)
    assert expected <= set(lines)
    assert [True] == [line.endswith("symbiont-datad run") for line in lines if line.startswith("ExecStart=")]


def test_units_name_their_tree() -> None:
    """The system's tree lies in the state directory, a user's own below the home directory."""
    system, template, user = (set(unit_lines(unit)) for unit in UNITS)
    assert "Environment=SYMBIONT_DATAD_ROOT_DATA_DIR=/home/%i/.symbiont/data" in template
    assert {"StateDirectory=symbiont", "Environment=SYMBIONT_DATAD_ROOT_DATA_DIR=/var/lib/symbiont/data"} <= system
    assert "Environment=SYMBIONT_DATAD_ROOT_DATA_DIR=%h/.symbiont/data" in user


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    """This machine's systemd knows every word of what `service install` would write. It exits with 0 even where it does
    not, so its messages count."""
    if sys.platform != "linux":
        pytest.skip("not on this platform: systemd")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    version = systemd_version()
    assert version is not None
    copy = tmp_path / Path(unit).name.replace("@.", "@ada.")
    copy.write_text(adapted((ROOT / unit).read_text(), version, "/bin/true"))
    kind = "--user" if "/user/" in unit else "--system"
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", kind, copy],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (0, "") == (result.returncode, result.stderr)


def test_the_packages_hold_what_they_need(tmp_path: Path) -> None:
    """The wheel has units, property lists and the manual page, and nothing of the tests; one that is built from the
    source package is the same to the byte."""
    build = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run([*build, "-t", "wheel", "-t", "sdist", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = "symbiont_datad/service/files"
    shipped = {path for top in ("systemd", "launchd") for path in (ROOT / top).rglob("*") if path.is_file()}
    assert {f"{files}/{path.relative_to(ROOT)}" for path in shipped} == {
        name for name in names if name.startswith(files)
    }
    assert any(name.endswith("/data/share/man/man1/symbiont-datad.1") for name in names)
    assert not [name for name in names if name.startswith("tests")]
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    subprocess.run([*build, "-t", "wheel", "-d", tmp_path / "again"], cwd=source, check=True, capture_output=True)
    assert wheel.read_bytes() == (tmp_path / "again" / wheel.name).read_bytes()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    """`--show-completion` prints a script for the shell; asked as the script asks, commands are offered."""
    program = Path(sys.executable).parent / "symbiont-datad"
    variables = {
        "_SYMBIONT_DATAD_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "symbiont-datad serv",
        "COMP_CWORD": "1",
    }
    variables |= {"_TYPER_COMPLETE_ARGS": "symbiont-datad serv", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    found = subprocess.run([program], env={**os.environ, **variables}, capture_output=True, text=True, timeout=30)
    assert "service" in found.stdout


LAUNCHD: dict[str, Any] = {
    "Label": str, "UserName": str, "ProgramArguments": [str], "EnvironmentVariables": {"HOME": str}, "RunAtLoad": bool,
    "KeepAlive": {"SuccessfulExit": bool}, "ThrottleInterval": int, "ExitTimeOut": int, "ProcessType": str,
    "LowPriorityIO": bool, "Nice": int, "Umask": int, "StandardOutPath": str, "StandardErrorPath": str,
    "HardResourceLimits": {"Core": int},
}  # fmt: skip
"""The keys that are used, each with its type (launchd.plist(5)). launchd passes a key of another type over."""


def mistyped(found: object, expected: Any, where: str = "") -> list[str]:
    """What of a property list has another type than it must have, or is not known."""
    match expected:
        case dict():
            if not isinstance(found, dict):
                return [where]
            unknown = [f"{where}.{key}: unknown" for key in found if key not in expected]
            return unknown + [
                bad for key in found.keys() & expected for bad in mistyped(found[key], expected[key], key)
            ]
        case [kind]:
            return [where] if not isinstance(found, list) else [where for one in found if type(one) is not kind]
        case _:
            return [] if type(found) is expected else [where]


@pytest.mark.parametrize("plist", PLISTS)
def test_property_lists_are_of_the_right_types(plist: str) -> None:
    """Every key is one of launchd's, with a value of its type; what keeps the agents in front is there."""
    found = plistlib.loads((ROOT / plist).read_bytes())
    assert [] == mistyped(found, LAUNCHD)
    expected = {"Label": "ai.symbiont.datad", "KeepAlive": {"SuccessfulExit": False}, "ProcessType": "Background"}
    assert expected == {name: found[name] for name in expected}
    assert (True, 10) == (found["LowPriorityIO"], found["ThrottleInterval"])
    assert found["HardResourceLimits"]["Core"] == 0


def test_wrong_types_are_found() -> None:
    """A number as text, a truth as a number and a key that launchd does not know are all seen."""
    bad = {
        "ThrottleInterval": "10",
        "RunAtLoad": 1,
        "Throttle": 10,
        "KeepAlive": {"SuccessfulExit": "no"},
        "ProgramArguments": [1],
    }
    assert 5 == len(mistyped(bad, LAUNCHD))


def test_the_agents_program_line_runs_as_written(tmp_path: Path) -> None:
    """The shell line of the shipped agent starts the daemon of the home directory, with its log in Library/Logs."""
    agent = plistlib.loads((ROOT / PLISTS[0]).read_bytes())
    program = tmp_path / "my home/.local/bin/symbiont-datad"
    program.parent.mkdir(parents=True)
    program.symlink_to(Path(sys.executable).parent / "symbiont-datad")
    log = tmp_path / "my home/Library/Logs/symbiont-datad.log"
    log.parent.mkdir(parents=True)
    process = subprocess.Popen(
        agent["ProgramArguments"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "my home")},
        stdin=subprocess.DEVNULL,
    )
    try:
        until(lambda: log.exists() and "daemon_started" in log.read_text(), 30.0)
        assert (tmp_path / "my home/.symbiont/data/state/agents").is_dir()
    finally:
        process.terminate()
        assert 0 == process.wait(20)  # the shell is gone: it is the daemon that ends


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("def test(): pytest.skip('restic is not installed')", 1, id="in a test"),
        pytest.param("@pytest.mark.skip(reason='later')\ndef test(): ...", 1, id="by a mark"),
        pytest.param("pytest.skip('no loop mounts', allow_module_level=True)", 2, id="in a module"),
        pytest.param("def test(): pytest.skip('not on this platform: inotify')", 0, id="platform"),
        pytest.param("@pytest.mark.xfail(strict=True)\ndef test(): assert False", 0, id="expected failure"),
        pytest.param("def test(): ...", 0, id="passes"),
    ],
)
def test_a_skip_fails_in_ci(tmp_path: Path, body: str, code: int) -> None:
    """With DATAD_NO_SKIP a skipped test fails, unless it does not belong to the platform."""
    result = run_pytest(tmp_path, body, {"DATAD_NO_SKIP": "1"})
    assert code == result.returncode, result.stdout


def test_a_skip_is_fine_elsewhere(tmp_path: Path) -> None:
    """Without DATAD_NO_SKIP a test may be skipped."""
    result = run_pytest(tmp_path, "def test(): pytest.skip('restic is not installed')", {})
    assert result.returncode == 0
    assert "1 skipped" in result.stdout


def run_pytest(directory: Path, body: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one test file of its own with this project's conftest as a plugin."""
    (directory / "test_it.py").write_text(f"import pytest\n{body}\n")
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", str(directory)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "DATAD_"))}
    clean["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # hypothesis and xdist take half a second to load
    return subprocess.run(command, env=clean | environment, cwd=ROOT, capture_output=True, text=True)


def test_trees_are_data(tree: Callable[[Tree], Path]) -> None:
    """A tree that was built reads back as it was written."""
    data: Tree = {"logs": {"a.log": b"one\n", "empty": {}}, "latest": Link("logs/a.log"), "gone": Link("nowhere")}
    assert data == read_tree(tree(data))


def test_nobody_is_somebody_else(as_nobody: AsNobody, open_path: Path) -> None:
    """A function run as nobody has nobody's rights and hands its result or its exception back."""
    secret = open_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0o600)
    assert (NOBODY, NOBODY, []) == as_nobody(lambda: (os.geteuid(), os.getegid(), os.getgroups()))
    assert ["secret"] == as_nobody(lambda: os.listdir(open_path))
    with pytest.raises(PermissionError, match="secret"):
        as_nobody(secret.read_bytes)
