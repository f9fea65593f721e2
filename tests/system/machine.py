"""A machine of its own, booted by systemd-nspawn: a real systemd, a real journal, and the daemon from its wheel.

What takes long is kept below the temporary directory: the root file system (a Debian that has Python 3.13 and a systemd
that knows all that the units ask for) and the wheels that the lock names.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.process.running import until
from tests.system import measuring

ROOT = Path(__file__).parents[2]
PROGRAM = "/opt/symbiont-datad/bin/symbiont-datad"
SUITE = "trixie"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "procps",
    "passwd",
    "libpam-systemd",
    "python3",
    "python3-venv",
    "ca-certificates",
)
_PYTHON = "3.13"
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


def cache() -> Path:
    """A directory of ours below the temporary one, which nobody else can write to."""
    path = Path(tempfile.gettempdir()) / f"symbiont-datad-tests-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    assert path.stat().st_uid == os.geteuid()
    return path


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time makes what the name stands for."""
    with open(cache() / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def in_memory(directory: Path) -> Iterator[Path]:
    """A directory whose files are in memory: some gigabytes of small ones, that are gone at once after the block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g,mode=0755", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def root_archive() -> Path:
    """The root file system as a tar file; made when it is not there yet (half a minute)."""
    file = cache() / f"{SUITE}-{sha256(' '.join(PACKAGES).encode()).hexdigest()[:8]}.tar"
    with alone(SUITE):
        if not file.exists():
            sources = Path("/etc/apt/sources.list.d/debian.sources").read_text()
            mirror = re.search(r"^URIs: *(\S+)", sources, re.MULTILINE)
            assert mirror is not None
            making = file.with_suffix(".making.tar")
            command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
            command += ['--aptopt=Acquire::Check-Valid-Until "false"', SUITE, str(making), mirror[1]]
            result = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert result.returncode == 0, result.stderr
            making.rename(file)
    return file


def wheels(directory: Path) -> Path:
    """This checkout's wheel and those of the lock, for the Python of the root file system, in one directory."""
    lock = (ROOT / "requirements.lock").read_text() + measuring.requirements(ROOT / "requirements-peers.lock")
    kept = cache() / f"wheels-{sha256(lock.encode()).hexdigest()[:12]}"
    with alone("wheels"):
        if not kept.exists():
            making = kept.with_name(f"{kept.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            _fetch(lock, making)
            making.rename(kept)
    shutil.copytree(kept, directory)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT))
    return directory


def _fetch(lock: str, directory: Path) -> None:
    """What is published as source only is built here, and is good for every Python."""
    source_only = re.search(r"^sdnotify(?:.*\\\n)+.*\n", lock, re.MULTILINE)
    assert source_only is not None
    binary = directory.with_suffix(".binary")
    source = directory.with_suffix(".source")
    binary.write_text(lock.replace(source_only[0], ""))
    source.write_text(source_only[0])
    machine = os.uname().machine
    platforms = [f"--platform={platform}_{machine}" for platform in _PLATFORMS]
    target = ["--only-binary=:all:", f"--python-version={_PYTHON}", *platforms]
    common = ["--no-deps", "--require-hashes"]
    pip("download", *common, *target, "--dest", str(directory), "--requirement", str(binary))
    pip("wheel", *common, "--no-build-isolation", "--wheel-dir", str(directory), "--requirement", str(source))
    binary.unlink()
    source.unlink()


def pip(*words: str) -> None:
    """pip of this environment; its output only when it fails."""
    result = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


def prepared_root(directory: Path) -> Path:
    """The root file system with the daemon installed from its wheel, in /opt/symbiont-datad and in PATH."""
    root = directory / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(root_archive())], check=True)
    wheels(root / "root/wheels")
    venv = "/opt/symbiont-datad"
    pip_there = f"{venv}/bin/pip install --quiet --no-index --find-links /root/wheels symbiont-datad {measuring.tool()}"
    command = f"python3 -m venv {venv} && {pip_there} && ln -s {PROGRAM} /usr/local/bin/ && rm -r /root/wheels"
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    result = subprocess.run(["chroot", str(root), "sh", "-c", command], capture_output=True, text=True, env=clean)
    assert result.returncode == 0, result.stdout + result.stderr
    measuring.prepare(root, ROOT / "pyproject.toml")
    return root


@dataclass
class Machine:
    """A booted machine. `leader` is its process 1, seen from here."""

    root: Path
    leader: int
    process: "subprocess.Popen[bytes]"
    log: Path
    _cursor: str = field(default="", repr=False)

    def run(
        self, *words: str, check: bool = True, text: str | None = None, user: str = "", timeout_s: float = 120.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command there, as root or another user, with `text` as its standard input."""
        entered = ["nsenter", "-t", str(self.leader), "-a"]
        if user:
            entered += ["runuser", "-u", user, "--"]
        result = subprocess.run(
            [*entered, *words],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
            | measuring.environment(),
        )
        if check:
            assert result.returncode == 0, f"{' '.join(words)}: {result.stdout}{result.stderr}"
        return result

    def sh(self, script: str, **options: Any) -> str:
        """What a shell script prints there."""
        return self.run("sh", "-euc", script, **options).stdout

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file there."""
        self.run(
            "sh", "-euc", f'mkdir -p "$(dirname {path})"; umask 077; cat >{path}; chmod {mode:o} {path}', text=content
        )

    def journal(self, *words: str) -> list[dict[str, Any]]:
        """Entries of the journal, with all of their fields."""
        self.run("journalctl", "--sync", check=False)
        lines = self.run("journalctl", "--no-pager", "--all", "-o", "json", *words).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).stdout.strip()

    def exists(self, path: str) -> bool:
        """Whether there is such a file or directory there."""
        return self.run("test", "-e", path, check=False).returncode == 0


@contextmanager
def booted(root: Path, *options: str) -> Iterator[Machine]:
    """A machine that runs for the length of the block; what is written in it is gone after."""
    log = root.parent / f"{root.name}.log"
    name = f"datad-{os.getpid()}"
    command = ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--register=no", "--keep-unit"]
    command += [
        "--boot",
        "--console=read-only",
        "--private-network",
        "--volatile=overlay",
        *measuring.options(),
        *options,
    ]
    environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ, start_new_session=True
        )
    try:
        machine = Machine(root, until(lambda: _child(process, log), 30.0), process, log)
        until(lambda: machine.run("systemctl", "is-system-running", check=False).stdout.strip() in _UP, 60.0)
        yield machine
        os.kill(machine.leader, signal.SIGKILL)  # the machine's process 1 takes all others along
        process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


_UP = ("running", "degraded")


def _child(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """The machine's process 1. There are others before it, for a moment."""
    assert process.poll() is None, log.read_text()
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with suppress(FileNotFoundError):
            if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                return int(pid)
    return 0


def wait_until(machine: Machine, script: str, timeout_s: float = 30.0) -> None:
    """Run a script there again and again until it ends well."""
    deadline = time.monotonic() + timeout_s
    while (result := machine.run("sh", "-euc", script, check=False)).returncode:
        assert time.monotonic() < deadline, f"{script}: {result.stdout}{result.stderr}"
        time.sleep(0.05)


def words(lines: str) -> Sequence[str]:
    """The words of some text."""
    return lines.split()
