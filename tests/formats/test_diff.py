"""The difference between two versions: by value for JSON, by line for text, by size and hash for the rest."""

import difflib
import gzip
import json
import random
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.diff import LARGEST, Change, changes, difference, readable

BINARY = b"\x89PNG\xff\x00"


def shown(a: bytes, b: bytes) -> list[str]:
    """The difference, without its head."""
    lines = [*difference(a, b, "old", "new")]
    assert ["--- old", "+++ new"] == lines[:2]
    return lines[2:]


def test_content_is_opened() -> None:
    """gzip is unpacked by its magic, JSON formatted with its keys and numbers as they are, text decoded."""
    assert '{\n  "b": 1.00,\n  "a": 1e5\n}' == readable(gzip.compress(b'{"b":1.00,"a":1e5}')).text
    assert "naïve\n" == readable("naïve\n".encode()).text
    assert "" == readable(b"").text
    assert "{not JSON" == readable(b"{not JSON").text
    assert ["{" * 100_000, None] == [readable(b"{" * 100_000).text, readable(b"{" * 100_000).document]
    assert ("12", None) == (readable(b"12").text, readable(b"12").document)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (BINARY, "binary"),
        (b"text with \0", "binary"),
        (gzip.compress(BINARY, mtime=0), "binary"),
        (gzip.compress(b"text" * 100, mtime=0)[:-9], "damaged gzip"),
        (b"\x1f\x8b", "damaged gzip"),
        (gzip.compress(bytes(LARGEST + 1), 1, mtime=0), "more than 64 MiB"),
    ],
    ids=["binary", "NUL", "gzip of binary", "gzip cut", "magic alone", "bomb"],
)
def test_what_cannot_be_shown_says_why(data: bytes, why: str) -> None:
    """Nothing raises, and no file is unpacked without end."""
    assert (None, why) == (readable(data).text, readable(data).why)


@pytest.mark.parametrize(
    ("a", "b", "lines"),
    [
        pytest.param({"m": {"a": "old"}}, {"m": {"a": "new"}}, ['~ m.a: "old" → "new"'], id="changed"),
        pytest.param({"a": 1}, {"a": 1, "b": [2]}, ["+ b: [2]"], id="added"),
        pytest.param({"a": 1, "b": None}, {"a": 1}, ["- b: null"], id="removed"),
        pytest.param({"a": 1}, {"a": True}, ["~ a: 1 → true"], id="a number is no truth"),
        pytest.param({"a": [[0, 1]]}, {"a": [[False, 1]]}, ["~ a[0][0]: 0 → false"], id="nor in a list"),
        pytest.param({"a": {}}, {"a": []}, ["~ a: {} → []"], id="other kind"),
        pytest.param([], {}, ["~ the whole document: [] → {}"], id="other document"),
        pytest.param({"a b": 1, "c.d": 2}, {"a b": 2, "c.d": 3}, ['~ ["a b"]: 1 → 2', '~ ["c.d"]: 2 → 3'], id="keys"),
        pytest.param([1, 2, 3, 4], [1, 3, 5, 4], ["- [1]: 2", "+ [2]: 5"], id="list"),
        pytest.param([{"x": 1}, {"x": 2}], [{"x": 1}, {"x": 3}], ["~ [1].x: 2 → 3"], id="list of objects"),
        pytest.param(
            {"s": [{"id": "a", "c": 1}, {"id": "b", "c": 2}]},
            {"s": [{"id": "n"}, {"id": "a", "c": 1}, {"id": "b", "c": 3}]},
            ['+ s[0]: {"id":"n"}', "~ s[2].c: 2 → 3"],
            id="items are found by their id",
        ),
        pytest.param(
            [{"id": 1}, {"id": 2}, {"id": 3}],
            [{"id": 2}, {"id": 3}, {"id": 1}],
            ['- [0]: {"id":1}', '+ [2]: {"id":1}'],
            id="an item that moved",
        ),
        pytest.param([{"id": 1}, {"id": 1, "x": 1}], [{"id": 1}], ['- [1]: {"id":1,"x":1}'], id="the same id twice"),
        pytest.param({"a": "\x1b[2J\x7f\u202e"}, {"a": ""}, [r'~ a: "\u001b[2J\x7f\u202e" → ""'], id="control"),
    ],
)
def test_documents_are_compared_by_value(a: Any, b: Any, lines: list[str]) -> None:
    """Each value that differs has a line with its path, and nothing else has one."""
    assert lines == shown(json.dumps(a).encode(), gzip.compress(json.dumps(b, indent=2).encode()))


def test_numbers_are_compared_as_they_are_written() -> None:
    """1 is no 1.0, and digits that a float could not hold count."""
    a = b'{"a":1,"b":1.10,"c":0.1000000000000000055511151231257827,"d":12345678901234567890123}'
    b = b'{"a":1.0,"b":1.1,"c":0.1,"d":12345678901234567890124}'
    assert [
        "~ a: 1 → 1.0",
        "~ b: 1.10 → 1.1",
        "~ c: 0.1000000000000000055511151231257827 → 0.1",
        "~ d: 12345678901234567890123 → 12345678901234567890124",
    ] == shown(a, b)


def test_long_values_are_cut_around_the_difference() -> None:
    """What changed is seen, also at the end of a long text."""
    (line,) = shown(json.dumps({"a": "x" * 500 + "old"}).encode(), json.dumps({"a": "x" * 500 + "new"}).encode())
    lead = "…" + "x" * 40
    assert f'~ a: {lead}old" (505 characters) → {lead}new" (505 characters)' == line
    (line,) = shown(b'{"a": 1}', json.dumps({"a": 1, "b": "y" * 500}).encode())
    assert f'+ b: "{"y" * 159}… (502 characters)' == line


def test_changes_are_records() -> None:
    """For a program: the path, what happened, and both values, whole."""
    found = changes(b'{"a":{"b":[1.5,null]},"c":null}', b'{"a":{"b":[1.5,"x"]},"d":{"e":1.0}}')
    assert found is not None
    assert Change("a.b[1]", found[0].kind, "null", '"x"') == found[0]
    assert [
        {"path": "a.b[1]", "kind": "changed", "before": None, "after": "x"},
        {"path": "c", "kind": "removed", "before": None, "after": None},
        {"path": "d", "kind": "added", "before": None, "after": {"e": 1.0}},
    ] == json.loads(json.dumps([change.record() for change in found]))
    assert changes(b"{}", b"text") is None


def test_equal_content_in_other_bytes_is_told() -> None:
    """Another compression, other blanks or another order of keys are no difference in content."""
    assert [] == [*difference(b"{}", b"{}", "old", "new")]
    a, b = b'{"a": 1, "b": 2}', gzip.compress(b'{"b":2,"a":1}')
    (line,) = difference(a, b, "old", "n\new")
    assert f"old (16 bytes, SHA-256 {sha256(a).hexdigest()}) and n\\new ({len(b)} bytes" in line
    assert line.endswith("have the same content, written in different ways")
    (line,) = difference(b"text", gzip.compress(b"text"), "old", "new")
    assert line.endswith("have the same content, written in different ways")


def test_binary_content_is_told_by_size_and_hash() -> None:
    """One line, when only one of the two is binary too."""
    (line,) = difference(BINARY, b"text", "old", "new")
    assert (
        f"old (6 bytes, SHA-256 {sha256(BINARY).hexdigest()}) and new (4 bytes, SHA-256 {sha256(b'text').hexdigest()}) "
        "differ (binary)"
    ) == line


LINES = st.integers(0, 30).map(lambda count: [f"line {number}\n" for number in range(count)])


@given(lines=LINES, at=st.integers(0, 30), removed=st.integers(0, 3), context=st.integers(0, 4))
def test_one_change_of_a_text_is_shown_as_difflib_shows_it(
    lines: list[str], at: int, removed: int, context: int
) -> None:
    """The head of each hunk, the context and the marks of a unified diff."""
    changed = [*lines[:at], "new\n", *lines[at + removed :]]
    expected = difflib.unified_diff(lines, changed, "old", "new", n=context, lineterm="\n")
    found = difference("".join(lines).encode(), "".join(changed).encode(), "old", "new", context)
    assert [line.removesuffix("\n") for line in expected] == [*found]


def test_far_changes_are_hunks_of_their_own() -> None:
    """Two changes close together share their context, one far away has its own."""
    a = "".join(f"{number}\n" for number in range(1, 41))
    b = a.replace("\n5\n", "\nfive\n").replace("\n11\n", "\neleven\n").replace("\n30\n", "\n")
    heads = [line for line in shown(a.encode(), b.encode()) if line.startswith("@@")]
    assert ["@@ -2,13 +2,13 @@", "@@ -27,7 +27,6 @@"] == heads


def test_ends_of_lines_are_seen() -> None:
    """A missing last newline, a carriage return and control characters show; a tab stays one."""
    assert ["@@ -1 +1 @@", "-a", "+a", "\\ No newline at end of file"] == shown(b"a\n", b"a")
    assert ["@@ -1 +1 @@", "-\ta", "+\ta\\r"] == shown(b"\ta\n", b"\ta\r\n")
    assert ["@@ -0,0 +1 @@", "+\\x1b[2J\\u2028"] == shown(b"", "\x1b[2J\u2028\n".encode())


def test_broken_json_is_compared_as_text() -> None:
    """A context that was cut off is shown line by line against the whole one."""
    whole = json.dumps({"a": 1, "b": [1, 2]}, indent=2).encode()
    lines = shown(whole, whole[: whole.index(b"2")])
    assert "-    2" in lines
    assert '   "a": 1,' in lines


def test_deep_documents_do_not_raise() -> None:
    """As deep as JSON is read at all, the one value is found."""
    deep = [b"[" * 300 + value + b"]" * 300 for value in (b"1", b"2")]
    assert [f"~ {'[0]' * 300}: 1 → 2"] == shown(*deep)
    assert shown(b"[" * 5000 + b"]" * 5000, b"[" * 5000 + b"1" + b"]" * 5000)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, 1.5]) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "id"]), inner, max_size=3),
    max_leaves=12,
)


@given(a=st.lists(VALUES, max_size=4), b=st.lists(VALUES, max_size=4))
def test_a_change_is_found_exactly_when_there_is_one(a: list[Any], b: list[Any]) -> None:
    """Equal documents have no changes; others have, each with two different values, and the reverse has as many."""
    found = changes(msgspec.json.encode(a), msgspec.json.encode(b))
    assert found is not None
    same = msgspec.json.encode(a, order="sorted") == msgspec.json.encode(b, order="sorted")
    assert same == (found == [])
    assert all(change.before != change.after for change in found)
    assert [] == changes(msgspec.json.encode(b), msgspec.json.encode(b))


@pytest.mark.timeout(30)
def test_large_documents_take_no_square_of_their_time() -> None:
    """One value of 10 MB: among items with ids, and in one long list of numbers; all values of a list."""
    dice = random.Random(1)
    items = [
        {"id": str(n), "content": "lorem ipsum " * 20, "e": [dice.random() for _ in range(4)]} for n in range(15_000)
    ]
    a = json.dumps({"memory": {"short_term": items}}).encode()
    items[7000]["content"] = "new"
    (line,) = shown(a, json.dumps({"memory": {"short_term": items}}).encode())
    assert line.startswith("~ memory.short_term[7000].content: ")
    numbers = [dice.random() for _ in range(150_000)]
    a = json.dumps(numbers).encode()
    assert ["~ [70000]: "] == [
        line[:11] for line in shown(a, json.dumps([*numbers[:70_000], 1, *numbers[70_001:]]).encode())
    ]
    assert 20_000 < len(shown(a, json.dumps([dice.random() for _ in range(20_000)]).encode()))
