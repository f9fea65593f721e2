"""The image: built from a base, run without rights, healthy, hung, stopped, beside a writer that plays the runtime."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.running import TREE, until
from tests.system.containers import BASE, IMAGE, Podman, podman

pytestmark = pytest.mark.slow

HOME = "/var/lib/symbi"
SEALED = ("--read-only", "--cap-drop=all", "--network=none", "--memory=96m", "--security-opt=no-new-privileges")
_LARGEST = 120 * 1000 * 1000
"""Bytes that the image may have over its base."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman, and the image in it."""
    if os.geteuid() != 0:
        pytest.skip("only root runs containers here")
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    with podman(tmp_path_factory.mktemp("podman")) as found:
        yield found


@contextmanager
def container(built: Podman, name: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[int]:
    """A container of the image on the volume `NAME-data`; its process's pid here."""
    volume = f"--volume={name}-data:{HOME}"
    built.run("run", "--detach", f"--name={name}", *SEALED, volume, *options, IMAGE, *command)
    try:
        yield int(built.inspect(name)["State"]["Pid"])
    finally:
        built.run("rm", "--force", "--time=0", name, check=False)


def tree_of(built: Podman, name: str) -> Path:
    """Where the volume's tree is on this machine."""
    return (
        Path(built.run("volume", "inspect", "--format={{.Mountpoint}}", f"{name}-data").stdout.strip())
        / ".symbiont/data"
    )


def is_right(tree: Path) -> bool:
    """Whether every directory is there, with its mode and the runtime's uid."""
    try:
        return {(0o40755, 1000)} == {((tree / path).stat().st_mode, (tree / path).stat().st_uid) for path in TREE}
    except FileNotFoundError:
        return False


def test_the_image(built: Podman) -> None:
    """Not root, no shell to start it, a health check, labels, no password or build tool in it, and small."""
    found, base = built.inspect(IMAGE), built.inspect(BASE)
    config = found["Config"]
    assert ("1000:1000", ["symbiont-datad"], ["run"]) == (config["User"], config["Entrypoint"], config["Cmd"])
    assert ["CMD", "symbiont-datad", "health"] == found["Healthcheck"]["Test"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    expected = {"title": "symbiont-datad", "licenses": "Apache-2.0", "revision": "test", "version": "0.1.0"}
    assert expected == {name: labels[name] for name in expected}
    assert found["Size"] - base["Size"] < _LARGEST
    said = built.run(
        "run", "--rm", "--network=none", "--entrypoint=/bin/ls", IMAGE, "/opt/symbiont-datad/bin", "/opt"
    ).stdout
    assert "pip" not in said
    assert "build" not in said
    assert "symbiont-datad 0.1.0" == built.run("run", "--rm", "--network=none", IMAGE, "--version").stdout.strip()


WRITER = f"""
set -u
cd {HOME}/.symbiont/data/state/agents
i=0
while :; do
    i=$((i + 1))
    echo '{{"agent": '$i'}}' >agent-$((i % 50)).json
    [ $((i % 10)) = 0 ] && rmdir ../sessions 2>/dev/null && chmod 700 ../../logs
    sleep 0.01
done
"""


def test_beside_a_writer(built: Podman) -> None:
    """Without rights, network or a writable root, in 96 MiB, on a volume that another container writes to: the tree is
    kept, a backup is made, and SIGTERM ends it in less than five seconds, with exit code 0 and a last snapshot."""
    with container(built, "datad", "--env=SYMBIONT_DATAD_GUARD__BACKOFF_AFTER=100000") as pid:
        built.until_healthy("datad")
        tree = tree_of(built, "datad")
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "\nUid:\t1000\t1000" in status
        volume = f"--volume=datad-data:{HOME}"
        writer = ["--detach", "--name=writer", "--user=1000:1000", "--network=none", volume, "--entrypoint=/bin/sh"]
        built.run("run", *writer, IMAGE, "-c", WRITER)
        try:
            until(lambda: [one for one in built.events("datad") if one["event"] == "directory_recreated"], 60.0)
            until(lambda: [one for one in built.events("datad") if one.get("job") == "backup" and "id" in one], 60.0)
            built.run("kill", "--signal=STOP", "writer")
            until(lambda: is_right(tree))
            assert 0 == built.health("datad")
            late = tree / "state/agents/late.json"
            late.write_text("{}")
            begun = time.monotonic()
            built.run("stop", "--time=30", "datad")
            assert time.monotonic() - begun < 5.0
        finally:
            built.run("rm", "--force", "--time=0", "writer", check=False)
        state = built.inspect("datad")["State"]
        assert (0, False) == (state["ExitCode"], state["OOMKilled"])
        events = built.events("datad")
        assert [] == [one for one in events if one["event"] == "job_failed"]
        assert ["snapshot_created", "daemon_stopped"] == [
            one["event"] for one in events if one["event"] in ("snapshot_created", "daemon_stopped")
        ][-2:]
        assert is_right(tree)
    versions = ["run", "--rm", *SEALED, f"--volume=datad-data:{HOME}", IMAGE, "versions", "state/agents/late.json"]
    assert "late" not in built.run(*versions, "--json").stderr


def test_a_daemon_that_hangs_is_unhealthy(built: Podman) -> None:
    """Stopped, it is healthy until its state is older than it may be, and then not; going on, it is healthy again."""
    with container(built, "hung") as pid:
        built.until_healthy("hung")
        os.kill(pid, signal.SIGSTOP)
        assert 0 == built.health("hung")
        file = tree_of(built, "hung").parent / "datad/status.json"
        state = json.loads(file.read_text())
        file.write_text(json.dumps({**state, "beat": state["beat"] - 100.0}))  # as if it had stood still for so long
        assert 0 != built.health("hung")
        os.kill(pid, signal.SIGCONT)
        built.until_healthy("hung")


def test_secrets_and_settings_of_a_container(built: Podman, tmp_path: Path) -> None:
    """A file in /run/secrets is a setting, any variable is one, and a wrong one ends the start with exit code 2."""
    secret = tmp_path / "password"
    secret.write_text("correct-horse-battery-staple-9")
    secret.chmod(0o444)
    mounted = f"--volume={secret}:/run/secrets/symbiont_datad_backup__password:ro"
    with container(built, "sealed", mounted, "--env=SYMBIONT_DATAD_LOGGING__LEVEL=debug"):
        until(lambda: [one for one in built.events("sealed") if one["event"] == "snapshot_created"], 60.0)
        assert "correct-horse" not in built.run("logs", "sealed").stdout
        assert "correct-horse" not in built.run("inspect", "sealed").stdout
    volume = f"--volume=sealed-data:{HOME}"
    opened = built.run("run", "--rm", *SEALED, volume, mounted, IMAGE, "snapshots", check=False)
    closed = built.run("run", "--rm", *SEALED, volume, IMAGE, "snapshots", check=False)
    assert (0, 12) == (opened.returncode, closed.returncode)
    wrong = built.run("run", "--rm", *SEALED, "--env=SYMBIONT_DATAD_BACKUP_COUNT=many", IMAGE, check=False)
    assert (2, True) == (wrong.returncode, "backup_count" in wrong.stderr)
