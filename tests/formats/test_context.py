"""Contexts: what a name says, and every kind of damage that a crash, a full disk or a stray tool leaves."""

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbiont_datad.formats.age import new_identity, recipient_of, seal, unseal
from symbiont_datad.formats.context import (
    LARGEST,
    REQUIRED,
    Damage,
    Document,
    Form,
    Verdict,
    encoded,
    judge,
    judge_sealed,
    resembles_context,
    text_of,
)  # fmt: skip
from tests.contexts import AT, archive, context, plain, zipped

WHOLE = context(text="naïve ✓ 😀")
PLAIN = plain(WHOLE)
ZIPPED = zipped(WHOLE)


@pytest.mark.parametrize(("content", "form"), [(PLAIN, Form.JSON), (ZIPPED, Form.GZIP)])
def test_whole_content_is_whole_by_any_name_that_promises_nothing(content: bytes, form: Form) -> None:
    """A backup is judged by what it holds: gzip in a file named .json is how the runtime writes them."""
    assert Verdict(None, "", form, AT) == judge(content, gzip=None)
    assert judge(content).good
    assert PLAIN == text_of(content)


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
        pytest.param(plain({**WHOLE, "memory": {}}), Damage.MISSING_FIELDS, id="no memories"),
        pytest.param(b"[]", Damage.WRONG_TYPE, id="no object"),
        pytest.param(b"null", Damage.WRONG_TYPE, id="null"),
        pytest.param(plain({**WHOLE, "memory": []}), Damage.WRONG_TYPE, id="a list of memories"),
        pytest.param(plain({**WHOLE, "updated_at": "now"}), Damage.WRONG_TYPE, id="a time in words"),
        pytest.param(plain({**WHOLE, "agent_id": 5})[:-200], Damage.TRUNCATED, id="cut, and a wrong type before that"),
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
    """Each of the outer fields is needed, and the verdict names the one that is not there."""
    for name in REQUIRED:
        verdict = judge(plain({key: value for key, value in WHOLE.items() if key != name}))
        assert (Damage.MISSING_FIELDS, True) == (verdict.kind, name in verdict.detail)


def test_session_may_be_any_json() -> None:
    """Without required fields any JSON is whole, and broken JSON is not."""
    assert Verdict(None) == judge(b'[1, "x"]', document=Document.ANY)
    assert Damage.TRUNCATED == judge(b'{"version": 2', document=Document.ANY).kind


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {"n": 1}),
        ("conversation_history", [{"role": "User"}]),
        ("conversation_history", [{**WHOLE["conversation_history"][0], "role": "Assistant"}]),
        ("memory", {**WHOLE["memory"], "short_term": [{**WHOLE["memory"]["short_term"][0], "importance": None}]}),
        ("agent_id", "support-bot"),
    ],
)
def test_what_another_version_may_load_is_doubted_and_not_damaged(field: str, value: object) -> None:
    """Inside the outer fields a version may have its own ways: told, and never taken for damage."""
    verdict = judge(zipped({**WHOLE, field: value}), gzip=True)
    assert (Damage.OTHER_SCHEMA, AT, True, False) == (
        verdict.kind, verdict.written_at, verdict.good, verdict.damaged,
    )  # fmt: skip
    assert f"$.{field}" in verdict.detail


def test_unknown_fields_are_ignored() -> None:
    """A field that a newer version added is no damage, at any depth."""
    newer = {**WHOLE, "new": [1], "memory": {**WHOLE["memory"], "dreams": []}}
    assert Verdict(None, "", Form.JSON, AT) == judge(plain(newer))


def test_archive_has_fields_of_its_own() -> None:
    """An archive is whole as an archive, and no context."""
    assert Verdict(None, "", Form.GZIP, AT) == judge(zipped(archive()), document=Document.ARCHIVE)
    assert Damage.MISSING_FIELDS == judge(zipped(archive())).kind
    assert Damage.MISSING_FIELDS == judge(PLAIN, document=Document.ARCHIVE).kind


@pytest.mark.parametrize("gzip_too", [False, True])
def test_encoding_is_undone_by_stock_gzip(gzip_too: bool) -> None:
    """What is stored is the JSON itself, or gzip that says nothing of when it was made."""
    stored = encoded(PLAIN, gzip=gzip_too)
    assert PLAIN == (gzip.decompress(stored) if gzip_too else stored)
    assert PLAIN == text_of(stored)
    assert Verdict(None, "", Form.GZIP if gzip_too else Form.JSON, AT) == judge(stored, gzip=gzip_too)


def test_repeated_keys_and_lone_surrogates_are_judged_without_a_crash() -> None:
    """What parsers disagree about gets a verdict and no exception."""
    assert Verdict(None) == judge(b'{"a": 1, "a": 2}', document=Document.ANY)
    assert judge(b'{"a": "\\ud800"}', document=Document.ANY).kind is not None


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
    assert Verdict(None) == judge(text, document=Document.ANY)
    for length in range(1, len(text)):
        assert Damage.TRUNCATED == judge(text[:length], document=Document.ANY).kind, text[:length]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08", b"{", ZIPPED[:40]]), st.booleans())
def test_nothing_makes_it_raise(tail: bytes, head: bytes, promised: bool) -> None:
    """Any bytes get a verdict, the same whether they come at once or one by one."""
    content = head + tail
    assert judge(content, gzip=promised) == judge((bytes([byte]) for byte in content), gzip=promised)


IDENTITY = new_identity()
SEALED = seal(ZIPPED, recipient_of(IDENTITY))


def opener(data: bytes) -> bytes | None:
    """What opens the sealed content of these tests."""
    return unseal(data, IDENTITY)


def test_sealed_content_is_judged_as_far_as_it_can_be_seen() -> None:
    """Without the key a sealed file is not called damaged; with it, what is in it is judged."""
    assert Verdict(None, "sealed; not opened", Form.AGE) == judge_sealed(SEALED)
    assert Verdict(None, "", Form.AGE, AT) == judge_sealed(SEALED, opener, gzip=True)
    others = seal(ZIPPED, recipient_of(new_identity()))
    assert Verdict(None, "sealed; not opened", Form.AGE) == judge_sealed(others, opener, gzip=True)
    assert Damage.OTHER_EXTENSION == judge_sealed(SEALED, opener, gzip=False).kind
    cut_before = seal(ZIPPED[:99], recipient_of(IDENTITY))
    assert (Damage.TRUNCATED, None) == (judge_sealed(cut_before, opener).kind, judge_sealed(cut_before).kind)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", Damage.EMPTY),
        (bytes(500), Damage.NUL_FILLED),
        (SEALED[:200] + bytes(400), Damage.NUL_FILLED),
        (ZIPPED, Damage.NOT_SEALED),
        (SEALED[:30], Damage.TRUNCATED),
        (SEALED[: SEALED.index(b"\n--- ") + 30], Damage.TRUNCATED),
        (SEALED[: SEALED.index(b"\n--- ") + 60], Damage.TRUNCATED),  # all of the header, 11 bytes of the rest
    ],
)
def test_broken_seals_are_told_apart(content: bytes, kind: Damage) -> None:
    """What can't be a sealed file is damage, with or without the key."""
    assert kind == judge_sealed(content).kind
    assert kind == judge_sealed(content, opener).kind


def test_changed_or_cut_sealed_content_needs_the_key_to_be_seen() -> None:
    """Age's own checks find a flipped byte and a cut at the end of a chunk."""
    flipped = SEALED[:-5] + bytes([SEALED[-5] ^ 1]) + SEALED[-4:]
    long = seal(encoded(b"[]" + b" " * 200_000, gzip=False), recipient_of(IDENTITY))
    for broken in (flipped, SEALED[:-1], long[:-70_000]):
        assert Damage.NOT_SEALED == judge_sealed(broken, opener, document=Document.ANY).kind
        assert judge_sealed(broken).kind is None


@pytest.mark.parametrize("content", [b'{"\xff":1}', b"[" * 5000, b"\x1f\x8bno", b"", encoded(b'{"\xff":1}', gzip=True)])
def test_what_is_no_json_resembles_no_context(content: bytes) -> None:
    """Whatever the bytes are, it is an answer."""
    assert not resembles_context(content)


def test_more_than_is_judged_at_once() -> None:
    """Content that is one piece too many is told as such, sealed or not."""
    assert (Damage.TOO_LARGE, Form.JSON) == (judge(bytes(LARGEST + 1)).kind, judge(bytes(LARGEST + 1)).form)
    piece = bytes(1 << 20)
    verdict = judge_sealed(piece for _ in range((LARGEST >> 20) + 1))
    assert (Damage.TOO_LARGE, Form.AGE) == (verdict.kind, verdict.form)


@pytest.mark.parametrize(
    "source", [{}, {"SharedFromAgent": WHOLE["agent_id"], "ExternalDocument": "a.pdf"}], ids=["of nothing", "of both"]
)
def test_a_fact_comes_from_one_source(source: object) -> None:
    """One that comes from none, or from two, is none that the runtime writes."""
    facts = [{**WHOLE["knowledge_base"]["facts"][0], "source": source}]
    verdict = judge(plain({**WHOLE, "knowledge_base": {**WHOLE["knowledge_base"], "facts": facts}}))
    assert Damage.OTHER_SCHEMA == verdict.kind
    assert "Expected one of `SharedFromAgent` and `ExternalDocument`" in verdict.detail
