"""A short run of every target, in a process of its own with bounded memory; and that the engine finds what is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import engine
from tests.fuzz.engine import Target, fuzz
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
MINUTES = os.environ.get("DATAD_FUZZ_MINUTES", "0.1")
"""The length of the slow run: two hours are a while."""
SEED = os.environ.get("DATAD_SEED", "1")
"""The same inputs each time, unless others are asked for: CI tells of changes, `scripts/fuzz` searches."""


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`scripts/fuzz` without its set-up."""
    environ = {**os.environ, "DATAD_FUZZ_FOUND": str(tmp_path / "found")}
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)


def test_nothing_that_parses_breaks(tmp_path: Path) -> None:
    """The examples of every target, and some inputs made of them: only its own errors come out."""
    done = run(tmp_path, "--inputs", "5", "--seed", SEED)
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert len(TARGETS) == done.stdout.count(", 0 found")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_nothing_that_parses_breaks_in_a_while(tmp_path: Path) -> None:
    """The same, for longer."""
    done = run(tmp_path, "--minutes", MINUTES, "--seed", SEED)
    assert (0, "") == (done.returncode, done.stderr), done.stdout


def reader(data: bytes) -> None:
    """Breaks when three letters come in a row; refuses most else."""
    if data[:2] == b"bu" and data[2:3] == b"g":
        raise KeyError("found")
    if b"x" in data:
        raise ValueError("refused")


def test_what_is_broken_is_found_and_made_small() -> None:
    """An error that is not allowed is reported once, with the smallest input; one that is allowed is not."""
    target = Target("reader", reader, lambda: [b"bu" + b"." * 9, b"x"], (ValueError,), (b"g",))
    tally = fuzz(target, 1, inputs=3000)
    assert [b"bug"] == [found.data for found in tally.found]
    assert 0 < tally.refused < tally.inputs


def test_what_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that keeps the processor busy is ended and reported."""

    def busy(data: bytes) -> None:
        while data == b"loop":
            try:
                sum(range(1000))
            except Exception:  # what a parser that catches too much would do
                continue

    monkeypatch.setattr(engine, "SLOW_S", 0.05)
    tally = fuzz(Target("busy", busy, lambda: [b"loop"]), 1, inputs=1)
    assert ["TooLong"] == [found.why.split()[0] for found in tally.found]


def test_the_same_seed_makes_the_same_inputs() -> None:
    """So that a run can be made again."""
    runs = []
    for _ in range(2):
        fed: list[bytes] = []
        fuzz(Target("note", fed.append, lambda: [b"example"], (), (b"word",)), 5, inputs=50)
        runs.append(fed)
    assert runs[0] == runs[1]
    assert 50 == len(runs[0])


def test_every_target_has_a_name_and_examples() -> None:
    """Two with one name would share a replay; one without an example would be fed nothing."""
    assert len(TARGETS) == len({target.name for target in TARGETS})
    assert all(target.seeds() for target in TARGETS)


def test_whoever_traces_this_process_goes_on_with_it() -> None:
    """`scripts/coverage`, or a debugger: what the engine looks at for a moment is no end of that."""

    def tracer(_frame: object, _event: str, _argument: object) -> None:
        """Looks at nothing."""

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with engine._tracing(set()):
            assert tracer is not sys.gettrace()
        assert tracer is sys.gettrace()
    finally:
        sys.settrace(before)
