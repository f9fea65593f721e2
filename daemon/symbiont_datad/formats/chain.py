"""The manifest of audit archives: lines of JSON, each with the hash of the line before it.

So whoever changes, removes or reorders a line breaks the chain from there on; and whoever changes an archive has its
hash against them. What is cut off at the end is found by the length and the hash that are kept elsewhere.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

FIRST = "0" * 64
"""What stands for the hash of the line before the first."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An archive: its name (relative to the manifest), size in bytes, and the SHA-256 of what is on the disk."""

    archive: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Removed:
    """An archive that a rule has removed."""

    archive: str
    reason: str


@dataclass(frozen=True, slots=True)
class Link:
    """One line that is as it should be: its number (from 1), its own hash, and what it says."""

    number: int
    hash: str
    entry: Listed | Removed


@dataclass(frozen=True, slots=True)
class Break:
    """One line that is not, and why; `entry` is what it says all the same, None when that can't be read."""

    number: int
    reason: str
    entry: Listed | Removed | None = None


def line_of(entry: Listed | Removed, number: int, previous: str, at: str) -> bytes:
    """The line that comes after the one with the hash `previous`, with its newline. `at`: when, in RFC 3339."""
    if isinstance(entry, Listed):
        content = {"archive": entry.archive, "bytes": entry.bytes, "sha256": entry.sha256}
    else:
        content = {"removed": entry.archive, "reason": entry.reason}
    return json.dumps({"number": number, "at": at, **content, "previous": previous}).encode() + b"\n"


def hash_of(line: bytes) -> str:
    """The hash of a line, which the next one carries."""
    return sha256(line.removesuffix(b"\n")).hexdigest()


def read_chain(content: bytes) -> Iterator[Link | Break]:
    """Each line of a manifest. After a break the chain goes on with the line as it is: each fault is told once."""
    previous = FIRST
    for number, line in enumerate(lines_of(content), start=1):
        own = hash_of(line)
        yield _link(line, number, previous, own)
        previous = own


def lines_of(content: bytes) -> list[bytes]:
    """The lines of a manifest, without their newlines; the last one may have none."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _link(line: bytes, number: int, previous: str, own: str) -> Link | Break:
    entry: Listed | Removed
    try:
        found = json.loads(line)
        if "removed" in found:
            entry = Removed(str(found["removed"]), str(found["reason"]))
        else:
            entry = Listed(str(found["archive"]), int(found["bytes"]), str(found["sha256"]))
        if found["previous"] != previous:
            reason = "does not follow the line before it: one of the two was changed, moved or removed"
            return Break(number, reason, entry)
        if found["number"] != number:
            return Break(number, f"has the number {found['number']}", entry)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Break(number, "is no entry of a manifest")
    return Link(number, own, entry)
