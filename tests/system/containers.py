"""podman with a storage of its own, and the image built in it: what the tests of the container share."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.machine import ROOT, in_memory, root_archive

IMAGE, BASE = "localhost/symbiont-datad", "localhost/base"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


@dataclass(frozen=True, slots=True)
class Podman:
    """podman that keeps images, containers and volumes below a directory.

    What it keeps while it runs is below another one, of whose path it takes no more than 50 characters.
    """

    directory: Path
    running: Path

    def run(self, *words: str, check: bool = True, timeout_s: float = 120.0) -> "subprocess.CompletedProcess[str]":
        """Run `podman …`."""
        configuration = self.directory / "containers.conf"
        if not configuration.exists():
            configuration.write_text(_CONFIGURATION)
        command = ["podman", f"--root={self.directory}/storage", f"--runroot={self.running}"]
        result = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, "CONTAINERS_CONF": str(configuration), "TMPDIR": str(self.directory)},
        )
        if check:
            assert result.returncode == 0, f"podman {' '.join(words)}: {result.stdout}{result.stderr}"
        return result

    def inspect(self, name: str) -> dict[str, Any]:
        """What podman knows of a container or an image."""
        found: dict[str, Any] = json.loads(self.run("inspect", name).stdout)[0]
        return found

    def build(self) -> None:
        """Import a base (no image can be pulled everywhere), and build the image on it with the shipped Dockerfile."""
        self.run("import", str(root_archive()), BASE)
        certificates = f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro"
        build = ["build", "--format=docker", "--network=host", certificates, f"--build-arg=BASE_IMAGE={BASE}"]
        self.run(*build, "--build-arg=REVISION=test", f"--tag={IMAGE}", str(ROOT), timeout_s=300.0)

    def health(self, name: str) -> int:
        """The exit code of the container's own health check."""
        return self.run("healthcheck", "run", name, check=False, timeout_s=30.0).returncode

    def events(self, name: str) -> list[dict[str, Any]]:
        """The daemon's log: one JSON object a line, and nothing else."""
        return [json.loads(line) for line in self.run("logs", name).stdout.splitlines()]

    def until_healthy(self, name: str, timeout_s: float = 60.0) -> None:
        """Wait for the health check to pass."""
        deadline = time.monotonic() + timeout_s
        while self.health(name):
            assert time.monotonic() < deadline, self.run("logs", name).stdout
            time.sleep(0.2)


@contextmanager
def podman(directory: Path) -> Iterator[Podman]:
    """podman with the image; all that it made is gone after."""
    short = tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp", ignore_cleanup_errors=True)
    with in_memory(directory), short as running:
        found = Podman(directory, Path(running))
        try:
            found.build()
            yield found
        finally:
            found.run("rm", "--force", "--all", "--time=0", check=False)
            subprocess.run(["umount", "--lazy", f"{directory}/storage/overlay"], capture_output=True)
