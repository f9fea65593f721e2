"""`python -m tests.torture`; see scripts/torture."""

# ruff: noqa: T201  # a script prints

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.torture.workload import Torture, Violation

ROUND = 60
"""Steps of one seed."""
_SETTLE = 20


def torture(base: Path, seed: int, steps: int = ROUND) -> Counter[str]:
    """One run; hand back how often each step was done. Raises Violation."""
    with Torture(base, seed) as one:
        for number in range(steps):
            one.step()
            if number % _SETTLE == _SETTLE - 1:
                one.settle()
        one.finish()
        return Counter(one.done)


def main() -> int:
    """Torture for so long; 1 at the first violation."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Agents at their worst beside a daemon.")
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long (1); a seed that has begun ends")
    parser.add_argument("--seed", type=int, help="this one, and then those after it")
    parser.add_argument("--steps", type=int, default=ROUND, help=f"steps of one seed ({ROUND})")
    parser.add_argument(
        "--in", dest="base", type=Path, help="a directory of the file system to use; else a temporary one"
    )
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(10**6)
    until, steps, seeds = time.monotonic() + given.minutes * 60, Counter[str](), 0
    while seeds == 0 or time.monotonic() < until:
        base = Path(tempfile.mkdtemp(prefix="torture-", dir=given.base))
        print(f"seed {seed} in {base}", flush=True)
        try:
            steps += torture(base, seed, given.steps)
        except Violation as violation:
            print(f"seed {seed}: {violation}\nkept: {base}\nagain: scripts/torture --seed {seed} --steps {given.steps}")
            return 1
        shutil.rmtree(base)
        seed, seeds = seed + 1, seeds + 1
    print(f"{seeds} seeds, {steps.total()} steps, no violation: {dict(steps.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
