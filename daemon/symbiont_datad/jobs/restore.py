"""Restoring from a snapshot: which one, what of it, and into a directory of the user's choice (`--target`)."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from symbiont_datad.errors import DatadError
from symbiont_datad.jobs.archiving import OPTIMIZE, TEMPLATES
from symbiont_datad.jobs.context import Progress
from symbiont_datad.jobs.repository import identity
from symbiont_datad.jobs.snapshots import Named, holds, of_this_host, readable_snapshots, root_in
from symbiont_datad.report import printable
from symbiont_datad.restic import restorer
from symbiont_datad.restic.errors import Missing
from symbiont_datad.restic.find import LATEST, Finder, resolve, walk
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.restorer import Restored, Restorer, Select, below
from symbiont_datad.restic.tree import Node

_TARGET_MODE = 0o700
"""Of a target that is made here, until it gets the data directory's own: what is restored may be secret."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be restored. `root`: where the snapshot has the data directory; `node` is that directory in it.

    `paths` are relative to it; none means all that is there. `whole`: the snapshot is one of the whole directory.
    """

    id: str
    snapshot: Snapshot
    root: str
    node: Node
    paths: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the snapshot is one of the whole data directory, and not of parts of it."""
        return any(f"{self.root}/".startswith(f"{path}/") for path in self.snapshot.paths)

    @property
    def tree(self) -> bytes:
        """The id of the data directory's tree."""
        return bytes.fromhex(self.node.subtree)

    def select(self) -> Select | None:
        """Which entries are wanted; None for all."""
        return below([os.fsencode(path) for path in self.paths]) if self.paths else None


def choose(
    repository: Repository,
    root: str,
    wanted: str,
    paths: Sequence[str],
    host: str | None,
    tags: Sequence[str],
    *,
    beside: bool = False,
) -> Wanted:
    """The snapshot that is meant by an id, the beginning of one, or `latest`, and the paths in it.

    `latest` is the newest that has all these paths, of this host if it has made any, else of any; or of `host`, and
    with all `tags`. Where neither paths nor tags are given, snapshots of templates or of a collection alone are passed
    over. `root` is the data directory, to which the paths are relative, or, with `beside`, a root beside it. Raises
    DatadError, or RepositoryError.
    """
    finder = Finder(repository)
    if wanted != LATEST:
        return _found(finder, resolve(repository, wanted), root, paths, beside=beside)
    listed, _ = readable_snapshots(repository)
    fitting = [one for one in listed if host in (None, one[1].hostname) and {*tags} <= {*one[1].tags}]
    if host is None:
        fitting = of_this_host(fitting, identity().hostname)
    if not paths and not tags:
        fitting = [one for one in fitting if not {TEMPLATES, OPTIMIZE} & {*one[1].tags}] or fitting
    if not fitting:
        raise DatadError(f"{repository.backend.location}: there is no snapshot{' like that' if listed else ''}")
    problem: DatadError | Missing | None = None
    for one in reversed(fitting):
        try:
            return _found(finder, one, root, paths, beside=beside)
        except DatadError as error:
            problem = problem or error
    if len(fitting) == 1 and problem is not None:
        raise problem
    raise DatadError(f"no snapshot has {' and '.join(map(printable, paths))}")


def _found(finder: Finder, one: Named, root: str, paths: Sequence[str], *, beside: bool) -> Wanted:
    name, snapshot = one
    if beside and not holds(snapshot, root):
        raise DatadError(f"snapshot {name[:8]} has no directory {printable(root)}")
    there = root_in(snapshot, root)
    node = finder.find(snapshot, os.fsencode(there))
    if node is None or node.type != "dir":
        raise DatadError(f"snapshot {name[:8]} has no directory {printable(there)}")
    for path in paths:
        if finder.find(snapshot, os.fsencode(f"{there}/{path}")) is None:
            raise DatadError(f"{printable(path)}: is not in snapshot {name[:8]}")
    return Wanted(name, snapshot, there, node, tuple(path for path in paths if path) if "" not in paths else ())


def entries(repository: Repository, wanted: Wanted) -> Iterator[tuple[bytes, Node]]:
    """Everything that would be restored, with its path relative to the data directory. Raises RepositoryError."""
    select = wanted.select()
    for path, node in walk(repository, wanted.tree, enter=select):
        if select is None or select(path, node):
            yield path, node


def restore_to(
    repository: Repository,
    wanted: Wanted,
    target: Path,
    progress: Progress,
    stopping: Callable[[], bool] = lambda: False,
) -> Restored:
    """Restore into a directory, which is made if need be; what it holds already is never overwritten.

    What could not be restored is named in the result. Raises OSError, or RepositoryError.
    """
    made = not target.exists()
    target.mkdir(mode=_TARGET_MODE, parents=True, exist_ok=True)
    # The user wrote the path, so links in it are followed; none below it is.
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return restore_into(repository, wanted, fd, progress, stopping, own=made and not wanted.paths)
    finally:
        os.close(fd)


def restore_into(
    repository: Repository,
    wanted: Wanted,
    fd: int,
    progress: Progress,
    stopping: Callable[[], bool],
    *,
    own: bool,
) -> Restored:
    """The same for an open directory; with `own` it gets the data directory's mode, owner and times itself."""
    # The restorer counts into the job's own progress, which has the same attributes as its own.
    shown = cast(restorer.Progress, progress)
    progress.begin("restore")
    one = Restorer(repository, fd, restorer.Options(stopping=stopping), shown)
    return one.restore(wanted.tree, select=wanted.select(), own=wanted.node if own else None)
