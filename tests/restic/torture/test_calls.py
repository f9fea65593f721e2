"""Each call that changes a repository, killed or failing: strace finds the calls, and has them go wrong one by one."""

import itertools
import shutil
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from symbiont_datad.restic.backend import FileKind
from symbiont_datad.restic.prune import forget
from symbiont_datad.restic.repository import open_repository
from tests.restic.torture.peers import check_with_restic
from tests.restic.torture.tracing import Call, Traced, hit, moments, traced
from tests.restic.torture.working import Ledger, Source, Task, leftovers, local, start

PASSWORD = "a password"
_RESTIC_EVERY = 15
_TRIES = 3


@dataclass
class Scene:
    """A repository with work to do, of which each run gets a copy; and what its snapshots hold."""

    base: Path
    source: Source
    ledger: Ledger
    number: int = 0

    def task(self, work: str) -> Task:
        """A task for a fresh copy."""
        self.number += 1
        place = self.base / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.base / "repository", place)
        return Task(work, str(place), PASSWORD, source=str(self.source.path), new_password="another password", keep=2)

    def trace(self, work: str, *, all_threads: bool, inject: str = "", path: str = "") -> tuple[Traced, Ledger]:
        """Do the task on a copy, and see that nothing was lost."""
        task = self.task(work)
        ledger = Ledger(task.place, PASSWORD)
        ledger.snapshots = dict(self.ledger.snapshots)
        done = traced(task, self.base / "log", all_threads=all_threads, inject=inject, path=path)
        assert not any(what[0] == "crashed" for what in done.told), done.told
        ledger.note(done.told, self.source.tree)
        ledger.check(self.source.tree)
        if inject and self.number % _RESTIC_EVERY == 0:
            check_with_restic(task.place, ledger.password)
        return done, ledger

    def go_on(self, work: str, ledger: Ledger) -> None:
        """Whoever comes next needs no help, and leaves no lock."""
        worker = start(replace(self.task_on(ledger, work), new_password="a third password"))
        worker.go_on()
        told = list(worker.told())
        assert 0 == worker.end(), told
        ledger.note(told, self.source.tree)
        ledger.check(self.source.tree)
        assert [] == list(local(Path(ledger.place)).list(FileKind.LOCK))

    def task_on(self, ledger: Ledger, work: str) -> Task:
        """The same task for whoever comes next."""
        return Task(work, ledger.place, ledger.password, source=str(self.source.path), keep=2)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Five snapshots; packs that are needed in part; a tree that has changed."""
    place, source = tmp_path / "repository", Source(tmp_path / "source", 1)
    ledger = Ledger(str(place), PASSWORD)
    for work in ("init", *["backup"] * 5):
        worker = start(Task(work, str(place), PASSWORD, source=str(source.path)))
        worker.go_on()
        ledger.note(list(worker.told()), source.tree)
        assert 0 == worker.end()
        for _ in range(3):
            source.change()
    for directory in (place / "data").iterdir():
        if not any(directory.iterdir()):
            directory.rmdir()  # a copy is made faster without
    return Scene(tmp_path, source, ledger)


def forgotten(scene: Scene) -> None:
    """Forget what the next prune would forget, so that it begins with what only these snapshots needed."""
    repository = open_repository(local(scene.base / "repository"), PASSWORD)
    old = sorted(repository.snapshots(), key=lambda pair: pair[1].time)[:-2]
    forget(repository, [name for name, _ in old])
    scene.ledger.snapshots = {name: scene.ledger.snapshots[name] for name, _ in repository.snapshots()}


def again(seen: Sequence[Call], killed: Container[str]) -> Iterator[tuple[Call, str]]:
    """What else to try for each kind of call that was not killed yet: which thread does what is not given, so others
    may have come first each time. By the path where the next run has it too, then by the numbers once more.
    """
    for tried in range(_TRIES):
        for call in seen:
            if call.what not in killed:
                yield call, call.path if tried == 0 else ""


@pytest.mark.slow
@pytest.mark.parametrize("work", ["backup", "prune", "change_key"])
def test_a_kill_at_each_call_loses_nothing_and_needs_no_help(scene: Scene, work: str) -> None:
    """Killed just before any write, fsync, rename or removal, in the first thread or any other: every snapshot that was
    acknowledged is whole, restic finds no fault, and the next run does its work.
    """
    seen: list[Call] = []
    killed: set[str] = set()
    for also_forgotten, all_threads in itertools.product((False, True), repeat=2):
        if also_forgotten:
            if work != "prune":
                break
            forgotten(scene)
        whole, _ = scene.trace(work, all_threads=all_threads)
        assert 0 == whole.code
        seen += whole.calls
        for call, number in moments(whole.calls):
            inject = f"{call}:signal=KILL:when={number}"
            done, ledger = scene.trace(work, all_threads=all_threads, inject=inject)
            if done.code == 0:  # this time no thread came as far
                continue
            assert -9 == done.code, (inject, done.told)
            killed.add(hit(done.calls, call, number))
            scene.go_on(work, ledger)
    for missed, path in again(seen, killed):
        inject = f"{missed.call}:signal=KILL:when={1 if path else missed.number}"
        done, ledger = scene.trace(work, all_threads=True, inject=inject, path=path)
        if done.code == -9:
            killed.add(done.calls[0].what if path else hit(done.calls, missed.call, missed.number))
            scene.go_on(work, ledger)
    assert {call.what for call in seen} == killed
    assert {"fsync locks", "writev locks", "rename locks", "unlink locks"} < killed


FAULTS = {
    "EIO": ("error=EIO:when={}", "RepositoryError", "input/output error"),
    "ENOSPC": ("error=ENOSPC:when={}+", "NoSpace", "no space left on device"),
}
"""One fault, or a disk that is full from then on; and how that is told."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_each_call_of_a_backup_is_told_and_loses_nothing(scene: Scene, fault: str) -> None:
    """Whichever write, fsync or rename fails: one clear sentence, no temporary file; every snapshot that was
    acknowledged is whole, and the next backup needs no help.
    """
    how, kind, why = FAULTS[fault]
    wanted = {f"{call} {part}" for call in ("writev", "fsync", "rename") for part in ("data", "index", "snapshots")}
    told: set[str] = set()
    for all_threads in (False, *[True] * _TRIES):  # as in `again`
        if wanted <= told:
            break
        whole, _ = scene.trace("backup", all_threads=all_threads)
        for call, number in moments([one for one in whole.calls if "unlink" not in one.call]):
            inject = f"{call}:{how.format(number)}"
            done, ledger = scene.trace("backup", all_threads=all_threads, inject=inject)
            if done.code == 0:  # this time no thread came as far
                assert [] == [one for one in done.calls if one.number == number], inject
                continue
            assert 1 == done.code
            assert ("failed", kind) == done.told[-1][:2]
            message = done.told[-1][2]
            assert message.endswith(why), message
            assert f"{ledger.place}/" in message
            assert "\n" not in message
            told.add(hit(done.calls, call, number))
            assert [] == leftovers(ledger.place)
            scene.go_on("backup", ledger)
    assert wanted <= told


@pytest.mark.slow
def test_what_leads_to_packs_is_gone_for_good_before_they_go(scene: Scene) -> None:
    """After a loss of power no snapshot and no index file is back that needs a pack which is gone: the directories are
    synced before the first pack goes.
    """
    whole, _ = scene.trace("prune", all_threads=True)
    order = [call.what for call in whole.calls]
    first_pack = order.index("unlink data")
    for part in ("snapshots", "index"):
        last = max(at for at, what in enumerate(order[:first_pack]) if what == f"unlink {part}")
        assert f"fsync {part}/" in order[last:first_pack]
