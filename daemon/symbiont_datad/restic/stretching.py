"""scrypt, which takes a while by design; and doing it ahead: a thread stretches a password while others are at work.

It imports next to nothing, because what it runs beside is mostly the import of everything else.
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress

_MEMORY = 1 << 30
"""Parameters that would take more than this (bytes) are refused instead of filling the memory."""

_WORK = 1 << 24
"""The same of parameters that would take longer than 128 times restic's own (some seconds; its calibrated ones take a
half): whoever can write a key file could have the daemon busy for years."""

_LENGTH = 64
_LARGEST = 64 << 10

_Wanted = tuple[str, bytes, int, int, int]
_ahead: "list[_Ahead]" = []


class _Ahead:
    """A password that is being stretched, or was."""

    def __init__(self, find: Callable[[], _Wanted]) -> None:
        self.wanted: _Wanted | None = None
        self.found = b""
        self._find = find
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrypt", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with suppress(Exception):  # whatever it is, who opens the repository meets it again, and tells
                self.wanted = self._find()
        finally:
            self._known.set()
        if self.wanted is not None:
            with suppress(Exception):
                self.found = _stretch(*self.wanted)

    def take(self, wanted: _Wanted) -> bytes:
        """What became of this; empty when it was something else."""
        self._known.wait()
        if self.wanted != wanted:
            return b""
        self._thread.join()
        return self.found


def stretch(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """64 bytes. Raises ValueError, TypeError, OverflowError or MemoryError for parameters that can't be used."""
    wanted = password, salt, n, r, p
    while _ahead:
        if found := _ahead.pop().take(wanted):
            return found
    return _stretch(*wanted)


def stretch_ahead(location: str, password: Callable[[], str]) -> None:
    """Begin to stretch a password for a repository in a directory: `stretch` then only waits for what is left of it.

    Where there is no such repository, or it can't be read, nothing comes of it.
    """

    def find() -> _Wanted:
        with os.scandir(f"{location}/keys") as files:
            first = next(files).path
        with open(first, "rb") as file:
            key = json.loads(file.read(_LARGEST))
        return password(), base64.b64decode(key["salt"], validate=True), key["N"], key["r"], key["p"]

    _ahead.append(_Ahead(find))


def _stretch(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    if n * r * p > _WORK:
        raise ValueError("they would take too long")
    text = password.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, dklen=_LENGTH, maxmem=_MEMORY)
