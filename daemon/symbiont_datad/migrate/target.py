"""Where legacy data goes, as plain data: the places in the tree, and the settings that migration goes by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from symbiont_datad.fsops.root import Tree, resolve

if TYPE_CHECKING:
    from symbiont_datad.settings import Settings


class Compat(StrEnum):
    """How the old place goes on working until the migration is finished."""

    NONE = "none"
    SYMLINK = "symlink"
    """The old directory is a link to the new one."""
    MIRROR = "mirror"
    """The daemon brings over what is written to the old directory."""


@dataclass(frozen=True, slots=True)
class Target:
    """The tree that data is brought into; its places are relative to the root.

    `agents` is for contexts, `backups` for the files of a legacy backup directory that are no backups of contexts,
    `collections` for vectors, `logs` for logs. `gzip`: the runtime's mode, which says how contexts are stored.
    `modes`: those of directories that have one of their own. `repository`: where snapshots are, None in an object
    store. `legacy`: more places to look for legacy data. `compat` and `both_ways` are what is used where nothing else
    is asked for.
    """

    root: str
    daemon_dir: Path
    agents: str = "state/agents"
    backups: str = "state/backups"
    collections: str = "vector_db/collections"
    logs: str = "logs/system"
    gzip: bool = True
    backup_count: int = 3
    mode: int = 0o755
    modes: Mapping[str, int] = field(default_factory=dict)
    repository: Path | None = None
    legacy: tuple[Path, ...] = ()
    automatic: bool = False
    compat: Compat = Compat.NONE
    both_ways: bool = False

    @property
    def tree(self) -> Tree:
        """The way to the tree."""
        return Tree(self.root)

    @property
    def directory(self) -> Path:
        """Where the journal of a migration lies, and what is kept to be put back."""
        return self.daemon_dir / "migration"

    @property
    def journal_path(self) -> Path:
        """The journal."""
        return self.directory / "journal.db"

    @property
    def lock_path(self) -> Path:
        """The lock of whoever migrates, takes back, finishes or mirrors."""
        return self.daemon_dir / "locks" / "migration.lock"

    @property
    def extension(self) -> str:
        """How the name of a context ends in the runtime's mode."""
        return ".json.gz" if self.gzip else ".json"

    def mode_of(self, path: str) -> int:
        """The mode of a directory that has to be made."""
        return self.modes.get(path) or self.modes.get(path.rpartition("/")[0]) or self.mode


NOWHERE = Target("", Path())
"""The target of who never migrates."""


def target_of(settings: "Settings") -> Target:
    """The target that the settings declare. The root's links are followed here, once: they are the user's own."""
    migration = settings.migration
    modes = {"" if path == "." else path: mode for path, mode in settings.permissions.items()}
    return Target(
        root=resolve(str(settings.root_data_dir)),
        daemon_dir=settings.daemon_dir,
        agents=f"{settings.state_dir}/agents",
        backups=f"{settings.state_dir}/backups",
        collections=f"{settings.vector_db_dir}/collections",
        logs=f"{settings.logs_dir}/system",
        gzip=settings.enable_compression,
        backup_count=settings.backup_count,
        mode=settings.dir_permissions,
        modes=modes,
        repository=settings.repository_path(),
        legacy=tuple(migration.legacy),
        automatic=migration.automatic,
        compat=Compat(migration.compat),
        both_ways=migration.both_ways,
    )
