"""Path components swapped between check and use, by a hostile process in a tight loop (CVE-2018-6954)."""

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from symbiont_datad.fsops.root import QUARANTINE
from symbiont_datad.fsops.write import quarantine
from symbiont_datad.guard.guard import GuardSettings
from symbiont_datad.guard.reconcile import reconcile
from symbiont_datad.retention.rules import Rule
from tests.attacks.support import Scene, attacker, scene
from tests.guard.keeping import NOW, SETTINGS, again, eventually, guarding, is_directory
from tests.jobs.making import run, settings_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")

FAST: GuardSettings = replace(SETTINGS, reconcile_interval_s=0.01, backoff_after=1_000_000)


_libc = ctypes.CDLL(None, use_errno=True)
_EXCHANGE = 2  # renameat2(2)


def exchange(one: bytes, other: bytes) -> None:
    """Swap what two paths name, in one step that leaves neither name free."""
    if _libc.renameat2(-100, one, -100, other, _EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


def flicker(at: Path, target: Path, times: int) -> None:
    """Let a directory and a link to `target` take turns at one path, the directory with a mode to repair."""
    aside = at.parent / f".aside-{at.name}"
    if not aside.is_symlink():
        if aside.exists():
            aside.rename(at.parent / f".junk-{time.monotonic_ns()}")
        aside.symlink_to(target)
    fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        names = os.fsencode(at), os.fsencode(aside)
        for _ in range(times):
            os.fchmod(fd, 0o777)
            exchange(*names)
            exchange(*names)
    finally:
        os.close(fd)


def attack_on(stage: Scene) -> Callable[[], None]:
    """Swap directories on every level, and now and then the root itself."""
    turns = iter(range(10**9))
    targets = (
        ("logs", "logs"),
        ("logs/agents", "agents"),
        ("state/agents", "agents"),
        ("vector_db/collections", "agents"),
    )

    def attack() -> None:
        turn = next(turns)
        path, target = targets[turn % len(targets)]
        if turn % 50 == 49:
            os.rename(stage.root, stage.root.parent / f"old-{turn}")
            os.symlink(stage.canary, stage.root)
        elif turn % 7 == 0:
            os.rmdir(stage.root / path)
            os.symlink(stage.canary / target, stage.root / path)
        else:
            flicker(stage.root / path, stage.canary / target, 100)

    return attack


def hold_out(stage: Scene, seconds: float) -> None:
    """Let the guard keep the tree while it is attacked; then the canary is whole, and soon the tree is too."""
    with guarding(stage.layout, FAST, settle=False) as running:
        with attacker(attack_on(stage)):
            time.sleep(seconds)
        assert len(running.reports) > 10, "there was no fight"
        assert eventually(lambda: () == reconcile(stage.layout, now=NOW, repairing=False).drifts, 10)
        assert running.guard.alive()
    stage.assert_unharmed()
    assert () == again(stage.layout).drifts


@pytest.mark.parametrize("owner", [{}, {"owner": "65534", "group": "0"}], ids=["no owner", "owner"])
def test_swapped_directories_lead_nowhere(open_path: Path, owner: dict[str, object]) -> None:
    """While root repairs modes and owners, an attacker swaps directories for links: nothing outside changes."""
    hold_out(scene(open_path, **owner), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("owner", [{}, {"owner": "65534", "group": "0"}], ids=["no owner", "owner"])
def test_swapped_directories_lead_nowhere_for_long(open_path: Path, owner: dict[str, object]) -> None:
    """The same, for fifteen seconds."""
    hold_out(scene(open_path, **owner), 15.0)


def test_quarantine_under_attack_moves_only_what_is_in_the_tree(open_path: Path) -> None:
    """While the directory above a file is swapped for a link, quarantine takes the tree's own file or fails."""
    stage = scene(open_path)
    taken = 0

    def attack() -> None:
        flicker(stage.root / "logs/agents", stage.canary / "logs/agents", 100)
        flicker(stage.root / "logs", stage.canary / "logs", 100)

    with attacker(attack):
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            for path in (stage.root / "logs/agents/a.log", stage.root / "logs/.aside-agents/a.log"):
                try:
                    fd = os.open(path.parent, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
                except OSError:
                    continue
                if os.fstat(fd).st_uid != 0:  # the canary's are root's
                    os.close(os.open("a.log", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
                os.close(fd)
            try:
                quarantine(stage.layout.tree, "logs/agents/a.log", kind="damaged", reason="test", now=time.time())
                taken += 1
            except OSError:
                continue
    assert taken
    assert all(b"" == item.read_bytes() for item in (stage.root / QUARANTINE).glob("*/item"))
    stage.assert_unharmed()


def test_the_parents_are_swapped(open_path: Path) -> None:
    """When the directory that holds the root is swapped for a link to the canary, nothing is made in the canary."""
    stage = scene(open_path)
    home = stage.root.parent
    aside = home.parent / "aside"

    def attack() -> None:
        os.rename(home, aside)
        os.symlink(stage.canary, home)
        os.unlink(home)
        os.rename(aside, home)

    with guarding(stage.layout, FAST, settle=False) as running:
        with attacker(attack):
            time.sleep(1.0)
        if home.is_symlink():
            home.unlink()
        if not home.exists():
            aside.rename(home)
        assert eventually(lambda: is_directory(stage.root / "logs/audit") and running.guard.keeping(), 10)
    stage.assert_unharmed()


@pytest.mark.parametrize("whole", [False, True], ids=["files", "directories"])
def test_retention_under_attack_moves_and_removes_only_what_is_in_the_tree(open_path: Path, whole: bool) -> None:
    """While the directories that a rule is about are swapped for links, runs of retention, their undo and the end of
    their cells take nothing outside the tree.
    """
    stage = scene(open_path)
    rule = Rule("logs", "logs", max_age_s=1.0, whole=whole)
    settings = settings_for(open_path / "unused", require_snapshot=False, keep_if_open=False, undo_window_s=1.0)
    settings = replace(settings, layout=replace(stage.layout, rules=(rule,)))
    turns = iter(range(10**9))

    def attack() -> None:
        turn = next(turns)
        for folder in ("logs/agents", "logs"):
            try:
                fd = os.open(stage.root / folder, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
                os.close(os.open(f"{turn}.log", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
                os.utime(f"{turn}.log", (0, 0), dir_fd=fd)
                os.close(fd)
            except OSError:
                continue
            flicker(stage.root / folder, stage.canary / folder, 20)
        for cell in (stage.root / QUARANTINE).glob("*"):
            if turn % 3 == 0:
                (cell / "files").rename(cell / "was")
                (cell / "files").symlink_to(stage.canary)

    moved = 0
    with attacker(attack):
        until = time.monotonic() + 1.0
        now = NOW
        while time.monotonic() < until:
            now += 2.0
            moved += run("clean", settings, now=now).report.actions_total
            run("undo", settings, now=now + 0.5)
    assert moved
    stage.assert_unharmed()
