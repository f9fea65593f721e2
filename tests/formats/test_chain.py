"""The chain of lines in a manifest: whatever is changed in it is found."""

from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.chain import FIRST, Break, Link, Listed, Removed, hash_of, line_of, lines_of, read_chain

_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_entries = st.one_of(
    st.builds(Listed, _names, st.integers(0, 1 << 50), st.binary(min_size=32, max_size=32).map(bytes.hex)),
    st.builds(Removed, _names, _names),
)


def chain(entries: list[Listed | Removed]) -> list[bytes]:
    """The lines of a manifest with these entries."""
    lines: list[bytes] = []
    previous = FIRST
    for number, entry in enumerate(entries, start=1):
        lines.append(line_of(entry, number, previous, "2026-11-26T00:00:00Z"))
        previous = hash_of(lines[-1])
    return lines


@given(st.lists(_entries, max_size=8))
def test_what_was_written_is_read(entries: list[Listed | Removed]) -> None:
    """A whole chain has no break, and says what was put into it."""
    lines = chain(entries)
    found = list(read_chain(b"".join(lines)))
    assert entries == [one.entry for one in found]
    assert [Link(n, hash_of(line), entries[n - 1]) for n, line in enumerate(lines, start=1)] == found
    assert [line.rstrip(b"\n") for line in lines] == lines_of(b"".join(lines))


@given(st.lists(_entries, min_size=2, max_size=8), st.data())
def test_what_is_changed_removed_or_moved_is_found(entries: list[Listed | Removed], data: st.DataObject) -> None:
    """Any byte of a line, any line but the last ones, and any order: the chain breaks there or at the line after it."""
    lines = chain(entries)
    at = data.draw(st.integers(0, len(lines) - 2))
    kind = data.draw(st.sampled_from(["byte", "removed", "swapped"]))
    if kind == "byte":
        place = data.draw(st.integers(0, len(lines[at]) - 2))
        byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != lines[at][place]))
        lines[at] = lines[at][:place] + bytes([byte]) + lines[at][place + 1 :]
    elif kind == "removed":
        del lines[at]
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    breaks = [one.number for one in read_chain(b"".join(lines)) if isinstance(one, Break)]
    assert breaks
    assert at + 1 <= breaks[0] <= at + 2


def test_each_fault_is_told_once() -> None:
    """What follows a line that was changed is no fault of its own, and what it says is still read."""
    entries: list[Listed | Removed] = [Listed(f"{n}.zst", n, "ab") for n in range(5)]
    lines = chain(entries)
    lines[1] = lines[1].replace(b'"bytes": 1', b'"bytes": 7')
    found = list(read_chain(b"".join(lines)))
    assert [3] == [one.number for one in found if isinstance(one, Break)]
    assert ["does not follow the line before it: one of the two was changed, moved or removed"] == [
        one.reason for one in found if isinstance(one, Break)
    ]
    assert Listed("2.zst", 2, "ab") == found[2].entry


def test_what_is_no_entry_is_a_break() -> None:
    """Text, other JSON, deep JSON, empty lines: each is told of with its number."""
    for line in (b"hello", b"[]", b"{}", b"null", b"[" * 100_000, b"", b'{"previous": 5}', b"\xff"):
        (found,) = read_chain(line + b"\n")
        assert isinstance(found, Break)
        assert (1, None) == (found.number, found.entry)
