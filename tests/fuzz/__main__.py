"""`python -m tests.fuzz`; see scripts/fuzz."""

# ruff: noqa: T201  # a script prints

import argparse
import os
import random
import sys
import time
from hashlib import sha256
from pathlib import Path

from tests.fuzz.engine import Found, Target, bound_memory, fuzz, shown
from tests.fuzz.targets import TARGETS

FOUND = Path(os.environ.get("DATAD_FUZZ_FOUND", "fuzz-found"))
"""Where inputs go that broke something."""


def main() -> int:
    """Fuzz what was asked for; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Feeds parsers what nobody should write.")
    parser.add_argument("target", nargs="*", help="which (see --list); all, in turns, if none is named")
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long, in all (1)")
    parser.add_argument("--inputs", type=int, default=0, help="so many inputs for each target, instead of a time")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="the same seed makes the same inputs")
    parser.add_argument("--replay", type=Path, help="feed this file to the target, and show what comes out")
    parser.add_argument("--atheris", action="store_true", help="let atheris make the inputs; it has to be installed")
    parser.add_argument("--list", action="store_true", help="name the targets")
    given = parser.parse_args()
    names = [target.name for target in TARGETS]
    if given.list:
        print("\n".join(names))
        return 0
    unknown = set(given.target) - set(names)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [target for target in TARGETS if target.name in given.target or not given.target]
    if given.replay is not None:
        for target in chosen:
            target.feed(given.replay.read_bytes())
        return 0
    if given.atheris:
        from tests.fuzz.guided import guided  # it is rarely asked for

        return guided(chosen, given.minutes * 60 / len(chosen), FOUND)
    print(f"seed {given.seed}", flush=True)
    bound_memory()
    return 1 if [found for target in chosen for found in _run(target, given, len(chosen))] else 0


def _run(target: Target, given: argparse.Namespace, targets: int) -> list[Found]:
    begun = time.monotonic()
    seconds = 0.0 if given.inputs else given.minutes * 60 / targets
    tally = fuzz(target, given.seed, seconds=seconds, inputs=given.inputs)
    print(
        f"{target.name:20} {tally.inputs:8} inputs, {tally.refused / max(tally.inputs, 1):4.0%} refused, "
        f"{tally.lines:5} lines, {tally.examples:5} examples, "
        f"slowest {tally.slowest_s * 1000:5.0f} ms, {time.monotonic() - begun:6.1f} s, "
        f"{len(tally.found)} found",
        flush=True,
    )
    for found in tally.found:
        FOUND.mkdir(exist_ok=True)
        file = FOUND / f"{found.target}-{sha256(found.data).hexdigest()[:8]}"
        file.write_bytes(found.data)
        print(f"{shown(found)}  {file}", flush=True)
    return tally.found


if __name__ == "__main__":
    sys.exit(main())
