"""A wall clock that can be set, for the processes that are started with its environment.

The kernel's clock is everybody's, and a time namespace has none of its own for the wall clock (time_namespaces(7)). So
`clock.c` stands before libc in these processes, and shows them the times, those of files too, that they would see if
the machine's clock had been set. What it can't show are timers of the kernel by the wall clock; nothing here has one.
"""

import mmap
import struct
import subprocess
import time
from pathlib import Path

_MOST = 4096  # as in clock.c
_SECOND = 1_000_000_000


class WallClock:
    """The clock, its files below `directory`. It begins as the machine's own. Times in seconds."""

    def __init__(self, directory: Path) -> None:
        """Compile what stands before libc. Needs gcc."""
        library, timeline = directory / "clock.so", directory / "timeline"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-w", "-o", library, source, "-ldl"], check=True)
        timeline.write_bytes(bytes(8 + 16 * _MOST))
        with timeline.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._count = 0
        self.offset_s = 0.0
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_TIMELINE": str(timeline)}

    def now(self) -> float:
        """What it shows."""
        return time.time() + self.offset_s

    def set(self, offset_s: float) -> None:
        """From now on it shows so much more (or less) than the machine's own. Raises ValueError after 4,096 times."""
        if self._count == _MOST:
            raise ValueError("the clock was set too often")
        struct.pack_into("qq", self._map, 8 + 16 * self._count, time.time_ns(), round(offset_s * _SECOND))
        self._count += 1
        struct.pack_into("q", self._map, 0, self._count)
        self.offset_s = offset_s
