"""The names of rotated logs: what a rotation calls an archive, and what such a name says.

An archive lies beside its live file: `agent.log` → `agent.log.20261126T192602Z-0001.zst`. The stamp is UTC and never
goes back, and the number counts within one stamp; so the names of one log's archives sort in the stream's order. What
follows tells how the content is stored: compressed, then sealed with age.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import total_ordering

COMPRESSED = {"zstd": ".zst", "gzip": ".gz", "none": ""}
"""The extension that each way of compressing gives a name."""

SEALED = ".age"

UNFINISHED = ".new"
"""How the hidden name ends of an archive that is being written; it can go."""

TAKEN = ".old"
"""How the hidden name ends of a log that was taken from its place, or of the empty file that is to take it."""

_NAME = re.compile(r"(?s)(.+)\.([0-9]{8}T[0-9]{6}Z)-([0-9]{4,18})(\.zst|\.gz)?(\.age)?")
_STAMP = "%Y%m%dT%H%M%SZ"


@total_ordering
@dataclass(frozen=True, slots=True)
class Rotated:
    """One archive of the log that is called `live`. `at` is in whole seconds since the epoch."""

    live: str
    at: int
    number: int
    extension: str = ""
    """`.zst`, `.gz`, or nothing for plain text."""
    sealed: bool = False

    @property
    def name(self) -> str:
        """What the archive is called."""
        stamp = datetime.fromtimestamp(self.at, UTC).strftime(_STAMP)
        return f"{self.live}.{stamp}-{self.number:04}{self.extension}{SEALED if self.sealed else ''}"

    @property
    def plain(self) -> "Rotated":
        """The same archive before it was compressed and sealed."""
        return replace(self, extension="", sealed=False)

    def __lt__(self, other: "Rotated") -> bool:
        """Whether this part of the stream came first; asked of archives of one log."""
        return (self.at, self.number) < (other.at, other.number)


def hidden(archive: str, ending: str) -> str:
    """The name of something that is about to become an archive."""
    return f".{archive}{ending}"


def hidden_part(name: str, ending: str) -> Rotated | None:
    """The archive that something with a hidden name is about to become; None when it is nothing like that."""
    inside = name.startswith(".") and name.endswith(ending)
    return rotated(name[1 : -len(ending)]) if inside else None


def rotated(name: str) -> Rotated | None:
    """What the name of a file says, if it is one that a rotation has given; else None."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        at = datetime.strptime(found[2], _STAMP).replace(tzinfo=UTC)
    except ValueError:  # the thirteenth month
        return None
    archive = Rotated(found[1], int(at.timestamp()), int(found[3]), found[4] or "", bool(found[5]))
    return archive if archive.name == name else None  # with more zeros than ours, it could be taken for another one


def following(live: str, last: Rotated | None, now: float) -> Rotated:
    """What the next archive of a log is called, before it is compressed; `last` is its newest one so far.

    Where the clock has gone back behind the newest archive, that one's stamp is used again.
    """
    at = int(now)
    if last is None or last.at < at:
        return Rotated(live, at, 1)
    return Rotated(live, last.at, last.number + 1)
