"""The watch on free space: what it says and runs when a disk fills up, on a real one of 4 MiB."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import Tree
from symbiont_datad.guard.guard import Report
from symbiont_datad.guard.space import SpaceWatch, Watched
from symbiont_datad.quantities import Share
from symbiont_datad.report import JobReport, Outcome
from symbiont_datad.retention.pressure import Marks

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

MARKS = Marks(Share(percent=20), Share(percent=50), Share(percent=0), Share(percent=0))


class Scene:
    """A data directory on a small disk, a watch on it, and what that has told and run.

    Asked to `relieve`, a job removes `helps` files of 256 KiB; `advice` is what it says then.
    """

    def __init__(self, base: Path, repository: str = "") -> None:
        self.base = base
        self.root = base / "small/data"
        self.told: list[Report] = []
        self.ran: list[str] = []
        self.helps = 100
        self.advice = ""
        self.prunes = 0
        self.now = 1000.0
        watched = Watched(Tree(str(self.root)), repository, MARKS)
        self.watch = SpaceWatch(watched, self.told.append, self.run, 30.0, lambda: self.now)

    def fill(self, leaving: int = 0) -> None:
        """Write files until no more than that is free."""
        number = len(os.listdir(self.root))
        with suppress(OSError):
            while os.statvfs(self.root).f_bavail * 4096 > leaving:
                (self.root / f"{number}").write_bytes(bytes(256 << 10))
                number += 1

    def run(self, name: str) -> JobReport | None:
        """Stands in for the job's process."""
        self.ran.append(name)
        going = sorted(os.listdir(self.root))[: self.helps] if name == "relieve" else []
        for file in going:
            (self.root / file).unlink()
        actions = len(going) if name == "relieve" else self.prunes
        return JobReport(name, Outcome.DONE, 0.0, 0.0, message=self.advice, actions_total=actions)

    def look(self, later_s: float = 1.0) -> float:
        """One look, so many seconds after the last."""
        self.now += later_s
        return self.watch.look()

    @property
    def events(self) -> list[str]:
        """The names of what was told."""
        return [report.event for report in self.told]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Sets the stage."""
    where = tmp_path / "small"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(where)], check=True)
    (where / "data").mkdir()
    yield lambda **options: Scene(tmp_path, **options)
    subprocess.run(["umount", str(where)], check=True)


def test_while_there_is_room_nothing_happens(scene: Callable[..., Scene]) -> None:
    """The next look comes after a second on so small a disk, while nothing shrinks."""
    one = scene()
    assert 1.0 == one.look()
    assert ([], []) == (one.told, one.ran)


def test_a_disk_that_shrinks_is_looked_at_more_often(scene: Callable[..., Scene]) -> None:
    """So that the mark is not passed unseen."""
    one = scene()
    one.look()
    (one.root / "x").write_bytes(bytes(2 << 20))
    assert 0.2 <= one.look() < 1.0
    assert [] == one.ran


def test_pressure_begins_and_ends_with_one_event_each(scene: Callable[..., Scene]) -> None:
    """Room is made at once; that it is over is said only when it has stayed so for a while."""
    one = scene()
    one.fill()
    assert 1.0 >= one.look()
    assert (["pressure_began"], ["relieve"]) == (one.events, one.ran)
    one.fill()
    one.look(2.0)
    assert (["pressure_began"], ["relieve", "relieve"]) == (one.events, one.ran)
    assert [] == [warning for warning in one.watch.warnings() if "nearly full" not in warning]
    one.look(10.0)
    assert [] == one.watch.warnings()
    one.look(20.0)
    assert ["pressure_began", "pressure_ended"] == one.events
    assert str(one.root) == one.told[1].fields["path"]


def test_when_nothing_more_may_go_that_is_said_once_and_tried_less_often(scene: Callable[..., Scene]) -> None:
    """With what would help; the pause doubles, and what frees something ends it."""
    one = scene()
    one.helps, one.advice = 0, "a backup would help"
    one.fill()
    for _ in range(60):
        one.look(10.0)
    assert ["pressure_began", "pressure_unrelieved"] == one.events
    assert "a backup would help" in str(one.told[1].fields["reason"])
    assert 4 <= one.ran.count("relieve") <= 8
    assert ["nearly full"] == ["nearly full" for warning in one.watch.warnings() if "is nearly full: 0 B of" in warning]
    one.helps = 100
    for _ in range(60):
        one.look(10.0)
    assert "pressure_ended" == one.events[-1]


def test_a_repository_on_the_same_disk_is_pruned_when_nothing_else_helps(scene: Callable[..., Scene]) -> None:
    """Once an hour at most."""
    one = scene(repository="placeholder")
    repository = one.base / "small/backups"
    repository.mkdir()
    one.watch.reload(Watched(Tree(str(one.root)), str(repository), MARKS))
    one.helps = 0
    one.fill()
    for _ in range(30):
        one.look(10.0)
    assert 1 == one.ran.count("prune")


def test_a_repository_on_its_own_disk_has_its_own_pressure(scene: Callable[..., Scene]) -> None:
    """Removing files of the tree would not help there: it is pruned, and the advice is another one."""
    one = scene()
    repository = one.base / "small/data"
    tree = one.base / "elsewhere"
    tree.mkdir()
    one.watch.reload(Watched(Tree(str(tree)), str(repository), Marks(Share(amount=2 << 20), Share(amount=3 << 20))))
    one.fill()
    one.look()
    assert (["prune"], ["pressure_began", "pressure_unrelieved"]) == (one.ran, one.events)
    assert "keep fewer snapshots" in str(one.told[1].fields["reason"])
    found = one.watch.spaces()
    assert {"tree": False, "repository": True} == {name: pressed for name, (_, pressed) in found.items()}
    assert found["repository"][0].total_bytes < found["tree"][0].total_bytes


def test_what_cant_be_asked_is_left_alone(tmp_path: Path) -> None:
    """No tree, no repository: the next look is soon enough."""
    watched = Watched(Tree(str(tmp_path / "gone")), str(tmp_path / "gone too"), MARKS)
    watch = SpaceWatch(watched, lambda _: None, lambda _: None)
    assert 10.0 == watch.look()
    watch.stop()  # before it was started: it isn't any more
    watch.start()
    watch.stop()
    assert ([], {}) == (watch.warnings(), watch.spaces())


def test_the_thread_looks_by_itself_and_is_replaced_when_dead(scene: Callable[..., Scene]) -> None:
    """It ends when it is told to."""
    one = scene()
    one.fill()
    one.watch.start()
    one.watch.start()
    one.watch.stop()
    assert "relieve" in one.ran
