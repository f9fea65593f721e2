"""strace on one process: which calls touch the repository, and the same run again with one of these going wrong."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.restic.torture.working import Task, start

CALLS = ("writev", "fsync", "/rename.*", "/unlink.*", "/mkdir.*")
"""What a repository is changed with, as strace takes it."""

_OTHERS = (
    "write,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,sendfile,copy_file_range,fdatasync,sync_file_range,"
    "/link.*,/symlink.*,rmdir,/chmod.*,/fchmod.*"
)
"""What could change it as well, but has not to be counted as long as it doesn't."""

_LINE = re.compile(r"(?:(?P<thread>\d+) +)?(?P<call>\w+)\((?P<arguments>.*)")


@dataclass(frozen=True, slots=True)
class Call:
    """One call on the repository at `place` by a thread: as one of CALLS, the how many-th of this thread, and on what.

    `what` is like `fsync data` for a file and `fsync data/` for its directory, `path` the first that the call names.
    """

    thread: str
    call: str
    number: int
    what: str
    path: str


@dataclass(frozen=True, slots=True)
class Traced:
    """A run that was traced: its exit code, what it told, and its calls."""

    code: int
    told: list[tuple[Any, ...]]
    calls: list[Call]


def traced(task: Task, log: Path, *, all_threads: bool, inject: str = "", path: str = "") -> Traced:
    """Do a task under strace, which counts calls by thread. `inject` is like `fsync:signal=KILL:when=3`.

    The third call is that of the first thread, and strace sees no other. With `all_threads` it sees all of them, but
    looks only once the lock is held: whichever thread is the first to come to its third call is meant. So the first
    thread's own calls, which are the lock's, don't hide those of the others. With `path` only calls on that file or
    directory are looked at.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    worker = start(replace(task, pause=all_threads))
    if all_threads:
        worker.go_on()
        worker.wait_for("locked")
    options = ["-f"] if all_threads else []
    if inject:
        options += ["-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}"]
    else:
        options += ["-e", f"trace={','.join(CALLS)},{_OTHERS}"]
    options += ["-P", path] if path else []
    tracer = subprocess.Popen(
        [strace, *options, "-y", "-s", "200", "-o", str(log), "-p", str(worker.pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        assert "attached" in said, said
        worker.go_on()
        told = list(worker.told())
        code = worker.end()
    finally:
        worker.kill()
        tracer.wait(30)
        tracer.communicate()
    return Traced(code, told, list(_calls(log, task.place)))


def _calls(log: Path, place: str) -> "Sequence[Call]":
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        thread, name, arguments = found["thread"] or "", found["call"], found["arguments"]
        call = next((call for call in CALLS if re.fullmatch(call.strip("/"), name)), None)
        if call is None:
            assert place not in arguments, f"{name} is not looked at: {line}"
            continue
        counts[thread, call] += 1
        if place in arguments:
            what = f"{call.strip('/.*')} {_target(arguments, place)}"
            path = re.split('[">]', arguments[arguments.index(place) :])[0]
            calls.append(Call(thread, call, counts[thread, call], what, path))
    return calls


def _target(arguments: str, place: str) -> str:
    """The part of the repository that a call is about; a directory with a slash."""
    path = arguments.partition(f"{place}/")[2]
    folder = path.partition("/")[0]
    part = re.match(r"[a-z]+", folder)
    assert part is not None, arguments
    is_file = re.search(r"[0-9a-f]{64}|config-tmp", arguments)
    return part[0] if is_file else f"{part[0]}/"


def moments(calls: Sequence[Call]) -> list[tuple[str, int]]:
    """Every kind of call with every number that some thread comes to."""
    return sorted({(call.call, call.number) for call in calls})


def hit(calls: Sequence[Call], call: str, number: int) -> str:
    """What the call that was injected into was about: the first one with this number."""
    return next(one.what for one in calls if (one.call, one.number) == (call, number))
