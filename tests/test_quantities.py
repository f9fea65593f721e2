"""Sizes, durations, modes and shares are read as people write them."""

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbiont_datad.quantities import (
    Share,
    format_duration,
    format_size,
    parse_duration,
    parse_mode,
    parse_share,
    parse_size,
    spell_duration,
    spell_size,
)

JUNK: list[object] = ["", " ", "x", "-", "1e3", "1,5", "٣", "0x10", "1 2", None, True, [], {}, b"1", date(2024, 1, 1)]
PARSERS = [parse_size, parse_duration, parse_mode, parse_share]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50MiB", 50 * 2**20),
        ("1GB", 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("1.5kb", 1500),
        ("10M", 10 * 2**20),
        ("0", 0),
        ("12 B", 12),
        (4096, 4096),
        (" 7 ", 7),
        ("7EiB", 7 * 2**60),
    ],
)
def test_sizes_are_bytes(text: object, expected: int) -> None:
    """A size is read in bytes; binary and decimal units differ."""
    assert expected == parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", 604_800),
        ("24h", 86_400),
        ("90s", 90),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2w", 1_209_600),
        ("1y", 31_536_000),
        ("5min", 300),
        ("1.5h", 5400),
        ("30", 30),
        (0.25, 0.25),
        (0, 0),
    ],
)
def test_durations_are_seconds(text: object, expected: float) -> None:
    """A duration is read in seconds; a bare number is seconds already."""
    assert expected == parse_duration(text)


@pytest.mark.parametrize("text", ["0o755", "755", "0755", "0O755", 0o755])
def test_modes_are_octal_text_or_numbers(text: object) -> None:
    """Text is octal with and without a prefix, and a number is the mode itself."""
    assert 0o755 == parse_mode(text)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", JUNK)
def test_junk_is_refused_with_what_is_allowed(parse: Callable[[object], object], value: object) -> None:
    """What is no quantity raises ValueError and says what must be there instead."""
    with pytest.raises(ValueError, match=r"^must "):
        parse(value)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_size, -1),
        (parse_size, 2**63),
        (parse_size, 1.5),
        (parse_size, "9EiB"),
        (parse_size, "5 parsecs"),
        (parse_duration, -1),
        (parse_duration, "-5"),
        (parse_duration, float("nan")),
        (parse_duration, float("inf")),
        (parse_duration, 10**400),
        (parse_duration, "1h-5m"),
        (parse_mode, 0o10000),
        (parse_mode, "0o1000000"),
        (parse_mode, "789"),
        (parse_mode, -1),
        (parse_share, "101%"),
        (parse_share, "-1%"),
        (parse_share, "%"),
    ],
)
def test_bounds(parse: Callable[[object], object], value: object) -> None:
    """What is too small, too large or not finite is refused."""
    with pytest.raises(ValueError, match=r"^must "):
        parse(value)


def test_shares_of_a_file_system() -> None:
    """A percentage depends on the total, an amount does not."""
    assert (100, 5 * 2**30) == (parse_share("10%").of(1000), parse_share("5GiB").of(1000))
    assert ("12.5%", "5GiB") == (str(parse_share("12.5 %")), str(parse_share("5 GiB")))
    with pytest.raises(ValueError, match="either"):
        Share()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (512, "512 B"), (1023, "1023 B"), (1024, "1 KiB"), (1_572_864, "1.5 MiB"), (2**20 - 1, "1 MiB"),
     (2**40, "1 TiB"), (-2048, "-2 KiB"), (2**80, "1048576 EiB")],
)  # fmt: skip
def test_sizes_for_people(size: int, expected: str) -> None:
    """A size has at most one decimal, and never 1024 of a unit that has a larger one."""
    assert expected == format_size(size)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (0.9999, "1 s"),
        (1, "1 s"),
        (12.54, "12.5 s"),
        (59.99, "1m"),
        (90, "1m 30s"),
        (3599.7, "1h"),
        (86_399, "1d"),
        (273_600, "3d 4h"),
        (-90, "-1m 30s"),
    ],
)
def test_durations_for_people(seconds: float, expected: str) -> None:
    """A duration has its two largest units, and is rounded up into the next one rather than to 60."""
    assert expected == format_duration(seconds)


@given(st.integers(0, 2**63 - 1))
def test_a_spelled_size_reads_back(size: int) -> None:
    """Spelling a size loses nothing."""
    assert size == parse_size(spell_size(size))


@given(st.integers(0, 10**10) | st.integers(0, 10**6).map(lambda n: n / 1000))
def test_a_spelled_duration_reads_back(seconds: float) -> None:
    """Spelling a duration loses nothing down to milliseconds."""
    assert seconds == pytest.approx(parse_duration(spell_duration(seconds)), abs=1e-9)


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.binary())
def test_only_value_error_comes_out(value: object) -> None:
    """Whatever goes into a parser, only a result or ValueError comes out."""
    for parse in PARSERS:
        try:
            parse(value)
        except ValueError:
            pass
