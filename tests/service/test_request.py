"""Requests of every kind, and what they are answered."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.service.request import LARGEST_HEAD, Access, Answer, answered, is_whole

TOKEN = "0123456789abcdef0123"
OPEN = Access(None, frozenset({"localhost", "127.0.0.1", "::1"}))
CLOSED = Access(TOKEN, frozenset())


def basic(text: str) -> str:
    """A name and a password as browsers send them."""
    return base64.b64encode(text.encode()).decode()


def broken() -> Answer:
    raise ZeroDivisionError


ROUTES = {"/livez": lambda: Answer(200, b"ok\n"), "/readyz": lambda: Answer(503, b"no\n"), "/broken": broken}


def status(received: bytes, access: Access = OPEN) -> int:
    """The status of the answer, which must be well formed."""
    head, _, body = answered(received, ROUTES, access).partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    named = dict(field.split(": ", 1) for field in fields)
    assert "close" == named["Connection"]
    if not received.startswith(b"HEAD "):
        assert len(body) == int(named["Content-Length"])
    version, code, _ = line.split(" ", 2)
    assert "HTTP/1.1" == version
    return int(code)


def get(target: str, *fields: str, method: str = "GET", host: str = "localhost:8125") -> bytes:
    """A request as clients send it."""
    return "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "")).encode()


def test_a_path_is_answered() -> None:
    """With its status, its body and the type of that."""
    assert (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n"
        b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nok\n"
    ) == answered(get("/livez"), ROUTES, OPEN)


def test_head_gets_the_fields_alone() -> None:
    """The same answer without its body; the length is told all the same."""
    whole = answered(get("/livez"), ROUTES, OPEN)
    assert whole.removesuffix(b"ok\n") == answered(get("/livez", method="HEAD"), ROUTES, OPEN)


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (get("/livez?verbose=1"), 200),
        (get("/readyz"), 503),
        (get("/"), 404),
        (get("/livez/"), 404),
        (get("/../livez"), 404),
        (get("/%6civez"), 404),
        (get("/broken"), 500),
        (get("/livez", method="POST"), 405),
        (get("/livez", method="DELETE"), 405),
        (get("/" + "a" * 1100), 414),
        (get("http://localhost/livez"), 400),
        (get("/livez", "no field"), 400),
        (get("/livez", " folded: x"), 400),
        (get("/livez", "Host: evil.example"), 400),
        (get("/livez").replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
        (get("/livez").replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
        (b"GET /livez\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\n\n", 400),
        (get("/livez").ljust(LARGEST_HEAD, b"x").replace(b"\r\n\r\n", b"\r\nX: "), 431),
    ],
)
def test_each_kind_of_request(received: bytes, expected: int) -> None:
    """What is well formed and asks for a known path is answered, all else is refused with the status that fits."""
    assert expected == status(received)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.example:8125", "a b"])
def test_without_a_token_the_host_must_be_this_machine(host: str) -> None:
    """A page in a browser can't reach the server under a name of its own."""
    assert 403 == status(get("/livez", host=host))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8125", "127.0.0.1:8125", "[::1]:8125", "[::1]"])
def test_names_of_this_machine(host: str) -> None:
    """Every way to call the loopback is understood."""
    assert 200 == status(get("/livez", host=host))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (f"Authorization: Bearer {TOKEN}", 200),
        (f"authorization: bearer   {TOKEN} ", 200),
        (f"Authorization: Bearer {TOKEN}x", 401),
        (f"Authorization: Bearer {TOKEN[:-1]}", 401),
        (f"Authorization: Basic {TOKEN}", 401),
        (f"Authorization: Basic {basic(f'anybody:{TOKEN}')}", 200),
        (f"Authorization: basic {basic(f':{TOKEN}')}", 200),
        (f"Authorization: Basic {basic(f'a:b:{TOKEN}')}", 401),
        (f"Authorization: Basic {basic(TOKEN)}", 401),
        ("Authorization: Basic ====", 401),
        ("Authorization: Bearer", 401),
        (f"Authorization: {TOKEN}", 401),
        (f"X-Token: {TOKEN}", 401),
        (f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer x", 400),
    ],
)
def test_a_token_is_asked_for(field: str, expected: int) -> None:
    """Only who sends exactly it is answered, by whatever name the server is called; paths that are not there too."""
    assert expected == status(get("/livez", field, host="10.0.0.7"), CLOSED)
    assert (404 if expected == 200 else expected) == status(get("/nowhere", field, host="10.0.0.7"), CLOSED)


def test_a_refusal_tells_what_is_asked_for() -> None:
    """RFC 6750: 401 names the scheme. RFC 9110: 405 names the methods."""
    refused = answered(get("/livez"), ROUTES, CLOSED)
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in refused
    assert b'\r\nWWW-Authenticate: Basic realm="symbiont-datad"' in refused
    assert b"\r\nAllow: GET, HEAD\r\n" in answered(get("/livez", method="PUT"), ROUTES, OPEN)


@given(st.binary(max_size=200), st.sampled_from([OPEN, CLOSED]))
def test_garbage_is_refused(received: bytes, access: Access) -> None:
    """Whatever comes, an answer that is well formed goes back, and it is no success."""
    assert status(received, access) >= 400


def test_when_a_head_is_whole() -> None:
    """At its empty line, and not before."""
    assert [False, False, True, True] == [
        is_whole(one) for one in (b"", b"GET / HTTP/1.1\r\n", get("/"), get("/") + b"body")
    ]
