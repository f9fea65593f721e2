"""Sizes, durations, modes and shares as people write them, and back again.

Every `parse_…` takes what came out of TOML, JSON, an environment variable or Python, and raises ValueError with a text
that begins with "must" and says what is allowed. No other exception leaves this module, whatever goes in.
"""

import math
import re
from dataclasses import dataclass

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
MINUTE, HOUR, DAY, WEEK, YEAR = 60.0, 3600.0, 86_400.0, 604_800.0, 31_536_000.0

_LARGEST_SIZE = 2**63 - 1
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# A bare letter is binary, as in restic, logrotate and systemd.
_SIZE_UNITS = {"": 1, "b": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("kmgtpe", start=1)
    for ending, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": WEEK, "y": YEAR}
_NUMBER = r"[0-9]{1,19}(?:\.[0-9]{1,9})?"
_SIZE = re.compile(rf"({_NUMBER})\s*([a-z]*)", re.IGNORECASE)
_DURATION_PART = re.compile(rf"({_NUMBER})\s*(ms|min|s|m|h|d|w|y)\s*", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.IGNORECASE)

SIZE_ALLOWED = 'must be a size such as "50MiB" or "1.5 GB", or a whole number of bytes'
DURATION_ALLOWED = 'must be a duration such as "7d", "1h30m" or "500ms", or a number of seconds'
MODE_ALLOWED = 'must be a mode from 0 to 0o7777, as an octal string ("0o755", "755") or a number (0o755)'
SHARE_ALLOWED = 'must be a share such as "10%", or a size such as "5GiB"'


def parse_size(value: object) -> int:
    """Bytes from "50MiB", "1GB", "1.5 GiB", or a whole number of bytes. Parts of a byte are dropped."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = _SIZE_UNITS.get(match[2].lower())
        if unit is None:
            raise ValueError(SIZE_ALLOWED)
        whole, _, fraction = match[1].partition(".")
        size = int(whole + fraction) * unit // 10 ** len(fraction)
    else:
        raise ValueError(SIZE_ALLOWED)
    if not 0 <= size <= _LARGEST_SIZE:
        raise ValueError("must be a size from 0 to 2^63 - 1 bytes")
    return size


def parse_duration(value: object) -> float:
    """Seconds from "7d", "24h", "1h30m", "500ms" or a plain number of seconds. `m` is minutes, `y` 365 days."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not -1e18 < value < 1e18:  # also refuses NaN, and integers too large for a float
            raise ValueError("must be a finite number of seconds")
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _duration_of_text(value.strip())
    else:
        raise ValueError(DURATION_ALLOWED)
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


def _duration_of_text(text: str) -> float:
    if re.fullmatch(rf"-?{_NUMBER}", text):
        return float(text)
    if len(text) > 100 or not _DURATION.fullmatch(text):
        raise ValueError(DURATION_ALLOWED)
    return math.fsum(float(n) * _DURATION_UNITS[unit.lower()] for n, unit in _DURATION_PART.findall(text))


def parse_mode(value: object) -> int:
    """A mode from "0o755", "0755", "755" (always octal) or from a number, which is taken as it is (0o755 == 493)."""
    if isinstance(value, int) and not isinstance(value, bool):
        mode = value
    elif isinstance(value, str) and re.fullmatch(r"(0[oO])?[0-7]{1,12}", value.strip()):
        mode = int(value.strip().lower().removeprefix("0o"), 8)
    else:
        raise ValueError(MODE_ALLOWED)
    if not 0 <= mode <= 0o7777:
        raise ValueError(MODE_ALLOWED)
    return mode


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a file system: `percent` (0 to 100) of it, or a fixed number (`amount`) of bytes or inodes."""

    percent: float | None = None
    amount: int | None = None

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.amount is None):
            raise ValueError("a share is either a percentage or an amount")

    def of(self, total: int) -> int:
        """The share of `total` in the unit of `total`, rounded down. An amount is what it is, even above `total`."""
        if self.amount is not None:
            return self.amount
        assert self.percent is not None
        return int(total * self.percent / 100)

    def __str__(self) -> str:
        return spell_size(self.amount) if self.amount is not None else f"{self.percent:g}%"


def parse_share(value: object) -> Share:
    """A `Share` from "10%", "5GiB" or a whole number of bytes."""
    if isinstance(value, Share):
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        text = value.strip().removesuffix("%").strip()
        if not re.fullmatch(_NUMBER, text) or float(text) > 100:
            raise ValueError("must be a percentage from 0% to 100%")
        return Share(percent=float(text))
    try:
        return Share(amount=parse_size(value))
    except ValueError:
        raise ValueError(SHARE_ALLOWED) from None


def format_size(size: float) -> str:
    """Bytes for people, rounded: "512 B", "1.5 MiB"."""
    value, power = float(abs(size)), 0
    while round(value, 1) >= 1024 and power < len(_BINARY) - 1:
        value, power = value / 1024, power + 1
    number = f"{value:.0f}" if power == 0 else f"{value:.1f}".removesuffix(".0")
    return f"{'-' if size < 0 else ''}{number} {_BINARY[power]}"


def format_duration(seconds: float) -> str:
    """Seconds for people, rounded to the two largest units: "250 ms", "12.5 s", "3d 4h"."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    # Rounded to the smaller of the two units first, or 59 min 59.7 s would read "59m 60s".
    smaller = 1 if seconds < HOUR else 60 if seconds < DAY else 3600
    left = round(seconds / smaller) * smaller
    parts = []
    for letter, unit in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, unit)
        if count:
            parts.append(f"{count}{letter}")
    return " ".join(parts[:2])


def spell_size(size: int) -> str:
    """Bytes without rounding, so that `parse_size` gives the same back: "50MiB", "1000001"."""
    for power in range(len(_BINARY) - 1, 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_BINARY[power]}"
    return str(size)


def spell_duration(seconds: float) -> str:
    """Seconds without rounding, so that `parse_duration` gives the same back: "30d", "5m", "0.25s"."""
    for letter, unit in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit:.0f}{letter}"
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds!r}s"
