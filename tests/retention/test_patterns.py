"""Patterns of paths mean what users of shells expect, and no text is refused."""

import re
from itertools import product

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


def name_fits(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern, by trying all ways."""
    if not pattern:
        return not name
    rest = pattern[1:]
    if pattern[0] == "*":
        return any(name_fits(rest, name[at:]) for at in range(len(name) + 1))
    others = rest[:1] in ("!", "^")
    end = rest.find("]", 1 + others)
    if pattern[0] == "[" and end > 0:
        inside = re.findall(r"(.)-(.)|(.)", rest[others:end])
        fits = any(name[:1] == one if one else low <= name[:1] <= high for low, high, one in inside)
        return bool(name) and fits is not others and name_fits(rest[end + 1 :], name[1:])
    return bool(name) and pattern[0] in ("?", name[0]) and name_fits(rest, name[1:])


def path_fits(parts: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether a path, given as names, or a directory that it is in, fits the parts of a pattern, by trying all ways."""
    if not parts:
        return True
    if parts[0] == "**":
        return bool(names) and any(path_fits(parts[1:], names[at:]) for at in range(len(names) + 1 - (parts[1:] == ())))
    return bool(names) and name_fits(parts[0], names[0]) and path_fits(parts[1:], names[1:])


NAME_PATTERNS = [
    "*", "a", "?", "*a", "a*", "*a*", "*a*b*", "a*b", "a*b*c*d", "*a?c*", "?b", "a??", "[ab]", "[!ab]", "[^ab]",
    "[]a]", "[!]a]", "[^]]", "[a-c]b", "[!a-c]", "[c-a]", "[!c-a]", "[a-]", "[-a]", "[a-a]", "[.-]", "[a", "a[b",
    "[a]]", "[ab][cd]", "x[ab]y[cd]", "a[!b]c", "*[ab]*[cd]*", "*[!a]c", "[!", "[^", "[]", "[!]", "[^]", "a[]",
    "[][]", "[!!]", "[^^]", "[!^]", "[a!]", "[a^b]", "[+--]",
]  # fmt: skip
NAMES = [
    "a", "b", "c", "d", "x", "]", "[", "!", "^", "-", ".", "ab", "ba", "ac", "bb", "cb", "b]", "a]", "]]", "abc",
    "adc", "acb", "axc", "abcd", "aXbYcZd", "xayc", "xbyd", "xcyd", "[a", "a[b", "a[]", "[!", "[^", "[]", "[!]",
    "[^]", "+", ",",
]  # fmt: skip


@pytest.mark.parametrize("pattern", NAME_PATTERNS)
def test_a_name_matches_as_if_all_ways_were_tried(pattern: str) -> None:
    """Though none is tried twice."""
    fitting = [name for name in NAMES if name_fits(pattern, name)]
    assert fitting == [name for name in NAMES if matcher((pattern,))(name)]


def test_a_path_matches_as_if_all_ways_were_tried() -> None:
    """However many directories `**` stands for, and wherever it stands."""
    paths = [names for count in range(1, 5) for names in product("ab", repeat=count)]
    for count in range(1, 5):
        for parts in product(("**", "a", "b"), repeat=count):
            match = matcher(("/".join(parts),))
            fitting = [names for names in paths if path_fits(parts, names)]
            assert fitting == [names for names in paths if match("/".join(names))], parts


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
