"""File systems of every kind, mounted for a test."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KINDS = ("ext4", "xfs", "btrfs", "tmpfs", "overlayfs")


@contextmanager
def mounted(kind: str, base: Path) -> Iterator[Path]:
    """A fresh file system of the kind, 400 MiB, mounted below `base`; overlayfs lies on an ext4."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    at = base / kind
    at.mkdir()
    if kind == "tmpfs":
        with _mount("-t", "tmpfs", "-o", "size=400m", "tmpfs", at):
            yield at
    elif kind == "overlayfs":
        with mounted("ext4", base) as below:
            for name in ("lower", "upper", "work"):
                (below / name).mkdir()
            options = f"lowerdir={below / 'lower'},upperdir={below / 'upper'},workdir={below / 'work'}"
            with _mount("-t", "overlay", "-o", options, "overlay", at):
                yield at
    else:
        # In memory where that is possible: thousands of fsyncs need not wait for a disk.
        memory = Path("/dev/shm")
        with tempfile.NamedTemporaryFile(dir=memory if memory.is_dir() else base, suffix=f".{kind}") as image:
            image.truncate(400 << 20)
            subprocess.run([f"mkfs.{kind}", "-q", image.name], check=True, capture_output=True)
            with _mount("-o", "loop", image.name, at):
                yield at


@contextmanager
def _mount(*words: str | Path) -> Iterator[None]:
    subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", words[-1]], check=True)
