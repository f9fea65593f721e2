"""Damaged files of a cache: found once, when they are new, and not looked at again while they stay as they are.

What is new tells the time at which the inode changed last (`ctime`), which nobody can set back. A mark in the ledger
says up to which time all is judged.
"""

import os
from collections.abc import Collection, Iterable
from itertools import groupby

from symbiont_datad.errors import UnsafePath
from symbiont_datad.events import emit
from symbiont_datad.formats.cached import LARGEST, damage
from symbiont_datad.fsops.lease import Held, held
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.walk import Entry
from symbiont_datad.jobs.context import JobContext
from symbiont_datad.ledger import LedgerError
from symbiont_datad.retention.plan import Removal
from symbiont_datad.retention.rules import Rule
from symbiont_datad.retention.units import Unit

_BETWEEN_LOOKS = 1000  # files that are read between two looks at `stopping()`


def broken_ones(context: JobContext, rule: Rule, units: Iterable[Unit], protected: Collection[str]) -> list[Removal]:
    """The damaged files among the units, and what is wrong with each.

    Not judged are what changed within the last `settle_s` seconds or is damaged while somebody has it open for writing
    (the next run will), what is `protected`, and what can't be read.
    """
    key = f"//broken/{rule.directory}"
    now_ns, settle_ns = int(context.now * 1e9), int(context.settings.settle_s * 1e9)
    try:
        mark = context.ledger.mark(key)
    except LedgerError as error:
        emit("ledger_failed", job="clean", reason=str(error))
        return []
    since_ns = int(mark) if mark.isascii() and mark.isdigit() and int(mark) <= now_ns else 0
    files = (unit for unit in units if not unit.whole and unit.members[0].is_file and unit.path not in protected)
    new = {
        unit.path: unit
        for unit in files
        if since_ns <= unit.members[0].ctime_ns <= now_ns - settle_ns or unit.members[0].ctime_ns >= now_ns + settle_ns
    }
    found: list[Removal] = []
    judged_ns = now_ns - settle_ns
    entries = sorted(unit.members[0] for unit in new.values())
    for start in range(0, len(entries), _BETWEEN_LOOKS):
        if context.stopping():
            return found
        for entry, wrong in _judge(context, entries[start : start + _BETWEEN_LOOKS]):
            if wrong is None:
                judged_ns = min(judged_ns, entry.ctime_ns)
            else:
                found.append(Removal(new[entry.path], f"broken: {wrong}"))
    if not context.dry_run:
        try:
            context.ledger.update_marks({key: str(judged_ns)}, ())
        except LedgerError as error:
            emit("ledger_failed", job="clean", reason=str(error))
    return found


def _judge(context: JobContext, entries: list[Entry]) -> Iterable[tuple[Entry, str | None]]:
    """The damaged ones, each with what is wrong; None: somebody is writing it."""
    for folder, group in groupby(entries, lambda entry: entry.path.rpartition("/")[0]):
        try:
            with context.layout.tree.directory(folder) as fd:
                for entry in group:
                    wrong = _damage_of(entry, fd)
                    if wrong != "":
                        yield entry, wrong
        except (OSError, UnsafePath):
            continue


def _damage_of(entry: Entry, dir_fd: int) -> str | None:
    """What is wrong with a file; nothing when it can't be read, or is no longer what was listed.

    None: it looks damaged, but somebody has it open for writing. Whose open(2) is just cutting it counts, for its time
    may be the old one until that is done.
    """
    name = entry.path.rpartition("/")[2]
    try:
        with opened_regular(name, dir_fd) as fd:
            content = _read(fd, min(entry.size, LARGEST))
            wrong = damage(name, content, whole=len(content) == entry.size)
            writing = bool(wrong) and held(fd) is Held.YES
            if entry.differs(os.fstat(fd)):
                return ""
            return None if writing else wrong
    except OSError:
        return ""


def _read(fd: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.read(fd, size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
