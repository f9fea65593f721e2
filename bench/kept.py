"""What a piece has measured, as it is kept in a file: outside of the source, for as long as somebody wants it."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.cases import CASES


@dataclass(frozen=True, slots=True)
class Kept:
    """One run of a piece: how it was started, when (seconds since the epoch), how long it took, and what it found."""

    case: str
    piece: str
    command: str
    at: float
    took_s: float
    load: float
    code: int
    machine: str
    versions: dict[str, str]
    figures: dict[str, Any]


def save(results: Path, one: Kept) -> None:
    """Keep it, in place of what the piece has left before."""
    (results / f"{one.case}-{one.piece}.json").write_text(json.dumps(asdict(one)), encoding="utf-8")


def load(results: Path) -> dict[str, list[Kept]]:
    """What is kept, by case, in the order of the pieces."""
    return {case: list(_pieces(case, results)) for case in CASES}


def _pieces(case: str, results: Path) -> Iterator[Kept]:
    for piece in CASES[case].pieces:
        place = results / f"{case}-{piece.name}.json"
        if place.exists():
            yield Kept(**json.loads(place.read_text(encoding="utf-8")))
