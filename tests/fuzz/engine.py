"""Feeds a target with inputs that a seed decides, and tells what broke it.

Inputs are what the target's examples become by cuts, flips, copies and words of its grammar. One that reaches a line of
ours that no input reached before becomes an example itself. Where `atheris` is installed, that can do the same with the
coverage of branches (`--atheris`).

Bounds: processor time and new memory for each input, so that neither depends on what else the machine does.
"""

import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import symbiont_datad

SLOW_S = 10.0
"""Processor time that one input may take."""
LARGEST = 16 << 10
"""Bytes of an input."""
ROOM = 768 << 20
"""Bytes of new address space that inputs may take: what unpacks to more than 64 MiB is refused nearly everywhere."""
_OURS = str(Path(symbiont_datad.__file__).parent)
_TRACED = 4
"""Every so many inputs the lines that are reached are looked at, which takes several times longer."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that parses. `feed` gives it an input; `allowed` are the errors that may come out.

    `seeds` makes the examples, `words` are pieces of its grammar.
    """

    name: str
    feed: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    allowed: tuple[type[Exception], ...] = ()
    words: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """An input that broke a target, made as small as it can be, and what came out."""

    target: str
    data: bytes
    why: str
    trace: str


class TooLong(BaseException):
    """An input takes too much time. No Exception, so that nobody who catches those hides it."""


@dataclass(slots=True)
class Tally:
    """What a round did."""

    inputs: int = 0
    refused: int = 0
    examples: int = 0
    lines: int = 0
    slowest_s: float = 0.0
    found: list[Found] = field(default_factory=list)


def shown(found: Found) -> str:
    """What was found, for people."""
    trace = "".join(f"    {line}\n" for line in found.trace.splitlines()[-12:])
    return f"  {found.why}: {found.data[:300]!r}\n{trace}"


def fuzz(target: Target, seed: int, *, seconds: float = 0.0, inputs: int = 0) -> Tally:
    """Feed a target for so long, or with so many inputs; its own examples first."""
    chance = random.Random(f"{seed} {target.name}")
    pool = target.seeds()
    tally, reached, reasons = Tally(), set[tuple[str, int]](), set[str]()
    until = time.monotonic() + seconds
    waiting = list(pool)
    while waiting or (time.monotonic() < until if seconds else tally.inputs < inputs):
        data = waiting.pop() if waiting else mutated(chance, pool, target.words)
        traced = tally.inputs < len(pool) or chance.randrange(_TRACED) == 0
        before, began = len(reached), time.process_time()
        why, trace = _try(target, data, reached if traced else None)
        if not traced:
            tally.slowest_s = max(tally.slowest_s, time.process_time() - began)
        tally.inputs += 1
        tally.refused += why == "refused"
        if traced and len(reached) > before and len(data) <= LARGEST:
            pool.append(data)
        if why not in ("", "refused") and why not in reasons:
            reasons.add(why)
            tally.found.append(Found(target.name, _smaller(target, data, why), why, trace))
    tally.examples, tally.lines = len(pool), len(reached)
    return tally


def _try(target: Target, data: bytes, reached: set[tuple[str, int]] | None = None) -> tuple[str, str]:
    """What came of an input: nothing, `refused`, or what is wrong, with the trace."""
    try:
        with _at_most(SLOW_S), _tracing(reached):
            target.feed(data)
    except target.allowed:
        return "refused", ""
    except (Exception, TooLong) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = next(
            (one for one in reversed(traceback.extract_tb(error.__traceback__)) if _OURS in one.filename), place
        )
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}", traceback.format_exc()
    return "", ""


def _smaller(target: Target, data: bytes, why: str, tries: int = 400) -> bytes:
    """A smaller input that breaks the target in the same way."""
    step = max(len(data) // 2, 1)
    while step and tries:
        at = 0
        while at < len(data) and tries:
            shorter = data[:at] + data[at + step :]
            tries -= 1
            if _try(target, shorter)[0] == why:
                data = shorter
            else:
                at += step
        step //= 2
    return data


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TooLong after so much processor time."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _tracing(reached: set[tuple[str, int]] | None) -> Iterator[None]:
    """Notes the lines of ours that are reached."""
    if reached is None:
        yield
        return

    def line(frame: FrameType, _event: str, _argument: Any) -> Any:
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return line

    def call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_OURS) else None

    before = sys.gettrace()  # that of `scripts/coverage`
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)


def bound_memory() -> None:
    """From now on this process may take `ROOM` more address space than it has."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, now + ROOM))


# Mutations

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 1 << 15, 1 << 16, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 63)
_COMMON = (
    b"\0", b"\xff", b"\n", b"\r\n", b'"', b"\\", b"{", b"}", b"[", b"]", b"[[[[[[[[", b"null", b"true", b"NaN",
    b"-1", b"0", b"1e999", b"9" * 30, b"9" * 5000, b"0.1", b"\\ud800", b"\xed\xa0\x80", b"\xc3", "é😀".encode(),
    b"../", b"/",
    b"[" * 3000, b'{"a":' * 3000, b" " * 300, b"%s", b"\x1b[31m", b"\x1f\x8b", b"\x28\xb5\x2f\xfd",
)  # fmt: skip


def mutated(chance: random.Random, pool: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """One of the pool, changed in one to six places."""
    data = bytearray(chance.choice(pool))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice((1, 1, 2, 4, 8, 32, 400)))
        match chance.randrange(10):
            case 0:
                del data[at:end]
            case 1 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 2 if data:
                data[at % len(data)] = chance.randrange(256)
            case 3:
                data[at:end] = data[at:end] * chance.choice((2, 3, 50))
            case 4:
                number = chance.choice(_NUMBERS) + chance.choice((-1, 0, 0, 1))
                width, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
                data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
            case 5:
                data[at:at] = str(chance.choice(_NUMBERS)).encode()
            case 6:
                other = chance.choice(pool)
                start = chance.randint(0, len(other))
                data[at:end] = other[start : start + chance.choice((4, 40, 4000))]
            case 7 | 8 if words:
                data[at : end if chance.randrange(2) else at] = chance.choice(words)
            case 9 if chance.randrange(4) == 0:
                del data[at:]
            case _:
                data[at : end if chance.randrange(2) else at] = chance.choice(_COMMON)
    return bytes(data[:LARGEST])
