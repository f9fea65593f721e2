"""What the tests of rotation share: writers as processes of their own, the stream that they write, what is left of it.

A line says its number and is as long as its number says, so that any line that is lost, torn, doubled or moved is seen.
"""

import gzip
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from symbiont_datad.formats.rotated import rotated
from symbiont_datad.jobs.context import JobSettings
from symbiont_datad.retention.logs import LogRule, LogSettings
from tests.jobs.making import settings_for

EVERYTHING = LogRule("logs", ("**/*.log", "**/*.jsonl"), rotate_at=1)
"""Every log that has anything in it is due."""

WRITER = """
import os, sys, time

def line(n):  # the same as in log_writing.py
    if n % 997 == 3:
        return b"%d %b\\n" % (n, b"x" * 9000)
    if n % 5 == 4:
        return b'UPDATE: {"n": %d}\\n' % n
    return b'{"n": %d, "text": "%b"}\\n' % (n, b"word " * (n % 23))

path, how, rate, begin = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if how != "place" else 0)
fd = -1 if how == "reopen" else os.open(path, flags, 0o644)
if how == "place":
    os.lseek(fd, 0, os.SEEK_END)
print("ready", flush=True)
os.set_blocking(0, False)
n, started, write = begin, time.monotonic(), os.write
while True:
    for _ in range(100):
        data = line(n)
        if how == "reopen":
            fd = os.open(path, flags, 0o644)
        if n % 41 == 7:  # in two writes
            write(fd, data[:3])
            write(fd, data[3:])
        else:
            write(fd, data)
        if how == "reopen":
            os.close(fd)
        n += 1
    try:
        if sys.stdin.buffer.raw.read(1) is not None:
            break
    except BlockingIOError:
        pass
    ahead = (n - begin) / rate - (time.monotonic() - started)
    if ahead > 0:
        time.sleep(ahead)
print(n, flush=True)
"""


def line(number: int) -> bytes:
    """The line of that number, as the writers write it."""
    if number % 997 == 3:
        return b"%d %b\n" % (number, b"x" * 9000)
    if number % 5 == 4:
        return b'UPDATE: {"n": %d}\n' % number
    return b'{"n": %d, "text": "%b"}\n' % (number, b"word " * (number % 23))


def lines(count: int, first: int = 0) -> bytes:
    """So many lines."""
    return b"".join(map(line, range(first, first + count)))


@dataclass
class Writing:
    """A writer at work. `count` is how many lines there are when it has ended."""

    process: "subprocess.Popen[bytes]"
    count: int = 0

    def stop(self) -> int:
        """Let it end; hand back the number after its last line."""
        if not self.count:
            out, _ = self.process.communicate(b"\n", timeout=60)
            self.count = int(out)
        return self.count


@contextmanager
def writing(path: Path, how: str = "append", rate: float = 100_000, first: int = 0) -> Iterator[Writing]:
    """A process that writes lines, `rate` a second if it can: it holds the log open in append mode (`append`), or with
    a place of its own (`place`), or opens it for each line (`reopen`).
    """
    command = [sys.executable, "-c", WRITER, str(path), how, str(rate), str(first)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        one = Writing(process)
        try:
            yield one
        finally:
            if process.poll() is None:
                one.stop()


@contextmanager
def holding(path: Path, how: str = "append") -> Iterator[int]:
    """A process that has a log open and writes nothing; its pid. `how` as for `writing`."""
    mode = {"append": "ab", "place": "r+b", "read": "rb"}[how]
    code = "import sys; file = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def log_settings_for(base: Path, *rules: LogRule, secrets: Any = None, **other: Any) -> JobSettings:
    """Settings for a tree at `base/data` whose logs are rotated by the rules (all of them, without any); `other` are
    fields of LogSettings. Nothing needs a backup before it goes.
    """
    logs = LogSettings(rules=rules or (EVERYTHING,), **other)
    return settings_for(base, logs=logs, require_snapshot=False)


def content_of(path: Path) -> bytes:
    """What an archive or a log holds, unpacked."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def archives_of(log: Path) -> list[Path]:
    """The archives of a log, the oldest first."""
    found = [(place, log.parent / name) for name in os.listdir(log.parent) if (place := rotated(name)) is not None]
    return [path for place, path in sorted(found, key=lambda one: one[0]) if place.live == log.name]


def stream_of(log: Path) -> bytes:
    """Archives and live log together, without the lines that are blank."""
    whole = b"".join(map(content_of, [*archives_of(log), log]))
    return b"".join(one for one in whole.splitlines(keepends=True) if one.strip())


def assert_stream(log: Path, count: int, note: str = "") -> None:
    """Archives and live log are the lines from 0 on, each once and whole, and nothing else."""
    found = stream_of(log).split(b"\n")
    assert b"" == found.pop(), f"the last line has no end {note}"
    for number, one in enumerate(found):
        if one + b"\n" != line(number):
            around = found[max(0, number - 2) : number + 3]
            raise AssertionError(f"at line {number} of {count} {note}: {[some[:80] for some in around]}")
    assert count == len(found), note


def until_larger(path: Path, size: int, timeout_s: float = 30.0) -> None:
    """Wait until a file has so many bytes."""
    deadline = time.monotonic() + timeout_s
    while (path.stat().st_size if path.exists() else 0) < size:
        assert time.monotonic() < deadline, f"{path} does not grow"
        time.sleep(0.002)
