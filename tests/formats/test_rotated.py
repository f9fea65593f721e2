"""The names of rotated logs."""

from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.formats.rotated import TAKEN, UNFINISHED, Rotated, following, hidden, hidden_part, rotated

_names = st.builds(
    Rotated,
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.integers(0, 250_000_000_000),
    st.integers(1, 20_000),
    st.sampled_from(["", ".zst", ".gz"]),
    st.booleans(),
)


@given(_names)
def test_a_name_says_what_it_was_made_of(made: Rotated) -> None:
    """Whatever a log is called, its archive's name is read back as it was made."""
    assert made == rotated(made.name)


@given(st.lists(st.integers(0, 4_000_000_000), min_size=2, max_size=30))
def test_names_sort_in_the_order_of_the_stream(times: list[int]) -> None:
    """Whatever the clock does between rotations, a later archive's name sorts after the earlier ones'."""
    last: Rotated | None = None
    names = []
    for now in times:
        last = following("a.log", last, now)
        names.append(last.name)
    assert sorted(names) == names
    assert len(set(names)) == len(names)


def test_what_is_no_archive() -> None:
    """Live logs, other tools' archives and impossible times are no archives of ours; nor is a name that could be taken
    for another one's."""
    for name in ("a.log", "a.log.1", "a.log.1.gz", "a.log.20261326T000000Z-0001", "a.log.20261126T000000Z-1",
                 ".20261126T000000Z-0001", "a.log.20261126T000000Z-0001.bz2",
                 "a.log.20261126T000000Z-00001"):  # fmt: skip
        assert rotated(name) is None


def test_archives_compare_by_their_place_in_the_stream() -> None:
    """How an archive is stored has no part in its order."""
    assert Rotated("a.log", 5, 1, ".zst") < Rotated("a.log", 5, 2)
    assert Rotated("a.log", 5, 9) < Rotated("a.log", 6, 1, ".gz", sealed=True)


@given(_names, st.sampled_from([TAKEN, UNFINISHED]))
def test_hidden_names_say_what_becomes_of_them(made: Rotated, ending: str) -> None:
    """The hidden name of what is about to be an archive is read back, and is itself no archive."""
    name = hidden(made.name, ending)
    assert made == hidden_part(name, ending)
    assert hidden_part(name, TAKEN if ending == UNFINISHED else UNFINISHED) is None
    assert rotated(name) is None
    assert hidden_part(made.name, ending) is None


@given(_names)
def test_the_plain_archive_is_the_same_part_of_the_stream(made: Rotated) -> None:
    """However it is stored, it has one plain name."""
    assert (made.live, made.at, made.number, "", False) == (
        made.plain.live, made.plain.at, made.plain.number, made.plain.extension, made.plain.sealed,
    )  # fmt: skip
