"""Pages are made in a thread of their own, once for all who ask at once, and the thread goes when nobody asks."""

import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from symbiont_datad.service import http, pages
from symbiont_datad.service.http import Server
from symbiont_datad.service.pages import Pages
from symbiont_datad.service.request import Access, Answer, Asked, Routes
from tests.process.running import until
from tests.service.test_http import call, rest
from tests.service.test_request import get


class Maker:
    """Makes pages, when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may = threading.Event()
        self.may.set()

    def __call__(self, root: str, daemon_dir: Path, query: str) -> Answer:
        self.asked.append(query)
        assert self.may.wait(20)
        if query == "broken":
            raise ZeroDivisionError
        return Answer(200, f"{root} {query}".encode(), fields=("X-Own: 1",))


@pytest.fixture
def maker() -> Maker:
    """One that may make pages at once."""
    return Maker()


def made(maker: Maker) -> Pages:
    """Pages of a maker."""
    return Pages(lambda: "/srv", lambda: Path("/none"), maker)


def taken(answer: "Answer | Future[Answer]") -> Answer:
    """The answer itself."""
    return answer if isinstance(answer, Answer) else answer.result(20)


def test_who_asks_at_once_gets_the_same(maker: Maker) -> None:
    """One page is made for all of them; another query is another page."""
    some = made(maker)
    maker.may.clear()
    first, second, other = some.answer("a"), some.answer("a"), some.answer("b")
    assert first is second
    maker.may.set()
    assert [b"/srv a", b"/srv b"] == [taken(first).body, taken(other).body]
    assert ["a", "b"] == maker.asked


def test_a_fresh_page_is_good_for_others(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while; then it is made anew."""
    some = made(maker)
    monkeypatch.setattr(pages, "_FRESH_S", 1000.0)
    taken(some.answer("a"))
    assert isinstance(some.answer("a"), Answer)
    monkeypatch.setattr(pages, "_FRESH_S", 0.0)
    taken(some.answer("a"))
    assert ["a", "a"] == maker.asked


def test_too_many_are_sent_away(maker: Maker) -> None:
    """Rather than that they wait for long."""
    some = made(maker)
    maker.may.clear()
    waiting = [some.answer(str(number)) for number in range(8)]
    assert 503 == taken(some.answer("more")).status
    maker.may.set()
    assert {200} == {taken(one).status for one in waiting}


def test_the_thread_ends_when_nobody_asks(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And comes back when somebody does; the interpreter's pace is then as it was."""
    monkeypatch.setattr(pages, "_IDLE_S", 0.05)
    monkeypatch.setattr(pages, "_FRESH_S", 0.0)
    monkeypatch.setattr(pages, "_INTERVAL_S", 0.002)
    before, others = sys.getswitchinterval(), set(threading.enumerate())
    assert 0.002 != before
    some = made(maker)
    for _ in range(2):
        taken(some.answer("a"))
        until(lambda: not any(one.name == "page" for one in set(threading.enumerate()) - others), 20.0)
    assert before == sys.getswitchinterval()
    assert 2 == len(maker.asked)


def test_the_server_waits_for_a_page_and_serves_others(maker: Maker) -> None:
    """While one is made, probes are answered; what goes wrong in it is a 500, and the next one is made."""
    routes: Routes = {"/": Asked(made(maker).answer), "/livez": lambda: Answer(200, b"ok\n")}
    server = Server("127.0.0.1", 0, routes, Access(None, frozenset({"localhost"})))
    try:
        maker.may.clear()
        waiting = call(server, get("/?a=1"))
        assert rest(call(server, get("/livez"))).endswith(b"ok\n")
        maker.may.set()
        answer = rest(waiting)
        assert answer.endswith(b"\r\nX-Own: 1\r\n\r\n/srv a=1")
        assert rest(call(server, get("/?broken"))).startswith(b"HTTP/1.1 500 ")
        assert rest(call(server, get("/?c", method="HEAD"))).endswith(b"\r\n\r\n")
    finally:
        server.close()


def test_who_hangs_up_or_closes_while_a_page_is_made(maker: Maker) -> None:
    """Nobody is there any more to take it, and nothing comes of that."""
    routes: Routes = {"/": Asked(made(maker).answer), "/livez": lambda: Answer(200, b"ok\n")}
    server = Server("127.0.0.1", 0, routes, Access(None, frozenset({"localhost"})))
    maker.may.clear()
    call(server, get("/?gone")).close()
    waiting = call(server, get("/?left"))
    until(lambda: 2 == sum(one.later is not None for one in list(server._connections.values())), 20.0)
    until(lambda: maker.asked == ["gone"], 20.0)
    server.close()
    maker.may.set()
    assert b"" == rest(waiting)
    until(lambda: maker.asked == ["gone", "left"], 20.0)


def test_a_page_that_takes_too_long_is_given_up(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits hears so."""
    monkeypatch.setattr(http, "_PATIENCE_S", 0.2)
    server = Server("127.0.0.1", 0, {"/": Asked(made(maker).answer)}, Access(None, frozenset({"localhost"})))
    maker.may.clear()
    assert rest(call(server, get("/"))).startswith(b"HTTP/1.1 503 ")
    maker.may.set()
    server.close()


def test_a_daemon_that_nobody_looks_at_carries_no_page() -> None:
    """What makes the page is imported when it is first asked for."""
    code = (
        "import sys, symbiont_datad.supervisor; "
        "print(*[name for name in sys.modules if 'service.page.' in name or 'status' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ("\n", "") == (done.stdout, done.stderr)


def test_only_the_last_pages_are_kept(maker: Maker) -> None:
    """Who asks for ever new ones fills no memory."""
    some = made(maker)
    for number in range(pages._KEPT + 5):
        taken(some.answer(str(number)))
    assert [str(number) for number in range(5, pages._KEPT + 5)] == list(some._made)
