"""Callers of the daemon's HTTP server, good and bad, as a process of their own: what tests/process and bench share.

    python -m tests.process.callers PORT SECONDS RATE [--evil]

asks for /metrics RATE times a second, each time on a new connection; with `--evil` others besides are slow, half open,
wrong, and send junk. Printed at the end: one JSON object, `good` and `bad` answers by their first line, `failed` (no
answer), and `took_ms` of the good ones (median, p99).
"""

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import time
from collections import Counter
from contextlib import suppress

_GOOD = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
_WRONG = (
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /state/agents HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nno field\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET  /metrics  HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0" * 64 + b"\r\n\r\n",
)
"""Requests that must be refused."""
_PATIENCE_S = 6.0  # a second longer than the server has
_SILENT = 30
_WRONG_AT_ONCE = 4
_LARGE = 10 << 20


class Callers:
    """All of them, and what they have heard."""

    def __init__(self, port: int, seconds: float, rate: int) -> None:
        self._port = port
        self._rate = rate
        self._until = time.monotonic() + seconds
        self.good: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.took: list[float] = []

    async def run(self, evil: bool) -> None:
        """Until the time is over."""
        others = [self._junk()] if evil else []
        others += [self._wrong() for _ in range(_WRONG_AT_ONCE * evil)]
        others += [self._silent(number) for number in range(_SILENT * evil)]
        await asyncio.gather(self._steady(), *others)

    async def _steady(self) -> None:
        begun, number, asked = time.monotonic(), 0, set[asyncio.Task[None]]()
        while time.monotonic() < self._until:
            task = asyncio.create_task(self._good())
            asked.add(task)
            task.add_done_callback(asked.discard)
            number += 1
            await asyncio.sleep(max(begun + number / self._rate - time.monotonic(), 0.0))
        await asyncio.gather(*asked)

    async def _good(self) -> None:
        begun = time.monotonic()
        answer = await self._answer(_GOOD)
        self.good[_first_line(answer)] += 1
        if answer:
            self.took.append(time.monotonic() - begun)

    async def _wrong(self) -> None:
        while time.monotonic() < self._until:
            answer = await self._answer(random.choice(_WRONG))
            line, _, rest = answer.partition(b"\r\n")
            body = rest.partition(b"\r\n\r\n")[2]
            told = line.split(b" ", 2)[-1] + b"\n"
            self.bad[_first_line(answer) if not answer or body == told else f"more than its status: {body!r}"] += 1
            await asyncio.sleep(0.01)

    async def _junk(self) -> None:
        """Ten megabytes of noise, over and over."""
        while time.monotonic() < self._until:
            self.bad[_first_line(await self._answer(os.urandom(_LARGE)))] += 1

    async def _silent(self, number: int) -> None:
        """Connect, and say nothing, or a byte now and then, or hang up halfway."""
        while time.monotonic() < self._until:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    if number % 3 == 1:
                        writer.write_eof()
                    for byte in _GOOD if number % 3 == 2 else b"":
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0.05)
                    await asyncio.wait_for(reader.read(), max(self._until - time.monotonic(), 0.1))
                except TimeoutError:
                    pass
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    async def _answer(self, request: bytes) -> bytes:
        """All that comes after a request; nothing when the connection fails."""
        writer = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(request)
                with suppress(ConnectionError):
                    await writer.drain()
                return await reader.read()
        except (OSError, TimeoutError):
            return b""
        finally:
            if writer is not None:
                writer.close()


def _first_line(answer: bytes) -> str:
    return answer.partition(b"\r\n")[0].decode("ascii", "replace") if answer else "no answer"


def main() -> None:
    """Call, and print what was heard."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("rate", type=int)
    parser.add_argument("--evil", action="store_true")
    given = parser.parse_args()
    logging.getLogger("asyncio").disabled = True  # it tells of each connection that was reset under it
    callers = Callers(given.port, given.seconds, given.rate)
    asyncio.run(callers.run(given.evil))
    took = sorted(callers.took) or [0.0]
    heard = {"good": callers.good, "bad": callers.bad}
    times = {"median": took[len(took) // 2] * 1e3, "p99": took[len(took) * 99 // 100] * 1e3}
    sys.stdout.write(json.dumps({**heard, "took_ms": times}) + "\n")


if __name__ == "__main__":
    main()
