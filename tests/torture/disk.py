"""A small file system that is made for one run: it can be filled up, unmounted and mounted again."""

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_MIB = 1 << 20
_SIZES = {"ext4": 128 * _MIB, "xfs": 320 * _MIB, "btrfs": 256 * _MIB, "tmpfs": 128 * _MIB}


class Disk:
    """A fresh file system of a kind at `base/disk`, while it is entered. Needs root.

    `base` is bound over itself, because a mount is moved only where its parent is shared with nobody (mount(2)).
    """

    def __init__(self, kind: str, base: Path) -> None:
        self._kind = kind
        self._base = base
        self.at = base / "disk"
        self._aside = base / "aside"
        self._image = base / f"image.{kind}"
        self._device = ""
        self._ballast = -1

    def __enter__(self) -> Self:
        for directory in (self.at, self._aside):
            directory.mkdir(parents=True)
        _run("mount", "--bind", self._base, self._base)
        _run("mount", "--make-private", self._base)
        if self._kind == "tmpfs":
            _run("mount", "-t", "tmpfs", "-o", f"size={_SIZES['tmpfs']},mode=755", "tmpfs", self.at)
        else:
            with self._image.open("wb") as image:
                image.truncate(_SIZES[self._kind])
            _run(f"mkfs.{self._kind}", "-q", self._image)
            self._device = _run("losetup", "--find", "--show", self._image).strip()
            _run("mount", self._device, self.at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()
        _run("umount", "-l", self.at)
        _run("umount", "-l", self._base)
        if self._device:
            _run("losetup", "-d", self._device)  # it goes when nobody uses it any more
        self._image.unlink(missing_ok=True)

    @property
    def full(self) -> bool:
        """Whether it was filled up (others may have made some room since)."""
        return self._ballast >= 0

    def fill(self) -> None:
        """Take every byte that is free, with a file that has no name."""
        if not self.full:
            self._ballast = os.open(self.at, os.O_TMPFILE | os.O_RDWR, 0o600)
        size, piece = os.fstat(self._ballast).st_size, 64 * _MIB
        while piece >= 4096:
            try:
                os.posix_fallocate(self._ballast, size, piece)
                size += piece
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece //= 2

    def free(self) -> None:
        """Give it all back."""
        if self.full:
            os.close(self._ballast)
            self._ballast = -1

    def unmount(self) -> None:
        """Take it away, though it is in use. What has something of it open goes on with that."""
        if self._kind == "tmpfs":  # which would be gone for good
            _run("mount", "--move", self.at, self._aside)
        else:
            _run("umount", "-l", self.at)

    def mount(self) -> None:
        """Bring it back."""
        if self._kind == "tmpfs":
            _run("mount", "--move", self._aside, self.at)
        else:
            _run("mount", self._device, self.at)


def _run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{command}: {done.stderr}")
    return done.stdout
