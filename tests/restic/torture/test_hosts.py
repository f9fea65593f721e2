"""Three hosts back up into one repository in an object store, and a fourth prunes it meanwhile."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from symbiont_datad.restic.places import backend_at
from symbiont_datad.restic.prune import Progress, survey
from symbiont_datad.restic.repository import open_repository
from tests.restic.backends.servers import BUCKET, S3Server, moto_server, rclone_server
from tests.restic.making import read_snapshot
from tests.restic.torture.peers import restic, resticses
from tests.restic.torture.working import Source, Task, start
from tests.support import Tree, read_tree

PASSWORD = "a password"
HOSTS = ("anna", "bert", "cleo")
TURNS = 6
PRUNES = 3
PATIENCE_S = 60.0


def work(task: Task) -> list[tuple[Any, ...]]:
    """Do a task in a process of its own, again as long as somebody else has the lock; hand back what it told.

    rclone, too, is given another try: rarely, while it is busy, it denies that there is a bucket.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        worker = start(task)
        worker.go_on()
        told = list(worker.told())
        code = worker.end()
        if code == 0:
            return told
        assert (1, "failed") == (code, told[-1][0]), (task.work, task.hostname, told)
        assert told[-1][1] in ("RepositoryLocked", "LockLost", "NoRepository"), (task.work, task.hostname, told)
        assert time.monotonic() < until, told
        time.sleep(random.uniform(0, 0.1))


@pytest.mark.slow
@pytest.mark.parametrize("serve", [moto_server, rclone_server])
def test_hosts_share_a_repository_that_another_prunes(
    tmp_path: Path, serve: Callable[[Path], AbstractContextManager[S3Server]]
) -> None:
    """They begin without a repository, all at once, with trees that have much in common. Each backs up its tree, which
    changes, at least six times, and until the fourth has pruned three times: for that nobody else may be at work. In
    the end restic finds the repository whole, and each snapshot that was not forgotten holds what it should.
    """
    with serve(tmp_path) as server:
        place = f"s3://{BUCKET}/shared"
        over = threading.Event()
        trees: dict[str, Tree] = {}
        forgotten: set[str] = set()
        prunes = 0

        def task(name: str, host: str, source: str = "") -> Task:
            return Task(
                name, place, PASSWORD, source, str(tmp_path / f"memory of {host}") if source else "",
                hostname=host, environ=server.environ, keep=2, settle_s=0.2,
            )  # fmt: skip

        def host(name: str) -> None:
            source = Source(tmp_path / name, 7, changes=HOSTS.index(name))
            work(task("join", name))
            turn = 0
            while turn < TURNS or (prunes < PRUNES and not over.is_set()):
                turn += 1
                for what in work(task("backup", name, str(source.path))):
                    if what[0] == "saved":
                        trees[str(what[1])] = source.tree
                source.change()
                time.sleep(random.uniform(0, 2))

        def pruner() -> None:
            nonlocal prunes
            while not over.is_set():
                try:
                    told = work(task("prune", "dora"))
                except BaseException:
                    over.set()
                    raise
                forgotten.update(*(what[1] for what in told if what[0] == "forgetting"))
                prunes += 1

        with ThreadPoolExecutor(4) as pool:
            hosts = [pool.submit(host, name) for name in HOSTS]
            while not trees and not any(future.done() for future in hosts):
                time.sleep(0.1)
            fourth = pool.submit(pruner)
            try:
                for future in hosts:
                    future.result()
            finally:
                over.set()
            fourth.result()

        repository = open_repository(backend_at(place, server.environ), PASSWORD)
        left = {name for name, _ in repository.snapshots()}
        assert trees.keys() - forgotten == left
        assert len(HOSTS) * 2 <= len(left) < len(trees)
        for name in left:
            assert trees[name] == read_snapshot(repository, name)
        found = survey(repository, Progress(), lambda: False)
        assert not found.inventory.lost
        assert not found.spare
        check(server, place, left, trees, tmp_path)


def check(server: S3Server, place: str, left: set[str], trees: dict[str, Tree], at: Path) -> None:
    """See that every restic finds no fault, and restores each snapshot as it was."""
    address = place.replace("s3://", f"s3:{server.environ['AWS_ENDPOINT_URL']}/")
    for number, program in enumerate(resticses()):
        said = restic(program, address, PASSWORD, "check", "--read-data", environ=server.environ)
        assert "no errors were found" in said
        for name in left:
            target = at / f"{number}-{name}"
            restic(program, address, PASSWORD, "restore", name, "--target", str(target), environ=server.environ)
            (host,) = (path for path in (target / at.relative_to("/")).iterdir())
            assert trees[name] == read_tree(host)
