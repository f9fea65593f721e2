"""A short torture of one seed; `DATAD_TORTURE_STEPS` makes it longer, `DATAD_SEED` takes another one."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import contexts
from tests.torture.machine import Machine
from tests.torture.model import Violation
from tests.torture.plan import Scene, Step, plan_of
from tests.torture.shrink import shrunk
from tests.torture.truth import finish, settle
from tests.torture.workload import do, plan_for, torture

STEPS = int(os.environ.get("DATAD_TORTURE_STEPS", "40"))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_nothing_is_lost_whatever_agents_and_kills_do(tmp_path: Path) -> None:
    """Saves, crashes, kills, links, corruption in random order: the model finds nothing wrong."""
    plan = plan_for(int(os.environ.get("DATAD_SEED", "1")), Scene(), STEPS)
    ran = torture(tmp_path, plan)
    assert len(plan.steps) == ran.steps.total()


def write_outside(one: Machine) -> None:
    """As if a link had been followed."""
    (one.canary / "file").write_text("touched")


def lose_history(one: Machine) -> None:
    """As if a rule had been misread."""
    next(path for path in one.root.glob("prompts/history/*/*.json")).write_bytes(b"{}")


def heal_wrongly(one: Machine) -> None:
    """As if the state of another time had been put back."""
    name = next(iter(one.model.saved))
    one.context(name).write_bytes(contexts.zipped(contexts.context(name)))


def lose_a_line(one: Machine) -> None:
    """As if a rotation had cut too much."""
    log = next(log for log, count in one.model.lines.items() if count)
    one.model.lines[log] += 1


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [write_outside, lose_history, heal_wrongly, lose_a_line])
def test_the_model_sees_what_is_wrong(tmp_path: Path, wrong: Callable[[Machine], None]) -> None:
    """Otherwise the test above would prove nothing."""
    with Machine(tmp_path, Scene()) as one:
        for name in ("save", "write_history", "append"):
            do(one, Step(name, 1))
        settle(one)
        wrong(one)
        with pytest.raises(Violation):
            finish(one)


def test_a_plan_that_was_written_down_is_the_same() -> None:
    """So a run can be made again; and the same seed gives the same plan."""
    plan = plan_for(7, Scene("xfs", volume=True, s3=True), 50)
    assert plan == plan_of(plan.to_text())
    assert plan == plan_for(7, plan.scene, 50)
    assert plan != plan_for(8, plan.scene, 50)


def test_only_steps_that_a_scene_has_are_planned() -> None:
    """Nobody fills a disk that is not the torture's own."""
    needing = {"corrupt", "fill_disk", "free_disk", "unmount", "cut_network", "mend_network"}
    assert {"corrupt"} == needing & {step.name for step in plan_for(1, Scene(), 2000).steps}
    assert needing - {"corrupt"} == needing & {step.name for step in plan_for(1, Scene("xfs", True, True), 2000).steps}


@pytest.mark.parametrize("needed", [(3,), (0, 99), (17, 40, 41, 77)])
def test_what_fails_is_made_as_short_as_it_can_be(needed: tuple[int, ...]) -> None:
    """Given tries enough; given few, it is shorter and still fails."""

    def fails(items: Sequence[int]) -> bool:
        tried.append(items)
        return {*needed} <= {*items}

    tried: list[Sequence[int]] = []
    assert [*needed] == shrunk(range(100), fails, 1000)
    tried.clear()
    few = shrunk(range(100), fails, 4)
    assert 4 >= len(tried)
    assert {*needed} <= {*few}
