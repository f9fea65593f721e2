"""Every way to make a directory differ from its row, as a table."""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.report import DriftKind


def _instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in the place of the directory."""

    def act(path: Path) -> None:
        path.rmdir()
        make(path)

    return act


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path may have 108 bytes at most
        finally:
            os.close(here)


def _exchanged(path: Path) -> None:
    """Another directory, with another mode, takes the place in one rename after the old one is gone."""
    other = path.parent / "other"
    other.mkdir()
    other.chmod(0o711)
    path.rmdir()
    other.rename(path)


@dataclass(frozen=True, slots=True)
class Cause:
    """One way to cause drift at a path that is an empty directory. `polled` is whether polling's events tell of it."""

    name: str
    kind: DriftKind
    act: Callable[[Path], object]
    polled: bool = True
    root_only: bool = False

    def __str__(self) -> str:
        return self.name


CAUSES = (
    Cause("rmdir", DriftKind.MISSING, lambda path: path.rmdir()),
    Cause("rename away", DriftKind.MISSING, lambda path: path.rename(path.parent / "away")),
    Cause("rename far away", DriftKind.MISSING, lambda path: path.rename(path.parents[2] / "far-away")),
    Cause("rename over", DriftKind.MODE, _exchanged, polled=False),
    Cause("a file", DriftKind.OBSTRUCTED, _instead(lambda path: path.write_bytes(b"in the way"))),
    Cause("a link", DriftKind.OBSTRUCTED, _instead(lambda path: path.symlink_to(path.parents[2] / "elsewhere"))),
    Cause("a dangling link", DriftKind.OBSTRUCTED, _instead(lambda path: path.symlink_to("/nowhere/at/all"))),
    Cause("a link to itself", DriftKind.OBSTRUCTED, _instead(lambda path: path.symlink_to(path.name))),
    Cause("a FIFO", DriftKind.OBSTRUCTED, _instead(os.mkfifo)),
    Cause("a socket", DriftKind.OBSTRUCTED, _instead(_socket)),
    Cause("chmod to nothing", DriftKind.MODE, lambda path: path.chmod(0), polled=False),
    Cause("chmod open", DriftKind.MODE, lambda path: path.chmod(0o777), polled=False),
    Cause("sticky", DriftKind.MODE, lambda path: path.chmod(0o1755), polled=False),
    Cause("set-user-ID", DriftKind.MODE, lambda path: path.chmod(0o4755), polled=False),
    Cause("chown", DriftKind.OWNER, lambda path: os.chown(path, 4242, 4243), polled=False, root_only=True),
)


def empty(path: Path) -> None:
    """Leave nothing in a directory."""
    for child in path.iterdir():
        shutil.rmtree(child)
