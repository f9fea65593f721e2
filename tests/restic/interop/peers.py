"""The two who share a repository: restic, and ourselves."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symbiont_datad.restic import find
from symbiont_datad.restic.archived import Archived, Options, snapshot_of
from symbiont_datad.restic.archiver import Archiver
from symbiont_datad.restic.checker import Problem, check
from symbiont_datad.restic.known import Memory
from symbiont_datad.restic.records import Snapshot
from symbiont_datad.restic.repository import Repository
from symbiont_datad.restic.restorer import Restored, Restorer
from symbiont_datad.restic.tree import Node
from symbiont_datad.restic.writer import Added, Writer
from tests.restic.making import IDENTITY, PASSWORD, reopen

LIMIT_S = 300


@dataclass(frozen=True)
class Restic:
    """One restic at work on one repository."""

    program: str
    version: tuple[int, ...]
    repository: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path, code: int = 0, password: str = PASSWORD) -> str:
        """What restic prints. Fails when it ends otherwise, or (when all is well) has a complaint."""
        done = self.start(*arguments, password=password)
        output, complaint = (stream.decode("utf-8", "replace") for stream in done.communicate(timeout=LIMIT_S))
        assert code == done.returncode, f"{arguments}: {output[-3000:]}{complaint[-3000:]}"
        assert code or not complaint.strip(), f"{arguments}: {complaint[-3000:]}"
        return output + complaint

    def start(
        self, *arguments: str | Path, password: str = PASSWORD, stdin: int = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        """restic as a process that runs."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.repository.parent), "RESTIC_PASSWORD": password}
        return subprocess.Popen(
            [self.program, "--no-cache", "-r", str(self.repository), *map(str, arguments)],
            env=environment | self.environment,
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def json(self, *arguments: str | Path) -> list[Any]:
        """The JSON documents that restic prints, one a line."""
        return [json.loads(line) for line in self(*arguments, "--json").splitlines() if line.strip()]

    def back_up(self, *arguments: str | Path) -> dict[str, Any]:
        """Make a snapshot; hand back the summary."""
        summary: dict[str, Any] = self.json("backup", *arguments)[-1]
        assert "summary" == summary["message_type"]
        return summary

    def check(self) -> None:
        """All of the repository is whole, and nothing about it is noteworthy."""
        output = self("check", "--read-data")
        assert "no errors were found" in output
        assert not re.search("warning|not referenced|duplicate|unused", output, re.IGNORECASE), output

    def restore(self, snapshot: str, source: Path, target: Path, *arguments: str) -> Path:
        """Restore a whole snapshot; hand back where the source is then."""
        self("restore", snapshot, "--target", target, *arguments)
        return target / source.relative_to("/")


def version_of(program: str) -> tuple[int, ...]:
    """The version of a restic."""
    text = subprocess.run([program, "version"], capture_output=True, text=True, check=True, timeout=60).stdout
    match = re.match(r"restic (\d+)\.(\d+)", text)
    assert match, text
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Taken:
    """A snapshot that we made."""

    name: str
    archived: Archived
    added: Added


@dataclass(frozen=True)
class Ours:
    """Ourselves at work on one repository, each time as a new process would be."""

    repository: Path

    def snapshots(self) -> list[tuple[str, Snapshot]]:
        """All snapshots, newest first."""
        return sorted(reopen(self.repository).snapshots(), key=lambda pair: pair[1].at, reverse=True)

    def back_up(
        self,
        source: Path,
        options: Options | None = None,
        memory: Memory | None = None,
        writer: Callable[[Repository], Writer] = Writer,
    ) -> Taken:
        """Make a snapshot. Without `options` the newest snapshot of this path is its parent."""
        repository = reopen(self.repository)
        if options is None:
            options = Options(IDENTITY, parents=tuple(p for p in self.snapshots() if str(source) in p[1].paths)[:1])
        target = os.fsencode(source)
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with writer(repository) as sink:
                archived = Archiver(repository, sink, options, memory).archive([(target, fd)])
        finally:
            os.close(fd)
        snapshot = snapshot_of(archived, sink.added, options, [target], time.time_ns())
        return Taken(repository.save_snapshot(snapshot), archived, sink.added)

    def check(self) -> tuple[Problem, ...]:
        """What is wrong with any part of the repository."""
        return check(reopen(self.repository), choose=sorted).problems

    def node(self, name: str, path: Path) -> Node:
        """What a snapshot says of a path."""
        repository = reopen(self.repository)
        node = find.node_at(repository, repository.snapshot(name), os.fsencode(path))
        assert node is not None
        return node

    def restore(self, name: str, source: Path, target: Path) -> Restored:
        """Restore what a snapshot holds of `source` to `target`, which is made."""
        repository = reopen(self.repository)
        node = self.node(name, source)
        target.mkdir()
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return Restorer(repository, fd).restore(bytes.fromhex(node.subtree), own=node)
        finally:
            os.close(fd)
