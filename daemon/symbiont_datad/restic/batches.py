"""The files of a directory on their way to the threads that read them, a batch at a time, and those that are known."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from symbiont_datad.restic.chunk import WHOLE
from symbiont_datad.restic.directory import Directory, Read
from symbiont_datad.restic.facts import Fact
from symbiont_datad.restic.spool import Spool

_FILES = 64
_BYTES = 1 << 20
_AHEAD = 64
"""Batches of a very large directory that are read before their nodes are put away."""

Results = Future[list[Read | OSError]]
Submit = Callable[[list[bytes], list[int]], Results]
"""Names and their owners -> what becomes of them."""


class Taker(Protocol):
    """Takes the entries of a directory, one after the other."""

    def known(self, record: bytes, name: bytes, node: bytes) -> None:
        """Take a file whose node is known."""

    def read(self, record: bytes, name: bytes, found: Fact, *, was_there: bool) -> None:
        """Have a file read. `was_there`: an earlier snapshot has one of this name."""

    def finish(self) -> None:
        """There are no more."""


@dataclass(slots=True)
class _Batch:
    names: list[bytes] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, name: bytes, found: Fact) -> None:
        self.names.append(name)
        self.owners.append(found.uid)
        self.size += found.size

    @property
    def full(self) -> bool:
        return len(self.names) == _FILES or self.size >= _BYTES


class Unordered:
    """Nodes that are known go to the directory, and so does what will become of the others."""

    def __init__(self, here: Directory, submit: Submit) -> None:
        self._here = here
        self._submit = submit
        self._batch = _Batch()

    def known(self, _record: bytes, name: bytes, node: bytes) -> None:
        """As the protocol has it."""
        self._here.nodes[name] = node

    def read(self, _record: bytes, name: bytes, found: Fact, *, was_there: bool) -> None:
        """As the protocol has it. Whether it was there is asked later."""
        if found.size > WHOLE:  # alone: it is for no process of the crew
            self._here.reads.append((self._submit([name], [found.uid]), [name]))
            return
        self._batch.add(name, found)
        if self._batch.full:
            self.finish()

    def finish(self) -> None:
        """As the protocol has it."""
        batch = self._batch
        if batch.names:
            self._here.reads.append((self._submit(batch.names, batch.owners), batch.names))
            self._batch = _Batch()


@dataclass(slots=True)
class _Run:
    """Entries in a row. `nodes` has None for each of the batch; `was_there` is about those."""

    records: list[bytes] = field(default_factory=list)
    nodes: list[bytes | None] = field(default_factory=list)
    was_there: list[bool] = field(default_factory=list)
    batch: _Batch = field(default_factory=_Batch)
    results: Results | None = None


class Ordered:
    """Nodes go to a spool, in the order in which their entries come; no more than a few batches are under way."""

    def __init__(
        self, spool: Spool, submit: Submit, settle: Callable[[bytes, Read | OSError, bool], bytes | None]
    ) -> None:
        """`settle`: name, what became of it, whether it was there -> its node, if it has one."""
        self._spool = spool
        self._submit = submit
        self._settle = settle
        self._runs: deque[_Run] = deque()
        self._run = _Run()

    def known(self, record: bytes, _name: bytes, node: bytes) -> None:
        """As the protocol has it."""
        run = self._run
        if not run.records and not self._runs:
            self._spool.add(record, node)
            return
        run.records.append(record)
        run.nodes.append(node)
        if len(run.nodes) >= _FILES * 4:
            self._close()

    def read(self, record: bytes, name: bytes, found: Fact, *, was_there: bool) -> None:
        """As the protocol has it."""
        alone = found.size > WHOLE  # it is for no process of the crew
        if alone:
            self._close()
        run = self._run
        run.records.append(record)
        run.nodes.append(None)
        run.was_there.append(was_there)
        run.batch.add(name, found)
        if alone or run.batch.full:
            self._close()

    def finish(self) -> None:
        """As the protocol has it; all files are read when this returns."""
        self._close()
        while self._runs:
            self._put_away(self._runs.popleft())

    def _close(self) -> None:
        run, self._run = self._run, _Run()
        if run.batch.names:
            run.results = self._submit(run.batch.names, run.batch.owners)
        self._runs.append(run)
        while self._runs and (len(self._runs) > _AHEAD or _is_there(self._runs[0])):
            self._put_away(self._runs.popleft())

    def _put_away(self, run: _Run) -> None:
        read = iter(zip(run.batch.names, run.results.result() if run.results else (), run.was_there, strict=True))
        for record, known in zip(run.records, run.nodes, strict=True):
            node = known if known is not None else self._settle(*next(read))
            if node is not None:
                self._spool.add(record, node)


def _is_there(run: _Run) -> bool:
    return run.results is None or run.results.done()
