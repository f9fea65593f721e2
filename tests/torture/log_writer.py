"""A process that holds a log open in append mode and writes lines, whatever happens to the log and to the disk."""

import subprocess
import sys
from pathlib import Path

_WRITER = """
import errno, os, sys, time
from tests.jobs.log_writing import line

path, n, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
print("ready", flush=True)
os.set_blocking(0, False)
rest, ending = b"", False
while rest or not ending:
    if not rest:
        rest, n = line(n), n + 1
    try:
        rest = rest[os.write(fd, rest):]
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        time.sleep(0.05)  # and then on with the same line
    if not rest:
        time.sleep(pause)
        try:
            ending = ending or sys.stdin.buffer.raw.read(1) is not None
        except BlockingIOError:
            pass
print(n, flush=True)
"""


class LogWriter:
    """Writes the lines from number `first` on, a few hundred a second; ends with the process that made it."""

    def __init__(self, path: Path, first: int) -> None:
        command = [sys.executable, "-c", _WRITER, str(path), str(first), "0.005"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise OSError(f"{path} can't be opened")

    def stop(self) -> int:
        """Let it end its line; hand back the number after its last one."""
        out, _ = self._process.communicate(b"\n", timeout=60)
        return int(out)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()
