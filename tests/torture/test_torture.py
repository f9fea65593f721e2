"""A short torture of one seed; `DATAD_TORTURE_STEPS` makes it longer, `DATAD_SEED` takes another one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import contexts
from tests.torture.__main__ import torture
from tests.torture.workload import Torture, Violation

STEPS = int(os.environ.get("DATAD_TORTURE_STEPS", "40"))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_nothing_is_lost_whatever_agents_and_kills_do(tmp_path: Path) -> None:
    """Saves, crashes, kills, links, corruption in random order: the model finds nothing wrong."""
    seed = int(os.environ.get("DATAD_SEED", "1"))
    done = torture(tmp_path / f"seed-{seed}", seed, STEPS)
    assert STEPS == done.total()


def write_outside(one: Torture) -> None:
    """As if a link had been followed."""
    (one.canary / "file").write_text("touched")


def lose_history(one: Torture) -> None:
    """As if a rule had been misread."""
    next(path for path in one.root.glob("prompts/history/*/*.json")).write_bytes(b"{}")


def heal_wrongly(one: Torture) -> None:
    """As if the state of another time had been put back."""
    name = next(iter(one.model.saved))
    one._path(name).write_bytes(contexts.zipped(contexts.context(name)))


def lose_a_line(one: Torture) -> None:
    """As if a rotation had cut too much."""
    log = next(log for log, count in one.model.lines.items() if count)
    one.model.lines[log] += 1


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [write_outside, lose_history, heal_wrongly, lose_a_line])
def test_the_model_sees_what_is_wrong(tmp_path: Path, wrong: Callable[[Torture], None]) -> None:
    """Otherwise the test above would prove nothing."""
    with Torture(tmp_path, 1) as one:
        one.save()
        one.write_history()
        one.append()
        one.settle()
        wrong(one)
        with pytest.raises(Violation):
            one.finish()
