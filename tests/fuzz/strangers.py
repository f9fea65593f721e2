"""Targets: requests, logs, and files of other programs."""

import json
import os
import sqlite3
import struct
from contextlib import suppress
from io import BytesIO

from symbiont_datad.formats import (
    chain,
    lance,
    packed,
    rotated,
    sqlite_facts,
    state_name,
    vectors,
)
from symbiont_datad.formats.packed import packing
from symbiont_datad.formats.sqlite import NotCopied, whole_copy
from symbiont_datad.fsops import blank
from symbiont_datad.fsops.collapse import find_cut
from symbiont_datad.migrate.detect import environment_mentions, toml_mentions
from symbiont_datad.retention.days import end_of_day, is_day
from symbiont_datad.retention.patterns import matcher
from symbiont_datad.service.page.document import wanted
from symbiont_datad.service.request import Access, Answer, answered, is_whole
from tests.fuzz.engine import Target
from tests.fuzz.own import ledger_seeds
from tests.fuzz.pieces import JSON, scratch


def _request(data: bytes) -> None:
    routes = {"/livez": lambda: Answer(200, b"ok\n")}
    for access in (Access(None, frozenset({"localhost"})), Access("secret", frozenset())):
        is_whole(data)
        answer = answered(data, routes, access)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        assert head.startswith(b"HTTP/1.1 ")
        assert status in (200, 400, 401, 403, 404, 405, 414, 431, 505)
        assert b"secret" not in answer
        assert data.startswith(b"HEAD ") or f"Content-Length: {len(body)}".encode() in head
        if status == 200:
            assert b"/livez" in data
            assert (b"secret" if access.token else b"localhost") in data.lower()


def _query(data: bytes) -> None:
    """What is asked of the page."""
    text = data.decode("ascii", "replace")
    wanted(text)


def _mentions(data: bytes) -> None:
    """Other programs' settings, in which a migration looks for old places."""
    text = data.decode("utf-8", "replace")
    list(environment_mentions("f", text))
    list(toml_mentions("f", text))


_MENTIONS = [
    b"CONTEXT_STORAGE_PATH='./data/contexts' # x\nBACKUP_DIRECTORY=b\nexport X=\"y\"\n",
    b'[context]\nstorage_path = "./agent_storage"\n[storage]\ncontext_path = "a"\nbackup_path = "b"\n',
]

_REQUESTS = [
    b"GET /livez HTTP/1.1\r\nHost: localhost:80\r\nAuthorization: Bearer secret\r\n\r\n",
    b"HEAD /livez?x HTTP/1.0\r\nHost: [::1]\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
]


def _log_lines(data: bytes) -> None:
    """Lines of logs where they are cut, of the manifest of audit archives, and names of rotated logs."""
    for link in chain.read_chain(data):
        assert link.number
    mark = blank.mark_of(data)
    length = blank.blank_length(data)
    assert not length or (mark is not None and length <= len(data))
    with scratch() as folder:
        file = folder / "log"
        file.write_bytes(data)
        with open(file, "r+b") as log:
            for block in (16, 4096):
                cut = find_cut(log.fileno(), len(data), block)
                if cut is not None:
                    assert data[cut.start : cut.end] == cut.original
                    assert data[: cut.start][-1:] in (b"\n", b"") or cut.start == cut.at  # or a line without an end
    for name in data.decode("utf-8", "surrogateescape").split("\n"):
        found = rotated.rotated(name)
        assert found is None or found.name == name
        rotated.hidden_part(name, rotated.UNFINISHED)
        state_name.name_of(f"state/agents/{name}")
        end_of_day(name)
        is_day(name)


def _log_seeds() -> list[bytes]:
    first = chain.line_of(chain.Listed("a.log.20261126T192602Z-0001.zst", 5, "0" * 64), 1, chain.FIRST, "2026")
    second = chain.line_of(chain.Removed("a.log", "old"), 2, chain.hash_of(first), "2026")
    return [
        first + second, b"a line\n" * 30, blank.blank_line(bytes(16), 300) + b"x\n" * 20,
        b"a.log.20261126T192602Z-0001.zst.age\n.a.log.20261126T192602Z-0001.new\n2026-11-26\n",
    ]  # fmt: skip


def _patterns(data: bytes) -> None:
    """A list of patterns against a path; both are strangers'."""
    text, _, path = data.decode("utf-8", "surrogateescape").partition("\0")
    matcher(tuple(text.split("\n")))(path[:300])


def _manifest(data: bytes) -> None:
    for read in (lance.needed, lance.summary):
        with suppress(ValueError):
            read(data)
    lance.tagged(data)
    lance.version_of(data)
    body = struct.pack("<I", len(data)) + data + struct.pack("<QHH4s", 0, 0, 2, b"LANC")
    lance.summary(body)
    lance.needed(body)


def _manifest_seeds() -> list[bytes]:
    file = b"\x0a\x07a.lance\x12\x02\x00\x01"
    fragment = b"\x08\x01" + b"\x12" + bytes([len(file)]) + file + b"\x1a\x06\x10\x04\x18\x09\x20\x02" + b"\x20\x4d"
    field = b"\x12\x06vector\x2a\x15fixed_size_list:f:8:1"
    body = b"\x0a" + bytes([len(field)]) + field + b"\x12" + bytes([len(fragment)]) + fragment + b"\x18\x0c"
    whole = struct.pack("<I", len(body)) + body + struct.pack("<QHH4s", 0, 0, 2, b"LANC")
    return [body, whole, b'{"version": 3, "branch": null}', b"18446744073709551610.manifest"]


def _database(data: bytes) -> None:
    """Heads and whole databases: nothing but an error of SQLite's own may come of one."""
    sqlite_facts.header(data)
    vectors.recognise(data[: vectors.HEAD], len(data))
    vectors.qdrant_dimension(data)
    with scratch() as folder:
        file = folder / "a.db"
        file.write_bytes(data)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(NotCopied), whole_copy(fd, b"a.db", folder, timeout_s=1.0) as copy:
                sqlite_facts.content(copy)
        finally:
            os.close(fd)
        sqlite_facts.content(file)


def _database_seeds() -> list[bytes]:
    hnsw = struct.pack("<QQQQQQiIQQQdQ", 0, 1000, 500, 236, 228, 132, 2, 7, 16, 32, 16, 0.36, 100)
    config = {"params": {"vectors": {"size": 4}}, "wal_config": {}, "hnsw_config": {}}
    return [
        *ledger_seeds()[:1], hnsw + bytes(50),
        struct.pack("<4siqqqBi", b"IxF2", 24, 5, 1 << 20, 1 << 20, 1, 1) + bytes(99),
        json.dumps(config).encode(),
    ]  # fmt: skip


def _packed(data: bytes) -> None:
    """A packed day: whatever the tar holds, and whatever the frame."""
    from zstandard import ZstdCompressor

    with suppress(OSError, ValueError):
        for _ in packed.members(BytesIO(data)):
            pass
    for _ in packed.members(BytesIO(ZstdCompressor(1).compress(data))):
        pass


def _packed_seeds() -> list[bytes]:
    from zstandard import ZstdDecompressor

    out = BytesIO()
    with packing(out) as packer:
        packer.add(packed.Member("d", "directory", 0o755, 0, 0, 1_500_000_000))
        packer.add(packed.Member("d/l", "link", 0o777, 0, 0, -1, target="x" * 200))
    whole = out.getvalue()
    return [ZstdDecompressor().decompressobj().decompress(whole), whole]


TARGETS = (
    Target(
        "http-request", _request, lambda: _REQUESTS, (),
        (
            b"GET ", b" HTTP/1.1", b"\r\n", b"Host:", b"Authorization: Bearer ", b"\r\n\r\n", b"localhost", b"secret",
            b"%00", b"//", b"/livez",
        ),
    ),
    Target("page-query", _query, lambda: [b"path=a/b&kind=file_removed&since=1d&job=sweep", b"q=%41%zz&a=1&a=2;b=%00"]),
    Target("migrated-settings", _mentions, lambda: _MENTIONS, (ValueError,), (b"=", b"'", b'"', b"#", b"[")),
    Target(
        "log-lines", _log_lines, _log_seeds, (),
        (*JSON, b"\t", b"\n", b"20261126T192602Z", b"-0001", b".zst", b".age", b".new", b".old"),
    ),
    Target(
        "patterns", _patterns,
        lambda: [b"**/*.log\n!x\0a/b.log", b"[a-z]*/{x,y}\0abc/x", b"*a*a*a*a*a*a*\0" + b"a" * 60], (ValueError,),
        (b"*", b"**", b"/", b"?", b"[", b"]", b"[!", b"{", b"}", b"\\", b"a"),
    ),
    Target("lance-manifest", _manifest, _manifest_seeds, (ValueError,)),
    Target("sqlite-database", _database, _database_seeds, (sqlite3.Error, UnicodeDecodeError)),
    Target(
        "packed-day", _packed, _packed_seeds, (OSError, ValueError),
        (b"ustar\0", b"x" * 20, b"0000644\0", b"path=", b"mtime=", b"GNU.sparse.major=1\n"),
    ),
)  # fmt: skip
