"""What the tests of migration share: contexts of any time, old places and trees, and a look at all that is in them."""

import gzip
import hashlib
import os
import signal
import stat
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from uuid import UUID

from symbiont_datad.migrate.legacy import Kind, Source
from symbiont_datad.migrate.migration import Result, alone, migrate_source, open_journal
from symbiont_datad.migrate.records import SourceRow, Step
from symbiont_datad.migrate.target import Target
from symbiont_datad.migrate.undo import Undone, undo
from symbiont_datad.report import Action
from tests import contexts

NOW = 1_795_000_000
"""Seconds since the epoch; what tests make is older than that."""
HOUR = 3600


def agent(number: int) -> str:
    """An agent's id."""
    return str(UUID(int=number, version=4))


def context(text: str = "naïve ✓", at: float | None = None, *, zipped: bool = False) -> bytes:
    """A context. `at`: the time of its last change that it tells of, in seconds since the epoch; None: of none.

    (A clock that nobody has set says 1970, which tells nothing.)
    """
    value = contexts.context(text=text, updated_at=contexts.system_time(int(at or 0)))
    return contexts.zipped(value) if zipped else contexts.plain(value)


def write(path: Path, content: bytes, at: float = NOW - 48 * HOUR, mode: int = 0o644) -> Path:
    """A file that was last written at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, (at, at))
    return path


@dataclass
class Progress:
    """A progress at which nobody looks."""

    phase: str = ""
    files: int = 0
    bytes: int = 0
    current: str = ""

    def begin(self, phase: str, total_files: int = 0, total_bytes: int = 0) -> None:
        """Begin another part of the work."""
        self.phase, self.files, self.bytes = phase, 0, 0


@dataclass
class Home:
    """A user's home with a tree and an old place of contexts, and what is done there."""

    base: Path
    gzip: bool = True
    backup_count: int = 3
    steps: list[Step] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The data directory."""
        return self.base / ".symbiont" / "data"

    @property
    def agents(self) -> Path:
        """Where contexts are."""
        return self.root / "state" / "agents"

    @property
    def old(self) -> Path:
        """The old place of contexts."""
        return self.base / "project" / "data" / "contexts"

    @property
    def target(self) -> Target:
        """The tree as a target."""
        root = os.path.realpath(self.root)
        return Target(
            root, Path(f"{os.path.dirname(root)}/datad"), gzip=self.gzip, backup_count=self.backup_count,
            repository=Path(f"{os.path.dirname(root)}/backups"),
        )  # fmt: skip

    def source(self, kind: Kind = Kind.CONTEXTS, at: Path | None = None) -> Source:
        """The old place, or another one, as a source."""
        place = at or self.old
        return Source(os.path.join(os.path.realpath(place.parent), place.name), kind)

    def migrate(self, source: Source | None = None) -> Result:
        """Bring it over, as the command does."""

        def told(_row: SourceRow, steps: object) -> None:
            assert isinstance(steps, list)
            self.steps += steps

        with alone(self.target), open_journal(self.target) as journal:
            return migrate_source(source or self.source(), self.target, journal, Progress(), on_steps=told)

    def undo(self) -> tuple[Undone, list[Action]]:
        """Take it back, as the command does."""
        from symbiont_datad.migrate.journal import Journal

        actions: list[Action] = []
        with alone(self.target):
            return undo(self.target, Journal(self.target.journal_path), actions.extend), actions

    def live(self, number: int) -> Path:
        """The context of an agent in the tree, in the mode in force."""
        return self.agents / f"{agent(number)}{self.target.extension}"


Seen = Mapping[str, tuple[object, ...]]


def everything(*places: Path) -> Seen:
    """All that is in some places, each thing with its kind, mode, owner, time and content, to be compared."""
    found: dict[str, tuple[object, ...]] = {}
    for place in places:
        for path in [place, *sorted(place.rglob("*"))] if place.is_dir() and not place.is_symlink() else [place]:
            if not os.path.lexists(path):
                continue
            at = path.lstat()
            if stat.S_ISLNK(at.st_mode):
                found[str(path)] = "link", os.readlink(path)
            elif stat.S_ISDIR(at.st_mode):
                found[str(path)] = "directory", stat.S_IMODE(at.st_mode), at.st_uid
            elif stat.S_ISREG(at.st_mode):
                found[str(path)] = "file", stat.S_IMODE(at.st_mode), at.st_uid, at.st_mtime_ns, path.read_bytes()
            else:
                found[str(path)] = "special", at.st_mode
    return found


def texts(*places: Path) -> set[str]:
    """The SHA-256 of each file's content below some places, and of what is in it if it is gzip."""
    found = set()
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found.add(hashlib.sha256(content).hexdigest())
                if content[:2] == b"\x1f\x8b":
                    try:
                        found.add(hashlib.sha256(gzip.decompress(content)).hexdigest())
                    except (OSError, EOFError):
                        continue
    return found


def lost(old: Path, *places: Path) -> list[Path]:
    """The files of an old place whose content is in none of the others, not as it is and not packed or unpacked."""
    there = texts(*places)
    missing = []
    for path in old.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            names = {hashlib.sha256(content).hexdigest()}
            if content[:2] == b"\x1f\x8b":
                try:
                    names.add(hashlib.sha256(gzip.decompress(content)).hexdigest())
                except (OSError, EOFError):
                    pass
            if not names & there:
                missing.append(path)
    return missing


def unloadable(agents: Path, extension: str) -> list[str]:
    """The contexts that the runtime would list and not load, with what is wrong."""
    from symbiont_datad.formats.context import judge
    from symbiont_datad.formats.state_name import Role, name_of

    wrong = []
    for path in sorted(agents.iterdir()):
        name = name_of(path.name)
        if name is None or name.role is not Role.CONTEXT or not path.is_file():
            continue
        verdict = judge(path.read_bytes(), gzip=name.gzip)
        if verdict.kind is not None or not path.name.endswith(extension) or name.gzip != (extension == ".json.gz"):
            wrong.append(f"{path.name}: {verdict.kind or 'other mode'}")
    return wrong


def dies(work: Callable[[], object]) -> None:
    """Do it in a process that ends by SIGKILL, which `work` brings about itself, as by `die`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads exist; the child only works and dies
        pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert -signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die(*_words: object, **_named: object) -> NoReturn:
    """What a kill is."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives it")
