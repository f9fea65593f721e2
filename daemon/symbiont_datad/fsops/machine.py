"""The machine under us: its system, and whether its clock is kept right by something."""

import ctypes
import os
import sys
from dataclasses import dataclass

_UNSYNCHRONISED = 0x40  # STA_UNSYNC of linux/timex.h


@dataclass(frozen=True, slots=True)
class System:
    """What uname(2) says, less the machine's name."""

    name: str
    release: str
    processor: str


def system() -> System:
    """The system that this process runs on."""
    found = os.uname()
    return System(found.sysname, found.release, found.machine)


class _Timex(ctypes.Structure):
    """The head of `struct timex` (adjtimex(2)); what follows is not looked at, but the kernel writes it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def clock_is_synchronised() -> bool | None:
    """Whether the kernel's clock is being kept right (by NTP, mostly); None where the system doesn't tell."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None) if sys.platform == "linux" else None
    if call is None:
        return None
    told = _Timex(modes=0)  # 0 changes nothing, and needs no right
    if call(ctypes.byref(told)) < 0:
        return None
    return not told.status & _UNSYNCHRONISED
