"""Agents at their worst beside a daemon that is killed again and again, and a model of what must be true.

What is done comes from a seed, or from a list of steps that was written down, so a run can be made again (how the
daemon's processes get along with it is chance each time). After some steps the model is compared with the disk; at the
end everything is.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.torture import agents, trouble
from tests.torture.machine import Machine
from tests.torture.model import Violation
from tests.torture.plan import SETTLE, Plan, Scene, Step, planned
from tests.torture.shrink import shrunk
from tests.torture.truth import finish, settle


class Kind(NamedTuple):
    """A kind of step: how often it comes, what it does, and what of a scene it needs."""

    weight: int
    do: Callable[[Machine, Random], None]
    needs: str = ""


KINDS = (
    Kind(12, agents.save), Kind(6, agents.save_in_place), Kind(5, agents.crash_in_a_save), Kind(12, agents.append),
    Kind(4, agents.delete_agent), Kind(4, agents.write_history), Kind(8, agents.write_cache),
    Kind(2, agents.reopen_log), Kind(4, trouble.chmod), Kind(3, trouble.remove_directory),
    Kind(3, trouble.rename_directory), Kind(3, trouble.link_directory), Kind(3, trouble.put_file_in_place),
    Kind(1, trouble.kill_daemon), Kind(1, trouble.restart_daemon), Kind(3, trouble.kill_child),
    Kind(2, trouble.pause_daemon), Kind(2, trouble.reload), Kind(2, trouble.command), Kind(2, trouble.set_clock),
    Kind(4, trouble.wait), Kind(1, trouble.corrupt, "files"), Kind(3, trouble.fill_disk, "disk"),
    Kind(2, trouble.free_disk, "disk"), Kind(3, trouble.unmount, "volume"), Kind(3, trouble.cut_network, "s3"),
    Kind(2, trouble.mend_network, "s3"),
)  # fmt: skip
_BY_NAME = {kind.do.__name__: kind for kind in KINDS}


def plan_for(seed: int, scene: Scene, steps: int) -> Plan:
    """So many random steps of those that the scene has what they need for."""
    weights = {name: kind.weight for name, kind in _BY_NAME.items() if not kind.needs or kind.needs in scene.offers}
    return planned(seed, scene, weights, steps)


class Ran(NamedTuple):
    """What a run was: how often each step was done, and by how many bytes and descriptors a daemon grew at most."""

    steps: Counter[str]
    grew_bytes: int
    grew_fds: int


def do(machine: Machine, step: Step) -> None:
    """One step. Raises Violation."""
    machine.done.append(step.name)
    if step.name == SETTLE:
        settle(machine)
    else:
        _BY_NAME[step.name].do(machine, Random(step.number))


def torture(base: Path, plan: Plan) -> Ran:
    """One run below `base`, where its steps are written down before it begins. Raises Violation."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "plan.json").write_text(plan.to_text())
    with Machine(base, plan.scene) as machine:
        machine.hold_logs()
        for step in plan.steps:
            do(machine, step)
        finish(machine)
        return Ran(Counter(machine.done), *machine.growth)


def shrink(base: Path, plan: Plan, tries: int, tell: Callable[[str], None]) -> Plan:
    """A shorter plan that fails, too, of one that does; each try is a run in a directory of its own below `base`."""
    number = 0

    def fails(steps: Sequence[Step]) -> bool:
        nonlocal number
        number += 1
        try:
            torture(base / f"try-{number}", plan.with_steps(tuple(steps)))
        except Violation as violation:
            tell(f"{len(steps)} steps fail, too: {violation}")
            return True
        return False

    return plan.with_steps(tuple(shrunk(plan.steps, fails, tries)))
