"""`health` as a probe runs it, through the life of a daemon; and the last sweep at its end."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.process.running import COMMAND, Daemon, running, until
from tests.process.test_life import gone, stopped_child


def health(root: Path, *words: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Ask, as another process of the same user."""
    given = ["--config", str(config)] if config is not None else []
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SYMBIONT_")}
    return subprocess.run(
        [*COMMAND, *given, "--root", str(root), "health", *words],
        capture_output=True,
        text=True,
        timeout=30,
        env={**environ, "HOME": str(root.parent)},
    )


def told(root: Path, *words: str) -> tuple[int, str]:
    """The exit code, and the one line that says why not."""
    found = health(root, *words)
    assert "" == found.stdout
    return found.returncode, found.stderr.removeprefix("symbiont-datad: ").removesuffix("\n")


def age(daemon: Daemon, by_s: float) -> None:
    """Make what a stopped daemon left seem older."""
    file = daemon.root.parent / "datad/status.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "beat": state["beat"] - by_s}))


@pytest.mark.slow
def test_through_a_life(tmp_path: Path) -> None:
    """Nobody there, well, well after a restart, and nobody there again after a clean end and after kill -9."""
    root = tmp_path / "data"
    assert (1, "no daemon is running") == told(root)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with running(tmp_path) as daemon:
            daemon.wait_for_event("daemon_started")
            until(lambda: (0, "") == told(root))
            for probe in ("--live", "--ready", "--startup"):
                assert (0, "") == told(root, probe)
            daemon.stop(number)
        assert (1, "no daemon is running") == told(root)
        assert (1, "no daemon is running") == told(root, "--startup")


def test_a_daemon_that_hangs(tmp_path: Path) -> None:
    """One that is stopped is well until its state is older than it may be; then no probe passes."""
    with running(tmp_path) as daemon:
        until(lambda: 0 == health(daemon.root).returncode)
        daemon.send(signal.SIGSTOP)
        assert (0, "") == told(daemon.root)
        age(daemon, 600.0)
        code, why = told(daemon.root, "--live")
        assert (1, True) == (code, why.startswith("the daemon has not moved for 10m")), why
        assert 1 == told(daemon.root)[0]


def test_a_tree_that_is_held(tmp_path: Path) -> None:
    """While the volume is away the daemon lives, is not ready and has not started; a failed reload changes nothing."""
    with running(tmp_path, f"guard.require_mount = '{tmp_path}/volume'") as daemon:
        assert b"the tree is held: guard.require_mount" in daemon.manager.datagrams[daemon.manager.wait_for("READY=1")]
        why = (1, "the tree is not ready yet")
        until(lambda: (0, "") == told(daemon.root, "--live"))
        assert [why, why, why] == [told(daemon.root, *words) for words in (["--ready"], ["--startup"], [])]


def test_settings_that_were_spoilt_do_not_fail_it(tmp_path: Path) -> None:
    """The daemon goes on with the settings that it has, and so it is well."""
    with running(tmp_path) as daemon:
        until(lambda: 0 == health(daemon.root).returncode)
        daemon.reload("auto_save_interval = 'never'")
        found = health(daemon.root, config=daemon.config)
        assert (0, "") == (found.returncode, found.stderr)


@pytest.mark.usefixtures("ample")
def test_refused_settings_are_in_the_status(tmp_path: Path) -> None:
    """`systemctl status` shows that a reload was refused, and no longer when the next one was not."""
    with running(tmp_path) as daemon:
        daemon.reload("auto_save_interval = 'never'")
        daemon.manager.wait_for("STATUS=1 warning(s): the new settings were refused: auto_save_interval")
        seen = len(daemon.manager.datagrams)
        daemon.reload("")
        daemon.manager.wait_for("STATUS=keeping", after=seen)


def test_as_a_document(tmp_path: Path) -> None:
    """`--json`: a document on stdout and the same exit code, well or not."""
    with running(tmp_path) as daemon:
        until(lambda: 0 == health(daemon.root).returncode)
        for words, probes in (((), ["live", "ready"]), (("--ready",), ["ready"])):
            code, document = document_of(daemon.root, *words)
            assert (0, 1, True, "", daemon.pid) == (
                code, *(document[name] for name in ("schema", "healthy", "reason", "pid")),
            )  # fmt: skip
            assert probes == document["probes"]
    code, document = document_of(daemon.root)
    assert (1, False, "no daemon is running", None) == (
        code, *(document[name] for name in ("healthy", "reason", "pid")),
    )  # fmt: skip


def document_of(root: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the document."""
    found = health(root, *words, "--json")
    return found.returncode, json.loads(found.stdout)


@pytest.mark.parametrize("words", [("--live", "--ready"), ("--alive",), ("now",)])
def test_what_nobody_understands(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Wrong usage is exit code 2, as everywhere."""
    assert 2 == health(tmp_path / "data", *words).returncode


def test_a_probe_loads_nothing_heavy(tmp_path: Path) -> None:
    """It runs every few seconds beside agents: no settings' model, no command line, no database."""
    probe = "import sys; sys.argv = ['x', '--root', sys.argv[1], 'health']; from symbiont_datad.cli import main"
    code = f"""{probe}
try:
    main()
except SystemExit:
    print(*sys.modules)
"""
    command = [*COMMAND[:1], "-c", code, str(tmp_path / "data")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "symbiont_datad" in loaded
    assert set() == loaded & {"pydantic", "typer", "rich", "structlog", "watchdog", "apscheduler", "sqlite3", "asyncio"}


# The last sweep

SWEEPS = {"SYMBIONT_DATAD_AUTOSAVE__ON_STOP": "true"}


def snapshots(daemon: Daemon) -> int:
    """How many there are."""
    found = daemon.root.parent / "backups/snapshots"
    return len(list(found.iterdir())) if found.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, False])
def test_what_changed_last_is_saved_at_the_end(tmp_path: Path, wanted: bool) -> None:
    """SIGTERM: state that was written since the last sweep is in a snapshot, unless the settings say otherwise."""
    environ = {"SYMBIONT_DATAD_AUTOSAVE__ON_STOP": str(wanted).lower()}
    with running(tmp_path, environ=environ) as daemon:
        daemon.wait_for_event("job_finished", job="sweep")
        daemon.wait_for_event("job_finished", job="backup")
        until(lambda: not daemon.children())
        before = snapshots(daemon)
        (daemon.root / "state/agents/late.json").write_text("{}")
        assert 0 == daemon.stop()
    assert before + wanted == snapshots(daemon)


@pytest.mark.slow
def test_a_last_sweep_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """The end comes in time, with exit code 0, and takes the sweep's process along."""
    with running(tmp_path, environ=SWEEPS) as daemon:
        daemon.wait_for_event("job_finished", job="backup")
        until(lambda: not daemon.children())
        (daemon.root / "state/agents/late.json").write_text("{}")
        begun = time.monotonic()
        daemon.send(signal.SIGTERM)
        child = stopped_child(daemon)
        assert 0 == daemon.process.wait(10)
        assert time.monotonic() - begun < 5.0
        until(lambda: gone(child))


@pytest.mark.slow
def test_a_start_that_fails_sweeps_nothing(tmp_path: Path) -> None:
    """A second daemon is refused, and runs no job at its end."""
    with running(tmp_path) as daemon:
        daemon.wait_for_event("job_finished", job="backup")
        second = subprocess.run(
            [*COMMAND, "--root", str(daemon.root), "run"],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(tmp_path), **SWEEPS},
            timeout=30,
        )
        assert (11, "") == (second.returncode, second.stdout)  # jobs tell of themselves there
