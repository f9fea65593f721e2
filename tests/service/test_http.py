"""The server of probes among callers that are slow, silent, many or gone."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from symbiont_datad.service import http
from symbiont_datad.service.http import Server
from symbiont_datad.service.request import LARGEST_HEAD, Access, Answer, Asked
from tests.process.running import until
from tests.service.test_request import get

LARGE = bytes(8 << 20)
ACCESS = Access(None, frozenset({"localhost"}))
ROUTES: dict[str, Callable[[], Answer | Future[Answer]] | Asked] = {
    "/livez": lambda: Answer(200, b"ok\n"),
    "/large": lambda: Answer(200, LARGE),
}


@pytest.fixture
def server() -> Iterator[Server]:
    """One that listens on a free port of the loopback."""
    server = Server("127.0.0.1", 0, ROUTES, ACCESS)
    yield server
    server.close()


def call(server: Server, request: bytes = b"", timeout_s: float = 20.0) -> socket.socket:
    """A connection on which `request` was sent."""
    caller = socket.create_connection(("127.0.0.1", server.port), timeout_s)
    caller.sendall(request)
    return caller


def rest(caller: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    found = bytearray()
    with caller:
        while piece := caller.recv(1 << 20):
            found += piece
    return bytes(found)


def fine(server: Server) -> bool:
    """Whether somebody who asks now is answered."""
    return rest(call(server, get("/livez"))).startswith(b"HTTP/1.1 200 ")


def test_it_answers_and_hangs_up(server: Server) -> None:
    """One request, one answer, one connection."""
    assert rest(call(server, get("/livez"))).endswith(b"\r\n\r\nok\n")
    assert fine(server)


def test_a_request_in_pieces(server: Server) -> None:
    """A head that comes byte by byte is one head."""
    caller = call(server)
    for byte in get("/livez"):
        caller.sendall(bytes([byte]))
    assert rest(caller).endswith(b"ok\n")


def test_a_second_request_is_not_answered(server: Server) -> None:
    """What follows the first request is passed over: `Connection: close` said so."""
    assert 1 == rest(call(server, get("/livez") * 2)).count(b"HTTP/1.1")


def test_a_large_answer(server: Server) -> None:
    """An answer that no socket takes at once goes out whole, and nobody else waits for its reader."""
    reader = call(server, get("/large"))
    assert fine(server)
    assert rest(reader).endswith(b"\r\n\r\n" + LARGE)


def test_silent_callers_hold_nobody_up(server: Server) -> None:
    """Three times as many as it keeps, and each new one is answered; those that had to go hear the end."""
    silent = [call(server) for _ in range(3 * http._MOST)]
    assert all(fine(server) for _ in range(5))
    assert b"" == rest(silent[0])
    for caller in silent[1:]:
        caller.close()
    assert fine(server)


def test_a_slow_caller_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who trickles a request does not keep its connection longer by that."""
    monkeypatch.setattr(http, "_PATIENCE_S", 0.3)
    caller = call(server, b"GET /livez HTTP/1.1\r\n")
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"reset|pipe"):
        trickle(caller, 20.0)
    assert time.monotonic() - begun < 20.0
    caller.close()
    assert fine(server)


def test_who_does_not_read_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that takes nothing of a large answer is cut off."""
    monkeypatch.setattr(http, "_PATIENCE_S", 0.3)
    caller = call(server, get("/large"))
    assert caller.recv(1)
    until(lambda: not server._connections, 20.0)
    assert len(rest(caller)) < len(LARGE)


def test_an_unfinished_request_hears_why(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time is up it is told so."""
    monkeypatch.setattr(http, "_PATIENCE_S", 0.2)
    assert rest(call(server, b"GET /livez HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408 ")


def test_a_head_without_end(server: Server) -> None:
    """No more than its bound is read of it."""
    assert rest(call(server, b"GET /livez HTTP/1.1\r\nX: ".ljust(LARGEST_HEAD, b"x"))).startswith(b"HTTP/1.1 431 ")


def trickle(caller: socket.socket, until_s: float) -> None:
    """Send a byte now and then."""
    begun = time.monotonic()
    while time.monotonic() - begun < until_s:
        caller.sendall(b"X")
        time.sleep(0.01)


@pytest.mark.parametrize("sent", [b"", b"GET", get("/livez"), get("/large")])
def test_callers_that_are_gone(server: Server, sent: bytes) -> None:
    """Hanging up at any moment, also with a reset, leaves nothing behind."""
    for _ in range(20):
        caller = call(server, sent)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        caller.close()
    assert fine(server)
    until(lambda: not server._connections, 20.0)


def test_many_at_once(server: Server) -> None:
    """Sixteen threads that ask without a pause are all answered, always."""
    failed: list[int] = []

    def ask() -> None:
        failed.extend(number for number in range(20) if not fine(server))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failed


def test_a_route_that_raises_ends_nothing(server: Server) -> None:
    """The caller hears 500, the next one its answer."""
    ROUTES["/broken"] = lambda: Answer(999, b"")  # a status that has no words
    try:
        assert rest(call(server, get("/broken"))).startswith(b"HTTP/1.1 500 ")
    finally:
        del ROUTES["/broken"]
    assert fine(server)


def test_an_answer_that_is_not_there_yet_is_waited_for(server: Server) -> None:
    """Whoever asks for it gets it when it is there, and nobody else waits for that."""
    coming: Future[Answer] = Future()
    ROUTES["/slow"] = lambda: coming
    try:
        waiting = [call(server, get("/slow")) for _ in range(5)]
        assert fine(server)
        waiting.pop().close()
        assert fine(server)
        coming.set_result(Answer(200, b"at last\n"))
        assert [True] * 4 == [rest(caller).endswith(b"\r\n\r\nat last\n") for caller in waiting]
    finally:
        del ROUTES["/slow"]
    until(lambda: not server._connections, 20.0)


def test_an_answer_that_never_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it hears so when its time is up."""
    never: Future[Answer] = Future()
    monkeypatch.setattr(http, "_PATIENCE_S", 0.2)
    monkeypatch.setitem(ROUTES, "/never", lambda: never)
    assert rest(call(server, get("/never"))).startswith(b"HTTP/1.1 503 ")
    assert fine(server)


def test_the_end() -> None:
    """Closing hangs up on everybody, frees the address and leaves no descriptor open."""
    before = len(os.listdir("/dev/fd"))
    server = Server("127.0.0.1", 0, ROUTES, ACCESS)
    waiting = call(server, b"GET")
    assert server.alive()
    server.close()
    assert not server.alive()
    with waiting, pytest.raises(OSError, match="refused"):
        call(server)
    again = Server("127.0.0.1", server.port, ROUTES, ACCESS)
    assert fine(again)
    again.close()
    waiting.close()
    assert before == len(os.listdir("/dev/fd"))


def test_an_address_that_is_taken(server: Server) -> None:
    """Two can't listen at one address; the second is told so and leaves nothing open."""
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="in use"):
        Server("127.0.0.1", server.port, ROUTES, ACCESS)
    assert before == len(os.listdir("/dev/fd"))
