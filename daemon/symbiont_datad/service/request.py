"""One HTTP request: the bytes of its head in, the bytes of the whole answer out. Pure, and no more than probes need.

GET and HEAD of exact paths; nothing that is sent can change anything. RFC 9110 (semantics), RFC 9112 (framing).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from concurrent.futures import Future

LARGEST_HEAD = 8192
"""Bytes of a request's head that are read; a browser's are well below that."""
_LONGEST_TARGET = 1024

_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 414: "URI Too Long", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A path that goes by the query (`a=1&b=2`, as it was sent), and may take its time to answer."""

    ask: "Callable[[str], Answer | Future[Answer]]"


Routes: TypeAlias = "Mapping[str, Callable[[], Answer | Future[Answer]] | Asked]"
"""What each path answers, by its exact name (`/livez`)."""


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that is being made."""

    answer: "Future[Answer]"
    head_only: bool

    def encoded(self) -> bytes:
        """The whole answer, as `answered` gives it; waits until it is there."""
        try:
            return _encoded(self.answer.result(), (), self.head_only)
        except Exception:  # its maker's own
            return refusal(500, head_only=self.head_only)


@dataclass(frozen=True, slots=True)
class Access:
    """Who is answered. `token`: what callers must send as `Authorization: Bearer …`, or as the password of `Basic` with
    any name, which browsers ask for; None: nothing.

    `hosts`: without a token, only requests that call the server by one of these names are answered. A page that a
    browser was made to load can send requests to this machine's loopback, but not under such a name (DNS rebinding).
    """

    token: str | None
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    path: str
    query: str
    fields: Mapping[str, bytes]


class _Refused(Exception):
    """The request gets an answer with this status, and no other."""

    def __init__(self, status: int, *fields: str) -> None:
        super().__init__(status)
        self.status, self.fields = status, fields


def is_whole(received: bytes | bytearray) -> bool:
    """Whether the head has come to its end."""
    return b"\r\n\r\n" in received


def answered(received: bytes, routes: Routes, access: Access) -> bytes:
    """The answer to a request of which the head was received, with status line and fields. Raises nothing."""
    found = response(received, routes, access)
    return found.encoded() if isinstance(found, Later) else found


def response(received: bytes, routes: Routes, access: Access) -> bytes | Later:
    """The same for who can't wait: what takes its time is handed back as it is."""
    head_only = received.startswith(b"HEAD ")
    try:
        head = _parsed(received)
        _admit(head, access)
        route = routes.get(head.path)
        if route is None:
            raise _Refused(404)
        answer = route.ask(head.query) if isinstance(route, Asked) else route()
        return _encoded(answer, (), head_only) if isinstance(answer, Answer) else Later(answer, head_only)
    except _Refused as refused:
        return refusal(refused.status, *refused.fields, head_only=head_only)
    except Exception:  # a route's own; the thread that serves must outlive it
        return refusal(500, head_only=head_only)


def refusal(status: int, *fields: str, head_only: bool = False) -> bytes:
    """An answer that says no more than its status."""
    return _encoded(Answer(status, f"{_REASONS[status]}\n".encode()), fields, head_only)


def _parsed(received: bytes) -> _Head:
    head, found, _ = received.partition(b"\r\n\r\n")
    if not found:
        raise _Refused(431 if len(received) >= LARGEST_HEAD else 400)
    line, *lines = head.split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not re.fullmatch(rb"HTTP/[0-9]\.[0-9]", parts[2]):
        raise _Refused(400)
    method, target, version = parts
    if not version.startswith(b"HTTP/1."):
        raise _Refused(505)
    if method not in (b"GET", b"HEAD"):
        raise _Refused(405, "Allow: GET, HEAD")
    if len(target) > _LONGEST_TARGET:
        raise _Refused(414)
    if not target.startswith(b"/") or not target.isascii():
        raise _Refused(400)
    path, _, query = target.decode().partition("?")
    return _Head(method.decode(), path, query, _fields(lines))


def _fields(lines: list[bytes]) -> Mapping[str, bytes]:
    """The header fields by their names in small letters. One that comes twice is refused: which one would count?"""
    found: dict[str, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise _Refused(400)
        key = name.decode().lower()
        if key in found and key in ("host", "authorization"):
            raise _Refused(400)
        found[key] = value.strip(b" \t")
    return found


def _admit(head: _Head, access: Access) -> None:
    if access.token is not None:
        import hmac  # brings OpenSSL along, which a daemon without a server does without

        given = _given(head.fields.get("authorization", b""))
        if given is None or not hmac.compare_digest(given, access.token.encode()):
            raise _Refused(401, *_CHALLENGES)
    elif _host(head.fields.get("host", b"")) not in access.hosts:
        raise _Refused(403)


_CHALLENGES = ("WWW-Authenticate: Bearer", 'WWW-Authenticate: Basic realm="symbiont-datad", charset="UTF-8"')


def _given(value: bytes) -> bytes | None:
    """The token in an `Authorization` field (RFC 6750, RFC 7617); None where there is none."""
    scheme, _, given = value.partition(b" ")
    if scheme.lower() == b"bearer":
        return given.strip(b" ")
    if scheme.lower() != b"basic":
        return None
    import binascii

    try:
        _, colon, password = binascii.a2b_base64(given.strip(b" "), strict_mode=True).partition(b":")
    except ValueError:
        return None
    return password if colon else None


def _host(value: bytes) -> str:
    """The name in a `Host` field, without its port."""
    match = re.fullmatch(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", value)
    return match[1].decode().strip("[]").lower() if match else ""


def _encoded(answer: Answer, fields: tuple[str, ...], head_only: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *answer.fields,
        *fields,
    ]
    head = "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"\r\n"
    return head if head_only else head + answer.body
