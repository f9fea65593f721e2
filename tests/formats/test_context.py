"""Contexts: what a name says, and every kind of damage that a crash, a full disk or a stray tool leaves."""

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.formats.context import LARGEST, REQUIRED, Damage, Role, StateName, Verdict, judge, name_of

WHOLE = {name: {"text": "naïve ✓ 😀", "numbers": [-12.5e-10, 0, 7], "nothing": None} for name in REQUIRED}
PLAIN = json.dumps(WHOLE, indent=2, ensure_ascii=False).encode()
ZIPPED = gzip.compress(PLAIN, mtime=0)
AGENT = "0b9c2f1e-5f0a-4d5f-9a52-4f6a8a7e1c11"


@pytest.mark.parametrize("content", [PLAIN, ZIPPED], ids=["plain", "gzip"])
def test_whole_content_is_whole_by_any_name_that_promises_nothing(content: bytes) -> None:
    """A backup is judged by what it holds: gzip in a file named .json is how the runtime writes them."""
    assert Verdict(None) == judge(content, gzip=None)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(b"", Damage.EMPTY, id="empty"),
        pytest.param(gzip.compress(b""), Damage.EMPTY, id="gzip of nothing"),
        pytest.param(bytes(1990), Damage.NUL_FILLED, id="all NUL"),
        pytest.param(PLAIN[:100] + bytes(500), Damage.NUL_FILLED, id="cut and filled up with NUL"),
        pytest.param(PLAIN + bytes(3), Damage.NUL_FILLED, id="NULs after the JSON"),
        pytest.param(ZIPPED[:60] + bytes(500), Damage.NUL_FILLED, id="gzip cut and filled up with NUL"),
        pytest.param(PLAIN[: len(PLAIN) // 2], Damage.TRUNCATED, id="JSON cut"),
        pytest.param(ZIPPED[: len(ZIPPED) * 2 // 3], Damage.TRUNCATED, id="gzip cut"),
        pytest.param(ZIPPED[:-1], Damage.TRUNCATED, id="gzip without its last byte"),
        pytest.param(ZIPPED[:2], Damage.TRUNCATED, id="the magic alone"),
        pytest.param(b"\x00\xff<html>not a context", Damage.NOT_JSON, id="garbage"),
        pytest.param(b"\x1f", Damage.NOT_JSON, id="half a magic"),
        pytest.param(gzip.compress(b"<html>"), Damage.NOT_JSON, id="gzip of something else"),
        pytest.param(ZIPPED[:30] + b"\xff\xff\xff" + ZIPPED[33:], Damage.NOT_GZIP, id="gzip with changed bytes"),
        pytest.param(ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], Damage.NOT_GZIP, id="gzip with a wrong checksum"),
        pytest.param(b'{"agent_id": "x"}', Damage.MISSING_FIELDS, id="fields missing"),
        pytest.param(b"[]", Damage.MISSING_FIELDS, id="no object"),
        pytest.param(b"null", Damage.MISSING_FIELDS, id="null"),
        pytest.param(b"\xef\xbb\xbf" + PLAIN, Damage.NOT_JSON, id="byte order mark"),
        pytest.param(PLAIN.replace(b"null", b"NaN"), Damage.NOT_JSON, id="NaN"),
        pytest.param(PLAIN + b"x", Damage.NOT_JSON, id="text after the JSON"),
        pytest.param(PLAIN.replace(b"\xf0\x9f\x98\x80", b"\xed\xa0\x80"), Damage.NOT_JSON, id="surrogate in UTF-8"),
        pytest.param(PLAIN.replace(b"null", b"[" * 200_000), Damage.NOT_JSON, id="nested without end"),
        pytest.param(PLAIN.replace(b"null", b"[" * 50_000 + b"]" * 50_000), Damage.NOT_JSON, id="nested too deep"),
    ],
)
def test_each_damage_is_told_from_the_others(content: bytes, kind: Damage) -> None:
    """Every kind of broken content gets its own name, and words for people."""
    verdict = judge(content)
    assert kind == verdict.kind
    assert verdict.detail


@pytest.mark.parametrize(
    ("content", "promised", "kind"),
    [
        (PLAIN, False, None),
        (ZIPPED, True, None),
        (PLAIN, True, Damage.OTHER_EXTENSION),
        (ZIPPED, False, Damage.OTHER_EXTENSION),
        (ZIPPED[:-9], False, Damage.TRUNCATED),
    ],
)
def test_extension_is_compared_with_content_that_is_whole(content: bytes, promised: bool, kind: Damage | None) -> None:
    """The runtime trusts the extension, so a whole file with the other one is damage too; a cut one is cut first."""
    assert kind == judge(content, gzip=promised).kind


def test_missing_fields_are_named() -> None:
    """The verdict names a field that is not there."""
    fields = {name: 1 for name in REQUIRED if name != "retention_policy"}
    assert "retention_policy" in judge(json.dumps(fields).encode()).detail


def test_session_may_be_any_json() -> None:
    """Without required fields any JSON is whole, and broken JSON is not."""
    assert Verdict(None) == judge(b'[1, "x"]', required=())
    assert Damage.TRUNCATED == judge(b'{"version": 2', required=()).kind


def test_repeated_keys_and_lone_surrogates_are_judged_without_a_crash() -> None:
    """What parsers disagree about gets a verdict and no exception."""
    assert Verdict(None) == judge(b'{"a": 1, "a": 2}', required=())
    assert judge(b'{"a": "\\ud800"}', required=()).kind is not None


def test_gzip_bomb_is_given_up_in_bounded_memory() -> None:
    """A quarter of a gigabyte of JSON in a few hundred KiB of gzip is not judged, and at no time held."""
    stream = zlib.compressobj(9, wbits=31)
    bomb = stream.compress(b"[" + b"[]," * 1000)
    bomb += b"".join(stream.compress(b"[]," * 350_000) for _ in range(256)) + stream.flush()
    tracemalloc.start()
    try:
        assert Damage.TOO_LARGE == judge(bomb).kind
        assert 3 * LARGEST > tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_large_file_is_given_up_while_it_is_read() -> None:
    """Of a file without end no more is taken than is judged."""
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield b" " * (1 << 20)

    assert Damage.TOO_LARGE == judge(endless()).kind
    assert (LARGEST >> 20) + 1 == len(taken)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("aé\"\\\n", max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=JSON, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_every_prefix_of_json_is_truncated(value: object, ascii_only: bool, indent: int | None) -> None:
    """Wherever a write is cut off, what is left is called truncated, not garbage."""
    text = json.dumps([value], ensure_ascii=ascii_only, indent=indent).encode()
    assert Verdict(None) == judge(text, required=())
    for length in range(1, len(text)):
        assert Damage.TRUNCATED == judge(text[:length], required=()).kind, text[:length]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08", b"{", ZIPPED[:40]]), st.booleans())
def test_nothing_makes_it_raise(tail: bytes, head: bytes, promised: bool) -> None:
    """Any bytes get a verdict, the same whether they come at once or one by one."""
    content = head + tail
    assert judge(content, gzip=promised) == judge((bytes([byte]) for byte in content), gzip=promised)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{AGENT}.json", StateName(Role.CONTEXT, AGENT)),
        (f"{AGENT}.json.gz", StateName(Role.CONTEXT, AGENT, gzip=True)),
        (f"{AGENT}.backup.1795000000.json", StateName(Role.BACKUP, AGENT, 1795000000)),
        (f"{AGENT}.json.backup.1795000000.json", StateName(Role.BACKUP, AGENT, 1795000000)),
        (f"archives/{AGENT}/archive_1795000000.json", StateName(Role.ARCHIVE, AGENT, 1795000000)),
        (f"archives/{AGENT}/archive_1795000000.tmp", StateName(Role.LEFTOVER, "")),
        (f".{AGENT}.json.4711.tmp", StateName(Role.LEFTOVER, "")),
        ("support bot v1.2.json.gz", StateName(Role.CONTEXT, "support bot v1.2", gzip=True)),
        ("a\nb.json", StateName(Role.CONTEXT, "a\nb")),
        ("\udcff.backup.5.json", StateName(Role.BACKUP, "\udcff", 5)),
        ("a.backup.x.json", StateName(Role.CONTEXT, "a.backup.x")),
        ("a.backup.٣.json", StateName(Role.CONTEXT, "a.backup.٣")),
        ("notes.txt", None),
        (".json", None),
        (".json.gz", None),
        ("deeper/a.json", None),
        ("archives/a/other.json", None),
    ],
)
def test_names_are_read(path: str, expected: StateName | None) -> None:
    """Each name pattern of the runtime is known, with any stem as the agent's id."""
    assert expected == name_of(path)
