"""How a directory differs from its row in the layout. Pure: declared and seen go in, drifts come out."""

import stat
from dataclasses import dataclass

from symbiont_datad.layout import Directory, Layout
from symbiont_datad.report import Drift, DriftKind, octal


@dataclass(frozen=True, slots=True)
class Observed:
    """What stands at a path: `what` in words, its mode, owner and file system; `mode` is 0 when nothing does."""

    what: str
    mode: int = 0
    uid: int = -1
    gid: int = -1
    device: int = -1

    @property
    def is_directory(self) -> bool:
        """Whether it is a real directory, and no link to one."""
        return stat.S_ISDIR(self.mode)


NOTHING = Observed("nothing")


def drifts(row: Directory, path: str, observed: Observed, layout: Layout) -> tuple[Drift, ...]:
    """The ways in which what was `observed` at `path` differs from its `row`; none is how it should be."""
    if observed is NOTHING:
        return (Drift(DriftKind.MISSING, path, "a directory", "nothing"),) if row.required and path == row.path else ()
    if not observed.is_directory:
        # In an open directory users may keep files beside their directories.
        return (Drift(DriftKind.OBSTRUCTED, path, "a directory", observed.what),) if path == row.path else ()
    found = []
    wanted = wanted_mode(row, observed.mode)
    if wanted != stat.S_IMODE(observed.mode):
        found.append(Drift(DriftKind.MODE, path, octal(wanted), octal(observed.mode)))
    if (layout.uid not in (-1, observed.uid)) or (layout.gid not in (-1, observed.gid)):
        expected = f"{_or_any(layout.uid)}:{_or_any(layout.gid)}"
        found.append(Drift(DriftKind.OWNER, path, expected, f"{observed.uid}:{observed.gid}"))
    return tuple(found)


def wanted_mode(row: Directory, mode: int) -> int:
    """The mode that a directory of this row should have, given the one it has.

    A set-group-ID bit stays: a directory inherits it from its parent (mkdir(2)), and Kubernetes sets it for `fsGroup`.
    """
    return row.mode | (mode & stat.S_ISGID)


def _or_any(number: int) -> str:
    return "any" if number == -1 else str(number)
