"""Which cells of the quarantine go for good, and why. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from symbiont_datad.quantities import DAY, format_duration, format_size, spell_duration


@dataclass(frozen=True, slots=True)
class QuarantineLimits:
    """How much the quarantine keeps: seconds, and bytes of all of it together. None: without a bound."""

    max_age_s: float | None = None
    max_bytes: int | None = None


NO_LIMITS = QuarantineLimits()


class Held(NamedTuple):
    """One cell: since when it is there and, of what retention removed, until when it stays (seconds since the epoch);
    bytes.
    """

    name: str
    at: float
    until: float | None
    bytes: int


class Expiry(NamedTuple):
    """One cell that goes; the rule (`undo_window` or `quarantine`), and why."""

    name: str
    rule: str
    reason: str


def expiries(held: Iterable[Held], limits: QuarantineLimits, now: float) -> list[Expiry]:
    """What goes, in the order in which it was decided; `now` in seconds since the epoch.

    What retention removed goes when its time is over. Other things go by their age. Then, if what is left is over
    `max_bytes`, the oldest of it: first of what retention removed, then of the rest, but for what came within the last
    day (a restore in place has just put it there). Of both kinds the newest never goes, but for one whose time is over.
    """
    cells = sorted(held, key=lambda cell: (cell.at, cell.name))
    removed = [cell for cell in cells if cell.until is not None]
    doubtful = [cell for cell in cells if cell.until is None]
    found: list[Expiry] = []
    for cell in removed:
        if cell.until is not None and now >= cell.until:
            found.append(Expiry(cell.name, "undo_window", f"{format_duration(now - cell.at)} old: its time is over"))
    for cell in doubtful[:-1]:
        if limits.max_age_s is not None and now - cell.at > limits.max_age_s:
            age = f"{format_duration(now - cell.at)} old, over {spell_duration(limits.max_age_s)}"
            found.append(Expiry(cell.name, "quarantine", age))
    if limits.max_bytes is None:
        return found
    gone = {one.name for one in found}
    over = sum(cell.bytes for cell in cells if cell.name not in gone) - limits.max_bytes
    reason = f"the quarantine is over {format_size(limits.max_bytes)}, and this is the oldest in it"
    for cell in [*removed[:-1], *(cell for cell in doubtful[:-1] if cell.at < now - DAY)]:
        if over <= 0:
            break
        if cell.name not in gone and cell.bytes:
            found.append(Expiry(cell.name, "quarantine", reason))
            over -= cell.bytes
    return found
