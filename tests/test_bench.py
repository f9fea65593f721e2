"""The page of benchmarks: what its figures say, and that it is made of whatever was measured."""

from dataclasses import asdict
from pathlib import Path

import pytest

from bench.cases import CASES
from bench.figures import Figures, Line, Ratio, blocks, compared, exponent, grown, read
from bench.kept import Kept, load, save
from bench.sections import page, picture


@pytest.mark.parametrize(
    ("expected", "ours", "theirs"),
    [
        (Ratio(0.5, 0.25, 1.0), [1.0, 1.0, 1.0], [2.0, 1.0, 4.0]),
        (Ratio(2.0, 2.0, 2.0), [4.0], [2.0, 1.0, 4.0]),  # by other rounds: nothing to pair
        (Ratio(0.0, 0.0, 0.0), [0.0], [7.0]),
        (None, [1.0], [0.0]),
        (None, [], [1.0]),
    ],
)
def test_ratios_are_of_rounds(expected: Ratio | None, ours: list[float], theirs: list[float]) -> None:
    """Round by round where the rounds were the same; none where the other took nothing."""
    (found,) = (ratio for _, ratio in compared(Line("w", "s", {"ours": ours, "peer": theirs})))
    assert expected == found


def test_many_rounds_are_compared_by_blocks() -> None:
    """One slow round of hundreds says nothing of the spread."""
    assert [2.0] * 9 + [3.0] == blocks([2.0] * 90 + [2.0] * 4 + [3.0] * 6)
    assert [1.0, 9.0] == blocks([1.0, 9.0])


@pytest.mark.parametrize(
    ("expected", "ratio"),
    [
        ("ahead", Ratio(0.5, 0.4, 1.2)),
        ("even", Ratio(0.97, 0.9, 1.1)),
        ("even", Ratio(1.03, 0.9, 1.1)),
        ("even", Ratio(1.05, 1.05, 1.05)),  # once each
        ("behind", Ratio(1.2, 0.9, 1.4)),
        ("behind", Ratio(1.03, 1.01, 1.05)),
    ],
)
def test_verdicts(expected: str, ratio: Ratio) -> None:
    """Nobody is behind or ahead by less than the rounds differ."""
    assert expected == ratio.verdict


def test_the_exponent_of_a_power() -> None:
    """a·n^k gives back k, whatever a is; and a line without a size doesn't grow."""
    lines = [Line("w", "s", {"ours": [3e-4 * size**1.5]}, size=size) for size in (100_000, 1000, 10_000)]
    ((what, by),) = grown([*lines, Line("w", "s", {"ours": [5.0]})]).items()
    assert ("w", [1000, 10_000, 100_000]) == (what, [size for size, _ in by["ours"]])
    assert 1.5 == pytest.approx(exponent(by["ours"]))


def kept(case: str, piece: str, *lines: Line) -> Kept:
    """A run that measured these."""
    found = asdict(Figures(lines, {"ours": "clean"}, missing=["peer-2"]))
    return Kept(case, piece, f"bench/{case}.py", 0.0, 60.0, 0.5, 0, "a machine", {"find": "4", "tmpreaper": ""}, found)


def test_a_page_of_what_is_there(tmp_path: Path) -> None:
    """Where ours is ahead and behind, how it grows, what was missing; what was not measured is said."""
    for piece, size, theirs in (("10k", 10_000, 2.0), ("100k", 100_000, 5.0)):
        values = {"ours": [size / 1e4], "find": [theirs], "least": [0.1]}
        line = Line("removed", "s", values, floors=("least",), size=size)
        save(tmp_path, kept("clean", piece, line))
    found = load(tmp_path)
    assert 10_000 == read(dict(found["clean"][0].figures)).lines[0].size
    text = page(found)
    for part in (
        "| [Retention](#retention) | find | 1 |  | 1 |",
        "| [Retention](#retention) | removed, 100,000 | find | 2.00 |",
        "| [Retention](#retention) | removed | ours | 10,000 to 100,000 | 1.00 | 1.00 |",
        "| removed, 10,000 | **ours** | 1.00 s |",
        "|  | least | 0.100 s |  | 10.0 | floor |",
        "- tmpreaper was not there, and is left out.",
        "- peer-2 was not there, and is left out.",
        "Not measured yet: `scripts/bench growth`.",
    ):
        assert part in text, part
    assert 3 == picture(found).count("<polyline ")


def test_each_case_is_a_script() -> None:
    """Pieces have names that differ, and a script, and a note."""
    bench = Path(__file__).parents[1] / "bench"
    for name, case in CASES.items():
        assert len(case.pieces) == len({piece.name for piece in case.pieces})
        assert (bench / f"{name}.py").exists()
        assert (bench / f"notes/{name}.md").exists()
