"""`python -m tests.torture`; see scripts/torture."""

# ruff: noqa: T201  # a script prints

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path

from tests.torture.model import Violation
from tests.torture.plan import FILE_SYSTEMS, Plan, Scene, plan_of
from tests.torture.workload import plan_for, shrink, torture

ROUND = 60
"""Steps of one seed."""


def scene_of(seed: int, on: str) -> Scene:
    """Every other seed has the tree on a volume of its own, and every third one an object store."""
    return Scene(on, volume=bool(on) and seed % 2 == 1, s3=seed % 3 == 2)


def main() -> int:
    """Torture for so long; 1 at the first violation."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Agents at their worst beside a daemon.")
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long (1); a seed that has begun ends")
    parser.add_argument("--seed", type=int, help="this one, and then those after it")
    parser.add_argument("--steps", type=int, default=ROUND, help=f"steps of one seed ({ROUND})")
    parser.add_argument(
        "--on", choices=FILE_SYSTEMS, default="", help="the file system to make for it; it can fill up and be unmounted"
    )
    parser.add_argument("--plan", type=Path, help="the steps that are written down in this file, once")
    parser.add_argument("--tries", type=int, default=20, help="runs to find fewer steps that fail as well (20)")
    parser.add_argument("--in", dest="base", type=Path, help="a directory to work in; else a temporary one")
    given = parser.parse_args()
    if given.plan is not None:
        plans = iter([plan_of(given.plan.read_text())])
    else:
        first = given.seed if given.seed is not None else random.randrange(10**6)
        plans = (plan_for(seed, scene_of(seed, given.on), given.steps) for seed in count(first))
    begun, steps, seeds, grew = time.monotonic(), Counter[str](), 0, (0, 0)
    for plan in plans:
        base = Path(tempfile.mkdtemp(prefix="torture-", dir=given.base))
        print(f"seed {plan.seed} in {base}: {plan.scene}, {len(plan.steps)} steps", flush=True)
        try:
            ran = torture(base, plan)
        except Violation as violation:
            print(f"seed {plan.seed}: {violation}\nagain: scripts/torture --plan {base}/plan.json", flush=True)
            shortened(base, plan.with_steps(plan.steps[: violation.steps]), given.tries)
            return 1
        shutil.rmtree(base)
        steps, seeds, grew = steps + ran.steps, seeds + 1, (max(grew[0], ran.grew_bytes), max(grew[1], ran.grew_fds))
        if time.monotonic() > begun + given.minutes * 60:
            break
    took = (time.monotonic() - begun) / 60
    print(f"{seeds} seeds, {steps.total()} steps, {took:.1f} minutes, no violation: {dict(steps.most_common())}")
    print(f"a daemon grew by {grew[0] / 2**20:.1f} MiB and {grew[1]} descriptors at most")
    return 0


def shortened(base: Path, plan: Plan, tries: int) -> None:
    """Look for fewer steps that fail, and write them down. (No step came after the one that failed.)"""
    if tries and plan.steps:
        short = shrink(base, plan, tries, lambda told: print(told[:400], flush=True))
        (base / "short.json").write_text(short.to_text())
        print(f"{len(short.steps)} of {len(plan.steps)} steps: scripts/torture --plan {base}/short.json", flush=True)


if __name__ == "__main__":
    sys.exit(main())
