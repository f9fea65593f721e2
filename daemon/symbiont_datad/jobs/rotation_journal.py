"""What a rotation is about to do, written down before it begins: so the next run can finish it or take it back.

One file in the daemon's own directory, for the one step that is under way. It is on the disk before the step begins,
and goes when the step, or its undoing, is on the disk.
"""

import json
import os
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from symbiont_datad.fsops.blank import MARK_SIZE
from symbiont_datad.fsops.collapse import Cut
from symbiont_datad.fsops.root import pinned, sync_directory
from symbiont_datad.fsops.write import write_atomic

JOURNAL = "rotation.json"
"""The name of the journal in the daemon's own directory."""

_SCHEMA = 1


class Step(Enum):
    """What is under way."""

    COLLAPSE = "collapse"
    TRUNCATE = "truncate"
    STORE = "store"
    """A plain archive becomes a compressed or sealed one."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A step: the log's path (relative to the root), the archive's name beside it, and its hash and size.

    `inode` is the log's, or, of `STORE`, that of the plain archive, whose name is `plain`. `cut`: where the log is cut.
    """

    step: Step
    log: str
    archive: str
    inode: int
    bytes: int
    sha256: str
    cut: Cut | None = None
    plain: str = ""


class Unreadable(Exception):
    """The journal is there and can't be understood."""


class Journal:
    """The journal in a daemon's directory, which exists."""

    def __init__(self, daemon_dir: Path) -> None:
        self._directory = str(daemon_dir)

    def begin(self, pending: Pending) -> None:
        """Write down what is about to happen. On the disk when this returns. Raises OSError."""
        with pinned(self._directory) as fd:
            write_atomic(fd, JOURNAL, _encode(pending))

    def clear(self) -> None:
        """The step is over, or undone."""
        with pinned(self._directory) as fd, suppress(FileNotFoundError):
            os.unlink(JOURNAL, dir_fd=fd)
            sync_directory(fd)

    def read(self) -> Pending | None:
        """The step that was under way when a run was killed; None when there was none. Raises Unreadable."""
        try:
            content = Path(self._directory, JOURNAL).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return _decode(json.loads(content))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unreadable(f"{self._directory}/{JOURNAL}: {error}") from error


def _encode(pending: Pending) -> bytes:
    cut = pending.cut
    content: dict[str, Any] = {
        "schema": _SCHEMA,
        "step": pending.step.value,
        "log": pending.log,
        "archive": pending.archive,
        "inode": pending.inode,
        "bytes": pending.bytes,
        "sha256": pending.sha256,
        "plain": pending.plain,
    }
    if cut is not None:
        content["cut"] = {
            "start": cut.start,
            "at": cut.at,
            "end": cut.end,
            "mark": cut.mark.hex(),
            "original": b64encode(cut.original).decode(),
        }
    return json.dumps(content).encode()  # ASCII, so that names of any bytes survive (PEP 383)


def _decode(content: dict[str, Any]) -> Pending:
    if content["schema"] != _SCHEMA:
        raise ValueError(f"was written by another version (schema {content['schema']})")
    told = content.get("cut")
    return Pending(
        Step(content["step"]),
        _text(content["log"]),
        _text(content["archive"]),
        _number(content["inode"]),
        _number(content["bytes"]),
        _text(content["sha256"]),
        _cut(told) if told is not None else None,
        _text(content["plain"]),
    )


def _cut(told: dict[str, Any]) -> Cut:
    start, at, end = (_number(told[name]) for name in ("start", "at", "end"))
    mark, original = bytes.fromhex(told["mark"]), b64decode(told["original"])
    if not start <= at <= end or len(original) != end - start or len(mark) != MARK_SIZE:
        raise ValueError("the places of the cut don't fit each other")
    return Cut(start, at, end, mark, original)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("something else where text belongs")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**64:
        raise TypeError("something else where a number belongs")
    return value
