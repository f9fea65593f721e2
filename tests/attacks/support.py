"""What the attacks share: a tree in hostile hands, and a canary outside it that must not change."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from symbiont_datad.layout import Layout
from tests.guard.keeping import Seen, layout_at, made, picture
from tests.support import NOBODY, Tree, build_tree

CANARY: Tree = {
    "secret": b"root:hash",
    "passwd": b"root:x:0:0",
    "logs": {"agents": {"a.log": b"not yours"}, "audit": {"security.log": b"nor this"}},
    "agents": {"x": {}},
    "collections": {},
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A data directory that belongs to the attacker, kept by root, and the canary beside it."""

    layout: Layout
    root: Path
    canary: Path
    before: dict[str, Seen]

    def assert_unharmed(self) -> None:
        """Nothing outside the tree has another content, mode, owner or time than before."""
        assert self.before == picture(self.canary)


def scene(base: Path, **settings: object) -> Scene:
    """Set the stage in `base`, which the attacker can enter."""
    canary = build_tree(base / "canary", CANARY)
    for path in [canary, *canary.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    root = base / "theirs/home/data"
    layout = made(layout_at(root, **settings))
    for path in [base / "theirs", *(base / "theirs").rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    return Scene(layout, root, canary, picture(canary))


@contextmanager
def attacker(attack: Callable[[], None]) -> Iterator[None]:
    """A process of user nobody that attacks in a loop, as fast as it can, for as long as the block runs.

    What an attack raises as OSError counts for nothing: the guard was quicker.
    """
    pid = os.fork()
    if pid == 0:
        _attack(attack)
    try:
        yield
        assert (0, 0) == os.waitpid(pid, os.WNOHANG), "the attacker has given up"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _attack(attack: Callable[[], None]) -> NoReturn:
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        deadline = time.monotonic() + 50
        while time.monotonic() < deadline:
            try:
                attack()
            except OSError:
                continue
    finally:
        os._exit(1)
