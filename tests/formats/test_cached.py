"""What a cached file must not be: empty, zeros, or no JSON where its name says so."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.cached import damage


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b"", "it is empty"),
        ("a.bin", b"", "it is empty"),
        ("a.bin", b"\0" * 100, "it is nothing but NUL bytes"),
        ("a.json", b'{"a": 1', "it is no JSON"),
        ("a.json", b'{"a": 1}\0\0', "it is no JSON"),
        ("a.json", b'"\xff"', "it is no JSON: not UTF-8"),
        ("a.json", b"[" * 100_000, "it is no JSON"),
        ("a.json", b'{"a": 1} trailing', "it is no JSON"),
    ],
)
def test_damage_is_told(name: str, content: bytes, expected: str) -> None:
    """Each kind in words."""
    assert damage(name, content).startswith(expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b' {"a": [1, "\xc3\xa4"]}\n'), ("a.bin", b"no json"), ("a.bin", b"\0\1"), ("a.json", b"null")],
)
def test_what_is_whole_is_left(name: str, content: bytes) -> None:
    """Content of any kind, where the name promises none."""
    assert "" == damage(name, content)


def test_of_a_large_file_the_beginning_is_judged() -> None:
    """That it is cut there says nothing; that it begins with nothing but zeros does."""
    assert "" == damage("a.json", b'{"a": ', whole=False)
    assert "it is nothing but NUL bytes" == damage("a.json", b"\0" * 10, whole=False)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_is_json(value: object) -> None:
    """Whatever Python writes as JSON is whole, and without its last byte it is mostly not."""
    text = json.dumps(value).encode()
    assert "" == damage("a.json", text)
    damage("a.json", text[:-1])
