"""Patterns of paths mean what users of shells expect, and no text is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.retention.patterns import matcher


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.log", "a.log"),
        ("**/*.log", "a.log"),
        ("**/*.log", "a/b/c.log"),
        ("a/**/z", "a/z"),
        ("a/**/z", "a/b/c/z"),
        ("a/**", "a/b/c"),
        ("**", "a/b"),
        ("**/b/**", "a/b/c"),
        ("**/b/**/d", "b/b/c/d/e"),
        ("**/*b", "ab/x/c"),
        ("*a*b*c", "xaybzbc"),
        ("*b", "abbb"),
        ("2026-*", "2026-11-23/deep/file"),
        ("keep", "keep"),
        ("keep", "keep/a\nb"),
        ("a?c", "abc"),
        ("[a-c]x", "bx"),
        ("[!a-c]x", "dx"),
        ("[xa-cyz]", "x"),
        ("[xa-cyz]", "b"),
        ("[xa-cyz]", "y"),
        ("[a-ce-g]", "f"),
        ("[a-a]", "a"),
        ("[a-]", "-"),
        ("[!ab]", "X"),
        ("[]]x", "]x"),
        ("a[b", "a[b"),
        ("./a//b/", "a/b"),
        ("(a|b)+", "(a|b)+"),
        ("*", "\udcff"),
    ],
)
def test_a_pattern_matches(pattern: str, path: str) -> None:
    """Stars stay within a name, two stars don't, and a directory that matches stands for what is in it."""
    assert matcher((pattern,))(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.log", "a/b.log"),
        ("*.log", "a.log.1"),
        ("a/**", "a"),
        ("a?c", "a/c"),
        ("[!a]", "/"),
        ("[a-c]x", "dx"),
        ("[c-a]x", "bx"),
        ("[^b]x", "bx"),
        ("[axc]", "b"),
        ("[ab]", "X"),
        ("[a-]", "b"),
        ("[!xa-cyz]", "b"),
        ("keep", "keeper"),
        ("keep", "a/keep"),
        ("b", "a"),
    ],
)
def test_a_pattern_does_not_match(pattern: str, path: str) -> None:
    """What a pattern is not about stays out."""
    assert not matcher((pattern,))(path)


def test_no_pattern_matches_nothing() -> None:
    """An empty list is about no file."""
    assert not matcher(())("a")


def test_one_of_several_is_enough() -> None:
    """Patterns of a list are alternatives."""
    either = matcher(("*.a", "b/*"))
    assert [True, True, False] == [bool(either(path)) for path in ("x.a", "b/y", "y")]


@given(st.text("ab/*?[]!-^.\\(", max_size=12), st.text("ab/.-", max_size=12))
def test_any_text_is_a_pattern(pattern: str, path: str) -> None:
    """Whatever is written, it compiles, and a pattern without wildcards matches itself."""
    match = matcher((pattern,))
    match(path)
    if not re.search(r"[*?\[]", pattern):
        plain = "/".join(part for part in pattern.split("/") if part not in ("", "."))
        assert match(plain)


@pytest.mark.parametrize("pattern", ["**/" * 12 + "x", "*a" * 20, "**/a/" * 12 + "x", "**/*a*a*" * 9])
def test_a_pattern_is_decided_at_once(pattern: str) -> None:
    """A long name doesn't make the search explode."""
    assert not matcher((pattern,))("a/" * 40 + "a" * 40 + "b")
