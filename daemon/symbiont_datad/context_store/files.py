"""An agent's files: read, opened if they are sealed, and judged."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from symbiont_datad.errors import DatadError, SettingsError
from symbiont_datad.formats.context import Damage, Verdict, judge, judge_sealed
from symbiont_datad.formats.state_name import Role, StateName, context_name, name_of
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.root import Tree, readable
from symbiont_datad.fsops.secret import OWNER_ALONE, read_secret
from symbiont_datad.report import printable

_LOOKS, _PAUSE_S = 20, 0.05


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was read: its name, what that means, the content (opened if it was sealed), the verdict on it."""

    name: str
    meaning: StateName
    data: bytes
    verdict: Verdict

    @property
    def usable(self) -> bool:
        """Whether there is a context in it, in whatever form."""
        return self.verdict.good or self.verdict.kind is Damage.OTHER_EXTENSION

    @property
    def problem(self) -> str:
        """What is wrong with it, to follow its name."""
        kind = self.verdict.kind
        return f"is {kind.value.replace('_', ' ')} ({self.verdict.detail})" if kind else ""


class Key:
    """The age identity: the file that holds it, or what returns it. It is read when it is needed, each time."""

    def __init__(self, source: Path | Callable[[], str] | None) -> None:
        self._source = source

    def __str__(self) -> str:
        return printable(str(self._source)) if isinstance(self._source, Path) else "the key"

    def identity(self) -> str:
        """The identity. Raises SettingsError."""
        from symbiont_datad.formats.age import LARGEST, NoIdentity, read_identity  # its library takes 3 MiB

        if self._source is None:
            raise SettingsError("the store was made without a key: ContextStore(config, key=…)")
        try:
            if not isinstance(self._source, Path):
                return read_identity(self._source().encode())
            return read_identity(read_secret(self._source.expanduser(), OWNER_ALONE, LARGEST))
        except OSError as error:
            raise SettingsError(f"{self}: can't be read: {error.strerror or error}") from None
        except (NoIdentity, DatadError) as error:
            raise SettingsError(f"{self}: {error}") from None

    def seal(self, data: bytes) -> bytes:
        """Content that only this key opens. Raises SettingsError."""
        from symbiont_datad.formats.age import recipient_of, seal

        return seal(data, recipient_of(self.identity()))


class Files:
    """The directory of contexts. `fd` is always its pinned descriptor."""

    def __init__(self, tree: Tree, path: str, key: Key) -> None:
        """`path`: of the directory, relative to the root."""
        self.tree = tree
        self.path = path
        self._key = key

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Its descriptor. Raises FileNotFoundError, NotADirectoryError or UnsafePath."""
        with self.tree.directory(self.path) as fd:
            yield fd

    def names(self, fd: int) -> Sequence[str]:
        """Everything that is in it."""
        with readable(".", fd) as listing:
            return os.listdir(listing)

    def backups(self, fd: int, agent: str) -> Sequence[str]:
        """An agent's backups, the newest first."""
        found = [(meaning_of(name).seconds, name) for name in self.names(fd) if is_of(name, agent, Role.BACKUP)]
        return [name for _, name in sorted(found, reverse=True)]

    def look(self, fd: int, name: str) -> Found | None:
        """Read and judge a file; None when there is none. Raises SettingsError when its seal needs another key."""
        meaning = meaning_of(name)
        try:
            with opened_regular(name, fd) as file_fd, open(file_fd, "rb", closefd=False) as file:
                data = file.read()
        except FileNotFoundError:
            return None
        promised = meaning.gzip if meaning.role is Role.CONTEXT else None
        verdict = judge_sealed(data) if meaning.sealed else judge(data, gzip=promised)
        if not verdict.unopened:
            return Found(name, meaning, data, verdict)
        from symbiont_datad.formats.age import SealBroken, unseal

        try:
            opened = unseal(data, self._key.identity())
        except SealBroken as error:
            return Found(name, meaning, data, Verdict(Damage.NOT_SEALED, str(error)))
        if opened is None:
            raise SettingsError(f"{name}: is sealed to another key than {self._key}")
        return Found(name, meaning, opened, judge(opened, gzip=promised))

    def look_until_it_holds_still(self, fd: int, name: str) -> Found | None:
        """The same. The runtime writes in place: what looks damaged may be whole a moment later."""
        found = self.look(fd, name)
        for _ in range(_LOOKS):
            stat = lstat(name, fd)
            if found is None or found.usable or stat is None or abs(time.time() - stat.st_mtime) > _LOOKS * _PAUSE_S:
                break
            time.sleep(_PAUSE_S)
            found = self.look(fd, name)
        return found


def names_of(agent: str) -> Sequence[str]:
    """The names that an agent's context can have."""
    return [context_name(agent, gzip=gzip, sealed=sealed) for sealed in (False, True) for gzip in (True, False)]


def meaning_of(name: str) -> StateName:
    """What the name of a context or of a backup says."""
    found = name_of(name)
    assert found is not None
    return found


def is_of(name: str, agent: str, *roles: Role) -> bool:
    """Whether a name is one of an agent's, with one of these roles."""
    found = name_of(name) if name.startswith(agent) else None
    return found is not None and found.agent == agent and found.role in roles


def lstat(name: str, fd: int) -> os.stat_result | None:
    """What lstat says of a name; None when there is nothing."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
