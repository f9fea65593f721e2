"""What a run of the torture does, decided before it begins: where, with which kind of repository, and every step. Pure.

A step has a number of its own, of which all its choices are made. So steps can be taken out of a plan, and those that
stay do the same as before.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")
SETTLE = "settle"
"""The step in which nobody does anything, and all that must be true is compared."""
_SETTLE_EVERY = 20


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a run takes place.

    `on`: the kind of the small file system that is made for it; empty: whatever is there, and then nothing fills up or
    is unmounted. `volume`: the tree's root is that file system itself, the repository lies elsewhere, and
    `guard.require_mount` is on; else the repository and the daemon's own files fill up with the tree. `s3`: the
    repository is in an object store.
    """

    on: str = ""
    volume: bool = False
    s3: bool = False

    @property
    def offers(self) -> frozenset[str]:
        """What steps can count on here."""
        return frozenset(
            {"s3" if self.s3 else "files", *(("disk",) if self.on else ()), *(("volume",) if self.volume else ())}
        )


class Step(NamedTuple):
    """One step, and the number that its choices are made of."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run."""

    seed: int
    scene: Scene
    steps: tuple[Step, ...]

    def with_steps(self, steps: tuple[Step, ...]) -> "Plan":
        """The same with other steps."""
        return replace(self, steps=steps)

    def to_text(self) -> str:
        """What `plan_of` reads: JSON, a step a line."""
        head = json.dumps({"seed": self.seed, "scene": asdict(self.scene)})[:-1]
        return head + ', "steps": [\n' + ",\n".join(map(json.dumps, self.steps)) + "\n]}\n"


def plan_of(text: str) -> Plan:
    """The plan that was written down."""
    found = json.loads(text)
    return Plan(found["seed"], Scene(**found["scene"]), tuple(Step(*step) for step in found["steps"]))


def planned(seed: int, scene: Scene, weights: Mapping[str, int], count: int) -> Plan:
    """So many random steps of those that have a weight, and after each twenty of them one that settles."""
    choice = random.Random(seed)
    names = choice.choices(sorted(weights), [weights[name] for name in sorted(weights)], k=count)
    steps: list[Step] = []
    for number, name in enumerate(names, 1):
        steps.append(Step(name, choice.getrandbits(32)))
        if number % _SETTLE_EVERY == 0:
            steps.append(Step(SETTLE, 0))
    return Plan(seed, scene, tuple(steps))
