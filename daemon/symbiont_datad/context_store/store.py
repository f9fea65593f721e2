"""The store: save, edit, load, list, delete."""

import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from symbiont_datad.context_store.backups import Backups
from symbiont_datad.context_store.document import (
    Context,
    ContextWarning,
    DamagedContext,
    InvalidContext,
    Loaded,
    NoContext,
    id_of,
    new_context,
    system_time,
    written,
)
from symbiont_datad.context_store.files import Files, Found, Key, lstat, meaning_of, names_of
from symbiont_datad.formats.context import encoded, text_of
from symbiont_datad.formats.state_name import Role, backup_name, context_name, name_of
from symbiont_datad.fsops.agent_lock import hold_agent
from symbiont_datad.fsops.read import opened_regular
from symbiont_datad.fsops.rewrite import replace_file
from symbiont_datad.fsops.root import Tree, resolve, sync_directory
from symbiont_datad.fsops.write import quarantine
from symbiont_datad.quantities import format_duration

if TYPE_CHECKING:
    from symbiont_datad.settings import FilePersistenceConfig

_PATIENCE_S = 60.0
_DELETED, _WHY_DELETED = "context_deleted", "an agent's program deleted it (ContextStore.delete)"


class ContextStore:
    """The contexts below a data directory. Any number of threads may use one store.

    ::

        store = ContextStore.from_settings()
        with store.edit(agent_id) as context:
            context["metadata"]["mood"] = "curious"
    """

    def __init__(self, config: "FilePersistenceConfig", *, key: "Path | Callable[[], str] | None" = None) -> None:
        """`key`: the file with the age identity, for `enable_encryption` and what is sealed; or what returns one.

        Nothing is read or made before it is needed.
        """
        self._config = config
        self._tree = Tree(resolve(str(config.root_data_dir)))
        self._key = Key(key)
        self._files = Files(self._tree, f"{config.state_dir}/agents", self._key)
        self._backups = Backups()

    @classmethod
    def from_settings(cls) -> "ContextStore":
        """A store with the settings, and the key, of the daemon. Raises SettingsError."""
        from symbiont_datad.settings import FilePersistenceConfig, load

        settings = load().settings
        config = FilePersistenceConfig(**{name: getattr(settings, name) for name in FilePersistenceConfig.model_fields})
        secret = settings.encryption.key
        return cls(config, key=secret.get_secret_value if secret is not None else settings.encryption.key_file)

    def save(self, context: Mapping[str, Any]) -> None:
        """Save a context; the one that is there becomes a backup, of which the newest `backup_count` stay.

        When this returns, the context is on the disk. Whatever happens before, the old one or the new one is there,
        whole. Raises InvalidContext, Locked when somebody else is at it for a minute, or OSError.
        """
        agent, text = written(context)
        with self._alone(agent):
            self._save(agent, text)

    @contextmanager
    def edit(self, agent_id: str | UUID, *, create: bool = False) -> Iterator[Context]:
        """Change a context: what the block makes of it is saved, if it ends without an exception.

        Meanwhile nobody else saves this agent through a store, so nothing is lost when several change one context.
        `updated_at` is set. With `create`, an agent that has none gets an empty one. Raises as `load` and `save` do.
        """
        agent = id_of(agent_id)
        with self._alone(agent):
            try:
                loaded = self._load(agent)
                context = loaded.context
                if loaded.note:
                    warnings.warn(loaded.note, ContextWarning, stacklevel=3)
            except NoContext:
                if not create:
                    raise
                context = new_context(agent)
            yield context
            context["updated_at"] = system_time(time.time())
            same, text = written(context)
            if same != agent:
                raise InvalidContext(f"agent_id: must stay {agent}")
            self._save(agent, text)

    def load(self, agent_id: str | UUID) -> Loaded:
        """An agent's context. If its file is damaged: its newest good backup, with a note, and a ContextWarning.

        Raises NoContext, DamagedContext, SettingsError when it is sealed and the key can't be had, or OSError.
        """
        loaded = self._load(id_of(agent_id))
        if loaded.note:
            warnings.warn(loaded.note, ContextWarning, stacklevel=2)
        return loaded

    def exists(self, agent_id: str | UUID) -> bool:
        """Whether an agent has a context, in whatever form, damaged or not."""
        names = names_of(id_of(agent_id))
        try:
            with self._files.directory() as fd:
                return any(lstat(name, fd) is not None for name in names)
        except FileNotFoundError:
            return False

    def list(self) -> Sequence[str]:
        """The ids of the agents that have a context, sorted."""
        try:
            with self._files.directory() as fd:
                meanings = [name_of(name) for name in self._files.names(fd)]
        except FileNotFoundError:
            return []
        agents = {one.agent for one in meanings if one is not None and one.role is Role.CONTEXT}
        return sorted(agent for agent in agents if _is_id(agent))

    def delete(self, agent_id: str | UUID) -> Sequence[Path]:
        """Move an agent's context and its backups to quarantine; hand back where they are now. Its archives stay.

        Raises NoContext when there is nothing of it, or OSError.
        """
        agent = id_of(agent_id)
        with self._alone(agent), self._files.directory() as fd:
            names = [name for name in names_of(agent) if lstat(name, fd) is not None]
            names += self._files.backups(fd, agent)
            paths, now = [f"{self._files.path}/{name}" for name in names], time.time()
            moved = [quarantine(self._tree, path, kind=_DELETED, reason=_WHY_DELETED, now=now) for path in paths]
        if not moved:
            raise NoContext(f"{agent}: has no context")
        return [Path(self._tree.path, one) for one in moved]

    # Saving

    def _save(self, agent: str, text: bytes) -> None:
        """Backup, file, the file that it replaces if that has another name, surplus backups: in this order."""
        gzip, sealed = self._config.enable_compression, self._config.enable_encryption
        data = encoded(text, gzip=gzip)
        if sealed:
            data = self._key.seal(data)
        name, now = context_name(agent, gzip=gzip, sealed=sealed), int(time.time())
        with self._files.directory() as fd:
            found = {other: stat for other in names_of(agent) if (stat := lstat(other, fd)) is not None}
            # One in the other mode that is as open as this one stays: only the daemon knows which the runtime loads.
            old = [other for other in found if other == name or meaning_of(other).sealed != sealed]
            made = [self._back_up(fd, other, now) for other in old]
            like = found.get(name) or next((found[other] for other in old), None)
            replace_file(fd, name, data, like)
            sync_directory(fd)
            for other in old:
                if other != name:
                    os.unlink(other, dir_fd=fd)
            self._backups.rotate(fd, agent, made, self._config.backup_count)

    def _back_up(self, fd: int, name: str, now: int) -> str:
        """Copy a context to a backup. With encryption on, what was in the open is sealed on the way."""
        meaning = meaning_of(name)
        with opened_regular(name, fd) as file_fd, open(file_fd, "rb", closefd=False) as file:
            like, data = os.fstat(file_fd), file.read()
        sealed = meaning.sealed or self._config.enable_encryption
        backup = backup_name(meaning.agent, now, gzip=meaning.gzip, sealed=sealed)
        if sealed and not meaning.sealed:
            data = self._key.seal(data)
        # Each backup has another name: one for what is not whole yet, so that crashes don't leave one each.
        replace_file(fd, backup, data, like, temporary=f".{meaning.agent}.backup.tmp")
        return backup

    @contextmanager
    def _alone(self, agent: str) -> Iterator[None]:
        """Hold the lock on an agent; the directories are made if they are missing and may be made."""
        mine, here = _held(), (self._tree.path, agent)
        if here in mine:
            raise RuntimeError(f"this thread is in an edit of agent {agent}: change its context there")
        try:
            with self._files.directory():
                pass
        except FileNotFoundError:
            if not self._config.auto_create_dirs:
                raise
            self._config.ensure_directories()
        with (
            self._tree.directory(self._config.state_dir) as state_fd,
            hold_agent(state_fd, agent, patience_s=_PATIENCE_S),
        ):
            mine.add(here)
            try:
                yield
            finally:
                mine.discard(here)

    # Loading

    def _load(self, agent: str, *, again: bool = True) -> Loaded:
        own = context_name(agent, gzip=self._config.enable_compression, sealed=self._config.enable_encryption)
        try:
            with self._files.directory() as fd:
                found = self._files.look_until_it_holds_still(fd, own)
                if found is not None and found.usable:
                    note = "" if found.verdict.good else f"{own} {found.problem}: the runtime does not load it"
                    return self._loaded(found, note)
                others = [one for name in names_of(agent) if name != own and (one := self._files.look(fd, name))]
                if found is None and not others:
                    if again:
                        return self._load(agent, again=False)  # it may just have been saved in another form
                    raise NoContext(f"{agent}: has no context")
                return self._instead(fd, agent, own, found, [one for one in others if one.usable])
        except FileNotFoundError:
            raise NoContext(f"{agent}: has no context") from None

    def _instead(self, fd: int, agent: str, own: str, found: Found | None, others: Sequence[Found]) -> Loaded:
        """What is loaded when the file that should hold a context does not: the newest by what it says itself."""
        backups = self._files.backups(fd, agent)
        looked_at = (self._files.look(fd, name) for name in backups)
        good = next((one for one in looked_at if one is not None and one.usable), None)
        choice = [*others, *([good] if good is not None else [])]
        problem = found.problem if found is not None else "is not there"
        if not choice:
            have = f"none of its {len(backups)} backups is whole" if backups else "it has no backup"
            raise DamagedContext(f"{own} {problem}, and {have}")
        best = max(choice, key=lambda one: one.verdict.written_at)
        at = min(best.verdict.written_at, time.time())  # whatever an agent's clock was
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        age = format_duration(max(time.time() - at, 0.0))
        return self._loaded(best, f"{own} {problem}; loaded instead: {best.name}, as of {when} ({age} ago)")

    def _loaded(self, found: Found, note: str) -> Loaded:
        try:
            context: Context = json.loads(text_of(found.data))
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; values nested too deep
            raise DamagedContext(f"{found.name} is JSON that Python can't hold: {error}") from None
        return Loaded(context, Path(self._tree.path, self._files.path, found.name), note)


_thread = threading.local()


def _held() -> set[tuple[str, str]]:
    """The agents that this thread holds, each with its root."""
    if not hasattr(_thread, "held"):
        _thread.held = set()
    held: set[tuple[str, str]] = _thread.held
    return held


def _is_id(text: str) -> bool:
    """Whether it is the name of a file that the runtime would load."""
    try:
        return id_of(text) == text
    except InvalidContext:
        return False
