"""Which packs are read when not all are: a share, a bucket, an amount, or those whose turn it is."""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

Choice = Callable[[Mapping[str, int]], Sequence[str]]
"""Chooses of packs (id to size in bytes)."""

ALLOWED = "all, a share (5%), a part (1/10) or a size (500M)"
"""What there is to choose by, in words."""

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_PART = re.compile(r"(\d+)/(\d+)")
_AMOUNT = re.compile(r"(\d+)([KMGT])", re.IGNORECASE)
_MOST_PARTS = 256


def subset(text: str, random: Random) -> Choice:
    """The choice that a text asks for, as restic understands it: see `ALLOWED`. Raises ValueError.

    A share and an amount are taken at random, at least one pack; an amount is in powers of 1024 and goes by the packs'
    average. Part n of t is the packs whose id's first byte is n - 1 modulo t, so that t parts are all. Source: restic's
    `cmd/restic/cmd_check.go`.
    """
    if text == "all":
        return sorted
    if match := _SHARE.fullmatch(text):
        share = float(match[1]) / 100
        if 0 < share <= 1:
            return lambda packs: _some(packs, share, random)
    elif match := _PART.fullmatch(text):
        number, parts = int(match[1]), int(match[2])
        if 1 <= number <= parts <= _MOST_PARTS:
            return lambda packs: sorted(pack for pack in packs if int(pack[:2], 16) % parts == number - 1)
    elif match := _AMOUNT.fullmatch(text):
        amount = int(match[1]) << 10 * ("KMGT".index(match[2].upper()) + 1)
        if amount:
            return lambda packs: _some(packs, min(amount, total := sum(packs.values()) or 1) / total, random)
    raise ValueError(f"{text!r} is none of {ALLOWED}")


def _some(packs: Mapping[str, int], share: float, random: Random) -> list[str]:
    names = sorted(packs)
    return random.sample(names, max(int(len(names) * share), min(1, len(names))))


def due(
    packs: Mapping[str, int], verified: Mapping[str, float], now: float, within_s: float, every_s: float
) -> list[str]:
    """The packs to read now, so that none is ever read more than `within_s` ago when this is asked each `every_s`.

    `packs`: their sizes in bytes; `verified`: when each was last read and found whole (seconds since the epoch); a time
    in the future counts for nothing. What would be too old the next time comes in any case; and besides, what was never
    read and what was read longest ago, until its bytes reach the share that is due each time.
    """
    last = {pack: time if (time := verified.get(pack, 0.0)) <= now else 0.0 for pack in packs}
    overdue = {pack for pack, time in last.items() if 0 < time < now + every_s - within_s}
    chosen = sorted(overdue)
    quota = sum(packs.values()) / max(within_s // max(every_s, 1.0), 1)  # asked twice in a moment, it reads little
    read = 0
    for pack in sorted(packs.keys() - overdue, key=lambda pack: (last[pack], pack)):
        if read >= quota:
            break
        chosen.append(pack)
        read += packs[pack]
    return chosen
