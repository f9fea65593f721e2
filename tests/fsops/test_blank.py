"""The blank line that says which rotation has left it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.fsops.blank import MARK_SIZE, SHORTEST, blank_length, blank_line, mark_of, new_mark

marks = st.binary(min_size=MARK_SIZE, max_size=MARK_SIZE)


@given(marks, st.integers(SHORTEST, 9000), st.binary(max_size=50))
def test_a_blank_line_says_its_mark_and_its_length(mark: bytes, length: int, rest: bytes) -> None:
    """Whatever follows it, it is known again; and it is nothing but blanks, tabs and a newline."""
    line = blank_line(mark, length)
    assert (length, b"\n") == (len(line), line[-1:])
    assert b"" == line.strip(b" \t\n")
    assert (mark, length) == (mark_of(line + rest), blank_length(line + rest))


@given(st.one_of(st.binary(max_size=200), st.text(" \t", max_size=200).map(str.encode), st.just(b" " * 200 + b"\n")))
def test_other_lines_are_not_taken_for_one(head: bytes) -> None:
    """What somebody else has written is no blank line of ours, nor is the beginning of one."""
    assert (None, 0) == (mark_of(head), blank_length(head))
    assert mark_of(blank_line(new_mark(), SHORTEST)[: SHORTEST - 2]) is None


def test_a_blank_line_that_goes_on_is_a_line_of_somebody() -> None:
    """Where the newline was overwritten with text, it is content."""
    line = blank_line(new_mark(), 150)
    assert 0 == blank_length(line[:-1] + b'{"n": 1}\n')


def test_readers_of_json_skip_it() -> None:
    """Before a document it is white space; alone it is no document, and blank to whoever strips lines."""
    line = blank_line(new_mark(), 300)
    assert {"n": 1} == json.loads(line + b'{"n": 1}')
    assert not line.strip()
